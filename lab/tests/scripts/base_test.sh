# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154,SC2164 # world.sh sets them; set -e is on
# BASE=7.3: another Linux beside the one that the series is for, and what differs there.

# on73 COMMAND...: for Linux 7.3.
on73() {
	LINUX=$root/linux73 BASE=7.3 "$@"
}

# two_bases: a series for 7.2, and a tiny Linux 7.3 where one file lies elsewhere,
# one has an edit of the series already, and one has other lines around another edit.
two_bases() {
	"$repo/scripts/tree"
	edit arch/x86/kvm/vmx/pmu_intel.c 40 forty
	commit 'KVM: VMX: Moved'
	edit arch/x86/kvm/pmu.c 20 twenty
	edit tools/testing/selftests/kvm/Makefile.kvm 28 plain
	commit 'KVM: x86/pmu: Dropped'
	edit tools/testing/selftests/kvm/Makefile.kvm 5 'x86\/a_test'
	mkdir -p "$tree/tools/testing/selftests/kvm/x86"
	echo 'int a;' >"$tree/$new_file"
	commit 'KVM: selftests: Replaced' 'Its body.'
	"$repo/scripts/refresh"
	cp -r linux linux73
	sed -i 's/^PATCHLEVEL.*/PATCHLEVEL = 3/' linux73/Makefile
	mv linux73/arch/x86/kvm/vmx/pmu_intel.c linux73/arch/x86/kvm/vmx/msrs.c
	sed -i 's/^20$/twenty/' linux73/arch/x86/kvm/pmu.c
	sed -i 's/^6$/six/' linux73/tools/testing/selftests/kvm/Makefile.kvm
	tree73=$repo/build/7.3/linux
	moved=base/7.3/KVM-VMX-Moved.patch
	dropped=base/7.3/KVM-x86-pmu-Dropped.patch
	replaced=base/7.3/KVM-selftests-Replaced.patch
}

# hash_of LINE...
hash_of() {
	printf '%s\n' "$@" | sha256sum | cut -c 1-12
}

# differences: what two_bases needs, as "make refresh" would have written it.
differences() {
	cat >"$repo/$moved" <<-'END'
	The file has another name.
	---
	Moved: arch/x86/kvm/vmx/pmu_intel.c arch/x86/kvm/vmx/msrs.c
	END
	cat >"$repo/$dropped" <<-END
	It has that.
	---
	Instead-of: arch/x86/kvm/pmu.c $(hash_of -20 +twenty)
	END
	cat >"$repo/$replaced" <<-END
	Other lines around.
	---
	Instead-of: tools/testing/selftests/kvm/Makefile.kvm $(hash_of -5 +x86/a_test)

	diff --git a/tools/testing/selftests/kvm/Makefile.kvm b/tools/testing/selftests/kvm/Makefile.kvm
	--- a/tools/testing/selftests/kvm/Makefile.kvm
	+++ b/tools/testing/selftests/kvm/Makefile.kvm
	@@ -2,7 +2,7 @@
	 2
	 3
	 4
	-5
	+x86/a_test
	 six
	 7
	 8
	END
}

test_base_names_the_patch_that_does_not_apply() {
	two_bases
	on73 fails "$repo/scripts/tree"
	has said 'kvm/vmx/0001-KVM-VMX-Moved.patch does not apply on Linux 7.3.13: .*vmx/pmu_intel.c'
	differences
	sed -i 's/^ six/ seven/' "$repo/$replaced"
	on73 fails "$repo/scripts/tree"
	has said "0003-KVM-selftests-Replaced.patch with $replaced does not apply"
}

test_base_applies_what_differs() {
	two_bases
	differences
	on73 "$repo/scripts/tree" >out
	same "$(grep -c 'was made for other changes' out)" 0
	has "$tree73/arch/x86/kvm/vmx/msrs.c" forty
	has "$tree73/tools/testing/selftests/kvm/Makefile.kvm" x86/a_test
	has "$tree73/tools/testing/selftests/kvm/Makefile.kvm" plain
	cmp "$tree73/$new_file" "$repo/$new_file"
	same "$(git -C "$tree73" log -1 --format=%b)" 'Its body.'
	# Side by side with the other.
	has "$tree/arch/x86/kvm/vmx/pmu_intel.c" forty
	"$repo/scripts/tree" >out
	same "$(cat out)" ""
}

