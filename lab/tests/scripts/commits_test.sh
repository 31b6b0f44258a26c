# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154,SC2016 # world.sh sets them; text of programs
# scripts/check-series, with a Kbuild and an emulated host that only look for words

# workshop: three commits, two columns of builds and one of boots. The Kbuild in it finds
# the words "broken" and "brokenCOLUMN" in the sources, and writes what it was asked for
# to "calls"; so does the host, with the programs of its plan.
workshop() {
	three_commits
	mkdir -p "$repo/base/kconfig" "$repo/lab/run" "$repo/lab/machine" "$repo/lab/image" \
		"$repo/build/emulator" "$repo/build/image"
	: >"$root/calls"
	touch "$repo/lab/machine/icelake" "$repo/lab/image/init.c" "$repo/build/emulator/bochs" \
		"$repo/build/image/initramfs.cpio.lz4"
	cp "$top/lab/machine/sapphire-rapids" "$repo/lab/machine/"
	cat >"$repo/base/ways" <<-'END'
	# ways
	plain  x86_64  gcc  allmodconfig  objects.config  kvm
	amd    x86_64  gcc  allmodconfig  objects.config  perf  KVM_INTEL=n
	END
	echo CONFIG_KVM_INTEL=m >"$repo/base/kconfig/objects.config"
	echo CONFIG_KVM=y >"$repo/base/kconfig/lab.config"
	printf 'x86/old_test\nx86/a_test\n' >"$repo/base/selftests"
	mkdir -p "$repo/lab/boots"
	cat >"$repo/lab/boots/commit" <<-'END'
	boot tests
	run old_test 60 /selftests-commit/old_test
	run a_test 60 /selftests-commit/a_test
	outcome a_test pass
	END
	cat >"$repo/scripts/kernel" <<-'END'
	#!/bin/sh
	linux=$TOPDOWN_BUILD/linux
	for word; do
		case $word in
		O=*) out=${word#O=} ;;
		esac
	done
	echo "kernel $1 ${out##*/} $(git -C "$linux" log -1 --format=%s)" >>../calls
	case $*:${out##*/} in
	commit:)
		mkdir -p "$TOPDOWN_BUILD/kselftest/kvm"
		cp /bin/true "$TOPDOWN_BUILD/kselftest/kvm/old_test"
		rm -f "$TOPDOWN_BUILD/kselftest/kvm/a_test"
		[ ! -f "$linux/tools/testing/selftests/kvm/x86/a_test.c" ] ||
			cp /bin/true "$TOPDOWN_BUILD/kselftest/kvm/a_test"
		;;
	*allmodconfig*) grep -v UNKNOWN "$KCONFIG_ALLCONFIG" | sed '/=n$/d' >"$out/.config" ;;
	*)
		echo '  HOSTCC  fdt_strerror.o'
		[ ! -f ../no-memory ] || { echo 'gcc: fatal error: killed' && exit 1; }
		! grep -rEn "warned" "$linux/arch" || echo 'pmu.c:1: warning: warned'
		! grep -rEwn "broken|broken${out##*/}" "$linux/arch" | sed 's/.*/pmu.c: error: &/' | grep .
		;;
	esac
	END
	cat >"$repo/lab/run/boots" <<-'END'
	#!/bin/sh
	name=$(sed -n 's/^boot //p' "$1")
	grep -qx "kernel .*/build/commits/kernel/arch/x86/boot/bzImage" "$1"
	echo "boot $name $(awk '$1 == "run" { printf "%s ", $2 }' "$1")" >>../calls
	echo "PASS $name/boot" >"$RESULTS"
	! grep -rq unbootable build/commits/linux/arch || ! echo "FAIL $name/a_test: leak" >>"$RESULTS"
	END
	chmod +x "$repo/scripts/kernel" "$repo/lab/run/boots"
}

# check_series: with its results in "said" and its table in "out".
check_series() {
	: >said
	(cd "$repo" && RESULTS="$root/said" scripts/check-series >"$root/out")
}

# finds_something: check_series fails.
finds_something() {
	if check_series; then
		echo "found nothing: $(cat out)"
		return 1
	fi
}

# change NUMBER COMMAND...: run it in the tree as part of that commit.
change() {
	number=$1
	shift
	old=$(git -C "$tree" rev-list --reverse refs/topdown/base..HEAD)
	git -C "$tree" checkout -q "$(echo "$old" | sed -n "${number}p")"
	(cd "$tree" && "$@")
	git -C "$tree" add -A
	git -C "$tree" commit -q --amend --no-edit
	for commit in $(echo "$old" | sed "1,${number}d"); do
		git -C "$tree" cherry-pick "$commit" >/dev/null
	done
}

