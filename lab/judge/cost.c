// SPDX-License-Identifier: GPL-2.0
/*
 * What KVM does with the PMU for each pair of VM exit and VM entry, from the ground
 * truth of boots that ran world-switch.c: a table of kernels for each of its cases.
 *
 *	cost [-w WEIGHTS] [-t FILE] [-l LIMITS [-n NAME] [-r RESULTS]] KERNEL=DIR...
 *
 * The first KERNEL is what the others are compared with, the last one is judged by
 * LIMITS. With RESULTS, a line "PASS NAME/cost-CASE: why", or FAIL or ERROR, is appended
 * to it for each case. FILE gets all counts, by register, as tab-separated values.
 * Exits with 1 if a limit is exceeded, 2 if the lab broke.
 *
 * Counts are exact: all accesses between a case's two marks, divided by the VM entries
 * between them. They are whole numbers per pair, but for what ticks of the host add.
 * Instructions include everything that the host did meanwhile. Cycles are an estimate,
 * from the weights in WEIGHTS, of the accesses alone.
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "console.h"
#include "results.h"
#include "truth.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define MAX_KERNELS	8
#define MAX_CASES	32
#define MAX_REGISTERS	64	/* of one column */
#define MAX_LIMITS	128

/*
 * What ticks of the host may add per pair: they come every few million instructions,
 * a thousand pairs take about as many, and each adds some 30 accesses at most.
 */
#define TICKS		0.1
/* The same for instructions, relative: a tick takes some 10,000 of them. */
#define TICKS_RELATIVE	0.02

enum column { RDMSR, WRMSR, RDPMC, VMREAD, VMWRITE, INSTRUCTIONS, NR_COLUMNS };

static const char *const columns[NR_COLUMNS] = {
	"rdmsr", "wrmsr", "rdpmc", "vmread", "vmwrite", "instructions"
};

struct count {
	uint32_t reg;
	int64_t n;
};

struct measurement {
	char name[64];
	char missing[128];	/* why there are no counts */
	uint64_t mark;
	bool begun;
	int64_t pairs;
	int64_t total[NR_COLUMNS];
	struct count count[NR_COLUMNS][MAX_REGISTERS];
	unsigned int nr_counts[NR_COLUMNS];
};

struct kernel {
	const char *name;
	const char *dir;
	struct measurement list[MAX_CASES];
	unsigned int nr;
};

struct limit {
	char name[64];		/* of a case, or "*" */
	enum column column;
	bool has_reg;
	uint32_t reg;
	char kernel[64];	/* whose count it is, "" for none */
	double plus;
	bool if_measured;
	char text[48], most[32];	/* WHAT and LIMIT as written */
};

static struct kernel kernels[MAX_KERNELS];
static unsigned int nr_kernels;
static struct limit limits[MAX_LIMITS];
static unsigned int nr_limits;
static double weights[NR_COLUMNS];

static FILE *open_or_die(const char *path)
{
	FILE *file = fopen(path, "r");

	if (!file)
		err(2, "%s", path);
	return file;
}

/* The next line of data: without comment, not empty. */
static bool next_line(FILE *file, char **line, size_t *size)
{
	while (getline(line, size, file) >= 0) {
		(*line)[strcspn(*line, "#\n")] = '\0';
		if ((*line)[strspn(*line, " \t")])
			return true;
	}
	return false;
}

static enum column find_column(const char *name, const char *where)
{
	enum column i;

	for (i = 0; i < NR_COLUMNS; i++)
		if (!strcmp(name, columns[i]))
			return i;
	errx(2, "%s: no such count: %s", where, name);
}

static struct measurement *find_case(struct kernel *kernel, const char *name)
{
	unsigned int i;

	for (i = 0; i < kernel->nr; i++)
		if (!strcmp(kernel->list[i].name, name))
			return &kernel->list[i];
	return NULL;
}

static struct kernel *find_kernel(const char *name)
{
	unsigned int i;

	for (i = 0; i < nr_kernels; i++)
		if (!strcmp(kernels[i].name, name))
			return &kernels[i];
	return NULL;
}

/* Which cases ran, and their marks, by the console. */

static struct measurement *add_case(struct kernel *kernel, const char *name)
{
	struct measurement *m = find_case(kernel, name);

	if (m)
		return m;
	if (kernel->nr == MAX_CASES)
		errx(2, "%s: too many cases", kernel->dir);
	m = &kernel->list[kernel->nr++];
	/* As long as those that are read, of the console and of limits. */
	memcpy(m->name, name, strnlen(name, sizeof(m->name) - 1));
	return m;
}

/*
 * The name of a program in the plan is the case that it runs, so that it is known also if
 * there are no marks.
 */
