// SPDX-License-Identifier: GPL-2.0
/*
 * Guest code of the demonstration: four workloads, each made to be bound by
 * one thing, measured with fixed counter 3 and PERF_METRICS.
 *
 * Runs in 64-bit mode at CPL 0 without an operating system, at the addresses
 * it has in the host program.  Each workload is one thing over and over, so
 * that its fractions are the same in every part of it.
 */
#include "topdown.h"

struct report report;
uint64_t payload_idt[512] __attribute__((aligned(4096)));
unsigned char payload_stack[16384] __attribute__((aligned(4096)));

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value),
		     "d"((uint32_t)(value >> 32)) : "memory");
}

static inline uint64_t rdpmc(uint32_t counter)
{
	uint32_t low, high;

	asm volatile("rdpmc" : "=a"(low), "=d"(high) : "c"(counter) : "memory");
	return low | (uint64_t)high << 32;
}

static inline void leave(uint32_t code)
{
	for (;;)
		asm volatile("outl %0, %w1" : : "a"(code), "Nd"(PORT_EXIT) : "memory");
}

/* Retiring: additions that do not depend on each other. */
static void independent_additions(void)
{
	unsigned long i;

	for (i = 0; i < 150000; i++)
		asm volatile(".rept 16\n\t"
			     "addq $1, %%rax\n\t"
			     "addq $1, %%rdx\n\t"
			     "addq $1, %%rsi\n\t"
			     "addq $1, %%rdi\n\t"
			     ".endr"
			     : : : "rax", "rdx", "rsi", "rdi", "cc");
}

/*
 * Bad speculation: branches on the bits of a random number (xorshift64,
 * Marsaglia 2003), which no predictor can know.
 */
static void random_branches(void)
{
	uint64_t x = 88172645463325252ull;
	unsigned long i;

	for (i = 0; i < 500000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		asm volatile("testb $1, %b0\n\tjz 1f\n\tnop\n1:\t"
			     "testb $2, %b0\n\tjz 2f\n\tnop\n2:\t"
			     "testb $4, %b0\n\tjz 3f\n\tnop\n3:\t"
			     "testb $8, %b0\n\tjz 4f\n\tnop\n4:"
			     : : "q"(x) : "cc");
	}
}

/* Frontend: one jump in each cache line of more code than a cache holds. */
static void long_way_round(void)
{
	unsigned long i;

	for (i = 0; i < 12; i++)
		((void (*)(void))JUMPS_BASE)();
}

/* Backend: every access to another page, more pages than the TLB holds. */
static void many_pages(void)
{
	unsigned long i, page;

	for (i = 0; i < 60; i++)
		for (page = 0; page < PAGES; page++)
			*(volatile uint64_t *)(PAGES_BASE + page * 4096);
}

static void (*const workloads[NR_WORKLOADS])(void) = {
	independent_additions,
	random_branches,
	long_way_round,
	many_pages,
};

/*
 * Both registers start from zero, counter 3 first.  Counting starts with the
 * write of GLOBAL_CTRL, so the marks lie inside of what is counted.
 */
static void measure(unsigned int n)
{
	struct measurement *measurement = &report.measurement[n];

	wrmsr(MSR_PERF_GLOBAL_CTRL, 0);
	wrmsr(MSR_FIXED_CTR3, 0);
	wrmsr(MSR_PERF_METRICS, 0);
	wrmsr(MSR_FIXED_CTR_CTRL, FIXED_CTR3_ALL_RINGS);
	wrmsr(MSR_PERF_GLOBAL_CTRL, GLOBAL_CTRL_FIXED3 | GLOBAL_CTRL_METRICS);

	measurement->metrics_begin = rdpmc(RDPMC_METRICS);
	measurement->slots_begin = rdpmc(RDPMC_FIXED3);
	mark(MARK_BEGIN(n));
	workloads[n]();
	mark(MARK_END(n));
	measurement->slots_end = rdpmc(RDPMC_FIXED3);
	measurement->metrics_end = rdpmc(RDPMC_METRICS);

	wrmsr(MSR_PERF_GLOBAL_CTRL, 0);
}

void payload_main(void)
{
	unsigned int n;

	for (n = 0; n < NR_WORKLOADS; n++)
		measure(n);
	leave(EXIT_DONE);
}

/* On the stack: vector, error code (or the RIP, if the vector has none). */
__attribute__((used)) static void unexpected(const uint64_t *frame)
{
	/* Vectors with an error code: SDM volume 3, table 6-1. */
	const uint64_t has_error = 0x60227d00;
	int skip = has_error >> frame[0] & 1;

	report.vector = frame[0];
	report.error = skip ? frame[1] : 0;
	report.rip = frame[1 + skip];
	leave(EXIT_EXCEPTION);
}

/* 32 entries of 16 bytes that push their number. */
asm(".text\n"
    ".balign 16\n"
    "payload_vectors:\n"
    ".set vector, 0\n"
    ".rept 32\n"
    ".balign 16\n"
    "pushq $vector\n"
    "jmp payload_exception\n"
    ".set vector, vector + 1\n"
    ".endr\n"
    "payload_exception:\n"
    "movq %rsp, %rdi\n"
    "andq $-16, %rsp\n"
    "call unexpected\n");

extern const unsigned char payload_vectors[];

/* 64-bit interrupt gates to code segment 8 (SDM volume 3, figure 6-8). */
void payload_fill_idt(void)
{
	unsigned int i;

	for (i = 0; i < 32; i++) {
		uint64_t entry = (uint64_t)payload_vectors + 16ul * i;

		payload_idt[2 * i] = (entry & 0xffff) | 0x8ul << 16 |
				     0x8e00ul << 32 | (entry >> 16 & 0xffff) << 48;
		payload_idt[2 * i + 1] = entry >> 32;
	}
}
