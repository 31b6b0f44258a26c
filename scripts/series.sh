# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154 # "top", "build", "base" come from the script that reads this
# The format of the series, for the scripts that read or write it.
#
# series     parts, "# Part NAME: what it is", of which each is mailed by itself;
#            "# why" headings in them; and one path of a patch per line, in order of
#            application. "# alone" behind a path says that this patch applies and
#            builds without those before it.
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

# series_entries: the patches, in order.
series_entries() {
	data "$top/series"
}

# series_parts: a line "PART PATCH MARK" for each patch, in order, with the mark "alone"
# or "-". Fails with one line if a patch belongs to no part.
series_parts() {
	awk -v me="$me" '
	function bad(text) {
		print me ": series: " text >"/dev/stderr"
		exit 1
	}
	/^#+[[:space:]]*[Pp]art([[:space:]]|$)/ {
		if ($0 !~ /^# Part [a-z][a-z0-9-]*: *[^ ]/)
			bad("\"" $0 "\" names no part: must be \"# Part NAME: what it is\", NAME in small letters")
		part = $3
		sub(/:.*/, "", part)
		if (part in known)
			bad("part " part " begins twice: remove one of its headings, or rename one")
		known[part] = 1
		next
	}
	/^[[:space:]]*(#|$)/ { next }
	{
		if (part == "")
			bad($1 " belongs to no part: write \"# Part NAME: what it is\" above it")
		mark = "-"
		if (match($0, /#.*/)) {
			mark = substr($0, RSTART)
			gsub(/^#[[:space:]]*|[[:space:]]*$/, "", mark)
			if (mark != "alone")
				bad("\"# " mark "\" behind " $1 ": must be \"# alone\", or nothing")
		}
		print part, $1, mark
	}' "$top/series"
}

# commit_parts: a line "HASH PART MARK" for each commit up to HEAD, in order, by its
# subject. One that the series does not have belongs to the part of the one before it. Runs
# in the kernel tree.
commit_parts() {
	parts=$(series_parts) || return
	{
		echo "$parts" | while read -r part patch mark; do
			printf '%s\t%s\t%s\n' "$part" "$mark" "$(patch_subject "$top/$patch")"
		done
		echo
		git log --reverse --format='%H%x09%s' refs/topdown/base..HEAD
	} | awk -F '\t' '
	$0 == "" { commits = 1; next }
	!commits {
		if (!now)
			now = $1
		part[$3] = $1
		mark[$3] = $2
		next
	}
	$2 in part { now = part[$2] }
	{ print $1, now, $2 in mark ? mark[$2] : "-" }'
}

# chosen_parts PARTS: those of PARTS, one a line, that $PART names, or all.
chosen_parts() {
	if [ -n "${PART:-}" ]; then
		echo "$1" | grep -xF -e "$PART" ||
			die "PART=$PART: there is no such part: choose from $(echo "$1" | paste -sd ' ')"
	else
		echo "$1"
	fi
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

# patch_diff PATCH: what to apply of PATCH.
patch_diff() {
	sed -n '/^diff --git /,$p' "$1"
}

# New files lie at their Linux path, where they must not meet a file of this
# repository's own.
linux_path() {
	case $1 in
	base/* | build/* | host/* | lab/* | qemu/* | scripts/* | .*) return 1 ;;
	*/*) return 0 ;;
	*) return 1 ;;
	esac
}

# series_files: all files that "make tree" puts into the kernel tree.
series_files() {
	for patch in $(series_entries); do
		[ -f "$top/$patch" ] ||
			die "series names $patch, which does not exist: scripts/lint-series tells more"
		echo "$patch"
		for file in $(patch_new_files "$top/$patch"); do
			[ -f "$top/$file" ] ||
				die "$patch names the new file $file, which does not exist: scripts/lint-series tells more"
			echo "$file"
		done
	done
}

# apply_to TREE DIFF: a diff on top of the series (or of its base), to a work tree.
apply_to() (
	cd "$1" || exit
	sed '/^diff --git /d' "$2" | git apply -
)

# series_key: a hash of them, in their order and with their modes.
series_key() {
	files=$(series_files)
	for file in $files; do
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
	stamp=1577836800	# as the base has; each commit a minute after the last
	GIT_INDEX_FILE=$(git rev-parse --absolute-git-dir)/topdown-index
	export GIT_INDEX_FILE
	git read-tree "$1"
	for patch in $(series_entries); do
		series_apply "$top/$patch" ||
			die "$patch does not apply on $(git log -1 --format=%s "$1"): $(head -n 1 "$build/log/apply.log")"
		stamp=$((stamp + 60))
		commit=$(patch_message "$top/$patch" | series_identity \
			git commit-tree -p "$commit" "$(git write-tree)")
	done
	rm -f "$GIT_INDEX_FILE"
	unset GIT_INDEX_FILE
	echo "$commit"
}

# series_identity COMMAND...: with the same author, and date unless "stamp" is set, everywhere.
series_identity() {
	stamp=${stamp:-1577836800}	# 2020-01-01
	GIT_AUTHOR_NAME='topdown-kvm series' GIT_AUTHOR_EMAIL=noreply@localhost \
	GIT_COMMITTER_NAME='topdown-kvm series' GIT_COMMITTER_EMAIL=noreply@localhost \
	GIT_AUTHOR_DATE="$stamp +0000" GIT_COMMITTER_DATE="$stamp +0000" "$@"
}

# series_apply PATCH: into the index.
series_apply() {
	patch_diff "$1" | index_apply || return 1
	for file in $(patch_new_files "$1"); do
		if ! linux_path "$file" || git ls-files --error-unmatch "$file" >/dev/null 2>&1; then
			echo "$file is no new file of Linux" >"$build/log/apply.log"
			return 1
		fi
		git update-index --add --cacheinfo \
			"$(file_mode "$top/$file"),$(git hash-object -w --no-filters "$top/$file"),$file"
	done
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

# unfinished: the command of Git that waits for its end, if one does.
unfinished() {
	if [ -f "$(git rev-parse --git-path rebase-apply/applying)" ]; then
		echo am
	elif [ -d "$(git rev-parse --git-path rebase-merge)" ] ||
		[ -d "$(git rev-parse --git-path rebase-apply)" ]; then
		echo rebase
	fi
}

# record_series COMMIT KEY: the tree at COMMIT is what the repository says.
record_series() {
	git update-ref refs/topdown/applied "$1"
	mkdir -p "$(git rev-parse --git-path topdown)"
	echo "$2" >"$(git rev-parse --git-path topdown/key)"
}

# local_work: what is in the tree and not yet in the repository, in words.
local_work() {
	if [ -n "$(unfinished)" ]; then
		echo "an unfinished git $(unfinished)"
	elif [ -n "$(git status --porcelain)" ]; then
		echo "uncommitted edits"
	elif user_heads | grep -qvx "$(git rev-parse refs/topdown/base refs/topdown/applied)"; then
		echo "commits of its own"
	fi
}

# user_heads: what may have such commits: HEAD, and the branch that scripts/tree puts
# a detached one back on.
user_heads() {
	git rev-parse HEAD
	git symbolic-ref -q HEAD >/dev/null || git for-each-ref --format='%(objectname)' refs/heads/topdown
}
