/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The reader of the ground truth: truth.jsonl of a run, which lab/model/truth.c writes and
 * describes. The last line of an emulator that was killed may be cut; it is left out.
 */
#ifndef LAB_JUDGE_TRUTH_H
#define LAB_JUDGE_TRUTH_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/**
 * enum truth_type - of a line
 * @TRUTH_OTHER: none of those below
 * @TRUTH_GARBLED: the line is no object of JSON, see truth_try()
 * @TRUTH_MACHINE: the machine's properties; the others as in lab/model/truth.c
 * @TRUTH_MARK: a mark ran, on one CPU
 * @TRUTH_SNAPSHOT: what an owner had done until a mark
 * @TRUTH_ACCESSES: of the PMU, by VMX root operation, until a mark
 * @TRUTH_TOTAL: what an owner had done until power off
 * @TRUTH_SECTION: a program of the plan began or ended
 * @TRUTH_LEAK: somebody read another's work
 * @TRUTH_LOST: a guest's register changed while it did not run
 * @TRUTH_PMI: of another, which the host handled
 * @TRUTH_AUDIT: the sums of a CPU
 * @NR_TRUTH_TYPES: how many there are
 */
enum truth_type {
	TRUTH_OTHER,
	TRUTH_GARBLED,
	TRUTH_MACHINE,
	TRUTH_MARK,
	TRUTH_SNAPSHOT,
	TRUTH_ACCESSES,
	TRUTH_TOTAL,
	TRUTH_SECTION,
	TRUTH_LEAK,
	TRUTH_LOST,
	TRUTH_PMI,
	TRUTH_AUDIT,
	NR_TRUTH_TYPES,
};

/**
 * struct truth - a ground truth, and the line that was read last
 * @type: of the line
 * @id: the mark's that it belongs to, 0 for none
 * @owner: whose it is, "" if it does not say
 * @text: the line as it stands there, without its end
 * @number: of the line, from 1 on
 * @cut: the last line has no end
 */
struct truth {
	enum truth_type type;
	uint64_t id;
	const char *owner;
	char *text;
	unsigned long number;
	bool cut;
	/* private: */
	char path[4096];
	FILE *file;
	size_t size;
	bool trying;
	json_t *line;
};

bool truth_try(struct truth *truth, const char *dir);
void truth_open(struct truth *truth, const char *dir);
bool truth_next(struct truth *truth);
void truth_close(struct truth *truth);

bool truth_find(const struct truth *truth, const char *path, uint64_t *number);
uint64_t truth_number(const struct truth *truth, const char *path);
const char *truth_string(const struct truth *truth, const char *path);
bool truth_flag(const struct truth *truth, const char *path);
void truth_for_each(const struct truth *truth, const char *path,
		    void (*take)(void *of, const char *key, uint64_t number), void *of);

bool truth_type_of(const char *name, enum truth_type *type);
bool truth_pattern(const char *pattern);
bool truth_matches(const struct truth *truth, const char *pattern);

#endif
