/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The reader of consoles: what a line of console.log is, and what programs say there that
 * others judge. The emulated host writes everything by printk, so a line is
 * "[  SECONDS] TEXT"; host/words.h has the words of TEXT.
 */
#ifndef LAB_JUDGE_CONSOLE_H
#define LAB_JUDGE_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "../../host/words.h"

/* Of Linux. */
#define CONSOLE_BANNER		"Linux version "
#define CONSOLE_POWER_DOWN	"reboot: Power down"
#define CONSOLE_PANIC_END	"---[ end Kernel panic"

/**
 * enum console_kind - who says a line, and what
 * @CONSOLE_KERNEL: the kernel, or whoever writes to the console without asking
 * @CONSOLE_OUTPUT: a program that process 1 runs
 * @CONSOLE_FACT: process 1; this one and those below, see host/words.h
 * @CONSOLE_PLAN: how many programs there are
 * @CONSOLE_BEGIN: a program begins
 * @CONSOLE_END: it has ended, see console_ending()
 * @CONSOLE_ERROR: the image is broken
 * @CONSOLE_ALIVE: nothing happens
 * @CONSOLE_DONE: all programs ran
 * @CONSOLE_UNKNOWN: process 1 says something else
 */
enum console_kind {
	CONSOLE_KERNEL,
	CONSOLE_OUTPUT,
	CONSOLE_FACT,
	CONSOLE_PLAN,
	CONSOLE_BEGIN,
	CONSOLE_END,
	CONSOLE_ERROR,
	CONSOLE_ALIVE,
	CONSOLE_DONE,
	CONSOLE_UNKNOWN,
};

/**
 * struct console_line - a line of a console
 * @kind: what it is
 * @stamped: it has a time stamp, as all lines of a kernel have
 * @text: what follows the time stamp
 * @rest: what follows the words of its kind, too
 */
struct console_line {
	enum console_kind kind;
	bool stamped;
	const char *text, *rest;
};

/**
 * enum console_how - how a program ended
 * @CONSOLE_NOHOW: the line does not say
 * @CONSOLE_STATUS: by itself, with this exit status
 * @CONSOLE_SIGNAL: by this signal
 * @CONSOLE_TIMEOUT: still running after so many seconds
 */
enum console_how { CONSOLE_NOHOW, CONSOLE_STATUS, CONSOLE_SIGNAL, CONSOLE_TIMEOUT };

/**
 * struct console_ending - the end of a program
 * @name: of the program
 * @how: it ended
 * @number: status, signal or seconds
 * @words: how it ended, as written
 */
struct console_ending {
	char name[128];
	enum console_how how;
	int number;
	const char *words;
};

/**
 * enum console_tap_kind - what a line is in a TAP document
 * @TAP_OTHER: no line of its own, for example a comment
 * @TAP_VERSION: the first line
 * @TAP_PLAN: how many results there are
 * @TAP_OK: a test passed, or skipped
 * @TAP_NOT_OK: a test failed
 */
enum console_tap_kind { TAP_OTHER, TAP_VERSION, TAP_PLAN, TAP_OK, TAP_NOT_OK };

/**
 * struct console_tap - a line of a TAP document
 * @kind: of the line
 * @inner: it stands behind "# ", where programs that run others pass on theirs
 * @skipped: the test, if it is one, was skipped
 * @planned: results, if it is a plan
 * @text: the line without "# "
 */
struct console_tap {
	enum console_tap_kind kind;
	bool inner, skipped;
	unsigned int planned;
	const char *text;
};

/**
 * struct console_precision - a measurement by lab/bench/precision.c
 * @shape: of the work
 * @neighbour: what runs beside it
 * @every: how many exits between two turns of the neighbour
 * @exits: how many there were
 * @mark: the first of its two marks
 * @slots: what the guest read in fixed counter 3
 * @metrics: what it read in PERF_METRICS
 */
struct console_precision {
	char shape[16], neighbour[16];
	uint64_t every, exits, mark, slots, metrics;
};

const char *console_after(const char *text, const char *words);
FILE *console_open(const char *dir);
bool console_next(FILE *file, char **line, size_t *size);
struct console_line console_line(const char *line);
int console_passed_on(const char *output, const char **line);
void console_ending(const char *rest, struct console_ending *ending);
struct console_tap console_tap(const char *output);
bool console_result(const char *output, const char *test, enum console_tap_kind kind);
bool console_mark(const char *output, uint64_t *mark);
bool console_case(const char *output, char name[64], uint64_t *mark);
bool console_precision(const char *output, struct console_precision *precision);
bool console_operations(const char *output, uint64_t *number);
const char *console_missing(const char *output);
bool console_lacks(const char *output);
bool console_skips(const char *output);

#endif
