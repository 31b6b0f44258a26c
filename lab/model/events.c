// SPDX-License-Identifier: GPL-2.0
/*
 * Which event selector of a general counter, and which fixed counter, counts
 * what.  Events outside the table count nothing.
 */
#include "internal.h"

/*
 * The architectural events, SDM "Pre-defined Architectural Performance
 * Events".  The emulator has no caches: a line that CLFLUSH takes out counts
 * as one reference to the last level and as one miss in it.
 */
static const struct {
	uint8_t event;
	uint8_t umask;
	uint8_t quantity;
} events[] = {
	{ 0x3c, 0x00, Q_CYCLES },
	{ 0xc0, 0x00, Q_INSTRUCTIONS },
	{ 0x3c, 0x01, Q_REFERENCE },
	{ 0x2e, 0x4f, Q_LINE_FLUSHES },
	{ 0x2e, 0x41, Q_LINE_FLUSHES },
	{ 0xc4, 0x00, Q_BRANCHES },
	{ 0xc5, 0x00, Q_BRANCH_MISSES },
	{ 0xa4, 0x01, Q_SLOTS },
	{ 0xa4, 0x02, Q_BE_BOUND },
	{ 0x73, 0x00, Q_BAD_SPEC },
	{ 0x9c, 0x01, Q_FE_BOUND },
	{ 0xc2, 0x02, Q_RETIRING },
};

enum quantity event_quantity(uint64_t selector)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(events); i++) {
		if (events[i].event == (selector & 0xff) &&
		    events[i].umask == (selector >> 8 & 0xff))
			return events[i].quantity;
	}
	return Q_NOTHING;
}

/* 4 to 6 exist on Clearwater Forest (intel_skt_event_constraints in Linux). */
enum quantity fixed_quantity(unsigned int index)
{
	static const uint8_t fixed[] = {
		Q_INSTRUCTIONS, Q_CYCLES, Q_REFERENCE, Q_SLOTS,
		Q_BAD_SPEC, Q_FE_BOUND, Q_RETIRING,
	};

	return index < ARRAY_SIZE(fixed) ? fixed[index] : Q_NOTHING;
}

/* How many events of a kind fit in one cycle. */
static uint64_t per_cycle(const struct pmu_machine *machine,
			  enum quantity quantity)
{
	if (quantity == Q_INSTRUCTIONS || quantity >= Q_SLOTS)
		return machine->width;
	return 1;
}

/*
 * With a counter mask, a counter counts the cycles in which at least that many
 * events happened; INV turns the comparison round, EDGE counts how often it
 * becomes true.  The model knows no single cycles, so it takes the events of
 * one call as one burst, packed as densely as they go.  Without a counter mask
 * every event counts, and INV and EDGE do nothing.
 */
uint64_t event_count(const struct pmu_machine *machine, uint64_t selector,
		     const uint64_t q[NR_QUANTITY])
{
	enum quantity quantity = event_quantity(selector);
	uint64_t cmask = selector >> SEL_CMASK_SHIFT & 0xff;
	uint64_t dense = per_cycle(machine, quantity);
	uint64_t cycles;

	if (!cmask)
		return q[quantity];

	cycles = 0;
	if (cmask <= dense)
		cycles = q[quantity] / dense + (q[quantity] % dense >= cmask);
	if (cycles > q[Q_CYCLES])
		cycles = q[Q_CYCLES];
	if (selector & SEL_INV)
		cycles = q[Q_CYCLES] - cycles;
	if (selector & SEL_EDGE)
		cycles = cycles > 0;
	return cycles;
}

/*
 * How many events an instruction can cause, for the deadline.  Exact for what
 * happens once per instruction.  For cycles and slots there is no bound, as
 * an instruction can walk many page tables, so this is a high average: when
 * it is exceeded the overflow is seen one deadline late, which is skid.
 */
uint64_t quantity_per_instruction(const struct pmu_machine *machine,
				  enum quantity quantity)
{
	const uint64_t slots = 64;

	switch (quantity) {
	case Q_NOTHING:
		return 0;
	case Q_INSTRUCTIONS:
	case Q_BRANCHES:
	case Q_BRANCH_MISSES:
	case Q_LINE_FLUSHES:
		return 1;
	case Q_CYCLES:
		return slots / machine->width + 1;
	default:
		return slots;
	}
}
