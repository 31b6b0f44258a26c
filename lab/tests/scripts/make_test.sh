# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154,SC2016 # world.sh sets them; text of scripts
# scripts/total, scripts/locked and scripts/packages

# results PART STATUS LINE...: what a part leaves behind.
results() {
	part=$1
	mkdir -p "$repo/build/results"
	[ -z "$2" ] || echo "$2" >"$repo/build/results/$part.status"
	shift 2
	for line; do
		echo "$line"
	done >"$repo/build/results/$part.results"
}

# red PATTERN PART...: the total must fail, and say why.
red() {
	pattern=$1
	shift
	if "$repo/scripts/total" "$@" >out; then
		echo "the total is green: $(cat out)"
		return 1
	fi
	has out "$pattern"
	tail -n 1 out >last
	has last '^[0-9]* passed, [1-9][0-9]* failed, [0-9]* skipped$'
}

test_total_adds_up() {
	results a 0 'PASS a/one' 'SKIP a/two: no reason' '1..2'
	results b 0 'PASS b/one: with words'
	"$repo/scripts/total" a b >out
	same "$(tail -n 1 out)" '2 passed, 0 failed, 1 skipped'
	has out 'SKIP a/two: no reason'
	same "$(cat "$repo/build/results/total")" '2 passed, 0 failed, 1 skipped'
}

test_total_counts_errors_as_failed() {
	results a 1 'PASS a/one' 'FAIL a/two: why' 'ERROR a/three: why'
	red 'ERROR a/three: why' a
	same "$(cat last)" '1 passed, 2 failed, 0 skipped'
}

test_total_without_a_file() {
	results a 0 'PASS a/one'
	red 'ERROR b: left no results' a b
}

test_total_with_an_empty_file() {
	results a 0
	red 'ERROR a: left no results' a
}

test_total_with_a_cut_file() {
	results a 0 'PASS a/one'
	printf 'PASS a/tw' >>"$repo/build/results/a.results"
	red 'ERROR a: its results end in the middle of a line' a
}

test_total_with_fewer_results_than_planned() {
	results a 0 '1..3' 'PASS a/one' 'PASS a/two'
	red 'ERROR a: 2 results of 3' a
}

test_total_with_a_part_that_died() {
	results a 139 'PASS a/one'
	red 'ERROR a: died with status 139' a
}

test_total_with_a_part_that_never_ended() {
	results a '' 'PASS a/one'
	red 'ERROR a: did not end' a
}

test_total_with_garbage() {
	results a 0 'PASS a/one' 'passed all the rest'
	red 'ERROR a: this is no outcome: passed all the rest' a
}

test_total_with_a_name_twice() {
	results a 0 'PASS a/one' 'PASS a/one'
	red 'ERROR a: two results of the name a/one' a
}

test_total_of_skips_alone() {
	results a 0 'SKIP a/one: no host'
	if "$repo/scripts/total" a >out; then
		echo "nothing passed, but the total is green"
		return 1
	fi
}

test_check_runs_a_part_that_dies() {
	mkdir -p "$repo/lab/tests/dies"
	printf '#!/bin/sh\necho "PASS dies/one" >"$RESULTS"\nkill -9 $$\n' >"$repo/lab/tests/dies/run"
	chmod +x "$repo/lab/tests/dies/run"
	printf '#!/bin/sh\necho "PASS lint/x" >"$RESULTS"\n' >"$repo/scripts/lint"
	if "$repo/scripts/check" fast >out 2>&1; then
		echo "green: $(cat out)"
		return 1
	fi
	has out 'ERROR dies: died with status 137'
	V=1 "$repo/scripts/check" fast >out 2>&1 || :
	has out 'ERROR dies: died with status 137'
}

test_check_boots_nothing_if_a_build_failed() {
	printf '#!/bin/sh\necho "PASS lint/x" >"$RESULTS"\n' >"$repo/scripts/lint"
	if "$repo/scripts/check" >out 2>&1; then
		echo "green: $(cat out)"
		return 1
	fi
	has out '^check: nothing is booted, as not all was built'
	has out 'ERROR build/sources: make CONFIG=lab sources tells why'
	same "$(grep -c 'check: lab: ' out)" 0
}

test_locked_says_who() {
	"$repo/scripts/locked" sleep 60 &
	n=0
	while [ ! -s "$repo/build/.lock.owner" ] && [ "$n" -lt 100 ]; do
		n=$((n + 1))
		sleep 0.1
	done
	fails "$repo/scripts/locked" true
	has said 'another make is at work in this checkout (process [0-9]*, since'
	kill $!
	wait $! || :
}

test_locked_passes_the_status() {
	status=0
	"$repo/scripts/locked" sh -c 'exit 3' || status=$?
	same "$status" 3
}

