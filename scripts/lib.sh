# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2034 # what is set here is for the scripts
# What every script here shares. A script sets "top" to the root of the
# repository and reads this file.

me=${0##*/}
: "${top:?a script sets it before it reads lib.sh}"

# One line on standard error: what is wrong and what to do.
die() {
	unwatch
	printf '%s: %s\n' "$me" "$*" >&2
	exit 1
}

say() {
	printf '%s: %s\n' "$me" "$*"
}

# watch COMMAND...: until "unwatch", or the end of the script, tell now and then what
# COMMAND prints and how long that has taken: on a terminal in place, else on a line of
# its own, twice a minute (each PROGRESS seconds). Locks, which are 8 and 9, are not kept.
watch() {
	[ -z "${V:-}" ] || return 0
	tell "$@" 8>&- 9>&- &
	watcher=$!
}

unwatch() {
	[ -n "${watcher:-}" ] || return 0
	kill -KILL "$watcher" 2>/dev/null || :
	wait "$watcher" 2>/dev/null || :
	watcher=
	[ ! -t 1 ] || printf '\r\033[K'
}

tell() {
	since=$(date +%s)
	told=0
	every=${PROGRESS:-30}
	[ ! -t 1 ] || every=2
	while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
		seconds=$(($(date +%s) - since))
		[ $((seconds - told)) -ge "$every" ] || continue
		told=$seconds
		if [ -t 1 ]; then
			printf '\r%s: %s, %d s\033[K' "$me" "$("$@")" "$seconds"
		else
			say "$("$@"), $seconds s"
		fi
	done
}

build=${TOPDOWN_BUILD:-$top/build}

# For messages: the folder as seen from the root.
shown=${build#"$top/"}

# need TOOL PACKAGE: name the package of a missing program.
need() {
	command -v "$1" >/dev/null 2>&1 ||
		die "the program $1 is missing: apt-get install $2"
}

# Downloads live outside the checkout, so that a second clone and "make clean"
# cost no second download.
cache_dir() {
	if [ -n "${XDG_CACHE_HOME:-}" ]; then
		echo "$XDG_CACHE_HOME/topdown-kvm"
	elif [ -n "${HOME:-}" ]; then
		echo "$HOME/.cache/topdown-kvm"
	else
		echo "$build/cache"
	fi
}

# mirror: the address from which this machine's apt takes Debian itself (not
# its security archive). Before the first "apt-get update" the lists have no
# label, so the name of the address decides.
mirror() {
	# shellcheck disable=SC2016 # apt replaces these
	apt-get indextargets --format '$(LABEL)|$(RELEASE)|$(REPO_URI)' \
		'Created-By: Packages' 2>/dev/null |
		awk -F '|' '
		$3 !~ /^(https?|file|mirror)/ || $2 ~ /security/ { next }
		$1 == "Debian" { print 1, $3 }
		$1 != "Debian" && $3 ~ /debian\/?$/ { print 2, $3 }' |
		sort -s -k1,1n | head -n 1 | cut -d ' ' -f 2-
}

# transport: this machine's settings of apt's transport (proxies and the like).
transport() {
	apt-config dump | sed -n '/^Acquire::/p' | grep -v '^Acquire::IndexTargets'
}

# space DIRECTORY MIB WHAT: fail before a stage that would fill the disk.
space() {
	free=$(df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024) }')
	[ "$free" -ge "$2" ] ||
		die "$3 needs $2 MiB below $1, $free MiB are free: free some, then run it again"
}

# data FILE: its lines without comments and empty ones.
data() {
	sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^[[:space:]]*$/d' "$1"
}

# value FILE KEY: the value of a "KEY = VALUE" line.
value() {
	data "$1" | sed -n "s/^$2[[:space:]]*=[[:space:]]*//p"
}

# Results are lines "OUTCOME NAME" or "OUTCOME NAME: why" of a file, see lab/judge/results.h.

# add_results FILE...: those on standard input, kept together while others append to the first
# FILE.
add_results() (
	lines=$(mktemp)
	cat >"$lines"
	for file; do
		flock "$1" cat "$lines" >>"$file"
	done
	rm -f "$lines"
)

# count_results FILE [OUTCOME]: how many there are.
count_results() {
	grep -c "^${2:-[A-Z]*} " "$1" || :
}

# bad_results FILE: those that failed.
bad_results() {
	grep -e '^FAIL ' -e '^ERROR ' "$1" || :
}

# has_result OUTCOME NAME: on standard input.
has_result() {
	awk -v outcome="$1" -v name="$2" '
		{ sub(/:$/, "", $2) }
		$1 == outcome && $2 == name { found = 1 }
		END { exit !found }'
}

# Git as a tool: no hook, no configuration and no repository of the caller
# may change what it does (a hook exports GIT_DIR, for example). Every
# directory counts as safe, as with "sudo make" in a user's checkout.
clean_git() {
	for v in $(git rev-parse --local-env-vars); do
		unset "$v"
	done
	export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_ATTR_NOSYSTEM=1
	export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
	export GIT_TERMINAL_PROMPT=0 GIT_EDITOR=false
}

# linux_version DIRECTORY: as its Makefile says.
linux_version() {
	awk '$2 == "=" && /^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)/ { v[$1] = $3 }
	/^NAME/ { exit }
	END { print v["VERSION"] "." v["PATCHLEVEL"] "." v["SUBLEVEL"] v["EXTRAVERSION"] }' "$1/Makefile"
}

# config_drops FILE: of the settings on standard input those that the kernel
# configuration FILE does not have. Kconfig drops, without a word, one whose option
# does not exist or has an unmet dependency. One that is to be off or empty may be
# absent.
config_drops() {
	while read -r setting; do
		case $setting in
		*=n) ! grep -q "^${setting%=n}=" "$1" ;;
		*='""') ! grep -q "^${setting%\"}[^\"]" "$1" ;;
		*) grep -qxF -e "$setting" "$1" ;;
		esac || echo "$setting"
	done
}

