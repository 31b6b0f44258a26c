# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154,SC2164 # world.sh sets them; set -e is on
# scripts/tree, scripts/refresh and scripts/lint-series

test_refresh_after_tree_changes_nothing() {
	three_commits
	rm -rf "$repo/build"
	snapshot >before
	"$repo/scripts/tree"
	"$repo/scripts/refresh"
	snapshot >after
	cmp before after
	"$repo/scripts/lint-series"
}

test_tree_is_deterministic() {
	three_commits
	hash=$(git -C "$tree" rev-parse HEAD)
	rm -rf "$repo/build"
	git config --file gitconfig user.name 'Somebody else'
	"$repo/scripts/tree"
	same "$(git -C "$tree" rev-parse HEAD)" "$hash"
}

test_user_settings_change_nothing() {
	three_commits
	rm -rf "$repo/build"
	snapshot >before
	for setting in diff.noprefix=true diff.mnemonicPrefix=true diff.context=9 \
		diff.algorithm=patience core.autocrlf=true commit.gpgsign=true \
		core.hooksPath=/nonexistent format.signOff=true apply.whitespace=error \
		diff.external=false color.ui=always core.abbrev=40 log.showSignature=true; do
		git config --file gitconfig "${setting%%=*}" "${setting#*=}"
	done
	GIT_DIR=/nonexistent GIT_INDEX_FILE=/nonexistent "$repo/scripts/tree"
	GIT_DIR=/nonexistent "$repo/scripts/refresh"
	snapshot >after
	cmp before after
}

test_tree_twice_does_nothing() {
	three_commits
	"$repo/scripts/tree" >out
	same "$(cat out)" ""
}

test_tree_brings_in_what_changed() {
	three_commits
	sed -i s/twenty/zwanzig/ "$repo/$first"
	touch -d 2001-01-01 "$tree/arch/x86/kvm/vmx/pmu_intel.c"
	"$repo/scripts/tree"
	has "$tree/arch/x86/kvm/pmu.c" zwanzig
	# A file that did not change is not written, or Kbuild compiles it again.
	same "$(date -r "$tree/arch/x86/kvm/vmx/pmu_intel.c" +%Y)" 2001
}

test_tree_keeps_edits() {
	three_commits
	edit arch/x86/kvm/pmu.c 30 thirty
	"$repo/scripts/tree" >out
	has out 'has uncommitted edits'
	sed -i s/twenty/zwanzig/ "$repo/$first"
	fails "$repo/scripts/tree"
	has said 'build/linux has uncommitted edits: make refresh'
	has "$tree/arch/x86/kvm/pmu.c" thirty
}

test_tree_keeps_commits() {
	three_commits
	edit arch/x86/kvm/pmu.c 30 thirty
	commit 'KVM: x86/pmu: Fourth'
	"$repo/scripts/tree" >out
	has out 'has commits of its own'
	sed -i s/twenty/zwanzig/ "$repo/$first"
	fails "$repo/scripts/tree"
	has said 'build/linux has commits of its own: make refresh'
	# What the message advises does it.
	git -C "$tree" rebase -q --onto refs/topdown/next refs/topdown/applied
	"$repo/scripts/tree"
	"$repo/scripts/refresh"
	has "$tree/arch/x86/kvm/pmu.c" thirty
	has "$repo/$first" zwanzig
	has "$repo/series" 0004-KVM-x86-pmu-Fourth
}

# next_linux: what "linux" is from now on, with other lines beside those of the
# first two patches; the third applies as it is.
next_linux() {
	rm -rf "$repo/build"
	sed -i 's/SUBLEVEL = 4/SUBLEVEL = 5/' linux/Makefile
	sed -i 's/^22$/&, changed/' linux/arch/x86/kvm/pmu.c
	sed -i 's/^7$/&, changed/' linux/tools/testing/selftests/kvm/Makefile.kvm
}

