// SPDX-License-Identifier: GPL-2.0
/*
 * RDMSR, WRMSR and RDPMC: which registers exist, which bits are reserved.
 * Where no other source is given it is the SDM, vol. 3B, "Performance
 * Monitoring", and vol. 4, table 2-2.
 */
#include "internal.h"

/*
 * Registers of PEBS and BTS, which no machine here has.  They fault, because
 * Linux would believe in a register that takes writes silently.  Registers that
 * only surround the PMU (LBR, offcore response) are the emulator's.
 */
static const struct {
	uint32_t first;
	uint32_t last;
} absent[] = {
	{ 0x3f1, 0x3f2 },	/* PEBS_ENABLE, PEBS_DATA_CFG */
	{ 0x600, 0x600 },	/* DS_AREA */
};

/* A register of a family: which family, which member. */
enum family {
	NOT_MINE,
	ABSENT,
	LEGACY_COUNTER,		/* 0xC1.. */
	FULL_COUNTER,		/* 0x4C1.. */
	SELECTOR,
	FIXED_COUNTER,
	SINGLE,
};

/* Does @msr fall in @n registers from @base?  Then *index is which. */
static bool within(uint32_t msr, uint32_t base, uint32_t n, unsigned int *index)
{
	if (msr < base || msr - base >= n)
		return false;
	*index = msr - base;
	return true;
}

static bool has_fixed(const struct pmu *pmu, unsigned int index)
{
	return index < PMU_MAX_FIXED && pmu->machine->fixed_bitmap & BIT(index);
}

static enum family single(const struct pmu *pmu, uint32_t msr)
{
	switch (msr) {
	case MSR_MISC_ENABLE:
	case MSR_FIXED_CTR_CTRL:
	case MSR_GLOBAL_STATUS:
	case MSR_GLOBAL_CTRL:
	case MSR_GLOBAL_RESET:
		return SINGLE;
	case MSR_GLOBAL_SET:
	case MSR_GLOBAL_INUSE:
		return pmu->machine->version >= 4 ? SINGLE : ABSENT;
	case MSR_PERF_CAPABILITIES:
		return pmu->machine->pdcm ? SINGLE : ABSENT;
	case MSR_PERF_METRICS:
		return pmu_has_metrics(pmu) ? SINGLE : ABSENT;
	}
	return NOT_MINE;
}

static enum family classify(const struct pmu *pmu, uint32_t msr,
			    unsigned int *index)
{
	unsigned int i;

	if (within(msr, MSR_PERFCTR0, PMU_MAX_GP, index))
		return *index < pmu->machine->gp_counters ? LEGACY_COUNTER : ABSENT;
	if (within(msr, MSR_PMC0, PMU_MAX_GP, index))
		return *index < pmu->machine->gp_counters &&
		       pmu->capabilities & CAP_FULL_WIDTH ? FULL_COUNTER : ABSENT;
	if (within(msr, MSR_PERFEVTSEL0, PMU_MAX_GP, index))
		return *index < pmu->machine->gp_counters ? SELECTOR : ABSENT;
	if (within(msr, MSR_FIXED_CTR0, PMU_MAX_FIXED, index))
		return has_fixed(pmu, *index) ? FIXED_COUNTER : ABSENT;
	for (i = 0; i < ARRAY_SIZE(absent); i++) {
		if (msr >= absent[i].first && msr <= absent[i].last)
			return ABSENT;
	}
	return single(pmu, msr);
}

/* Reads that show counts go through the audit. */

static uint64_t read_gp(struct pmu *pmu, unsigned int index)
{
	struct counter *counter = &pmu->gp[index];

	audit_read(pmu, "PMC", index, counter->value, &counter->holders);
	return counter->value;
}

static uint64_t read_fixed(struct pmu *pmu, unsigned int index)
{
	struct counter *counter = &pmu->fixed[index];

	audit_read(pmu, "FIXED_CTR", index, counter->value, &counter->holders);
	return counter->value;
}

/* The fields tell of both the hidden counts and counter 3. */
static uint64_t read_metrics(struct pmu *pmu)
{
	struct holders holders = pmu->hidden_holders;
	uint64_t value = pmu_metrics(pmu);

	holders_merge(&holders, &pmu->fixed[SLOTS_INDEX].holders);
	audit_read(pmu, "PERF_METRICS", 0, value, &holders);
	return value;
}

static uint64_t read_status(struct pmu *pmu)
{
	audit_status(pmu, pmu->global_status);
	return pmu->global_status;
}

/*
 * Bit i: the event select of general counter i is not 0; bit 32 + i: fixed
 * counter i counts at some level; bit 63: some counter interrupts.
 */
