// SPDX-License-Identifier: GPL-2.0
/*
 * Counting: slots, events, privilege filter, enables, overflow, PMI, freeze and
 * the deadline.
 */
#include "rig.h"

#define EN_OS		(BIT(22) | BIT(17))
#define EN_USR		(BIT(22) | BIT(16))
#define EN_BOTH		(EN_OS | BIT(16))
#define INT		BIT(20)
#define TOP		0x1000000000000		/* 2^48: a counter wraps here */

/* Enable general counter 0 for @selector and start it from @value. */
static void count_gp(struct rig *rig, uint64_t selector, uint64_t value)
{
	wr(rig, 0x186, 0);
	wr(rig, 0x4c1, value);
	wr(rig, 0x38f, BIT(0));
	wr(rig, 0x186, selector);
}

/* Work as random as it comes: every kind, some of them much. */
static void random_work(uint64_t delta[PMU_NR_WORK])
{
	unsigned int i;

	for (i = 0; i < PMU_NR_WORK; i++)
		delta[i] = random_below(3) ? random_below(1 + (1u << random_below(20))) : 0;
}

/* Whatever happens: slots are width times cycles and have one cause each. */
static void every_slot_has_one_cause(void **state)
{
	static const char * const names[] = { "icelake", "sapphire-rapids" };
	static const unsigned int width[] = { 5, 6 };
	uint64_t delta[PMU_NR_WORK], slots_seen;
	unsigned int m, i, k;
	const char *line;
	struct rig *rig;

	(void)state;
	random_start();
	for (m = 0; m < ARRAY_SIZE(names); m++) {
		rig = rig_from_file(names[m], 0);
		wr(rig, 0x38d, 0x3333);
		wr(rig, 0x38f, 0xf00000000);
		for (i = 0; i < 200; i++) {
			random_work(delta);
			pmu_advance(rig->pmu, delta);
			slots_seen = rd(rig, 0x30c);
			assert_int_equal(slots_seen, width[m] * rd(rig, 0x30a));
		}
		pmu_mark(rig->pmu, 0);
		line = last_line(rig, "mark");
		assert_int_equal(number(line, "slots"), slots_seen);
		assert_int_equal(number(line, "retiring") + number(line, "bad_spec") +
				 number(line, "fe_bound") + number(line, "be_bound"),
				 slots_seen);
		/* a part is never more than its whole */
		assert_true(number(line, "heavy_ops") <= number(line, "retiring"));
		assert_true(number(line, "br_mispredict") <= number(line, "bad_spec"));
		assert_true(number(line, "fetch_latency") <= number(line, "fe_bound"));
		assert_true(number(line, "mem_bound") <= number(line, "be_bound"));
		for (k = 0; k < 10; k++) {
			uint64_t none[PMU_NR_WORK] = { 0 };

			pmu_advance(rig->pmu, none);
		}
		assert_int_equal(rd(rig, 0x30c), slots_seen);
		rig_free(rig);
	}
}

/*
 * By hand, on icelake: 32 instructions retire in 32 slots, 8 further micro-ops
 * in 8; 12 backend slots of dependency (6 per 16); 5 branches make 5 bubbles,
 * one of them mispredicted 40; one fetch miss 40; one walk 60; one flush 200.
 * Retiring 40, bad speculation 40, frontend 45, backend 272: 397 slots, so 80
 * cycles or 400 slots, the last 3 of them backend bound.
 */
