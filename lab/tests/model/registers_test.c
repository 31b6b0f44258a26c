// SPDX-License-Identifier: GPL-2.0
/*
 * Which registers exist, which bits they have, what faults.  The tables are
 * the SDM's, written out bit by bit, not computed as the model does.
 */
#include "rig.h"

/* Written one bit at a time, @valid bits stick and all others fault. */
static void check_bits(struct rig *rig, uint32_t msr, uint64_t valid)
{
	unsigned int bit;

	for (bit = 0; bit < 64; bit++) {
		wr(rig, msr, 0);
		if (valid & BIT(bit)) {
			wr(rig, msr, BIT(bit));
			if (rd(rig, msr) != BIT(bit))
				fail_msg("MSR 0x%x bit %u does not stick", msr, bit);
		} else {
			wr_gp(rig, msr, BIT(bit));
			if (rd(rig, msr))
				fail_msg("MSR 0x%x changed although bit %u faults",
					 msr, bit);
		}
	}
	wr(rig, msr, 0);
}

static void icelake_bits(void **state)
{
	struct rig *rig = rig_from_file("icelake", 0);
	unsigned int i;

	(void)state;
	for (i = 0; i < 8; i++) {
		/* PERFEVTSEL: 31:0 without AnyThread (21) */
		check_bits(rig, 0x186 + i, 0xffdfffff);
		check_bits(rig, 0x4c1 + i, 0xffffffffffff);
	}
	for (i = 0; i < 4; i++)
		check_bits(rig, 0x309 + i, 0xffffffffffff);
	/* FIXED_CTR_CTRL: OS, USR, PMI of four counters, no AnyThread */
	check_bits(rig, 0x38d, 0xbbbb);
	/* GLOBAL_CTRL: 8 general, 4 fixed, metrics */
	check_bits(rig, 0x38f, 0x0001000f000000ff);
	rig_free(rig);
}

static void sapphire_rapids_bits(void **state)
{
	struct rig *rig = rig_from_file("sapphire-rapids", 0);

	(void)state;
	check_bits(rig, 0x38d, 0xbbbb);
	check_bits(rig, 0x38f, 0x0001000f000000ff);
	rig_free(rig);
}

static void non_contiguous_bits(void **state)
{
	struct rig *rig = rig_from_file("non-contiguous", 0);
	unsigned int i;

	(void)state;
	check_bits(rig, 0x38d, 0x0bbb0bbb);
	check_bits(rig, 0x38f, 0x00000077000000ff);
	for (i = 0; i < 16; i++) {
		if (0x77 & BIT(i)) {
			check_bits(rig, 0x309 + i, 0xffffffffffff);
			rdpmc(rig, 0x40000000 + i);
		} else {
			rd_gp(rig, 0x309 + i);
			wr_gp(rig, 0x309 + i, 0);
		}
	}
	rd_gp(rig, 0x329);
	rig_free(rig);
}

/* Version 3: AnyThread exists, STATUS_SET and INUSE do not. */
static void perfmon_v3_bits(void **state)
{
	struct rig *rig = rig_from_file("perfmon-v3", 0);

	(void)state;
	check_bits(rig, 0x186, 0xffffffff);
	check_bits(rig, 0x38d, 0xfff);
	check_bits(rig, 0x38f, 0x000000070000000f);
	rd_gp(rig, 0x18a);
	rd_gp(rig, 0xc5);
	rd_gp(rig, 0x30c);
	rd_gp(rig, 0x329);
	rd_gp(rig, 0x391);
	wr_gp(rig, 0x391, 0);
	rd_gp(rig, 0x392);
	/* no freeze bits before version 4 */
	wr_gp(rig, 0x390, BIT(58));
	wr_gp(rig, 0x390, BIT(59));
	rig_free(rig);
}

static void full_width_needs_capability(void **state)
{
	struct rig *rig = rig_from_file("no-full-width", 0);
	unsigned int i;

	(void)state;
	for (i = 0; i < 8; i++) {
		rd_gp(rig, 0x4c1 + i);
		wr_gp(rig, 0x4c1 + i, 0);
		wr(rig, 0xc1 + i, 0);
	}
	assert_int_equal(rd(rig, 0x345), BIT(15));
	rig_free(rig);
}

