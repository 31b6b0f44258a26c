# SPDX-License-Identifier: GPL-2.0
# Every entry point of this repository; "make help" prints the lines below
# that begin with "##". What a target does is in the script that it calls.
#
# One make at a time works in a checkout: the first part of this file takes
# the lock build/.lock (scripts/locked) and calls make again for the second.

MAKEFLAGS += --no-print-directory
ifneq ($(V),1)
Q := @
endif

goals := $(or $(MAKECMDGOALS),all)

ifeq ($(filter-out help,$(goals)),)

help:	## this text
	@sed -n -e 's/^## \{0,1\}//p' -e 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

else ifneq ($(TOPDOWN_LOCKED),1)

locked = scripts/locked $(MAKE) TOPDOWN_LOCKED=1

ifeq ($(goals),boot)
# The shell of a booted host may stay open for hours: only its parts are made
# under the lock.
boot:
	@$(locked) packages sources kernel emulator image
	$(Q)lab/run/boot
else
.PHONY: $(goals) locked
$(goals): locked
	@:
locked:
	@$(locked) $(goals)
endif

else

##
## The main job, and the tests:
all: demo	## install what is missing, fetch, build, boot, show perf in a guest beside the truth
	@:

demo: packages sources kernel emulator image
	$(Q)lab/run/demo

report: packages sources kernel kernel-base emulator image	## build/report.html: the same on two machines, and without the series
	$(Q)lab/report/make-report

check: packages-check	## all quick tests; the last line is "N passed, N failed, N skipped"
	$(Q)scripts/check

check-full: packages-full	## and those that take long: perf in all its shapes, the patched QEMU, coccicheck, check-fresh
	$(Q)scripts/check full

check-debug: packages-check	## the selftests on a kernel with KASAN, UBSAN, lockdep and more
	$(Q)scripts/check debug

check-fast: packages-check	## minutes, no kernel build: tests of model, lab and scripts, series, lint
	$(Q)scripts/check fast

check-series: packages-series sources kernel emulator image	## build every commit in many ways, boot it with its PMU selftests, and each part by itself; hours, once
	$(Q)scripts/check series

check-fresh: packages-fresh	## make and make check on minimal Debian 12 and 13, made in build/fresh; root, hours
	$(Q)scripts/check-fresh $(ONLY)

bench: packages sources kernel kernel-base emulator image	## what a world switch costs: exact counts of PMU accesses, for four kernels
	$(Q)lab/bench/bench

speed: packages sources kernel emulator image	## how fast the emulator is beside Debian's Bochs, in runs that take turns
	$(Q)lab/bench/speed

precision: packages sources kernel emulator image	## how many VM exits cost how much precision: a curve
	$(Q)lab/bench/precision

mutants: packages sources kernel kernel-base emulator image	## break the series in known ways; a named test must notice each
	$(Q)lab/run/mutants

lint: packages-check kernel kernel-base	## checkpatch, sparse, W=1, coccicheck, kernel-doc, htmldocs, shellcheck, the series
	$(Q)scripts/lint full

##
## The stages:
packages:	## install the Debian packages of base/packages that are missing (packages-check: those of make check, too)
	$(Q)scripts/packages

# All that a target needs comes before its first stage, and in one go, so that a package
# which cannot be had is known at once.
packages-check:
	$(Q)scripts/packages base/packages base/packages-check base/packages-deb

packages-full:
	$(Q)scripts/packages base/packages base/packages-check base/packages-deb base/packages-qemu base/packages-full base/packages-fresh

packages-fresh:
	$(Q)scripts/packages base/$@

packages-series packages-deb packages-qemu:
	$(Q)scripts/packages base/packages base/$@

# Of what comes first, the tree takes one CPU for minutes, and the emulator needs no Linux.
sources: packages
	$(Q)scripts/tree & lab/bochs/build; status=$$?; wait $$! && exit $$status

tree: packages	## build/linux, a Git tree of Linux with a commit for each patch
	$(Q)scripts/tree

kernel: tree	## build/kernel, build/kselftest and build/perf, from build/linux
	$(Q)scripts/kernel

kernel-base: tree	## the same without the series, in build/kernel-base
	$(Q)scripts/kernel base

kernel-debug: tree	## the patched kernel with run-time checks, in build/debug
	$(Q)scripts/kernel debug

emulator: packages	## build/emulator, Bochs with the model of the PMU
	$(Q)lab/bochs/build

image: packages kernel	## build/image, what the emulated host and its guests boot into
	$(Q)lab/image/build

deb: packages-deb kernel image	## build/deb, Debian packages for a real host: CONFIG=running, cloud, or FILE
	$(Q)host/deb

qemu: packages-qemu	## build/qemu, QEMU that knows the feature by name and migrates it (optional)
	$(Q)qemu/build

##
## By hand:
boot:	## the emulated host with a shell on this terminal, or CMD="..." there

refresh:	## write the commits of build/linux back as patches and files
	$(Q)scripts/refresh

export: tree	## build/outgoing, the parts of the series as mails with your Signed-off-by
	$(Q)scripts/export

clean:	## remove build/ (not the downloads, nor work that is only in build/linux)
	$(Q)scripts/clean

endif

# Every stage takes all processors by itself.
.NOTPARALLEL:
.PHONY: all demo report qemu check check-full check-debug check-fast check-series bench speed precision mutants lint sources packages packages-check packages-full packages-series packages-deb packages-qemu packages-fresh check-fresh tree kernel kernel-base \
	kernel-debug emulator image deb boot refresh export clean help

##
## Variables:
##   V=1                 show commands and all output
##   LINUX=DIR|TARBALL|DEB
##                       use that Linux instead of Debian's; if a patch does not apply
##                       there, git am -3 merges the series
##   KNOWN=DIR|TARBALL|DEB
##                       for that: the Linux that the series is for, if not Debian's
##   MIRROR=URL          the Debian mirror (default: the one of this machine's apt)
##   MACHINE=NAME        the emulated host, one of lab/machine (default: icelake)
##   CPUS=N CMD="..."    for boot: logical CPUs; a command instead of a shell
##   CONFIG=NAME|FILE    for deb: whose configuration the kernel has, see host/deb
##   PART=NAME           for export and check-series: only that part of the series
##   COMMITS=N..M        for check-series: only these, by number
##   CONFIGS="NAME..."   for check-series: only these columns of its table
##   JOBS=N              parallel jobs
##   REPO=URL VERSION=N PREFIX=TEXT
##                       for export: where others find this repository, "PATCH vN",
##                       "RFC PATCH"
##   ONLY="13 make"      for check-fresh: that Debian, that command; SHARE=1: with this
##                       machine's downloads and objects
##   WAIT=1              wait for another make in this checkout instead of failing
