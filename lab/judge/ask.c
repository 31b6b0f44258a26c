// SPDX-License-Identifier: GPL-2.0
/*
 * Tells scripts what they want to know of runs, whose directories are DIR.
 *
 * Exits with 0 for yes, 1 for no:
 *
 *	ask failed TEST DIR	the test FIXTURE.TEST failed
 *	ask measured DIR	perf measured something under topdown-mark
 *	ask passed NAME DIR	the program NAME of the plan ended with status 0
 *	ask said TEXT DIR	a line of the console has TEXT
 *	ask stood TEST DIR	the test FIXTURE.TEST passed, and did not skip
 *	ask tested DIR		a test has a result, or a case of world-switch began
 *	ask truth TYPES PATTERN DIR
 *				a line of one of TYPES ("leak,lost") in the ground truth
 *				matches PATTERN, see truth_matches()
 *
 * Prints, of those runs that left something:
 *
 *	ask lines WHO DIR	the console of the host, 0, or of a guest, by its number, without
 *				time stamps
 *	ask operations DIR...	how many operations of a guest's PMU were fuzzed
 *	ask output NAME WHO DIR	what the program NAME of their plan wrote there
 *	ask sum KEY DIR...	the sum of KEY in the lines of type "audit"
 *
 * Exits with 2, and says why, if that cannot be told.
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "console.h"
#include "truth.h"

/* The console that is read. */
static FILE *file;
static char *text;
static size_t size;

/* The next line of the host's console; @line stays valid until the next one. */
static bool next_line(struct console_line *line)
{
	if (!console_next(file, &text, &size))
		return false;
	*line = console_line(text);
	return true;
}

static bool has_result(char **arguments, enum console_tap_kind kind)
{
	struct console_line line;

	file = console_open(arguments[1]);
	while (next_line(&line))
		if (line.kind == CONSOLE_OUTPUT && console_result(line.rest, arguments[0], kind))
			return true;
	return false;
}

static bool failed(char **arguments)
{
	return has_result(arguments, TAP_NOT_OK);
}

static bool stood(char **arguments)
{
	return has_result(arguments, TAP_OK);
}

static bool measured(char **arguments)
{
	struct console_line line;
	const char *passed;
	uint64_t mark;

	file = console_open(arguments[0]);
	while (next_line(&line)) {
		while (line.kind <= CONSOLE_OUTPUT && console_passed_on(line.rest, &passed) >= 0)
			line = console_line(passed);
		if (line.kind == CONSOLE_OUTPUT && console_mark(line.rest, &mark))
			return true;
	}
	return false;
}

static bool passed(char **arguments)
{
	struct console_ending ending;
	struct console_line line;

	file = console_open(arguments[1]);
	while (next_line(&line)) {
		if (line.kind != CONSOLE_END)
			continue;
		console_ending(line.rest, &ending);
		if (!strcmp(ending.name, arguments[0]))
			return ending.how == CONSOLE_STATUS && !ending.number;
	}
	return false;
}

static bool said(char **arguments)
{
	struct console_line line;

	file = console_open(arguments[1]);
	while (next_line(&line))
		if (strstr(line.text, arguments[0]))
			return true;
	return false;
}

static bool tested(char **arguments)
{
	struct console_line line;
	char name[64];
	uint64_t mark;

	file = console_open(arguments[0]);
	while (next_line(&line))
		if (line.kind == CONSOLE_OUTPUT && (console_tap(line.rest).kind >= TAP_OK ||
						    console_case(line.rest, name, &mark)))
			return true;
	return false;
}

static bool truth(char **arguments)
{
	bool wanted[NR_TRUTH_TYPES] = { false };
	enum truth_type type;
	struct truth truth;
	char *name;

	if (!truth_pattern(arguments[1]))
		errx(2, "neither words nor members of JSON: %s", arguments[1]);
	while ((name = strsep(&arguments[0], ","))) {
		if (!truth_type_of(name, &type))
			errx(2, "%s: no type of lines of the ground truth", name);
		wanted[type] = true;
	}
	truth_open(&truth, arguments[2]);
	while (truth_next(&truth))
		if (wanted[truth.type] && truth_matches(&truth, arguments[1]))
			return true;
	return false;
}

/* The next line of the console of @who. */
static bool next_line_of(int who, struct console_line *line)
{
	const char *passed;

	while (next_line(line)) {
		if (!who)
			return true;
		if (line->kind != CONSOLE_OUTPUT || console_passed_on(line->rest, &passed) != who)
			continue;
		*line = console_line(passed);
		return true;
	}
	return false;
}

static bool lines(char **arguments)
{
	struct console_line line;

	file = console_open(arguments[1]);
	while (next_line_of(atoi(arguments[0]), &line))
		puts(line.text);
	return true;
}

static bool output(char **arguments)
{
	struct console_line line;
	bool inside = false;

	file = console_open(arguments[2]);
	while (next_line_of(atoi(arguments[1]), &line)) {
		if (line.kind == CONSOLE_BEGIN)
			inside = !strcmp(line.rest, arguments[0]);
		else if (line.kind == CONSOLE_END)
			inside = false;
		else if (inside && line.kind == CONSOLE_OUTPUT)
			puts(line.rest);
	}
	return true;
}

/* Without @name in it, a run has nothing to add. */
static bool left(const char *dir, const char *name)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return !access(path, F_OK);
}

static bool operations(char **dirs)
{
	uint64_t sum = 0, number;
	struct console_line line;

	for (; *dirs; dirs++) {
		if (!left(*dirs, "console.log"))
			continue;
		file = console_open(*dirs);
		while (next_line(&line))
			if (line.kind == CONSOLE_OUTPUT && console_operations(line.rest, &number))
				sum += number;
		fclose(file);
	}
	printf("%" PRIu64 "\n", sum);
	return true;
}

static bool sum(char **arguments)
{
	struct truth truth;
	uint64_t sum = 0;
	char **dirs;

	for (dirs = arguments + 1; *dirs; dirs++) {
		if (!left(*dirs, "truth.jsonl"))
			continue;
		truth_open(&truth, *dirs);
		while (truth_next(&truth))
			if (truth.type == TRUTH_AUDIT)
				sum += truth_number(&truth, arguments[0]);
		truth_close(&truth);
	}
	printf("%" PRIu64 "\n", sum);
	return true;
}

static const struct {
	const char *name;
	bool (*tell)(char **arguments);
	int arguments;
	bool more;		/* than these may follow */
} questions[] = {
	{ "failed", failed, 2, false },
	{ "lines", lines, 2, false },
	{ "measured", measured, 1, false },
	{ "operations", operations, 0, true },
	{ "output", output, 3, false },
	{ "passed", passed, 2, false },
	{ "said", said, 2, false },
	{ "stood", stood, 2, false },
	{ "sum", sum, 1, true },
	{ "tested", tested, 1, false },
	{ "truth", truth, 3, false },
};

int main(int argc, char **argv)
{
	unsigned int i;

	for (i = 0; argc > 1 && i < sizeof(questions) / sizeof(questions[0]); i++) {
		if (strcmp(questions[i].name, argv[1]))
			continue;
		if (argc - 2 < questions[i].arguments ||
		    (argc - 2 > questions[i].arguments && !questions[i].more))
			errx(2, "%s: %d arguments and not %d, see lab/judge/ask.c", argv[1],
			     questions[i].arguments, argc - 2);
		return !questions[i].tell(argv + 2);
	}
	errx(2, "usage: ask failed | lines | measured | operations | output | passed | said | stood | sum | tested"
	     " | truth, see lab/judge/ask.c");
}