test_tree_merges_onto_the_next_linux() {
	three_commits
	messages=$(git -C "$tree" log --format=%B)
	next_linux
	"$repo/scripts/tree" >out
	has out '^tree: build/linux: Linux 7.3.5 and 3 of 3 commits of the series: make refresh'
	has "$tree/arch/x86/kvm/pmu.c" twenty
	has "$tree/arch/x86/kvm/pmu.c" '22, changed'
	cmp "$tree/$new_file" "$repo/$new_file"
	same "$(git -C "$tree" log --format=%B | sed s/7.3.5/7.3.4/)" "$messages"
	hash=$(git -C "$tree" rev-parse HEAD)
	same "$("$repo/scripts/tree")" ""
	same "$(git -C "$tree" rev-parse HEAD)" "$hash"

	"$repo/scripts/refresh"
	"$repo/scripts/lint-series"
	has "$repo/$first" '^ 22, changed$'
	same "$("$repo/scripts/tree")" ""
	# Now the series is for that Linux, and comes out as it was merged.
	rm -rf "$repo/build"
	KNOWN=/nonexistent fails "$repo/scripts/tree"
	rm -r known
	KNOWN='' "$repo/scripts/tree"
	same "$(git -C "$tree" rev-parse HEAD)" "$hash"
}

# To look at the base, somebody leaves the branch.
test_tree_keeps_commits_on_the_branch() {
	three_commits
	edit arch/x86/kvm/pmu.c 30 thirty
	commit 'KVM: x86/pmu: Fourth'
	git -C "$tree" checkout -q --detach refs/topdown/base
	"$repo/scripts/tree" >out
	has out 'has commits of its own'
	same "$(git -C "$tree" log -1 --format=%s topdown)" 'KVM: x86/pmu: Fourth'
	fails "$repo/scripts/clean"
}

test_tree_names_a_patch_that_conflicts() {
	three_commits
	next_linux
	sed -i 's/^5$/five/' linux/tools/testing/selftests/kvm/Makefile.kvm
	fails "$repo/scripts/tree"
	has said '^tree: tools/testing/selftests/kvm/0002-[^ ]* does not apply on Linux 7.3.5, .*: resolve tools/testing/selftests/kvm/Makefile.kvm, git'
	has "$tree/arch/x86/kvm/pmu.c" twenty
	# It waits.
	fails "$repo/scripts/tree"
	has said 'an unfinished git am and conflicts in tools/testing/selftests/kvm/Makefile.kvm'
	snapshot >before
	fails "$repo/scripts/refresh"
	has said 'git -C build/linux am --continue'
	snapshot >after
	cmp before after
	fails "$repo/scripts/clean"
	# Given up, it begins again.
	git -C "$tree" am --abort
	fails "$repo/scripts/refresh"
	has said 'no commit of the series'
	fails "$repo/scripts/tree"
	has said 'resolve tools/testing/selftests/kvm/Makefile.kvm'
	# What the message advises does it.
	sed -i -e '/^<<<<<<<\|^=======\|^>>>>>>>/d' -e '/^five$/d' "$tree/tools/testing/selftests/kvm/Makefile.kvm"
	git -C "$tree" add -u
	git -C "$tree" am -q --continue
	"$repo/scripts/tree" >out
	has out 'commits of its own, not in the repository yet: make refresh'
	"$repo/scripts/refresh"
	"$repo/scripts/lint-series"
	has "$repo/tools/testing/selftests/kvm/0002-KVM-selftests-Second-quoted-odd.patch" '^-five$'
	rm -rf "$repo/build"
	"$repo/scripts/tree" >out
	has out 'Linux 7.3.5 and 3 commits of the series'
}

test_tree_merge_keeps_work() {
	three_commits
	next_linux
	"$repo/scripts/tree"
	edit arch/x86/kvm/pmu.c 30 thirty
	commit 'KVM: x86/pmu: Fourth'
	"$repo/scripts/tree" >out
	has out 'has commits of its own'
	sed -i s/twenty/zwanzig/ "$repo/$first"
	fails "$repo/scripts/tree"
	has said "build/linux has commits of its own, and $first does not apply on Linux 7.3.5: .*: save that work"
	has "$tree/arch/x86/kvm/pmu.c" thirty
	# Without any, the new series is merged.
	git -C "$tree" reset -q --hard HEAD~1
	"$repo/scripts/tree"
	has "$tree/arch/x86/kvm/pmu.c" zwanzig
}

