// SPDX-License-Identifier: GPL-2.0
/*
 * PERF_METRICS: arithmetic against exact rational numbers, writes and their
 * order, precision over saves and restores.
 */
#include "rig.h"

#define TOP	0x1000000000000		/* 2^48 */

static unsigned int field(uint64_t metrics, unsigned int i)
{
	return metrics >> 8 * i & 0xff;
}

/* Start counter 3 and the metrics from zero, in the architectural order. */
static void start(struct rig *rig)
{
	wr(rig, 0x38f, 0);
	wr(rig, 0x30c, 0);
	wr(rig, 0x329, 0);
	wr(rig, 0x38d, 0x3000);
	wr(rig, 0x38f, BIT(35) | BIT(48));
}

static void nothing_counted_reads_zero(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	start(rig);
	assert_int_equal(rd(rig, 0x329), 0);
	rig_free(rig);
}

/* 20 slots: 10, 5, 3, 2.  255 times a half, a quarter, 0.15 and 0.1. */
static void fractions_by_hand(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);
	struct rig *truncating = rig_new(BENCH "pmu.metrics_rounding = truncate\n", 0);

	(void)state;
	start(rig);
	slots(rig, 10, 5, 3, 2);
	assert_int_equal(rd(rig, 0x30c), 20);
	/* 127.5 up to 128, 63.75 to 64, 38.25 to 38, 25.5 up to 26 */
	assert_int_equal(rd(rig, 0x329), 0x1a264080);
	assert_int_equal(rdpmc(rig, 0x20000000), 0x1a264080);
	start(truncating);
	slots(truncating, 10, 5, 3, 2);
	assert_int_equal(rd(truncating, 0x329), 0x19263f7f);
	rig_free(rig);
	rig_free(truncating);
}

/* Is @got the fraction @part / @total in 1/255, by exact arithmetic? */
static void check_field(unsigned int got, uint64_t part, uint64_t total,
			bool truncate)
{
	/* got / 255 against part / total, both sides times 255 * total */
	int64_t error = (int64_t)(got * total) - (int64_t)(255 * part);

	/* nearest: at most half of an LSB off; truncated: less than one below */
	if (truncate ? error > 0 || error <= -(int64_t)total :
		       2 * error > (int64_t)total || 2 * error < -(int64_t)total)
		fail_msg("field %u for %llu of %llu slots", got,
			 (unsigned long long)part, (unsigned long long)total);
}

static void random_fractions(const char *description, bool truncate)
{
	uint64_t part[4], sum[4], total;
	unsigned int round, i, k, n;
	struct rig *rig;
	unsigned int fields;

	for (round = 0; round < 500; round++) {
		rig = rig_new(description, 0);
		start(rig);
		memset(sum, 0, sizeof(sum));
		n = 1 + random_below(8);
		for (i = 0; i < n; i++) {
			for (k = 0; k < 4; k++)
				part[k] = random_below(BIT(random_below(40)));
			/* pad to whole cycles of 5, which the model would do */
			total = part[0] + part[1] + part[2] + part[3];
			part[3] += (5 - total % 5) % 5;
			slots(rig, part[0], part[1], part[2], part[3]);
			for (k = 0; k < 4; k++)
				sum[k] += part[k];
		}
		total = sum[0] + sum[1] + sum[2] + sum[3];
		assert_int_equal(rd(rig, 0x30c), total);
		fields = 0;
		for (k = 0; k < 4 && total; k++) {
			check_field(field(rd(rig, 0x329), k), sum[k], total, truncate);
			fields += field(rd(rig, 0x329), k);
		}
		/* four fields, each half an LSB off at most; or one when cut */
		if (total)
			assert_in_range(fields, truncate ? 252 : 253,
					truncate ? 255 : 257);
		rig_free(rig);
	}
}

static void fractions_against_rationals(void **state)
{
	(void)state;
	random_start();
	random_fractions(BENCH, false);
	random_fractions(BENCH "pmu.metrics_rounding = truncate\n", true);
}

