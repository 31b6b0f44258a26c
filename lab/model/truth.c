// SPDX-License-Identifier: GPL-2.0
/*
 * Ground truth: what each owner really did, unquantized and regardless of how
 * the PMU is programmed, and what the counters saw of it.
 *
 * The truth file has one JSON object a line.  By "type":
 *
 *	machine	first line: the machine's properties
 *	mark	the mark instruction ran: its id, who ran it, and all that this
 *		owner has done on this CPU since power on; two marks of one
 *		owner give an interval by subtraction
 *	snapshot
 *		after each mark, with its id: the same of every owner on every
 *		CPU at that moment, for work that was spread over CPUs
 *	accesses
 *		after the snapshots of a CPU, with the mark's id, and at power off without:
 *		what VMX root operation did with the PMU since power on (access.c).
 *		"entries" is VM entries, "exits" VM exits by basic reason; "rdmsr",
 *		"wrmsr", "rdpmc" by register, "vmread" and "vmwrite" by field; "stored"
 *		and "loaded" registers that VM entries and VM exits accessed themselves.
 *		What is 0 is left out
 *	total	at power off, the same as a snapshot per CPU and owner
 *	section	the host's process 1 began a program of its plan, or ended it:
 *		how many leaks and losses there were until then, on all CPUs
 *	leak	somebody read a register that holds another's work, or was told
 *		of it by a PMI (audit.c)
 *	lost	a guest came back to another value than it left, or the books
 *		of one of its counters do not add up (conserve.c)
 *	pmi	a PMI came in a guest for a counter that holds another's work,
 *		and was the host's to handle
 *	audit	at power off, per CPU: how many of these, PMIs, VM entries and
 *		registers that were compared, differences by explanation, and
 *		how often the CPU changed owners
 *
 * An owner is "root", a guest's identity in hexadecimal, "departed" for guests
 * whose life has ended, or "before" for what registers held at power on, see
 * machine.c; "switches" is how often the CPU began to work for it,
 * which for a guest is its VM entries.  The level 2 parts
 * (heavy_ops, br_mispredict, fetch_latency, mem_bound) are contained in the
 * level 1 categories.  "counted" is what fixed counters 0 to 3 and the metrics
 * saw of the owner while they were enabled: what they should have seen and
 * these numbers differ by what was lost.
 */
#include <inttypes.h>
#include <stdio.h>

#include "internal.h"

static const struct {
	const char *name;
	enum quantity quantity;
} fields[] = {
	{ "instructions", Q_INSTRUCTIONS },
	{ "cycles", Q_CYCLES },
	{ "reference", Q_REFERENCE },
	{ "branches", Q_BRANCHES },
	{ "branch_misses", Q_BRANCH_MISSES },
	{ "line_flushes", Q_LINE_FLUSHES },
	{ "slots", Q_SLOTS },
	{ "retiring", Q_RETIRING },
	{ "bad_spec", Q_BAD_SPEC },
	{ "fe_bound", Q_FE_BOUND },
	{ "be_bound", Q_BE_BOUND },
	{ "heavy_ops", Q_HEAVY_OPS },
	{ "br_mispredict", Q_BR_MISPREDICT },
	{ "fetch_latency", Q_FETCH_LATENCY },
	{ "mem_bound", Q_MEM_BOUND },
};

void truth_machine(struct pmu *pmu)
{
	const struct pmu_machine *machine = pmu->machine;
	struct line line = { 0 };

	line_add(&line, "{\"type\":\"machine\",\"name\":\"%s\"", machine->name);
	line_add(&line, ",\"version\":%" PRIu64 ",\"width\":%" PRIu64
		 ",\"metrics\":%" PRIu64, machine->version, machine->width,
		 machine->metrics);
	line_add(&line, ",\"gp_counters\":%" PRIu64 ",\"fixed_bitmap\":%" PRIu64,
		 machine->gp_counters, machine->fixed_bitmap);
	line_add(&line, ",\"gp_width\":%" PRIu64 ",\"fixed_width\":%" PRIu64,
		 machine->gp_width, machine->fixed_width);
	line_add(&line, ",\"perf_capabilities\":%" PRIu64
		 ",\"save_global_ctrl\":%" PRIu64,
		 machine->capabilities, machine->save_global_ctrl);
	line_add(&line, ",\"metrics_write\":\"%s\",\"metrics_reserved\":\"%s\","
		 "\"metrics_rounding\":\"%s\"}",
		 machine->metrics_keep ? "keep" : "rederive",
		 machine->metrics_ignore ? "ignore" : "gp",
		 machine->metrics_truncate ? "truncate" : "nearest");
	pmu->ops->emit(pmu->opaque, line.text);
}

static void add_counted(struct line *line, const struct pmu *pmu,
			const struct account *account)
{
	unsigned int i;

	line_add(line, ",\"counted\":{");
	for (i = 0; i <= SLOTS_INDEX; i++)
		line_add(line, "%s\"fixed%u\":%" PRIu64, i ? "," : "", i,
			 account->fixed[i]);
	for (i = 0; i < pmu->machine->metrics; i++)
		line_add(line, ",\"metric%u\":%" PRIu64, i, account->metrics[i]);
	line_add(line, "}");
}

static void add_account(struct line *line, const struct pmu *pmu,
			const struct account *account)
{
	unsigned int i;

	line_add(line, ",\"owner\":");
	line_owner(line, account);
	line_add(line, ",\"switches\":%" PRIu64, account->switches);
	for (i = 0; i < ARRAY_SIZE(fields); i++)
		line_add(line, ",\"%s\":%" PRIu64, fields[i].name,
			 account->done[fields[i].quantity]);
	add_counted(line, pmu, account);
}

void pmu_mark(struct pmu *pmu, uint64_t id)
{
	struct line line = { 0 };

	line_add(&line, "{\"type\":\"mark\",\"cpu\":%u,\"id\":%" PRIu64
		 ",\"nonroot\":%s,\"cpl\":%u", pmu->cpu, id,
		 pmu->context.nonroot ? "true" : "false", pmu->context.cpl);
	add_account(&line, pmu, pmu->account);
	line_add(&line, "}");
	pmu->ops->emit(pmu->opaque, line.text);
	if (id >= PMU_SECTION && !pmu->context.nonroot)
		audit_section(pmu, id);
}

static void emit_account(struct pmu *pmu, const char *head,
			 const struct account *account)
{
	struct line line = { 0 };

	line_add(&line, "{%s,\"cpu\":%u", head, pmu->cpu);
	add_account(&line, pmu, account);
	line_add(&line, "}");
	pmu->ops->emit(pmu->opaque, line.text);
}

/* A line that begins with @head for each owner that ran on this CPU. */
static void emit_accounts(struct pmu *pmu, const char *head)
{
	const struct account *account;

	for (account = &pmu->root; account; account = account->next)
		emit_account(pmu, head, account);
	if (pmu->spill.nonroot)
		emit_account(pmu, head, &pmu->spill);
}

void pmu_snapshot(struct pmu *pmu, uint64_t id)
{
	char head[64];

	snprintf(head, sizeof(head), "\"type\":\"snapshot\",\"id\":%" PRIu64, id);
	emit_accounts(pmu, head);
	snprintf(head, sizeof(head), ",\"id\":%" PRIu64, id);
	access_emit(pmu, head);
}

void pmu_emit_totals(struct pmu *pmu)
{
	emit_accounts(pmu, "\"type\":\"total\"");
	access_emit(pmu, "");
	conserve_close(pmu);
	audit_total(pmu);
}
