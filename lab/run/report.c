// SPDX-License-Identifier: GPL-2.0
/*
 * Writes what some runs measured as one HTML page: pictures, numbers, versions
 * and excerpts of the consoles.
 *
 *	report [-s TOP] [-c COSTS]... [-p PICTURE] -o FILE RUN_DIR...
 *
 * The page needs nothing but itself: no script, no other file, no network.  It
 * is XML, too, and the same input gives the same bytes.
 *
 * Each RUN_DIR has
 *
 *	result		KEY=VALUE lines of lab/run/boot: run, machine, cpus, kernel
 *	console.log	what the host and its guests said (lab/image/init.c)
 *	truth.jsonl	the ground truth (lab/model/truth.c)
 *	topdown.jsonl	the comparison, by "table -j"
 *
 * COSTS is a table of "make bench", shown as it is, PICTURE the SVG of "make precision".
 *
 * A run whose kernel lies in a directory kernel-base is one without the series.
 * The machines' descriptions and the version of Bochs come from lab/machine and
 * base/bochs below TOP (.).
 *
 * Exits with 0 if FILE was written, whatever the numbers are, since lab/judge/table
 * judges them; with 1 and one line if not.  FILE is replaced at the end and in
 * one step: a failure loses nothing.
 *
 * Strings that are read stay allocated until the program ends.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../judge/log.h"

#define NR_PARTS	8
#define LEVEL1		4		/* parts of level 1, the first ones */
#define WHOLE		10000		/* hundredths of a percent */
#define MAX_EXCERPT	80		/* lines */
#define LABEL_ROOM	900		/* parts below that have no room for their number */
#define BAR		22		/* height of a bar, in pixels */
#define BAR_STEP	25		/* how far below the next one begins */

/* The parts of level 2 are contained in those of level 1, in the same order. */
static const struct {
	const char *key, *title, *head;
	const char *rest;		/* what level 1 has beside it */
} parts[NR_PARTS] = {
	{ "retiring", "retiring", "retiring", NULL },
	{ "bad_spec", "bad speculation", "bad spec.", NULL },
	{ "fe_bound", "frontend bound", "frontend", NULL },
	{ "be_bound", "backend bound", "backend", NULL },
	{ "heavy_ops", "heavy operations", "heavy ops", "light operations" },
	{ "br_mispredict", "branch mispredicts", "mispredict", "machine clears" },
	{ "fetch_latency", "fetch latency", "fetch lat.", "fetch bandwidth" },
	{ "mem_bound", "memory bound", "memory", "core bound" },
};

/* Properties in the first line of the ground truth. */
static const struct {
	const char *key, *title;
	bool bits;
} properties[] = {
	{ "version", "perfmon version", false },
	{ "width", "slots a cycle", false },
	{ "metrics", "fields of PERF_METRICS", false },
	{ "gp_counters", "general counters", false },
	{ "fixed_bitmap", "fixed counters", true },
	{ "gp_width", "bits of a general counter", false },
	{ "fixed_width", "bits of a fixed counter", false },
	{ "perf_capabilities", "PERF_CAPABILITIES", true },
	{ "save_global_ctrl", "VM exit saves GLOBAL_CTRL", false },
	{ "metrics_write", "write of PERF_METRICS", false },
	{ "metrics_reserved", "reserved bits of it", false },
	{ "metrics_rounding", "rounding of its fields", false },
};

enum group { MAIN, LEVEL2, REWRITTEN, OTHER };

struct row {
	int who;			/* 0 is the host */
	const char *shape, *workload, *why;
	int good, judged;		/* judged: its fractions, too */
	bool has_slots, has_parts, has_samples;
	unsigned int nr_parts;
	json_int_t slots, true_slots, samples, exits, writes;
	long part[NR_PARTS], true_part[NR_PARTS], difference;
};

struct excerpt {
	const char *title;
	char *line[MAX_EXCERPT];
	unsigned int count;
	bool cut, open;
};

/* What is taken from the lines of the host or of a guest. */
struct speaker {
	struct excerpt facts;
	bool in_events, after_dots, ready;
};

struct run {
	const char *dir;
	char *name, *machine, *cpus, *kernel, *description, *summary;
	bool series;
	struct row *rows;
	unsigned int nr_rows;
	json_t *properties;
	unsigned int audits;
	json_int_t switches, leaks, foreign_pmis;
	char *linux_version, *qemu, *perf;
	struct speaker host, guest;
	struct excerpt missing, human[4];
	unsigned int nr_human;
};

static struct run *runs;
static unsigned int nr_runs;
static const char *top = ".";
static char *bochs;
static char *costs, *picture;
static FILE *out;
static char *new_file;

/* Reading. */

static void *need(void *memory)
{
	if (!memory)
		errx(1, "out of memory");
	return memory;
}

__attribute__((format(printf, 1, 2)))
static char *text(const char *format, ...)
{
	va_list args;
	char *result;

	va_start(args, format);
	if (vasprintf(&result, format, args) < 0)
		errx(1, "out of memory");
	va_end(args);
	return result;
}

static FILE *open_file(const char *path)
{
	FILE *file = fopen(path, "r");

	if (!file)
		err(1, "cannot read %s", path);
	return file;
}

/* Without its end; NUL, which no text has, becomes another control character. */
static bool next_line(FILE *file, const char *path, char **line, size_t *size, bool *whole)
{
	ssize_t length = getline(line, size, file), i;

	if (length < 0) {
		if (ferror(file))
			errx(1, "cannot read %s", path);
		return false;
	}
	*whole = (*line)[length - 1] == '\n';
	for (i = 0; i < length; i++)
		if (!(*line)[i])
			(*line)[i] = '\1';
	(*line)[strcspn(*line, "\r\n")] = '\0';
	return true;
}

static void read_lines(const char *path, void (*take)(struct run *, char *, const char *, bool),
		       struct run *run)
{
	FILE *file = open_file(path);
	unsigned int number = 0;
	char *line = NULL;
	size_t size = 0;
	bool whole;

	while (next_line(file, path, &line, &size, &whole))
		take(run, line, text("%s:%u", path, ++number), whole);
	free(line);
	fclose(file);
}

static void take_result(struct run *run, char *line, const char *where, bool whole)
{
	const struct {
		const char *key;
		char **value;
	} keys[] = {
		{ "run=", &run->name },
		{ "machine=", &run->machine },
		{ "cpus=", &run->cpus },
		{ "kernel=", &run->kernel },
	};
	const char *value;
	unsigned int i;

	(void)where;
	(void)whole;
	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		value = log_after(line, keys[i].key);
		if (value && *value)
			*keys[i].value = need(strdup(value));
	}
}