static void attribution_by_hand(void **state)
{
	uint64_t delta[PMU_NR_WORK] = {
		[PMU_WORK_INSTRUCTION] = 32,
		[PMU_WORK_EXTRA_UOP] = 8,
		[PMU_WORK_BRANCH] = 5,
		[PMU_WORK_BRANCH_MISS] = 1,
		[PMU_WORK_FETCH_MISS] = 1,
		[PMU_WORK_PAGE_WALK] = 1,
		[PMU_WORK_LINE_FLUSH] = 1,
		[PMU_WORK_REFERENCE] = 123,
	};
	static const struct {
		const char *key;
		uint64_t n;
	} expected[] = {
		{ "instructions", 32 }, { "cycles", 80 }, { "reference", 123 },
		{ "branches", 5 }, { "branch_misses", 1 }, { "slots", 400 },
		{ "retiring", 40 }, { "bad_spec", 40 }, { "fe_bound", 45 },
		{ "be_bound", 275 }, { "heavy_ops", 8 }, { "br_mispredict", 40 },
		{ "fetch_latency", 40 }, { "mem_bound", 260 },
	};
	struct rig *rig = rig_from_file("icelake", 0);
	unsigned int i;

	(void)state;
	pmu_advance(rig->pmu, delta);
	pmu_mark(rig->pmu, 0);
	for (i = 0; i < ARRAY_SIZE(expected); i++) {
		if (number(last_line(rig, "mark"), expected[i].key) != expected[i].n)
			fail_msg("%s is not %llu in %s", expected[i].key,
				 (unsigned long long)expected[i].n,
				 last_line(rig, "mark"));
	}
	rig_free(rig);
}

/* Penalties other than those of the machines here: 2 + 3 * 7 + 11 slots, say. */
static void penalties_by_hand(void **state)
{
	uint64_t delta[PMU_NR_WORK] = {
		[PMU_WORK_INSTRUCTION] = 2,
		[PMU_WORK_BRANCH] = 3,
		[PMU_WORK_PAGE_WALK] = 1,
	};
	struct rig *rig = rig_new("name = x\npmu.width = 2\n"
				  "pmu.penalty.dependency = 0\n"
				  "pmu.penalty.branch = 7\n"
				  "pmu.penalty.page_walk = 11\n", 0);

	(void)state;
	pmu_advance(rig->pmu, delta);
	pmu_mark(rig->pmu, 0);
	assert_int_equal(number(last_line(rig, "mark"), "slots"), 34);
	assert_int_equal(number(last_line(rig, "mark"), "fe_bound"), 21);
	assert_int_equal(number(last_line(rig, "mark"), "fetch_latency"), 0);
	assert_int_equal(number(last_line(rig, "mark"), "be_bound"), 11);
	rig_free(rig);
}

/* Each architectural event on a general counter; the same work as above. */
static void architectural_events(void **state)
{
	static const struct {
		uint64_t selector;
		uint64_t n;
	} events[] = {
		{ 0x003c, 80 }, { 0x00c0, 32 }, { 0x013c, 123 }, { 0x4f2e, 1 },
		{ 0x412e, 1 }, { 0x00c4, 5 }, { 0x00c5, 1 }, { 0x01a4, 400 },
		{ 0x02a4, 275 }, { 0x0073, 40 }, { 0x019c, 45 }, { 0x02c2, 40 },
		/* everything else counts nothing */
		{ 0x01e4, 0 }, { 0x0000, 0 }, { 0x0400, 0 }, { 0x20c4, 0 },
		{ 0x8000, 0 }, { 0xffff, 0 },
	};
	uint64_t delta[PMU_NR_WORK] = { 32, 8, 5, 1, 1, 1, 1, 123 };
	struct rig *rig = rig_from_file("icelake", 0);
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(events); i++) {
		count_gp(rig, events[i].selector | EN_OS, 0);
		pmu_advance(rig->pmu, delta);
		if (rdpmc(rig, 0) != events[i].n)
			fail_msg("event %04llx counts %llu, not %llu",
				 (unsigned long long)events[i].selector,
				 (unsigned long long)rdpmc(rig, 0),
				 (unsigned long long)events[i].n);
	}
	rig_free(rig);
}

