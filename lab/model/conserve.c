// SPDX-License-Identifier: GPL-2.0
/*
 * Nothing lost: what a guest's PMU held when the guest left must be there when
 * it comes back, on whatever CPU and whoever ran in between.
 *
 * The registers that a hypervisor gives to a guest are those that the guest
 * reads without a VM exit (by RDMSR or RDPMC), and, if there is one at all,
 * GLOBAL_STATUS and GLOBAL_CTRL.  A guest without such registers is not looked
 * at: its counters, if it has any, are software's, and hardware's belong to the
 * host.
 *
 * At each VM exit the model notes what these registers hold, at the next VM
 * entry of the same guest it compares.  A difference is explained if the VM
 * exit allows for it:
 *
 *   instruction  The exit can have the hypervisor carry out the instruction, and
 *	   the counter counts retired instructions or branches, without a counter
 *	   mask, which would make it count cycles, is enabled, and counts at the
 *	   guest's CPL; all that before or after, as the instruction itself and
 *	   the hypervisor's user can change it in between.  Then the counter may
 *	   be higher by one, not more: one exit is one instruction.  If it
 *	   wrapped, its bit in GLOBAL_STATUS is set.
 *   write	   The exit is a WRMSR, or #UD (KVM emulates what follows its forced
 *	   emulation prefix), and ECX selects the register.  Then it may hold
 *	   what EDX:EAX says, or still the old value (#GP), and that plus one
 *	   by the rule above.  When counter 3 becomes zero by that, so do the
 *	   metrics.
 *   nested	   The guest comes back on another VMCS than it left, so a nested VM
 *	   entry or exit was emulated, or it left by VMLAUNCH or VMRESUME,
 *	   which can load MSRs and then fail.  GLOBAL_CTRL may have been loaded.
 *	   Not so counters and status: no control loads these, and a guest
 *	   that does so by its MSR lists is one that the reader of the
 *	   truth file has to be told of, as is a hypervisor's user who writes
 *	   them.
 *
 * All other differences are "lost" lines.  They say whether user mode of the host
 * ran since the VM exit, on any CPU: without it, nobody but the hypervisor can
 * have written the registers.
 *
 * That is a comparison of two moments.  Beside it there are books: where a
 * counter began, what it counted in the guest, what the guest wrote, and the
 * explained and unexplained changes; all that adds up to the last value, modulo
 * the width of the counter, when a guest's life ends, or the machine's.  Not so
 * for PERF_METRICS: each time it is restored it is rounded to eight bits, and
 * the sum of these roundings has no bound.  It is compared as it reads.
 */
#include <inttypes.h>
#include <string.h>

#include "internal.h"

/* Indexes of struct held: counters, then these. */
#define HELD_FIXED	PMU_MAX_GP
#define HELD_METRICS	NR_COUNTERS
#define HELD_STATUS	(NR_COUNTERS + 1)
#define HELD_CTRL	(NR_COUNTERS + 2)

/* Basic exit reasons, SDM vol. 3, appendix C. */
#define EXIT_EXCEPTION_NMI	0
#define EXIT_VMLAUNCH		20
#define EXIT_VMRESUME		24
#define EXIT_WRMSR		32

#define VECTOR_NMI		2
#define VECTOR_UD		6
#define VECTOR_MC		18

unsigned int held_index(unsigned int bit)
{
	if (bit == METRICS_BIT)
		return HELD_METRICS;
	return bit < FIXED_SHIFT ? bit : HELD_FIXED + bit - FIXED_SHIFT;
}

static unsigned int held_bit(unsigned int index)
{
	return index < HELD_FIXED ? index : FIXED_SHIFT + index - HELD_FIXED;
}

static void name_of(struct line *name, unsigned int index)
{
	if (index < HELD_FIXED)
		line_add(name, "PMC%u", index);
	else if (index < HELD_METRICS)
		line_add(name, "FIXED_CTR%u", index - HELD_FIXED);
	else
		line_add(name, "%s", index == HELD_METRICS ? "PERF_METRICS" :
			 index == HELD_STATUS ? "GLOBAL_STATUS" : "GLOBAL_CTRL");
}

/* The registers of @owned as they read, the other entries stay as they are. */
static void take(struct pmu *pmu, uint64_t owned, struct held *held)
{
	uint64_t bits = owned & ~BIT(METRICS_BIT);
	unsigned int bit;

	for (; bits; bits &= bits - 1) {
		bit = first_bit(bits);
		held->value[held_index(bit)] = pmu_counter(pmu, bit)->value;
	}
	if (owned & BIT(METRICS_BIT))
		held->value[HELD_METRICS] = pmu_metrics(pmu);
	/* A hypervisor may keep the bit of enclaves, which no counter sets, or not. */
	held->value[HELD_STATUS] = pmu->global_status & ~STATUS_ASCI;
	held->value[HELD_CTRL] = pmu->global_ctrl;
}