static void perf_capabilities_needs_pdcm(void **state)
{
	struct rig *rig = rig_new("name = x\npmu.pdcm = 0\npmu.metrics = 0\n"
				  "pmu.perf_capabilities = 0\n", 0);

	(void)state;
	assert_false(pmu_machine_has_pdcm(rig->machine));
	rd_gp(rig, 0x345);
	rig_free(rig);
}

static void read_only_registers_fault(void **state)
{
	struct rig *rig = rig_from_file("icelake", 0);

	(void)state;
	wr_gp(rig, 0x345, 0);
	wr_gp(rig, 0x345, BIT(13) | BIT(15));
	wr_gp(rig, 0x38e, 0);
	wr_gp(rig, 0x392, 0);
	rig_free(rig);
}

/* PEBS, BTS and counters that are not there fault; strangers are not ours. */
static void absent_and_foreign_registers(void **state)
{
	static const uint32_t absent[] = {
		0x3f1, 0x3f2, 0x600, 0x30d, 0x310, 0x318,
	};
	static const uint32_t foreign[] = {
		0x10, 0xc0, 0xc9, 0x185, 0x18e, 0x1a6, 0x1c9, 0x1d9, 0x308,
		0x319, 0x38c, 0x393, 0x3f0, 0x3f3, 0x4c0, 0x4c9, 0x680,
		0xc0000080,
	};
	struct rig *rig = rig_from_file("icelake", 0);
	uint64_t value = 1;
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(absent); i++) {
		rd_gp(rig, absent[i]);
		wr_gp(rig, absent[i], 0);
	}
	for (i = 0; i < ARRAY_SIZE(foreign); i++) {
		assert_int_equal(pmu_rdmsr(rig->pmu, foreign[i], &value), PMU_NOT_MINE);
		assert_int_equal(pmu_wrmsr(rig->pmu, foreign[i], 0), PMU_NOT_MINE);
	}
	assert_int_equal(value, 1);
	rig_free(rig);
}

/* The old range takes EAX only and extends its sign to the counter's width. */
static void legacy_writes_extend_sign(void **state)
{
	struct rig *rig = rig_from_file("icelake", 0);

	(void)state;
	wr(rig, 0xc1, 0x7fffffff);
	assert_int_equal(rd(rig, 0xc1), 0x7fffffff);
	wr(rig, 0xc1, 0x80000000);
	assert_int_equal(rd(rig, 0xc1), 0xffff80000000);
	assert_int_equal(rd(rig, 0x4c1), 0xffff80000000);
	wr(rig, 0xc1, 0x1234567800000001);
	assert_int_equal(rd(rig, 0xc1), 1);
	/* the same counter by its other name, all 48 bits */
	wr(rig, 0x4c1, 0x800000000000);
	assert_int_equal(rd(rig, 0xc1), 0x800000000000);
	assert_int_equal(rdpmc(rig, 0), 0x800000000000);
	wr_gp(rig, 0x4c1, 0x1000000000000);
	rig_free(rig);
}

static void narrow_counters(void **state)
{
	struct rig *rig = rig_new("name = x\npmu.gp_width = 40\npmu.fixed_width = 44\n", 0);

	(void)state;
	wr(rig, 0xc1, 0xffffffff);
	assert_int_equal(rd(rig, 0xc1), 0xffffffffff);
	check_bits(rig, 0x4c1, 0xffffffffff);
	check_bits(rig, 0x309, 0xfffffffffff);
	rig_free(rig);
}