/* Fixed counters 0 to 3 on icelake, 4 to 6 on the machine with a gap. */
static void fixed_counters(void **state)
{
	static const uint64_t expected[] = { 32, 80, 123, 400, 40, 45, 40 };
	uint64_t delta[PMU_NR_WORK] = { 32, 8, 5, 1, 1, 1, 1, 123 };
	struct rig *icelake = rig_from_file("icelake", 0);
	struct rig *gap = rig_from_file("non-contiguous", 0);
	unsigned int i;

	(void)state;
	wr(icelake, 0x38d, 0x1111);
	wr(icelake, 0x38f, 0xf00000000);
	pmu_advance(icelake->pmu, delta);
	for (i = 0; i < 4; i++)
		assert_int_equal(rdpmc(icelake, 0x40000000 + i), expected[i]);

	wr(gap, 0x38d, 0x01110111);
	wr(gap, 0x38f, 0x7700000000);
	pmu_advance(gap->pmu, delta);
	for (i = 0; i < 7; i++) {
		if (i != 3)
			assert_int_equal(rdpmc(gap, 0x40000000 + i), expected[i]);
	}
	rig_free(icelake);
	rig_free(gap);
}

/* 12 instructions on BENCH fill 2 cycles of 5 and 2 slots of a third. */
static void counter_mask(void **state)
{
	static const struct {
		uint64_t selector;
		uint64_t n;
	} cases[] = {
		{ 0x010000c0, 3 },	/* cycles with at least 1 */
		{ 0x020000c0, 3 },
		{ 0x030000c0, 2 },
		{ 0x050000c0, 2 },
		{ 0x060000c0, 0 },	/* more than fit in a cycle */
		{ 0x018000c0, 0 },	/* inverted: with less than 1 */
		{ 0x038000c0, 1 },
		{ 0x108000c0, 3 },	/* the old spelling of cycles:pp */
		{ 0x010400c0, 1 },	/* edge: one burst */
		{ 0x060400c0, 0 },
		{ 0x008000c0, 12 },	/* without a mask INV and EDGE do nothing */
		{ 0x000400c0, 12 },
		{ 0x0100003c, 3 },
		{ 0x0200003c, 0 },	/* a cycle is never two cycles */
	};
	uint64_t branches[PMU_NR_WORK] = {
		[PMU_WORK_INSTRUCTION] = 12,
		[PMU_WORK_BRANCH] = 12,
	};
	struct rig *rig = rig_new(BENCH, 0);
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		count_gp(rig, cases[i].selector | EN_OS, 0);
		work(rig, PMU_WORK_INSTRUCTION, 12);
		if (rdpmc(rig, 0) != cases[i].n)
			fail_msg("selector %llx counts %llu, not %llu",
				 (unsigned long long)cases[i].selector,
				 (unsigned long long)rdpmc(rig, 0),
				 (unsigned long long)cases[i].n);
	}
	/* 12 branches in 3 cycles: no more cycles than there were */
	count_gp(rig, 0x010000c4 | EN_OS, 0);
	pmu_advance(rig->pmu, branches);
	assert_int_equal(rdpmc(rig, 0), 3);
	rig_free(rig);
}

/* OS is CPL 0, USR is CPL 1, 2 and 3: SDM on IA32_PERFEVTSELx. */
static void privilege_filter(void **state)
{
	static const uint64_t selectors[] = { BIT(22), EN_OS, EN_USR, EN_BOTH };
	struct rig *rig = rig_new(BENCH, 0);
	unsigned int cpl, i;
	bool counts;

	(void)state;
	for (cpl = 0; cpl < 4; cpl++) {
		for (i = 0; i < 4; i++) {
			counts = i & (cpl ? 2 : 1);
			in_root(rig, 0);
			count_gp(rig, selectors[i] | 0xc0, 0);
			wr(rig, 0x38d, i);
			wr(rig, 0x309, 0);
			wr(rig, 0x38f, BIT(0) | BIT(32));
			in_root(rig, cpl);
			work(rig, PMU_WORK_INSTRUCTION, 7);
			assert_int_equal(rdpmc(rig, 0), counts ? 7 : 0);
			assert_int_equal(rdpmc(rig, 0x40000000), counts ? 7 : 0);
		}
	}
	rig_free(rig);
}

