// SPDX-License-Identifier: GPL-2.0
/*
 * Sets what perf counted beside the ground truth.
 *
 *	table [-b] [-t HUNDREDTHS] [-j FILE] [-c RUN -r RESULTS] DIR
 *
 * Reads DIR/console.log, where a measurement is a program that init ran, in a
 * guest or on the host, whose name is SHAPE/WORKLOAD and which printed the line
 * of host/topdown-mark.c; and the marks that this line names from
 * DIR/truth.jsonl.  Prints a table, and as the last line
 *
 *	topdown: largest difference X.XX points over N workloads
 *
 * SHAPE says how perf was used and what is compared, see shapes[] below: slots
 * exactly, fractions with a tolerance.
 *
 *   -b			a host that is not emulated: what perf counted in a guest stands
 *			beside what it counted for the same workload on the host ("bare"),
 *			see host/topdown-check; there is no truth.jsonl
 *   -t HUNDREDTHS	at most this in the last line, in hundredths of a point
 *			(with -b: 1000), after -b
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
 *
 * Integers only: all fractions are in hundredths of a percentage point.
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../host/mark.h"
#include "console.h"
#include "results.h"
#include "truth.h"

#define NR_METRICS	8
#define LEVEL1		4		/* metrics of level 1, the first ones */
#define MAX_WHO		9		/* the host and eight guests */
#define MAX_OWNERS	8
#define WHOLE		10000		/* a fraction of 1 */

__extension__ typedef __int128 wide;

/* In the order of their fields in PERF_METRICS. */
static const struct {
	const char *event, *title, *key;
} metrics[NR_METRICS] = {
	{ "topdown-retiring", "retiring", "retiring" },
	{ "topdown-bad-spec", "bad spec.", "bad_spec" },
	{ "topdown-fe-bound", "frontend", "fe_bound" },
	{ "topdown-be-bound", "backend", "be_bound" },
	{ "topdown-heavy-ops", "heavy ops", "heavy_ops" },
	{ "topdown-br-mispredict", "mispredict", "br_mispredict" },
	{ "topdown-fetch-lat", "fetch lat.", "fetch_latency" },
	{ "topdown-mem-bound", "mem. bound", "mem_bound" },
};

enum shape { STAT, LEVEL2, MULTIPLEX, RECORD };

/*
 * The tolerance is in hundredths of a percentage point.  A read of PERF_METRICS
 * is right to half of 1/255, ROUNDING, of all slots until then.  Whenever the host
 * writes back what was read, i.e. when others have used the registers, that rounds
 * again, and so does perf in the guest when it switches in a task
 * (icl_set_topdown_event_period() in Linux): for shapes that do so often there is
 * more room.
 *
 * After more writes by the host than "writes" the fractions are shown and not judged;
 * after many, what is new is always below the precision, and they stand still
 * (Limits in Documentation/virt/kvm/x86/topdown.rst).
 */
#define ROUNDING	20

static const struct {
	const char *name;
	enum shape shape;
	long tolerance;
	uint64_t writes;
	bool user;	/* the kernel's part is not counted */
	bool tail;	/* what is counted after the last read is not printed */
} shapes[] = {
	/* perf stat of a command, of all CPUs (-a), with the modifier u */
	{ "stat", STAT, 50, 30, false, false },
	{ "all", STAT, 50, 30, false, false },
	{ "user", STAT, 50, 30, true, false },
	/* of many tasks that take turns */
	{ "tasks", STAT, 200, 500, false, false },
	/*
	 * -I, the sum of all intervals.  With -a perf leaves out what comes
	 * after its last read, on the host without guests as well.
	 */
	{ "interval", STAT, 50, 500, false, false },
	{ "all-interval", STAT, 50, 500, false, true },
	/* on the host beside guests, with the modifier H */
	{ "host", STAT, 200, 500, false, false },
	/* eight metrics */
	{ "level2", LEVEL2, 50, 30, false, false },
	/* more events than counters: scaled by perf */
	{ "multiplex", MULTIPLEX, 200, 500, false, false },
	/* perf record of slots, and perf report */
	{ "record", RECORD, 0, 0, false, false },
};

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

/*
 * Two runs on real hardware are never the same.  What is the same work in a guest and on
 * bare metal has to give about the same fractions; its page walks, which have two
 * dimensions in a guest, take more slots.  Nobody has measured on hardware how near the
 * two come: these limits are there to tell a PMU that works from one that does not.
 */