test_tree_merge_drops_what_the_next_linux_has() {
	three_commits
	next_linux
	sed -i 's/^40$/forty/' linux/arch/x86/kvm/vmx/pmu_intel.c
	for dir in linux known; do	# Git trees, this time
		git init -q "$dir"
		git -C "$dir" add -f .
	done
	"$repo/scripts/tree" >out
	has out 'and 2 of 3 commits of the series'
	"$repo/scripts/refresh"
	[ ! -e "$repo/arch/x86/kvm/vmx" ]
}

test_tree_merge_wants_the_linux_of_the_series() {
	three_commits
	next_linux
	sed -i 's/^21$/&, too/' known/arch/x86/kvm/pmu.c
	fails "$repo/scripts/tree"
	has said "$first does not apply on the Linux of .*/known: .*: KNOWN=DIR has to name"
}

# Without LINUX= it is Debian's; a package of Debian's can also be what LINUX= names.
test_tree_from_a_package() {
	three_commits
	rm -rf "$repo/build"
	mkdir -p package/DEBIAN package/usr/src
	printf 'Package: linux-source-7.3\nVersion: 1\nArchitecture: all\nMaintainer: x <x@localhost>\nDescription: x\n' \
		>package/DEBIAN/control
	tar -cJf package/usr/src/linux-source-7.3.tar.xz linux
	dpkg-deb --build package linux.deb
	LINUX=linux.deb "$repo/scripts/tree" >out
	has out 'Linux 7.3.4 and 3 commits of the series'
	# As what the series is for.
	next_linux
	KNOWN=linux.deb "$repo/scripts/tree" >out
	has out 'Linux 7.3.5 and 3 of 3 commits of the series'
}

test_tree_killed_while_unpacking() {
	mkdir -p "$repo/build/linux.new/.git"
	echo half >"$repo/build/linux.new/Makefile"
	echo stale >"$repo/build/linux.new/stale"
	"$repo/scripts/tree"
	has "$tree/Makefile" SUBLEVEL
	[ ! -e "$tree/stale" ]
}

test_tree_of_another_linux() {
	three_commits
	cp -r linux other
	seq 70 >other/arch/x86/kvm/pmu.c
	LINUX=$root/other "$repo/scripts/tree"
	has "$tree/arch/x86/kvm/pmu.c" '^70$'
	edit arch/x86/kvm/pmu.c 30 thirty
	fails "$repo/scripts/tree"
	has said 'another Linux and has uncommitted edits'
}

test_tree_from_a_tarball() {
	tar -cJf linux.tar.xz linux
	cd home	# a relative path is one from where make was called
	LINUX=../linux.tar.xz "$repo/scripts/tree"
	same "$(git -C "$tree" log -1 --format=%s)" 'Linux 7.3.4'
	LINUX=../none fails "$repo/scripts/tree"
	has said 'neither a directory nor a tarball'
	rm -rf "$repo/build"
	head -c 300 ../linux.tar.xz >../cut.tar.xz
	LINUX=../cut.tar.xz fails "$repo/scripts/tree"
	has said 'unpacking .*cut.tar.xz failed'
	[ ! -e "$tree" ]
}

test_clean_keeps_edits() {
	three_commits
	edit arch/x86/kvm/pmu.c 30 thirty
	fails "$repo/scripts/clean"
	git -C "$tree" checkout -q .
	"$repo/scripts/clean"
	[ ! -e "$repo/build" ]
}

test_refresh_wants_everything_committed() {
	three_commits
	edit arch/x86/kvm/pmu.c 30 thirty
	fails "$repo/scripts/refresh"
	has said 'uncommitted edits'
}

test_refresh_wants_fixups_squashed() {
	three_commits
	edit arch/x86/kvm/pmu.c 30 thirty
	commit 'fixup! KVM: x86/pmu: First'
	fails "$repo/scripts/refresh"
	has said 'autosquash'
	GIT_SEQUENCE_EDITOR=: git -C "$tree" rebase -q -i --autosquash refs/topdown/base
	"$repo/scripts/refresh"
	has "$repo/$first" thirty
}

test_refresh_wants_new_files_whole() {
	three_commits
	echo 'int b;' >>"$tree/$new_file"
	commit 'KVM: selftests: Fourth'
	snapshot >before
	fails "$repo/scripts/refresh"
	has said "'KVM: selftests: Fourth' edits $new_file"
	snapshot >after
	cmp before after
}

