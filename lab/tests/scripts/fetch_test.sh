# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154 # world.sh sets them
# scripts/fetch, mostly with an apt of our own, whose mirror is the folder
# "mirror": a file PACKAGE_VERSION_all.deb there is a package on the mirror.

fake_apt() {
	mkdir -p bin mirror
	cat >bin/apt-get <<-'END'
	#!/bin/sh
	cd "$root/mirror"
	case $* in
	indextargets*) echo "Debian|trixie|http://mirror.invalid/debian/" ;;
	update)
		[ ! -f update.err ] || { cat update.err >&2; exit 100; }
		;;
	*--print-uris\ download*)
		for last; do :; done
		file=$(echo "$last" | tr = _)_all.deb
		[ -f "$file" ] || { echo "E: Version not found" >&2; exit 100; }
		sum=$(cat "$file.says" 2>/dev/null || sha256sum <"$file" | cut -d ' ' -f 1)
		echo "'$root/mirror/$file' $file $(stat -c %s "$file") SHA256:$sum"
		;;
	esac
	END
	cat >bin/apt-cache <<-'END'
	#!/bin/sh
	cd "$root/mirror"
	ls "$2"_*_all.deb 2>/dev/null | sort -rV |
		sed 's,^\([^_]*\)_\(.*\)_all.deb, \1 | \2 | http://x y Packages,'
	END
	# It continues a partial download, as apt does; "slow" makes it stop
	# half way until the file is gone, "bad" spoils what it writes.
	cat >bin/helper <<-'END'
	#!/bin/sh
	had=0
	[ ! -f "$3" ] || had=$(stat -c %s "$3")
	echo "$had" >>"$root/mirror/log"
	[ ! -f "$root/mirror/error" ] || { cat "$root/mirror/error" >&2; exit 100; }
	head -c 100 "$2" | tail -c +$((had + 1)) >>"$3"
	while [ -f "$root/mirror/slow" ]; do sleep 0.05; done
	[ "$had" -gt 100 ] || had=100
	tail -c +$((had + 1)) "$2" >>"$3"
	[ ! -f "$root/mirror/bad" ] || echo spoilt >>"$3"
	[ "SHA256:$(sha256sum <"$3" | cut -d ' ' -f 1)" = "$4" ] || {
		mv "$3" "$3.FAILED"
		echo "E: Failed to fetch x  Hash Sum mismatch" >&2
		exit 100
	}
	END
	printf '#!/bin/sh\n' >bin/apt-config
	chmod +x bin/*
	export PATH="$PWD/bin:$PATH" APT_HELPER="$PWD/bin/helper" root
	seq 200 >mirror/linux-source-7.3_7.3.13-1_all.deb
	seq 300 >mirror/linux-source-7.3_7.3.6-1_all.deb
	seq 400 >mirror/linux-source-7.3_7.3.12-1_all.deb
	seq 500 >mirror/linux-source-7.4_7.4.1-1_all.deb
	cat >"$repo/base/linux" <<-END
	linux-source-7.3 7.3.13-1 $(sha256sum <mirror/linux-source-7.3_7.3.13-1_all.deb | cut -d ' ' -f 1)
	linux-source-7.3 * -
	linux-source-7.4 * -
	END
	got=$repo/build/fetch/linux.deb
	cached=$XDG_CACHE_HOME/topdown-kvm/linux-source-7.3_7.3.13-1_all.deb
}

test_fetch_takes_the_pinned_version() {
	fake_apt
	"$repo/scripts/fetch" linux
	cmp "$got" mirror/linux-source-7.3_7.3.13-1_all.deb
	# Again: without the mirror, and without apt.
	rm -r mirror
	"$repo/scripts/fetch" linux >out
	same "$(cat out)" ""
}

test_fetch_takes_the_newest_if_the_pinned_is_gone() {
	fake_apt
	rm mirror/*7.3.13*
	"$repo/scripts/fetch" linux >out
	has out 'linux-source-7.3 7.3.13-1 is not on the mirror: taking linux-source-7.3 7.3.12-1'
	cmp "$got" mirror/linux-source-7.3_7.3.12-1_all.deb
}

test_fetch_takes_the_next_line_if_all_are_gone() {
	fake_apt
	rm mirror/linux-source-7.3*
	"$repo/scripts/fetch" linux >out
	has out 'taking linux-source-7.4 7.4.1-1'
}

test_fetch_without_any_version() {
	fake_apt
	rm mirror/linux-source*
	fails "$repo/scripts/fetch" linux
	has said 'has no linux-source-7.3 and no linux-source-7.4: give another mirror with MIRROR=URL'
}

test_fetch_without_network() {
	# The real apt, and nobody at the other end.
	[ -r /usr/share/keyrings/debian-archive-keyring.gpg ] || skip 'no keyring of Debian'
	MIRROR=http://127.0.0.1:1/debian fails "$repo/scripts/fetch" linux
	has said 'cannot reach http://127.0.0.1:1/debian, Could not connect.*: check the network'
}

test_fetch_without_network_takes_an_earlier_one() {
	fake_apt
	rm mirror/*7.3.13*
	"$repo/scripts/fetch" linux
	echo "E: Failed to fetch x  Could not resolve 'x'" >mirror/update.err
	rm mirror/linux-source*
	"$repo/scripts/fetch" linux >out
	has out 'cannot reach .*Could not resolve'
	has out 'going on with linux-source-7.3_7.3.12-1_all.deb of an earlier run'
	# But not with one that was spoilt meanwhile.
	echo x >>"$XDG_CACHE_HOME/topdown-kvm/linux-source-7.3_7.3.12-1_all.deb"
	fails "$repo/scripts/fetch" linux
	has said 'cannot reach'
}

test_fetch_of_a_file_with_a_wrong_hash() {
	fake_apt
	: >mirror/bad
	fails "$repo/scripts/fetch" linux
	has said 'does not match its hash'
	[ ! -e "$cached" ]
	rm mirror/bad
	"$repo/scripts/fetch" linux
}

test_fetch_of_another_file_than_the_pinned() {
	fake_apt
	seq 201 >mirror/linux-source-7.3_7.3.13-1_all.deb
	fails "$repo/scripts/fetch" linux
	has said 'has another linux-source-7.3_7.3.13-1_all.deb than the known one'
}

test_fetch_of_an_unsigned_mirror() {
	fake_apt
	echo "E: The repository 'x' is not signed." >mirror/update.err
	rm mirror/linux-source*
	fails "$repo/scripts/fetch" linux
	has said 'debian-archive-keyring'
}

test_fetch_replaces_a_spoilt_part() {
	fake_apt
	mkdir -p "${cached%/*}"
	echo garbage >"$cached.part"
	"$repo/scripts/fetch" linux
	cmp "$got" mirror/linux-source-7.3_7.3.13-1_all.deb
}

wait_for() {
	n=0
	while [ ! -s "$1" ]; do
		n=$((n + 1))
		[ "$n" -lt 600 ] || {
			echo "no $1 within a minute"
			return 1
		}
		sleep 0.1
	done
}

test_fetch_killed_goes_on_where_it_was() {
	fake_apt
	: >mirror/slow
	"$repo/scripts/fetch" linux &
	wait_for "$cached.part"
	kill -9 $!
	wait $! || :
	[ ! -e "$cached" ]
	mv mirror/slow mirror/gone	# the orphaned helper may end
	# It holds the lock until then, so that two never write one file.
	"$repo/scripts/fetch" linux
	cmp "$got" mirror/linux-source-7.3_7.3.13-1_all.deb
	same "$(head -n 1 mirror/log)" 0
	[ "$(sed -n 2p mirror/log)" != 0 ]
}

test_fetch_twice_at_once() {
	fake_apt
	: >mirror/slow
	"$repo/scripts/fetch" linux >out1 2>&1 &
	one=$!
	wait_for "$cached.part"
	"$repo/scripts/fetch" linux >out2 2>&1 &
	two=$!
	wait_for out2
	has out2 'another run works on .*: waiting'
	rm mirror/slow
	wait "$one"
	wait "$two"
	same "$(grep -c . mirror/log)" 1
	cmp "$got" mirror/linux-source-7.3_7.3.13-1_all.deb
}

test_fetch_onto_a_full_disk() {
	fake_apt
	mkdir small
	mount -t tmpfs -o size=1m tmpfs small 2>/dev/null || skip 'no root to mount a small disk'
	XDG_CACHE_HOME=$PWD/small fails "$repo/scripts/fetch" linux
	has said 'needs [0-9]* MiB below .*/small.*are free: free some'
	umount small
}

test_fetch_while_the_disk_fills_up() {
	fake_apt
	echo 'E: Failed to fetch x  Error writing to file - write (28: No space left on device)' >mirror/error
	fails "$repo/scripts/fetch" linux
	has said 'no space left below .*: free some, then run it again'
}

test_fetch_to_where_nobody_may_write() {
	fake_apt
	: >file
	XDG_CACHE_HOME=$PWD/file fails "$repo/scripts/fetch" linux
	has said 'set XDG_CACHE_HOME'
}
