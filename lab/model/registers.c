// SPDX-License-Identifier: GPL-2.0
/*
 * RDMSR, WRMSR and RDPMC: which registers exist, which bits are reserved, as one
 * table, regs[], with what it refers to before it.
 * Where no other source is given it is the SDM, vol. 3B, "Performance
 * Monitoring", and vol. 4, table 2-2.
 */
#include "internal.h"

#define __always_unused	__attribute__((unused))

/**
 * struct reg - an MSR, or several of one kind with consecutive numbers
 * @msr: its number, or the first one's
 * @nr: how many there can be
 * @present: a bit for each of them that this CPU has; the others fault
 * @bits: those that a write can have set, all others are reserved; NULL if no
 *	  write is taken at all
 * @read: what RDMSR returns of the one with that index
 * @write: what a WRMSR without reserved bits does
 * @at: for NULL in place of @read or @write: where in struct pmu the value is
 */
struct reg {
	uint32_t msr;
	uint32_t nr;
	uint64_t (*present)(const struct pmu *pmu);
	uint64_t (*bits)(const struct pmu *pmu);
	uint64_t (*read)(struct pmu *pmu, unsigned int index);
	void (*write)(struct pmu *pmu, unsigned int index, uint64_t value);
	size_t at;
};

/* Which registers exist. */

static uint64_t always(const struct pmu *pmu __always_unused)
{
	return 1;
}

static uint64_t never(const struct pmu *pmu __always_unused)
{
	return 0;
}

static uint64_t since_version_4(const struct pmu *pmu)
{
	return pmu->machine->version >= 4;
}

static uint64_t with_pdcm(const struct pmu *pmu)
{
	return pmu->machine->pdcm;
}

static uint64_t with_metrics(const struct pmu *pmu)
{
	return pmu_has_metrics(pmu);
}

static uint64_t general_counters(const struct pmu *pmu)
{
	return MASK(pmu->machine->gp_counters);
}

static uint64_t full_width_counters(const struct pmu *pmu)
{
	return pmu->capabilities & CAP_FULL_WIDTH ? general_counters(pmu) : 0;
}