test_refresh_wants_a_place_for_new_files() {
	three_commits
	mkdir -p "$tree/scripts"
	echo x >"$tree/scripts/lib.sh"
	commit 'scripts: Fourth'
	fails "$repo/scripts/refresh"
	has said 'scripts/lib.sh has no place'
}

test_refresh_minds_changes_of_the_repository() {
	three_commits
	echo 'int b;' >>"$repo/$new_file"
	fails "$repo/scripts/refresh"
	has said 'make tree brings that in'
	has "$repo/$new_file" 'int b'
}

test_refresh_removes_what_is_gone() {
	three_commits
	git -C "$tree" rebase -q --onto HEAD~2 HEAD~1
	"$repo/scripts/refresh"
	[ ! -e "$repo/tools" ]
	[ -f "$repo/arch/x86/kvm/vmx/0002-KVM-VMX-Third.patch" ]
	[ ! -e "$repo/arch/x86/kvm/vmx/0003-KVM-VMX-Third.patch" ]
	"$repo/scripts/lint-series"
}

test_refresh_drops_sign_offs() {
	"$repo/scripts/tree"
	edit arch/x86/kvm/pmu.c 20 twenty
	git -C "$tree" commit -q -a -s -m 'KVM: x86/pmu: First' -m 'Body.'
	"$repo/scripts/refresh"
	same "$(grep -c Signed-off "$repo/$first")" 0
	"$repo/scripts/lint-series"
}

test_refresh_keeps_modes() {
	"$repo/scripts/tree"
	mkdir -p "$tree/tools/x"
	echo '#!/bin/sh' >"$tree/tools/x/prog"
	chmod +x "$tree/tools/x/prog"
	commit 'tools: Add a program'
	"$repo/scripts/refresh"
	[ -x "$repo/tools/x/prog" ]
	rm -rf "$repo/build"
	"$repo/scripts/tree"
	[ -x "$tree/tools/x/prog" ]
}

# The headings stay where they belong when commits come, go and are reworded.
test_refresh_keeps_headings() {
	three_commits
	sed -i 's|^.*0003-KVM-VMX-Third.patch$|\n# Second heading\n&|' "$repo/series"
	echo '# The end' >>"$repo/series"
	"$repo/scripts/tree"
	git -C "$tree" commit -q --amend -m 'KVM: VMX: Third, reworded'
	edit arch/x86/kvm/pmu.c 50 fifty
	commit 'KVM: x86/pmu: Fourth'
	"$repo/scripts/refresh"
	cat >expected <<-'END'
	# What this file is.

	# Part topdown: all of it

	# First heading
	arch/x86/kvm/0001-KVM-x86-pmu-First.patch
	tools/testing/selftests/kvm/0002-KVM-selftests-Second-quoted-odd.patch

	# Second heading
	arch/x86/kvm/vmx/0003-KVM-VMX-Third-reworded.patch
	arch/x86/kvm/0004-KVM-x86-pmu-Fourth.patch
	# The end
	END
	diff expected "$repo/series"
	# A commit in front of all others belongs to the first heading.
	git -C "$tree" checkout -q -b front refs/topdown/base
	edit arch/x86/kvm/pmu.c 1 one
	commit 'KVM: x86/pmu: Zeroth'
	git -C "$tree" cherry-pick refs/topdown/base..topdown
	"$repo/scripts/refresh"
	sed -n 6,7p "$repo/series" >out
	has out 0001-KVM-x86-pmu-Zeroth
	same "$(grep -c '# Second heading' "$repo/series")" 1
	same "$(grep -A 1 '# Second heading' "$repo/series" | tail -n 1)" \
		arch/x86/kvm/vmx/0004-KVM-VMX-Third-reworded.patch
}

