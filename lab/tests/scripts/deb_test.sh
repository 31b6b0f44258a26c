# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154,SC2016 # world.sh sets them; text of scripts
# host/deb: which configuration it takes. What it builds is for host/tests/packages.

# deb_world: a host with no configuration, whose kernel is called 1.2.3-host; what
# would build the kernel keeps the configuration that it is given, and stops there.
deb_world() {
	unset CONFIG
	"$repo/scripts/tree"
	mkdir -p bin host/boot host/proc "$repo/build/image" "$repo/build/kernel"
	: >"$repo/build/image/guest.cpio.lz4"
	export HOST_ROOT="$PWD/host" root
	for program in dpkg-buildpackage dh_builddeb; do
		printf '#!/bin/sh\n' >"bin/$program"
	done
	printf '#!/bin/sh\necho 1.2.3-host\n' >bin/uname
	chmod +x bin/*
	export PATH="$PWD/bin:$PATH"
	printf '#!/bin/sh\ncp "$3" "$root/taken"\nexit 9\n' >"$repo/scripts/kernel"
}

# configuration NAME: a file that can be told from others.
configuration() {
	printf 'CONFIG_X86_64=y\n# %s\n' "$1"
}

# takes NAME COMMAND...: this configuration is what the kernel gets.
takes() {
	name=$1
	shift
	rm -f taken
	status=0
	"$@" >out 2>&1 || status=$?
	same "$status $(cat out)" "9 $(grep 'deb: configuration: ' out)"
	configuration "$name" >expected
	cmp taken expected
}

test_deb_takes_the_running_kernels() {
	deb_world
	configuration proc | gzip >host/proc/config.gz
	takes proc "$repo/host/deb"
	has out "the running kernel's"
	configuration boot >host/boot/config-1.2.3-host
	configuration other >host/boot/config-1.2.3
	takes boot "$repo/host/deb"
	takes boot env CONFIG=running "$repo/host/deb"
}

test_deb_without_a_running_configuration() {
	deb_world
	fails "$repo/host/deb"
	has said 'host/boot/config-1.2.3-host nor .*host/proc/config.gz .*CONFIG=cloud takes'
	fails env CONFIG=running "$repo/host/deb"
}

# linux_config FILE: Debian's package of configurations, with a file of this name.
linux_config() {
	rm -rf package
	mkdir -p package/DEBIAN package/usr/src/linux-config-7.3
	printf 'Package: linux-config-7.3\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@localhost>\nDescription: x\n' \
		>package/DEBIAN/control
	configuration cloud | xz >"package/usr/src/linux-config-7.3/$1"
	dpkg-deb --build package debian.deb
	printf '#!/bin/sh\n[ "$*" = "deb linux-config-7.3" ] && echo "$root/debian.deb"\n' >"$repo/scripts/fetch"
}

test_deb_takes_the_clouds() {
	deb_world
	linux_config config.amd64_none_cloud-amd64.xz
	takes cloud env CONFIG=cloud "$repo/host/deb"
	has out "Debian's for clouds, of linux-config-7.3"
	linux_config config.amd64_none_amd64.xz
	fails env CONFIG=cloud "$repo/host/deb"
	has said 'debian.deb has no configuration cloud-amd64'
}

test_deb_takes_a_file() {
	deb_world
	configuration file >mine
	takes file env CONFIG=mine "$repo/host/deb"
	fails env CONFIG=absent "$repo/host/deb"
	has said 'CONFIG=absent: no such file; running, cloud, lab, or'
	echo CONFIG_ARM64=y >arm
	fails env CONFIG=arm "$repo/host/deb"
	has said "$PWD/arm is no configuration of an x86-64 kernel"
}

# The emulated host's kernel is packaged as it is built, once.
test_deb_of_the_lab() {
	deb_world
	printf '#!/bin/sh\necho "$*" >>"$root/called"\n: >"$2/linux-image-1.deb"\n' >"$repo/scripts/kernel"
	: >"$repo/build/kernel/modules.cpio.lz4"
	CONFIG=lab "$repo/host/deb" >out 2>&1 || :
	CONFIG=lab "$repo/host/deb" >out 2>&1 || :
	same "$(cat called)" "package $repo/build/deb-lab"
	sleep 0.01
	: >"$repo/build/kernel/modules.cpio.lz4"
	CONFIG=lab "$repo/host/deb" >out 2>&1 || :
	same "$(wc -l <called)" 2
}

test_deb_needs_what_comes_before() {
	deb_world
	configuration boot >host/boot/config-1.2.3-host
	rm "$repo/build/image/guest.cpio.lz4"
	fails "$repo/host/deb"
	has said 'guest.cpio.lz4: make image makes it'
	mv "$tree" away
	fails "$repo/host/deb"
	has said 'build/linux: make tree makes it'
}
