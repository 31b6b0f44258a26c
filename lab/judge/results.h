/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The writer of results: lines "OUTCOME NAME" or "OUTCOME NAME: why" of a file that several
 * programs append to. Shell does that with add_results of scripts/lib.sh, which has what reads
 * them, too.
 */
#ifndef LAB_JUDGE_RESULTS_H
#define LAB_JUDGE_RESULTS_H

#include <stdio.h>

/**
 * enum outcome - in the order of gravity
 * @PASS: as expected
 * @SKIP: did not run, for lack of something; says what
 * @ERROR: the lab's fault, or it says too little to tell
 * @FAIL: the subject's fault; a broken subject often breaks the log, too
 * @NR_OUTCOMES: how many there are
 */
enum outcome { PASS, SKIP, ERROR, FAIL, NR_OUTCOMES };

FILE *results_append(const char *path);
void results_end(FILE *file, const char *path);
void results_put(FILE *file, enum outcome outcome, const char *why, const char *name, ...)
	__attribute__((format(printf, 4, 5)));
int results_status(enum outcome worst);

#endif
