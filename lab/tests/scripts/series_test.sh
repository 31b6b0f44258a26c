# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154,SC2164 # world.sh sets them; set -e is on
# scripts/tree, scripts/refresh and scripts/check-series

test_refresh_after_tree_changes_nothing() {
	three_commits
	rm -rf "$repo/build"
	snapshot >before
	"$repo/scripts/tree"
	"$repo/scripts/refresh"
	snapshot >after
	cmp before after
	"$repo/scripts/check-series"
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

test_tree_names_a_patch_that_does_not_apply() {
	three_commits
	rm -rf "$repo/build"
	sed -i s/^20/21/ "$LINUX/arch/x86/kvm/pmu.c"
	fails "$repo/scripts/tree"
	has said "$first does not apply on Linux 7.3.4: .*arch/x86/kvm/pmu.c"
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
	"$repo/scripts/check-series"
}

test_refresh_drops_sign_offs() {
	"$repo/scripts/tree"
	edit arch/x86/kvm/pmu.c 20 twenty
	git -C "$tree" commit -q -a -s -m 'KVM: x86/pmu: First' -m 'Body.'
	"$repo/scripts/refresh"
	same "$(grep -c Signed-off "$repo/$first")" 0
	"$repo/scripts/check-series"
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
	sed -n 4,5p "$repo/series" >out
	has out 0001-KVM-x86-pmu-Zeroth
	same "$(grep -c '# Second heading' "$repo/series")" 1
	same "$(grep -A 1 '# Second heading' "$repo/series" | tail -n 1)" \
		arch/x86/kvm/vmx/0004-KVM-VMX-Third-reworded.patch
}

# mends PATTERN: check-series must find the problem and say a command; the
# command, run in the repository, must mend it.
mends() {
	if "$repo/scripts/check-series" >out 2>said; then
		echo "check-series found nothing"
		return 1
	fi
	has said "$1"
	command=$(sed -n "s/^check-series: .*$1[^:]*: \(.*\)/\1/p" said | head -n 1 | sed 's/, or .*//; s/, and .*//')
	echo "command: $command"
	(cd "$repo" && eval "$command")
}

test_check_series_mends_an_unlisted_patch() {
	three_commits
	sed -i /0003/d "$repo/series"
	mends 'is not in series'
	"$repo/scripts/check-series"
}

test_check_series_mends_a_missing_patch() {
	three_commits
	git -C "$repo" init -q
	git -C "$repo" add series arch tools
	rm "$repo/$first"
	mends 'does not exist'
	"$repo/scripts/check-series"
}

test_check_series_mends_a_missing_new_file() {
	three_commits
	git -C "$repo" init -q
	git -C "$repo" add series arch tools
	rm "$repo/$new_file"
	mends 'does not exist'
	"$repo/scripts/check-series"
}

test_check_series_mends_a_sign_off() {
	three_commits
	sed -i '3a Signed-off-by: A <b@c>' "$repo/$first"
	mends 'has a Signed-off-by'
	"$repo/scripts/check-series"
}

test_check_series_sees_an_unnamed_file() {
	three_commits
	mkdir -p "$repo/Documentation/x"
	echo x >"$repo/Documentation/x/new.rst"
	fails_with 'Documentation/x/new.rst is named by no patch'
}

test_check_series_sees_a_double_entry() {
	three_commits
	echo "$first" >>"$repo/series"
	fails_with "lists $first twice"
}

test_check_series_sees_a_wrong_number() {
	three_commits
	sed -i '4{h;d};5G' "$repo/series"
	fails_with 'is number 1 of series'
}

fails_with() {
	if "$repo/scripts/check-series" >out 2>said; then
		echo "check-series found nothing"
		return 1
	fi
	has said "$1"
}