static void read_result(struct run *run)
{
	const char *path = text("%s/result", run->dir), *lacks;

	read_lines(path, take_result, run);
	lacks = !run->name ? "run" : !run->machine ? "machine" : !run->cpus ? "cpus" :
		!run->kernel ? "kernel" : NULL;
	if (lacks)
		errx(1, "%s: no line %s=..., the run has not begun", path, lacks);
	if (strchr(run->machine, '/'))
		errx(1, "%s: %s is no name of a machine", path, run->machine);
	run->series = !strstr(run->kernel, "kernel-base/");
}

static json_t *parse(const char *line, const char *where)
{
	json_error_t error;
	json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, &error);

	if (!object)
		errx(1, "%s: not JSON: %s", where, error.text);
	if (!json_is_object(object))
		errx(1, "%s: not an object", where);
	return object;
}

static long get_part(const json_t *object, const char *key, const char *where)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    json_integer_value(value) > 100 * WHOLE)
		errx(1, "%s: %s is not a number of hundredths of a percent", where, key);
	return json_integer_value(value);
}

static void take_parts(struct row *row, const json_t *object, const char *where)
{
	const json_t *perf = json_object_get(object, "parts");
	const json_t *truth = json_object_get(object, "true_parts");
	unsigned int i;

	if (!perf && !truth)
		return;
	if (!row->has_slots)
		errx(1, "%s: parts, but no slots", where);
	row->has_parts = true;
	row->nr_parts = json_object_get(perf, parts[LEVEL1].key) ? NR_PARTS : LEVEL1;
	for (i = 0; i < row->nr_parts; i++) {
		row->part[i] = get_part(perf, parts[i].key, where);
		row->true_part[i] = get_part(truth, parts[i].key, where);
	}
	row->difference = get_part(object, "difference", where);
}

static void take_row(struct run *run, char *line, const char *where, bool whole)
{
	json_t *object = parse(line, where);
	json_error_t error;
	struct row *row;

	(void)whole;
	run->rows = need(reallocarray(run->rows, run->nr_rows + 1, sizeof(*run->rows)));
	row = &run->rows[run->nr_rows++];
	*row = (struct row){ .slots = -1, .true_slots = -1, .samples = -1, .judged = 1 };
	/* All of it stays: the strings belong to the object. */
	if (json_unpack_ex(object, &error, 0, "{si ss ss sb ss s?I s?I s?I s?I s?I s?b}", "who",
			   &row->who, "shape", &row->shape, "workload", &row->workload,
			   "good", &row->good, "why", &row->why, "slots", &row->slots,
			   "true_slots", &row->true_slots, "samples", &row->samples,
			   "exits", &row->exits, "writes", &row->writes, "judged", &row->judged))
		errx(1, "%s: %s", where, error.text);
	row->has_slots = row->slots >= 0;
	if ((row->true_slots >= 0) != row->has_slots)
		errx(1, "%s: needs slots and true_slots, or none of them", where);
	row->has_samples = row->samples >= 0;
	take_parts(row, object, where);
}

static void take_truth(struct run *run, char *line, const char *where, bool whole)
{
	const char *type;
	json_t *object;

	/* The last line of an emulator that was killed may be cut. */
	if (!whole) {
		object = json_loads(line, 0, NULL);
		if (!object)
			return;
	} else {
		object = parse(line, where);
	}
	type = json_string_value(json_object_get(object, "type")) ?: "";
	if (!strcmp(type, "machine") && !run->properties)
		run->properties = json_incref(object);
	if (!strcmp(type, "audit")) {
		run->audits++;
		run->switches += json_integer_value(json_object_get(object, "world_switches"));
		run->leaks += json_integer_value(json_object_get(object, "leaks"));
		run->foreign_pmis += json_integer_value(json_object_get(object, "foreign_pmis"));
	}
	json_decref(object);
}

/* Of the console. */

static void keep(struct excerpt *excerpt, const char *line)
{
	if (excerpt->count < MAX_EXCERPT)
		excerpt->line[excerpt->count++] = need(strdup(line));
	else
		excerpt->cut = true;
}

/* perf's lines of the boot: from "Performance Events:" to the last "... ". */
static bool is_events(struct speaker *speaker, const char *line)
{
	bool dots = log_after(line, "... ");

	if (log_after(line, "Performance Events:")) {
		speaker->in_events = true;
		speaker->after_dots = false;
	}
	if (dots)
		speaker->after_dots = true;
	else if (speaker->after_dots)
		speaker->in_events = false;
	return speaker->in_events;
}

static void take_fact(struct speaker *speaker, const char *line)
{
	/* A guest may boot again, for another plan. */
	if (speaker->ready)
		return;
	if (log_after(line, LOG_SAID "plan "))
		speaker->ready = true;
	if (is_events(speaker, line) || log_after(line, "Linux version ") ||
	    log_after(line, "smpboot: CPU0: ") || log_after(line, "Hypervisor detected: ") ||
	    log_after(line, LOG_SAID "fact "))
		keep(&speaker->facts, line);
}

/* What people see: the programs human/... of a plan. */
static void take_human(struct run *run, const char *line)
{
	const char *said = log_after(line, LOG_SAID), *output = log_after(line, LOG_OUTPUT), *at;
	struct excerpt *last = run->nr_human ? &run->human[run->nr_human - 1] : NULL;

	if (last && last->open && output)
		keep(last, output);
	if (!said)
		return;
	if (last && log_after(said, "end "))
		last->open = false;
	at = log_after(said, "begin human/");
	if (!at || run->nr_human == sizeof(run->human) / sizeof(run->human[0]))
		return;
	last = &run->human[run->nr_human++];
	last->title = need(strdup(at));
	last->open = true;
}

static void take_version(struct run *run, const char *output)
{
	if (!run->qemu && log_after(output, "QEMU emulator version "))
		run->qemu = need(strdup(log_after(output, "QEMU emulator version ")));
	if (!run->perf && log_after(output, "perf version "))
		run->perf = need(strdup(log_after(output, "perf version ")));
}

static void take_console(struct run *run, char *line, const char *where, bool whole)
{
	const char *said = log_text(line), *output = log_after(said, LOG_OUTPUT), *at;
	unsigned int guest = 0;
	int used = 0;

	(void)where;
	(void)whole;
	if (output && sscanf(output, "guest%u| %n", &guest, &used) == 1 && used) {
		said = log_text(output + used);
		output = log_after(said, LOG_OUTPUT);
		if (guest == 1) {
			take_fact(&run->guest, said);
			take_human(run, said);
		}
	} else {
		take_fact(&run->host, said);
		at = log_after(said, "Linux version ");
		if (at && !run->linux_version)
			run->linux_version = need(strdup(at));
	}
	if (output)
		take_version(run, output);
	if (output && strstr(output, ": missing: "))
		keep(&run->missing, output);
}