test_base_refresh_after_tree_changes_nothing() {
	two_bases
	differences
	snapshot >before
	on73 "$repo/scripts/tree"
	on73 "$repo/scripts/refresh"
	"$repo/scripts/tree"
	"$repo/scripts/refresh"
	snapshot >after
	diff before after
	"$repo/scripts/check-series"
}

# The Linux decides what differs, not the name that it was called by.
test_base_differences_follow_the_version() {
	two_bases
	differences
	rm -rf "$repo/build"
	LINUX=$root/linux73 "$repo/scripts/tree"
	has "$tree/arch/x86/kvm/vmx/msrs.c" forty
	snapshot >before
	LINUX=$root/linux73 "$repo/scripts/refresh"
	snapshot >after
	diff before after
}

test_base_refresh_writes_only_what_differs() {
	two_bases
	differences
	on73 "$repo/scripts/tree"
	snapshot | grep -v ' ./base/7.3/' >before
	sed -i 's/forty/vierzig/' "$tree73/arch/x86/kvm/vmx/msrs.c"
	sed -i 's/^twenty$/zwanzig/' "$tree73/arch/x86/kvm/pmu.c"
	git -C "$tree73" commit -q -a -m 'fixup! KVM: VMX: Moved'
	GIT_SEQUENCE_EDITOR=: git -C "$tree73" rebase -q -i --autosquash refs/topdown/base
	hash=$(git -C "$tree73" rev-parse 'HEAD^{tree}')
	on73 "$repo/scripts/refresh"
	snapshot | grep -v ' ./base/7.3/' >after
	diff before after
	has "$repo/$moved" 'The file has another name'
	has "$repo/$moved" '^Instead-of: arch/x86/kvm/vmx/pmu_intel.c'
	has "$repo/$moved" '^+vierzig'
	has "$repo/$moved" '^+zwanzig'
	"$repo/scripts/check-series"
	rm -rf "$repo/build"
	on73 "$repo/scripts/tree"
	same "$(git -C "$tree73" rev-parse 'HEAD^{tree}')" "$hash"
}

test_base_refresh_removes_what_does_not_differ() {
	two_bases
	differences
	sed -i 's/^six$/6/' linux73/tools/testing/selftests/kvm/Makefile.kvm
	sed -i 's/^ six/ 6/' "$repo/$replaced"
	on73 "$repo/scripts/tree"
	on73 "$repo/scripts/refresh"
	[ ! -e "$repo/$replaced" ]
	[ -f "$repo/$dropped" ]
	has "$tree73/tools/testing/selftests/kvm/Makefile.kvm" x86/a_test
	on73 "$repo/scripts/tree" >out
	same "$(cat out)" ""
}

test_base_refresh_refuses_what_is_common() {
	two_bases
	differences
	on73 "$repo/scripts/tree"
	snapshot >before
	git -C "$tree73" commit -q --amend -m 'KVM: selftests: Reworded'
	on73 fails "$repo/scripts/refresh"
	has said "'KVM: selftests: Reworded' of build/7.3/linux has another message than .*0003-KVM-selftests-Replaced.patch"
	git -C "$tree73" reset -q --hard refs/topdown/applied
	echo 'int b;' >>"$tree73/$new_file"
	git -C "$tree73" commit -q -a --amend --no-edit
	on73 fails "$repo/scripts/refresh"
	has said "build/7.3/linux has another $new_file than the repository"
	git -C "$tree73" reset -q --hard refs/topdown/applied
	echo x >"$tree73/arch/x86/kvm/new.c"
	git -C "$tree73" add -A
	git -C "$tree73" commit -q --amend --no-edit
	on73 fails "$repo/scripts/refresh"
	has said 'one adds arch/x86/kvm/new.c, the other does not'
	git -C "$tree73" reset -q --hard refs/topdown/applied
	git -C "$tree73" commit -q --allow-empty -m 'KVM: x86/pmu: Fourth'
	on73 fails "$repo/scripts/refresh"
	has said 'build/7.3/linux has 4 commits and the series 3 patches'
	snapshot >after
	diff before after
}

