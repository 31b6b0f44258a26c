# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154,SC2034,SC2016 # "top" comes from run, tests use the rest
# What a test works in, and what it says its expectations with.

# world: the folder "repo" with the scripts, the folder "linux" with as much
# of Linux as they look at, the same as "known", which the series is for, and
# no trace of the user's settings.
world() {
	# shellcheck disable=SC2046 # a list
	unset LINUX KNOWN MIRROR FORCE V WAIT JOBS TOPDOWN_BUILD RESULTS RESULTS_DIR MAKEFLAGS $(git rev-parse --local-env-vars)
	export HOME="$PWD/home" XDG_CACHE_HOME="$PWD/cache"
	export GIT_CONFIG_GLOBAL="$PWD/gitconfig" GIT_CONFIG_NOSYSTEM=1
	git config --file gitconfig user.name Tester
	git config --file gitconfig user.email tester@localhost
	mkdir -p home repo/scripts repo/base repo/host
	for file in "$top"/scripts/*; do
		[ ! -f "$file" ] || cp -p "$file" repo/scripts/
	done
	cp -rp "$top/scripts/cover-letter" repo/scripts/
	cp -p "$top/host/deb" repo/host/
	cp "$top"/base/* repo/base/ 2>/dev/null || :
	cat >repo/series <<-'END'
	# What this file is.

	# Part topdown: all of it

	# First heading
	END
	tiny_linux linux
	cp -r linux known
	export LINUX="$PWD/linux" KNOWN="$PWD/known"
	root=$PWD
	repo=$PWD/repo
	tree=$repo/build/linux
}

tiny_linux() {
	mkdir -p "$1/arch/x86/kvm/vmx" "$1/tools/testing/selftests/kvm"
	printf 'VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\nNAME = x\n' >"$1/Makefile"
	seq 60 >"$1/arch/x86/kvm/pmu.c"
	seq 60 >"$1/arch/x86/kvm/vmx/pmu_intel.c"
	seq 30 >"$1/tools/testing/selftests/kvm/Makefile.kvm"
	echo '*.o' >"$1/.gitignore"
}

# edit FILE LINE TEXT: change a line of the tiny Linux.
edit() {
	sed -i "s/^$2\$/$3/" "$tree/$1"
}

# commit SUBJECT [BODY]: all edits of the tree.
commit() {
	git -C "$tree" add -A
	git -C "$tree" commit -q -m "$1" ${2:+-m "$2"}
}

# three_commits: a plain one; one with a new file; one in another folder.
three_commits() {
	"$repo/scripts/tree"
	edit arch/x86/kvm/pmu.c 20 twenty
	commit 'KVM: x86/pmu: First' 'Its body.'
	edit tools/testing/selftests/kvm/Makefile.kvm 5 'x86\/a_test'
	mkdir -p "$tree/tools/testing/selftests/kvm/x86"
	printf 'int a;\n\tint tab;  \n' >"$tree/tools/testing/selftests/kvm/x86/a_test.c"
	commit 'KVM: selftests: Second "quoted" & $odd'
	edit arch/x86/kvm/vmx/pmu_intel.c 40 forty
	commit 'KVM: VMX: Third'
	"$repo/scripts/refresh"
}

# two_parts: three_commits, of which the last is in a part "lazy".
two_parts() {
	three_commits
	sed -i 's|^.*0003-KVM-VMX-Third.patch$|\n# Part lazy: the rest\n&  # alone|' "$repo/series"
	printf 'KVM: VMX: Third things\n\nWhat\n====\n\n  1  one patch\n' >"$repo/scripts/cover-letter/lazy.txt"
}

first=arch/x86/kvm/0001-KVM-x86-pmu-First.patch
new_file=tools/testing/selftests/kvm/x86/a_test.c

# snapshot: all files of the repository with their hashes and modes.
snapshot() {
	(cd "$repo" && find . -path ./build -prune -o -type f -printf '%m ' -exec sha256sum {} \; | sort -k 3)
}

# fails COMMAND...: it must fail, with one line on standard error, kept in "said".
fails() {
	if "$@" >out 2>said; then
		echo "succeeded but must fail: $*"
		return 1
	fi
	if [ "$(grep -c . said)" -ne 1 ]; then
		echo "$* said $(grep -c . said) lines instead of one: $(cat said)"
		return 1
	fi
}

# has FILE PATTERN
has() {
	grep -qe "$2" "$1" || {
		echo "$1 has no '$2': $(head -n 5 "$1")"
		return 1
	}
}

# same A B
same() {
	[ "$1" = "$2" ] || {
		echo "'$1' is not '$2'"
		return 1
	}
}

skip() {
	echo "$*"
	exit 4
}
