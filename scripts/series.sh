# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154 # "top", "build", "base" come from the script that reads this
# The format of the series, for the scripts that read or write it.
#
# series     "# why" headings, and one path of a patch per line, in order of
#            application.
# a patch    NNNN-subject.patch in the directory of the Linux file that it
#            changes most:
#
#                Subject: KVM: x86/pmu: Do this
#                <empty line>
#                the message
#                ---
#                New-file: tools/testing/selftests/kvm/x86/new_test.c
#                <empty line>
#                diff --git ...
#
#            A file that a commit adds is not in its diff: it lies whole in
#            this repository, at its Linux path, named by a New-file line.
#            No Signed-off-by: "make export" adds that of the submitter.
#
# base/X.Y/subject.patch
#            what differs in the patch NNNN-subject.patch on Linux X.Y, which is
#            not the one that the series is for. Messages and names of new files
#            are the same for all:
#
#                why it differs
#                ---
#                Moved: arch/x86/kvm/old.c arch/x86/kvm/new.c
#                Instead-of: arch/x86/kvm/pmu.c 0123456789ab
#                <empty line>
#                diff --git ...
#
#            "Moved": the patch's diff of the first file is for the second one.
#            "Instead-of": its diff of this file is left out. The number is a
#            hash of what it adds and removes: if that changes, so may have to
#            what is here. The diff below is applied at last, and may edit what
#            the patch adds.

# series_entries: the patches, in order.
series_entries() {
	data "$top/series"
}

# patch_message PATCH: subject, empty line, body, as git commits it.
patch_message() {
	awk '
	/^---$/ { exit }
	!started && sub(/^Subject: */, "") { started = 1 }
	started { print }' "$1" | git stripspace
}

patch_subject() {
	sed -n -e '/^---$/q' -e 's/^Subject: *//p' "$1" | head -n 1
}

# patch_new_files PATCH: the New-file lines between "---" and the diff.
patch_new_files() {
	awk '
	/^diff --git / { exit }
	below && sub(/^New-file: */, "") { print }
	/^---$/ { below = 1 }' "$1"
}

# patch_diff PATCH [DIFFERENCE]: what to apply of PATCH.
patch_diff() {
	awk '
	FNR == 1 { file++ }
	file == 2 && /^Moved: / { to[$2] = $3 }
	file == 2 && /^Instead-of: / { without[$2] = 1 }
	file == 1 { line[++lines] = $0 }
	END {
		for (n = 1; n <= lines; n++) {
			if (line[n] ~ /^diff --git /) {
				split(line[n], word, " ")
				path = substr(word[3], 3)
				section = head = 1
			} else if (line[n] ~ /^@@ /)
				head = 0
			if (!section || path in without)
				continue
			if (head && path in to) {
				gsub("a/" path, "a/" to[path], line[n])
				gsub("b/" path, "b/" to[path], line[n])
			}
			print line[n]
		}
	}' "$@"
}

# patch_paths PATCH: the files of its diff.
patch_paths() {
	sed -n 's,^diff --git a/\([^ ]*\) .*,\1,p' "$1"
}

# section_hash PATCH PATH: of the lines that it adds to PATH and removes there.
section_hash() {
	patch_diff "$1" | awk -v path="$2" '
	/^diff --git / { is = $3 == "a/" path; head = 1 }
	/^@@ / { head = 0 }
	is && !head && /^[-+]/' | sha256sum | cut -c 1-12
}

# difference_lines KEY DIFFERENCE: what its lines "KEY: ..." say.
difference_lines() {
	sed -n -e '/^diff --git /q' -e "s/^$1: *//p" "$2"
}

# difference_stale PATCH DIFFERENCE: the files in PATCH that are not any more as
# they were when DIFFERENCE was made.
difference_stale() {
	difference_lines Instead-of "$2" | while read -r path hash; do
		[ "$(section_hash "$1" "$path")" = "$hash" ] || echo "$path"
	done
	difference_lines Moved "$2" | while read -r path _; do
		patch_paths "$1" | grep -qxF "$path" || echo "$path"
	done
}

# differs_on COMMIT: set $differences, the folder with what differs on the Linux
# of this base commit, to nothing if that is the one that the series is for.
differs_on() {
	version=$(git log -1 --format=%s "$1" | sed -n 's/^Linux \([0-9]*\.[0-9]*\).*/\1/p')
	differences=
	[ -z "$version" ] || [ "$version" = "$main_base" ] || [ ! -d "$top/base/$version" ] ||
		differences=base/$version
}

# difference PATCH: the file of what differs there, if there is one.
difference() {
	file=$differences/${1##*/[0-9][0-9][0-9][0-9]-}
	[ -z "$differences" ] || [ ! -f "$top/$file" ] || echo "$file"
}

# New files lie at their Linux path, where they must not meet a file of this
# repository's own.
linux_path() {
	case $1 in
	base/* | build/* | lab/* | qemu/* | scripts/* | .*) return 1 ;;
	*/*) return 0 ;;
	*) return 1 ;;
	esac
}

