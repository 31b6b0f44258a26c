// SPDX-License-Identifier: GPL-2.0
/*
 * How far what a guest reads in PERF_METRICS is from the ground truth, by the number
 * of VM exits since it cleared the registers: from boots that ran precision.c.
 *
 *	curve [-t FILE] [-s FILE] [-l LIMIT [-n NAME] [-r RESULTS]] KERNEL=DIR...
 *
 * The error is the largest of the differences between a field and its share of the
 * slots that counter 3 counted, in percentage points. Counter 3 itself has to be
 * right to the last slot. What a write of PERF_METRICS does and how its fields are
 * rounded, DIR's ground truth says.
 *
 *	-t FILE		all errors as tab-separated values
 *	-s FILE		a picture, SVG; of KERNEL "series" the worst of all readings
 *	-l LIMIT	in hundredths of a point: no error may be larger. With RESULTS
 *			a line "PASS NAME/precision-SHAPE: why", or FAIL, is appended
 *			to it for each shape
 *
 * Exits with 1 if a limit is exceeded or slots are wrong, 2 if the lab broke.
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "console.h"
#include "results.h"
#include "truth.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define NR_FIELDS	4	/* of level 1, which add up to everything */
#define ONE		255.0	/* a field that says "all slots" */

static const char *const fields[NR_FIELDS] = {
	"retiring", "bad speculation", "frontend bound", "backend bound"
};

/* As precision.c calls them, and what they are. */
static const struct {
	const char *name, *title;
} shapes[] = {
	{ "constant", "constant mix" },
	{ "step", "one step, half way" },
	{ "short", "phases of 4 exits" },
	{ "long", "phases of a tenth of all exits" },
	{ "burst", "a burst each 50 exits" },
};

struct point {
	const char *kernel;
	struct console_precision read;	/* by the guest */
	char write[16], rounding[16];	/* of the machine */
	uint64_t counted[2], share[2][NR_FIELDS], entries[2];	/* at its two marks */
	bool seen[2];
	double error;			/* points */
	unsigned int worst;		/* field */
};

static struct point *points;
static unsigned int nr_points;

static FILE *open_or_die(const char *path)
{
	FILE *file = fopen(path, "w");

	if (!file)
		err(2, "%s", path);
	return file;
}

static void close_or_die(FILE *file, const char *path)
{
	if (fflush(file) || ferror(file) || fclose(file))
		err(2, "%s", path);
}

/* Reading. */

static void take_point(const char *kernel, const char *output)
{
	struct point point = { .kernel = kernel };

	if (!console_precision(output, &point.read))
		return;
	points = realloc(points, (nr_points + 1) * sizeof(*points));
	if (!points)
		err(2, "points");
	points[nr_points++] = point;
}

static void read_console(const char *kernel, const char *dir)
{
	FILE *file = console_open(dir);
	char *line = NULL;
	size_t size = 0;

	while (console_next(file, &line, &size)) {
		struct console_line read = console_line(line);

		if (read.kind == CONSOLE_OUTPUT)
			take_point(kernel, read.rest);
	}
	free(line);
	fclose(file);
}

static uint64_t number(const struct truth *truth, const char *path)
{
	uint64_t value;

	if (!truth_find(truth, path, &value))
		errx(2, "the ground truth has no number \"%s\"", path);
	return value;
}

static void take_mark(const struct truth *truth, unsigned int first)
{
	unsigned int i, n, end;
	char path[32];

	for (n = first; n < nr_points; n++) {
		if (truth->id != points[n].read.mark && truth->id != points[n].read.mark + 1)
			continue;
		end = truth->id - points[n].read.mark;
		points[n].seen[end] = true;
		points[n].counted[end] = number(truth, "counted.fixed3");
		points[n].entries[end] = number(truth, "switches");
		for (i = 0; i < NR_FIELDS; i++) {
			snprintf(path, sizeof(path), "counted.metric%u", i);
			points[n].share[end][i] = number(truth, path);
		}
	}
}