/* Level 2 on sapphire-rapids: the four upper fields are parts of the lower. */
static void level_two(void **state)
{
	uint64_t delta[PMU_NR_WORK] = {
		[PMU_WORK_INSTRUCTION] = 1600,	/* dependency: 7 per 16, 700 */
		[PMU_WORK_EXTRA_UOP] = 400,
		[PMU_WORK_BRANCH] = 300,	/* 1 each, 300 */
		[PMU_WORK_BRANCH_MISS] = 10,	/* 48 each, 480 */
		[PMU_WORK_FETCH_MISS] = 20,	/* 48 each, 960 */
		[PMU_WORK_PAGE_WALK] = 10,	/* 72 each, 720 */
		[PMU_WORK_LINE_FLUSH] = 1,	/* 240 */
	};
	/* 2000 + 480 + 1260 + 1660 = 5400 slots, 900 cycles of 6 */
	static const uint64_t parts[] = { 2000, 480, 1260, 1660, 400, 480, 960, 960 };
	struct rig *rig = rig_from_file("sapphire-rapids", 0);
	unsigned int i;

	(void)state;
	start(rig);
	pmu_advance(rig->pmu, delta);
	assert_int_equal(rd(rig, 0x30c), 5400);
	for (i = 0; i < 8; i++)
		check_field(field(rd(rig, 0x329), i), parts[i], 5400, false);
	rig_free(rig);
}

/* Metrics count while counter 3 does and GLOBAL_CTRL[48] is set. */
static void enables_of_metrics(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	start(rig);
	slots(rig, 0, 0, 0, 100);
	assert_int_equal(rd(rig, 0x329), 0xff000000);
	wr(rig, 0x38f, BIT(35));	/* counter 3 alone: the fraction sinks */
	slots(rig, 0, 0, 0, 100);
	assert_int_equal(field(rd(rig, 0x329), 3), 128);
	wr(rig, 0x38f, BIT(48));	/* metrics without counter 3: neither */
	slots(rig, 100, 0, 0, 0);
	assert_int_equal(rd(rig, 0x30c), 200);
	assert_int_equal(rd(rig, 0x329), 0x80000000);
	wr(rig, 0x38f, BIT(35) | BIT(48));
	wr(rig, 0x38d, 0x2000);		/* user only, and this is the kernel */
	slots(rig, 100, 0, 0, 0);
	assert_int_equal(rd(rig, 0x329), 0x80000000);
	in_root(rig, 3);
	slots(rig, 200, 0, 0, 0);
	assert_int_equal(rd(rig, 0x30c), 400);
	assert_int_equal(field(rd(rig, 0x329), 0), 128);
	rig_free(rig);
}

/* What was written reads back while nothing counts, whatever counter 3 is. */
static void written_value_reads_back(void **state)
{
	static const char * const machines[] = {
		BENCH, BENCH "pmu.metrics_rounding = truncate\n",
		BENCH "pmu.metrics_write = keep\n", BENCH "pmu.metrics = 8\n",
	};
	struct rig *rig;
	uint64_t value, mask;
	unsigned int m, i;

	(void)state;
	random_start();
	for (m = 0; m < ARRAY_SIZE(machines); m++) {
		rig = rig_new(machines[m], 0);
		mask = m == 3 ? ~(uint64_t)0 : 0xffffffff;
		for (i = 0; i < 1000; i++) {
			wr(rig, 0x30c, 1 + random_below(BIT(random_below(48))));
			value = random_below(~(uint64_t)0) & mask;
			wr(rig, 0x329, value);
			assert_int_equal(rd(rig, 0x329), value);
		}
		wr(rig, 0x30c, TOP - 1);
		wr(rig, 0x329, mask);
		assert_int_equal(rd(rig, 0x329), mask);
		rig_free(rig);
	}
}

/*
 * Restored in the right order, the pair goes on from where it was; in the wrong
 * order the metrics are derived from the old counter 3.
 */
static void order_of_writes(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	start(rig);
	wr(rig, 0x30c, 1000);
	wr(rig, 0x329, 0x000000ff);
	slots(rig, 0, 0, 0, 1000);
	assert_int_equal(rd(rig, 0x329), 0x80000080);

	start(rig);
	wr(rig, 0x329, 0x000000ff);	/* of nothing */
	wr(rig, 0x30c, 1000);
	slots(rig, 0, 0, 0, 1000);
	assert_int_equal(rd(rig, 0x329), 0x80000000);
	rig_free(rig);
}

/* A write of counter 3 leaves the hidden counts: software must clear both. */
static void stale_hidden_counts(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	start(rig);
	slots(rig, 5000, 0, 0, 0);
	wr(rig, 0x30c, 0);
	assert_int_equal(rd(rig, 0x329), 0);
	slots(rig, 0, 0, 0, 100);
	/* 5000 of 100 cannot be: saturated */
	assert_int_equal(rd(rig, 0x329), 0xff0000ff);
	rig_free(rig);
}

/*
 * Rewriting the value that is there: by the strict reading what is below one
 * LSB is lost, by the other it stays.  10 bad of 10000 slots are 0.255 of an LSB
 * and read as 0.  15 more make 0.64, or 0.38 if the first 10 were lost.
 */
