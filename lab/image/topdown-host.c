// SPDX-License-Identifier: GPL-2.0
/*
 * Do slots and the four topdown-* events count on the host itself?
 *
 * Proves that perf_event_open() takes the events, that a group of them counts
 * a loop of additions, that the four parts add up to the slots within the
 * precision of the fields, and that the loop is seen as mostly retiring.
 * Could falsely pass if the counters held leftovers of other work; the group
 * is therefore read twice and the difference judged.
 *
 * Exit status as a kselftest: 0 passes, 4 skips, else fails.
 */
#define _GNU_SOURCE
#include <err.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SKIP		4
#define EVENTS		"/sys/bus/event_source/devices/cpu/events/"
#define NR_EVENTS	5

/* Event and umask as in arch/x86/events/intel/core.c (icl_td_events_attrs). */
static const struct {
	const char *name;
	uint64_t config;
} events[NR_EVENTS] = {
	{ "slots", 0x0400 },
	{ "topdown-retiring", 0x8000 },
	{ "topdown-bad-spec", 0x8100 },
	{ "topdown-fe-bound", 0x8200 },
	{ "topdown-be-bound", 0x8300 },
};

struct reading {
	uint64_t count;
	uint64_t value[NR_EVENTS];
};

static int open_event(uint64_t config, int group)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_RAW,
		.size = sizeof(attr),
		.config = config,
		.disabled = group < 0,
		.read_format = PERF_FORMAT_GROUP,
		/* A mediated vPMU tolerates no event that counts guests. */
		.exclude_guest = 1,
	};

	return syscall(SYS_perf_event_open, &attr, 0, -1, group, 0);
}

static void additions(unsigned long count)
{
	while (count--)
		asm volatile(".rept 64\n\taddq $1, %%rax\n\t.endr" : : : "rax", "cc");
}

static void read_group(int group, struct reading *reading)
{
	if (read(group, reading, sizeof(*reading)) != sizeof(*reading))
		err(1, "cannot read the group");
	if (reading->count != NR_EVENTS)
		errx(1, "the group has %llu events, expected %d",
		     (unsigned long long)reading->count, NR_EVENTS);
}

static int open_group(void)
{
	int group = -1, i, fd;
	char path[128];

	for (i = 0; i < NR_EVENTS; i++) {
		snprintf(path, sizeof(path), EVENTS "%s", events[i].name);
		if (access(path, R_OK)) {
			printf("1..0 # SKIP no event %s in sysfs\n", events[i].name);
			exit(SKIP);
		}
		fd = open_event(events[i].config, group);
		if (fd < 0)
			err(1, "perf_event_open of %s (config %#llx)", events[i].name,
			    (unsigned long long)events[i].config);
		if (group < 0)
			group = fd;
	}
	return group;
}

int main(void)
{
	struct reading before, after;
	uint64_t slots, part, sum = 0;
	int group = open_group(), i;

	if (ioctl(group, PERF_EVENT_IOC_ENABLE, PERF_IOC_FLAG_GROUP))
		err(1, "cannot enable the group");
	read_group(group, &before);
	additions(100000);
	read_group(group, &after);

	slots = after.value[0] - before.value[0];
	printf("topdown-host: %s %llu\n", events[0].name, (unsigned long long)slots);
	for (i = 1; i < NR_EVENTS; i++) {
		part = after.value[i] - before.value[i];
		sum += part;
		printf("topdown-host: %s %llu (%.1f%%)\n", events[i].name,
		       (unsigned long long)part, slots ? 100.0 * part / slots : 0);
	}
	if (!slots)
		errx(1, "slots did not count");
	/* Four fields, each rounded to 1/255: up to 4 * 0.5 / 255 off. */
	if (sum < slots * 0.98 || sum > slots * 1.02)
		errx(1, "the four parts are %llu slots of %llu, expected the same",
		     (unsigned long long)sum, (unsigned long long)slots);
	if (after.value[1] - before.value[1] < slots / 2)
		errx(1, "a loop of additions is less than half retiring");
	return 0;
}
