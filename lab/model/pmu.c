// SPDX-License-Identifier: GPL-2.0
/*
 * One logical CPU's PMU: what counts when, overflow, freeze, the deadline.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/*
 * SDM table "IA-32 and Intel 64 Processor States Following Power-up, Reset, or
 * INIT": everything is 0, but GLOBAL_CTRL enables the general counters.
 * MISC_ENABLE: fast strings (0), PMU available (7), BTS (11) and PEBS (12)
 * unavailable, MONITOR (18).
 */
static void reset_registers(struct pmu *pmu)
{
	memset(pmu->selector, 0, sizeof(pmu->selector));
	memset(pmu->gp, 0, sizeof(pmu->gp));
	memset(pmu->fixed, 0, sizeof(pmu->fixed));
	memset(pmu->hidden, 0, sizeof(pmu->hidden));
	memset(&pmu->hidden_holders, 0, sizeof(pmu->hidden_holders));
	memset(pmu->status_holders, 0, sizeof(pmu->status_holders));
	pmu->fixed_ctrl = 0;
	pmu->global_ctrl = MASK(pmu->machine->gp_counters);
	pmu->global_status = 0;
	pmu->misc_enable = BIT(0) | BIT(7) | BIT(11) | BIT(12) | BIT(18);
	pmu->freeze_on_pmi = false;
}

static void hold_before(struct pmu *pmu, struct holders *holders, uint64_t value)
{
	if (value)
		holders_add(holders, &pmu->before);
}

/*
 * What the machine says that somebody left there before Linux.  No guest and no user may see it,
 * hence it has an owner of its own.  The event counts on, for whoever runs.
 */
static void take_over(struct pmu *pmu)
{
	const struct pmu_machine *machine = pmu->machine;
	const struct before *before = &machine->before;
	uint64_t bits, value;
	unsigned int i;

	for (i = 0; i < machine->gp_counters; i++) {
		pmu->gp[i].value = before->gp;
		hold_before(pmu, &pmu->gp[i].holders, before->gp);
		if (before->selectors & BIT(i))
			pmu->selector[i] = before->selector;
	}
	for (bits = machine->fixed_bitmap; bits; bits &= bits - 1) {
		i = first_bit(bits);
		value = i == SLOTS_INDEX ? before->slots : before->fixed;
		pmu->fixed[i].value = value;
		hold_before(pmu, &pmu->fixed[i].holders, value);
	}
	if (pmu_has_metrics(pmu)) {
		metrics_write(machine, before->slots, before->metrics, pmu->hidden);
		hold_before(pmu, &pmu->hidden_holders, before->metrics);
	}
	pmu->fixed_ctrl = before->fixed_ctrl;
	pmu->global_ctrl |= before->global_ctrl & pmu->counter_bits;
	pmu->global_status = before->status & pmu->counter_bits;
	for (i = 0; i < 64; i++)
		hold_before(pmu, &pmu->status_holders[i], pmu->global_status & BIT(i));
}

void pmu_reset(struct pmu *pmu)
{
	struct pmu_context context = { 0 };

	reset_registers(pmu);
	take_over(pmu);
	pmu_configure(pmu);
	pmu_set_context(pmu, &context);
}

struct pmu *pmu_create(const struct pmu_machine *machine, unsigned int cpu,
		       const struct pmu_ops *ops, void *opaque)
{
	struct pmu *pmu = calloc(1, sizeof(*pmu));

	if (!pmu)
		return NULL;
	pmu->machine = machine;
	pmu->ops = ops;
	pmu->opaque = opaque;
	pmu->cpu = cpu;
	pmu->capabilities = machine_capabilities(machine, cpu);
	pmu->counter_bits = MASK(machine->gp_counters) |
			    machine->fixed_bitmap << FIXED_SHIFT;
	if (pmu_has_metrics(pmu))
		pmu->counter_bits |= BIT(METRICS_BIT);
	pmu->account = &pmu->root;
	pmu->departed.nonroot = true;
	pmu->departed.owner = DEPARTED;
	pmu->before.nonroot = true;
	pmu->before.owner = BEFORE;
	pmu->next = machine->registry->pmus;
	machine->registry->pmus = pmu;
	if (!cpu)
		truth_machine(pmu);
	pmu_reset(pmu);
	return pmu;
}

void pmu_destroy(struct pmu *pmu)
{
	struct pmu **link;

	if (!pmu)
		return;
	for (link = &pmu->machine->registry->pmus; *link != pmu; link = &(*link)->next)
		;
	*link = pmu->next;
	account_free(pmu);
	free(pmu);
}