static void rederive_and_keep(void **state)
{
	struct rig *strict = rig_new(BENCH, 0);
	struct rig *keep = rig_new(BENCH "pmu.metrics_write = keep\n", 0);

	(void)state;
	start(strict);
	start(keep);
	slots(strict, 9990, 10, 0, 0);
	slots(keep, 9990, 10, 0, 0);
	assert_int_equal(rd(strict, 0x329), 0xff);
	assert_int_equal(rd(keep, 0x329), 0xff);
	wr(strict, 0x329, 0xff);
	wr(keep, 0x329, 0xff);
	slots(strict, 0, 15, 0, 0);
	slots(keep, 0, 15, 0, 0);
	assert_int_equal(field(rd(strict, 0x329), 1), 0);
	assert_int_equal(field(rd(keep, 0x329), 1), 1);
	/* a different value is derived anew by both */
	wr(keep, 0x329, 0xfe);
	assert_int_equal(rd(keep, 0x329), 0xfe);
	/* cleared is cleared, counter 3 first as software does */
	wr(keep, 0x30c, 0);
	wr(keep, 0x329, 0);
	wr(keep, 0x30c, 10000);
	assert_int_equal(rd(keep, 0x329), 0);
	rig_free(strict);
	rig_free(keep);
}

/* What a hypervisor does at each exit and entry, rightly. */
static void save_and_restore(struct rig *rig)
{
	uint64_t control = rd(rig, 0x38f), metrics, counter;

	wr(rig, 0x38f, 0);
	metrics = rdpmc(rig, 0x20000000);
	counter = rdpmc(rig, 0x40000003);
	wr(rig, 0x30c, 0);
	wr(rig, 0x329, 0);

	wr(rig, 0x30c, counter);
	wr(rig, 0x329, metrics);
	wr(rig, 0x38f, control);
}

/* A save and restore by itself changes nothing that can be read. */
static void save_and_restore_is_transparent(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);
	uint64_t counter, metrics;
	unsigned int i;

	(void)state;
	random_start();
	start(rig);
	for (i = 0; i < 1000; i++) {
		slots(rig, random_below(1000), random_below(100),
		      random_below(300), random_below(500));
		counter = rd(rig, 0x30c);
		metrics = rd(rig, 0x329);
		save_and_restore(rig);
		assert_int_equal(rd(rig, 0x30c), counter);
		assert_int_equal(rd(rig, 0x329), metrics);
	}
	rig_free(rig);
}

static void run_phase(struct rig *rig, unsigned int exits, bool switching,
		      const uint64_t mix[4])
{
	unsigned int i;

	for (i = 0; i < exits; i++) {
		slots(rig, mix[0], mix[1], mix[2], mix[3]);
		if (switching)
			save_and_restore(rig);
	}
}

/*
 * A million slots between exits: 500 times 60/5/15/20, then 500 times
 * 35/5/15/45 (design, K14).  From exit 501 on an interval moves a fraction by
 * at most 0.25 / 501 * 255 = 0.13 of an LSB, which rounding takes back at each
 * restore: the fields stay at 60/5/15/20 (153, 12.75, 38.25, 51) though the
 * truth is 47.5/5/15/32.5 (121.125, 12.75, 38.25, 82.875).
 */
static void precision_decays_with_exits(void **state)
{
	static const uint64_t before[] = { 600000, 50000, 150000, 200000 };
	static const uint64_t after[] = { 350000, 50000, 150000, 450000 };
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	start(rig);
	run_phase(rig, 500, true, before);
	assert_int_equal(rd(rig, 0x329), 0x33260d99);
	run_phase(rig, 500, true, after);
	assert_int_equal(rd(rig, 0x30c), 1000000000);
	assert_int_equal(rd(rig, 0x329), 0x33260d99);

	start(rig);
	run_phase(rig, 500, false, before);
	run_phase(rig, 500, false, after);
	assert_int_equal(rd(rig, 0x30c), 1000000000);
	assert_int_equal(rd(rig, 0x329), 0x53260d79);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_counted_reads_zero),
		cmocka_unit_test(fractions_by_hand),
		cmocka_unit_test(fractions_against_rationals),
		cmocka_unit_test(level_two),
		cmocka_unit_test(enables_of_metrics),
		cmocka_unit_test(written_value_reads_back),
		cmocka_unit_test(order_of_writes),
		cmocka_unit_test(stale_hidden_counts),
		cmocka_unit_test(rederive_and_keep),
		cmocka_unit_test(save_and_restore_is_transparent),
		cmocka_unit_test(precision_decays_with_exits),
	};

	return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
