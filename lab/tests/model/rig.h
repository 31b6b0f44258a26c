/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A PMU on the bench: a machine, one CPU, and what it told the emulator.
 *
 * The tests use the public interface only.  Where a test needs exact slots it
 * takes BENCH, a machine on which work costs round numbers.
 */
#ifndef LAB_TESTS_MODEL_RIG_H
#define LAB_TESTS_MODEL_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pmu.h"

#define BIT(n)		((uint64_t)1 << (n))
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/*
 * Ice Lake in all but the penalties: an instruction is one retiring slot, a
 * mispredicted branch one slot of bad speculation, a fetch miss one of frontend
 * and a page walk one of backend bound; nothing else costs anything.
 */
#define BENCH						\
	"name = bench\n"				\
	"pmu.penalty.dependency = 0\n"			\
	"pmu.penalty.branch = 0\n"			\
	"pmu.penalty.branch_miss = 1\n"			\
	"pmu.penalty.fetch_miss = 1\n"			\
	"pmu.penalty.page_walk = 1\n"			\
	"pmu.penalty.line_flush = 1\n"

#define MAX_LINES	256

/* LVTPC as Linux's perf has it, and as KVM has it while guests' counters are loaded. */
#define LVTPC_HOST	0x400		/* NMI */
#define LVTPC_GUEST	0xf5
#define LVTPC_MASKED	0x10000

struct rig {
	struct pmu_machine *machine;
	bool borrows_machine;
	struct pmu *pmu;
	unsigned int pmis;
	uint32_t lvtpc;		/* LVTPC_HOST unless the test says otherwise */
	uint64_t deadline;
	unsigned int deadline_calls;
	unsigned int nr_lines;
	char *lines[MAX_LINES];
};

/* Make a rig from a description, for one CPU of it; fails the test if it must. */
struct rig *rig_new(const char *description, unsigned int cpu);
/* Another CPU of the same machine; to be freed before the first one. */
struct rig *rig_sibling(struct rig *rig, unsigned int cpu);
/* The same from a file in lab/machine. */
struct rig *rig_from_file(const char *name, unsigned int cpu);
void rig_free(struct rig *rig);

/* The text of a file in lab/machine, to be freed. */
char *machine_text(const char *name);

void wr(struct rig *rig, uint32_t msr, uint64_t value);
uint64_t rd(struct rig *rig, uint32_t msr);
uint64_t rdpmc(struct rig *rig, uint32_t ecx);
void wr_gp(struct rig *rig, uint32_t msr, uint64_t value);
void rd_gp(struct rig *rig, uint32_t msr);

void work(struct rig *rig, enum pmu_work kind, uint64_t n);
/* Slots of each level 1 kind at once, on BENCH. */
void slots(struct rig *rig, uint64_t retiring, uint64_t bad_spec,
	   uint64_t fe_bound, uint64_t be_bound);

void in_root(struct rig *rig, unsigned int cpl);
void in_guest(struct rig *rig, uint64_t owner, unsigned int cpl);

/* All registers of Ice Lake's PMU, as in struct pmu_entry. */
#define OWNS_ALL	0x1000f000000ffull

/* The VMCS that in_guest() takes. */
#define VMCS_OF(owner)	((owner) + 0x1000)

/* VM entry on a VMCS, by VMLAUNCH if @entry says so (NULL: VMRESUME). */
void vm_entry_on(struct rig *rig, uint64_t owner, uint64_t vmcs,
		 const struct pmu_entry *entry);
void vm_entry(struct rig *rig, uint64_t owner);
/* The first one of a new guest, which is given @owned. */
void vm_launch(struct rig *rig, uint64_t owner, uint64_t owned);
void vm_exit(struct rig *rig, unsigned int reason);
void vm_exit_wrmsr(struct rig *rig, uint32_t msr, uint64_t value);

/* The last line of a type, or NULL; a number in a line; how many lines. */
const char *last_line(const struct rig *rig, const char *type);
uint64_t number(const char *line, const char *key);
unsigned int count_lines(const struct rig *rig, const char *type);

/* Is @text one JSON value and nothing more? */
int is_json(const char *text);

/* Random numbers; the seed is printed and can be given as SEED. */
void random_start(void);
uint64_t random_below(uint64_t limit);

#endif /* LAB_TESTS_MODEL_RIG_H */