/* The comment at the head of a machine's description, after the license. */
static char *summarize(const char *description)
{
	char *copy = need(strdup(description)), *at = copy, *line, *summary = text("%s", "");

	while ((line = strsep(&at, "\n")) && line[0] == '#')
		if (!strstr(line, "SPDX"))
			summary = text("%s%s%s", summary, *summary ? " " : "",
				       line + 1 + strspn(line + 1, " "));
	free(copy);
	return summary;
}

static void take_description(struct run *run, char *line, const char *where, bool whole)
{
	(void)where;
	(void)whole;
	run->description = text("%s%s\n", run->description ?: "", line);
}

static void take_costs(struct run *run, char *line, const char *where, bool whole)
{
	(void)run;
	(void)where;
	(void)whole;
	costs = text("%s%s\n", costs ?: "", line);
}

static void take_picture(struct run *run, char *line, const char *where, bool whole)
{
	(void)run;
	(void)where;
	(void)whole;
	picture = text("%s%s\n", picture ?: "", line);
}

static void read_run(struct run *run)
{
	const char *path;

	read_result(run);
	read_lines(text("%s/console.log", run->dir), take_console, run);
	if (!run->linux_version)
		errx(1, "%s/console.log: no line \"Linux version\": did the host boot?", run->dir);
	path = text("%s/truth.jsonl", run->dir);
	read_lines(path, take_truth, run);
	if (!run->properties)
		errx(1, "%s: no line of type \"machine\": did the emulator start?", path);
	path = text("%s/topdown.jsonl", run->dir);
	read_lines(path, take_row, run);
	if (!run->nr_rows)
		errx(1, "%s: empty, no workload was measured: did a guest run?", path);
	path = text("%s/lab/machine/%s", top, run->machine);
	read_lines(path, take_description, run);
	run->summary = summarize(run->description ?: "");
}

static void take_bochs(struct run *run, char *line, const char *where, bool whole)
{
	char version[64];

	(void)run;
	(void)where;
	(void)whole;
	if (!bochs && sscanf(line, "source bochs %63s", version) == 1)
		bochs = need(strdup(version));
}

static void read_bochs(void)
{
	const char *path = text("%s/base/bochs", top);

	read_lines(path, take_bochs, NULL);
	if (!bochs)
		errx(1, "%s: no line \"source bochs VERSION\"", path);
}

/* Writing. */

/* How many bytes a character of UTF-8 at @at has, 0 if it is none. */
static unsigned int utf8_length(const unsigned char *at)
{
	uint32_t code;
	unsigned int length, i;

	if (*at < 0x80)
		return 1;
	length = *at >= 0xf0 ? 4 : *at >= 0xe0 ? 3 : 2;
	if (*at < 0xc2 || *at > 0xf4)
		return 0;
	code = *at & (0x7f >> length);
	for (i = 1; i < length; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (at[i] & 0x3f);
	}
	/* Too long, half of a pair, or no character in XML. */
	if ((length == 3 && code < 0x800) || (length == 4 && code < 0x10000) ||
	    (code >= 0xd800 && code < 0xe000) || code == 0xfffe || code == 0xffff ||
	    code > 0x10ffff)
		return 0;
	return length;
}

/* @string as text of HTML and of an attribute, whatever is in it. */
static const char *e(const char *string)
{
	const unsigned char *at = (const unsigned char *)string;
	unsigned int length;
	char *escaped = NULL;
	size_t size;
	FILE *stream = need(open_memstream(&escaped, &size));

	for (; *at; at += length) {
		length = utf8_length(at) ?: 1;
		if (*at == '<')
			fputs("&lt;", stream);
		else if (*at == '>')
			fputs("&gt;", stream);
		else if (*at == '&')
			fputs("&amp;", stream);
		else if (*at == '"')
			fputs("&quot;", stream);
		else if (!utf8_length(at) || *at == 0x7f || (*at < ' ' && *at != '\t' && *at != '\n'))
			fputs("\xef\xbf\xbd", stream);	/* replacement character */
		else
			fwrite(at, 1, length, stream);
	}
	if (fclose(stream))
		errx(1, "out of memory");
	return need(escaped);
}

__attribute__((format(printf, 1, 2)))
static void put(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(out, format, args);
	va_end(args);
}

/* 1234567 as 1,234,567 */
static const char *number(json_int_t value)
{
	char *digits = text("%" JSON_INTEGER_FORMAT, value), *at = digits;
	char *result = need(malloc(2 * strlen(digits) + 1)), *end = result;

	for (; *at; at++) {
		*end++ = *at;
		if (at[1] && isdigit((unsigned char)*at) && strlen(at + 1) % 3 == 0)
			*end++ = ',';
	}
	*end = '\0';
	return result;
}

static const char *points(long hundredths)
{
	return text("%ld.%02ld", hundredths / 100, hundredths % 100);
}

static const char *plural(json_int_t count, const char *one)
{
	bool hiss = strlen(one) > 2 && !strcmp(one + strlen(one) - 2, "ch");

	return text("%s %s%s", number(count), one, count == 1 ? "" : hiss ? "es" : "s");
}

static enum group group_of(const struct row *row)
{
	if (!row->has_parts)
		return OTHER;
	if (!row->judged)
		return REWRITTEN;
	return row->nr_parts == NR_PARTS ? LEVEL2 : MAIN;
}

/* perf scales these: they are not the true ones. */
static bool is_scaled(const struct row *row)
{
	return !strcmp(row->shape, "multiplex");
}

static const char *row_title(const struct row *row)
{
	bool plain = !strcmp(row->shape, "stat") || !strcmp(row->shape, "level2");

	return text("%s%s%s%s", plain ? "" : row->shape, plain ? "" : "/", row->workload,
		    !row->who ? " (host)" : row->who > 1 ? text(" (guest %d)", row->who) : "");
}

/* "Ice Lake: perfmon 5, ..." has the name before the colon, what it is after it. */
static const char *machine_title(const struct run *run)
{
	size_t length = strcspn(run->summary, ":");

	return run->summary[length] ? text("%.*s", (int)length, run->summary) : run->machine;
}

static const char *machine_summary(const struct run *run)
{
	const char *at = strstr(run->summary, ": ");
	char *summary = text("%s", at ? at + 2 : run->summary);

	*summary = toupper((unsigned char)*summary);
	return summary;
}

static const char *run_id(const struct run *run)
{
	return text("run%u", (unsigned int)(run - runs) + 1);
}