static void take_machine(const struct truth *truth, unsigned int first)
{
	unsigned int n;

	for (n = first; n < nr_points; n++) {
		snprintf(points[n].write, sizeof(points[n].write), "%s",
			 truth_string(truth, "metrics_write"));
		snprintf(points[n].rounding, sizeof(points[n].rounding), "%s",
			 truth_string(truth, "metrics_rounding"));
	}
}

static void read_truth(const char *dir, unsigned int first)
{
	struct truth truth;

	truth_open(&truth, dir);
	while (truth_next(&truth)) {
		if (truth.type == TRUTH_MACHINE)
			take_machine(&truth, first);
		else if (truth.type == TRUTH_MARK)
			take_mark(&truth, first);
	}
	truth_close(&truth);
}

static uint64_t between(const uint64_t at[2])
{
	return at[1] - at[0];
}

static void compute(struct point *point, const char *dir)
{
	uint64_t share[2];
	double difference;
	unsigned int i;

	if (!point->seen[0] || !point->seen[1])
		errx(2, "%s/truth.jsonl lacks the marks from %" PRIu64 " on", dir, point->read.mark);
	if (!between(point->counted))
		errx(2, "%s: nothing was counted after mark %" PRIu64, dir, point->read.mark);
	for (i = 0; i < NR_FIELDS; i++) {
		share[0] = point->share[0][i];
		share[1] = point->share[1][i];
		difference = fabs((point->read.metrics >> 8 * i & 0xff) / ONE -
				  (double)between(share) / between(point->counted)) * 100;
		if (difference < point->error)
			continue;
		point->error = difference;
		point->worst = i;
	}
}

static void read_run(const char *kernel, const char *dir)
{
	unsigned int first = nr_points, n;

	read_console(kernel, dir);
	if (first == nr_points)
		errx(2, "%s/console.log has no measurement of precision", dir);
	read_truth(dir, first);
	for (n = first; n < nr_points; n++)
		compute(&points[n], dir);
}

/* The numbers. */

static bool same_line(const struct point *a, const struct point *b)
{
	return !strcmp(a->kernel, b->kernel) && !strcmp(a->read.shape, b->read.shape) &&
	       !strcmp(a->read.neighbour, b->read.neighbour) && a->read.every == b->read.every &&
	       !strcmp(a->write, b->write) && !strcmp(a->rounding, b->rounding);
}

static void put_table(void)
{
	unsigned int n;

	for (n = 0; n < nr_points; n++) {
		if (!n || !same_line(&points[n], &points[n - 1])) {
			printf("%s%s: %s, %s, %s", n ? "\n" : "", points[n].read.shape,
			       points[n].kernel, points[n].write, points[n].rounding);
			if (points[n].read.every)
				printf(", %s neighbour after each %" PRIu64, points[n].read.neighbour,
				       points[n].read.every);
			printf("\n ");
		}
		printf(" %" PRIu64 ":%.2f", points[n].read.exits, points[n].error);
	}
	printf("\n");
}

static void write_values(const char *path)
{
	FILE *file = open_or_die(path);
	const struct point *point;

	fprintf(file, "kernel\twrite\trounding\tshape\tneighbour\tevery\texits\tentries"
		"\tslots\tmetrics\terror\tfield\n");
	for (point = points; point < points + nr_points; point++)
		fprintf(file, "%s\t%s\t%s\t%s\t%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64
			"\t%" PRIu64 "\t0x%" PRIx64 "\t%.3f\t%s\n", point->kernel, point->write,
			point->rounding, point->read.shape, point->read.neighbour, point->read.every,
			point->read.exits, between(point->entries), point->read.slots, point->read.metrics,
			point->error, fields[point->worst]);
	close_or_die(file, path);
}

/* Slots are counted, not estimated: what was read is what was counted. */
static bool right_slots(const struct point *point)
{
	return point->read.slots == between(point->counted);
}

