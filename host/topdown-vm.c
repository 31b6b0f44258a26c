// SPDX-License-Identifier: GPL-2.0
/*
 * Starts guests in QEMU that can count topdown, or says what is missing.
 *
 *	topdown-vm [-c] [-f] [-g GUESTS] [-n VCPUS] [-m MIB] [-p CPUS] [-q QEMU]
 *		   [-k KERNEL] [-i INITRD] [-a APPEND] [-o OPTION]... PLAN
 *
 * Runs the programs of PLAN, a file of host/plans, in each of GUESTS
 * guests (1) at the same time, with VCPUS virtual CPUs (1) and MIB MiB of
 * memory (256), all of it on the host's CPUs of the list CPUS ("0", "0,1"; all).
 * QEMU, KERNEL and INITRD are files; APPEND goes to the guest's kernel, OPTION
 * to QEMU.  Passes on what each guest says, line by line, as
 *
 *	guest1| TEXT
 *
 * Before that it checks the host (host.c).  What topdown in a guest needs and the
 * host lacks is told in one line, "topdown-vm: missing: ...", with the way to get
 * it; -f starts the guests all the same.  -c starts none, but prints what the
 * host has.
 *
 * Exits with 0 if all programs of all guests ended with status 0; with 1 if
 * not, or if QEMU failed; with 4 (a kselftest's skip) if something is missing.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"
#include "words.h"

#define MAX_GUESTS	8
#define MAX_OPTIONS	32
#define LINE_BYTES	1024

struct setup {
	bool check_only;
	unsigned int guests, vcpus, memory;
	const char *cpus, *qemu, *kernel, *initrd, *append, *plan;
	const char *options[MAX_OPTIONS];
	unsigned int nr_options;
};

struct guest {
	unsigned int number;
	pid_t pid;
	int fd;
	char line[LINE_BYTES];
	size_t length;
	bool done;		/* its init ran the whole plan */
	unsigned int failed;	/* programs of it that did not end with 0 */
};

static struct setup setup = {
	.guests = 1, .vcpus = 1, .memory = 256,
	.qemu = "/usr/bin/qemu-system-x86_64",
	.kernel = "/vm/bzImage",
	.initrd = "/vm/initrd.lz4",
	.append = "",
};

static void need_files(void)
{
	if (access(setup.qemu, X_OK))
		missing("QEMU, %s; apt-get install qemu-system-x86, or give one with -q", setup.qemu);
	if (access(setup.kernel, R_OK))
		missing("the guest's kernel, %s; give a bzImage with -k", setup.kernel);
	if (access(setup.initrd, R_OK))
		missing("the guest's image, %s; give an initramfs with -i (make image)", setup.initrd);
}

/* "0", "0,2": where this process and all guests run. */
static void stay_on(const char *list)
{
	cpu_set_t set;
	char *end;

	CPU_ZERO(&set);
	do {
		unsigned long cpu = strtoul(list, &end, 10);

		if (end == list || cpu >= CPU_SETSIZE || (*end && *end != ','))
			errx(1, "-p %s: not a list of CPUs like 0,1", list);
		CPU_SET(cpu, &set);
		list = end + 1;
	} while (*end);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "cannot run on these CPUs");
}

static void exec_qemu(int out)
{
	char smp[16], memory[16], append[512];
	const char *args[64] = {
		setup.qemu, "-nodefaults", "-no-user-config", "-display", "none",
		"-M", "microvm,rtc=off,pit=off,pic=off", "-accel", "kvm",
		"-cpu", "host,migratable=off", "-smp", smp, "-m", memory,
		"-kernel", setup.kernel, "-initrd", setup.initrd, "-append", append,
		"-serial", "stdio", "-no-reboot",
	};
	unsigned int i, n = 0;
	int null = open("/dev/null", O_RDONLY);

	snprintf(smp, sizeof(smp), "%u", setup.vcpus);
	snprintf(memory, sizeof(memory), "%u", setup.memory);
	snprintf(append, sizeof(append),
		 "console=ttyS0 ignore_loglevel printk.devkmsg=on LAB_PLAN=/lab/plans/%s %s",
		 setup.plan, setup.append);
	while (args[n])
		n++;
	for (i = 0; i < setup.nr_options; i++)
		args[n++] = setup.options[i];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
	    dup2(out, STDERR_FILENO) < 0)
		_exit(126);
	execv(setup.qemu, (char **)args);
	dprintf(out, "topdown-vm: cannot run %s: %s\n", setup.qemu, strerror(errno));
	_exit(127);
}

