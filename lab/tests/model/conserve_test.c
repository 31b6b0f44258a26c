// SPDX-License-Identifier: GPL-2.0
/* Nothing lost: what a guest gets back, and which differences are explained. */
#include "rig.h"

#define A	0x111000
#define B	0x222000
#define WIDTH	48
#define TOP	BIT(WIDTH)
#define MASK	(TOP - 1)

/* Exit reasons. */
#define EXCEPTION	0
#define INTERRUPT	1
#define CPUID		10
#define HLT		12
#define RDMSR		31
#define PREEMPTION	52

/* Event selects with USR, OS and EN. */
#define COUNT_INSTRUCTIONS	0x4300c0
#define COUNT_BRANCHES		0x4300c4
#define COUNT_CYCLES		0x43003c

/* All that a guest has on Ice Lake, with a value that is not zero. */
static const struct {
	const char *name;
	uint32_t msr;
	uint64_t value;
} held[] = {
	{ "PMC0", 0x4c1, 0x1000 }, { "PMC1", 0x4c2, 0x1001 },
	{ "PMC2", 0x4c3, 0x1002 }, { "PMC3", 0x4c4, 0x1003 },
	{ "PMC4", 0x4c5, 0x1004 }, { "PMC5", 0x4c6, 0x1005 },
	{ "PMC6", 0x4c7, 0x1006 }, { "PMC7", 0x4c8, 0x1007 },
	{ "FIXED_CTR0", 0x309, 0x2000 }, { "FIXED_CTR1", 0x30a, 0x2001 },
	{ "FIXED_CTR2", 0x30b, 0x2002 }, { "FIXED_CTR3", 0x30c, 0x2003 },
	{ "PERF_METRICS", 0x329, 0x40404040 },
	{ "GLOBAL_STATUS", 0x391, 0x5 },
	{ "GLOBAL_CTRL", 0x38f, 0x1000f000000ff },
};

static void load_all(struct rig *rig)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(held); i++)
		wr(rig, held[i].msr, held[i].value);
}

static void clear_all(struct rig *rig)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(held); i++)
		wr(rig, held[i].msr == 0x391 ? 0x390 : held[i].msr,
		   held[i].msr == 0x391 ? 0x1000f000000ff : 0);
}

/* A guest that owns the PMU and has just left with everything loaded. */
static struct rig *guest_that_left(unsigned int reason)
{
	struct rig *rig = rig_new(BENCH, 0);

	load_all(rig);
	vm_launch(rig, A, OWNS_ALL);
	vm_exit(rig, reason);
	return rig;
}

static void expect_lost(struct rig *rig, unsigned int n)
{
	if (count_lines(rig, "lost") != n)
		fail_msg("expected %u losses, found %u; last: %s", n,
			 count_lines(rig, "lost"),
			 last_line(rig, "lost") ? last_line(rig, "lost") : "none");
}

static void expect_lost_register(struct rig *rig, const char *name)
{
	char reg[40];

	snprintf(reg, sizeof(reg), "\"reg\":\"%s\"", name);
	if (!last_line(rig, "lost") || !strstr(last_line(rig, "lost"), reg))
		fail_msg("%s not lost; last: %s", name,
			 last_line(rig, "lost") ? last_line(rig, "lost") : "none");
}

static uint64_t audited(struct rig *rig, const char *key)
{
	pmu_emit_totals(rig->pmu);
	assert_true(is_json(last_line(rig, "audit")));
	return number(last_line(rig, "audit"), key);
}

/* Saved, cleared, used by the host, restored: nothing to tell, all compared. */
static void restored(void **state)
{
	struct rig *rig = guest_that_left(INTERRUPT);

	(void)state;
	clear_all(rig);
	load_all(rig);
	vm_entry(rig, A);
	vm_exit(rig, CPUID);
	vm_entry(rig, A);
	expect_lost(rig, 0);
	assert_int_equal(audited(rig, "audited"), 2);
	assert_int_equal(number(last_line(rig, "audit"), "compared"), 2 * 15);
	assert_int_equal(number(last_line(rig, "audit"), "lost"), 0);
	rig_free(rig);
}

