// SPDX-License-Identifier: GPL-2.0
/*
 * Sets what perf counted beside the ground truth.
 *
 *	table [-t HUNDREDTHS] [-j FILE] [-c RUN -r RESULTS] DIR
 *
 * Reads DIR/console.log, where programs SHAPE/WORKLOAD printed what perf counted
 * (measured.c), and the marks that they name from DIR/truth.jsonl.  Prints a table,
 * and as the last line
 *
 *	topdown: largest difference X.XX points over N workloads
 *
 * SHAPE says how perf was used and what is compared, see shapes[] in measured.c: slots
 * exactly, fractions with a tolerance.
 *
 *   -t HUNDREDTHS	at most this in the last line, in hundredths of a point
 *   -c RUN, -r RESULTS	appends "PASS RUN/NAME" or "FAIL RUN/NAME: why" for each
 *			measurement to RESULTS
 *   -j FILE		writes each measurement as a line of JSON to FILE
 *
 * Exits with 1 if something differs, with 2 if there is nothing to compare,
 * with 4 if topdown is not available: a program said "missing:", or perf has
 * no topdown events in any measurement.
 *
 * The truth of a measurement is what the emulator counted for its owners (the
 * host, or the CPUs of one guest) between the marks before and after perf, while
 * fixed counter 3 was counting.  What reads different was lost, or is not theirs.
 * So that a counter which stood still does not pass as right, the slots must
 * also cover the work between the workload's own marks, which is known without
 * any counter.
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../host/mark.h"
#include "measured.h"
#include "results.h"
#include "truth.h"

/* A read of PERF_METRICS, and a write, is right to half of 1/255 of all slots until then. */
#define ROUNDING	20		/* hundredths of a percentage point */

/* What is the bottleneck of which workload, by construction. */
static const struct {
	const char *workload;
	int metric;
} bottlenecks[] = {
	{ "retiring", 0 },
	{ "bad-speculation", 1 },
	{ "frontend", 2 },
	{ "backend", 3 },
};

/* One line of the ground truth: what an owner did up to a mark, on one CPU. */
struct snapshot {
	uint64_t id;
	char owner[32];
	uint64_t switches, slots, counted, metric[NR_METRICS];
};

static struct snapshot *snapshots;
static size_t nr_snapshots;
/* How often the host had written PERF_METRICS until a mark, on one CPU. */
static struct {
	uint64_t id, count;
} *host_writes;
static size_t nr_host_writes;

/* Ground truth. */

static void add_snapshot(const struct truth *truth)
{
	struct snapshot *s;
	unsigned int i;
	char path[32];

	snapshots = grow(snapshots, nr_snapshots, sizeof(*snapshots));
	s = &snapshots[nr_snapshots++];
	s->id = truth->id;
	snprintf(s->owner, sizeof(s->owner), "%s", truth->owner);
	s->switches = truth_number(truth, "switches");
	s->slots = truth_number(truth, "slots");
	s->counted = truth_number(truth, "counted.fixed3");
	for (i = 0; i < NR_METRICS; i++) {
		snprintf(path, sizeof(path), "counted.metric%u", i);
		s->metric[i] = truth_number(truth, path);
	}
}

static void add_writes(const struct truth *truth)
{
	host_writes = grow(host_writes, nr_host_writes, sizeof(*host_writes));
	host_writes[nr_host_writes].id = truth->id;
	host_writes[nr_host_writes++].count = truth_number(truth, "wrmsr.0x329");
}

static void add_owner(const struct truth *truth)
{
	unsigned int i, j;

	for (i = 0; *truth->owner && i < nr_measured; i++) {
		struct measurement *m = &measured[i];

		if (truth->id < m->mark || truth->id >= m->mark + MARK_STEP)
			continue;
		for (j = 0; j < m->nr_owners && strcmp(m->owners[j], truth->owner); j++)
			;
		if (j == m->nr_owners && j < MAX_OWNERS)
			snprintf(m->owners[m->nr_owners++], sizeof(m->owners[0]), "%s",
				 truth->owner);
	}
}

static void read_truth(const char *dir)
{
	struct truth truth;

	truth_open(&truth, dir);
	while (truth_next(&truth)) {
		if (truth.type == TRUTH_SNAPSHOT)
			add_snapshot(&truth);
		else if (truth.type == TRUTH_ACCESSES)
			add_writes(&truth);
		else if (truth.type == TRUTH_MARK)
			add_owner(&truth);
	}
	truth_close(&truth);
}

/* All that the owners of @m did up to its mark number @offset. */
static bool sum(const struct measurement *m, unsigned int offset, struct snapshot *total)
{
	bool found = false;
	unsigned int j, k;
	size_t i;

	memset(total, 0, sizeof(*total));
	for (i = 0; i < nr_snapshots; i++) {
		const struct snapshot *s = &snapshots[i];

		for (j = 0; j < m->nr_owners && strcmp(s->owner, m->owners[j]); j++)
			;
		if (s->id != m->mark + offset || j == m->nr_owners)
			continue;
		found = true;
		total->switches += s->switches;
		total->slots += s->slots;
		total->counted += s->counted;
		for (k = 0; k < NR_METRICS; k++)
			total->metric[k] += s->metric[k];
	}
	return found;
}