static const char style[] =
	":root{color-scheme:light dark;--paper:#fff;--tint:#f5f6f8;--ink:#1c2026;--soft:#565f6a;"
	"--line:#d8dce1;--edge:#8d959f;--p0:#2f6db0;--p1:#bf4a1f;--p2:#ecb94f;--p3:#8fa3b5;"
	"--on0:#fff;--on1:#fff;--on2:#1c2026;--on3:#1c2026;--bad:#a8201a;--badtint:#fdf0ee;"
	"--note:#fdf6e3;--noteline:#d9b44a}\n"
	"@media (prefers-color-scheme:dark){:root{--paper:#15181c;--tint:#1e2227;--ink:#e6e9ec;"
	"--soft:#a3abb4;--line:#343a41;--edge:#7b848e;--p0:#3878c0;--p1:#c75228;--p2:#e9b64c;"
	"--p3:#93a5b6;--bad:#ff9a8f;--badtint:#341d1b;--note:#2b2617;--noteline:#8a7433}}\n"
	"@media print{:root{color-scheme:light;--paper:#fff;--tint:#f5f6f8;--ink:#000;"
	"--soft:#444;--line:#ccc;--edge:#777;--p0:#2f6db0;--p1:#bf4a1f;--p2:#ecb94f;--p3:#8fa3b5;"
	"--bad:#a8201a;--badtint:#fff;--note:#fff;--noteline:#777}}\n"
	"*{box-sizing:border-box}\n"
	"html{-webkit-text-size-adjust:100%;text-size-adjust:100%}\n"
	"body{margin:0;background:var(--paper);color:var(--ink);"
	"font:16px/1.5 system-ui,-apple-system,\"Segoe UI\",\"Noto Sans\",\"DejaVu Sans\",Arial,sans-serif;"
	"font-variant-numeric:tabular-nums}\n"
	"main,header,footer{max-width:68rem;margin:0 auto;padding:0 1.5rem}\n"
	"header{padding-top:2.5rem}\n"
	"h1{font-size:2.1rem;line-height:1.15;margin:0 0 .6rem;letter-spacing:-.015em}\n"
	"h2{font-size:1.45rem;line-height:1.25;margin:3.25rem 0 .3rem;padding-top:1.1rem;"
	"border-top:2px solid var(--ink)}\n"
	"h3{font-size:1.08rem;margin:2.2rem 0 .3rem}\n"
	"p{margin:.4rem 0 .9rem;max-width:46rem}\n"
	"a{color:inherit;text-decoration-color:var(--edge);text-underline-offset:.2em}\n"
	"a:focus-visible,[tabindex]:focus-visible,summary:focus-visible{outline:3px solid var(--p0);"
	"outline-offset:2px}\n"
	".lead{font-size:1.1rem;color:var(--soft)}\n"
	".soft{color:var(--soft)}\n"
	"code,pre{font-family:ui-monospace,\"DejaVu Sans Mono\",Menlo,Consolas,monospace;font-size:.84em}\n"
	".label{border-left:5px solid var(--noteline);background:var(--note);padding:.7rem 1rem;"
	"max-width:none;margin:1.2rem 0}\n"
	".cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(12.5rem,1fr));gap:1rem;"
	"margin:1.4rem 0 1rem;padding:0;list-style:none}\n"
	".cards li{border:1px solid var(--line);background:var(--tint);padding:.9rem 1.1rem 1rem}\n"
	".cards b{display:block;font-size:1.9rem;line-height:1.2;font-weight:650;"
	"letter-spacing:-.02em}\n"
	".cards span{color:var(--soft);font-size:.92rem;line-height:1.4;display:block}\n"
	".cards .wrong{border-color:var(--bad);background:var(--badtint)}\n"
	".last code{font-size:.95em;font-weight:600;overflow-wrap:anywhere}\n"
	"nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.4rem;padding:0;margin:1.2rem 0 0;"
	"list-style:none}\n"
	"figure{margin:1.1rem 0 1.4rem}\n"
	"figcaption{color:var(--soft);font-size:.92rem;margin-bottom:.7rem;max-width:46rem}\n"
	".legend{display:flex;flex-wrap:wrap;gap:.3rem 1.3rem;list-style:none;padding:0;"
	"margin:0 0 .7rem;font-size:.92rem}\n"
	".legend li{display:flex;align-items:center;gap:.45rem}\n"
	".legend svg{width:15px;height:15px;flex:none}\n"
	".row,.axis{display:grid;grid-template-columns:10rem 2.7rem minmax(0,1fr) 4.6rem;"
	"column-gap:.6rem;align-items:start}\n"
	".row{padding:.55rem 0;border-top:1px solid var(--line)}\n"
	".row:last-child{border-bottom:1px solid var(--line)}\n"
	".name{font-weight:600;line-height:1.3;overflow-wrap:anywhere}\n"
	".name small{display:block;font-weight:400;font-size:.8rem;color:var(--soft);margin-top:.1rem}\n"
	".sides{font-size:.8rem;color:var(--soft);text-align:right;line-height:22px}\n"
	".sides span{display:block;margin-bottom:3px}\n"
	".row .diff{text-align:right;font-size:.8rem;color:var(--soft);line-height:1.3}\n"
	".diff b{display:block;font-size:1.15rem;color:var(--ink)}\n"
	".why{grid-column:1/-1;margin:.4rem 0 0;padding:.3rem .6rem;max-width:none;font-size:.9rem;"
	"border-left:4px solid var(--bad);background:var(--badtint);color:var(--bad);"
	"overflow-wrap:anywhere}\n"
	".why.inexact{border-color:var(--noteline);background:var(--note);color:var(--ink)}\n"
	".bad .diff b{color:var(--bad)}\n"
	"svg{display:block;width:100%;overflow:hidden}\n"
	"svg text{font-size:11.5px;font-variant-numeric:tabular-nums}\n"
	".axis svg{overflow:visible}.axis text{fill:var(--soft)}.axis line{stroke:var(--edge)}\n"
	".p0,.p4{fill:var(--p0)}.p1,.p5{fill:var(--p1)}.p2,.p6{fill:var(--p2)}.p3,.p7{fill:var(--p3)}\n"
	".rest{fill-opacity:.42}\n"
	".cell{stroke:var(--paper);stroke-width:1.5px}\n"
	".frame{fill:none;stroke:var(--edge);stroke-width:1px}\n"
	".t0,.t4{fill:var(--on0)}.t1,.t5{fill:var(--on1)}.t2,.t6{fill:var(--on2)}.t3,.t7{fill:var(--on3)}\n"
	".trest{fill:var(--ink)}\n"
	".scroll{overflow-x:auto;margin:.4rem 0 1rem}\n"
	"table{border-collapse:collapse;width:100%;font-size:.9rem}\n"
	"caption{text-align:left;color:var(--soft);font-size:.92rem;padding:.6rem 0 .35rem}\n"
	"th,td{padding:.22rem .55rem;text-align:right;vertical-align:baseline;font-weight:400}\n"
	"thead th{border-bottom:1.5px solid var(--ink);font-weight:600;vertical-align:bottom;"
	"line-height:1.25}\n"
	"tbody tr:first-child th,tbody tr:first-child td{border-top:1px solid var(--line)}\n"
	"th[scope=rowgroup],.texts td,.texts th{text-align:left}\n"
	"th:first-child{padding-left:0}tbody th[scope=row]{padding-left:.55rem}"
	".figures th:last-child,td[rowspan]:last-child{padding-right:0}\n"
	"th[scope=rowgroup]{font-weight:600}\n"
	"tbody th[scope=row]{color:var(--soft)}\n"
	"td.wrong{color:var(--bad);font-weight:600}\n"
	".texts td{overflow-wrap:anywhere}\n"
	".texts th:first-child{width:13rem}\n"
	".texts tr+tr th,.texts tr+tr td{border-top:1px solid var(--line)}\n"
	".two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));"
	"gap:0 2.5rem}\n"
	"details{margin:.6rem 0}\n"
	"summary{cursor:pointer;font-weight:600;font-size:.95rem}\n"
	"pre{background:var(--tint);border:1px solid var(--line);padding:.7rem .9rem;margin:.4rem 0;"
	"overflow-x:auto;line-height:1.42;tab-size:8}pre.wrap{white-space:pre-wrap}\n"
	"footer{color:var(--soft);font-size:.88rem;padding-top:2.5rem;padding-bottom:3rem}\n"
	"@media (max-width:44rem){body{font-size:15px}main,header,footer{padding-left:.8rem;"
	"padding-right:.8rem}header{padding-top:1.4rem}h1{font-size:1.7rem}\n"
	".row,.axis{grid-template-columns:2.3rem minmax(0,1fr) auto}\n"
	".name{grid-column:1/3;grid-row:1;margin-bottom:.3rem}.name br{display:none}.row .diff{grid-column:3;grid-row:1}\n"
	".sides{grid-column:1;grid-row:2}.row svg{grid-column:2/4;grid-row:2}\n"
	".axis svg{grid-column:2/4}.axis span{display:none}\n"
	"table{font-size:.74rem}th,td{padding:.22rem .18rem}.texts{font-size:.84rem}\n"
	".texts th:first-child{width:8rem}.figures thead th{font-weight:400;font-size:.68rem}\n"
	".figures tbody th[scope=rowgroup]{overflow-wrap:anywhere}\n"
	".cards{grid-template-columns:1fr;gap:.6rem}pre{font-size:.72em;padding:.5rem .6rem}}\n"
	"@media (max-width:34rem){.figures .slots,.figures .diff{display:none}}\n"	/* said with the bars */
	"@media print{body{font-size:10.5pt}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}\n"
	"main,header,footer{max-width:none;padding:0}nav{display:none}\n"
	".row,.cards li,tbody,.label{break-inside:avoid}h2,h3,figcaption,caption,summary{break-after:avoid}\n"
	"pre{white-space:pre-wrap;overflow-wrap:anywhere}.scroll{overflow:visible}}\n";