# bad_outcomes: as "NUMBER/COLUMN OUTCOME", sorted, those that are not PASS.
bad_outcomes() {
	sed -n 's/^\([A-Z]*\) commits\/0\([0-9]\)[^ ]*\/\([a-z]*\).*/\2\/\3 \1/p' said | grep -v PASS | sort
}

test_commits_that_are_fine() {
	workshop
	check_series
	same "$(grep -c '^PASS commits/' said)" 9
	same "$(grep -c ' ok *ok *ok$' out)" 3
	has out '^01-KVM-x86-pmu-First '
	has out '^check-series: 9 of 9 passed$'
}

# parted: the workshop with the third commit in a part of its own, which says that it stands
# alone, and a boot after each part.
parted() {
	workshop
	printf 'boot spr\ntier part\nmachine sapphire-rapids\nlike tests\n' >>"$repo/lab/boots/commit"
	sed -i 's|^.*0003-KVM-VMX-Third.patch$|# Part lazy: the rest\n&  # alone|' "$repo/series"
}

test_commits_that_end_a_part() {
	parted
	check_series
	same "$(grep -c '^PASS commits/' said)" 12
	same "$(grep '^boot.*spr' calls)" "$(printf 'boot commit-3-spr old_test a_test \nboot commit-2-spr old_test a_test ')"
	same "$(grep -c '^machine sapphire-rapids$' "$repo/build/commits/boots")" 0
	rm -r "$repo/build/commits/passed"
	: >calls
	PART=topdown check_series
	same "$(sed 's/.*commits.0\(.\).*\//\1 /' said | paste -sd ' ')" '2 plain 2 amd 2 tests 2 spr 1 plain 1 amd 1 tests'
	PART=topdwn fails "$repo/scripts/check-series"
	has said 'PART=topdwn: there is no such part: choose from topdown lazy$'
	PART=lazy COMMITS=3 fails "$repo/scripts/check-series"
	has said 'leave one out'
	# That boot is on that machine.
	PART=lazy CONFIGS=spr check_series
	has "$repo/build/commits/boots" '^machine sapphire-rapids$'
	has "$repo/build/commits/boots" '^run a_test 60 '
	same "$(grep -c '^like\|^tier' "$repo/build/commits/boots")" 0
}

test_commits_that_stand_alone() {
	parted
	CONFIGS=alone check_series
	same "$(cat said)" 'PASS commits/03-KVM-VMX-Third/alone'
	has calls 'kernel make plain KVM: VMX: Third'
	# The second one edits a line beside one of the first. By itself it builds, but does not apply.
	change 3 sed -i 's/^20$/brokenplain/;s/^twenty$/zwanzig/' arch/x86/kvm/pmu.c
	CONFIGS=alone finds_something
	has said 'FAIL commits/03-KVM-VMX-Third/alone: does not apply without the patches before it: error: patch failed: arch/x86/kvm/pmu.c'
	# Or it applies, and does not build without what the first one brings.
	change 3 sed -i 's/^zwanzig$/twenty/;s/^50$/needs/' arch/x86/kvm/pmu.c
	sed -i 's/^! grep -rEn "warned"/! grep -rqw needs "$linux\/arch" || grep -rqw twenty "$linux\/arch" || { echo "pmu.c: error: needs" \&\& exit 1; }\n&/' "$repo/scripts/kernel"
	CONFIGS='plain alone' finds_something
	same "$(bad_outcomes)" '3/alone FAIL'
	has said 'pmu.c: error: needs'
}

test_commits_of_which_one_does_not_build() {
	workshop
	change 2 sed -i 's/^7$/broken/' arch/x86/kvm/pmu.c
	change 3 sed -i 's/^broken$/7/' arch/x86/kvm/pmu.c
	finds_something
	same "$(bad_outcomes)" "$(printf '2/amd FAIL\n2/plain FAIL')"
	has said 'FAIL commits/02-.*/plain: pmu.c: error: .*broken (all of it: .*/2-plain.log)$'
	same "$(awk '/^02-/ { print $2, $3, $4 }' out)" 'FAIL FAIL ok'
}

test_commits_broken_in_one_configuration() {
	workshop
	change 3 sed -i 's/^7$/brokenamd/' arch/x86/kvm/pmu.c
	finds_something
	same "$(bad_outcomes)" '3/amd FAIL'
}