/* Each register alone: not restored, or to something else. */
static void each_register(void **state)
{
	unsigned int i, way;
	struct rig *rig;
	uint64_t other;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(held); i++) {
		for (way = 0; way < 2; way++) {
			rig = guest_that_left(INTERRUPT);
			other = way ? held[i].value ^ 0x10 : 0;
			if (held[i].msr == 0x391)
				wr(rig, way ? 0x391 : 0x390, way ? 0x10 : 0x5);
			else
				wr(rig, held[i].msr, other);
			/* the fields are fractions of counter 3 */
			if (held[i].msr == 0x30c)
				wr(rig, 0x329, other ? 0x40404040 : 0);
			vm_entry(rig, A);
			if (held[i].msr == 0x30c && !other) {
				expect_lost(rig, 2);
			} else {
				expect_lost(rig, 1);
				expect_lost_register(rig, held[i].name);
			}
			assert_true(audited(rig, "lost") >= 1);
			rig_free(rig);
		}
	}
}

/* The line says what, whose, from where to where, and how it came to that. */
static void line_of_a_loss(void **state)
{
	struct rig *first = rig_new(BENCH, 2);
	struct rig *second = rig_sibling(first, 3);
	const char *line;

	(void)state;
	load_all(first);
	vm_launch(first, A, OWNS_ALL);
	vm_exit_wrmsr(first, 0x1d9, 1);
	load_all(second);
	wr(second, 0x30a, 0x7777);
	vm_entry(second, A);
	expect_lost(first, 0);
	expect_lost(second, 1);
	line = last_line(second, "lost");
	assert_true(is_json(line));
	assert_int_equal(number(line, "cpu"), 3);
	assert_int_equal(number(line, "exit_cpu"), 2);
	assert_int_equal(number(line, "reason"), 32);
	assert_int_equal(number(line, "cpl"), 0);
	assert_non_null(strstr(line, "\"owner\":\"0x111000\",\"reg\":\"FIXED_CTR1\""));
	assert_non_null(strstr(line, "\"exit_value\":\"0x2001\",\"entry_value\":\"0x7777\""));
	assert_non_null(strstr(line, "\"nested\":false"));
	assert_non_null(strstr(line, "\"msr\":\"0x1d9\""));
	assert_non_null(strstr(line, "\"rip\":\"0x3000\""));
	assert_non_null(strstr(line, "\"history\":[{\"from\":\"root\",\"to\":\"0x111000\""));
	rig_free(second);
	rig_free(first);
}

/* Did the hypervisor's user have a chance to write? */
static void user_mode_in_between(void **state)
{
	struct rig *rig = guest_that_left(INTERRUPT);
	struct rig *second = rig_sibling(rig, 1);

	(void)state;
	in_root(rig, 3);
	in_root(rig, 0);
	wr(rig, 0x30a, 1);
	vm_entry(rig, A);
	expect_lost(rig, 1);
	assert_non_null(strstr(last_line(rig, "lost"), "\"user\":true"));
	in_root(second, 3);
	in_guest(rig, A, 3);
	vm_exit(rig, INTERRUPT);
	in_root(second, 3);		/* there already */
	wr(rig, 0x30a, 2);
	vm_entry(rig, A);
	expect_lost(rig, 2);
	assert_non_null(strstr(last_line(rig, "lost"), "\"user\":false"));
	vm_exit(rig, INTERRUPT);
	in_root(second, 0);
	in_root(second, 3);
	wr(rig, 0x30a, 3);
	vm_entry(rig, A);
	expect_lost(rig, 3);
	assert_non_null(strstr(last_line(rig, "lost"), "\"user\":true"));
	rig_free(second);
	rig_free(rig);
}

/* Whoever ran in between, and wherever the guest comes back. */
static void other_guest_other_cpu(void **state)
{
	struct rig *first = rig_new(BENCH, 0);
	struct rig *second = rig_sibling(first, 1);

	(void)state;
	load_all(first);
	vm_launch(first, A, OWNS_ALL);
	vm_exit(first, INTERRUPT);
	clear_all(first);
	vm_launch(first, B, OWNS_ALL);
	vm_exit(first, INTERRUPT);
	load_all(second);
	vm_entry(second, A);
	vm_exit(second, INTERRUPT);
	vm_entry(first, B);
	vm_exit(first, INTERRUPT);
	expect_lost(first, 0);
	expect_lost(second, 0);
	/* A gets what B had */
	vm_entry(first, A);
	expect_lost(first, 15);
	rig_free(second);
	rig_free(first);
}

