// SPDX-License-Identifier: GPL-2.0
/*
 * The reader of consoles, see console.h.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <err.h>
#include <inttypes.h>
#include <string.h>

#include "console.h"

/* Those that do not end in a space stand alone. */
static const struct {
	const char *words;
	enum console_kind kind;
} said[] = {
	{ WORDS_FACT, CONSOLE_FACT },
	{ WORDS_PLAN, CONSOLE_PLAN },
	{ WORDS_BEGIN, CONSOLE_BEGIN },
	{ WORDS_END, CONSOLE_END },
	{ WORDS_ERROR, CONSOLE_ERROR },
	{ WORDS_ALIVE, CONSOLE_ALIVE },
	{ WORDS_DONE, CONSOLE_DONE },
};

/**
 * console_after() - leave out words at the begin of a text
 * @text: a text
 * @words: what it may start with
 *
 * Return: what follows @words, NULL if @text does not start with them
 */
const char *console_after(const char *text, const char *words)
{
	size_t length = strlen(words);

	return strncmp(text, words, length) ? NULL : text + length;
}

/**
 * console_open() - open the console's log of a run, or end this program
 * @dir: the run's directory
 *
 * Return: a file for console_next()
 */
FILE *console_open(const char *dir)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/console.log", dir);
	file = fopen(path, "r");
	if (!file)
		err(2, "cannot read %s", path);
	return file;
}

/**
 * console_next() - read a line
 * @file: a console's log
 * @line: the line, without its end; to be freed at last
 * @size: of the room for it, as for getline(3)
 *
 * Return: false at the end
 */
bool console_next(FILE *file, char **line, size_t *size)
{
	if (getline(line, size, file) < 0)
		return false;
	(*line)[strcspn(*line, "\r\n")] = '\0';
	return true;
}

/* What follows a kernel's time stamp, @line itself without one. */
static const char *unstamped(const char *line)
{
	const char *at = line;

	if (*at++ != '[')
		return line;
	while (*at == ' ')
		at++;
	if (!isdigit((unsigned char)*at))
		return line;
	while (isdigit((unsigned char)*at) || *at == '.')
		at++;
	if (at[0] != ']' || at[1] != ' ')
		return line;
	return at + 2;
}

/**
 * console_line() - what a line is
 * @line: of the console of a host or of a guest
 *
 * Return: its parts, which are parts of @line
 */
struct console_line console_line(const char *line)
{
	struct console_line read = { .text = unstamped(line) };
	const char *report = console_after(read.text, WORDS_SAID);
	unsigned int i;

	read.stamped = read.text != line;
	read.rest = console_after(read.text, WORDS_OUTPUT);
	if (read.rest) {
		read.kind = CONSOLE_OUTPUT;
		return read;
	}
	read.rest = report ?: read.text;
	read.kind = report ? CONSOLE_UNKNOWN : CONSOLE_KERNEL;
	for (i = 0; report && i < sizeof(said) / sizeof(said[0]); i++) {
		const char *rest = console_after(report, said[i].words);

		if (!rest || (rest[-1] != ' ' && *rest))
			continue;
		read.kind = said[i].kind;
		read.rest = rest;
	}
	return read;
}

/**
 * console_passed_on() - whose line a program passes on
 * @output: what the program wrote
 * @line: the line, if it is one of another console
 *
 * Return: the number of the guest, 0 for the host, -1 if it is the program's own line
 */
int console_passed_on(const char *output, const char **line)
{
	const char *host = console_after(output, WORDS_HOST);
	unsigned int guest;
	int used = 0;

	if (host) {
		*line = host;
		return 0;
	}
	if (sscanf(output, WORDS_GUEST "%n", &guest, &used) != 1 || !used || !guest ||
	    guest > 1000)
		return -1;
	*line = output + used;
	return guest;
}

/**
 * console_ending() - how a program ended
 * @rest: of a line that is CONSOLE_END
 * @ending: what it says
 */
void console_ending(const char *rest, struct console_ending *ending)
{
	size_t length = strcspn(rest, " ");

	memset(ending, 0, sizeof(*ending));
	snprintf(ending->name, sizeof(ending->name), "%.*s", (int)length, rest);
	ending->words = rest + length + (rest[length] == ' ');
	if (sscanf(ending->words, WORDS_STATUS "%d", &ending->number) == 1)
		ending->how = CONSOLE_STATUS;
	else if (sscanf(ending->words, WORDS_SIGNAL "%d", &ending->number) == 1)
		ending->how = CONSOLE_SIGNAL;
	else if (sscanf(ending->words, WORDS_TIMEOUT "%d", &ending->number) == 1)
		ending->how = CONSOLE_TIMEOUT;
}