static void enables(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	/* locally on, globally off, and the reverse */
	count_gp(rig, 0xc0 | EN_OS, 0);
	wr(rig, 0x38f, ~BIT(0) & 0xff);
	work(rig, PMU_WORK_INSTRUCTION, 1);
	assert_int_equal(rdpmc(rig, 0), 0);
	wr(rig, 0x38f, BIT(0));
	wr(rig, 0x186, 0xc0 | BIT(17));
	work(rig, PMU_WORK_INSTRUCTION, 1);
	assert_int_equal(rdpmc(rig, 0), 0);
	/* by VM entry */
	wr(rig, 0x186, 0xc0 | EN_OS);
	pmu_set_global_ctrl(rig->pmu, 0);
	work(rig, PMU_WORK_INSTRUCTION, 1);
	assert_int_equal(rdpmc(rig, 0), 0);
	pmu_set_global_ctrl(rig->pmu, 1);
	work(rig, PMU_WORK_INSTRUCTION, 3);
	assert_int_equal(rdpmc(rig, 0), 3);
	/* fixed counters have no enable but levels and GLOBAL_CTRL */
	wr(rig, 0x38d, 0x1000);
	work(rig, PMU_WORK_INSTRUCTION, 5);
	assert_int_equal(rdpmc(rig, 0x40000003), 0);
	wr(rig, 0x38f, BIT(35));
	work(rig, PMU_WORK_INSTRUCTION, 5);
	assert_int_equal(rdpmc(rig, 0x40000003), 5);
	assert_int_equal(rdpmc(rig, 0), 8);
	rig_free(rig);
}

/* A counter goes on from the residue, also over several wraps at once. */
static void overflow_keeps_residue(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	count_gp(rig, 0xc0 | EN_OS, TOP - 10);
	work(rig, PMU_WORK_INSTRUCTION, 9);
	assert_int_equal(rd(rig, 0x38e), 0);
	assert_int_equal(rdpmc(rig, 0), TOP - 1);
	work(rig, PMU_WORK_INSTRUCTION, 1);
	assert_int_equal(rd(rig, 0x38e), 1);
	assert_int_equal(rdpmc(rig, 0), 0);
	wr(rig, 0x390, 1);
	wr(rig, 0x4c1, TOP - 10);
	work(rig, PMU_WORK_INSTRUCTION, 1000);
	assert_int_equal(rd(rig, 0x38e), 1);
	assert_int_equal(rdpmc(rig, 0), 990);
	/* without INT there is no PMI */
	assert_int_equal(rig->pmis, 0);
	rig_free(rig);

	rig = rig_new("name = x\npmu.gp_width = 32\n", 0);
	count_gp(rig, 0xc0 | EN_OS, 5);
	work(rig, PMU_WORK_INSTRUCTION, 3 * BIT(32) + 1);
	assert_int_equal(rdpmc(rig, 0), 6);
	assert_int_equal(rd(rig, 0x38e), 1);
	rig_free(rig);
}

/* Every counter has its own bit in GLOBAL_STATUS and its own PMI enable. */
static void overflow_bit_of_each_counter(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);
	unsigned int i;

	(void)state;
	for (i = 0; i < 12; i++) {
		unsigned int bit = i < 8 ? i : 32 + i - 8;
		unsigned int before = rig->pmis;

		wr(rig, 0x38f, BIT(bit));
		wr(rig, i < 8 ? 0x4c1 + i : 0x309 + i - 8, TOP - 1);
		if (i < 8)
			wr(rig, 0x186 + i, 0xc0 | EN_OS | INT);
		else
			wr(rig, 0x38d, (uint64_t)0x9 << 4 * (i - 8));
		work(rig, PMU_WORK_INSTRUCTION, 5);
		if (i == 10)	/* reference cycles */
			work(rig, PMU_WORK_REFERENCE, 5);
		assert_int_equal(rd(rig, 0x38e), BIT(bit));
		assert_int_equal(rig->pmis, before + 1);
		wr(rig, 0x390, BIT(bit));
		assert_int_equal(rd(rig, 0x38e), 0);
	}
	rig_free(rig);
}