#define BARE_POINTS	1000		/* hundredths of a percentage point */
#define BARE_FACTOR	2		/* slots */

/* Workloads that are not the same work in a guest: they leave it, or wait. */
static const char *const apart[] = { "exits", "messaging" };

/* One line of the ground truth: what an owner did up to a mark, on one CPU. */
struct snapshot {
	uint64_t id;
	char owner[32];
	uint64_t switches, slots, counted, metric[NR_METRICS];
};

struct symbol {
	char name[64];
	uint64_t samples;
};

struct measurement {
	unsigned int who;		/* 0 is the host */
	char shape_name[32], workload[64];
	enum shape shape;
	long tolerance;
	uint64_t max_writes;
	bool user, tail, ended;
	int status;
	uint64_t mark;
	char owners[MAX_OWNERS][32];
	unsigned int nr_owners;

	/* By perf. */
	bool counted;
	uint64_t slots, percent;	/* percent of the time that it counted */
	uint64_t metric[NR_METRICS];
	bool has_metric[NR_METRICS];
	uint64_t samples, events;
	struct symbol symbols[64];
	unsigned int nr_symbols;
	char last[512];			/* line that it printed */

	/* In truth. */
	uint64_t true_slots, true_metric[NR_METRICS], work, exits, writes;
	bool has_work;

	long part[NR_METRICS], true_part[NR_METRICS], difference;
	char why[512];			/* it fails */
};

static struct measurement *list;
static unsigned int count;
static struct snapshot *snapshots;
static size_t nr_snapshots;
/* How often the host had written PERF_METRICS until a mark, on one CPU. */
static struct {
	uint64_t id, count;
} *host_writes;
static size_t nr_host_writes;
static struct {
	char name[128];			/* of the program that runs */
	unsigned int measurement;	/* that it makes: its place in list plus 1 */
} running[MAX_WHO];
static char missing[512];
static bool bare;			/* -b */
static long bare_points;		/* the limit then */

static void *grow(void *array, size_t number, size_t size)
{
	/* A power of two: full. */
	if (number & (number - 1))
		return array;
	array = reallocarray(array, number ? 2 * number : 1, size);
	if (!array)
		err(2, "out of memory");
	return array;
}

/* The first reason stays. */
__attribute__((format(printf, 2, 3)))
static void fail(struct measurement *m, const char *format, ...)
{
	va_list args;

	if (m->why[0])
		return;
	va_start(args, format);
	vsnprintf(m->why, sizeof(m->why), format, args);
	va_end(args);
}

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

	for (i = 0; *truth->owner && i < count; i++) {
		struct measurement *m = &list[i];

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

/* What perf counted of the same on the host, in the truth's place. */
static void find_bare(struct measurement *m)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		const struct measurement *host = &list[i];

		if (host->who || strcmp(host->shape_name, m->shape_name) ||
		    strcmp(host->workload, m->workload))
			continue;
		if (!host->ended || host->status || !host->slots) {
			fail(m, "on bare metal: %s", host->last[0] ? host->last : "perf printed no slots");
			return;
		}
		if (host->percent != 100)
			fail(m, "on bare metal perf counted only %" PRIu64 " %% of the time", host->percent);
		m->true_slots = host->slots;
		memcpy(m->true_metric, host->metric, sizeof(m->true_metric));
		return;
	}
	fail(m, "was not measured on bare metal");
}

/* What perf printed. */

static void begin(unsigned int who, uint64_t mark)
{
	const char *slash = strchr(running[who].name, '/');
	struct measurement *m;
	unsigned int i;

	if (!slash)
		return;
	list = grow(list, count, sizeof(*list));
	m = &list[count];
	memset(m, 0, sizeof(*m));
	m->who = who;
	snprintf(m->shape_name, sizeof(m->shape_name), "%.*s",
		 (int)(slash - running[who].name), running[who].name);
	snprintf(m->workload, sizeof(m->workload), "%s", slash + 1);
	m->mark = mark;
	m->percent = 100;
	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		if (strcmp(shapes[i].name, m->shape_name))
			continue;
		m->shape = shapes[i].shape;
		m->tolerance = shapes[i].tolerance;
		m->max_writes = shapes[i].writes;
		m->user = shapes[i].user;
		m->tail = shapes[i].tail;
		running[who].measurement = ++count;
		return;
	}
	errx(2, "%s: this program has a mark, but no shape that is known here", running[who].name);
}