/* The pictures. */

static void put_cell(unsigned int part, bool rest, const char *title, long from, long width,
		     unsigned int y)
{
	if (from >= WHOLE || width <= 0)
		return;
	put("<rect class=\"cell p%u%s\" x=\"%s%%\" y=\"%u\" width=\"%s%%\" height=\"%u\">"
	    "<title>%s %s %%</title></rect>", part, rest ? " rest" : "", points(from), y,
	    points(width), BAR, title, points(width));
	if (width >= LABEL_ROOM)
		put("<text class=\"%s\" x=\"%s%%\" y=\"%u\" text-anchor=\"middle\">%ld.%ld</text>",
		    rest ? "trest" : text("t%u", part), points(from + width / 2), y + 15,
		    (width + 5) / 100, (width + 5) / 10 % 10);
}

/* One after the other, as wide as the parts are; level 2 splits those of level 1. */
static void put_bar(const long *part, bool level2, unsigned int y)
{
	long at = 0, inner;
	unsigned int i;

	for (i = 0; i < LEVEL1; i++) {
		/* Rounded apart, so the inner one can be the larger one. */
		inner = !level2 ? 0 : part[LEVEL1 + i] < part[i] ? part[LEVEL1 + i] : part[i];
		if (level2) {
			put_cell(LEVEL1 + i, false, parts[LEVEL1 + i].title, at, inner, y);
			put_cell(i, true, parts[LEVEL1 + i].rest, at + inner, part[i] - inner, y);
		} else {
			put_cell(i, false, parts[i].title, at, part[i], y);
		}
		at += part[i];
	}
	put("<rect class=\"frame\" x=\"0\" y=\"%u\" width=\"100%%\" height=\"%u\"/>\n", y, BAR);
}

static const char *spell(const long *part, unsigned int n)
{
	const char *spelt = "";
	unsigned int i;

	for (i = 0; i < n; i++)
		spelt = text("%s%s%s %s %%", spelt, i ? ", " : "", parts[i].title, points(part[i]));
	return spelt;
}

static const char *slots_note(const struct row *row)
{
	if (is_scaled(row))
		return text("%s slots, <br/>scaled by perf", number(row->slots));
	if (row->slots == row->true_slots)
		return text("%s slots, <br/>as in truth", number(row->slots));
	return text("%s slots, <br/>in truth %s", number(row->slots), number(row->true_slots));
}

static void put_row(const struct run *run, const struct row *row, bool level2)
{
	const char *id = text("%s-%u", run_id(run), (unsigned int)(row - run->rows) + 1);
	unsigned int n = level2 ? NR_PARTS : LEVEL1;

	put("<div class=\"row%s\">\n<div class=\"name\">%s<small>%s</small></div>\n",
	    row->good ? "" : " bad", e(row_title(row)), slots_note(row));
	put("<div class=\"sides\" aria-hidden=\"true\"><span>perf</span><span>truth</span></div>\n");
	put("<svg class=\"pair\" height=\"%u\" role=\"img\" aria-labelledby=\"%s-t %s-d\">\n",
	    BAR_STEP + BAR, id, id);
	put("<title id=\"%s-t\">%s: perf beside the truth</title>\n", id, e(row_title(row)));
	put("<desc id=\"%s-d\">By perf: %s. In truth: %s.</desc>\n", id,
	    spell(row->part, n), spell(row->true_part, n));
	put_bar(row->part, level2, 0);
	put_bar(row->true_part, level2, BAR_STEP);
	put("</svg>\n<div class=\"diff\"><b>%s</b>points</div>\n", points(row->difference));
	if (!row->good)
		put("<p class=\"why\">&#x2717; Differs: %s</p>\n", e(row->why));
	else if (group_of(row) == REWRITTEN)
		put("<p class=\"why inexact\">Fractions not judged: %s of PERF_METRICS by the host"
		    " between two reads cost precision of the 8-bit fractions.</p>\n",
		    plural(row->writes, "write"));
	put("</div>\n");
}

