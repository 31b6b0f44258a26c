# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154,SC2164,SC2016 # world.sh sets them; set -e is on; text of programs
# scripts/export, and what is done with the mails

# maintained: a Linux that has a maintainer and a list, and one more of each for VMX.
maintained() {
	mkdir -p "$LINUX/scripts"
	cat >"$LINUX/scripts/get_maintainer.pl" <<-'END'
	open my $diff, "<", $ARGV[-1];
	my $vmx = grep /^diff .*vmx/, <$diff>;
	my ($people, $lists) = map { my $no = $_; !grep { $_ eq $no } @ARGV } "--no-m", "--no-l";
	print "\"K. Keeper\" <keeper\@example.org>\n" if $people;
	print "V. Max <max\@example.org>\n" if $people && $vmx;
	print "list\@example.org\n" if $lists;
	print "vmx\@example.org\n" if $lists && $vmx;
	END
}

# maintained_commits: three_commits there, all in part topdown.
maintained_commits() {
	maintained
	three_commits
	mails=$repo/build/outgoing/topdown
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

# Those of the real series, whose parts may be others than topdown.
test_export_has_a_cover_letter() {
	maintained_commits
	for letter in "$top"/scripts/cover-letter/*.txt; do
		part=$(basename "$letter" .txt)
		sed -i "s/^# Part .*/# Part $part: all of it/" "$repo/series"
		"$repo/scripts/export"
		mails=$repo/build/outgoing/$part
		same "$(find "$mails" -name '*.patch' | wc -l)" 4
		has "$mails"/0000* "^Subject: \[PATCH 0/3\] $(head -n 1 "$letter")\$"
		for heading in 'What' 'Tests' 'EMULATION, not hardware' 'How to reproduce'; do
			grep -A 1 -x "$heading" "$mails"/0000* >section ||
				{ echo "the letter of $part has no heading '$heading'"; return 1; }
			has section '^==*$'
		done
		has "$mails"/0000* '^  make check '
		has "$mails"/0000* '^Based on Linux 7.3.4. No public'
		has "$mails"/0000* ' 4 files changed, '
		# A line "---" would end the text for git and b4, "# ..." would be left out.
		sed -n '/^$/,/^Based on/p' "$mails"/0000* >text
		same "$(grep -cE '^(---$|#)|[*][*][*]|[{}]|.{76}' text)" 0
	done
	VERSION=2 PREFIX='RFC PATCH' "$repo/scripts/export"
	has "$mails"/v2-0000* '^Subject: \[RFC PATCH v2 0/3\] KVM'
	rm "$repo/scripts/cover-letter/$part.txt"
	fails "$repo/scripts/export"
	has said "scripts/cover-letter/$part.txt, .*, is missing"
}

test_export_of_parts() {
	maintained
	two_parts
	touch "$repo/scripts/cover-letter/unused.txt"
	"$repo/scripts/export" >out
	has out '^export: build/outgoing/topdown: 3 mails to 1 people and 4 lists'
	has out '^export: build/outgoing/lazy: 2 mails to 2 people and 2 lists'
	mails=$repo/build/outgoing
	same "$(cd "$mails" && echo *)" 'lazy topdown'
	same "$(grep -h '^Subject: ' "$mails"/*/*.patch | cut -c 1-30)" "$(printf '%s\n' \
		'Subject: [PATCH 0/1] KVM: VMX:' 'Subject: [PATCH 1/1] KVM: VMX:' \
		'Subject: [PATCH 0/2] KVM: x86/' 'Subject: [PATCH 1/2] KVM: x86/' \
		'Subject: [PATCH 2/2] KVM: self')"
	# The later part tells what has to be there before it.
	for part in topdown lazy; do
		has "$mails/$part"/0000* "^base-commit: $(git -C "$tree" rev-parse refs/topdown/base)\$"
	done
	same "$(grep -c '^prerequisite-patch-id: ' "$mails"/*/0000* | sed 's/.*://')" "$(printf '2\n0')"
	same "$(git -C "$tree" diff refs/topdown/base HEAD~2 | git patch-id --stable | cut -d ' ' -f 1)" \
		"$(sed -n 's/^prerequisite-patch-id: //p' "$mails"/lazy/0000* | head -n 1)"
	# One by one, without touching the other.
	rm -r "$mails/lazy"
	touch "$mails/topdown/mine"
	PART=lazy "$repo/scripts/export" >out
	same "$(cd "$mails" && echo *)" 'lazy topdown'
	[ -f "$mails/topdown/mine" ]
	PART=topdwn fails "$repo/scripts/export"
	has said 'PART=topdwn: there is no such part: choose from topdown lazy$'
	same "$(find "$repo/build" -maxdepth 1 -name 'outgoing*')" "$mails"
}

# The series has parts, or nothing says what to mail.
test_export_without_parts() {
	maintained_commits
	sed -i /Part/d "$repo/series"
	fails "$repo/scripts/export"
	has said '^export: series: arch/.*0001-.* belongs to no part: write "# Part NAME: what it is" above it$'
}

test_export_is_addressed() {
	maintained_commits
	printf '\nCc: Reader <reader@example.org>\n' >>"$repo/scripts/cover-letter/topdown.txt"
	"$repo/scripts/export"
	for mail in "$mails"/*.patch; do
		has "$mail" '^To: "K. Keeper" <keeper@example.org>'
		has "$mail" '^Cc: list@example.org,$'
		has "$mail" '^    vmx@example.org,$'
		has "$mail" '^    Reader <reader@example.org>$'
	done
	# Who maintains VMX reads of the whole, and what is for VMX.
	same "$(grep -l '^    V. Max <max@example.org>$' "$mails"/*.patch | sed 's/.*\///' | cut -c 1-4)" "$(printf '0000\n0003')"
	has "$mails/cover" '^To: "K. Keeper" <keeper@example.org>$'
	has "$mails/cover" '^To: V. Max <max@example.org>$'
	has "$mails/cover" '^Cc: list@example.org$'
	same "$(grep -c '^Cc: Reader' "$mails"/0000*)" 0
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

# ranges: of the numbers on standard input, as "1-3, 5".
ranges() {
	awk '
	function add() { text = text (text == "" ? "" : ", ") first (last > first ? "-" last : "") }
	NR > 1 && $1 != last + 1 { add() }
	NR == 1 || $1 != last + 1 { first = $1 }
	{ last = $1 }
	END { if (NR) { add(); print text } }'
}

# The overview in a part's cover letter, lines "  FIRST-LAST  what", has all of its patches, and
# begins anew with each heading in "series". The patches that stand alone are named, if any.
test_cover_letters_count_the_patches() {
	cp "$top/series" "$repo/series"
	sh -c 'top=$1; . "$top/scripts/series.sh"; series_parts' test "$repo" >parts
	for part in $(cut -d ' ' -f 1 parts | uniq); do
		letter=$top/scripts/cover-letter/$part.txt
		sed -n 's/^  \([0-9][0-9-]*\)  .*/\1/p' "$letter" >overview
		# Further down, tests may be listed in the same way.
		awk -F - '$1 != last + 1 { exit } { print; last = $NF }' overview >counts
		same "$part $(tail -n 1 counts | sed 's/.*-//')" "$part $(grep -c "^$part " parts)"
		awk -v part="$part" '
		/^# Part / { inside = $3 == part ":"; heading = 1; next }
		!inside { next }
		/^#/ { heading = 1; next }
		NF { number++; if (heading) print number; heading = 0 }' "$repo/series" |
			while read -r start; do
				grep -qE "^$start(-|\$)" counts ||
					{ echo "no line of $letter begins with patch $start, as a heading in series does"; return 1; }
			done
		alone=$(awk -v part="$part" '$1 == part { number++; if ($3 == "alone") print number }' parts | ranges)
		[ -z "$alone" ] || tr '\n' ' ' <"$letter" | grep -q "Patches $alone apply and build" ||
			{ echo "$letter does not say that patches $alone apply and build without any other"; return 1; }
	done
}
