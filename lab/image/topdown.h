/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the guest code of the demonstration and the program that starts it
 * have in common.
 */
#ifndef LAB_IMAGE_TOPDOWN_H
#define LAB_IMAGE_TOPDOWN_H

#include <stdint.h>

/*
 * The instruction that makes the emulator note the ground truth here; a long
 * NOP on real hardware.  RAX and the displacement are the signature.
 */
#define MARK_SIGNATURE	0x746f70646f776e21ull

static inline void mark(uint64_t id)
{
	asm volatile(".byte 0x0f, 0x1f, 0x84, 0x00, 0x54, 0x44, 0x4d, 0x4b"
		     : : "a"(MARK_SIGNATURE), "c"(id) : "memory");
}

/*
 * Registers of the PMU, from the SDM (volume 4 for numbers, volume 3
 * "Performance Monitoring" for bits).
 */
#define MSR_FIXED_CTR3			0x30c
#define MSR_PERF_METRICS		0x329
#define MSR_PERF_CAPABILITIES		0x345
#define MSR_FIXED_CTR_CTRL		0x38d
#define MSR_PERF_GLOBAL_CTRL		0x38f
#define FIXED_CTR3_ALL_RINGS		(0x3ull << 12)
#define GLOBAL_CTRL_FIXED3		(1ull << 35)
#define GLOBAL_CTRL_METRICS		(1ull << 48)
#define PERF_CAPABILITIES_METRICS	(1ull << 15)
#define RDPMC_FIXED3			0x40000003u
#define RDPMC_METRICS			0x20000000u

/* An access to this port ends the guest: the value is one of the below. */
#define PORT_EXIT	0xf4
#define EXIT_DONE	1
#define EXIT_EXCEPTION	2

#define NR_WORKLOADS	4
#define MARK_BEGIN(n)	(0x74640000ull + 2 * (n))
#define MARK_END(n)	(0x74640001ull + 2 * (n))

/* Laid out by the host program, used by the payload. */
#define JUMPS_BASE	0x10000000ul	/* generated code, JUMPS_BYTES of it */
#define JUMPS_BYTES	(8 << 20ul)
#define PAGES_BASE	0x20000000ul	/* PAGES pages, all on one physical page */
#define PAGES		16384

struct measurement {
	uint64_t slots_begin, slots_end;
	uint64_t metrics_begin, metrics_end;
};

struct report {
	uint64_t vector, error, rip;	/* of an unexpected exception */
	struct measurement measurement[NR_WORKLOADS];
};

extern struct report report;
extern uint64_t payload_idt[512];
extern unsigned char payload_stack[16384];

void payload_fill_idt(void);
void payload_main(void);

#endif