/* Nobody's business: registers that the guest was not given. */
static void only_what_is_owned(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);
	uint64_t without = OWNS_ALL & ~(BIT(48) | BIT(35) | BIT(7));

	(void)state;
	load_all(rig);
	vm_launch(rig, A, without);
	vm_exit(rig, INTERRUPT);
	wr(rig, 0x329, 0);
	wr(rig, 0x30c, 0);
	wr(rig, 0x4c8, 0);
	vm_entry(rig, A);
	expect_lost(rig, 0);
	vm_exit(rig, INTERRUPT);
	wr(rig, 0x4c7, 0);
	vm_entry(rig, A);
	expect_lost(rig, 1);
	vm_exit(rig, INTERRUPT);

	/* a guest without any: hardware's counters are the host's */
	vm_launch(rig, B, 0);
	vm_exit(rig, INTERRUPT);
	clear_all(rig);
	vm_entry(rig, B);
	expect_lost(rig, 1);
	assert_int_equal(audited(rig, "compared"), 2 * 12);
	rig_free(rig);
}

/* What a guest is given later counts from then on. */
static void given_later(void **state)
{
	const struct pmu_entry more = { .launch = true, .owned = OWNS_ALL };
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	load_all(rig);
	vm_launch(rig, A, BIT(0));
	vm_exit(rig, INTERRUPT);
	wr(rig, 0x30a, 0x99);
	vm_entry_on(rig, A, VMCS_OF(A), &more);
	expect_lost(rig, 0);
	vm_exit(rig, INTERRUPT);
	wr(rig, 0x30a, 0x98);
	vm_entry(rig, A);
	expect_lost(rig, 1);
	expect_lost_register(rig, "FIXED_CTR1");
	rig_free(rig);
}

/* A guest whose counters 0 and 1 count instructions and branches, 2 cycles. */
static struct rig *counting_guest(unsigned int reason, unsigned int cpl)
{
	struct rig *rig = rig_new(BENCH, 0);

	load_all(rig);
	wr(rig, 0x186, COUNT_INSTRUCTIONS);
	wr(rig, 0x187, COUNT_BRANCHES);
	wr(rig, 0x188, COUNT_CYCLES);
	wr(rig, 0x38d, 0x3333);
	vm_launch(rig, A, OWNS_ALL);
	in_guest(rig, A, cpl);
	vm_exit(rig, reason);
	return rig;
}

/* One instruction more, where instructions or branches are counted. */
static void emulated_instruction(void **state)
{
	static const struct {
		uint32_t msr;
		uint64_t from;
		bool counts;
	} counters[] = {
		{ 0x4c1, 0x1000, true }, { 0x4c2, 0x1001, true },
		{ 0x4c3, 0x1002, false }, { 0x4c4, 0x1003, false },
		{ 0x309, 0x2000, true }, { 0x30a, 0x2001, false },
		{ 0x30b, 0x2002, false },
	};
	struct rig *rig;
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(counters); i++) {
		rig = counting_guest(CPUID, 0);
		wr(rig, counters[i].msr, counters[i].from + 1);
		vm_entry(rig, A);
		expect_lost(rig, !counters[i].counts);
		assert_int_equal(audited(rig, "by_instruction"), counters[i].counts);
		rig_free(rig);

		/* not two, and not one less */
		rig = counting_guest(CPUID, 0);
		wr(rig, counters[i].msr, counters[i].from + 2);
		vm_entry(rig, A);
		expect_lost(rig, 1);
		vm_exit(rig, CPUID);
		wr(rig, counters[i].msr, counters[i].from + 1);
		vm_entry(rig, A);
		expect_lost(rig, 2);
		rig_free(rig);
	}
}