static void read_console(struct kernel *kernel)
{
	FILE *file = console_open(kernel->dir);
	struct measurement *m = NULL;
	char *line = NULL, name[64];
	size_t size = 0;
	uint64_t mark;

	while (console_next(file, &line, &size)) {
		struct console_line read = console_line(line);
		const char *why;

		if (read.kind == CONSOLE_BEGIN)
			m = add_case(kernel, read.rest);
		if (read.kind != CONSOLE_OUTPUT || !m)
			continue;
		why = console_missing(read.rest);
		if (why)
			snprintf(m->missing, sizeof(m->missing), "%s", why);
		if (console_case(read.rest, name, &mark) && !strcmp(name, m->name))
			m->mark = mark;
	}
	free(line);
	fclose(file);
}

/* The counts between the marks, by the ground truth. */

static void add_count(struct measurement *m, enum column column, uint32_t reg, int64_t n)
{
	unsigned int i;

	for (i = 0; i < m->nr_counts[column]; i++)
		if (m->count[column][i].reg == reg)
			break;
	if (i == MAX_REGISTERS)
		errx(2, "%s: too many registers", m->name);
	if (i == m->nr_counts[column])
		m->nr_counts[column]++;
	m->count[column][i].reg = reg;
	m->count[column][i].n += n;
	m->total[column] += n;
}

/* A column of a measurement, and whether it is the first mark's, which is taken off. */
struct target {
	struct measurement *m;
	enum column column;
	int sign;
};

static void take_count(void *of, const char *reg, uint64_t n)
{
	struct target *target = of;

	add_count(target->m, target->column, strtoul(reg, NULL, 0), target->sign * (int64_t)n);
}

static void add_accesses(struct measurement *m, const struct truth *truth, int sign)
{
	struct target target = { .m = m, .sign = sign };

	m->pairs += sign * (int64_t)truth_number(truth, "entries");
	for (; target.column < INSTRUCTIONS; target.column++)
		truth_for_each(truth, columns[target.column], take_count, &target);
}

static void add_line(struct kernel *kernel, const struct truth *truth)
{
	unsigned int i;

	for (i = 0; i < kernel->nr; i++) {
		struct measurement *m = &kernel->list[i];
		int sign = truth->id == m->mark ? -1 : 1;

		if (!m->mark || (truth->id != m->mark && truth->id != m->mark + 1))
			continue;
		if (truth->type == TRUTH_ACCESSES) {
			add_accesses(m, truth, sign);
			m->begun |= sign < 0;
		} else if (truth->type == TRUTH_SNAPSHOT && !strcmp(truth->owner, "root")) {
			m->total[INSTRUCTIONS] += sign *
				(int64_t)truth_number(truth, "instructions");
		}
	}
}

static void read_truth(struct kernel *kernel)
{
	struct truth truth;

	truth_open(&truth, kernel->dir);
	while (truth_next(&truth))
		add_line(kernel, &truth);
	truth_close(&truth);
}

/* Without the second mark the pairs are less than none. */
static bool measured(const struct measurement *m)
{
	return m && m->begun && m->pairs > 0;
}

static void read_kernel(char *argument)
{
	struct kernel *kernel = &kernels[nr_kernels];
	char *equals = strchr(argument, '=');
	unsigned int i;

	if (!equals || nr_kernels == MAX_KERNELS)
		errx(2, "%s: not KERNEL=DIR, or too many of them", argument);
	*equals = '\0';
	kernel->name = argument;
	kernel->dir = equals + 1;
	nr_kernels++;
	read_console(kernel);
	read_truth(kernel);
	for (i = 0; i < kernel->nr; i++) {
		struct measurement *m = &kernel->list[i];

		if (!measured(m) && !m->missing[0])
			strcpy(m->missing, "its marks are missing in the ground truth");
	}
}

/* A count per pair: of a column, or of one register. */
static double per_pair(const struct measurement *m, enum column column, const uint32_t *reg)
{
	int64_t n = reg ? 0 : m->total[column];
	unsigned int i;

	for (i = 0; reg && i < m->nr_counts[column]; i++)
		if (m->count[column][i].reg == *reg)
			n = m->count[column][i].n;
	return (double)n / m->pairs;
}

/* The table. */

static void read_weights(const char *path)
{
	FILE *file = open_or_die(path);
	char *line = NULL, name[32];
	size_t size = 0;
	double cycles;

	while (next_line(file, &line, &size)) {
		if (sscanf(line, "%31s %lf", name, &cycles) != 2)
			errx(2, "%s: not \"WHAT CYCLES\": %s", path, line);
		weights[find_column(name, path)] = cycles;
	}
	free(line);
	fclose(file);
}

static double estimate(const struct measurement *m)
{
	double cycles = 0;
	enum column i;

	for (i = 0; i < NR_COLUMNS; i++)
		cycles += weights[i] * per_pair(m, i, NULL);
	return cycles;
}