static void reset_values(void **state)
{
	struct rig *rig = rig_from_file("icelake", 0);
	unsigned int round, i;

	(void)state;
	for (round = 0; round < 2; round++) {
		assert_int_equal(rd(rig, 0x38f), 0xff);
		assert_int_equal(rd(rig, 0x38d), 0);
		assert_int_equal(rd(rig, 0x38e), 0);
		assert_int_equal(rd(rig, 0x392), 0);
		assert_int_equal(rd(rig, 0x329), 0);
		for (i = 0; i < 8; i++) {
			assert_int_equal(rd(rig, 0x186 + i), 0);
			assert_int_equal(rd(rig, 0xc1 + i), 0);
		}
		for (i = 0; i < 4; i++)
			assert_int_equal(rd(rig, 0x309 + i), 0);
		/* PMU available (7), BTS (11) and PEBS (12) unavailable */
		assert_int_equal(rd(rig, 0x1a0) & 0x1880, 0x1880);

		wr(rig, 0x38f, 0);
		wr(rig, 0x38d, 0xbbbb);
		wr(rig, 0x391, BIT(48) | BIT(0));
		wr(rig, 0x30c, 1000);
		wr(rig, 0x329, 0x01020304);
		for (i = 0; i < 8; i++) {
			wr(rig, 0x186 + i, 0xc0);
			wr(rig, 0x4c1 + i, 77);
		}
		pmu_reset(rig->pmu);
	}
	rig_free(rig);
}

static void misc_enable_bits(void **state)
{
	struct rig *rig = rig_from_file("icelake", 0);

	(void)state;
	/* read-only bits keep their value whatever is written */
	wr(rig, 0x1a0, 0);
	assert_int_equal(rd(rig, 0x1a0), 0x1880);
	wr(rig, 0x1a0, BIT(0) | BIT(16) | BIT(7));
	assert_int_equal(rd(rig, 0x1a0), 0x1880 | BIT(0) | BIT(16));
	wr_gp(rig, 0x1a0, BIT(34));
	wr_gp(rig, 0x1a0, BIT(63));
	rig_free(rig);
}

/* Set by 0x391, shown by 0x38e, cleared by 0x390: each bit that exists. */
static void status_set_and_reset(void **state)
{
	/* counters, metrics, LBR_FRZ, CTR_FRZ, uncore, buffer */
	const uint64_t set = 0x6c01000f000000ff;
	const uint64_t reset = set | BIT(63);
	struct rig *rig = rig_from_file("icelake", 0);
	unsigned int bit;

	(void)state;
	for (bit = 0; bit < 64; bit++) {
		if (set & BIT(bit)) {
			wr(rig, 0x391, BIT(bit));
			assert_int_equal(rd(rig, 0x38e), BIT(bit));
		} else {
			wr_gp(rig, 0x391, BIT(bit));
		}
		if (reset & BIT(bit))
			wr(rig, 0x390, BIT(bit));
		else
			wr_gp(rig, 0x390, BIT(bit));
		assert_int_equal(rd(rig, 0x38e), 0);
	}
	wr(rig, 0x391, 3);
	wr(rig, 0x391, 4);
	assert_int_equal(rd(rig, 0x38e), 7);
	wr(rig, 0x390, 2);
	assert_int_equal(rd(rig, 0x38e), 5);
	assert_int_equal(rd(rig, 0x390), 0);
	assert_int_equal(rd(rig, 0x391), 0);
	assert_int_equal(rig->pmis, 0);
	rig_free(rig);
}

/* Without PERF_METRICS bit 48 is reserved everywhere. */
static void metrics_absent(void **state)
{
	struct rig *rig = rig_from_file("no-metrics", 0);
	uint64_t value;

	(void)state;
	check_bits(rig, 0x38f, 0x0000000f000000ff);
	rd_gp(rig, 0x329);
	wr_gp(rig, 0x329, 0);
	wr_gp(rig, 0x390, BIT(48));
	wr_gp(rig, 0x391, BIT(48));
	assert_int_equal(pmu_rdpmc(rig->pmu, 0x20000000, &value), PMU_GP);
	rdpmc(rig, 0x40000003);
	rig_free(rig);
}

static void inuse_follows_configuration(void **state)
{
	struct rig *rig = rig_from_file("icelake", 0);

	(void)state;
	wr(rig, 0x188, 0xc0);
	assert_int_equal(rd(rig, 0x392), BIT(2));
	wr(rig, 0x188, 0xff00);		/* unit mask only: no event */
	assert_int_equal(rd(rig, 0x392), 0);
	wr(rig, 0x38d, 0x3000);
	assert_int_equal(rd(rig, 0x392), BIT(35));
	wr(rig, 0x38d, 0x8000);
	assert_int_equal(rd(rig, 0x392), BIT(63));
	wr(rig, 0x38d, 0);
	wr(rig, 0x186, BIT(20));
	assert_int_equal(rd(rig, 0x392), BIT(63));
	rig_free(rig);
}

