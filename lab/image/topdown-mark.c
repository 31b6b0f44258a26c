// SPDX-License-Identifier: GPL-2.0
/*
 * Brackets a measurement with marks of the ground truth.
 *
 *	topdown-mark COMMAND [ARGUMENT...]
 *
 * First executes a mark on every CPU, which tells lab/run/table which owners
 * in the truth file are the CPUs of this machine (the host's, or one guest's).
 * Then a mark, the command, and a mark.  Prints
 *
 *	topdown-mark: mark=NUMBER
 *
 * before the command.  Exits with the command's status, or with 125 when it
 * could not be run.
 */
#define _GNU_SOURCE
#include <err.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mark.h"

#define EXIT_LAB	125

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
	printf("topdown-mark: mark=%s\n", number);
	fflush(stdout);
	mark_owners(base);
	mark(base + MARK_BEGIN);
	status = run(argv + 1);
	mark(base + MARK_END);
	return status;
}