/* Events have other names with a PMU or a modifier: "cpu/slots/", "slots:u". */
static bool is_event(const char *text, const char *event)
{
	size_t length = strlen(event);

	return !strncasecmp(text, event, length) && (!text[length] || text[length] == ':');
}

/*
 * A line of perf stat -x, is [TIME,]VALUE,UNIT,EVENT,RUNNING,PERCENT,METRIC,NAME;
 * VALUE is empty for a further metric of the event before.
 */
static void take_counts(struct measurement *m, const char *text)
{
	char *copy = strdup(text), *at = copy, *cells[9] = { NULL };
	unsigned int n = 0, i, first;

	if (!copy)
		err(2, "out of memory");
	while (n < 9 && (cells[n] = strsep(&at, ",")))
		n++;
	first = n > 3 && cells[1][0] && strchr(cells[0], '.') ? 1 : 0;
	if (n < first + 5 || !cells[first][0] || strspn(cells[first], "0123456789") != strlen(cells[first]))
		goto out;
	if (is_event(cells[first + 2], "slots") || is_event(cells[first + 2], "TOPDOWN.SLOTS")) {
		m->counted = true;
		m->slots += strtoull(cells[first], NULL, 10);
		m->percent = strtoull(cells[first + 4], NULL, 10);
	}
	for (i = 0; i < NR_METRICS; i++) {
		if (is_event(cells[first + 2], metrics[i].event)) {
			m->metric[i] += strtoull(cells[first], NULL, 10);
			m->has_metric[i] = true;
		}
	}
out:
	free(copy);
}

/* "    40.70%           643  topdown-workload   [.] retiring   -  -" */
static void take_report(struct measurement *m, const char *text)
{
	const char *at = console_after(text, "# Event count (approx.): ");
	struct symbol symbol;

	if (at) {
		m->counted = true;
		m->events = strtoull(at, NULL, 10);
	} else if ((at = console_after(text, "# Samples: "))) {
		m->samples = strtoull(at, NULL, 10);
	} else if (m->nr_symbols < 64 &&
		   sscanf(text, " %*f%% %" SCNu64 " %*s [%*c] %63s", &symbol.samples,
			  symbol.name) == 2) {
		m->symbols[m->nr_symbols++] = symbol;
	}
}

static void take_output(unsigned int who, const char *text)
{
	unsigned int n = running[who].measurement;
	struct measurement *m = n ? &list[n - 1] : NULL;
	uint64_t mark;

	if (console_lacks(text) && !missing[0])
		snprintf(missing, sizeof(missing), "%s", text);
	if (console_mark(text, &mark)) {
		begin(who, mark);
	} else if (m && m->shape == RECORD) {
		take_report(m, text);
	} else if (m) {
		take_counts(m, text);
	}
	if (m && text[strspn(text, " ")])
		snprintf(m->last, sizeof(m->last), "%s", text);
}

static void take_end(unsigned int who, const char *rest)
{
	unsigned int n = running[who].measurement;
	struct console_ending ending;

	running[who].measurement = 0;
	if (!n)
		return;
	console_ending(rest, &ending);
	list[n - 1].ended = true;
	list[n - 1].status = ending.how == CONSOLE_STATUS ? ending.number : -1;
}

/*
 * Of a guest, or of the host, whose programs pass on lines: of a guest, or of a plan that
 * they ran.
 */
static void take_line(int who, const char *text)
{
	struct console_line line = console_line(text);
	const char *passed;
	int of;

	if (!who && line.kind <= CONSOLE_OUTPUT) {
		of = console_passed_on(line.rest, &passed);
		if (of >= 0 && of < MAX_WHO) {
			take_line(of, passed);
			return;
		}
	}
	if (line.kind == CONSOLE_OUTPUT) {
		take_output(who, line.rest);
	} else if (line.kind == CONSOLE_BEGIN) {
		snprintf(running[who].name, sizeof(running[who].name), "%s", line.rest);
		running[who].measurement = 0;
	} else if (line.kind == CONSOLE_END) {
		take_end(who, line.rest);
	}
}

static void read_console(const char *dir)
{
	FILE *file = console_open(dir);
	char *line = NULL;
	size_t size = 0;

	while (console_next(file, &line, &size))
		take_line(0, line);
	free(line);
	fclose(file);
}

/* The comparison. */

/* On average half of all slots are counted when a write rounds. */
static long tolerance(const struct measurement *m)
{
	long rounded = ROUNDING * (2 + (long)m->writes) / 2;

	if (bare)
		return bare_points;
	return rounded > m->tolerance ? rounded : m->tolerance;
}

