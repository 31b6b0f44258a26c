// SPDX-License-Identifier: GPL-2.0
/*
 * Slot attribution: from the work that an emulator can count cheaply to
 * pipeline slots, and from slots to cycles.
 *
 * This is not a claim about silicon.  What it promises is that every slot has
 * one cause, that the four causes of level 1 add up to all slots, and that
 * slots are width times cycles, exactly.
 *
 *	retiring	one slot per instruction, one per further micro-op
 *			(those are the heavy operations)
 *	bad speculation	a penalty per mispredicted branch
 *	frontend bound	a bubble per branch (bandwidth), a penalty per
 *			instruction fetch that missed (latency)
 *	backend bound	waits of dependent instructions (core), a penalty per
 *			page walk and per flushed line (memory)
 *
 * Every call closes its last cycle: slots left over in it are backend bound,
 * as if the pipeline drained.  At most of the emulator's sync points it does
 * (WRMSR, interrupt, VM entry).  So nothing is carried over, and no part of a
 * cycle is ever charged to the wrong guest.
 */
#include "internal.h"

void slots_attribute(const struct pmu_machine *machine,
		     const uint64_t work[PMU_NR_WORK], uint64_t q[NR_QUANTITY])
{
	const struct penalty *penalty = &machine->penalty;
	uint64_t bandwidth, core, used;

	q[Q_NOTHING] = 0;
	q[Q_INSTRUCTIONS] = work[PMU_WORK_INSTRUCTION];
	q[Q_REFERENCE] = work[PMU_WORK_REFERENCE];
	q[Q_BRANCHES] = work[PMU_WORK_BRANCH];
	q[Q_BRANCH_MISSES] = work[PMU_WORK_BRANCH_MISS];
	q[Q_LINE_FLUSHES] = work[PMU_WORK_LINE_FLUSH];

	q[Q_HEAVY_OPS] = work[PMU_WORK_EXTRA_UOP];
	q[Q_BR_MISPREDICT] = work[PMU_WORK_BRANCH_MISS] * penalty->branch_miss;
	q[Q_FETCH_LATENCY] = work[PMU_WORK_FETCH_MISS] * penalty->fetch_miss;
	q[Q_MEM_BOUND] = work[PMU_WORK_PAGE_WALK] * penalty->page_walk +
			 work[PMU_WORK_LINE_FLUSH] * penalty->line_flush;
	bandwidth = work[PMU_WORK_BRANCH] * penalty->branch;
	core = work[PMU_WORK_INSTRUCTION] * penalty->dependency / 16;

	q[Q_RETIRING] = q[Q_INSTRUCTIONS] + q[Q_HEAVY_OPS];
	q[Q_BAD_SPEC] = q[Q_BR_MISPREDICT];
	q[Q_FE_BOUND] = q[Q_FETCH_LATENCY] + bandwidth;
	q[Q_BE_BOUND] = q[Q_MEM_BOUND] + core;

	used = q[Q_RETIRING] + q[Q_BAD_SPEC] + q[Q_FE_BOUND] + q[Q_BE_BOUND];
	q[Q_CYCLES] = (used + machine->width - 1) / machine->width;
	q[Q_SLOTS] = q[Q_CYCLES] * machine->width;
	q[Q_BE_BOUND] += q[Q_SLOTS] - used;
}