static void put_axis(void)
{
	unsigned int i;

	put("<div class=\"axis\" aria-hidden=\"true\"><span></span><span></span><svg height=\"22\">");
	for (i = 0; i <= 100; i += 25)
		put("<line x1=\"%u%%\" x2=\"%u%%\" y1=\"17\" y2=\"22\"/>"
		    "<text x=\"%u%%\" y=\"13\" text-anchor=\"%s\">%u%s</text>", i, i, i,
		    !i ? "start" : i == 100 ? "end" : "middle", i, i ? "" : " % of slots");
	put("</svg><span></span></div>\n");
}

static void put_key(const char *class, const char *title)
{
	put("<li><svg aria-hidden=\"true\"><rect class=\"%s\" width=\"15\" height=\"15\"/>"
	    "<rect class=\"frame\" width=\"15\" height=\"15\"/></svg>%s</li>\n", class, title);
}

static void put_legend(bool level2)
{
	unsigned int i;

	put("<ul class=\"legend\">\n");
	for (i = 0; i < LEVEL1; i++) {
		if (level2) {
			put_key(text("p%u", LEVEL1 + i), parts[LEVEL1 + i].title);
			put_key(text("p%u rest", i), parts[LEVEL1 + i].rest);
		} else {
			put_key(text("p%u", i), parts[i].title);
		}
	}
	put("</ul>\n");
}

/* The numbers. */

static void put_numbers(const struct row *row, const char *side, json_int_t slots,
			const long *part, unsigned int first)
{
	bool wrong = !is_scaled(row) && row->slots != row->true_slots;
	unsigned int i;

	put("<th scope=\"row\">%s</th><td class=\"slots%s\">%s</td>", side, wrong ? " wrong" : "",
	    number(slots));
	for (i = first; i < first + LEVEL1; i++)
		put("<td>%s</td>", points(part[i]));
}

static void put_table(const struct run *run, enum group group, unsigned int first)
{
	unsigned int i;

	put("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"%s, the numbers\">\n"
	    "<table class=\"figures\">\n<caption>%s, in percent of the slots</caption>\n"
	    "<thead><tr><th scope=\"col\" style=\"text-align:left\">workload</th><th></th>"
	    "<th scope=\"col\" class=\"slots\">slots</th>", e(machine_title(run)),
	    first ? "Level 2" : group == LEVEL2 ? "Level 1 of the same runs" : "The numbers");
	for (i = first; i < first + LEVEL1; i++)
		put("<th scope=\"col\">%s</th>", parts[i].head);
	put("<th scope=\"col\">exits</th><th scope=\"col\" class=\"diff\">diff.</th></tr></thead>\n");
	for (i = 0; i < run->nr_rows; i++) {
		const struct row *row = &run->rows[i];

		if (group_of(row) != group)
			continue;
		put("<tbody><tr><th scope=\"rowgroup\" rowspan=\"2\">%s</th>", e(row_title(row)));
		put_numbers(row, "perf", row->slots, row->part, first);
		put("<td rowspan=\"2\">%s</td><td rowspan=\"2\" class=\"diff%s\">%s</td></tr>\n<tr>",
		    number(row->exits), row->good ? "" : " wrong", points(row->difference));
		put_numbers(row, "truth", row->true_slots, row->true_part, first);
		put("</tr></tbody>\n");
	}
	put("</table>\n</div>\n");
}

static unsigned int count_group(const struct run *run, enum group group)
{
	unsigned int i, n = 0;

	for (i = 0; i < run->nr_rows; i++)
		n += group_of(&run->rows[i]) == group;
	return n;
}

static void put_figure(const struct run *run, enum group group, const char *caption)
{
	unsigned int i;

	put("<figure>\n<figcaption>%s</figcaption>\n", caption);
	put_legend(group == LEVEL2);
	put_axis();
	for (i = 0; i < run->nr_rows; i++)
		if (group_of(&run->rows[i]) == group)
			put_row(run, &run->rows[i], group == LEVEL2);
	put("</figure>\n");
	put_table(run, group, 0);
	if (group == LEVEL2)
		put_table(run, group, LEVEL1);
}

/* Workloads without parts: what perf said, or how many samples it took. */
static void put_messages(const struct run *run, const char *caption)
{
	unsigned int i;

	put("<table class=\"texts\">\n<caption>%s</caption>\n<thead><tr><th scope=\"col\">workload</th>"
	    "<th scope=\"col\">perf says</th></tr></thead>\n<tbody>\n", caption);
	for (i = 0; i < run->nr_rows; i++) {
		const struct row *row = &run->rows[i];

		if (group_of(row) != OTHER)
			continue;
		put("<tr><th scope=\"row\">%s</th><td>", e(row_title(row)));
		if (row->has_samples)
			put("%s of %s slots, in truth %s%s", plural(row->samples, "sample"),
			    number(row->slots), number(row->true_slots), *row->why ? "; " : "");
		if (*row->why)
			put("<code>%s</code>", e(row->why));
		put("</td></tr>\n");
	}
	put("</tbody>\n</table>\n");
}

static void put_groups(const struct run *run)
{
	if (count_group(run, MAIN))
		put_figure(run, MAIN, "The upper bar of each pair is what <code>perf stat</code> says"
			   " in the guest, the lower one what the emulator knows. On the right: the"
			   " largest difference of the four parts.");
	if (count_group(run, LEVEL2)) {
		put("<h3>Level 2</h3>\n");
		put_figure(run, LEVEL2, "Each part of level 1 is split in two: a field of"
			   " PERF_METRICS, in full colour, and the rest, pale. The difference is the"
			   " largest one of all eight fields.");
	}
	if (count_group(run, REWRITTEN)) {
		put("<h3>With many writes of PERF_METRICS by the host</h3>\n"
		    "<p>KVM can save and restore 8 bits of each fraction. What the hardware knows"
		    " beyond that is rounded whenever others use the registers and KVM has to write"
		    " them back, until the next read by the guest resets it. Slots are"
		    " compared exactly here, too; fractions are not judged. See <em>Limits</em> in"
		    " <code>Documentation/virt/kvm/x86/topdown.rst</code>.</p>\n");
		put_figure(run, REWRITTEN, "The upper bar is what perf says, the lower one the truth.");
	}
}

