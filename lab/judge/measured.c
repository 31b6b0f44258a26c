// SPDX-License-Identifier: GPL-2.0
/*
 * What perf measured, see measured.h.
 *
 * A measurement is a program that init ran, in a guest or on the host, whose name is
 * SHAPE/WORKLOAD and which printed the line of host/topdown-mark.c.
 *
 * Integers only: all fractions are in hundredths of a percentage point.
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "measured.h"

#define MAX_WHO		9		/* the host and eight guests */

__extension__ typedef __int128 wide;

/* In the order of their fields in PERF_METRICS. */
const struct metric metrics[NR_METRICS] = {
	{ "topdown-retiring", "retiring", "retiring" },
	{ "topdown-bad-spec", "bad spec.", "bad_spec" },
	{ "topdown-fe-bound", "frontend", "fe_bound" },
	{ "topdown-be-bound", "backend", "be_bound" },
	{ "topdown-heavy-ops", "heavy ops", "heavy_ops" },
	{ "topdown-br-mispredict", "mispredict", "br_mispredict" },
	{ "topdown-fetch-lat", "fetch lat.", "fetch_latency" },
	{ "topdown-mem-bound", "mem. bound", "mem_bound" },
};

/*
 * The tolerance, beside the ground truth, is in hundredths of a percentage point.  A read
 * of PERF_METRICS is right to half of 1/255 of all slots until then.  Whenever the host
 * writes back what was read, i.e. when others have used the registers, that rounds
 * again, and so does perf in the guest when it switches in a task
 * (icl_set_topdown_event_period() in Linux): for shapes that do so often there is
 * more room.
 *
 * After more writes by the host than "writes" the fractions are shown and not judged;
 * after many, what is new is always below the precision, and they stand still
 * (Limits in Documentation/virt/kvm/x86/topdown.rst).
 */
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

struct measurement *measured;
unsigned int nr_measured;
static struct {
	char name[128];			/* of the program that runs */
	unsigned int measurement;	/* that it makes: its place in measured plus 1 */
} running[MAX_WHO];
static char missing[512];

/**
 * grow() - make room for one more in an array
 * @array: it
 * @number: how many it has
 * @size: of each
 *
 * Return: where the array is now
 */
void *grow(void *array, size_t number, size_t size)
{
	/* A power of two: full. */
	if (number & (number - 1))
		return array;
	array = reallocarray(array, number ? 2 * number : 1, size);
	if (!array)
		err(2, "out of memory");
	return array;
}

/**
 * fail() - say why a measurement is not as it should be; the first reason stays
 * @m: the measurement
 * @format: why
 */
void fail(struct measurement *m, const char *format, ...)
{
	va_list args;

	if (m->why[0])
		return;
	va_start(args, format);
	vsnprintf(m->why, sizeof(m->why), format, args);
	va_end(args);
}

/* What perf printed. */