/* Nothing is emulated for what comes from outside the guest. */
static void exits_without_instruction(void **state)
{
	static const uint8_t aside[] = {
		1, 2, 3, 4, 7, 8, 37, 43, 45, 52, 56, 62, 74, 75
	};
	static const uint8_t with[] = { 0, 10, 12, 15, 18, 20, 24, 28, 30, 31, 32, 48, 49 };
	struct pmu_exit exception = { .reason = EXCEPTION };
	struct rig *rig;
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(aside) + ARRAY_SIZE(with); i++) {
		bool is_aside = i < ARRAY_SIZE(aside);

		rig = counting_guest(is_aside ? aside[i] : with[i - ARRAY_SIZE(aside)], 0);
		wr(rig, 0x309, 0x2001);
		vm_entry(rig, A);
		expect_lost(rig, is_aside);
		rig_free(rig);
	}
	/* NMI, machine check; page fault */
	for (i = 0; i < 3; i++) {
		rig = counting_guest(CPUID, 0);
		vm_entry(rig, A);
		exception.vector = i == 0 ? 2 : i == 1 ? 18 : 14;
		pmu_vmexit(rig->pmu, &exception);
		in_root(rig, 0);
		wr(rig, 0x309, 0x2001);
		vm_entry(rig, A);
		expect_lost(rig, i < 2);
		rig_free(rig);
	}
}

/* Only a counter that would count the instruction can have. */
static void counters_that_would_not(void **state)
{
	struct rig *rig;
	unsigned int i;

	(void)state;
	for (i = 0; i < 6; i++) {
		rig = rig_new(BENCH, 0);
		load_all(rig);
		wr(rig, 0x38d, 0x3333);
		wr(rig, 0x186, i == 0 ? 0x0300c0 :	/* not enabled */
			       i == 1 ? 0xc34300c0 & 0xffffff :	/* no mask */
			       i == 2 ? 0x014300c0 :	/* counter mask 1 */
			       i == 3 ? 0xc300c0 :	/* nothing to invert */
			       i == 4 ? 0x4100c0 :	/* user mode only */
			       COUNT_INSTRUCTIONS);
		if (i == 5)
			wr(rig, 0x38f, 0xfe);
		vm_launch(rig, A, OWNS_ALL);
		vm_exit(rig, CPUID);
		wr(rig, 0x4c1, 0x1001);
		vm_entry(rig, A);
		expect_lost(rig, i != 1 && i != 3);
		rig_free(rig);
	}
	/* the other privilege level */
	rig = counting_guest(CPUID, 0);
	wr(rig, 0x186, 0x4100c0);
	vm_entry(rig, A);
	in_guest(rig, A, 3);
	vm_exit(rig, CPUID);
	wr(rig, 0x4c1, 0x1001);
	vm_entry(rig, A);
	expect_lost(rig, 0);
	rig_free(rig);
}

/*
 * The instruction itself, or the hypervisor's user, may have turned the counter
 * on or off meanwhile.
 */
static void configuration_changes(void **state)
{
	struct rig *rig;
	unsigned int way;

	(void)state;
	for (way = 0; way < 3; way++) {
		rig = rig_new(BENCH, 0);
		load_all(rig);
		wr(rig, 0x186, way == 1 ? 0 : COUNT_INSTRUCTIONS);
		vm_launch(rig, A, OWNS_ALL);
		vm_exit(rig, 32);
		wr(rig, 0x186, way == 0 ? 0 : COUNT_INSTRUCTIONS);
		if (way == 2)
			wr(rig, 0x187, COUNT_INSTRUCTIONS);
		wr(rig, 0x4c1, 0x1001);
		vm_entry(rig, A);
		expect_lost(rig, 0);
		rig_free(rig);
	}
}

/* The counter was full: its overflow bit must come with it, no other. */
static void emulated_overflow(void **state)
{
	struct rig *rig;
	unsigned int way;

	(void)state;
	for (way = 0; way < 3; way++) {
		rig = rig_new(BENCH, 0);
		wr(rig, 0x187, COUNT_INSTRUCTIONS);
		wr(rig, 0x4c2, MASK);
		wr(rig, 0x38f, OWNS_ALL);
		vm_launch(rig, A, OWNS_ALL);
		vm_exit(rig, CPUID);
		wr(rig, 0x4c2, 0);
		if (way)
			wr(rig, 0x391, way == 1 ? 2 : 1);
		vm_entry(rig, A);
		expect_lost(rig, way != 1);
		if (way != 1)
			expect_lost_register(rig, "GLOBAL_STATUS");
		rig_free(rig);
	}
	/* the guest cleared the counter: it did not wrap */
	rig = counting_guest(CPUID, 0);
	vm_entry(rig, A);
	wr(rig, 0x4c1, MASK);
	wr(rig, 0x390, 5);
	vm_exit_wrmsr(rig, 0x4c1, 0);
	wr(rig, 0x4c1, 0);
	vm_entry(rig, A);
	expect_lost(rig, 0);
	/* the guest filled it, and the write was one too many */
	vm_exit_wrmsr(rig, 0x4c1, MASK);
	wr(rig, 0x4c1, 0);
	wr(rig, 0x391, 1);
	vm_entry(rig, A);
	expect_lost(rig, 0);
	rig_free(rig);
}