/* The sections. */

static void put_machine(const struct run *run)
{
	put("<section id=\"%s\">\n<h2>%s</h2>\n<p class=\"soft\">%s</p>\n", run_id(run),
	    e(machine_title(run)), e(machine_summary(run)));
	put_groups(run);
	if (count_group(run, OTHER)) {
		put("<h3>Without parts</h3>\n");
		put_messages(run, "Samples, and workloads for which perf printed no numbers");
	}
	put("</section>\n");
}

static void put_pre(const char *label, const struct excerpt *excerpt, const char *class)
{
	unsigned int i, end = excerpt->count;
	bool seen = false;

	put("<pre tabindex=\"0\" role=\"region\" aria-label=\"%s\"%s>", e(label), class);
	/* perf begins and ends with empty lines. */
	while (end && !excerpt->line[end - 1][strspn(excerpt->line[end - 1], " ")])
		end--;
	for (i = 0; i < end; i++)
		if (seen || excerpt->line[i][strspn(excerpt->line[i], " ")]) {
			put("%s\n", e(excerpt->line[i]));
			seen = true;
		}
	if (excerpt->cut)
		put("(more lines are in the log)\n");
	if (excerpt->open)
		put("(the log ends here)\n");
	put("</pre>\n");
}

static void put_base(const struct run *run)
{
	put("<section id=\"%s\">\n<h2>Without the series: %s</h2>\n"
	    "<p>The same machine, guest and commands on a kernel without the series. This is what a"
	    " user gets there.</p>\n", run_id(run), e(machine_title(run)));
	put_groups(run);
	if (count_group(run, OTHER))
		put_messages(run, "What <code>perf stat</code> says in the guest");
	if (run->missing.count) {
		put("<h3>What the host lacks</h3>\n");
		put_pre("What the host lacks", &run->missing, " class=\"wrap\"");
	}
	put("</section>\n");
}

/* "7.3.4 (topdown@lab) (gcc (Debian 12.2.0-14) 12.2.0, GNU ld ...) #4 SMP ..." */
static const char *compiler(const char *version)
{
	const char *at = strstr(version, ") ("), *end = at ? strstr(at, ", ") : NULL;

	if (!at || !end)
		return version;
	return text("%.*s", (int)(end - at - 3), at + 3);
}

static void put_value(const char *title, const char *value)
{
	put("<tr><th scope=\"row\">%s</th><td>%s</td></tr>\n", title, e(value));
}

static void put_audit(const struct run *run)
{
	if (!run->audits) {
		put_value("audit", "none: the emulator did not end by itself");
		return;
	}
	put_value("world switches", number(run->switches));
	put_value("leaks", number(run->leaks));
	put_value("PMIs of others", number(run->foreign_pmis));
}

static void put_properties(const struct run *run)
{
	const json_t *value;
	unsigned int i;

	put("<table class=\"texts\">\n<caption>The machine, as the model says</caption>\n<tbody>\n");
	for (i = 0; i < sizeof(properties) / sizeof(properties[0]); i++) {
		value = json_object_get(run->properties, properties[i].key);
		if (json_is_string(value))
			put_value(properties[i].title, json_string_value(value));
		else if (json_is_integer(value))
			put_value(properties[i].title,
				  text(properties[i].bits ? "%#" PRIx64 : "%" PRIi64,
				       (int64_t)json_integer_value(value)));
	}
	put("</tbody>\n</table>\n");
}

static void put_versions(const struct run *run)
{
	put("<h3>%s: %s</h3>\n<div class=\"two\">\n<div>\n<table class=\"texts\">\n"
	    "<caption>The run</caption>\n<tbody>\n", e(machine_title(run)),
	    run->series ? "with the series" : "without the series");
	put_value("machine", run->machine);
	put_value("CPUs", run->cpus);
	put_value("Linux", text("%.*s, %s the series", (int)strcspn(run->linux_version, " "),
				run->linux_version, run->series ? "with" : "without"));
	put_value("compiler", compiler(run->linux_version));
	if (run->qemu)
		put_value("QEMU", run->qemu);
	if (run->perf)
		put_value("perf", run->perf);
	put_value("Bochs", bochs);
	put_audit(run);
	put("</tbody>\n</table>\n</div>\n<div>\n");
	put_properties(run);
	put("</div>\n</div>\n");
}

static void put_descriptions(void)
{
	unsigned int i, j;

	for (i = 0; i < nr_runs; i++) {
		for (j = 0; j < i && strcmp(runs[j].machine, runs[i].machine); j++)
			;
		if (j == i)
			put("<details open=\"open\"><summary><code>lab/machine/%s</code></summary>\n"
			    "<pre tabindex=\"0\" role=\"region\" aria-label=\"lab/machine/%s\">%s</pre>"
			    "</details>\n", e(runs[i].machine), e(runs[i].machine),
			    e(runs[i].description));
	}
}

static void put_excerpt(const char *title, const struct excerpt *excerpt)
{
	if (!excerpt->count)
		return;
	put("<details open=\"open\"><summary>%s</summary>\n", e(title));
	put_pre(title, excerpt, "");
	put("</details>\n");
}

static void put_console(const struct run *run)
{
	unsigned int i;

	put("<h3>%s: %s</h3>\n", e(machine_title(run)),
	    run->series ? "with the series" : "without the series");
	put_excerpt("The host", &run->host.facts);
	put_excerpt("The guest", &run->guest.facts);
	for (i = 0; i < run->nr_human; i++)
		put_excerpt(text("perf stat --topdown in the guest: %s", run->human[i].title),
			    &run->human[i]);
}

/* What all runs with the series say together. */
struct verdict {
	unsigned int compared, failed, rows, exact, with_slots, audits, audited;
	long worst;
	json_int_t switches, leaks;
};

static void judge(const struct run *run, struct verdict *verdict)
{
	unsigned int i;

	for (i = 0; i < run->nr_rows; i++) {
		const struct row *row = &run->rows[i];

		verdict->rows++;
		verdict->failed += !row->good;
		if (row->has_slots && !row->has_samples && !is_scaled(row)) {
			verdict->with_slots++;
			verdict->exact += row->slots == row->true_slots;
		}
		/* As lab/judge/table does. */
		if (!row->has_parts || group_of(row) == REWRITTEN)
			continue;
		verdict->compared++;
		if (row->difference > verdict->worst)
			verdict->worst = row->difference;
	}
	verdict->audits++;
	verdict->audited += run->audits > 0;
	verdict->switches += run->switches;
	verdict->leaks += run->leaks + run->foreign_pmis;
}