# series_files: all files that "make tree" puts into the kernel tree.
series_files() {
	for patch in $(series_entries); do
		[ -f "$top/$patch" ] ||
			die "series names $patch, which does not exist: scripts/check-series tells more"
		echo "$patch"
		for file in $(patch_new_files "$top/$patch"); do
			[ -f "$top/$file" ] ||
				die "$patch names the new file $file, which does not exist: scripts/check-series tells more"
			echo "$file"
		done
	done
}

# apply_to TREE DIFF: a diff on top of the series (or of its base), to a work tree
# of either Linux: where a file's contents lie in another one, to that one.
apply_to() (
	cd "$1" || exit
	if git apply --check "$2" 2>/dev/null; then
		exec git apply "$2"
	fi
	differs_on refs/topdown/base
	moves=$(cat "$top/${differences:-none}"/*.patch 2>/dev/null | sort -u |
		sed -n 's#^Moved: \([^ ]*\) \([^ ]*\)$#s,^\\(--- a\\|+++ b\\)/\1$,\\1/\2,#p')
	sed -e '/^diff --git /d' -e "$moves" "$2" | git apply -
)

# series_key: a hash of them, in their order and with their modes, and of what
# differs.
series_key() {
	files=$(series_files)
	for file in $files $(for patch in $(series_entries); do difference "$patch"; done); do
		echo "$file $(file_mode "$top/$file")"
		cat "$top/$file"
	done | sha256sum | cut -d " " -f 1
}

file_mode() {
	if [ -x "$1" ]; then echo 100755; else echo 100644; fi
}

# series_commits BASE: write one commit per entry on top of BASE, without a
# work tree, and print the last one. Author and dates are fixed, so that the
# same series gives the same hashes everywhere. Runs in the kernel tree.
series_commits() {
	commit=$1
	stamp=1577836800	# 2020-01-01; each commit a minute after the last
	GIT_INDEX_FILE=$(git rev-parse --absolute-git-dir)/topdown-index
	export GIT_INDEX_FILE
	git read-tree "$1"
	for patch in $(series_entries); do
		differ=$(difference "$patch")
		series_apply "$top/$patch" ${differ:+"$top/$differ"} ||
			die "$patch${differ:+ with $differ} does not apply on $(git log -1 --format=%s "$base"): $(head -n 1 "$build/log/apply.log")"
		stamp=$((stamp + 60))
		commit=$(patch_message "$top/$patch" | series_identity \
			git commit-tree -p "$commit" "$(git write-tree)")
	done
	rm -f "$GIT_INDEX_FILE"
	unset GIT_INDEX_FILE
	echo "$commit"
}

series_identity() {
	GIT_AUTHOR_NAME='topdown-kvm series' GIT_AUTHOR_EMAIL=noreply@localhost \
	GIT_COMMITTER_NAME='topdown-kvm series' GIT_COMMITTER_EMAIL=noreply@localhost \
	GIT_AUTHOR_DATE="$stamp +0000" GIT_COMMITTER_DATE="$stamp +0000" "$@"
}

# series_apply PATCH [DIFFERENCE]: into the index.
series_apply() {
	patch_diff "$@" | index_apply || return 1
	for file in $(patch_new_files "$1"); do
		if ! linux_path "$file" || git ls-files --error-unmatch "$file" >/dev/null 2>&1; then
			echo "$file is no new file of Linux" >"$build/log/apply.log"
			return 1
		fi
		git update-index --add --cacheinfo \
			"$(file_mode "$top/$file"),$(git hash-object -w --no-filters "$top/$file"),$file"
	done
	[ "$#" -lt 2 ] || sed -n '/^diff --git /,$p' "$2" | index_apply
}

# index_apply: a diff, or nothing, from standard input.
index_apply() {
	cat >"$build/log/apply.patch"
	[ ! -s "$build/log/apply.patch" ] ||
		git apply --cached --whitespace=nowarn "$build/log/apply.patch" 2>"$build/log/apply.log"
}

# same_commits A B: equal trees and messages, whoever wrote them and when.
same_commits() {
	[ "$(git log --format='%T%n%B' "$base..$1")" = "$(git log --format='%T%n%B' "$base..$2")" ]
}

# commit_message COMMIT: without sign-offs, which belong to the submitter.
commit_message() {
	git log -1 --format=%B "$1" | sed '/^Signed-off-by:/d' | git stripspace
}

# unfinished: is there a rebase or am that waits for its end?
unfinished() {
	[ -d "$(git rev-parse --git-path rebase-merge)" ] ||
		[ -d "$(git rev-parse --git-path rebase-apply)" ]
}

# record_series COMMIT KEY: the tree at COMMIT is what the repository says.
record_series() {
	git update-ref refs/topdown/applied "$1"
	mkdir -p "$(git rev-parse --git-path topdown)"
	echo "$2" >"$(git rev-parse --git-path topdown/key)"
}

# local_work: what is in the tree and not yet in the repository, in words.
local_work() {
	if unfinished; then
		echo "an unfinished rebase"
	elif [ -n "$(git status --porcelain)" ]; then
		echo "uncommitted edits"
	elif [ "$(git rev-parse HEAD)" != "$(git rev-parse refs/topdown/applied)" ]; then
		echo "commits of its own"
	fi
}