static uint64_t read_inuse(const struct pmu *pmu)
{
	uint64_t value = 0, control;
	unsigned int i;

	for (i = 0; i < pmu->machine->gp_counters; i++) {
		if (pmu->selector[i] & 0xff)
			value |= BIT(i);
		if (pmu->selector[i] & SEL_INT)
			value |= BIT(63);
	}
	for (i = 0; i < PMU_MAX_FIXED; i++) {
		control = pmu->fixed_ctrl >> 4 * i;
		if (control & (FIXED_OS | FIXED_USR))
			value |= BIT(FIXED_SHIFT + i);
		if (control & FIXED_PMI)
			value |= BIT(63);
	}
	return value;
}

static uint64_t read_single(struct pmu *pmu, uint32_t msr)
{
	switch (msr) {
	case MSR_MISC_ENABLE:
		return pmu->misc_enable;
	case MSR_PERF_METRICS:
		return read_metrics(pmu);
	case MSR_PERF_CAPABILITIES:
		return pmu->capabilities;
	case MSR_FIXED_CTR_CTRL:
		return pmu->fixed_ctrl;
	case MSR_GLOBAL_STATUS:
		return read_status(pmu);
	case MSR_GLOBAL_CTRL:
		return pmu->global_ctrl;
	case MSR_GLOBAL_INUSE:
		return read_inuse(pmu);
	}
	return 0;	/* GLOBAL_STATUS_RESET and _SET read as 0 [HW] */
}

static enum pmu_result read_register(struct pmu *pmu, uint32_t msr, uint64_t *value)
{
	unsigned int index;

	switch (classify(pmu, msr, &index)) {
	case NOT_MINE:
		return PMU_NOT_MINE;
	case ABSENT:
		return PMU_GP;
	case LEGACY_COUNTER:
	case FULL_COUNTER:
		*value = read_gp(pmu, index);
		return PMU_OK;
	case SELECTOR:
		*value = pmu->selector[index];
		return PMU_OK;
	case FIXED_COUNTER:
		*value = read_fixed(pmu, index);
		return PMU_OK;
	case SINGLE:
		*value = read_single(pmu, msr);
		return PMU_OK;
	}
	return PMU_NOT_MINE;
}

enum pmu_result pmu_rdmsr(struct pmu *pmu, uint32_t msr, uint64_t *value)
{
	enum pmu_result result = read_register(pmu, msr, value);

	if (result == PMU_OK)
		access_rdmsr(pmu, msr);
	return result;
}

/* Counter @bit takes @value; what it held is gone. */
static enum pmu_result write_counter(struct pmu *pmu, unsigned int bit,
				     uint64_t value)
{
	struct counter *counter = pmu_counter(pmu, bit);

	if (value & ~MASK(counter_width(pmu, bit)))
		return PMU_GP;
	conserve_write(pmu, bit, counter->value, value);
	counter->value = value;
	holders_clear(&counter->holders);
	return PMU_OK;
}

/* Writes to 0xC1.. take 32 bits and extend the sign; EDX is ignored. */
static enum pmu_result write_legacy(struct pmu *pmu, unsigned int index,
				    uint64_t value)
{
	uint64_t extended = value & MASK(32);

	if (extended & BIT(31))
		extended |= ~MASK(32);
	return write_counter(pmu, index, extended & MASK(pmu->machine->gp_width));
}

/*
 * Bits 63:32 are for TSX (IN_TX, IN_TXCP) and adaptive PEBS, which no machine
 * here has.  Pin control (19) is a bit without effect.
 */
static enum pmu_result write_selector(struct pmu *pmu, unsigned int index,
				      uint64_t value)
{
	uint64_t valid = MASK(32);

	if (!machine_has_anythread(pmu->machine))
		valid &= ~SEL_ANY;
	if (value & ~valid)
		return PMU_GP;
	pmu->selector[index] = value;
	return PMU_OK;
}

static enum pmu_result write_fixed_ctrl(struct pmu *pmu, uint64_t value)
{
	uint64_t nibble = FIXED_OS | FIXED_USR | FIXED_PMI, valid = 0;
	unsigned int i;

	if (machine_has_anythread(pmu->machine))
		nibble |= FIXED_ANY;
	for (i = 0; i < PMU_MAX_FIXED; i++) {
		if (has_fixed(pmu, i))
			valid |= nibble << 4 * i;
	}
	if (value & ~valid)
		return PMU_GP;
	pmu->fixed_ctrl = value;
	return PMU_OK;
}

/*
 * [HW]: whether Ice Lake, with four fields, faults on bits 63:32 or ignores
 * them.  The value is checked before anything changes.
 */
static enum pmu_result write_metrics(struct pmu *pmu, uint64_t value)
{
	const struct pmu_machine *machine = pmu->machine;

	if (value & ~MASK(8 * machine->metrics)) {
		if (!machine->metrics_ignore)
			return PMU_GP;
		value &= MASK(8 * machine->metrics);
	}
	metrics_write(machine, pmu->fixed[SLOTS_INDEX].value, value, pmu->hidden);
	holders_clear(&pmu->hidden_holders);
	return PMU_OK;
}