static void put_card(bool wrong, const char *value, const char *meaning)
{
	put("<li%s><b>%s</b><span>%s</span></li>\n", wrong ? " class=\"wrong\"" : "", value, meaning);
}

static void put_cards(const struct verdict *verdict)
{
	put("<ul class=\"cards\">\n");
	if (verdict->compared)
		put_card(false, text("%s points", points(verdict->worst)),
			 text("largest difference of a part between perf in the guest and the truth, over"
			      " %s. One step of the 8-bit fractions is 0.39.",
			      plural(verdict->compared, "workload")));
	else
		put_card(true, "no numbers", "no workload was compared with the truth");
	put_card(verdict->exact != verdict->with_slots,
		 text("%u of %u", verdict->exact, verdict->with_slots),
		 "slot counts in the guest equal the truth, to the last slot");
	if (verdict->audited == verdict->audits && verdict->audits)
		put_card(verdict->leaks, plural(verdict->leaks, "leak"),
			 text("in %s between the host and its guests: no reader of a counter saw"
			      " another one's work", plural(verdict->switches, "world switch")));
	else
		put_card(true, "no audit", "an emulator did not end by itself and told no leaks");
	put("</ul>\n");
	if (verdict->failed)
		put("<p class=\"why\">&#x2717; %u of %s did not give the true numbers; why is said"
		    " beside each.</p>\n", verdict->failed, plural(verdict->rows, "measurement"));
	put("<p class=\"last\"><code>");
	if (verdict->compared)
		put("topdown: largest difference %s points over %u workload%s", points(verdict->worst),
		    verdict->compared, verdict->compared == 1 ? "" : "s");
	else
		put("topdown: nothing to compare");
	put("</code></p>\n");
}

static void put_header(void)
{
	struct verdict verdict = { 0 };
	unsigned int i;

	for (i = 0; i < nr_runs; i++)
		if (runs[i].series)
			judge(&runs[i], &verdict);
	put("<header>\n<h1>Topdown in KVM guests</h1>\n"
	    "<p class=\"lead\">What <code>perf stat --topdown</code> says in a guest of a Linux host"
	    " with this patch series, beside the ground truth.</p>\n"
	    "<p class=\"label\" role=\"note\"><strong>Emulated host.</strong> The CPU is emulated by"
	    " Bochs with a model of the PMU; Linux, KVM, QEMU and perf on it are real. The numbers show"
	    " that counting, saving and restoring are right. They are not those of silicon.</p>\n");
	put_cards(&verdict);
	put("<nav aria-label=\"Contents\"><ul>\n");
	for (i = 0; i < nr_runs; i++)
		put("<li><a href=\"#%s\">%s%s</a></li>\n", run_id(&runs[i]),
		    runs[i].series ? "" : "Without the series: ", e(machine_title(&runs[i])));
	if (costs)
		put("<li><a href=\"#costs\">What a world switch costs</a></li>\n");
	if (picture)
		put("<li><a href=\"#precision\">How precise fractions stay</a></li>\n");
	put("<li><a href=\"#versions\">Versions and machines</a></li>\n"
	    "<li><a href=\"#console\">Console</a></li>\n</ul></nav>\n</header>\n");
}

static void put_costs(void)
{
	put("<section id=\"costs\">\n<h2>What a world switch costs</h2>\n"
	    "<p>How often KVM accesses registers of the PMU, counted by the emulator: what <code>make"
	    " bench</code> printed. The cases, kernels, limits and weights are in"
	    " <code>lab/bench</code>.</p>\n"
	    "<pre tabindex=\"0\" role=\"region\" aria-label=\"What a world switch costs\">%s</pre>\n"
	    "</section>\n", e(costs));
}

static void put_precision(void)
{
	put("<section id=\"precision\">\n<h2>How precise fractions stay</h2>\n"
	    "<p>PERF_METRICS has 8 bits for each fraction, so what is behind them gets lost where KVM"
	    " writes the register. What <code>make precision</code> measured; all numbers are in"
	    " <code>build/bench/precision.tsv</code>.</p>\n<div class=\"scroll\">%s</div>\n</section>\n",
	    picture);
}

static void put_page(void)
{
	unsigned int i;

	put("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
	    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
	    "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
	    "<title>Topdown in KVM guests: report of the lab</title>\n<style>\n%s</style>\n"
	    "</head>\n<body>\n", style);
	put_header();
	put("<main>\n");
	for (i = 0; i < nr_runs; i++)
		if (runs[i].series)
			put_machine(&runs[i]);
	for (i = 0; i < nr_runs; i++)
		if (!runs[i].series)
			put_base(&runs[i]);
	if (costs)
		put_costs();
	if (picture)
		put_precision();
	put("<section id=\"versions\">\n<h2>Versions and machines</h2>\n");
	for (i = 0; i < nr_runs; i++)
		put_versions(&runs[i]);
	put("<h3>Descriptions of the machines</h3>\n");
	put_descriptions();
	put("</section>\n<section id=\"console\">\n<h2>Console</h2>\n"
	    "<p>Excerpts, without time stamps.</p>\n");
	for (i = 0; i < nr_runs; i++)
		put_console(&runs[i]);
	put("</section>\n</main>\n<footer>Written by <code>lab/run/report</code>. It has no date: the same"
	    " runs give the same page.</footer>\n</body>\n</html>\n");
}

static void remove_new(void)
{
	if (new_file)
		unlink(new_file);
}

static void write_page(const char *path)
{
	char *name = text("%s.new", path);

	out = fopen(name, "w");
	if (!out)
		err(1, "cannot write %s", name);
	new_file = name;
	atexit(remove_new);
	put_page();
	/* A full disk shows at the latest here. */
	if (ferror(out) || fflush(out) || fclose(out))
		err(1, "cannot write %s", name);
	if (rename(name, path))
		err(1, "cannot write %s", path);
	new_file = NULL;
}

int main(int argc, char **argv)
{
	const char *path = NULL;
	int option;

	while ((option = getopt(argc, argv, "c:p:s:o:")) >= 0) {
		switch (option) {
		case 'c': read_lines(optarg, take_costs, NULL); break;
		case 'p': read_lines(optarg, take_picture, NULL); break;
		case 's': top = optarg; break;
		case 'o': path = optarg; break;
		default: return 1;
		}
	}
	if (!path || optind == argc)
		errx(1, "usage: report [-s TOP] [-c COSTS]... [-p PICTURE] -o FILE RUN_DIR...");
	read_bochs();
	runs = need(calloc(argc - optind, sizeof(*runs)));
	for (; optind < argc; optind++) {
		runs[nr_runs].dir = argv[optind];
		read_run(&runs[nr_runs++]);
	}
	write_page(path);
	return 0;
}