/* What a guest writes itself, without its hypervisor. */
void conserve_write(struct pmu *pmu, unsigned int bit, uint64_t from, uint64_t to)
{
	struct guest *guest = pmu->account->guest;

	if (pmu->context.nonroot && guest)
		guest->sum[held_index(bit)].written += to - from;
}

/*
 * Exits for something that happened beside the guest's instructions, or after
 * one that retired: nothing is carried out for the guest.
 */
static bool may_emulate(const struct pmu_exit *exit)
{
	static const uint8_t aside[] = {
		1,	/* external interrupt */
		2,	/* triple fault */
		3, 4,	/* INIT, SIPI */
		7, 8,	/* interrupt window, NMI window */
		37,	/* monitor trap flag */
		43,	/* TPR below threshold */
		45,	/* virtualized EOI */
		52,	/* VMX-preemption timer */
		56,	/* APIC write */
		62,	/* page-modification log full */
		74, 75,	/* bus lock, notify */
	};
	unsigned int i;

	if (exit->reason == EXIT_EXCEPTION_NMI)
		return exit->vector != VECTOR_NMI && exit->vector != VECTOR_MC;
	for (i = 0; i < ARRAY_SIZE(aside); i++) {
		if (exit->reason == aside[i])
			return false;
	}
	return true;
}

/* Could KVM, with the present configuration, count one instruction in @bit? */
static bool counts_retired(const struct pmu *pmu, unsigned int bit,
			   unsigned int cpl)
{
	const uint64_t mask = (uint64_t)0xff << SEL_CMASK_SHIFT;
	unsigned int level = cpl ? FIXED_USR : FIXED_OS;
	enum quantity quantity;

	if (!(pmu->global_ctrl & BIT(bit)) || !(counter_levels(pmu, bit) & level))
		return false;
	if (bit < FIXED_SHIFT && pmu->selector[bit] & mask)
		return false;
	quantity = counter_quantity(pmu, bit);
	return quantity == Q_INSTRUCTIONS || quantity == Q_BRANCHES;
}

static uint64_t retired_counters(struct pmu *pmu, uint64_t owned,
				 unsigned int cpl)
{
	uint64_t bits = owned & ~BIT(METRICS_BIT), result = 0;

	for (; bits; bits &= bits - 1) {
		if (counts_retired(pmu, first_bit(bits), cpl))
			result |= bits & -bits;
	}
	return result;
}

/* A difference in the making: before, after, and what happened. */
struct change {
	const struct guest *guest;
	const struct held *was;
	const struct held *is;
	uint64_t retired;	/* counters that an instruction may count in */
	bool nested;
	bool wrote;		/* the guest's WRMSR left to the hypervisor ... */
};

static uint64_t low32_sign(uint64_t value)
{
	value &= MASK(32);
	return value & BIT(31) ? value | ~MASK(32) : value;
}

/* ... was to counter @bit; *value is what a full write would leave there. */
static bool wrote_counter(const struct change *change, unsigned int bit,
			  uint64_t *value)
{
	const struct pmu_exit *exit = &change->guest->exit;

	if (!change->wrote)
		return false;
	*value = exit->value;
	if (bit >= FIXED_SHIFT)
		return exit->msr == MSR_FIXED_CTR0 + bit - FIXED_SHIFT;
	if (exit->msr == MSR_PERFCTR0 + bit)
		*value = low32_sign(exit->value);
	return exit->msr == MSR_PERFCTR0 + bit || exit->msr == MSR_PMC0 + bit;
}

static enum explanation explain_counter(const struct change *change,
					const struct pmu *pmu, unsigned int bit)
{
	uint64_t mask = MASK(counter_width(pmu, bit)), value;
	uint64_t was = change->was->value[held_index(bit)];
	uint64_t is = change->is->value[held_index(bit)];
	uint64_t one = !!(change->retired & BIT(bit));

	if (wrote_counter(change, bit, &value) &&
	    (is == (value & mask) || is == ((value + one) & mask)))
		return BY_WRITE;
	if (one && is == ((was + 1) & mask))
		return BY_INSTRUCTION;
	return UNEXPLAINED;
}

/* Overflow bits of the counters that one emulated instruction made wrap. */
static uint64_t wrapped(const struct change *change, const struct pmu *pmu)
{
	uint64_t bits, mask, value, result = 0;
	unsigned int bit;

	for (bits = change->retired; bits; bits &= bits - 1) {
		bit = first_bit(bits);
		mask = MASK(counter_width(pmu, bit));
		if (!wrote_counter(change, bit, &value))
			value = change->was->value[held_index(bit)];
		if ((value & mask) == mask && !change->is->value[held_index(bit)])
			result |= BIT(bit);
	}
	return result;
}