/* Overflow and freeze bits that exist; uncore and buffer are never set here. */
static uint64_t status_bits(const struct pmu *pmu)
{
	uint64_t bits = pmu->counter_bits | STATUS_UNCORE | STATUS_BUFFER;

	if (pmu->machine->version >= 4)
		bits |= STATUS_LBR_FRZ | STATUS_CTR_FRZ;
	if (pmu->machine->asci)
		bits |= STATUS_ASCI;
	return bits;
}

static void forget_status(struct pmu *pmu, uint64_t bits)
{
	unsigned int bit;

	for (bit = 0; bit < 64; bit++) {
		if (bits & BIT(bit))
			holders_clear(&pmu->status_holders[bit]);
	}
}

/* CondChgd (63) can be cleared but not set. */
static enum pmu_result write_reset(struct pmu *pmu, uint64_t value)
{
	if (value & ~(status_bits(pmu) | STATUS_COND_CHGD))
		return PMU_GP;
	pmu->global_status &= ~value;
	forget_status(pmu, value);
	return PMU_OK;
}

/* Sets bits for a hypervisor; raises no PMI. */
static enum pmu_result write_set(struct pmu *pmu, uint64_t value)
{
	if (value & ~status_bits(pmu))
		return PMU_GP;
	forget_status(pmu, value & ~pmu->global_status);
	pmu->global_status |= value;
	return PMU_OK;
}

/*
 * Fast strings, TCC, EIST, MONITOR, xTPR and turbo are bits without effect
 * here.  Bits 7, 11 and 12 are read-only: writes to them are ignored.  Others
 * would change CPUID or the page tables, which the model cannot.
 */
static enum pmu_result write_misc_enable(struct pmu *pmu, uint64_t value)
{
	const uint64_t readonly = BIT(7) | BIT(11) | BIT(12);
	const uint64_t stored = BIT(0) | BIT(3) | BIT(16) | BIT(18) | BIT(23) |
				BIT(38);

	if (value & ~(readonly | stored))
		return PMU_GP;
	pmu->misc_enable = (value & stored) | (pmu->misc_enable & readonly);
	return PMU_OK;
}

static enum pmu_result write_single(struct pmu *pmu, uint32_t msr, uint64_t value)
{
	switch (msr) {
	case MSR_MISC_ENABLE:
		return write_misc_enable(pmu, value);
	case MSR_PERF_METRICS:
		return write_metrics(pmu, value);
	case MSR_FIXED_CTR_CTRL:
		return write_fixed_ctrl(pmu, value);
	case MSR_GLOBAL_CTRL:
		if (!pmu_global_ctrl_valid(pmu, value))
			return PMU_GP;
		pmu->global_ctrl = value;
		return PMU_OK;
	case MSR_GLOBAL_RESET:
		return write_reset(pmu, value);
	case MSR_GLOBAL_SET:
		return write_set(pmu, value);
	}
	return PMU_GP;	/* PERF_CAPABILITIES, GLOBAL_STATUS, GLOBAL_INUSE: read-only */
}

static enum pmu_result write_register(struct pmu *pmu, uint32_t msr,
				      uint64_t value)
{
	unsigned int index;

	switch (classify(pmu, msr, &index)) {
	case NOT_MINE:
		return PMU_NOT_MINE;
	case ABSENT:
		return PMU_GP;
	case LEGACY_COUNTER:
		return write_legacy(pmu, index, value);
	case FULL_COUNTER:
		return write_counter(pmu, index, value);
	case SELECTOR:
		return write_selector(pmu, index, value);
	case FIXED_COUNTER:
		/* [HW]: bits above the width fault, as in full-width writes. */
		return write_counter(pmu, FIXED_SHIFT + index, value);
	case SINGLE:
		return write_single(pmu, msr, value);
	}
	return PMU_NOT_MINE;
}

enum pmu_result pmu_wrmsr(struct pmu *pmu, uint32_t msr, uint64_t value)
{
	enum pmu_result result = write_register(pmu, msr, value);

	if (result == PMU_OK) {
		access_wrmsr(pmu, msr);
		pmu_configure(pmu);
	}
	return result;
}

enum pmu_result pmu_rdpmc(struct pmu *pmu, uint32_t ecx, uint64_t *value)
{
	unsigned int index = ecx & 0xffff;

	switch (ecx >> 16) {
	case RDPMC_GP:
		if (index >= pmu->machine->gp_counters)
			return PMU_GP;
		access_rdpmc(pmu, index);
		*value = read_gp(pmu, index);
		return PMU_OK;
	case RDPMC_FIXED:
		if (!has_fixed(pmu, index))
			return PMU_GP;
		access_rdpmc(pmu, FIXED_SHIFT + index);
		*value = read_fixed(pmu, index);
		return PMU_OK;
	case RDPMC_METRICS:
		if (index || !pmu_has_metrics(pmu))
			return PMU_GP;
		access_rdpmc(pmu, METRICS_BIT);
		*value = read_metrics(pmu);
		return PMU_OK;
	}
	return PMU_GP;
}