/* By the host, on all CPUs, from one mark of @m to another. */
static uint64_t writes_between(const struct measurement *m, unsigned int from, unsigned int to)
{
	uint64_t writes = 0;
	size_t i;

	for (i = 0; i < nr_host_writes; i++) {
		if (host_writes[i].id == m->mark + to)
			writes += host_writes[i].count;
		if (host_writes[i].id == m->mark + from)
			writes -= host_writes[i].count;
	}
	return writes;
}

static void find_truth(struct measurement *m)
{
	struct snapshot begin, end;
	unsigned int i;

	if (!sum(m, MARK_END, &end))
		errx(2, "%s/%s: no mark %" PRIu64 " in truth.jsonl", m->shape_name,
		     m->workload, m->mark + MARK_END);
	/* A guest that never ran before has no account yet: zero is right. */
	sum(m, MARK_BEGIN, &begin);
	m->true_slots = end.counted - begin.counted;
	m->exits = end.switches - begin.switches;
	m->writes = writes_between(m, MARK_BEGIN, MARK_END);
	for (i = 0; i < NR_METRICS; i++)
		m->true_metric[i] = end.metric[i] - begin.metric[i];
	m->has_work = sum(m, MARK_WORK_BEGIN, &begin) && sum(m, MARK_WORK_END, &end);
	if (!m->has_work)
		return;
	/* Outside of it perf starts and prints, with many exits. */
	m->work = end.slots - begin.slots;
	m->exits = end.switches - begin.switches;
	m->writes = writes_between(m, MARK_WORK_BEGIN, MARK_WORK_END);
}

/* The comparison. */

/* On average half of all slots are counted when a write rounds. */
static long tolerance(const struct measurement *m)
{
	long rounded = ROUNDING * (2 + (long)m->writes) / 2;

	return rounded > m->tolerance ? rounded : m->tolerance;
}

static bool is_shown(const struct measurement *m)
{
	(void)m;
	return true;
}

static bool is_judged(const struct measurement *m)
{
	return m->writes <= m->max_writes;
}

static void compare(struct measurement *m);

static void print_end(const struct measurement *m)
{
	printf(" %7" PRIu64 " %6" PRIu64 "\n", m->exits, m->writes);
}

static const struct beside in_truth = {
	.column = "truth",
	.where = "in truth",
	.end = "   exits writes",
	.unjudged = "Fractions not judged after so many writes of PERF_METRICS by the host: ",
	.unjudged_more = " (Limits in Documentation/virt/kvm/x86/topdown.rst)",
	.is_shown = is_shown,
	.is_judged = is_judged,
	.tolerance = tolerance,
	.compare = compare,
	.print_end = print_end,
};

static void compare_direction(struct measurement *m)
{
	unsigned int i, j;

	for (i = 0; i < sizeof(bottlenecks) / sizeof(bottlenecks[0]); i++) {
		if (strcmp(bottlenecks[i].workload, m->workload))
			continue;
		for (j = 0; j < LEVEL1 && is_judged(m); j++)
			if (m->part[j] > m->part[bottlenecks[i].metric])
				fail(m, "by perf its bottleneck is %s", metrics[j].title);
	}
}

static void compare_counts(struct measurement *m)
{
	if (m->tail ? m->slots > m->true_slots : m->slots != m->true_slots)
		fail(m, "perf counted %" PRIu64 " slots, in truth %" PRIu64, m->slots, m->true_slots);
	/* Of several CPUs the others may have had other work meanwhile. */
	if (m->has_work && m->nr_owners == 1 && !m->user && m->slots < m->work)
		fail(m, "perf counted %" PRIu64 " slots, the workload alone took %" PRIu64,
		     m->slots, m->work);
	if (m->percent != 100)
		fail(m, "perf counted only %" PRIu64 " %% of the time", m->percent);
	measured_metrics(m, &in_truth);
	compare_direction(m);
}

/*
 * perf scales the count by the part of the time in which it counted, printed
 * in whole percents.  Undone, that gives what was counted up to half a percent
 * of the time; and if the workload does the same all the time, the scaled count
 * is all of its work.
 */
static void compare_multiplex(struct measurement *m)
{
	uint64_t unscaled = m->slots * m->percent / 100, near = m->slots / 100;

	if (m->percent >= 100)
		fail(m, "perf counted all of the time: nothing was multiplexed");
	if (unscaled > m->true_slots + near || unscaled + near < m->true_slots)
		fail(m, "perf counted %" PRIu64 " slots, in truth %" PRIu64, unscaled, m->true_slots);
	if (!m->has_work || m->slots > m->work + m->work / 20 || m->slots + m->work / 20 < m->work)
		fail(m, "perf estimates %" PRIu64 " slots, the workload took %" PRIu64,
		     m->slots, m->work);
	measured_metrics(m, &in_truth);
}