/* With -b the host's are what guests' are compared with. */
static bool is_shown(const struct measurement *m)
{
	return !bare || m->who;
}

static bool is_judged(const struct measurement *m)
{
	unsigned int i;

	for (i = 0; bare && i < sizeof(apart) / sizeof(apart[0]); i++)
		if (!strcmp(apart[i], m->workload))
			return false;
	return m->writes <= m->max_writes;
}

static long percent_of(uint64_t part, uint64_t all)
{
	return ((wide)part * WHOLE + all / 2) / all;
}

/*
 * perf's metrics are normalized by the sum of the four fields, which rounding
 * keeps from being 255 (tma_retiring in pmu-events/arch/x86).  Level 2 fields
 * are parts of all slots as well.
 */
static void compare_metrics(struct measurement *m)
{
	unsigned int i, n = m->shape == LEVEL2 ? NR_METRICS : LEVEL1;
	uint64_t all = 0, true_all = bare ? 0 : m->true_slots;
	long difference;

	for (i = 0; i < LEVEL1; i++) {
		all += m->metric[i];
		true_all += bare ? m->true_metric[i] : 0;
	}
	for (i = 0; i < n; i++) {
		if (!m->has_metric[i] || !all) {
			fail(m, "perf counted no %s", metrics[i].event);
			return;
		}
		m->part[i] = percent_of(m->metric[i], all);
		m->true_part[i] = true_all ? percent_of(m->true_metric[i], true_all) : 0;
		difference = labs(m->part[i] - m->true_part[i]);
		if (difference > m->difference)
			m->difference = difference;
		if (difference > tolerance(m) && is_judged(m))
			fail(m, "%s is %ld.%02ld %%, %s %ld.%02ld %%", metrics[i].title,
			     m->part[i] / 100, m->part[i] % 100, bare ? "on bare metal" : "in truth",
			     m->true_part[i] / 100, m->true_part[i] % 100);
	}
}

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
	compare_metrics(m);
	compare_direction(m);
}

static void compare_bare(struct measurement *m)
{
	if (is_judged(m) && (m->slots > BARE_FACTOR * m->true_slots ||
			     m->slots * BARE_FACTOR < m->true_slots))
		fail(m, "perf counted %" PRIu64 " slots, on bare metal %" PRIu64, m->slots,
		     m->true_slots);
	if (m->percent != 100)
		fail(m, "perf counted only %" PRIu64 " %% of the time", m->percent);
	compare_metrics(m);
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
	compare_metrics(m);
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
	if (!m->ended || m->status || !m->counted) {
		fail(m, "%s", m->last[0] ? m->last : "perf printed no slots");
		return;
	}
	if (bare)
		find_bare(m);
	else
		find_truth(m);
	if (!m->true_slots)
		fail(m, "in truth fixed counter 3 did not count");
	if (m->why[0])
		return;
	if (bare)
		compare_bare(m);
	else if (m->shape == MULTIPLEX)
		compare_multiplex(m);
	else if (m->shape == RECORD)
		compare_samples(m);
	else
		compare_counts(m);
}

/* What is printed. */

static const char *title(const struct measurement *m)
{
	static char text[128];
	int length = 0;

	if (strcmp(m->shape_name, "stat"))
		length = snprintf(text, sizeof(text), "%s/", m->shape_name);
	length += snprintf(text + length, sizeof(text) - length, "%s", m->workload);
	/* 0 is the host, where that is not what the shape says. */
	if (m->who > 1 || (!m->who && strcmp(m->shape_name, "host")))
		snprintf(text + length, sizeof(text) - length, " (%u)", m->who);
	return text;
}

static void print_head(unsigned int first)
{
	unsigned int i;
	char cell[32];

	printf("%-20s %23s", "", "slots         ");
	for (i = first; i < first + LEVEL1; i++) {
		snprintf(cell, sizeof(cell), "%s %%", metrics[i].title);
		printf("  %13s", cell);
	}
	printf("\n%-20s %11s %11s", "workload", "perf", bare ? "bare" : "truth");
	for (i = 0; i < LEVEL1; i++)
		printf("  %6s %6s", "perf", bare ? "bare" : "truth");
	puts(bare ? "   diff  slots" : "   diff   exits writes");
}