# A new file is the same for all, unless base/7.3 has said that it is not.
test_base_edits_a_new_file() {
	two_bases
	differences
	cat >>"$repo/$replaced" <<-END
	diff --git a/$new_file b/$new_file
	--- a/$new_file
	+++ b/$new_file
	@@ -1 +1 @@
	-int a;
	+int b;
	END
	snapshot >before
	on73 "$repo/scripts/tree"
	has "$tree73/$new_file" 'int b;'
	on73 "$repo/scripts/refresh"
	snapshot >after
	diff before after
	sed -i 's/int b/int c/' "$tree73/$new_file"
	git -C "$tree73" commit -q -a --amend --no-edit
	on73 "$repo/scripts/refresh"
	has "$repo/$replaced" '^+int c;'
	has "$repo/$new_file" 'int a;'
	sed -i 's/int c/int a/' "$tree73/$new_file"
	git -C "$tree73" commit -q -a --amend --no-edit
	on73 "$repo/scripts/refresh"
	same "$(grep -c "$new_file" "$repo/$replaced")" 0
}

# What a patch changes where 7.3 has a diff of its own would be missing there.
test_base_sees_that_a_patch_changed() {
	two_bases
	differences
	on73 "$repo/scripts/tree"
	sed -i 's|^+x86/a_test|+x86/b_test|' "$repo/tools/testing/selftests/kvm/0003-KVM-selftests-Replaced.patch"
	fails_with "$replaced was made for other changes of tools/testing/selftests/kvm/Makefile.kvm than those of"
	on73 "$repo/scripts/tree" >out
	has out "$replaced was made for other changes of tools/testing/selftests/kvm/Makefile.kvm"
	sed -i 's|x86/a_test|x86/b_test|' "$tree73/tools/testing/selftests/kvm/Makefile.kvm"
	git -C "$tree73" commit -q -a --amend --no-edit
	on73 "$repo/scripts/refresh"
	"$repo/scripts/check-series"
	has "$repo/$replaced" '^+x86/b_test'
}

test_base_sees_that_a_patch_does_not_touch_the_file() {
	two_bases
	differences
	sed -i 's|^Moved: .*pmu_intel.c|Moved: arch/x86/kvm/other.c|' "$repo/$moved"
	fails_with "$moved was made for other changes of arch/x86/kvm/other.c than those of"
}

test_base_sees_a_difference_without_a_patch() {
	two_bases
	differences
	git -C "$repo" init -q
	git -C "$repo" add base
	mv "$repo/$moved" "$repo/base/7.3/KVM-VMX-Gone.patch"
	fails_with 'base/7.3/KVM-VMX-Gone.patch belongs to no patch of series'
}

test_base_sees_a_difference_without_a_reason() {
	two_bases
	differences
	sed -i 1d "$repo/$moved"
	fails_with "$moved does not say why"
	printf 'Why.\n---\n' >"$repo/$moved"
	fails_with "$moved changes nothing"
}

# Diffs of the lab, such as mutants, are for 7.2 as well.
test_base_moves_the_diffs_of_the_lab() {
	two_bases
	differences
	on73 "$repo/scripts/tree"
	sed 's/^40$/forty/' linux/arch/x86/kvm/vmx/pmu_intel.c >old
	sed 's/^forty$/four/' old >new
	diff -u --label a/arch/x86/kvm/vmx/pmu_intel.c --label b/arch/x86/kvm/vmx/pmu_intel.c old new >bug.patch || :
	(
		top=$repo
		. "$repo/scripts/lib.sh"
		. "$repo/scripts/series.sh"
		apply_to "$tree" "$root/bug.patch"
		apply_to "$tree73" "$root/bug.patch"
	)
	has "$tree/arch/x86/kvm/vmx/pmu_intel.c" '^four$'
	has "$tree73/arch/x86/kvm/vmx/msrs.c" '^four$'
}

test_base_unknown() {
	for script in tree refresh clean check-series "fetch linux"; do
		# shellcheck disable=SC2086 # words
		BASE=7.9 fails "$repo/scripts/"$script
		has said 'BASE=7.9: there is no base/7.9/linux, choose one of 7.2 7.3'
	done
	[ ! -e "$repo/build" ]
	BASE=7.2 "$repo/scripts/tree"
	[ -d "$tree" ]
}

test_base_clean_leaves_the_other() {
	two_bases
	differences
	on73 "$repo/scripts/tree"
	echo x >>"$tree73/arch/x86/kvm/pmu.c"
	fails "$repo/scripts/clean"
	has said 'build/7.3/linux has uncommitted edits'
	[ -d "$tree" ]
	git -C "$tree73" checkout -q .
	on73 "$repo/scripts/clean"
	[ ! -e "$repo/build/7.3" ]
	[ -d "$tree" ]
}
