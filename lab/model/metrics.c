// SPDX-License-Identifier: GPL-2.0
/*
 * IA32_PERF_METRICS: fields of 8 bits, each a fraction of fixed counter 3 in
 * 1/255 (tools/perf/Documentation/topdown.txt and icl_get_metrics_event_value()
 * in Linux).
 *
 * Behind each field the model keeps a count of slots, as hardware must to move
 * a fraction.  [HW]: what a write does to that hidden count is documented
 * nowhere.  The strict reading is that all hardware has to go by is the pair
 * (counter 3, field) at the time of the write, hence that counter 3 must be
 * written first.
 *
 * The hidden counts are in 1/255 of a slot, so that a field times counter 3 is
 * exact and a value that was written reads back.  Counters have at most 48
 * bits (machine.c), so all of this fits in 64.
 */
#include "internal.h"

/*
 * [HW]: whether a fraction is rounded to the nearest or cut off, and what shows
 * when a hidden count is above counter 3 because software wrote one and not
 * the other.  The model saturates the field.
 */
uint64_t metrics_read(const struct pmu_machine *machine, uint64_t slots,
		      const uint64_t hidden[PMU_MAX_METRICS])
{
	uint64_t half = machine->metrics_truncate ? 0 : slots / 2;
	uint64_t value = 0, field;
	unsigned int i;

	if (!slots)
		return 0;
	for (i = 0; i < machine->metrics; i++) {
		field = (hidden[i] + half) / slots;
		if (field > METRICS_ONE)
			field = METRICS_ONE;
		value |= field << 8 * i;
	}
	return value;
}

void metrics_write(const struct pmu_machine *machine, uint64_t slots,
		   uint64_t value, uint64_t hidden[PMU_MAX_METRICS])
{
	unsigned int i;

	/*
	 * The other reading: a value that changes nothing leaves the hidden
	 * precision alone.  While counter 3 is zero nothing can be read, so
	 * nothing is the same: the pair starts from zero.
	 */
	if (machine->metrics_keep && slots &&
	    value == metrics_read(machine, slots, hidden))
		return;

	for (i = 0; i < machine->metrics; i++)
		hidden[i] = (value >> 8 * i & METRICS_ONE) * slots;
}