static uint64_t fixed_counters(const struct pmu *pmu)
{
	return pmu->machine->fixed_bitmap;
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
static uint64_t read_metrics(struct pmu *pmu, unsigned int index __always_unused)
{
	struct holders holders = pmu->hidden_holders;
	uint64_t value = pmu_metrics(pmu);

	holders_merge(&holders, &pmu->fixed[SLOTS_INDEX].holders);
	audit_read(pmu, "PERF_METRICS", 0, value, &holders);
	return value;
}

static uint64_t read_status(struct pmu *pmu, unsigned int index __always_unused)
{
	audit_status(pmu, pmu->global_status);
	return pmu->global_status;
}

/*
 * Bit i: the event select of general counter i is not 0; bit 32 + i: fixed
 * counter i counts at some level; bit 63: some counter interrupts.
 */
static uint64_t read_inuse(struct pmu *pmu, unsigned int index __always_unused)
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

/* GLOBAL_STATUS_RESET and _SET [HW] */
static uint64_t read_zero(struct pmu *pmu __always_unused, unsigned int index __always_unused)
{
	return 0;
}

/* Which bits can be written. */

/* Writes to 0xC1.. take 32 bits; EDX is ignored. */
static uint64_t any_bits(const struct pmu *pmu __always_unused)
{
	return MASK(64);
}

static uint64_t general_bits(const struct pmu *pmu)
{
	return MASK(pmu->machine->gp_width);
}

/* [HW]: bits above the width fault, as in full-width writes. */
static uint64_t fixed_bits(const struct pmu *pmu)
{
	return MASK(pmu->machine->fixed_width);
}

/*
 * Bits 63:32 are for TSX (IN_TX, IN_TXCP) and adaptive PEBS, which no machine
 * here has.  Pin control (19) is a bit without effect.
 */
static uint64_t selector_bits(const struct pmu *pmu)
{
	return machine_has_anythread(pmu->machine) ? MASK(32) : MASK(32) & ~SEL_ANY;
}

static uint64_t fixed_ctrl_bits(const struct pmu *pmu)
{
	uint64_t nibble = FIXED_OS | FIXED_USR | FIXED_PMI, bits = 0;
	unsigned int i;

	if (machine_has_anythread(pmu->machine))
		nibble |= FIXED_ANY;
	for (i = 0; i < PMU_MAX_FIXED; i++) {
		if (pmu->machine->fixed_bitmap & BIT(i))
			bits |= nibble << 4 * i;
	}
	return bits;
}

/* [HW]: whether Ice Lake, with four fields, faults on bits 63:32 or ignores them. */
static uint64_t metrics_bits(const struct pmu *pmu)
{
	return pmu->machine->metrics_ignore ? MASK(64) : MASK(8 * pmu->machine->metrics);
}

static uint64_t global_ctrl_bits(const struct pmu *pmu)
{
	return pmu->counter_bits;
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

/* CondChgd (63) can be cleared but not set. */
static uint64_t reset_bits(const struct pmu *pmu)
{
	return status_bits(pmu) | STATUS_COND_CHGD;
}

/*
 * Fast strings, TCC, EIST, MONITOR, xTPR and turbo are bits without effect
 * here.  Bits 7, 11 and 12 are read-only: writes to them are ignored.  Others
 * would change CPUID or the page tables, which the model cannot.
 */
#define MISC_STORED	(BIT(0) | BIT(3) | BIT(16) | BIT(18) | BIT(23) | BIT(38))
#define MISC_READONLY	(BIT(7) | BIT(11) | BIT(12))

static uint64_t misc_enable_bits(const struct pmu *pmu __always_unused)
{
	return MISC_STORED | MISC_READONLY;
}

/* What writes do. */

/* Counter @bit takes @value; what it held is gone. */
static void write_counter(struct pmu *pmu, unsigned int bit, uint64_t value)
{
	struct counter *counter = pmu_counter(pmu, bit);

	conserve_write(pmu, bit, counter->value, value);
	counter->value = value;
	holders_clear(&counter->holders);
}

/* The sign of the 32 bits is extended. */
static void write_legacy(struct pmu *pmu, unsigned int index, uint64_t value)
{
	uint64_t extended = value & MASK(32);

	if (extended & BIT(31))
		extended |= ~MASK(32);
	write_counter(pmu, index, extended & MASK(pmu->machine->gp_width));
}

static void write_fixed(struct pmu *pmu, unsigned int index, uint64_t value)
{
	write_counter(pmu, FIXED_SHIFT + index, value);
}

static void write_metrics(struct pmu *pmu, unsigned int index __always_unused, uint64_t value)
{
	const struct pmu_machine *machine = pmu->machine;

	metrics_write(machine, pmu->fixed[SLOTS_INDEX].value,
		      value & MASK(8 * machine->metrics), pmu->hidden);
	holders_clear(&pmu->hidden_holders);
}

static void forget_status(struct pmu *pmu, uint64_t bits)
{
	unsigned int bit;

	for (bit = 0; bit < 64; bit++) {
		if (bits & BIT(bit))
			holders_clear(&pmu->status_holders[bit]);
	}
}

static void write_reset(struct pmu *pmu, unsigned int index __always_unused, uint64_t value)
{
	pmu->global_status &= ~value;
	forget_status(pmu, value);
}

/* Sets bits for a hypervisor; raises no PMI. */
static void write_set(struct pmu *pmu, unsigned int index __always_unused, uint64_t value)
{
	forget_status(pmu, value & ~pmu->global_status);
	pmu->global_status |= value;
}

static void write_misc_enable(struct pmu *pmu, unsigned int index __always_unused,
			      uint64_t value)
{
	pmu->misc_enable = (value & MISC_STORED) | (pmu->misc_enable & MISC_READONLY);
}

#define AT(field)	.at = offsetof(struct pmu, field)

static const struct reg regs[] = {
	{ .msr = MSR_PERFCTR0, .nr = PMU_MAX_GP, .present = general_counters,
	  .read = read_gp, .bits = any_bits, .write = write_legacy },
	{ .msr = MSR_PMC0, .nr = PMU_MAX_GP, .present = full_width_counters,
	  .read = read_gp, .bits = general_bits, .write = write_counter },
	{ .msr = MSR_PERFEVTSEL0, .nr = PMU_MAX_GP, .present = general_counters,
	  .bits = selector_bits, AT(selector) },
	{ .msr = MSR_FIXED_CTR0, .nr = PMU_MAX_FIXED, .present = fixed_counters,
	  .read = read_fixed, .bits = fixed_bits, .write = write_fixed },
	{ .msr = MSR_PERF_METRICS, .nr = 1, .present = with_metrics,
	  .read = read_metrics, .bits = metrics_bits, .write = write_metrics },
	{ .msr = MSR_MISC_ENABLE, .nr = 1, .present = always,
	  .bits = misc_enable_bits, .write = write_misc_enable, AT(misc_enable) },
	{ .msr = MSR_PERF_CAPABILITIES, .nr = 1, .present = with_pdcm, AT(capabilities) },
	{ .msr = MSR_FIXED_CTR_CTRL, .nr = 1, .present = always,
	  .bits = fixed_ctrl_bits, AT(fixed_ctrl) },
	{ .msr = MSR_GLOBAL_STATUS, .nr = 1, .present = always, .read = read_status },
	{ .msr = MSR_GLOBAL_CTRL, .nr = 1, .present = always,
	  .bits = global_ctrl_bits, AT(global_ctrl) },
	{ .msr = MSR_GLOBAL_RESET, .nr = 1, .present = always,
	  .read = read_zero, .bits = reset_bits, .write = write_reset },
	{ .msr = MSR_GLOBAL_SET, .nr = 1, .present = since_version_4,
	  .read = read_zero, .bits = status_bits, .write = write_set },
	{ .msr = MSR_GLOBAL_INUSE, .nr = 1, .present = since_version_4, .read = read_inuse },
	/*
	 * Registers of PEBS and BTS, which no machine here has.  They fault, because
	 * Linux would believe in a register that takes writes silently.  Registers that
	 * only surround the PMU (LBR, offcore response) are the emulator's.
	 */
	{ .msr = MSR_PEBS_ENABLE, .nr = 2, .present = never },	/* and PEBS_DATA_CFG */
	{ .msr = MSR_DS_AREA, .nr = 1, .present = never },
};

/* The register with that number, or NULL; *index is which of its kind it is. */
static const struct reg *find(uint32_t msr, unsigned int *index)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(regs); i++) {
		if (msr >= regs[i].msr && msr - regs[i].msr < regs[i].nr) {
			*index = msr - regs[i].msr;
			return &regs[i];
		}
	}
	return NULL;
}