/* One PMI for one call, and again at the next overflow, status set or not. */
static void pmi_per_overflow(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	count_gp(rig, 0xc0 | EN_OS | INT, TOP - 1);
	wr(rig, 0x187, 0xc0 | EN_OS | INT);
	wr(rig, 0x4c2, TOP - 1);
	wr(rig, 0x38f, 3);
	work(rig, PMU_WORK_INSTRUCTION, 1);
	assert_int_equal(rd(rig, 0x38e), 3);
	assert_int_equal(rig->pmis, 1);
	wr(rig, 0x4c1, TOP - 1);
	work(rig, PMU_WORK_INSTRUCTION, 1);
	assert_int_equal(rig->pmis, 2);
	rig_free(rig);
}

static void freeze_stops_all_counters(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	pmu_set_freeze_on_pmi(rig->pmu, true);
	count_gp(rig, 0xc0 | EN_OS | INT, TOP - 4);
	wr(rig, 0x38d, 0x1);
	wr(rig, 0x38f, BIT(0) | BIT(32));
	work(rig, PMU_WORK_INSTRUCTION, 4);
	assert_int_equal(rig->pmis, 1);
	assert_int_equal(rd(rig, 0x38e), BIT(59) | BIT(0));
	/* GLOBAL_CTRL is left alone */
	assert_int_equal(rd(rig, 0x38f), BIT(0) | BIT(32));
	work(rig, PMU_WORK_INSTRUCTION, 100);
	assert_int_equal(rdpmc(rig, 0), 0);
	assert_int_equal(rdpmc(rig, 0x40000000), 4);
	/* clearing the overflow alone does not thaw */
	wr(rig, 0x390, BIT(0));
	work(rig, PMU_WORK_INSTRUCTION, 100);
	assert_int_equal(rdpmc(rig, 0x40000000), 4);
	wr(rig, 0x390, BIT(59));
	work(rig, PMU_WORK_INSTRUCTION, 100);
	assert_int_equal(rdpmc(rig, 0x40000000), 104);
	/* frozen by software, too */
	wr(rig, 0x391, BIT(59));
	work(rig, PMU_WORK_INSTRUCTION, 100);
	assert_int_equal(rdpmc(rig, 0x40000000), 104);
	rig_free(rig);
}

/* No freeze without DEBUGCTL.FREEZE_PERFMON_ON_PMI, nor without a PMI. */
static void no_freeze_when_not_asked(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	count_gp(rig, 0xc0 | EN_OS | INT, TOP - 1);
	work(rig, PMU_WORK_INSTRUCTION, 1);
	assert_int_equal(rd(rig, 0x38e), 1);
	pmu_set_freeze_on_pmi(rig->pmu, true);
	wr(rig, 0x390, 1);
	count_gp(rig, 0xc0 | EN_OS, TOP - 1);
	work(rig, PMU_WORK_INSTRUCTION, 1);
	assert_int_equal(rd(rig, 0x38e), 1);
	rig_free(rig);
}

/* Before version 4 the freeze clears GLOBAL_CTRL. */
static void legacy_freeze(void **state)
{
	struct rig *rig = rig_from_file("perfmon-v3", 0);

	(void)state;
	pmu_set_freeze_on_pmi(rig->pmu, true);
	count_gp(rig, 0xc0 | EN_OS | INT, TOP - 1);
	work(rig, PMU_WORK_INSTRUCTION, 1);
	assert_int_equal(rd(rig, 0x38e), 1);
	assert_int_equal(rd(rig, 0x38f), 0);
	work(rig, PMU_WORK_INSTRUCTION, 10);
	assert_int_equal(rdpmc(rig, 0), 0);
	rig_free(rig);
}