test_packages_names_the_command() {
	mkdir bin
	printf '#!/bin/sh\necho 1000\n' >bin/id
	printf '#!/bin/sh\nexit 1\n' >bin/sudo
	printf '#!/bin/sh\necho "gcc installed"\n' >bin/dpkg-query
	chmod +x bin/*
	printf 'gcc\nmake # why\nflex\n' >"$repo/base/packages"
	PATH=$PWD/bin:$PATH fails "$repo/scripts/packages"
	has said 'sudo apt-get install -y --no-install-recommends flex make$'
}

test_packages_does_nothing_if_all_are_there() {
	mkdir bin
	printf '#!/bin/sh\nprintf "gcc installed\\nmake installed\\n"\n' >bin/dpkg-query
	printf '#!/bin/sh\necho called >>called\n' >bin/apt-get
	chmod +x bin/*
	printf 'gcc\nmake # why\n' >"$repo/base/packages"
	PATH=$PWD/bin:$PATH "$repo/scripts/packages" >out
	same "$(cat out)" ""
	[ ! -e called ]
}

test_packages_of_all_lists_in_one_go() {
	mkdir bin
	printf '#!/bin/sh\necho "gcc installed"\n' >bin/dpkg-query
	printf '#!/bin/sh\necho "$*" >>called\necho "E: Unable to locate package fletsch" >&2\nexit 1\n' >bin/apt-get
	printf '#!/bin/sh\necho 0\n' >bin/id
	chmod +x bin/*
	printf 'gcc\nmake # why\n' >"$repo/base/packages"
	printf 'make\nfletsch\n' >"$repo/base/packages-x"
	PATH=$PWD/bin:$PATH fails "$repo/scripts/packages" base/packages base/packages-x
	has said 'could not install them (Unable to locate package fletsch)'
	has called '^install -y --no-install-recommends fletsch make '
}

# sudo drops the environment, and nobody sees a question or another apt-get at work.
test_packages_asks_nothing() {
	mkdir bin
	printf '#!/bin/sh\necho 1000\n' >bin/id
	printf '#!/bin/sh\necho "gcc installed"\n' >bin/dpkg-query
	# shellcheck disable=SC2016 # the programs replace these
	{
		printf '#!/bin/sh\nshift\nexec /usr/bin/env -i PATH="$PATH" "$@"\n' >bin/sudo
		printf '#!/bin/sh\necho "$DEBIAN_FRONTEND $*" >>called\n! read -r line\n' >bin/apt-get
	}
	chmod +x bin/*
	printf 'flex\n' >"$repo/base/packages"
	yes | PATH=$PWD/bin:$PATH "$repo/scripts/packages"
	same "$(cat called)" \
		'noninteractive install -y --no-install-recommends flex -o DPkg::Lock::Timeout=600'
}

# A link in a page leads to a file, and to a heading that GitHub names so.
test_links_lead_somewhere() {
	git -C "$top" ls-files '*.md' >pages
	while read -r page; do
		grep -oE '\]\([^)# ]*(#[^) ]+)?\)' "$top/$page" | sed -e 's/^](//' -e 's/)$//' | grep -v :// >links || :
		while IFS='#' read -r file heading; do
			target=$top/$(dirname "$page")/$file
			[ -n "$file" ] || target=$top/$page
			[ -e "$target" ] || echo "$page: $file"
			[ -z "$heading" ] || sed -n 's/^#* //p' "$target" | tr 'A-Z ' 'a-z-' | tr -dc 'a-z0-9_\n-' |
				grep -qxF "$heading" || echo "$page: $file#$heading"
		done <links
		cat links >>all
	done <pages >broken
	[ "$(grep -c . all)" -gt 10 ]
	same "$(cat broken)" ''
}

# What a script says is missing, scripts/packages can bring.
test_packages_has_what_scripts_need() {
	for file in "$top"/base/packages*; do
		sed -e 's/[[:space:]]*#.*//' "$file"
	done | sort -u >lists
	grep -rhE '^[[:space:]]*need [^ ]+ [^ ]+' "$top/scripts" "$top/host" "$top/lab/bochs" "$top/lab/image" \
		"$top/lab/run" "$top/lab/judge" "$top/lab/report" "$top/lab/bench" "$top/qemu" | tr -d '"' | awk '{ print $3 }' | sort -u >needed
	[ "$(grep -c . needed)" -gt 15 ]
	# What dpkg-buildpackage asks for, as a machine without any package would be told.
	mkdir admin
	: >admin/status
	dpkg-checkbuilddeps --admindir=admin "$top/host/debian/control" 2>asked || :
	has asked '[Uu]nmet build dependencies: build-essential'
	sed -e 's/.*dependencies: //' -e 's/ ([^)]*)//g' -e 's/:native//g' -e 's/-compat//g' asked |
		tr ' ' '\n' | sort -u - needed -o needed
	# shellcheck disable=SC2016 # dpkg-query replaces it
	for package in $(comm -13 lists needed); do
		case $(dpkg-query -W -f '${Essential}' "$package" 2>/dev/null) in
		yes) ;;
		*) [ "$package" = apt ] || echo "$package" ;;
		esac
	done >lacking
	same "$(cat lacking)" ""
	# A list that no target installs is of no use.
	# shellcheck disable=SC2046 # a list
	make -n -C "$top" TOPDOWN_LOCKED=1 \
		$(sed -n 's/^\(packages[a-z -]*\):.*/\1/p' "$top/Makefile") >commands
	for file in "$top"/base/packages-*; do
		grep -qw "base/${file##*/}" commands || echo "${file##*/}"
	done >unused
	same "$(cat unused)" ""
}

# slow LAST: a script that tells how far it is, and then does LAST.
slow() {
	cat >slow <<-END
		top=$repo
		. "\$top/scripts/lib.sh"
		how() { echo "\$1 of 7 done"; }
		watch how 3
		sleep 3
		$1
	END
}

test_watch_tells_how_far() {
	slow 'unwatch; sleep 2; echo end'
	PROGRESS=1 sh slow >out
	has out '^slow: 3 of 7 done, [12] s$'
	same "$(tail -n 1 out)" end
	PROGRESS=30 sh slow >out
	same "$(cat out)" end
	PROGRESS=1 V=1 sh slow >out
	same "$(cat out)" end
}

# Who reads its output does not wait for more, and its locks are free.
test_watch_ends_with_its_script() {
	slow 'exec 9>lock; flock 9; watch how 3; sleep 2; kill -9 $$'
	(PROGRESS=9 sh slow || :) | timeout 8 cat >out
	flock -n lock true
	slow 'die "why"'
	PROGRESS=1 fails timeout 8 sh slow
	has said 'why'
}