static void begin(unsigned int who, uint64_t mark)
{
	const char *slash = strchr(running[who].name, '/');
	struct measurement *m;
	unsigned int i;

	if (!slash)
		return;
	measured = grow(measured, nr_measured, sizeof(*measured));
	m = &measured[nr_measured];
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
		running[who].measurement = ++nr_measured;
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
	struct measurement *m = n ? &measured[n - 1] : NULL;
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
	measured[n - 1].ended = true;
	measured[n - 1].status = ending.how == CONSOLE_STATUS ? ending.number : -1;
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

/**
 * measured_read() - read all measurements of a run, or end this program
 * @dir: the run's directory
 *
 * It ends with status 4 if there is none because something is missing.
 */
void measured_read(const char *dir)
{
	FILE *file = console_open(dir);
	char *line = NULL;
	size_t size = 0;

	while (console_next(file, &line, &size))
		take_line(0, line);
	free(line);
	fclose(file);
	if (!nr_measured && missing[0]) {
		puts(missing);
		exit(4);
	}
	if (!nr_measured)
		errx(2, "no measurement in %s/console.log: did a guest run?", dir);
}

/* The comparison. */

/**
 * measured_percent() - a fraction
 * @part: of @all
 * @all: not 0
 *
 * Return: hundredths of a percent
 */
long measured_percent(uint64_t part, uint64_t all)
{
	return ((wide)part * WHOLE + all / 2) / all;
}

/**
 * measured_metrics() - compare the metrics of a measurement
 * @m: the measurement, with true_slots and true_metric
 * @beside: where these are from
 *
 * perf's metrics are normalized by the sum of the four fields, which rounding
 * keeps from being 255 (tma_retiring in pmu-events/arch/x86).  Level 2 fields
 * are parts of all slots as well.
 */
void measured_metrics(struct measurement *m, const struct beside *beside)
{
	unsigned int i, n = m->shape == LEVEL2 ? NR_METRICS : LEVEL1;
	uint64_t all = 0, true_all = beside->normalized ? 0 : m->true_slots;
	long difference;

	for (i = 0; i < LEVEL1; i++) {
		all += m->metric[i];
		true_all += beside->normalized ? m->true_metric[i] : 0;
	}
	for (i = 0; i < n; i++) {
		if (!m->has_metric[i] || !all) {
			fail(m, "perf counted no %s", metrics[i].event);
			return;
		}
		m->part[i] = measured_percent(m->metric[i], all);
		m->true_part[i] = true_all ? measured_percent(m->true_metric[i], true_all) : 0;
		difference = labs(m->part[i] - m->true_part[i]);
		if (difference > m->difference)
			m->difference = difference;
		if (difference > beside->tolerance(m) && beside->is_judged(m))
			fail(m, "%s is %ld.%02ld %%, %s %ld.%02ld %%", metrics[i].title,
			     m->part[i] / 100, m->part[i] % 100, beside->where,
			     m->true_part[i] / 100, m->true_part[i] % 100);
	}
}

/**
 * measured_compare() - compare all measurements
 * @beside: with what
 */
void measured_compare(const struct beside *beside)
{
	unsigned int i;

	for (i = 0; i < nr_measured; i++) {
		struct measurement *m = &measured[i];

		if (!beside->is_shown(m))
			continue;
		if (!m->ended || m->status || !m->counted)
			fail(m, "%s", m->last[0] ? m->last : "perf printed no slots");
		else
			beside->compare(m);
	}
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

static void print_head(const struct beside *beside, unsigned int first)
{
	unsigned int i;
	char cell[32];

	printf("%-20s %23s", "", "slots         ");
	for (i = first; i < first + LEVEL1; i++) {
		snprintf(cell, sizeof(cell), "%s %%", metrics[i].title);
		printf("  %13s", cell);
	}
	printf("\n%-20s %11s %11s", "workload", "perf", beside->column);
	for (i = 0; i < LEVEL1; i++)
		printf("  %6s %6s", "perf", beside->column);
	printf("   diff%s\n", beside->end);
}

static void print_row(const struct beside *beside, const struct measurement *m,
		      unsigned int first)
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
	beside->print_end(m);
}

static void print_notes(const struct beside *beside)
{
	unsigned int i, n = 0;

	for (i = 0; i < nr_measured; i++)
		if (beside->is_shown(&measured[i]) && !beside->is_judged(&measured[i]) &&
		    measured[i].shape != RECORD)
			printf("%s%s", n++ ? ", " : beside->unjudged, title(&measured[i]));
	if (n)
		puts(beside->unjudged_more);
	for (i = 0; i < nr_measured; i++)
		if (measured[i].why[0] && measured[i].counted && measured[i].true_slots)
			printf("%s: %s\n", title(&measured[i]), measured[i].why);
}

/**
 * measured_print() - print the table
 * @beside: what the measurements were compared with
 */
void measured_print(const struct beside *beside)
{
	unsigned int i;

	print_head(beside, 0);
	for (i = 0; i < nr_measured; i++)
		if (beside->is_shown(&measured[i]))
			print_row(beside, &measured[i], 0);
	for (i = 0; i < nr_measured && measured[i].shape != LEVEL2; i++)
		;
	if (i < nr_measured) {
		print_head(beside, LEVEL1);
		for (; i < nr_measured; i++)
			if (measured[i].shape == LEVEL2 && beside->is_shown(&measured[i]))
				print_row(beside, &measured[i], LEVEL1);
	}
	print_notes(beside);
}

/**
 * measured_conclude() - print the last line
 * @beside: what the measurements were compared with
 * @limit: hundredths of a point by which they may differ at most
 *
 * Return: the exit status
 */
int measured_conclude(const struct beside *beside, long limit)
{
	unsigned int i, compared = 0, available = 0;
	bool failed = false;
	long worst = 0;

	for (i = 0; i < nr_measured; i++) {
		const struct measurement *m = &measured[i];

		if (!beside->is_shown(m))
			continue;
		available += m->counted;
		failed |= m->why[0];
		if (!m->counted || !m->true_slots || m->shape == RECORD || !beside->is_judged(m))
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