static int check_slots(void)
{
	const struct point *point;
	int status = 0;

	for (point = points; point < points + nr_points; point++) {
		if (right_slots(point))
			continue;
		printf("%s, %s, %" PRIu64 " exits: %" PRIu64 " slots, %" PRIu64 " were counted\n",
		       point->kernel, point->read.shape, point->read.exits, point->read.slots,
		       between(point->counted));
		status = 1;
	}
	return status;
}

/* Wrong slots are worse than any fraction. */
static const struct point *find_worst(const char *shape)
{
	const struct point *point, *worst = NULL;

	for (point = points; point < points + nr_points; point++) {
		if (strcmp(point->read.shape, shape))
			continue;
		if (!right_slots(point))
			return point;
		if (!worst || point->error > worst->error)
			worst = point;
	}
	return worst;
}

static enum outcome judge_shape(const char *shape, double limit, const char *name, FILE *results)
{
	const struct point *worst = find_worst(shape);
	enum outcome outcome = PASS;
	char why[256];

	if (!worst)
		return PASS;
	if (!right_slots(worst) || worst->error * 100 > limit)
		outcome = FAIL;
	snprintf(why, sizeof(why), "%s is %.2f points off after %" PRIu64
		 " exits, at most %.2f; %" PRIu64 " slots of %" PRIu64, fields[worst->worst],
		 worst->error, worst->read.exits, limit / 100, worst->read.slots,
		 between(worst->counted));
	results_put(results, outcome, why, "%s/precision-%s", name, shape);
	return outcome;
}

static int judge(double limit, const char *name, const char *path)
{
	FILE *results = path ? results_append(path) : stdout;
	enum outcome worst = PASS, outcome;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		outcome = judge_shape(shapes[i].name, limit, name, results);
		worst = outcome > worst ? outcome : worst;
	}
	if (path)
		results_end(results, path);
	return results_status(worst);
}

/*
 * The picture: panels of shapes, one row without neighbour over the number of exits,
 * one with one over the number of its turns.
 */

#define PANEL		196	/* width and height of a panel, in pixels */
#define ROOM		16	/* between two of them */
#define LEFT		64	/* for the numbers of the axis */
#define TOP		64	/* of the first row */
#define ROW		(PANEL + 140)	/* from one row to the next */
#define WIDTH		(LEFT + 5 * (PANEL + ROOM) + 8)
#define HEIGHT		(TOP + 2 * ROW + 40)
#define LEAST		0.05	/* points: below is drawn as that */
#define MOST		100.0
#define DECADES		5	/* of the horizontal axis */
#define GOAL		0.5

enum row { ALONE, SHARED };

/* What a line shows; NULL and 0 are "any", of which the worst is drawn. */
struct line {
	enum row row;
	const char *kernel, *neighbour, *write, *rounding;
	uint64_t every;
	const char *class, *title;
};

static const struct line lines[] = {
	{ ALONE, "compared", "none", NULL, "nearest", 0, "c1",
	  "written at each exit, fields rounded to the nearest; the worse of both readings of a write" },
	{ ALONE, "compared", "none", NULL, "truncate", 0, "c2",
	  "written at each exit, fields rounded down; the worse of both readings of a write" },
	{ ALONE, "series", "none", NULL, NULL, 0, "c0",
	  "this series, which leaves the registers alone; the worst of these four" },
	{ SHARED, "series", "topdown", NULL, "nearest", 1, "c1 d1",
	  "neighbour uses topdown, one turn after each exit" },
	{ SHARED, "series", "topdown", NULL, "nearest", 10, "c1",
	  "one turn after 10 exits" },
	{ SHARED, "series", "topdown", NULL, "nearest", 100, "c1 d2",
	  "one turn after 100 exits" },
	{ SHARED, "series", "idle", NULL, "nearest", 10, "c2 d1",
	  "neighbour could use topdown and does not, one turn after 10 exits" },
	{ SHARED, "series", "without", NULL, "nearest", 10, "c0",
	  "neighbour has no PMU, one turn after 10 exits" },
};