static enum explanation explain_status(const struct change *change,
				       const struct pmu *pmu)
{
	const struct pmu_exit *exit = &change->guest->exit;
	uint64_t was = change->was->value[HELD_STATUS];
	uint64_t is = change->is->value[HELD_STATUS];
	uint64_t wraps = wrapped(change, pmu);

	if (is == (was | wraps))
		return BY_INSTRUCTION;
	if (!change->wrote)
		return UNEXPLAINED;
	if (exit->msr == MSR_GLOBAL_RESET && is == ((was & ~exit->value) | wraps))
		return BY_WRITE;
	if (exit->msr == MSR_GLOBAL_SET && is == (was | exit->value | wraps))
		return BY_WRITE;
	return UNEXPLAINED;
}

static enum explanation explain_ctrl(const struct change *change)
{
	const struct pmu_exit *exit = &change->guest->exit;

	if (change->wrote && exit->msr == MSR_GLOBAL_CTRL &&
	    change->is->value[HELD_CTRL] == exit->value)
		return BY_WRITE;
	return change->nested ? BY_NESTING : UNEXPLAINED;
}

static enum explanation explain_metrics(const struct change *change)
{
	const struct pmu_exit *exit = &change->guest->exit;
	const unsigned int slots = HELD_FIXED + SLOTS_INDEX;
	uint64_t is = change->is->value[HELD_METRICS], value;

	if (!change->is->value[slots] && !is &&
	    wrote_counter(change, FIXED_SHIFT + SLOTS_INDEX, &value))
		return BY_WRITE;
	if (!change->wrote || exit->msr != MSR_PERF_METRICS)
		return UNEXPLAINED;
	return is == exit->value ? BY_WRITE : UNEXPLAINED;
}

static enum explanation explain(const struct change *change,
				const struct pmu *pmu, unsigned int index)
{
	switch (index) {
	case HELD_METRICS:
		return explain_metrics(change);
	case HELD_STATUS:
		return explain_status(change, pmu);
	case HELD_CTRL:
		return explain_ctrl(change);
	}
	return explain_counter(change, pmu, held_bit(index));
}

/* One more line, unless there were enough since the last program began. */
static bool line_allowed(struct pmu *pmu)
{
	pmu->audit.lost++;
	pmu->machine->registry->lost++;
	return pmu->machine->registry->lost_lines++ < MAX_LINES;
}

static bool is_nested(const struct pmu *pmu, const struct guest *guest)
{
	return guest->vmcs != pmu->context.vmcs ||
	       guest->exit.reason == EXIT_VMLAUNCH ||
	       guest->exit.reason == EXIT_VMRESUME;
}

static void report_lost(struct pmu *pmu, const struct guest *guest,
			unsigned int index, uint64_t was, uint64_t is)
{
	const struct pmu_exit *exit = &guest->exit;
	struct line line = { 0 };

	if (!line_allowed(pmu))
		return;
	line_add(&line, "{\"type\":\"lost\",\"cpu\":%u,\"owner\":", pmu->cpu);
	line_owner(&line, pmu->account);
	line_add(&line, ",\"reg\":\"");
	name_of(&line, index);
	line_add(&line, "\",\"exit_value\":\"0x%" PRIx64 "\",\"entry_value\":\"0x%"
		 PRIx64 "\",\"nested\":%s", was, is,
		 is_nested(pmu, guest) ? "true" : "false");
	line_add(&line, ",\"user\":%s",
		 guest->user_entries != pmu->machine->registry->user_entries ?
		 "true" : "false");
	line_add(&line, ",\"exit_cpu\":%u,\"reason\":%u,\"vector\":%u,\"msr\":\"0x%x\""
		 ",\"cpl\":%u,\"rip\":\"0x%" PRIx64 "\",\"exit_vmcs\":\"0x%" PRIx64
		 "\"", guest->cpu, exit->reason, exit->vector, exit->msr,
		 guest->cpl, guest->rip, guest->vmcs);
	add_history(&line, &pmu->audit);
	line_add(&line, "}");
	pmu->ops->emit(pmu->opaque, line.text);
}

