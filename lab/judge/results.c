// SPDX-License-Identifier: GPL-2.0
/*
 * The writer of results, see results.h.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdarg.h>
#include <sys/file.h>

#include "results.h"

static const char *const outcomes[NR_OUTCOMES] = {
	[PASS] = "PASS",
	[SKIP] = "SKIP",
	[ERROR] = "ERROR",
	[FAIL] = "FAIL",
};

/**
 * results_append() - add to a file of results, or end this program
 * @path: of the file
 *
 * Others wait until results_end(): what is written between stays together.
 *
 * Return: the file, for results_put()
 */
FILE *results_append(const char *path)
{
	FILE *file = fopen(path, "a");

	if (!file || flock(fileno(file), LOCK_EX))
		err(2, "cannot append to %s", path);
	return file;
}

/**
 * results_end() - let others append, or end this program
 * @file: by results_append()
 * @path: of the file
 */
void results_end(FILE *file, const char *path)
{
	if (fflush(file) || ferror(file) || fclose(file))
		err(2, "cannot append to %s", path);
}

/**
 * results_put() - write a result
 * @file: where to
 * @outcome: of the test
 * @why: what there is to say, "" for nothing
 * @name: of the test, a format for the rest
 */
void results_put(FILE *file, enum outcome outcome, const char *why, const char *name, ...)
{
	va_list args;

	fprintf(file, "%s ", outcomes[outcome]);
	va_start(args, name);
	vfprintf(file, name, args);
	va_end(args);
	fprintf(file, "%s%s\n", *why ? ": " : "", why);
}

/**
 * results_status() - the exit status of a program that judges
 * @worst: of all outcomes
 *
 * Return: 1 if something failed, 2 if only the lab did, else 0
 */
int results_status(enum outcome worst)
{
	return worst == FAIL ? 1 : worst == ERROR ? 2 : 0;
}