/* A count, and its ratio to @of unless that is nothing but ticks. */
static void print_cell(int width, int digits, double n, double of)
{
	char ratio[32] = "";

	if (of > (digits ? TICKS : 100 * TICKS))
		snprintf(ratio, sizeof(ratio), "x%.2f", n / of);
	printf("%*.*f %-6s", width, digits, n, ratio);
}

static void print_row(const struct kernel *kernel, const struct measurement *m,
		      const struct measurement *first)
{
	enum column i;

	printf("  %-14s", kernel->name);
	if (!measured(m)) {
		printf("     -  %s\n", m ? m->missing : "not run");
		return;
	}
	if (m == first || !measured(first))
		first = NULL;
	for (i = 0; i < NR_COLUMNS; i++)
		print_cell(6, i == INSTRUCTIONS ? 0 : 2, per_pair(m, i, NULL),
			   first ? per_pair(first, i, NULL) : 0);
	print_cell(6, 0, estimate(m), first ? estimate(first) : 0);
	printf("\n");
}

/* Cases in the order of the last kernel, which can do most. */
static void print_table(void)
{
	static const char *const heads[] = {
		"RDMSR", "WRMSR", "RDPMC", "VMREAD", "VMWRITE", "instr.", "cycles*"
	};
	const struct kernel *last = &kernels[nr_kernels - 1];
	unsigned int i, k;

	printf("Per pair of VM exit and VM entry, and the ratio to %s:\n", kernels[0].name);
	printf("  %-14s", "");
	for (i = 0; i < ARRAY_SIZE(heads); i++)
		printf("%7s %5s", heads[i], "");
	printf("\n");
	for (i = 0; i < last->nr; i++) {
		const char *name = last->list[i].name;

		printf("%s (%" PRId64 " pairs)\n", name, last->list[i].pairs);
		for (k = 0; k < nr_kernels; k++)
			print_row(&kernels[k], find_case(&kernels[k], name),
				  find_case(&kernels[0], name));
	}
	printf("instr.: all instructions in VMX root operation, the mean\n"
	       "* an estimate: these accesses, weighted as lab/bench/weights says\n");
}

/* All counts of a case that are not 0, for other programs. */
static void write_counts(FILE *file, const struct kernel *kernel, const struct measurement *m)
{
	enum column c;
	unsigned int i;

	for (c = 0; c < NR_COLUMNS; c++) {
		fprintf(file, "%s\t%s\t%" PRId64 "\t%s\tall\t%" PRId64 "\n", m->name,
			kernel->name, m->pairs, columns[c], m->total[c]);
		for (i = 0; i < m->nr_counts[c]; i++)
			if (m->count[c][i].n)
				fprintf(file, "%s\t%s\t%" PRId64 "\t%s\t0x%" PRIx32 "\t%" PRId64 "\n",
					m->name, kernel->name, m->pairs, columns[c],
					m->count[c][i].reg, m->count[c][i].n);
	}
}

static void write_tsv(const char *path)
{
	FILE *file = fopen(path, "w");
	unsigned int k, i;

	if (!file)
		err(2, "%s", path);
	fprintf(file, "case\tkernel\tpairs\twhat\tregister\tcount\n");
	for (k = 0; k < nr_kernels; k++)
		for (i = 0; i < kernels[k].nr; i++)
			if (measured(&kernels[k].list[i]))
				write_counts(file, &kernels[k], &kernels[k].list[i]);
	if (fclose(file))
		err(2, "%s", path);
}

/* The limits. */

/* N, or KERNEL, or KERNEL+N. */
static void parse_most(struct limit *limit, const char *path)
{
	char rest;
	int n;

	if (sscanf(limit->most, "%lf%c", &limit->plus, &rest) == 1)
		return;
	limit->plus = 0;
	n = sscanf(limit->most, "%63[^+]+%lf%c", limit->kernel, &limit->plus, &rest);
	if (n < 1 || n > 2 || (n == 1 && strchr(limit->most, '+')))
		errx(2, "%s: not a number, KERNEL or KERNEL+N: %s", path, limit->most);
}

static void parse_limit(struct limit *limit, const char *path, const char *line)
{
	char what[48], condition[16] = "", rest;

	if (sscanf(line, "%63s %47s %31s %15s", limit->name, limit->text, limit->most,
		   condition) < 3)
		errx(2, "%s: not \"CASE WHAT LIMIT\": %s", path, line);
	limit->if_measured = !strcmp(condition, "if-measured");
	if (condition[0] && !limit->if_measured)
		errx(2, "%s: unknown word %s", path, condition);
	limit->has_reg = strchr(limit->text, ':');
	if (sscanf(limit->text, "%47[^:]:%" SCNx32 "%c", what, &limit->reg, &rest) !=
	    1 + limit->has_reg)
		errx(2, "%s: not WHAT or WHAT:REGISTER: %s", path, limit->text);
	limit->column = find_column(what, path);
	parse_most(limit, path);
}