static void rdpmc_selectors(void **state)
{
	static const uint32_t bad[] = {
		8, 0xffff, 0x10000, 0x40000004, 0x4000ffff, 0x20000001,
		0x2000ffff, 0x20010000, 0x80000000, 0x60000000, 0xc0000000,
		0x40010000, 0xffffffff,
	};
	struct rig *rig = rig_from_file("icelake", 0);
	uint64_t value = 0x5a5a;
	unsigned int i;

	(void)state;
	for (i = 0; i < 8; i++) {
		wr(rig, 0x4c1 + i, 0x100 + i);
		assert_int_equal(rdpmc(rig, i), 0x100 + i);
	}
	for (i = 0; i < 4; i++) {
		wr(rig, 0x309 + i, 0x200 + i);
		assert_int_equal(rdpmc(rig, 0x40000000 + i), 0x200 + i);
	}
	wr(rig, 0x30c, 255);
	wr(rig, 0x329, 0x04030201);
	assert_int_equal(rdpmc(rig, 0x20000000), 0x04030201);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		if (pmu_rdpmc(rig->pmu, bad[i], &value) != PMU_GP)
			fail_msg("RDPMC(0x%x) did not fault", bad[i]);
	}
	assert_int_equal(value, 0x5a5a);
	rig_free(rig);
}

static void metrics_reserved_bits(void **state)
{
	struct rig *four = rig_from_file("icelake", 0);
	struct rig *eight = rig_from_file("sapphire-rapids", 0);
	struct rig *ignore = rig_new("name = x\npmu.metrics_reserved = ignore\n", 0);

	(void)state;
	wr(four, 0x30c, 1000);
	wr(eight, 0x30c, 1000);
	wr(ignore, 0x30c, 1000);
	check_bits(four, 0x329, 0x00000000ffffffff);
	check_bits(eight, 0x329, 0xffffffffffffffff);
	/* the other reading: bits 63:32 are dropped */
	wr(ignore, 0x329, 0x1122334455667788);
	assert_int_equal(rd(ignore, 0x329), 0x55667788);
	rig_free(four);
	rig_free(eight);
	rig_free(ignore);
}

/* VM-entry check and load of GLOBAL_CTRL. */
static void global_ctrl_from_vmcs(void **state)
{
	struct rig *rig = rig_from_file("icelake", 0);

	(void)state;
	assert_true(pmu_global_ctrl_valid(rig->pmu, 0x0001000f000000ff));
	assert_false(pmu_global_ctrl_valid(rig->pmu, BIT(8)));
	assert_false(pmu_global_ctrl_valid(rig->pmu, BIT(36)));
	assert_false(pmu_global_ctrl_valid(rig->pmu, BIT(49)));
	pmu_set_global_ctrl(rig->pmu, 0x10000000f);
	assert_int_equal(rd(rig, 0x38f), 0x10000000f);
	wr(rig, 0x38f, 5);
	assert_int_equal(pmu_global_ctrl(rig->pmu), 5);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(icelake_bits),
		cmocka_unit_test(sapphire_rapids_bits),
		cmocka_unit_test(non_contiguous_bits),
		cmocka_unit_test(perfmon_v3_bits),
		cmocka_unit_test(full_width_needs_capability),
		cmocka_unit_test(perf_capabilities_needs_pdcm),
		cmocka_unit_test(read_only_registers_fault),
		cmocka_unit_test(absent_and_foreign_registers),
		cmocka_unit_test(legacy_writes_extend_sign),
		cmocka_unit_test(narrow_counters),
		cmocka_unit_test(reset_values),
		cmocka_unit_test(misc_enable_bits),
		cmocka_unit_test(status_set_and_reset),
		cmocka_unit_test(metrics_absent),
		cmocka_unit_test(inuse_follows_configuration),
		cmocka_unit_test(rdpmc_selectors),
		cmocka_unit_test(metrics_reserved_bits),
		cmocka_unit_test(global_ctrl_from_vmcs),
	};

	return cmocka_run_group_tests_name("registers", tests, NULL, NULL);
}
