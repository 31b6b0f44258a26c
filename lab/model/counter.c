// SPDX-License-Identifier: GPL-2.0
/*
 * One counter: where it is, how wide, what it counts at which privilege levels.
 * It is named by its bit in IA32_PERF_GLOBAL_CTRL.
 */
#include "internal.h"

bool pmu_has_metrics(const struct pmu *pmu)
{
	return pmu->capabilities & CAP_METRICS;
}

uint64_t pmu_metrics(const struct pmu *pmu)
{
	return metrics_read(pmu->machine, pmu->fixed[SLOTS_INDEX].value,
			    pmu->hidden);
}

/* The lowest bit set in @bits, which must not be 0. */
unsigned int first_bit(uint64_t bits)
{
	return __builtin_ctzll(bits);
}

struct counter *pmu_counter(struct pmu *pmu, unsigned int bit)
{
	return bit < FIXED_SHIFT ? &pmu->gp[bit] : &pmu->fixed[bit - FIXED_SHIFT];
}

unsigned int counter_width(const struct pmu *pmu, unsigned int bit)
{
	return bit < FIXED_SHIFT ? pmu->machine->gp_width : pmu->machine->fixed_width;
}

/* Which privilege levels a counter counts at, as FIXED_OS and FIXED_USR. */
unsigned int counter_levels(const struct pmu *pmu, unsigned int bit)
{
	uint64_t selector;

	if (bit >= FIXED_SHIFT)
		return pmu->fixed_ctrl >> 4 * (bit - FIXED_SHIFT) &
		       (FIXED_OS | FIXED_USR);
	selector = pmu->selector[bit];
	if (!(selector & SEL_EN))
		return 0;
	return (selector & SEL_OS ? FIXED_OS : 0) |
	       (selector & SEL_USR ? FIXED_USR : 0);
}

enum quantity counter_quantity(const struct pmu *pmu, unsigned int bit)
{
	if (bit < FIXED_SHIFT)
		return event_quantity(pmu->selector[bit]);
	return fixed_quantity(bit - FIXED_SHIFT);
}