/* 0 while nothing can interrupt; exact for instructions. */
static void deadline_of_instructions(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	assert_int_equal(rig->deadline, 0);
	count_gp(rig, 0xc0 | EN_OS, TOP - 500);
	assert_int_equal(rig->deadline, 0);
	count_gp(rig, 0xc0 | EN_OS | INT, TOP - 500);
	assert_int_equal(rig->deadline, 500);
	work(rig, PMU_WORK_INSTRUCTION, 100);
	assert_int_equal(rig->deadline, 400);
	/* not counting at CPL 3: nothing is due */
	in_root(rig, 3);
	assert_int_equal(rig->deadline, 0);
	in_root(rig, 0);
	assert_int_equal(rig->deadline, 400);
	wr(rig, 0x38f, 0);
	assert_int_equal(rig->deadline, 0);
	wr(rig, 0x38f, 1);
	wr(rig, 0x4c1, TOP - 3);
	assert_int_equal(rig->deadline, 3);
	work(rig, PMU_WORK_INSTRUCTION, 3);
	assert_int_equal(rig->pmis, 1);
	/* of two the earlier */
	wr(rig, 0x4c1, TOP - 1000);
	wr(rig, 0x309, TOP - 70);
	wr(rig, 0x38d, 0x9);
	wr(rig, 0x38f, BIT(0) | BIT(32));
	assert_int_equal(rig->deadline, 70);
	/* an unknown event never overflows: whatever is asked is far away */
	wr(rig, 0x38f, 1);
	count_gp(rig, 0xffff | EN_OS | INT, TOP - 1);
	assert_true(rig->deadline >= BIT(32));
	/* inverted, it counts every cycle */
	count_gp(rig, 0x0180ffff | EN_OS | INT, TOP - 1);
	assert_int_equal(rig->deadline, 64);
	count_gp(rig, 0x028000c0 | EN_OS | INT, TOP - 1);
	assert_int_equal(rig->deadline, 64);
	work(rig, PMU_WORK_INSTRUCTION, 1);
	assert_int_equal(rig->pmis, 2);
	pmu_reset(rig->pmu);
	assert_int_equal(rig->deadline, 0);
	rig_free(rig);
}

struct deadline_case {
	uint64_t selector;	/* of general counter 0, or */
	uint64_t fixed;		/* a nibble of FIXED_CTR_CTRL */
	unsigned int index;
	bool exact;		/* at most one event an instruction */
};

/*
 * Run instructions one by one until the PMI, calling the model when it asked
 * and at random besides; count how many instructions too late it comes.
 */
static unsigned int lateness(struct rig *rig, const struct deadline_case *c)
{
	uint64_t delta[PMU_NR_WORK] = { 0 }, due = rig->deadline, before;
	uint32_t ecx = c->fixed ? 0x40000000 + c->index : 0;
	unsigned int since = 0, i;

	for (i = 0; i < 1000000 && !rig->pmis; i++) {
		delta[PMU_WORK_INSTRUCTION]++;
		delta[PMU_WORK_BRANCH] += !random_below(5);
		delta[PMU_WORK_BRANCH_MISS] += !random_below(30);
		delta[PMU_WORK_FETCH_MISS] += !random_below(40);
		delta[PMU_WORK_PAGE_WALK] += !random_below(50);
		since++;
		assert_true(due >= since);
		if (due != since && random_below(100))
			continue;
		before = rdpmc(rig, ecx);
		pmu_advance(rig->pmu, delta);
		memset(delta, 0, sizeof(delta));
		/* it always asks again while the counter runs */
		due = rig->deadline;
		assert_true(due);
		if (!rig->pmis)
			assert_true(rdpmc(rig, ecx) >= before);
		if (rig->pmis)
			return since;
		since = 0;
	}
	fail_msg("no PMI after %u instructions", i);
	return 0;
}