static void print_row(const struct measurement *m, unsigned int first)
{
	unsigned int i;

	printf("%-20s", title(m));
	if (!m->counted || !m->true_slots) {
		printf("  %s\n", m->why);
		return;
	}
	printf(" %11" PRIu64 " %11" PRIu64, m->slots, m->true_slots);
	if (m->shape == RECORD) {
		printf("  %" PRIu64 " samples\n", m->samples);
		return;
	}
	for (i = first; i < first + LEVEL1; i++)
		printf("  %3ld.%02ld %3ld.%02ld", m->part[i] / 100, m->part[i] % 100,
		       m->true_part[i] / 100, m->true_part[i] % 100);
	printf(" %3ld.%02ld", m->difference / 100, m->difference % 100);
	if (bare)
		printf("   x%ld.%02ld\n", percent_of(m->slots, m->true_slots) / WHOLE,
		       percent_of(m->slots, m->true_slots) / 100 % 100);
	else
		printf(" %7" PRIu64 " %6" PRIu64 "\n", m->exits, m->writes);
}

static void print_notes(void)
{
	unsigned int i, n = 0;

	for (i = 0; i < count; i++)
		if (is_shown(&list[i]) && !is_judged(&list[i]) && list[i].shape != RECORD)
			printf("%s%s", n++ ? ", " : bare ? "Not judged, as it is other work in a guest: " :
			       "Fractions not judged after so many writes of PERF_METRICS by the host: ",
			       title(&list[i]));
	if (n)
		puts(bare ? "" : " (Limits in Documentation/virt/kvm/x86/topdown.rst)");
	for (i = 0; i < count; i++)
		if (list[i].why[0] && list[i].counted && list[i].true_slots)
			printf("%s: %s\n", title(&list[i]), list[i].why);
}

static void print_table(void)
{
	unsigned int i;

	print_head(0);
	for (i = 0; i < count; i++)
		if (is_shown(&list[i]))
			print_row(&list[i], 0);
	for (i = 0; i < count && list[i].shape != LEVEL2; i++)
		;
	if (i < count) {
		print_head(LEVEL1);
		for (; i < count; i++)
			if (list[i].shape == LEVEL2 && is_shown(&list[i]))
				print_row(&list[i], LEVEL1);
	}
	print_notes();
}

static void write_results(const char *run, const char *path)
{
	FILE *file = results_append(path);
	unsigned int i;

	for (i = 0; i < count; i++) {
		const struct measurement *m = &list[i];

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
	for (i = 0; i < count; i++) {
		const struct measurement *m = &list[i];
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

/* The last line, and the exit status. */
static int conclude(long limit)
{
	unsigned int i, compared = 0, available = 0;
	bool failed = false;
	long worst = 0;

	for (i = 0; i < count; i++) {
		const struct measurement *m = &list[i];

		if (!is_shown(m))
			continue;
		available += m->counted;
		failed |= m->why[0];
		if (!m->counted || !m->true_slots || m->shape == RECORD || !is_judged(m))
			continue;
		compared++;
		if (m->difference > worst)
			worst = m->difference;
	}
	if (!available) {
		puts(missing[0] ? missing : "missing: perf found no topdown events");
		return 4;
	}
	printf("topdown: largest difference %ld.%02ld points over %u workload%s\n",
	       worst / 100, worst % 100, compared, compared == 1 ? "" : "s");
	return failed || worst > limit;
}

int main(int argc, char **argv)
{
	const char *json = NULL, *run = NULL, *results = NULL;
	long limit = WHOLE;
	unsigned int i;
	int option;

	while ((option = getopt(argc, argv, "bt:j:c:r:")) >= 0) {
		switch (option) {
		case 'b': bare = true; limit = BARE_POINTS; break;
		case 't': limit = atol(optarg); break;
		case 'j': json = optarg; break;
		case 'c': run = optarg; break;
		case 'r': results = optarg; break;
		default: return 2;
		}
	}
	if (optind != argc - 1 || !run != !results)
		errx(2, "usage: table [-b] [-t HUNDREDTHS] [-j FILE] [-c RUN -r RESULTS] DIR");

	read_console(argv[optind]);
	if (!count && missing[0]) {
		puts(missing);
		return 4;
	}
	if (!count)
		errx(2, "no measurement in %s/console.log: did a guest run?", argv[optind]);
	bare_points = limit;
	if (!bare)
		read_truth(argv[optind]);
	for (i = 0; i < count; i++)
		if (is_shown(&list[i]))
			compare(&list[i]);
	print_table();
	if (results)
		write_results(run, results);
	if (json)
		write_json(json);
	return conclude(limit);
}