static void start(struct guest *guest, unsigned int number)
{
	int fds[2];

	guest->number = number;
	if (pipe2(fds, O_CLOEXEC))
		err(1, "no pipe");
	guest->pid = fork();
	if (guest->pid < 0)
		err(1, "cannot fork");
	if (!guest->pid)
		exec_qemu(fds[1]);
	close(fds[1]);
	guest->fd = fds[0];
}

/* What the guest's init reports (lab/image/init.c). */
static void take_line(struct guest *guest)
{
	const char *said, *end;

	guest->line[guest->length] = '\0';
	guest->length = 0;
	printf(WORDS_GUEST "%s\n", guest->number, guest->line);
	fflush(stdout);
	said = strstr(guest->line, "] " WORDS_SAID);
	if (!said || guest->line[0] != '[')
		return;
	said += strlen("] " WORDS_SAID);
	guest->done |= !strcmp(said, WORDS_DONE);
	end = strncmp(said, WORDS_END, strlen(WORDS_END)) ? NULL : strrchr(said, ' ');
	if (!strncmp(said, WORDS_ERROR, strlen(WORDS_ERROR)) ||
	    (end && strcmp(end, " " WORDS_STATUS "0")))
		guest->failed++;
}

/* Returns false at the end of the guest. */
static bool take_output(struct guest *guest)
{
	char bytes[4096];
	ssize_t count = read(guest->fd, bytes, sizeof(bytes)), i;

	if (count < 0 && errno == EINTR)
		return true;
	for (i = 0; i < count; i++) {
		if (bytes[i] == '\r')
			continue;
		if (bytes[i] != '\n')
			guest->line[guest->length++] = bytes[i];
		if (bytes[i] == '\n' || guest->length == LINE_BYTES - 1)
			take_line(guest);
	}
	if (count <= 0 && guest->length)
		take_line(guest);
	return count > 0;
}

static bool end(struct guest *guest)
{
	int status = 0;

	close(guest->fd);
	guest->fd = -1;
	waitpid(guest->pid, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		printf("topdown-vm: guest %u: QEMU ended with %s %d\n", guest->number,
		       WIFEXITED(status) ? "status" : "signal",
		       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
		return false;
	}
	if (!guest->done)
		printf("topdown-vm: guest %u ended before its plan did\n", guest->number);
	else if (guest->failed)
		printf("topdown-vm: guest %u: %u programs failed\n", guest->number, guest->failed);
	return guest->done && !guest->failed;
}

static bool run(void)
{
	static struct guest guests[MAX_GUESTS];
	struct pollfd fds[MAX_GUESTS];
	unsigned int i, running = setup.guests;
	bool good = true;

	for (i = 0; i < setup.guests; i++)
		start(&guests[i], i + 1);
	while (running) {
		for (i = 0; i < setup.guests; i++) {
			fds[i].fd = guests[i].fd;
			fds[i].events = POLLIN;
		}
		if (poll(fds, setup.guests, -1) < 0 && errno != EINTR)
			err(1, "poll");
		for (i = 0; i < setup.guests; i++) {
			if (guests[i].fd < 0 || !fds[i].revents || take_output(&guests[i]))
				continue;
			good &= end(&guests[i]);
			running--;
		}
	}
	return good;
}

static unsigned int number(const char *text, unsigned int max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end || !value || value > max)
		errx(1, "%s: must be a number from 1 to %u", text, max);
	return value;
}

static void parse(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "cfg:n:m:p:q:k:i:a:o:")) >= 0) {
		switch (option) {
		case 'c': setup.check_only = true; break;
		case 'f': host_force = true; break;
		case 'g': setup.guests = number(optarg, MAX_GUESTS); break;
		case 'n': setup.vcpus = number(optarg, 64); break;
		case 'm': setup.memory = number(optarg, 1 << 20); break;
		case 'p': setup.cpus = optarg; break;
		case 'q': setup.qemu = optarg; break;
		case 'k': setup.kernel = optarg; break;
		case 'i': setup.initrd = optarg; break;
		case 'a': setup.append = optarg; break;
		case 'o':
			if (setup.nr_options == MAX_OPTIONS)
				errx(1, "more than %d options for QEMU", MAX_OPTIONS);
			setup.options[setup.nr_options++] = optarg;
			break;
		default:
			exit(1);
		}
	}
	if (optind != argc - 1 && !(setup.check_only && optind == argc))
		errx(1, "usage: topdown-vm [OPTION]... PLAN (see host/topdown-vm.c)");
	setup.plan = argv[optind];
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	host_check();
	need_files();
	if (setup.check_only) {
		host_print_facts();
		return 0;
	}
	if (setup.cpus)
		stay_on(setup.cpus);
	return !run();
}
