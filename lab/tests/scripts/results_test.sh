# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154 # world.sh sets them
# Results, by scripts/lib.sh

# with COMMAND...: in a shell that has the functions.
with() {
	top=$repo sh -eu -c '. "$top/scripts/lib.sh"; "$@"' with "$@"
}

test_results_wait_for_their_turn() {
	flock file sh -c 'touch held; sleep 1; echo "PASS x/first" >>file' &
	until [ -e held ]; do
		sleep 0.1
	done
	echo 'PASS x/second' | with add_results file copy
	wait
	same "$(cat file)" "$(printf 'PASS x/first\nPASS x/second')"
	same "$(cat copy)" 'PASS x/second'
}

test_results_are_counted() {
	printf '1..3\nPASS x/FAIL: ERROR \nSKIP x/two\nERROR x/three: PASS indeed\nFAIL x/four\n' >file
	same "$(with count_results file) $(with count_results file PASS) $(with count_results file SKIP)" '4 1 1'
	same "$(with bad_results file)" "$(printf 'ERROR x/three: PASS indeed\nFAIL x/four')"
	: >none
	same "$(with count_results none)" 0
	same "$(with bad_results none)" ''
}

test_results_are_found_by_name() {
	printf 'FAIL x/one: two\nPASS x/two\n' >file
	with has_result FAIL x/one <file
	with has_result PASS x/two <file
	for not in 'FAIL x/two' 'PASS two' 'FAIL x/on' 'FAIL x.one' 'FAIL two'; do
		# shellcheck disable=SC2086 # words
		if with has_result $not <file; then
			echo "$not is there"
			return 1
		fi
	done
}
