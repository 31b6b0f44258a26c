# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154,SC2016 # world.sh sets them; programs are texts
# scripts/check-fresh, without a machine: what it makes of what the commands say.

# program NAME TEXT: one that comes first in PATH.
program() {
	mkdir -p "$root/bin"
	printf '#!/bin/sh\n%s\n' "$2" >"$root/bin/$1"
	chmod +x "$root/bin/$1"
}

# machines: for all that check-fresh calls. "unshare" runs debootstrap, which makes a
# folder, and instead of a command in it the script "does", which has it as an argument.
machines() {
	git -C "$repo" init -q
	git -C "$repo" add -A
	git -C "$repo" commit -q -m all
	mkdir -p "$repo/build"
	program id 'echo 0'
	program df 'printf "x\n/dev/x 1 1 99999999 1%% /\n"'
	program debootstrap 'for argument; do
		case $argument in
		/*) mkdir -p "$argument/etc/apt/apt.conf.d" "$argument/root" ;;
		esac
	done'
	program unshare 'while [ "${1#--}" != "$1" ]; do shift; done
	[ "${2:-}" = inside ] || exec "$@"
	exec does "$5"'
	PATH=$root/bin:$PATH
	export MIRROR=http://mirror.invalid/debian RESULTS="$root/results"
	: >results
}

fresh=build/fresh/13

good_make='echo "topdown: largest difference 0.20 points over 7 workloads"'
good_check='echo "300 passed, 0 failed, 1 skipped"'

# fails_there COMMAND WORDS: the result of "make" or "check" on Debian 13 has them; its folder stays.
fails_there() {
	if "$repo/scripts/check-fresh" 13 "$1" >out 2>&1; then
		echo "green: $(cat out)"
		return 1
	fi
	has results "^FAIL fresh/13-$1: .*$2"
	[ -d "$repo/$fresh" ]
}

test_fresh_runs_both_commands() {
	machines
	program does "echo \"\$1\" >>$root/called
	[ \"\$1\" = make ] || { $good_check; exit; }
	$good_make"
	"$repo/scripts/check-fresh" >out
	same "$(paste -sd , called)" 'make,make check,make,make check'
	same "$(grep -c '^PASS fresh/1[23]-\(make\|check\): ' results)" 4
	has results '^PASS fresh/12-make: topdown: largest difference 0.20 points over 7 workloads, after'
	[ ! -e "$repo/build/fresh/12" ]
	[ ! -e "$repo/$fresh" ]
	has "$repo/build/log/fresh-13-check.log" '^300 passed'
}

test_fresh_has_the_commit_and_the_transport() {
	home=/root
	machines
	program apt-config 'echo "Acquire::http::Proxy \"http://proxy.invalid\";"
	echo "Acquire::IndexTargets \"\";"'
	program does false
	fails_there make 'status 1'
	same "$(git -C "$repo/$fresh$home/topdown" rev-parse HEAD)" "$(git -C "$repo" rev-parse HEAD)"
	has "$repo/$fresh/etc/apt/apt.conf.d/99transport" 'proxy.invalid'
	has "$repo/$fresh/etc/apt/apt.conf.d/99transport" 'Acquire::Check-Valid-Until "false";'
}

test_fresh_with_a_make_that_fails() {
	machines
	program does 'echo "kernel: perf failed: no pkg-config"; echo "make: *** [Makefile:99: kernel] Error 1"; exit 2'
	fails_there make 'status 2: kernel: perf failed: no pkg-config (all of it: .*build/log/fresh-13-make.log'
	"$repo/scripts/check-fresh" 13 >out 2>&1 || :
	has results '^SKIP fresh/13-check: '
}

test_fresh_with_a_large_difference() {
	machines
	program does 'echo "topdown: largest difference 0.51 points over 7 workloads"'
	fails_there make 'largest difference 0.51'
	program does 'echo "topdown: largest difference 1.00 points over 7 workloads"'
	fails_there make 'largest difference 1.00'
}

test_fresh_with_nothing_compared() {
	machines
	program does 'echo "demo: it ran for 31 s"'
	fails_there make 'nothing was compared: demo: it ran'
	program does 'echo "topdown: largest difference 0.00 points over 0 workloads"'
	fails_there make 'nothing was compared'
}

test_fresh_with_failed_tests() {
	machines
	program does 'echo "300 passed, 1 failed, 0 skipped"'
	fails_there check '300 passed, 1 failed'
	program does 'echo "0 passed, 0 failed, 9 skipped"'
	fails_there check '0 passed'
	program does 'echo "300 passed, 0 failed, 0 skipped"; echo "kernel: died"'
	fails_there check 'kernel: died'
}

test_fresh_with_tests_that_lack_a_package() {
	machines
	program does 'echo "SKIP report/browser: no chromium"; echo "300 passed, 0 failed, 1 skipped"'
	RESULTS=results "$repo/scripts/check-fresh" 13 check >out
	has results '^PASS fresh/13-check'
	program does 'echo "SKIP scripts/export_b4: no b4"; echo "300 passed, 0 failed, 1 skipped"'
	fails_there check 'no list has what they need: scripts/export_b4'
}

test_fresh_without_a_machine() {
	machines
	program debootstrap 'echo "E: Invalid Release signature" >&2; exit 1'
	if "$repo/scripts/check-fresh" 13 >out 2>&1; then
		echo "green: $(cat out)"
		return 1
	fi
	has results '^ERROR fresh/13-machine: E: Invalid Release signature'
}

test_fresh_one_at_a_time() {
	machines
	program does true
	mkdir -p "$repo/build/fresh"
	exec 7>"$repo/build/fresh/lock"
	flock -n 7
	fails "$repo/scripts/check-fresh" 13 make
	has said 'another one is at work in .*build/fresh: wait for it'
}

test_fresh_refuses() {
	machines
	fails "$repo/scripts/check-fresh" 11
	has said 'what is 11'
	program df 'printf "x\n/dev/x 1 1 99999 1%% /\n"'
	fails "$repo/scripts/check-fresh" 13
	has said 'a fresh machine needs [0-9]* MiB'
	program id 'echo 1000'
	same "$("$repo/scripts/check-fresh" 13)" 'SKIP fresh/machines: making them needs root'
	unset RESULTS
	fails "$repo/scripts/check-fresh" 13
	has said 'by root only'
}

# What it started dies with it.
test_fresh_interrupted() {
	machines
	program does "echo \$\$ >$root/pid; exec sleep 60"
	"$repo/scripts/check-fresh" 13 make >out 2>&1 &
	n=0
	while [ ! -s pid ] && [ "$n" -lt 100 ]; do
		n=$((n + 1))
		sleep 0.1
	done
	kill $!
	wait $! || :
	sleep 0.2
	# Gone, or not yet reaped by whoever inherited it.
	state=$(sed 's/.*) //' "/proc/$(cat pid)/stat" 2>/dev/null | cut -c 1)
	same "${state:-Z}" Z
}
