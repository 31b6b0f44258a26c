// SPDX-License-Identifier: GPL-2.0
/* What a hypervisor does with the PMU is counted; what guests do is not. */
#include "rig.h"

#define A	0x111000

/* The "accesses" line of a mark made now. */
static const char *accesses(struct rig *rig)
{
	const char *line;

	pmu_snapshot(rig->pmu, 7);
	line = last_line(rig, "accesses");
	assert_non_null(line);
	assert_true(is_json(line));
	return line;
}

static void expect(struct rig *rig, const char *text)
{
	const char *line = accesses(rig);

	if (!strstr(line, text))
		fail_msg("no %s in %s", text, line);
}

static void expect_none(struct rig *rig, const char *text)
{
	const char *line = accesses(rig);

	if (strstr(line, text))
		fail_msg("%s in %s", text, line);
}

/* Each instruction by register, in the order of the registers; nothing else. */
static void instructions_of_root(void **state)
{
	struct rig *rig = rig_new(BENCH, 3);

	(void)state;
	wr(rig, 0x38f, 0);
	wr(rig, 0x30c, 1);
	wr(rig, 0x30c, 0);
	wr(rig, 0x4c1, 0);
	rd(rig, 0x329);
	rd(rig, 0xc1);
	rd(rig, 0xc1);
	rdpmc(rig, 0x40000003);
	rdpmc(rig, 0x20000000);
	rdpmc(rig, 0x20000000);
	rdpmc(rig, 7);
	assert_string_equal(accesses(rig),
		"{\"type\":\"accesses\",\"id\":7,\"cpu\":3,\"entries\":0,"
		"\"rdmsr\":{\"0xc1\":2,\"0x329\":1},"
		"\"wrmsr\":{\"0x30c\":2,\"0x38f\":1,\"0x4c1\":1},"
		"\"rdpmc\":{\"0x7\":1,\"0x40000003\":1,\"0x20000000\":2}}");
	/* at any privilege level: user mode of the host is VMX root operation */
	in_root(rig, 3);
	rdpmc(rig, 7);
	expect(rig, "\"0x7\":2");
	rig_free(rig);
}

/* What faults has accessed nothing. */
static void faults(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);
	uint64_t value;

	(void)state;
	wr_gp(rig, 0x38f, ~(uint64_t)0);
	rd_gp(rig, 0x318);
	assert_int_equal(pmu_rdpmc(rig->pmu, 0x40000009, &value), PMU_GP);
	assert_int_equal(pmu_rdpmc(rig->pmu, 0x20000001, &value), PMU_GP);
	assert_int_equal(pmu_rdmsr(rig->pmu, 0x10, &value), PMU_NOT_MINE);
	expect_none(rig, "rdmsr");
	expect_none(rig, "wrmsr");
	expect_none(rig, "rdpmc");
	rig_free(rig);
}

static void guests_do_not_count(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	vm_launch(rig, A, OWNS_ALL);
	wr(rig, 0x30c, 1);
	rd(rig, 0x30c);
	rdpmc(rig, 0x40000003);
	rdpmc(rig, 0x20000000);
	rdpmc(rig, 0);
	expect_none(rig, "rdmsr");
	expect_none(rig, "wrmsr");
	expect_none(rig, "rdpmc");
	rig_free(rig);
}

static void entries_and_exits(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	vm_launch(rig, A, 0);
	vm_exit(rig, 10);
	vm_entry(rig, A);
	vm_exit(rig, 1);
	vm_entry(rig, A);
	vm_exit(rig, 10);
	vm_entry(rig, A);
	expect(rig, "\"entries\":4,\"exits\":{\"0x1\":1,\"0xa\":2}}");
	rig_free(rig);
}

/* The lists of MSRs, before and after the context changes, and the controls. */
static void by_the_cpu_itself(void **state)
{
	const struct pmu_exit exit = { .reason = 10 };
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	pmu_set_switching(rig->pmu, true);
	wr(rig, 0x38d, 0);
	pmu_set_global_ctrl(rig->pmu, 1);
	pmu_set_switching(rig->pmu, false);
	vm_launch(rig, A, OWNS_ALL);
	pmu_vmexit(rig->pmu, &exit);
	pmu_set_switching(rig->pmu, true);
	rd(rig, 0x30c);
	pmu_set_switching(rig->pmu, false);
	assert_int_equal(pmu_global_ctrl(rig->pmu), 1);
	pmu_set_global_ctrl(rig->pmu, 0);
	in_root(rig, 0);
	pmu_set_switching(rig->pmu, true);
	wr(rig, 0x38d, 0);
	pmu_set_switching(rig->pmu, false);
	expect(rig, "\"stored\":{\"0x30c\":1,\"0x38f\":1}");
	expect(rig, "\"loaded\":{\"0x38d\":2,\"0x38f\":2}}");
	expect_none(rig, "wrmsr");
	expect_none(rig, "rdmsr");
	rd(rig, 0x30c);
	expect(rig, "\"rdmsr\":{\"0x30c\":1}");
	rig_free(rig);
}

/* The two fields that the PMU has in a VMCS, and no other. */
static void fields(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	pmu_vmcs_field(rig->pmu, 0x681e, false);
	pmu_vmcs_field(rig->pmu, 0x2806, true);
	expect_none(rig, "vmread");
	expect_none(rig, "vmwrite");
	pmu_vmcs_field(rig->pmu, 0x2808, false);
	pmu_vmcs_field(rig->pmu, 0x2808, true);
	pmu_vmcs_field(rig->pmu, 0x2808, true);
	pmu_vmcs_field(rig->pmu, 0x2c04, true);
	expect(rig, "\"vmread\":{\"0x2808\":1},\"vmwrite\":{\"0x2808\":2,\"0x2c04\":1}}");
	rig_free(rig);
}

/* At power off there is one more line, without a mark's number. */
static void total(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	wr(rig, 0x30c, 1);
	pmu_emit_totals(rig->pmu);
	assert_string_equal(last_line(rig, "accesses"),
			    "{\"type\":\"accesses\",\"cpu\":0,\"entries\":0,"
			    "\"wrmsr\":{\"0x30c\":1}}");
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(instructions_of_root),
		cmocka_unit_test(faults),
		cmocka_unit_test(guests_do_not_count),
		cmocka_unit_test(entries_and_exits),
		cmocka_unit_test(by_the_cpu_itself),
		cmocka_unit_test(fields),
		cmocka_unit_test(total),
	};

	return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
