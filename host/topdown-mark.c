// SPDX-License-Identifier: GPL-2.0
/*
 * Brackets a measurement with marks of the ground truth.
 *
 *	topdown-mark COMMAND [ARGUMENT...]
 *
 * First executes a mark on every CPU, which tells lab/judge/table which owners
 * in the truth file are the CPUs of this machine (the host's, or one guest's).
 * Then a mark, the command, and a mark.  Prints
 *
 *	topdown-mark: mark=NUMBER
 *
 * before the command, which starts when all that was said is on the console.
 * Exits with the command's status, or with 125 when it could not be run.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mark.h"
#include "words.h"

#define EXIT_LAB	125
#define PRINTED_MS	1000

/*
 * Numbers that no other measurement of this boot has, on the host or in any
 * guest: the TSC is one for all of them or, with an offset, ahead or behind by
 * a random amount.
 */
static uint64_t new_base(void)
{
	return __builtin_ia32_rdtsc() / MARK_STEP * MARK_STEP;
}

static void mark_owners(uint64_t base)
{
	cpu_set_t all, one;
	int cpu;

	if (sched_getaffinity(0, sizeof(all), &all))
		err(EXIT_LAB, "sched_getaffinity");
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (sched_setaffinity(0, sizeof(one), &one))
			err(EXIT_LAB, "cannot run on CPU %d", cpu);
		mark(base + MARK_OWNER);
	}
	if (sched_setaffinity(0, sizeof(all), &all))
		err(EXIT_LAB, "sched_setaffinity");
}

/* Opens what /proc says of the thread that prints to the console; -1 without one. */
static int open_printer(void)
{
	DIR *directory = opendir("/proc");
	struct dirent *entry;
	int fd = -1;

	while (fd < 0 && directory && (entry = readdir(directory))) {
		char path[32], stat[256] = "";

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%.10s/stat", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && (read(fd, stat, sizeof(stat) - 1) < 0 || !strstr(stat, "(pr/"))) {
			close(fd);
			fd = -1;
		}
	}
	if (directory)
		closedir(directory);
	return fd;
}

/*
 * Waits until the console has all lines.  The driver of the serial port has a thread for
 * them in Linux 7.3 (CON_NBCON in drivers/tty/serial/8250/8250_core.c), which would print
 * them beside the command: perf counts what the command does, the ground truth has all
 * between two marks.  The thread sleeps when it is done.
 */
static void wait_until_printed(void)
{
	int i, printer = open_printer();
	char stat[256] = "", *state;

	for (i = 0; printer >= 0 && i < PRINTED_MS; i++) {
		usleep(1000);	/* first, process 1 passes on what was printed here */
		if (pread(printer, stat, sizeof(stat) - 1, 0) < 0)
			break;
		state = strstr(stat, ") ");
		if (!state || state[2] == 'S')
			break;
	}
	if (printer >= 0)
		close(printer);
}

static int run(char **command)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		err(EXIT_LAB, "cannot fork");
	if (!pid) {
		execvp(command[0], command);
		err(EXIT_LAB, "cannot run %s", command[0]);
	}
	if (waitpid(pid, &status, 0) != pid)
		err(EXIT_LAB, "waitpid");
	if (WIFSIGNALED(status))
		errx(EXIT_LAB, "%s died of signal %d", command[0], WTERMSIG(status));
	return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	uint64_t base = new_base();
	char number[32];
	int status;

	if (argc < 2)
		errx(EXIT_LAB, "usage: topdown-mark COMMAND [ARGUMENT...]");
	snprintf(number, sizeof(number), "%llu", (unsigned long long)base);
	setenv(MARK_VARIABLE, number, 1);
	printf(WORDS_MARK "%s\n", number);
	fflush(stdout);
	wait_until_printed();
	mark_owners(base);
	mark(base + MARK_BEGIN);
	status = run(argv + 1);
	mark(base + MARK_END);
	return status;
}