/* A write that the guest left to the hypervisor, and what it may change. */
static void own_writes(void **state)
{
	static const struct {
		uint32_t msr;
		uint64_t value;
		uint32_t loaded;	/* what the hypervisor loads, and how */
		uint64_t load;
		bool explained;
	} writes[] = {
		{ 0x30a, 0x77, 0x30a, 0x77, true },
		{ 0x30a, 0x77, 0x30a, 0x78, false },
		{ 0x30a, 0x77, 0x30b, 0x77, false },
		{ 0x309, 0x77, 0x30a, 0x77, false },
		{ 0x4c3, 0xff0000000077, 0x4c3, 0xff0000000077, true },
		{ 0x0c3, 0x80000077, 0x4c3, 0xffff80000077, true },
		{ 0x0c3, 0x80000077, 0x4c3, 0x80000077, false },
		{ 0x0c3, 0x1100000077, 0x4c3, 0x77, true },
		{ 0x329, 0x10203040, 0x329, 0x10203040, true },
		{ 0x329, 0x10203040, 0x329, 0x10203041, false },
		{ 0x38f, 0x3, 0x38f, 0x3, true },
		{ 0x38f, 0x3, 0x38f, 0x7, false },
		{ 0x38d, 0x3, 0x38f, 0x3, false },
		{ 0x390, 0x4, 0x390, 0x4, true },
		{ 0x390, 0x4, 0x390, 0x1, false },
		{ 0x390, 0x4, 0x391, 0x8, false },
		{ 0x391, 0x8, 0x391, 0x8, true },
	};
	struct pmu_exit forced = { .reason = EXCEPTION };
	struct rig *rig;
	unsigned int i, way;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(writes); i++) {
		/* WRMSR; #UD, for the forced emulation prefix; #GP; RDMSR */
		for (way = 0; way < 4; way++) {
			rig = guest_that_left(INTERRUPT);
			vm_entry(rig, A);
			forced.reason = way == 0 ? 32 : way == 3 ? RDMSR : EXCEPTION;
			forced.vector = way == 1 ? 6 : way == 2 ? 13 : 0;
			forced.msr = writes[i].msr;
			forced.value = writes[i].value;
			pmu_vmexit(rig->pmu, &forced);
			in_root(rig, 0);
			wr(rig, writes[i].loaded, writes[i].load);
			vm_entry(rig, A);
			expect_lost(rig, !(writes[i].explained && way < 2));
			assert_int_equal(audited(rig, "by_write"),
					 writes[i].explained && way < 2);
			rig_free(rig);
		}
	}
}

/* Counter 3 and the metrics: the fields of no slots read as zero. */
static void own_writes_of_the_pair(void **state)
{
	struct rig *rig = guest_that_left(INTERRUPT);

	(void)state;
	vm_entry(rig, A);
	vm_exit_wrmsr(rig, 0x30c, 0);
	wr(rig, 0x30c, 0);
	wr(rig, 0x329, 0x40404040);
	vm_entry(rig, A);
	expect_lost(rig, 0);
	vm_exit_wrmsr(rig, 0x329, 0x11);	/* still no slots */
	wr(rig, 0x329, 0x11);
	vm_entry(rig, A);
	expect_lost(rig, 0);
	vm_exit_wrmsr(rig, 0x30c, 0x1000);
	wr(rig, 0x30c, 0x1000);
	wr(rig, 0x329, 0x22);			/* out of nothing */
	vm_entry(rig, A);
	expect_lost(rig, 1);
	expect_lost_register(rig, "PERF_METRICS");
	rig_free(rig);
}