static uint64_t *value_of(struct pmu *pmu, const struct reg *reg, unsigned int index)
{
	return (uint64_t *)((char *)pmu + reg->at) + index;
}

static enum pmu_result read_register(struct pmu *pmu, uint32_t msr, uint64_t *value)
{
	unsigned int index;
	const struct reg *reg = find(msr, &index);

	if (!reg)
		return PMU_NOT_MINE;
	if (!(reg->present(pmu) & BIT(index)))
		return PMU_GP;
	*value = reg->read ? reg->read(pmu, index) : *value_of(pmu, reg, index);
	return PMU_OK;
}

enum pmu_result pmu_rdmsr(struct pmu *pmu, uint32_t msr, uint64_t *value)
{
	enum pmu_result result = read_register(pmu, msr, value);

	if (result == PMU_OK)
		access_rdmsr(pmu, msr);
	return result;
}

static enum pmu_result write_register(struct pmu *pmu, uint32_t msr, uint64_t value)
{
	unsigned int index;
	const struct reg *reg = find(msr, &index);

	if (!reg)
		return PMU_NOT_MINE;
	if (!(reg->present(pmu) & BIT(index)) || !reg->bits || value & ~reg->bits(pmu))
		return PMU_GP;
	if (reg->write)
		reg->write(pmu, index, value);
	else
		*value_of(pmu, reg, index) = value;
	return PMU_OK;
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
		if (index >= PMU_MAX_FIXED || !(fixed_counters(pmu) & BIT(index)))
			return PMU_GP;
		access_rdpmc(pmu, FIXED_SHIFT + index);
		*value = read_fixed(pmu, index);
		return PMU_OK;
	case RDPMC_METRICS:
		if (index || !pmu_has_metrics(pmu))
			return PMU_GP;
		access_rdpmc(pmu, METRICS_BIT);
		*value = read_metrics(pmu, 0);
		return PMU_OK;
	}
	return PMU_GP;
}
