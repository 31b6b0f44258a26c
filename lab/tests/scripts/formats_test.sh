# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154 # world.sh sets them; results is in make_test.sh
# scripts/tap-junit, which scripts/total calls: results as TAP and as JUnit XML

# total PART...: whatever its outcome is.
total() {
	"$repo/scripts/total" "$@" >out 2>said || :
	tap=$repo/build/results/results.tap
	xml=$repo/build/results/junit.xml
}

# xml EXPRESSION: what Python makes of it, "root" being the document's root.
xml() {
	python3 -c 'import sys, xml.etree.ElementTree as ET
root = ET.parse(sys.argv[1]).getroot()
print(eval(sys.argv[2]))' "$xml" "$1"
}

# text ELEMENT: of the first one, its message or text as UTF-8 in hexadecimal.
text() {
	xml "(lambda e: (e.get('message') or e.text).encode().hex())(root.find('.//$1'))"
}

test_formats_have_all_outcomes() {
	results a 0 'PASS a/one' 'SKIP a/two: no reason' '1..2'
	results b 1 'PASS b/one: with words' 'FAIL b/two: why' 'ERROR b/three: what broke'
	total a b
	cat >due <<-'END'
		TAP version 13
		1..5
		ok 1 - a/one
		ok 2 - a/two # SKIP no reason
		ok 3 - b/one
		# PASS: with words
		not ok 4 - b/two
		# FAIL: why
		not ok 5 - b/three
		# ERROR: what broke
	END
	diff due "$tap"
	same "$(xml '[(s.get("name"), s.get("tests"), s.get("failures"), s.get("errors"), s.get("skipped")) for s in root]')" \
		"[('a', '2', '0', '0', '1'), ('b', '3', '1', '1', '0')]"
	same "$(xml 'root.tag, root.get("tests"), root.get("failures"), root.get("errors")')" \
		"('testsuites', '5', '1', '1')"
	same "$(xml '[(c.get("classname"), c.get("name")) for c in root.iter("testcase")]')" \
		"[('a', 'a/one'), ('a', 'a/two'), ('b', 'b/one'), ('b', 'b/two'), ('b', 'b/three')]"
	same "$(xml '[(e.tag, e.get("message")) for c in root.iter("testcase") for e in c if e.tag != "system-out"]')" \
		"[('skipped', 'no reason'), ('failure', 'why'), ('error', 'what broke')]"
	same "$(xml '[e.text for e in root.iter("system-out")]')" "['with words']"
}

# What total itself finds is there, too.
test_formats_have_what_is_distrusted() {
	results a 0 'PASS a/one' 'no outcome'
	total a b
	same "$(grep -c '^not ok' "$tap")" 2
	same "$(xml '[(e.tag, e.get("message")) for c in root.iter("testcase") for e in c]')" \
		"[('error', 'this is no outcome: no outcome'), ('error', 'left no results ($repo/build/log/check-b.log)')]"
}

test_formats_escape_markup() {
	results a 1 'FAIL a/<b>&"'\''name: </failure>]]>&amp;<!--"'\'' &#0; <?x?>'
	total a
	same "$(xml 'root.find(".//testcase").get("name")')" "a/<b>&\"'name"
	same "$(text failure)" "$(printf '%s' '</failure>]]>&amp;<!--"'\'' &#0; <?x?>' | od -An -v -tx1 | tr -d ' \n')"
	same "$(xml 'len(list(root.iter()))')" 4
}

# Text that XML cannot have, and bytes that are no text.
test_formats_replace_what_has_no_place() {
	results a 1 "FAIL a/odd$(printf '\001\377'): $(printf '\033[31m\013\014\r\177 \302\205 \355\240\200 \357\277\276 \342\200\250 \363\240\200\201 \303\251 \t.')"
	total a
	xml 1
	same "$(xml 'ascii(root.find(".//testcase").get("name"))')" "'a/odd\\ufffd\\ufffd'"
	same "$(xml 'ascii(root.find(".//failure").get("message"))')" \
		"'\\ufffd[31m\\ufffd\\ufffd\\ufffd\\ufffd \\ufffd \\ufffd\\ufffd\\ufffd \\ufffd \\ufffd \\U000e0001 \\xe9 \\t.'"
	same "$(wc -l <"$tap")" 4
	iconv -f utf-8 -t utf-8 "$tap" >converted
}

# Nothing that a test says becomes a directive, a plan or a result of TAP.
test_formats_forge_no_directive() {
	later='TO''DO'	# TAP's other directive, in two as it is no work left over here
	results a 1 'FAIL a/x#SKIP: # SKIP not at all' "PASS a/y\\#$later: ok 9 - a/z" \
		"FAIL a/$later: Bail out!" "SKIP a/s: why # $later \\ 1..7"
	total a
	has "$tap" '^not ok 1 - a/x\\#SKIP$'
	has "$tap" '^ok 2 - a/y\\\\\\#'"$later$"
	has "$tap" '^ok 4 - a/s # SKIP why \\# '"$later"' \\\\ 1\.\.7$'
	prove -v --exec cat "$tap" >proved 2>&1 || :
	has proved '^  Failed tests:  1, 3$'
	has proved '4/4 subtests\|Failed 2/4 subtests'
}

# Stale files of an earlier run don't stay, and the total says so.
test_formats_that_cannot_be_written() {
	results a 0 'PASS a/one'
	total a
	[ -f "$tap" ] && [ -f "$xml" ]
	printf '#!/bin/sh\necho broken >&2\nexit 1\n' >"$repo/scripts/tap-junit"
	if "$repo/scripts/total" a >out 2>said; then
		echo "green without the files"
		return 1
	fi
	has out '^ERROR total: .*build/results has no results.tap and junit.xml'
	same "$(tail -n 1 out)" '1 passed, 1 failed, 0 skipped'
	[ ! -e "$tap" ] && [ ! -e "$xml" ]
}