static void deadline_is_never_late(void **state)
{
	static const struct deadline_case cases[] = {
		{ .selector = 0x00c0, .exact = true },
		{ .selector = 0x00c4, .exact = true },
		{ .selector = 0x00c5, .exact = true },
		{ .fixed = 1, .index = 0, .exact = true },
		{ .selector = 0x003c },
		{ .selector = 0x01a4 },
		{ .fixed = 1, .index = 1 },
		{ .fixed = 1, .index = 3 },
	};
	const struct deadline_case *c;
	unsigned int round, i, step;
	struct rig *rig;
	uint64_t left;

	(void)state;
	random_start();
	for (round = 0; round < 40; round++) {
		for (i = 0; i < ARRAY_SIZE(cases); i++) {
			c = &cases[i];
			rig = rig_from_file("icelake", 0);
			left = 1 + random_below(5000);
			if (c->fixed) {
				wr(rig, 0x309 + c->index, TOP - left);
				wr(rig, 0x38d, (uint64_t)9 << 4 * c->index);
				wr(rig, 0x38f, BIT(32 + c->index));
			} else {
				count_gp(rig, c->selector | EN_OS | INT, TOP - left);
			}
			step = lateness(rig, c);
			left = rdpmc(rig, c->fixed ? 0x40000000 + c->index : 0);
			/* the overflowing instruction is the last one run ... */
			if (c->exact && left)
				fail_msg("event %llx is %llu too late",
					 (unsigned long long)c->selector,
					 (unsigned long long)left);
			/* ... or at most one last step of 64 instructions ago */
			if (step > 64 && left)
				fail_msg("last step of %u instructions, %llu too late",
					 step, (unsigned long long)left);
			rig_free(rig);
		}
	}
}

/* A PMI for the metrics' own overflow, bit 48, needs no enable of its own. */
static void metrics_overflow(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	wr(rig, 0x30c, TOP - 100);
	wr(rig, 0x329, 0xff);		/* all of it retiring */
	wr(rig, 0x38d, 0x1000);
	wr(rig, 0x38f, BIT(35) | BIT(48));
	/* a hidden count is near its end, and asks for the shortest step */
	assert_int_equal(rig->deadline, 64);
	slots(rig, 50, 0, 0, 0);
	assert_int_equal(rd(rig, 0x38e), 0);
	/* counter 3 first, by slots that do not retire */
	slots(rig, 0, 0, 50, 0);
	assert_int_equal(rd(rig, 0x38e), BIT(35));
	assert_int_equal(rig->pmis, 0);
	slots(rig, 50, 0, 0, 0);
	assert_int_equal(rd(rig, 0x38e), BIT(48) | BIT(35));
	assert_int_equal(rig->pmis, 1);
	wr(rig, 0x390, BIT(48));
	assert_int_equal(rd(rig, 0x38e), BIT(35));
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_slot_has_one_cause),
		cmocka_unit_test(attribution_by_hand),
		cmocka_unit_test(penalties_by_hand),
		cmocka_unit_test(architectural_events),
		cmocka_unit_test(fixed_counters),
		cmocka_unit_test(counter_mask),
		cmocka_unit_test(privilege_filter),
		cmocka_unit_test(enables),
		cmocka_unit_test(overflow_keeps_residue),
		cmocka_unit_test(overflow_bit_of_each_counter),
		cmocka_unit_test(pmi_per_overflow),
		cmocka_unit_test(freeze_stops_all_counters),
		cmocka_unit_test(no_freeze_when_not_asked),
		cmocka_unit_test(legacy_freeze),
		cmocka_unit_test(deadline_of_instructions),
		cmocka_unit_test(deadline_is_never_late),
		cmocka_unit_test(metrics_overflow),
	};

	return cmocka_run_group_tests_name("counting", tests, NULL, NULL);
}