# work_tree DIRECTORY COMMIT: what build/linux has in COMMIT, without edits, in a Git
# work tree of its own: build/linux is the user's.
work_tree() {
	if [ ! -e "$1/.git" ]; then
		[ -d "$build/linux/.git" ] || die "there is no $build/linux: make tree makes it"
		say "a second work tree: $1"
		rm -rf "$1"
		mkdir -p "$(dirname "$1")"
		git -C "$build/linux" worktree prune
		git -C "$build/linux" worktree add -q --detach "$1" "$2"
	fi
	git -C "$1" reset -q --hard
	git -C "$1" checkout -q --detach "$(git -C "$build/linux" rev-parse "$2")"
}

# copy_libraries PROGRAM ROOT: those that it is linked with, if it is, to their place below
# ROOT.
copy_libraries() {
	ldd "$1" 2>/dev/null | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p' |
	while read -r library; do
		[ -e "$2$library" ] || {
			mkdir -p "$2$(dirname "$library")"
			cp -L "$library" "$2$library"
		}
	done
}

# modules_of BZIMAGE: the initramfs with its modules, which may have none.
modules_of() {
	case $1 in
	*/arch/x86/boot/bzImage) echo "${1%/arch/x86/boot/bzImage}/modules.cpio.lz4" ;;
	*) echo "${1%.bzImage}.modules.cpio.lz4" ;;
	esac
}

# copy_kernel BZIMAGE TO: with its modules.
copy_kernel() {
	cp "$1" "$2"
	cp "$(modules_of "$1")" "$(modules_of "$2")"
}

# initramfs ROOT: all of it as one, to standard output; the same bytes for the same files.
initramfs() {
	(cd "$1" && find . | LC_ALL=C sort |
		cpio --quiet --create --format=newc --owner=0:0 --reproducible) | lz4 -l -9 -c -q
	# LZ4's old format, which Linux reads, has no end of its own: what follows would be data.
	head -c 4 /dev/zero
}
