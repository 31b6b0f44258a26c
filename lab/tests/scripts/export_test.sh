# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154,SC2164,SC2016 # world.sh sets them; set -e is on; text of programs
# scripts/export, and what is done with the mails

# maintained_commits: three_commits in a Linux that has a maintainer and a list.
maintained_commits() {
	mkdir -p "$LINUX/scripts"
	cat >"$LINUX/scripts/get_maintainer.pl" <<-'END'
	print "\"K. Keeper\" <keeper\@example.org>\n" unless grep { $_ eq "--no-m" } @ARGV;
	print "list\@example.org\n" unless grep { $_ eq "--no-l" } @ARGV;
	END
	three_commits
	mails=$repo/build/outgoing
}

# applied: the mails on Linux without the series, in the repository "kernel".
applied() {
	git clone -q --shared --no-checkout "$tree" kernel
	git -C kernel branch -q base "$(git -C "$tree" rev-parse refs/topdown/base)"
	git -C kernel checkout -q base
	git -C kernel switch -q -c guests
	git -C kernel am -q --empty=drop "$mails"/*.patch
}

test_export_signs_off() {
	maintained_commits
	"$repo/scripts/export"
	for mail in "$mails"/000[1-3]*; do
		same "$(grep -c '^Signed-off-by: Tester <tester@localhost>$' "$mail")" 1
		has "$mail" '^From: Tester <tester@localhost>'
	done
	has "$mails"/0002* '^+int a;'
	git config --file gitconfig --unset user.email
	fails "$repo/scripts/export"
	has said 'git config user.email'
}

test_export_has_a_cover_letter() {
	maintained_commits
	"$repo/scripts/export"
	same "$(find "$mails" -name '*.patch' | wc -l)" 4
	has "$mails"/0000* '^Subject: \[PATCH 0/3\] KVM: x86/pmu: Support topdown metrics in guests'
	for heading in 'Why' 'What' 'Prior work' 'How this differs from V6' \
		'Results: EMULATION, not hardware' 'How to reproduce'; do
		grep -A 1 -x "$heading" "$mails"/0000* >section ||
			{ echo "the cover letter has no heading '$heading'"; return 1; }
		has section '^==*$'
	done
	has "$mails"/0000* '^  https://lore.kernel.org/all/[0-9.-]*zide.chen@intel.com$'
	has "$mails"/0000* '^  make check '
	has "$mails"/0000* '^Based on Linux 7.3.4.$'
	has "$mails"/0000* ' 4 files changed, '
	# A line "---" would end the text for git and b4, "# ..." would be left out.
	sed -n '/^$/,/^Based on/p' "$mails"/0000* >text
	same "$(grep -cE '^(---$|#)|[*][*][*]|[{}]|.{76}' text)" 0
	VERSION=2 PREFIX='RFC PATCH' "$repo/scripts/export"
	has "$mails"/v2-0000* '^Subject: \[RFC PATCH v2 0/3\] KVM'
}

test_export_is_addressed() {
	maintained_commits
	"$repo/scripts/export"
	for mail in "$mails"/*.patch; do
		has "$mail" '^To: "K. Keeper" <keeper@example.org>$'
		has "$mail" '^Cc: list@example.org,$'
		has "$mail" '^    Zide Chen <zide.chen@intel.com>,$'
	done
	has "$mails/cover" '^To: "K. Keeper" <keeper@example.org>$'
	has "$mails/cover" '^Cc: list@example.org$'
	same "$(grep -c '^Cc: Zide Chen' "$mails"/0000*)" 0
}

test_export_without_maintainers_says_so() {
	three_commits
	"$repo/scripts/export" >out
	has out 'get_maintainer.pl found nobody to mail to: .*get_maintainer.pl'
}

test_export_names_the_repository() {
	maintained_commits
	"$repo/scripts/export" >out
	has out 'make export REPO=URL'
	has "$mails"/0000* '^the repository that this series is kept in:$'
	fails env REPO=/home/me/repo "$repo/scripts/export"
	has said 'nobody else can clone REPO=/home/me/repo'
	REPO=https://example.org/a.git "$repo/scripts/export" >out
	has "$mails"/0000* '^https://example.org/a.git:$'
	same "$(grep -c REPO out)" 0
	# The remote may have a password, which is nobody's business.
	git -C "$repo" init -q
	git -C "$repo" remote add origin https://me:secret@example.org/b.git
	"$repo/scripts/export" >out
	has "$mails"/0000* '^https://example.org/b.git:$'
	git -C "$repo" remote set-url origin git@localhost:b.git
	"$repo/scripts/export" >out
	has out 'make export REPO=URL'
}

test_export_applies() {
	maintained_commits
	"$repo/scripts/export"
	applied
	same "$(git -C kernel rev-parse 'HEAD^{tree}')" "$(git -C "$tree" rev-parse 'HEAD^{tree}')"
	same "$(git -C kernel log --format=%s base..)" "$(git -C "$tree" log --format=%s refs/topdown/base..)"
}

# What CONTRIBUTING.md says under "Send the series".
test_export_is_adopted() {
	command -v b4 >/dev/null || skip "b4 is not installed"
	maintained_commits
	"$repo/scripts/export"
	applied
	cd kernel
	b4 prep --enroll base
	EDITOR="cp $mails/cover" b4 prep --edit-cover
	b4 prep --show-info >../info
	has ../info '^cover-subject: KVM: x86/pmu: Support topdown metrics in guests$'
	same "$(grep -c '^commit-' ../info)" 3
	git log --format=%B base.. >../log
	has ../log '^To: "K. Keeper" <keeper@example.org>$'
	b4 prep -p ../formatted
	same "$(find ../formatted -name '*.patch' | wc -l)" 4
	has ../formatted/0000* '^How to reproduce$'
	same "$(git rev-parse 'HEAD^{tree}')" "$(git -C "$tree" rev-parse 'HEAD^{tree}')"
}

# The overview in the cover letter, lines "  FIRST-LAST  what", has the groups of "series".
test_cover_letter_counts_the_patches() {
	awk '/^#/ { heading = 1; next } NF {
		number++
		if (heading) first[++groups] = number
		heading = 0
		last[groups] = number
	} END {
		for (i = 1; i <= groups; i++)
			print first[i] (last[i] > first[i] ? "-" last[i] : "")
	}' "$top/series" >groups
	sed -n 's/^  \([0-9][0-9-]*\)  .*/\1/p' "$top/scripts/cover-letter.txt" >letter
	same "$(cat letter)" "$(cat groups)"
}