/* A write, then the WRMSR itself is counted. */
static void own_write_and_instruction(void **state)
{
	struct rig *rig;
	unsigned int more;

	(void)state;
	for (more = 0; more < 3; more++) {
		rig = counting_guest(CPUID, 0);
		vm_entry(rig, A);
		vm_exit_wrmsr(rig, 0x309, 0x500);
		wr(rig, 0x309, 0x500 + more);
		vm_entry(rig, A);
		expect_lost(rig, more == 2);
		rig_free(rig);
	}
	/* counter 1 counts no instructions */
	rig = counting_guest(CPUID, 0);
	vm_entry(rig, A);
	vm_exit_wrmsr(rig, 0x30a, 0x500);
	wr(rig, 0x30a, 0x501);
	vm_entry(rig, A);
	expect_lost(rig, 1);
	rig_free(rig);
}

/* A nested VM entry or exit loads GLOBAL_CTRL, and nothing else by itself. */
static void nested(void **state)
{
	const struct pmu_entry vmcs02 = { .launch = true, .fresh = true, .owned = OWNS_ALL };
	struct rig *rig = guest_that_left(24);

	(void)state;
	wr(rig, 0x38f, 0xf);
	vm_entry_on(rig, A, 0x999000, &vmcs02);
	expect_lost(rig, 0);
	vm_exit(rig, CPUID);
	wr(rig, 0x38f, OWNS_ALL);
	vm_entry(rig, A);
	expect_lost(rig, 0);
	assert_int_equal(audited(rig, "by_nesting"), 2);
	vm_exit(rig, 24);
	wr(rig, 0x30a, 0x99);
	vm_entry_on(rig, A, 0x999000, NULL);
	expect_lost(rig, 1);
	expect_lost_register(rig, "FIXED_CTR1");
	assert_non_null(strstr(last_line(rig, "lost"), "\"nested\":true"));
	vm_exit(rig, CPUID);
	wr(rig, 0x38f, 0xf);
	vm_entry_on(rig, A, 0x999000, NULL);
	expect_lost(rig, 2);
	expect_lost_register(rig, "GLOBAL_CTRL");
	rig_free(rig);
}

/* Those that fail have loaded the MSRs that came before the invalid one. */
static void failed_nested_entry(void **state)
{
	static const unsigned int reasons[] = { 20, 24 };	/* VMLAUNCH, VMRESUME */
	struct rig *rig = guest_that_left(CPUID);
	unsigned int i;

	(void)state;
	vm_entry(rig, A);
	for (i = 0; i < 2; i++) {
		vm_exit(rig, reasons[i]);
		wr(rig, 0x38f, 0xf + i);
		vm_entry(rig, A);
		expect_lost(rig, 0);
	}
	assert_int_equal(audited(rig, "by_nesting"), 2);
	vm_exit(rig, 24);
	wr(rig, 0x30a, 0x99);
	vm_entry(rig, A);
	expect_lost(rig, 1);
	assert_non_null(strstr(last_line(rig, "lost"), "\"nested\":true"));
	rig_free(rig);
}

/* An identity that is used again is another guest, a moved guest is not. */
static void lives(void **state)
{
	const struct pmu_entry moved = { .launch = true, .owned = OWNS_ALL };
	struct rig *rig = guest_that_left(INTERRUPT);

	(void)state;
	/* moved to another CPU: VMCLEAR, then VMLAUNCH on the same VMCS */
	pmu_vmclear(rig->pmu, VMCS_OF(A));
	vm_entry_on(rig, A, VMCS_OF(A), &moved);
	expect_lost(rig, 0);
	vm_exit(rig, INTERRUPT);
	pmu_vmclear(rig->pmu, VMCS_OF(A));
	wr(rig, 0x30a, 0);
	vm_entry_on(rig, A, VMCS_OF(A), &moved);
	expect_lost(rig, 1);
	vm_exit(rig, INTERRUPT);
	/* a new guest */
	pmu_vmclear(rig->pmu, VMCS_OF(A));
	clear_all(rig);
	vm_launch(rig, A, OWNS_ALL);
	expect_lost(rig, 1);
	vm_exit(rig, INTERRUPT);
	/* a fresh VMCS while the other one is launched: for its nested guests */
	pmu_vmclear(rig->pmu, 0x999000);
	wr(rig, 0x30a, 0x123);
	vm_launch(rig, A, OWNS_ALL);
	expect_lost(rig, 2);
	vm_exit(rig, INTERRUPT);
	/* somebody else's VMCLEAR */
	pmu_vmclear(rig->pmu, VMCS_OF(B));
	wr(rig, 0x30a, 0x124);
	vm_launch(rig, A, OWNS_ALL);
	expect_lost(rig, 3);
	rig_free(rig);
}