/**
 * console_tap() - what a line is in a TAP document
 * @output: a line that a program wrote
 *
 * The lines of an inner document begin with "# ", as its comments do in turn.
 *
 * Return: its parts, which are parts of @output
 */
struct console_tap console_tap(const char *output)
{
	const char *inner = console_after(output, "# ");
	struct console_tap tap = { .inner = inner, .text = inner ?: output };

	if (console_after(tap.text, "ok "))
		tap.kind = TAP_OK;
	else if (console_after(tap.text, "not ok "))
		tap.kind = TAP_NOT_OK;
	else if (console_after(tap.text, "TAP version"))
		tap.kind = TAP_VERSION;
	else if (sscanf(tap.text, "1..%u", &tap.planned) == 1)
		tap.kind = TAP_PLAN;
	tap.skipped = tap.kind >= TAP_OK && strstr(tap.text, "# SKIP");
	return tap;
}

/**
 * console_result() - is this that result of a test?
 * @output: a line that a program wrote
 * @test: FIXTURE.TEST, or FIXTURE.VARIANT.TEST
 * @kind: TAP_OK for one that passed and did not skip, or TAP_NOT_OK
 *
 * Return: true if so
 */
bool console_result(const char *output, const char *test, enum console_tap_kind kind)
{
	struct console_tap tap = console_tap(output);
	const char *name;
	int used = 0;

	if (tap.kind != kind || tap.skipped)
		return false;
	sscanf(tap.text, kind == TAP_OK ? "ok %*u %n" : "not ok %*u %n", &used);
	if (!used)
		return false;
	name = console_after(tap.text + used, test);
	return name && !isalnum((unsigned char)*name) && *name != '_';
}

/**
 * console_mark() - does perf's measurement begin?
 * @output: a line that a program wrote
 * @mark: the base of its marks, see host/mark.h
 *
 * Return: true if so
 */
bool console_mark(const char *output, uint64_t *mark)
{
	return sscanf(output, WORDS_MARK "%" SCNu64, mark) == 1;
}

/**
 * console_case() - does a case of lab/bench/world-switch.c begin?
 * @output: a line that a program wrote
 * @name: of the case
 * @mark: the first of its two marks
 *
 * Return: true if so
 */
bool console_case(const char *output, char name[64], uint64_t *mark)
{
	return sscanf(output, "world-switch: case=%63s mark=%" SCNu64, name, mark) == 2;
}

/**
 * console_precision() - is this a measurement by lab/bench/precision.c?
 * @output: a line that a program wrote
 * @precision: what it says
 *
 * Return: true if so
 */
bool console_precision(const char *output, struct console_precision *precision)
{
	return sscanf(output, "precision: shape=%15s neighbour=%15s every=%" SCNu64
		      " exits=%" SCNu64 " mark=%" SCNu64 " slots=%" SCNu64 " metrics=%" SCNx64,
		      precision->shape, precision->neighbour, &precision->every,
		      &precision->exits, &precision->mark, &precision->slots,
		      &precision->metrics) == 7;
}

/**
 * console_operations() - does pmu_fuzz_test.c say how much it did?
 * @output: a line that a program wrote; run_kselftest.sh has "# " before it
 * @number: of operations
 *
 * Return: true if so
 */
bool console_operations(const char *output, uint64_t *number)
{
	const char *inner = console_after(output, "# # ") ? output + 2 : output;

	return sscanf(inner, "# operations: %" SCNu64 " ", number) == 1;
}

/**
 * console_missing() - what the host lacks for a program
 * @output: a line that the program wrote
 *
 * Return: "missing: WHAT", NULL if it says nothing like that
 */
const char *console_missing(const char *output)
{
	return strstr(output, WORDS_MISSING);
}

/**
 * console_lacks() - does a program of host/ say that it can do nothing here?
 * @output: a line that a program wrote
 *
 * Return: true if so
 */
bool console_lacks(const char *output)
{
	return strstr(output, ": " WORDS_MISSING);
}

/**
 * console_skips() - does a program, or one of its tests, say why it skips?
 * @output: a line that the program wrote
 *
 * Return: true if so
 */
bool console_skips(const char *output)
{
	/* TEST_REQUIRE() of the kernel's KVM selftests. */
	return strstr(output, "SKIP") || console_missing(output) ||
	       strstr(output, "equirement not met");
}
