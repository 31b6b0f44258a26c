// SPDX-License-Identifier: GPL-2.0
/*
 * Programs whose bottleneck is known by construction, of fixed length.
 *
 *	topdown-workload [-n TIMES] NAME
 *
 * NAME is one of
 *
 *	retiring	additions that do not depend on each other
 *	bad-speculation	branches on random bits
 *	frontend	a jump per cache line, through more code than caches hold
 *	backend		a chain of pointers through more pages than the TLB holds
 *	mixed		phases of all four, after one another, three times
 *	exits		as mixed, with a VM exit every few thousand slots
 *
 * -n makes it TIMES as long (1), as a real CPU is much faster than an
 * emulated one.  Under topdown-mark the work is between two marks of the
 * ground truth; what comes before, laying out the chain, is not part of it.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mark.h"

#define LINE		64
#define PAGE		4096ul
#define SEGMENT		64u		/* lines of code between two returns */
#define SEGMENTS	2048u		/* 8 MiB of code */
#define LINES		(SEGMENT * SEGMENTS)
#define STEP		17u
#define CHAIN_PAGES	4096u		/* 16 MiB of addresses */
#define CHAIN_MEMORY	512u		/* pages behind them */

/*
 * The unit of length: about 2500 slots in the model of lab/model/slots.c,
 * whichever workload.  All take a few milliseconds on the emulated host, so
 * that few interrupts come in between.
 */
#define GRAINS		8000ul

static void **chain;

/*
 * One "jmp" in each line, to the line STEP further on.  That has no divisor in
 * common with the number of lines, so all lines are on one cycle; each 64th of
 * it is a "ret" instead.  A line's place on the cycle is its number times the
 * inverse of STEP.  As a part of this program, and not made when it runs: its
 * pages cost little to map then.
 */
#define STEP_INVERSE	61681u

_Static_assert(STEP * STEP_INVERSE % LINES == 1, "STEP_INVERSE is not the inverse");

asm(".pushsection .text.jumps, \"ax\"\n"
    ".balign 4096\n"
    "jumps:\n"
    ".set line, 0\n"
    ".rept 131072\n"
    ".if (line * 61681) & 63 == 63\n"
    "ret\n"
    ".else\n"
    ".byte 0xe9\n"
    ".long (((line + 17) & 131071) - line) * 64 - 5\n"
    ".endif\n"
    ".balign 64\n"
    ".set line, line + 1\n"
    ".endr\n"
    ".popsection\n");

extern const unsigned char jumps[];

/* xorshift64 (Marsaglia 2003). */
static uint64_t next_random(uint64_t x)
{
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

/*
 * A few pages of memory, again and again in the address space, because making a
 * page costs more than walking to it; read-only, because many of those are mapped
 * at a time.
 */
static char *map_pages(int fd, size_t bytes)
{
	char *pages;
	size_t at;

	pages = mmap(NULL, CHAIN_PAGES * PAGE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pages == MAP_FAILED)
		err(1, "no addresses for the chain");
	for (at = 0; at < CHAIN_PAGES * PAGE; at += bytes)
		if (mmap(pages + at, bytes, PROT_READ, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
			 fd, 0) == MAP_FAILED)
			err(1, "cannot map the chain");
	return pages;
}

/* Where the node of a page lies in memory: no two of them share a line. */
static size_t offset(unsigned int page)
{
	return page % CHAIN_MEMORY * PAGE + page / CHAIN_MEMORY % 64 * LINE;
}

/*
 * A node in each page that points to one in another, all in one random cycle
 * (Sattolo 1986).
 */
static void make_chain(void)
{
	const size_t bytes = CHAIN_MEMORY * PAGE;
	static unsigned int order[CHAIN_PAGES];
	uint64_t x = 88172645463325252ull;
	unsigned int i, j, from, to;
	char *memory, *pages;
	int fd;

	fd = memfd_create("chain", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, bytes))
		err(1, "no memory for the chain");
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (memory == MAP_FAILED)
		err(1, "cannot map the chain");
	pages = map_pages(fd, bytes);
	for (i = 0; i < CHAIN_PAGES; i++)
		order[i] = i;
	for (i = CHAIN_PAGES - 1; i; i--) {
		x = next_random(x);
		j = x % i;
		from = order[i];
		order[i] = order[j];
		order[j] = from;
	}
	for (i = 0; i < CHAIN_PAGES; i++) {
		from = order[i];
		to = order[(i + 1) % CHAIN_PAGES];
		*(void **)(memory + offset(from)) =
			pages + to / CHAIN_MEMORY * bytes + offset(to);
	}
	chain = (void **)(pages + order[0] / CHAIN_MEMORY * bytes + offset(order[0]));
	munmap(memory, bytes);
	close(fd);
}