/* What a dead guest left is not its successor's. */
static void departed(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	wr(rig, 0x38d, 0x3333);
	wr(rig, 0x38f, OWNS_ALL);
	vm_launch(rig, A, OWNS_ALL);
	slots(rig, 100, 0, 0, 0);
	rdpmc(rig, 0x40000003);
	assert_int_equal(count_lines(rig, "leak"), 0);
	vm_exit(rig, INTERRUPT);
	pmu_vmclear(rig->pmu, VMCS_OF(A));
	vm_launch(rig, A, OWNS_ALL);
	rdpmc(rig, 0x40000003);
	assert_int_equal(count_lines(rig, "leak"), 1);
	assert_non_null(strstr(last_line(rig, "leak"), "\"owners\":[\"departed\"]"));
	vm_exit(rig, INTERRUPT);
	wr(rig, 0x30c, 1000);
	in_guest(rig, A, 0);
	rdpmc(rig, 0x20000000);		/* behind the fields it is still there */
	assert_int_equal(count_lines(rig, "leak"), 2);
	assert_non_null(strstr(last_line(rig, "leak"), "\"owners\":[\"departed\"]"));
	assert_true(is_json(last_line(rig, "leak")));
	rig_free(rig);
}

/* What the CPU stores at a VM exit is for the hypervisor. */
static void msr_store_list(void **state)
{
	const struct pmu_exit exit = { .reason = INTERRUPT };
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	wr(rig, 0x38d, 0x3333);
	wr(rig, 0x38f, OWNS_ALL);
	vm_launch(rig, A, OWNS_ALL);
	slots(rig, 100, 0, 0, 0);
	vm_exit(rig, INTERRUPT);
	vm_launch(rig, B, OWNS_ALL);
	pmu_vmexit(rig->pmu, &exit);
	rd(rig, 0x30c);
	rd(rig, 0x38f);
	assert_int_equal(count_lines(rig, "leak"), 0);
	in_root(rig, 0);
	vm_entry(rig, B);
	rd(rig, 0x30c);
	assert_int_equal(count_lines(rig, "leak"), 1);
	rig_free(rig);
}

/* The books: first value, counts, own writes and changes make the last value. */
static void books(void **state)
{
	struct rig *first = rig_new(BENCH, 0);
	struct rig *second = rig_sibling(first, 1);

	(void)state;
	load_all(first);
	wr(first, 0x186, COUNT_INSTRUCTIONS);
	wr(first, 0x38d, 0x3333);
	vm_launch(first, A, OWNS_ALL);
	slots(first, 100, 0, 0, 0);
	wr(first, 0x30c, MASK - 5);
	slots(first, 100, 0, 0, 0);
	vm_exit(first, CPUID);
	load_all(second);
	wr(second, 0x186, COUNT_INSTRUCTIONS);
	wr(second, 0x38d, 0x3333);
	wr(second, 0x4c1, rd(first, 0x4c1) + 1);
	wr(second, 0x309, rd(first, 0x309));
	wr(second, 0x30a, rd(first, 0x30a));
	wr(second, 0x30c, rd(first, 0x30c));
	wr(second, 0x329, rd(first, 0x329));
	wr(second, 0x391, rd(first, 0x38e));
	vm_entry(second, A);
	slots(second, 100, 0, 0, 0);
	vm_exit(second, CPUID);
	expect_lost(second, 0);
	assert_int_equal(audited(second, "sums"), 12);
	assert_int_equal(audited(first, "sums"), 0);	/* they close once */
	expect_lost(first, 0);
	expect_lost(second, 0);
	rig_free(second);
	rig_free(first);
}