static void read_limits(const char *path)
{
	FILE *file = open_or_die(path);
	char *line = NULL;
	size_t size = 0;

	while (next_line(file, &line, &size)) {
		if (nr_limits == MAX_LIMITS)
			errx(2, "%s: too many limits", path);
		parse_limit(&limits[nr_limits++], path, line);
	}
	free(line);
	fclose(file);
}

/* The same case on the kernel that @limit names, or NULL. */
static struct measurement *compared(const struct limit *limit, const char *name)
{
	struct kernel *kernel = find_kernel(limit->kernel);
	struct measurement *m = kernel ? find_case(kernel, name) : NULL;

	return measured(m) ? m : NULL;
}

static bool applies(const struct limit *limit, const char *name)
{
	if (strcmp(limit->name, "*") && strcmp(limit->name, name))
		return false;
	return !limit->if_measured || compared(limit, name);
}

/* Adds to @why what is wrong. */
static enum outcome check_limit(const struct limit *limit, const struct measurement *m,
				FILE *why)
{
	const uint32_t *reg = limit->has_reg ? &limit->reg : NULL;
	double n = per_pair(m, limit->column, reg), most = limit->plus;

	if (limit->kernel[0]) {
		struct measurement *other = compared(limit, m->name);

		if (!other) {
			fprintf(why, "; no %s of %s to compare with", limit->text, limit->kernel);
			return ERROR;
		}
		most += per_pair(other, limit->column, reg);
	}
	if (n <= most + (limit->column == INSTRUCTIONS ? most * TICKS_RELATIVE : TICKS))
		return PASS;
	fprintf(why, "; %s %.2f per pair, at most %.2f", limit->text, n, most);
	if (limit->kernel[0])
		fprintf(why, " (%s)", limit->most);
	return FAIL;
}

/* One line for a case, unless there is no limit for it. */
static enum outcome check_case(const struct measurement *m, const char *name, FILE *results)
{
	enum outcome verdict = PASS, one;
	unsigned int i, n = 0;
	char *text = NULL;
	size_t size;
	FILE *why = open_memstream(&text, &size);

	if (!why)
		err(2, "memory");
	for (i = 0; i < nr_limits; i++) {
		if (!applies(&limits[i], m->name))
			continue;
		n++;
		one = ERROR;
		if (measured(m))
			one = check_limit(&limits[i], m, why);
		else if (n == 1)
			fprintf(why, "; not measured: %s", m->missing);
		if (one > verdict)
			verdict = one;
	}
	if (verdict == PASS)
		fprintf(why, "; within %u limits", n);
	fclose(why);
	if (n) {
		results_put(stdout, verdict, text + 2, "%s/cost-%s", name, m->name);
		if (results)
			results_put(results, verdict, text + 2, "%s/cost-%s", name, m->name);
	}
	free(text);
	return verdict;
}

/* A limit of a case that did not run, or of a kernel that nobody knows, is an error. */
static enum outcome check_limits(const char *name, FILE *results)
{
	struct kernel *last = &kernels[nr_kernels - 1];
	enum outcome verdict = PASS, one;
	unsigned int i;

	for (i = 0; i < nr_limits; i++) {
		if (!strcmp(limits[i].name, "*") || find_case(last, limits[i].name))
			continue;
		strcpy(add_case(last, limits[i].name)->missing, "it was not run");
	}
	for (i = 0; i < last->nr; i++) {
		one = check_case(&last->list[i], name, results);
		if (one > verdict)
			verdict = one;
	}
	return verdict;
}

int main(int argc, char **argv)
{
	const char *results = NULL, *name = "bench", *tsv = NULL;
	FILE *file = NULL;
	enum outcome verdict;
	int option;

	while ((option = getopt(argc, argv, "l:n:r:t:w:")) >= 0) {
		if (option == 'l')
			read_limits(optarg);
		else if (option == 'n')
			name = optarg;
		else if (option == 'r')
			results = optarg;
		else if (option == 't')
			tsv = optarg;
		else if (option == 'w')
			read_weights(optarg);
		else
			return 2;
	}
	if (optind == argc)
		errx(2, "usage: cost [-w WEIGHTS] [-t FILE] [-l LIMITS [-n NAME] [-r RESULTS]] KERNEL=DIR...");
	for (; optind < argc; optind++)
		read_kernel(argv[optind]);
	print_table();
	if (tsv)
		write_tsv(tsv);
	if (results)
		file = results_append(results);
	verdict = check_limits(name, file);
	if (file)
		results_end(file, results);
	return results_status(verdict);
}