static void report_sum(struct pmu *pmu, const struct guest *guest,
		       unsigned int index)
{
	const struct sum *sum = &guest->sum[index];
	struct line line = { 0 };

	if (!line_allowed(pmu))
		return;
	line_add(&line, "{\"type\":\"lost\",\"cpu\":%u,\"owner\":\"0x%" PRIx64
		 "\",\"reg\":\"", pmu->cpu, guest->owner);
	name_of(&line, index);
	line_add(&line, "\",\"last\":\"0x%" PRIx64 "\",\"first\":\"0x%" PRIx64 "\"",
		 guest->held.value[index], sum->first);
	line_add(&line, ",\"counted\":\"0x%" PRIx64 "\",\"written\":\"0x%" PRIx64
		 "\",\"changed\":\"0x%" PRIx64 "\",\"exit_cpu\":%u}", sum->counted,
		 sum->written, sum->changed, guest->cpu);
	pmu->ops->emit(pmu->opaque, line.text);
}

void conserve_compare(struct pmu *pmu, struct guest *guest)
{
	struct held is = guest->held;
	struct change change = {
		.guest = guest, .was = &guest->held, .is = &is,
		.nested = is_nested(pmu, guest),
	};
	enum explanation explanation;
	unsigned int i;

	pmu->audit.audited++;
	pmu->audit.compared += guest->nr_owned;
	take(pmu, guest->owned, &is);
	if (!memcmp(&is, &guest->held, sizeof(is)))
		return;

	if (may_emulate(&guest->exit))
		change.retired = guest->retired |
				 retired_counters(pmu, guest->owned, guest->cpl) |
				 retired_counters(pmu, guest->owned, pmu->context.cpl);
	change.wrote = guest->exit.reason == EXIT_WRMSR ||
		       (guest->exit.reason == EXIT_EXCEPTION_NMI &&
			guest->exit.vector == VECTOR_UD);

	for (i = 0; i < NR_HELD; i++) {
		/* A counter that wrapped must have changed the status. */
		if (is.value[i] == guest->held.value[i] &&
		    !(i == HELD_STATUS && wrapped(&change, pmu) & ~is.value[i]))
			continue;
		explanation = explain(&change, pmu, i);
		pmu->audit.explained[explanation]++;
		if (i < NR_COUNTERS)
			guest->sum[i].changed += is.value[i] - guest->held.value[i];
		if (explanation == UNEXPLAINED)
			report_lost(pmu, guest, i, guest->held.value[i], is.value[i]);
	}
}

/* Do the books of each counter add up to what it held last? */
static void check_sums(struct pmu *pmu, const struct guest *guest)
{
	uint64_t bits = guest->owned & ~BIT(METRICS_BIT);
	const struct sum *sum;
	unsigned int bit, i;

	if (!guest->away)
		return;
	for (; bits; bits &= bits - 1) {
		bit = first_bit(bits);
		i = held_index(bit);
		sum = &guest->sum[i];
		pmu->audit.sums++;
		if ((sum->first + sum->counted + sum->written + sum->changed -
		     guest->held.value[i]) & MASK(counter_width(pmu, bit)))
			report_sum(pmu, guest, i);
	}
}

/* The guest has got @owned, too: from now on these are its. */
void conserve_give(struct pmu *pmu, struct guest *guest, uint64_t owned)
{
	uint64_t bits = owned & pmu->counter_bits & ~guest->owned;
	unsigned int index;

	guest->owned |= bits;
	guest->nr_owned = __builtin_popcountll(guest->owned) + 2;
	take(pmu, bits, &guest->held);
	for (; bits; bits &= bits - 1) {
		index = held_index(first_bit(bits));
		if (index < NR_COUNTERS)
			guest->sum[index] = (struct sum){
				.first = guest->held.value[index]
			};
	}
}

/* The guest leaves: what it has to find again. */
void conserve_leave(struct pmu *pmu, struct guest *guest, const struct pmu_exit *exit)
{
	if (!guest->owned)
		return;
	guest->exit = *exit;
	guest->cpu = pmu->cpu;
	guest->cpl = pmu->context.cpl;
	guest->rip = exit->rip;
	guest->user_entries = pmu->machine->registry->user_entries;
	take(pmu, guest->owned, &guest->held);
	guest->retired = may_emulate(exit) ?
			 retired_counters(pmu, guest->owned, guest->cpl) : 0;
	guest->away = true;
}

/* The guest is no more, and its successor has got nothing yet. */
void conserve_end(struct pmu *pmu, struct guest *guest)
{
	check_sums(pmu, guest);
	guest->owned = 0;
	guest->away = false;
}

/* All CPUs share the books: the first one to end closes them. */
void conserve_close(struct pmu *pmu)
{
	struct registry *registry = pmu->machine->registry;
	struct guest *guest;

	if (registry->closed)
		return;
	registry->closed = true;
	for (guest = registry->guests; guest; guest = guest->next)
		check_sums(pmu, guest);
}