static void retiring(unsigned long grains)
{
	unsigned long i;

	for (i = 0; i < grains * 28; i++)
		asm volatile(".rept 16\n\t"
			     "addq $1, %%rax\n\t"
			     "addq $1, %%rdx\n\t"
			     "addq $1, %%rsi\n\t"
			     "addq $1, %%rdi\n\t"
			     ".endr"
			     : : : "rax", "rdx", "rsi", "rdi", "cc");
}

static void bad_speculation(unsigned long grains)
{
	static uint64_t x = 88172645463325252ull;
	unsigned long i;

	for (i = 0; i < grains * 21; i++) {
		x = next_random(x);
		asm volatile("testb $1, %b0\n\tjz 1f\n\tnop\n1:\t"
			     "testb $2, %b0\n\tjz 2f\n\tnop\n2:\t"
			     "testb $4, %b0\n\tjz 3f\n\tnop\n3:\t"
			     "testb $8, %b0\n\tjz 4f\n\tnop\n4:"
			     : : "q"(x) : "cc");
	}
}

static void frontend(unsigned long grains)
{
	static unsigned int at;

	for (; grains; grains--) {
		((void (*)(void))(jumps + (size_t)at * LINE))();
		at = (at + STEP * SEGMENT) % LINES;
	}
}

static void backend(unsigned long grains)
{
	unsigned long i;

	for (i = 0; i < grains * 38; i++) {
		chain = *chain;
		asm volatile("" : "+r"(chain));
	}
}

typedef void workload(unsigned long grains);

static workload *const phases[] = { retiring, bad_speculation, frontend, backend };

static void mixed(unsigned long grains)
{
	unsigned int i;

	for (i = 0; i < 12; i++)
		phases[i % 4](grains / 12);
}

/* CPUID leaves a guest, always (SDM volume 3, 27.1.2). */
static void exits(unsigned long grains)
{
	unsigned int a, b, c, d, i;
	unsigned long n;

	for (i = 0; i < 4; i++) {
		for (n = 0; n < grains / 4; n++) {
			phases[i](1);
			__cpuid(0, a, b, c, d);
		}
	}
}

static const struct {
	const char *name;
	workload *run;
} workloads[] = {
	{ "retiring", retiring },
	{ "bad-speculation", bad_speculation },
	{ "frontend", frontend },
	{ "backend", backend },
	{ "mixed", mixed },
	{ "exits", exits },
};

static workload *find(const char *name)
{
	unsigned int i;

	for (i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++)
		if (!strcmp(workloads[i].name, name))
			return workloads[i].run;
	fprintf(stderr, "topdown-workload: no workload %s: choose one of", name);
	for (i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++)
		fprintf(stderr, " %s", workloads[i].name);
	fputc('\n', stderr);
	exit(1);
}

int main(int argc, char **argv)
{
	const char *variable = getenv(MARK_VARIABLE);
	uint64_t base = variable ? strtoull(variable, NULL, 0) : 0;
	unsigned long times = 1;
	workload *run;
	int option;

	while ((option = getopt(argc, argv, "n:")) >= 0) {
		if (option != 'n')
			return 1;
		times = strtoul(optarg, NULL, 0);
	}
	if (optind != argc - 1 || !times)
		errx(1, "usage: topdown-workload [-n TIMES] NAME");
	run = find(argv[optind]);

	/* Only where it is needed: making it is work of another kind. */
	if (run == backend || run == mixed || run == exits)
		make_chain();
	if (base)
		mark(base + MARK_WORK_BEGIN);
	run(GRAINS * times);
	if (base)
		mark(base + MARK_WORK_END);
	return 0;
}
