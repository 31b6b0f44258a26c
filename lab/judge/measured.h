/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What perf measured, as it printed it, and a table of that beside what it is compared
 * with: the ground truth (table.c), or the bare host (host/topdown-compare.c).
 */
#ifndef LAB_JUDGE_MEASURED_H
#define LAB_JUDGE_MEASURED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NR_METRICS	8
#define LEVEL1		4		/* metrics of level 1, the first ones */
#define MAX_OWNERS	8
#define WHOLE		10000		/* a fraction of 1 */

/**
 * enum shape - what perf printed
 * @STAT: counts, with the metrics of level 1
 * @LEVEL2: with those of level 2, too
 * @MULTIPLEX: scaled by perf
 * @RECORD: samples
 */
enum shape { STAT, LEVEL2, MULTIPLEX, RECORD };

/* Of a report of samples. */
struct symbol {
	char name[64];
	uint64_t samples;
};

/**
 * struct measurement - what perf measured once
 */
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

/**
 * struct beside - what measurements are compared with
 * @column: its name at the head of the table
 * @where: its name in words
 * @end: the head of what @print_end adds to a row
 * @unjudged: why the fractions of some are shown and not judged
 * @unjudged_more: words below that
 * @normalized: its metrics are normalized by their sum as well
 * @is_shown: a measurement is one that is compared
 * @is_judged: its fractions are judged
 * @tolerance: by so many hundredths of a point they may differ
 * @compare: find what it is compared with, and fail it if that differs
 * @print_end: add to its row
 */
struct beside {
	const char *column, *where, *end, *unjudged, *unjudged_more;
	bool normalized;
	bool (*is_shown)(const struct measurement *m);
	bool (*is_judged)(const struct measurement *m);
	long (*tolerance)(const struct measurement *m);
	void (*compare)(struct measurement *m);
	void (*print_end)(const struct measurement *m);
};

extern const struct metric {
	const char *event, *title, *key;
} metrics[NR_METRICS];

extern struct measurement *measured;
extern unsigned int nr_measured;

void *grow(void *array, size_t number, size_t size);
__attribute__((format(printf, 2, 3)))
void fail(struct measurement *m, const char *format, ...);
void measured_read(const char *dir);
void measured_compare(const struct beside *beside);
void measured_metrics(struct measurement *m, const struct beside *beside);
long measured_percent(uint64_t part, uint64_t all);
void measured_print(const struct beside *beside);
int measured_conclude(const struct beside *beside, long limit);

#endif