static bool counter_interrupts(const struct pmu *pmu, unsigned int bit)
{
	if (bit >= FIXED_SHIFT)
		return pmu->fixed_ctrl >> 4 * (bit - FIXED_SHIFT) & FIXED_PMI;
	return pmu->selector[bit] & SEL_INT;
}

/* How much may be counted before the hidden count of a metric overflows. */
static uint64_t metrics_room(const struct pmu *pmu)
{
	uint64_t limit = METRICS_ONE << pmu->machine->fixed_width;
	uint64_t highest = 0;
	unsigned int i;

	for (i = 0; i < pmu->machine->metrics; i++) {
		if (pmu->hidden[i] > highest)
			highest = pmu->hidden[i];
	}
	return (limit - highest) / METRICS_ONE;
}

/* How many events an instruction can cause in counter @bit. */
static uint64_t counter_rate(const struct pmu *pmu, unsigned int bit)
{
	enum quantity quantity = Q_SLOTS;

	if (bit != METRICS_BIT)
		quantity = counter_quantity(pmu, bit);
	/* Inverted, a counter mask counts cycles without events. */
	if (bit < FIXED_SHIFT && pmu->selector[bit] & SEL_INV)
		quantity = Q_CYCLES;
	return quantity_per_instruction(pmu->machine, quantity);
}

/* How many instructions counter @bit surely, or very likely, has room for. */
static uint64_t counter_deadline(struct pmu *pmu, unsigned int bit)
{
	const uint64_t skid = 64;
	uint64_t room, rate = counter_rate(pmu, bit), due;

	if (!rate)
		return UINT64_MAX;
	if (bit == METRICS_BIT)
		room = metrics_room(pmu);
	else
		room = BIT(counter_width(pmu, bit)) - pmu_counter(pmu, bit)->value;
	due = room / rate;
	return rate > 1 && due < skid ? skid : due;
}

/*
 * Ask for a call before the next overflow that interrupts.  The last steps are
 * 64 instructions long at least for events that an instruction can cause many
 * of: the skid of a PMI on hardware is not smaller, and steps that shrink to
 * nothing would be slow.  The counter keeps what it counted beyond.
 */
static void set_deadline(struct pmu *pmu)
{
	const uint64_t horizon = BIT(32);
	uint64_t bits = pmu->active[!!pmu->context.cpl] & pmu->interrupting;
	uint64_t deadline = horizon, due;

	if (!bits && !pmu->deadline_set)
		return;
	pmu->deadline_set = bits;
	for (; bits; bits &= bits - 1) {
		due = counter_deadline(pmu, first_bit(bits));
		if (due < deadline)
			deadline = due;
	}
	pmu->ops->deadline(pmu->opaque, pmu->deadline_set ? deadline : 0);
}

/*
 * Derive what counts from the registers.  A frozen PMU counts nothing (SDM,
 * "Streamlined Freeze Performance Monitor on PMI").  PERF_METRICS counts while
 * counter 3 does [HW]: its fields are fractions of that counter.
 */
void pmu_configure(struct pmu *pmu)
{
	uint64_t bits = pmu->global_ctrl & ~BIT(METRICS_BIT);
	unsigned int bit, level, levels;

	pmu->active[0] = 0;
	pmu->active[1] = 0;
	pmu->interrupting = 0;
	if (pmu->global_status & STATUS_CTR_FRZ)
		bits = 0;

	for (; bits; bits &= bits - 1) {
		bit = first_bit(bits);
		levels = counter_levels(pmu, bit);
		for (level = 0; level < 2; level++) {
			if (levels & 1 << level)
				pmu->active[level] |= BIT(bit);
		}
		if (counter_interrupts(pmu, bit))
			pmu->interrupting |= BIT(bit);
	}
	for (level = 0; level < 2; level++) {
		if (pmu->global_ctrl & BIT(METRICS_BIT) &&
		    pmu->active[level] & BIT(FIXED_SHIFT + SLOTS_INDEX))
			pmu->active[level] |= BIT(METRICS_BIT);
	}
	pmu->interrupting |= pmu->global_ctrl & BIT(METRICS_BIT);
	set_deadline(pmu);
}

/* Count in one counter; true when it overflowed. */
static bool count(struct pmu *pmu, unsigned int bit,
		  const uint64_t q[NR_QUANTITY])
{
	struct counter *counter = pmu_counter(pmu, bit);
	uint64_t limit = BIT(counter_width(pmu, bit));
	unsigned int fixed = bit - FIXED_SHIFT;
	uint64_t n;

	if (bit < FIXED_SHIFT)
		n = event_count(pmu->machine, pmu->selector[bit], q);
	else
		n = q[fixed_quantity(fixed)];
	if (!n)
		return false;

	holders_add(&counter->holders, pmu->account);
	if (bit >= FIXED_SHIFT && fixed <= SLOTS_INDEX)
		pmu->account->fixed[fixed] += n;
	if (pmu->account->guest)
		pmu->account->guest->sum[held_index(bit)].counted += n;
	counter->value += n;
	if (counter->value < limit)
		return false;
	counter->value &= limit - 1;
	return true;
}