/* The class keeps it to this picture where it is part of a page (lab/report/make-page). */
static const char style[] =
	".curves text{font:12px system-ui,-apple-system,\"Segoe UI\",\"Noto Sans\",\"DejaVu Sans\","
	"sans-serif;fill:#1c2026}.curves .head{font-weight:600;font-size:14px}"
	".curves .soft{fill:#565f6a}.curves .paper{fill:#fff}.curves .grid{stroke:#d8dce1}"
	".curves .box{stroke:#8d959f;fill:none}"
	".curves .goal{stroke:#565f6a;stroke-dasharray:2 3}"
	".curves .curve{fill:none;stroke-width:2;stroke-linejoin:round}"
	".curves .c0{stroke:#2f6db0;stroke-width:3}.curves .c1{stroke:#bf4a1f}"
	".curves .c2{stroke:#a8740c}"
	".curves .d1{stroke-dasharray:7 3}.curves .d2{stroke-dasharray:2 3}"
	"@media(prefers-color-scheme:dark){.curves text{fill:#e6e9ec}.curves .soft{fill:#a3abb4}"
	".curves .paper{fill:#15181c}.curves .grid{stroke:#343a41}.curves .box{stroke:#7b848e}"
	".curves .goal{stroke:#a3abb4}.curves .c0{stroke:#5b9be0}.curves .c1{stroke:#e0734a}"
	".curves .c2{stroke:#e9b64c}}";

static FILE *picture;

static double panel_x(unsigned int panel)
{
	return LEFT + panel * (PANEL + ROOM);
}

static double panel_y(enum row row)
{
	return TOP + row * ROW;
}

static double x_of(double value)
{
	return log10(value) / DECADES * PANEL;
}

static double y_of(double error)
{
	double clamped = fmin(fmax(error, LEAST), MOST);

	return PANEL - log10(clamped / LEAST) / log10(MOST / LEAST) * PANEL;
}

static void put_text(double x, double y, const char *class, const char *anchor,
		     const char *format, ...) __attribute__((format(printf, 5, 6)));

static void put_text(double x, double y, const char *class, const char *anchor,
		     const char *format, ...)
{
	va_list args;

	fprintf(picture, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">", x, y,
		class, anchor);
	va_start(args, format);
	vfprintf(picture, format, args);
	va_end(args);
	fprintf(picture, "</text>\n");
}

static void put_segment(double x1, double y1, double x2, double y2, const char *class)
{
	fprintf(picture, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n",
		x1, y1, x2, y2, class);
}

static void put_frame(enum row row, unsigned int panel)
{
	static const double ticks[] = { 0.1, 1, 10, 100 };
	static const char *const powers[DECADES] = { "1", "10", "100", "1 k", "10 k" };
	double x = panel_x(panel), y = panel_y(row);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ticks); i++) {
		put_segment(x, y + y_of(ticks[i]), x + PANEL, y + y_of(ticks[i]), "grid");
		if (!panel)
			put_text(x - 6, y + y_of(ticks[i]) + 4, "soft", "end", "%g", ticks[i]);
	}
	put_segment(x, y + y_of(GOAL), x + PANEL, y + y_of(GOAL), "goal");
	if (!panel)
		put_text(x - 6, y + y_of(GOAL) + 4, "soft", "end", "%g", GOAL);
	for (i = 0; i < DECADES; i++) {
		put_segment(x + x_of(pow(10, i)), y, x + x_of(pow(10, i)), y + PANEL, "grid");
		put_text(x + x_of(pow(10, i)), y + PANEL + 16, "soft", i ? "middle" : "start",
			 "%s", powers[i]);
	}
	fprintf(picture, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" class=\"box\"/>\n",
		x, y, PANEL, PANEL);
	put_text(x, y - 8, "", "start", "%s", shapes[panel].title);
}

static bool belongs(const struct point *point, const struct line *line, const char *shape)
{
	return !strcmp(point->read.shape, shape) && !strcmp(point->kernel, line->kernel) &&
	       !strcmp(point->read.neighbour, line->neighbour) && point->read.every == line->every &&
	       (!line->write || !strcmp(point->write, line->write)) &&
	       (!line->rounding || !strcmp(point->rounding, line->rounding));
}