# So do those of parts, while any commit of theirs is left, and what is behind a path.
test_refresh_keeps_parts() {
	three_commits
	edit arch/x86/kvm/pmu.c 50 fifty
	commit 'KVM: x86/pmu: Fourth'
	"$repo/scripts/refresh"
	sed -i -e 's|^.*0003-KVM-VMX-Third.patch$|\n# Part lazy: it\n# waits\n\n# Second heading\n&  # alone|' \
		-e 's|^.*0004-.*|\n# Third heading\n&|' "$repo/series"
	"$repo/scripts/tree"
	git -C "$tree" commit -q --amend -m 'KVM: x86/pmu: Fourth, reworded'
	"$repo/scripts/refresh"
	has "$repo/series" '0003-KVM-VMX-Third.patch  # alone$'
	git -C "$tree" rebase -q --onto HEAD~2 HEAD~1
	"$repo/scripts/refresh" 2>said
	has said '^# Second heading$'
	same "$(grep -c Part said)" 0
	cat >expected <<-'END'
	tools/testing/selftests/kvm/0002-KVM-selftests-Second-quoted-odd.patch

	# Part lazy: it
	# waits

	# Third heading
	arch/x86/kvm/0003-KVM-x86-pmu-Fourth-reworded.patch
	END
	sed -n '/0002/,$p' "$repo/series" | diff expected -
	# Its last commit takes it along.
	git -C "$tree" reset -q --hard HEAD~1
	"$repo/scripts/refresh" 2>said
	has said '^# Part lazy: it$'
	same "$(grep -c lazy "$repo/series")" 0
}

test_lint_series_wants_parts() {
	two_parts
	"$repo/scripts/lint-series"
	cp "$repo/series" good
	sed -i 's/^# Part topdown:.*/# The rest/' "$repo/series"
	fails_with "$first belongs to no part: write"
	sed -i '/^# Part/d' "$repo/series"
	fails_with "$first belongs to no part: write"
	for wrong in 'Part lazy the rest' 'Part Lazy: the rest' 'Part lazy:' 'part lazy: the rest'; do
		sed "s/^# Part lazy.*/# $wrong/" good >"$repo/series"
		fails_with "\"# $wrong\" names no part: must be"
	done
	sed "s/^# Part lazy.*/# Part topdown: again/" good >"$repo/series"
	fails_with 'part topdown begins twice'
	sed "s/# alone/# aline/" good >"$repo/series"
	fails_with '"# aline" behind .*0003.*: must be "# alone"'
	sed "s/^# Part lazy.*/# Part other: the rest/" good >"$repo/series"
	fails_with 'part other has no cover letter: write scripts/cover-letter/other.txt'
}

# mends PATTERN: lint-series must find the problem and say a command; the
# command, run in the repository, must mend it.
mends() {
	if "$repo/scripts/lint-series" >out 2>said; then
		echo "lint-series found nothing"
		return 1
	fi
	has said "$1"
	command=$(sed -n "s/^lint-series: .*$1[^:]*: \(.*\)/\1/p" said | head -n 1 | sed 's/, or .*//; s/, and .*//')
	echo "command: $command"
	(cd "$repo" && eval "$command")
}

test_lint_series_mends_an_unlisted_patch() {
	three_commits
	sed -i /0003/d "$repo/series"
	mends 'is not in series'
	"$repo/scripts/lint-series"
}

test_lint_series_mends_a_missing_patch() {
	three_commits
	git -C "$repo" init -q
	git -C "$repo" add series arch tools
	rm "$repo/$first"
	mends 'does not exist'
	"$repo/scripts/lint-series"
}

test_lint_series_mends_a_missing_new_file() {
	three_commits
	git -C "$repo" init -q
	git -C "$repo" add series arch tools
	rm "$repo/$new_file"
	mends 'does not exist'
	"$repo/scripts/lint-series"
}

test_lint_series_mends_a_sign_off() {
	three_commits
	sed -i '3a Signed-off-by: A <b@c>' "$repo/$first"
	mends 'has a Signed-off-by'
	"$repo/scripts/lint-series"
}

test_lint_series_sees_an_unnamed_file() {
	three_commits
	mkdir -p "$repo/Documentation/x"
	echo x >"$repo/Documentation/x/new.rst"
	fails_with 'Documentation/x/new.rst is named by no patch'
}

test_lint_series_sees_a_double_entry() {
	three_commits
	echo "$first" >>"$repo/series"
	fails_with "lists $first twice"
}

test_lint_series_sees_a_wrong_number() {
	three_commits
	sed -i '6{h;d};7G' "$repo/series"
	fails_with 'is number 1 of series'
}

fails_with() {
	if "$repo/scripts/lint-series" >out 2>said; then
		echo "lint-series found nothing"
		return 1
	fi
	has said "$1"
}
