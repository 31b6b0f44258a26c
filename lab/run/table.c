// SPDX-License-Identifier: GPL-2.0
/*
 * Sets what the guest of the demonstration counted beside the ground truth.
 *
 *	table [-t HUNDREDTHS] DIR
 *
 * Reads the lines of lab/image/topdown-guest.c from DIR/console.log and the
 * marks that they name from DIR/truth.jsonl.  Exits with 1 if a difference is
 * larger than HUNDREDTHS of a percentage point (50) or the slots are not the
 * same, with 2 if there is nothing to compare, with 4 if the guest program
 * says that the feature is missing.
 *
 * Integers only: all fractions are in hundredths of a percentage point.
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "log.h"

#define NR_PARTS	4
#define WHOLE		10000	/* a fraction of 1 */
#define FIELD_MAX	255	/* SDM: metrics are in 1/255 of counter 3 */
/*
 * What the guest counts beyond its marks: RDPMC and a few instructions on
 * either side, where a fetch or page walk can cost 60 slots each.
 */
#define SLOTS_BESIDE	250

__extension__ typedef __int128 wide;

static const char *const parts[NR_PARTS] = {
	"retiring", "bad_spec", "fe_bound", "be_bound",
};

struct workload {
	char name[64];
	uint64_t begin, end;			/* mark ids */
	uint64_t slots[2], metrics[2];
};

struct mark {
	uint64_t cpu, slots, part[NR_PARTS];
	char owner[32];
};

static FILE *open_log(const char *dir, const char *name)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "r");
	if (!file)
		err(2, "cannot read %s", path);
	return file;
}

/* "KEY":NUMBER of a line of JSON that has no such key in a string. */
static bool number(const char *line, const char *key, uint64_t *value)
{
	char quoted[64];
	const char *at;

	snprintf(quoted, sizeof(quoted), "\"%s\":", key);
	at = strstr(line, quoted);
	return at && sscanf(at + strlen(quoted), "%" SCNu64, value) == 1;
}

static bool parse_mark(const char *line, uint64_t id, struct mark *mark)
{
	const char *owner = strstr(line, "\"owner\":\"");
	uint64_t found;
	int i;

	if (!strstr(line, "\"type\":\"mark\"") || !strstr(line, "\"nonroot\":true") ||
	    !number(line, "id", &found) || found != id || !owner)
		return false;
	for (i = 0; i < NR_PARTS; i++)
		if (!number(line, parts[i], &mark->part[i]))
			return false;
	return number(line, "cpu", &mark->cpu) && number(line, "slots", &mark->slots) &&
	       sscanf(owner, "\"owner\":\"%31[^\"]", mark->owner) == 1;
}

/* The last mark of this number, should the program have run twice. */
static void find_mark(const char *dir, uint64_t id, struct mark *mark)
{
	FILE *file = open_log(dir, "truth.jsonl");
	char *line = NULL;
	bool found = false;
	size_t size = 0;

	while (getline(&line, &size, file) >= 0)
		found |= parse_mark(line, id, mark);
	free(line);
	fclose(file);
	if (!found)
		errx(2, "no mark %" PRIu64 " of a guest in %s/truth.jsonl", id, dir);
}

/* A part of the slots by the guest: between two reads of both registers. */
static long guest_part(const struct workload *workload, int part)
{
	wide slots = workload->slots[1] - workload->slots[0], sum;
	unsigned int shift = 8 * part;

	sum = (wide)(workload->metrics[1] >> shift & 0xff) * workload->slots[1] -
	      (wide)(workload->metrics[0] >> shift & 0xff) * workload->slots[0];
	return (sum * WHOLE + FIELD_MAX * slots / 2) / (FIELD_MAX * slots);
}

static long true_part(const struct mark marks[2], int part)
{
	wide slots = marks[1].slots - marks[0].slots;

	return ((wide)(marks[1].part[part] - marks[0].part[part]) * WHOLE + slots / 2) / slots;
}

/* Prints one line of the table; returns the largest difference. */
static long compare(const char *dir, const struct workload *workload, bool *same)
{
	uint64_t guest = workload->slots[1] - workload->slots[0], slots;
	long worst = 0, mine, truth;
	struct mark marks[2];
	int i;

	find_mark(dir, workload->begin, &marks[0]);
	find_mark(dir, workload->end, &marks[1]);
	if (marks[0].cpu != marks[1].cpu || strcmp(marks[0].owner, marks[1].owner))
		errx(2, "%s: its two marks are of different CPUs or guests", workload->name);
	slots = marks[1].slots - marks[0].slots;
	if (!slots || !guest)
		errx(1, "%s: %" PRIu64 " slots in the guest, %" PRIu64 " in truth: expected some",
		     workload->name, guest, slots);
	printf("%-15s %11" PRIu64 " %11" PRIu64, workload->name, guest, slots);
	for (i = 0; i < NR_PARTS; i++) {
		mine = guest_part(workload, i);
		truth = true_part(marks, i);
		printf("  %3ld.%02ld %3ld.%02ld", mine / 100, mine % 100, truth / 100,
		       truth % 100);
		if (labs(mine - truth) > worst)
			worst = labs(mine - truth);
	}
	/* Unsigned: fewer than in truth is far too many. */
	*same = guest - slots <= SLOTS_BESIDE;
	printf("   %ld.%02ld\n", worst / 100, worst % 100);
	return worst;
}

static bool parse_workload(const char *text, struct workload *workload)
{
	return sscanf(text, "topdown-guest: workload=%63s begin=%" SCNu64 " end=%" SCNu64
		      " slots=%" SCNu64 ",%" SCNu64 " metrics=%" SCNx64 ",%" SCNx64,
		      workload->name, &workload->begin, &workload->end,
		      &workload->slots[0], &workload->slots[1],
		      &workload->metrics[0], &workload->metrics[1]) == 7;
}

static void print_head(void)
{
	printf("%15s %23s  %13s  %13s  %13s  %13s\n", "", "slots         ",
	       "retiring %", "bad spec. %", "frontend %", "backend %");
	printf("%-15s %11s %11s", "workload", "guest", "truth");
	printf("%s\n", "   guest  truth   guest  truth   guest  truth   guest  truth   diff");
}

int main(int argc, char **argv)
{
	long tolerance = 50, worst = 0, difference;
	struct workload workload;
	unsigned int count = 0;
	bool same, all_same = true;
	char *line = NULL;
	size_t size = 0;
	int option;
	FILE *file;

	while ((option = getopt(argc, argv, "t:")) >= 0) {
		if (option != 't')
			return 2;
		tolerance = atol(optarg);
	}
	if (optind != argc - 1)
		errx(2, "usage: table [-t HUNDREDTHS] DIR");
	file = open_log(argv[optind], "console.log");
	while (getline(&line, &size, file) >= 0) {
		const char *text = log_after(log_text(line), LOG_OUTPUT);

		if (text && log_after(text, "topdown-guest: missing: ")) {
			fputs(text, stdout);
			return 4;
		}
		if (!text || !parse_workload(text, &workload))
			continue;
		if (!count++)
			print_head();
		difference = compare(argv[optind], &workload, &same);
		if (!same)
			printf("%s: the guest's slots are not the true ones\n",
			       workload.name);
		all_same &= same;
		if (difference > worst)
			worst = difference;
	}
	free(line);
	fclose(file);
	if (!count)
		errx(2, "no workload in %s/console.log: did the guest run?", argv[optind]);
	printf("topdown: largest difference %ld.%02ld points over %u workloads\n",
	       worst / 100, worst % 100, count);
	return !all_same || worst > tolerance;
}