/* Points of a line come in the order of their exits; more than one at a time if any do. */
static void put_curve(const struct line *line, unsigned int panel)
{
	double x = panel_x(panel), y = panel_y(line->row), worst;
	const struct point *point, *other;
	uint64_t last = 0, value;

	fprintf(picture, "<polyline class=\"curve %s\" points=\"", line->class);
	for (point = points; point < points + nr_points; point++) {
		if (!belongs(point, line, shapes[panel].name) || point->read.exits <= last)
			continue;
		last = point->read.exits;
		worst = 0;
		for (other = points; other < points + nr_points; other++) {
			if (belongs(other, line, shapes[panel].name) && other->read.exits == last)
				worst = fmax(worst, other->error);
		}
		value = line->every ? last / line->every : last;
		if (value)
			fprintf(picture, "%.1f,%.1f ", x + x_of(value), y + y_of(worst));
	}
	fprintf(picture, "\"><title>%s</title></polyline>\n", line->title);
}

static void put_row(enum row row, const char *head, const char *axis)
{
	double y = panel_y(row) + PANEL + 34;
	unsigned int i, n = 0;

	put_text(LEFT, panel_y(row) - 30, "head", "start", "%s", head);
	for (i = 0; i < ARRAY_SIZE(shapes); i++)
		put_frame(row, i);
	put_text(WIDTH - 24, y, "soft", "end", "%s", axis);
	for (i = 0; i < ARRAY_SIZE(lines); i++) {
		if (lines[i].row != row)
			continue;
		for (unsigned int panel = 0; panel < ARRAY_SIZE(shapes); panel++)
			put_curve(&lines[i], panel);
		fprintf(picture, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" class=\"curve %s\"/>\n",
			LEFT, y + 16 * n - 4, LEFT + 36, y + 16 * n - 4, lines[i].class);
		put_text(LEFT + 44, y + 16 * n, "", "start", "%s", lines[i].title);
		n++;
	}
}

static void write_picture(const char *path)
{
	picture = open_or_die(path);
	fprintf(picture, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
		"class=\"curves\" role=\"img\"><title>Error of PERF_METRICS in a guest, by VM exits</title>\n"
		"<style>%s</style>\n<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n",
		WIDTH, HEIGHT, style, WIDTH, HEIGHT);
	put_row(ALONE, "Error of the guest's fractions, in percentage points, with the CPU to itself",
		"VM exits since the guest cleared the registers");
	put_row(SHARED, "The same with this series, beside another vCPU on the same CPU; fields rounded to the nearest",
		"turns of the neighbour since the guest cleared the registers");
	fprintf(picture, "</svg>\n");
	close_or_die(picture, path);
}

int main(int argc, char **argv)
{
	const char *values = NULL, *image = NULL, *name = "precision", *results = NULL;
	double limit = -1;
	int option, status;
	char *dir;

	while ((option = getopt(argc, argv, "l:n:r:s:t:")) >= 0) {
		switch (option) {
		case 'l':
			limit = atof(optarg);
			break;
		case 'n':
			name = optarg;
			break;
		case 'r':
			results = optarg;
			break;
		case 's':
			image = optarg;
			break;
		case 't':
			values = optarg;
			break;
		default:
			return 2;
		}
	}
	if (optind == argc)
		errx(2, "usage: curve [-t FILE] [-s FILE] [-l LIMIT [-n NAME] [-r RESULTS]] KERNEL=DIR...");
	for (; optind < argc; optind++) {
		dir = strchr(argv[optind], '=');
		if (!dir)
			errx(2, "%s: must be KERNEL=DIR", argv[optind]);
		*dir++ = '\0';
		read_run(argv[optind], dir);
	}
	put_table();
	if (values)
		write_values(values);
	if (image)
		write_picture(image);
	status = check_slots();
	if (limit >= 0)
		status |= judge(limit, name, results);
	return status;
}