/* A sample stands for a period of slots; what comes after the last has none. */
static void compare_samples(struct measurement *m)
{
	static const char *const functions[] = {
		"retiring", "bad_speculation", "jumps", "backend",
	};
	uint64_t period = m->samples ? m->events / m->samples : 0, of;
	unsigned int i, j;

	m->slots = m->events;
	if (!m->samples || m->events % m->samples) {
		fail(m, "%" PRIu64 " samples of %" PRIu64 " slots", m->samples, m->events);
		return;
	}
	/* Unsigned: more samples than slots is far too many left. */
	if (m->true_slots - m->events > period)
		fail(m, "%" PRIu64 " samples of %" PRIu64 " slots each, in truth %" PRIu64 " slots",
		     m->samples, period, m->true_slots);
	/* A quarter of the workload's slots is in each of its phases. */
	for (i = 0; i < 4 && !strcmp(m->workload, "mixed"); i++) {
		for (of = 0, j = 0; j < m->nr_symbols; j++)
			if (!strcmp(m->symbols[j].name, functions[i]))
				of += m->symbols[j].samples;
		if (of * 100 < m->samples * 15)
			fail(m, "%" PRIu64 " of %" PRIu64 " samples in %s(), expected a quarter",
			     of, m->samples, functions[i]);
	}
}

static void compare(struct measurement *m)
{
	find_truth(m);
	if (!m->true_slots)
		fail(m, "in truth fixed counter 3 did not count");
	if (m->why[0])
		return;
	if (m->shape == MULTIPLEX)
		compare_multiplex(m);
	else if (m->shape == RECORD)
		compare_samples(m);
	else
		compare_counts(m);
}

/* What is written for others. */

static void write_results(const char *run, const char *path)
{
	FILE *file = results_append(path);
	unsigned int i;

	for (i = 0; i < nr_measured; i++) {
		const struct measurement *m = &measured[i];

		results_put(file, m->why[0] ? FAIL : PASS, m->why, "%s/%s%u/%s/%s", run,
			    m->who ? "guest" : "host", m->who, m->shape_name, m->workload);
	}
	results_end(file, path);
}

static json_t *parts(const long *part, unsigned int n)
{
	json_t *object = json_object();
	unsigned int i;

	for (i = 0; i < n; i++)
		json_object_set_new(object, metrics[i].key, json_integer(part[i]));
	return object;
}

static void write_json(const char *path)
{
	FILE *file = fopen(path, "w");
	unsigned int i;

	if (!file)
		err(2, "cannot write %s", path);
	for (i = 0; i < nr_measured; i++) {
		const struct measurement *m = &measured[i];
		unsigned int n = m->shape == LEVEL2 ? NR_METRICS : LEVEL1;
		json_t *line = json_pack("{si ss ss sb ss}", "who", m->who,
					 "shape", m->shape_name, "workload", m->workload,
					 "good", !m->why[0], "why", m->why);

		if (m->counted && m->true_slots) {
			json_object_set_new(line, "slots", json_integer(m->slots));
			json_object_set_new(line, "true_slots", json_integer(m->true_slots));
			json_object_set_new(line, "exits", json_integer(m->exits));
			json_object_set_new(line, "writes", json_integer(m->writes));
			json_object_set_new(line, "judged", json_boolean(is_judged(m)));
			if (m->has_work)
				json_object_set_new(line, "work", json_integer(m->work));
		}
		if (m->counted && m->true_slots && m->shape == RECORD)
			json_object_set_new(line, "samples", json_integer(m->samples));
		if (m->counted && m->true_slots && m->shape != RECORD) {
			json_object_set_new(line, "parts", parts(m->part, n));
			json_object_set_new(line, "true_parts", parts(m->true_part, n));
			json_object_set_new(line, "difference", json_integer(m->difference));
		}
		json_dumpf(line, file, JSON_COMPACT);
		fputc('\n', file);
		json_decref(line);
	}
	if (fclose(file))
		err(2, "cannot write %s", path);
}

int main(int argc, char **argv)
{
	const char *json = NULL, *run = NULL, *results = NULL;
	long limit = WHOLE;
	int option;

	while ((option = getopt(argc, argv, "t:j:c:r:")) >= 0) {
		switch (option) {
		case 't': limit = atol(optarg); break;
		case 'j': json = optarg; break;
		case 'c': run = optarg; break;
		case 'r': results = optarg; break;
		default: return 2;
		}
	}
	if (optind != argc - 1 || !run != !results)
		errx(2, "usage: table [-t HUNDREDTHS] [-j FILE] [-c RUN -r RESULTS] DIR");

	measured_read(argv[optind]);
	read_truth(argv[optind]);
	measured_compare(&in_truth);
	measured_print(&in_truth);
	if (results)
		write_results(run, results);
	if (json)
		write_json(json);
	return measured_conclude(&in_truth, limit);
}