test_commits_with_a_warning() {
	workshop
	change 3 sed -i 's/^7$/warned/' arch/x86/kvm/pmu.c
	finds_something
	same "$(bad_outcomes)" "$(printf '3/amd FAIL\n3/plain FAIL')"
}

test_commits_on_a_base_that_does_not_build() {
	sed -i 's/^7$/broken/' linux/arch/x86/kvm/pmu.c
	workshop
	finds_something
	same "$(bad_outcomes | sort -u -k 2)" '1/amd ERROR'
	has said 'ERROR commits/01-.*/plain: the base does not build either: pmu.c: error'
}

test_commits_of_which_one_does_not_boot() {
	workshop
	change 1 sed -i 's/^7$/unbootable/' arch/x86/kvm/pmu.c
	change 2 sed -i 's/^unbootable$/7/' arch/x86/kvm/pmu.c
	finds_something
	same "$(bad_outcomes)" '1/tests FAIL'
	has said 'FAIL commits/01-.*/tests: commit-1-tests/a_test: leak'
}

test_commits_run_the_tests_that_they_have() {
	workshop
	check_series
	same "$(grep '^boot' calls)" "$(printf 'boot commit-3-tests old_test a_test \nboot commit-2-tests old_test a_test \nboot commit-1-tests old_test ')"
}

test_commits_that_passed_are_not_built_again() {
	workshop
	check_series
	: >calls
	change 2 git commit -q --amend -m 'KVM: selftests: Another subject'
	check_series
	same "$(cat calls)" ''
	same "$(grep -c '^PASS commits/' said)" 9
	has said 'PASS commits/02-KVM-selftests-Another-subject/amd'
	# What a later commit changes, says nothing of those before.
	change 3 sed -i 's/^50$/fifty/' arch/x86/kvm/vmx/pmu_intel.c
	check_series
	same "$(grep -c . calls)" "$(grep -c 'KVM: VMX: Third\|commit-3' calls)"
	same "$(grep -c 'commit-3-tests' calls)" 1
}

test_commits_to_selftests_are_not_compiled() {
	workshop
	check_series
	# The second commit has but a selftest: its objects are those of the first one.
	same "$(grep -c 'kernel make .* First' calls)" 0
	same "$(grep -c 'kernel make .* Second' calls)" 2
	has calls 'kernel commit  *KVM: x86/pmu: First'
}

test_commits_that_failed_are_tried_again() {
	workshop
	change 3 sed -i 's/^7$/broken/' arch/x86/kvm/pmu.c
	finds_something
	: >calls
	finds_something
	has calls 'kernel make plain KVM: VMX: Third'
	change 3 sed -i 's/^broken$/7/' arch/x86/kvm/pmu.c
	check_series
	same "$(awk '/^03-/ { print $2, $3, $4 }' out)" 'ok ok ok'
}

test_commits_that_the_machine_failed_are_tried_again() {
	workshop
	touch no-memory
	finds_something
	has said 'ERROR commits/03-.*: the base does not build either: gcc: fatal error: killed'
	same "$(awk '/^03-/ { print $2, $3, $4 }' out)" 'ERROR ERROR ok'
	rm no-memory
	check_series
	same "$(awk '/^03-/ { print $2, $3, $4 }' out)" 'ok ok ok'
}

test_commits_with_a_setting_that_kconfig_drops() {
	workshop
	sed -i '/^amd/s/$/ UNKNOWN=y/' "$repo/base/ways"
	finds_something
	has said 'ERROR commits/03-.*/amd: .*Kconfig drops CONFIG_UNKNOWN=y'
	same "$(bad_outcomes | sort -u -k 2)" '1/amd ERROR'
}

test_commits_that_are_chosen() {
	workshop
	COMMITS=2..3 CONFIGS=amd check_series
	same "$(sed 's/.*commits.0\(.\).*\//\1 /' said | paste -sd ' ')" '3 amd 2 amd'
	for wrong in 0 4 2..9 3..2 a 1...2 1..2..3 ..2 2.. .. -1; do
		COMMITS=$wrong fails "$repo/scripts/check-series"
		has said 'COMMITS='
	done
	CONFIGS=arm fails "$repo/scripts/check-series"
	has said 'there is no arm: choose from plain amd alone tests'
}

test_commits_one_run_at_a_time() {
	workshop
	mkdir -p "$repo/build/commits"
	(
		flock 8
		fails "$repo/scripts/check-series"
	) 8>"$repo/build/commits/lock"
	has said 'another one is at work in .*: wait for it'
	check_series
}