/* A counter that changes without anybody's doing while the guest runs. */
static void books_do_not_add_up(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);
	const char *line;

	(void)state;
	wr(rig, 0x309, 0x77);
	wr(rig, 0x38d, 0x3333);
	wr(rig, 0x38f, OWNS_ALL);
	vm_launch(rig, A, OWNS_ALL);
	slots(rig, 100, 0, 0, 0);
	pmu_reset(rig->pmu);
	in_guest(rig, A, 0);
	wr(rig, 0x309, 0x5);
	vm_exit(rig, INTERRUPT);
	expect_lost(rig, 0);
	assert_int_equal(audited(rig, "lost"), 3);	/* 0, 1 and 3 counted */
	expect_lost(rig, 3);
	line = last_line(rig, "lost");
	assert_true(is_json(line));
	assert_non_null(strstr(line, "\"reg\":\"FIXED_CTR3\",\"last\":\"0x0\",\"first\":\"0x0\""));
	assert_non_null(strstr(line, "\"counted\":\"0x64\""));
	rig_free(rig);

	/* the same is noticed when the life ends */
	rig = rig_new(BENCH, 0);
	wr(rig, 0x309, 0x77);
	vm_launch(rig, A, OWNS_ALL);
	pmu_reset(rig->pmu);
	in_guest(rig, A, 0);
	vm_exit(rig, INTERRUPT);
	pmu_vmclear(rig->pmu, VMCS_OF(A));
	vm_launch(rig, A, OWNS_ALL);
	expect_lost(rig, 1);
	rig_free(rig);
}

/* A program has room for a hundred lines; all losses are counted. */
static void sections(void **state)
{
	struct rig *rig = guest_that_left(INTERRUPT);
	unsigned int i;

	(void)state;
	in_root(rig, 3);
	pmu_mark(rig->pmu, PMU_SECTION + 2 * 7);
	assert_int_equal(count_lines(rig, "section"), 1);
	assert_int_equal(number(last_line(rig, "section"), "program"), 7);
	assert_non_null(strstr(last_line(rig, "section"), "\"ends\":false"));
	assert_int_equal(number(last_line(rig, "section"), "lost"), 0);
	for (i = 0; i < 150; i++) {
		in_root(rig, 0);
		wr(rig, 0x30a, 0x5000 + i);
		vm_entry(rig, A);
		vm_exit(rig, INTERRUPT);
	}
	assert_int_equal(count_lines(rig, "lost"), 100);
	in_root(rig, 3);
	pmu_mark(rig->pmu, PMU_SECTION + 2 * 7 + 1);
	assert_true(is_json(last_line(rig, "section")));
	assert_int_equal(number(last_line(rig, "section"), "program"), 7);
	assert_non_null(strstr(last_line(rig, "section"), "\"ends\":true"));
	assert_int_equal(number(last_line(rig, "section"), "lost"), 150);
	in_root(rig, 0);
	wr(rig, 0x30a, 0);
	vm_entry(rig, A);
	assert_int_equal(count_lines(rig, "lost"), 101);
	/* a guest cannot begin a program, and other marks do not */
	pmu_mark(rig->pmu, PMU_SECTION);
	in_root(rig, 3);
	pmu_mark(rig->pmu, PMU_SECTION - 1);
	assert_int_equal(count_lines(rig, "section"), 2);
	assert_int_equal(audited(rig, "lost"), 151);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(restored),
		cmocka_unit_test(each_register),
		cmocka_unit_test(line_of_a_loss),
		cmocka_unit_test(user_mode_in_between),
		cmocka_unit_test(other_guest_other_cpu),
		cmocka_unit_test(only_what_is_owned),
		cmocka_unit_test(given_later),
		cmocka_unit_test(emulated_instruction),
		cmocka_unit_test(exits_without_instruction),
		cmocka_unit_test(counters_that_would_not),
		cmocka_unit_test(configuration_changes),
		cmocka_unit_test(emulated_overflow),
		cmocka_unit_test(own_writes),
		cmocka_unit_test(own_writes_of_the_pair),
		cmocka_unit_test(own_write_and_instruction),
		cmocka_unit_test(nested),
		cmocka_unit_test(failed_nested_entry),
		cmocka_unit_test(lives),
		cmocka_unit_test(departed),
		cmocka_unit_test(msr_store_list),
		cmocka_unit_test(books),
		cmocka_unit_test(books_do_not_add_up),
		cmocka_unit_test(sections),
	};

	return cmocka_run_group_tests_name("conserve", tests, NULL, NULL);
}