/*
 * SDM on GLOBAL_STATUS bit 48: "PERF_METRICS counter has overflowed and a PMI is
 * triggered; however, an overflow of fixed counter 3 should normally happen
 * first."  [HW]: read as a hidden count that reaches the counters' width, with
 * a PMI that no enable bit of its own can prevent.
 */
static bool count_metrics(struct pmu *pmu, const uint64_t q[NR_QUANTITY])
{
	uint64_t limit = METRICS_ONE << pmu->machine->fixed_width;
	bool overflow = false;
	unsigned int i;
	uint64_t n;

	if (!q[Q_SLOTS])
		return false;
	holders_add(&pmu->hidden_holders, pmu->account);
	for (i = 0; i < pmu->machine->metrics; i++) {
		n = q[Q_RETIRING + i];
		pmu->account->metrics[i] += n;
		pmu->hidden[i] += n * METRICS_ONE;
		if (pmu->hidden[i] >= limit) {
			pmu->hidden[i] -= limit;
			overflow = true;
		}
	}
	return overflow;
}

/*
 * FREEZE_PERFMON_ON_PMI: from version 4 on GLOBAL_STATUS.CTR_FRZ stops all
 * counters until it is cleared; before, GLOBAL_CTRL is cleared (SDM, "Freezing
 * LBR and Performance Counters on PMI").  Other counters have by then counted
 * to the end of this call, not to the instruction that overflowed.
 */
static void freeze(struct pmu *pmu)
{
	if (!pmu->freeze_on_pmi)
		return;
	if (pmu->machine->version >= 4)
		pmu->global_status |= STATUS_CTR_FRZ;
	else
		pmu->global_ctrl = 0;
}

static void overflowed(struct pmu *pmu, uint64_t overflow)
{
	uint64_t bits;
	unsigned int bit;
	const struct holders *holders;

	pmu->global_status |= overflow;
	for (bits = overflow; bits; bits &= bits - 1) {
		bit = first_bit(bits);
		holders = bit == METRICS_BIT ? &pmu->hidden_holders :
					       &pmu_counter(pmu, bit)->holders;
		holders_merge(&pmu->status_holders[bit], holders);
	}
	if (overflow & pmu->interrupting) {
		freeze(pmu);
		audit_pmi(pmu, overflow & pmu->interrupting);
		pmu_configure(pmu);
		pmu->ops->pmi(pmu->opaque);
	}
}

void pmu_advance(struct pmu *pmu, const uint64_t delta[PMU_NR_WORK])
{
	uint64_t bits = pmu->active[!!pmu->context.cpl];
	uint64_t q[NR_QUANTITY], overflow = 0;
	unsigned int i, bit;

	/* "Contributions from operation of SGX": some enclave in the guest runs. */
	if (pmu->machine->asci && pmu->context.nonroot && bits)
		pmu->global_status |= STATUS_ASCI;

	slots_attribute(pmu->machine, delta, q);
	for (i = 0; i < NR_QUANTITY; i++)
		pmu->account->done[i] += q[i];

	for (; bits; bits &= bits - 1) {
		bit = first_bit(bits);
		if (bit == METRICS_BIT ? count_metrics(pmu, q) : count(pmu, bit, q))
			overflow |= BIT(bit);
	}
	if (overflow)
		overflowed(pmu, overflow);
	set_deadline(pmu);
}

void pmu_set_context(struct pmu *pmu, const struct pmu_context *context)
{
	struct account *account = pmu->account;

	if (account->nonroot != context->nonroot ||
	    (context->nonroot && account->owner != context->owner))
		account = account_of(pmu, context->nonroot, context->owner);
	if (account != pmu->account) {
		account->switches++;
		audit_switch(pmu, account, context);
	}
	if (!context->nonroot && context->cpl &&
	    (pmu->context.nonroot || !pmu->context.cpl))
		pmu->machine->registry->user_entries++;
	pmu->account = account;
	if (account->nonroot)
		pmu->last_guest = account;
	pmu->context = *context;
	pmu->leaving = false;
	set_deadline(pmu);
}

void pmu_set_freeze_on_pmi(struct pmu *pmu, bool freeze)
{
	pmu->freeze_on_pmi = freeze;
}
