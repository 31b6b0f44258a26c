/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The mark: an instruction at which the emulator notes the ground truth of
 * every guest and of the host (lab/model/truth.c).  On hardware it is a long
 * NOP.  RAX and the displacement are the signature, RCX is the mark's number.
 */
#ifndef HOST_MARK_H
#define HOST_MARK_H

#include <stdint.h>

#define MARK_SIGNATURE	0x746f70646f776e21ull

static inline void mark(uint64_t id)
{
	asm volatile(".byte 0x0f, 0x1f, 0x84, 0x00, 0x54, 0x44, 0x4d, 0x4b"
		     : : "a"(MARK_SIGNATURE), "c"(id) : "memory");
}

/*
 * The marks of one measurement, from a base number on.  topdown-mark passes
 * the base to the command in this variable of the environment.
 */
#define MARK_VARIABLE	"TOPDOWN_MARK"

/*
 * Marks of the host's process 1: program n of its plan, from 0, begins and ends
 * (PMU_SECTION in lab/model/pmu.h).  topdown-mark's are below.
 */
#define MARK_PROGRAM_BEGIN(n)	((1ull << 62) + 2 * (uint64_t)(n))
#define MARK_PROGRAM_END(n)	(MARK_PROGRAM_BEGIN(n) + 1)

enum mark_offset {
	MARK_BEGIN,		/* before the command */
	MARK_WORK_BEGIN,	/* topdown-workload's first and last */
	MARK_WORK_END,
	MARK_END,		/* after the command */
	MARK_OWNER,		/* on each CPU: says whose this one is */
	MARK_STEP = 8
};

#endif
