// SPDX-License-Identifier: GPL-2.0
/* Machine descriptions: what is read, what is refused and with which message. */
#include "rig.h"

/* Parse, expect refusal, and expect @message in the reason. */
static void refused(const char *text, const char *message)
{
	char error[200] = "";
	struct pmu_machine *machine;

	machine = pmu_machine_parse(text, error, sizeof(error));
	assert_null(machine);
	if (!strstr(error, message))
		fail_msg("expected '%s' in '%s'", message, error);
	assert_null(strchr(error, '\n'));
}

static void errors_name_line_and_key(void **state)
{
	(void)state;
	refused("name = x\n\npmu.versionn = 5\n", "line 3: pmu.versionn: unknown key");
	refused("name = x\npmu.version = five\n", "line 2: pmu.version: 'five' is not a number");
	refused("name = x\npmu.version = 5x\n", "line 2: pmu.version: '5x' is not a number");
	refused("name = x\npmu.version = -1\n", "line 2: pmu.version: '-1' is not a number");
	refused("name = x\npmu.version =\n", "line 2: pmu.version: '' is not a number");
	refused("name = x\npmu.version = 0x\n", "line 2: pmu.version: '0x' is not a number");
	refused("name = x\npmu.perf_capabilities = 0x10000000000000000\n", "line 2: ");
	refused("name = x\npmu.version = 6\n", "line 2: pmu.version: 6 is out of range");
	refused("name = x\npmu.version = 1\n", "line 2: pmu.version: 1 is out of range");
	refused("name = x\npmu.gp_counters = 9\n", "line 2: pmu.gp_counters: 9 is out of range");
	refused("name = x\npmu.gp_width = 49\n", "line 2: pmu.gp_width: 49 is out of range");
	refused("name = x\npmu.width = 0\n", "line 2: pmu.width: 0 is out of range");
	refused("name = x\nhello\n", "line 2: 'hello' has no '='");
	refused("name = x\npmu.width = 5\npmu.width = 5\n", "line 3: pmu.width: given twice");
	refused("name = x\nname = y\n", "line 2: name: given twice");
	refused("name = a\"b\n", "line 1: name: 'a\"b' has a character");
	refused("name =\n", "line 1: name: '' is empty");
	refused("# only a comment\n", "name: missing");
	refused("name = x\npmu.metrics_write = maybe\n", "line 2: pmu.metrics_write: 'maybe' is unknown; use rederive or keep");
	refused("name = x\npmu.cpu1.version = 4\n", "line 2: pmu.cpu1.version: unknown key");
	refused("name = x\npmu.cpu64.perf_capabilities = 0\n", "line 2: pmu.cpu64.perf_capabilities: there is no such CPU");
	refused("name = x\npmu.cpu1.perf_capabilities = 0\npmu.cpu1.perf_capabilities = 0\n",
		"line 3: pmu.cpu1.perf_capabilities: given twice");
}

#define NO_SLOTS "name = x\npmu.fixed_bitmap = 7\npmu.metrics = 0\npmu.perf_capabilities = 0x2000\n"

static void contradictions_are_refused(void **state)
{
	(void)state;
	refused("name = x\npmu.metrics = 5\n", "pmu.metrics: must be 0, 4 or 8");
	refused("name = x\npmu.fixed_bitmap = 7\n", "pmu.metrics: needs fixed counter 3");
	refused("name = x\npmu.perf_capabilities = 0x2000\n", "pmu.metrics: needs bit 15");
	refused("name = x\npmu.metrics = 0\n", "bit 15 needs pmu.metrics");
	refused("name = x\npmu.metrics = 0\npmu.perf_capabilities = 0x2000\n"
		"pmu.cpu3.perf_capabilities = 0x8000\n", "bit 15 needs pmu.metrics");
	refused("name = x\npmu.perf_capabilities = 0x8a000\n", "0x80000 has no model");
	refused("name = x\npmu.pdcm = 0\n", "needs pmu.pdcm = 1");
	refused("name = x\npmu.version = 4\npmu.fixed_bitmap = 0xb\n", "gaps need pmu.version = 5");
	refused("name = x\npmu.gp_width = 40\npmu.before.gp = 0x10000000000\n", "wider than pmu.gp_width");
	refused("name = x\npmu.before.fixed = 0x1000000000000\n", "wider than pmu.fixed_width");
	refused("name = x\npmu.before.slots = 0x1000000000000\n", "wider than pmu.fixed_width");
	refused(NO_SLOTS "pmu.before.slots = 1\n", "needs fixed counter 3");
	refused("name = x\npmu.before.slots = 1\npmu.before.metrics = 0x100000000\n",
		"more fields than pmu.metrics");
	refused("name = x\npmu.before.metrics = 1\n", "fractions of pmu.before.slots, which is 0");
	refused("name = x\npmu.gp_counters = 4\npmu.before.selectors = 0x10\n",
		"more than pmu.gp_counters");
	refused("name = x\npmu.before.fixed_ctrl = 0x10000\n", "pmu.before.fixed_ctrl: has bits");
	refused("name = x\npmu.before.fixed_ctrl = 4\n", "pmu.before.fixed_ctrl: has bits");
	refused("name = x\npmu.before.global_ctrl = 0x1000000000\n", "have bits of no counter");
	refused(NO_SLOTS "pmu.before.status = 0x1000000000000\n", "have bits of no counter");
}

static void other_name_spaces_are_ignored(void **state)
{
	struct rig *rig;

	(void)state;
	rig = rig_new("emulator.cpu = whatever\n  name=x  # comment\r\n"
		      "emulator.memory = 7 GiB\n\tpmu.gp_counters =\t4\n"
		      "pmuseum = open", 0);
	assert_string_equal(pmu_machine_name(rig->machine), "x");
	wr_gp(rig, 0x186 + 4, 0);
	wr(rig, 0x186 + 3, 0);
	rig_free(rig);
}

/* CPUID.0AH as the SDM lays it out; Ice Lake's values are public. */
static void cpuid_of_each_machine(void **state)
{
	static const struct {
		const char *name;
		uint32_t regs[4];
		bool saves;
	} expected[] = {
		{ "icelake", { 0x08300805, 0, 0xf, 0x8604 }, false },
		{ "sapphire-rapids", { 0x08300805, 0, 0xf, 0x8604 }, true },
		/* EDX[4:0]: only 0, 1 and 2 are contiguous */
		{ "non-contiguous", { 0x08300805, 0, 0x77, 0x8603 }, false },
		{ "no-metrics", { 0x08300805, 0, 0xf, 0x8604 }, false },
		/* no bitmap and no AnyThread deprecation before version 5 */
		{ "perfmon-v3", { 0x07300403, 0, 0, 0x603 }, false },
		{ "no-full-width", { 0x08300805, 0, 0xf, 0x8604 }, false },
		{ "mixed-metrics", { 0x08300805, 0, 0xf, 0x8604 }, false },
		{ "garbage", { 0x08300805, 0, 0xf, 0x8604 }, false },
		{ "firmware-counts", { 0x08300805, 0, 0xf, 0x8604 }, false },
	};
	uint32_t regs[4];
	unsigned int i;
	struct rig *rig;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(expected); i++) {
		rig = rig_from_file(expected[i].name, 0);
		assert_string_equal(pmu_machine_name(rig->machine), expected[i].name);
		pmu_machine_cpuid(rig->machine, regs);
		if (memcmp(regs, expected[i].regs, sizeof(regs)))
			fail_msg("%s: CPUID.0AH is %08x %08x %08x %08x",
				 expected[i].name, regs[0], regs[1], regs[2], regs[3]);
		assert_int_equal(pmu_machine_saves_global_ctrl(rig->machine),
				 expected[i].saves);
		assert_true(pmu_machine_has_pdcm(rig->machine));
		rig_free(rig);
	}
}

/* Of 13 enumerated events the last, LBR inserts, is said not to exist. */
static void absent_event_is_enumerated_so(void **state)
{
	uint32_t regs[4];
	struct rig *rig = rig_new("name = x\npmu.events = 13\n", 0);

	(void)state;
	pmu_machine_cpuid(rig->machine, regs);
	assert_int_equal(regs[0] >> 24, 13);
	assert_int_equal(regs[1], BIT(12));
	rig_free(rig);
}

static void one_cpu_of_two_lacks_metrics(void **state)
{
	struct rig *first = rig_from_file("mixed-metrics", 0);
	struct rig *second = rig_from_file("mixed-metrics", 1);

	(void)state;
	assert_int_equal(rd(first, 0x345), BIT(13) | BIT(15));
	assert_int_equal(rd(second, 0x345), BIT(13));
	wr(first, 0x329, 0);
	wr_gp(second, 0x329, 0);
	wr(first, 0x38f, BIT(48));
	wr_gp(second, 0x38f, BIT(48));
	rig_free(first);
	rig_free(second);
}

/* Registers as somebody before left them, and those that the machine lacks. */
static void what_was_before(void **state)
{
	struct rig *rig = rig_new("name = x\npmu.gp_counters = 4\npmu.before.gp = 0x123\n"
				  "pmu.before.fixed = 0x456\npmu.before.slots = 510\n"
				  "pmu.before.metrics = 0x7f000102\npmu.before.status = 0x800000001\n"
				  "pmu.before.selector = 0x43003c\npmu.before.selectors = 2\n"
				  "pmu.before.fixed_ctrl = 0x330\n"
				  "pmu.before.global_ctrl = 0x600000000\n", 0);
	unsigned int i;

	(void)state;
	for (i = 0; i < 4; i++) {
		assert_int_equal(rd(rig, 0xc1 + i), 0x123);
		assert_int_equal(rd(rig, 0x186 + i), i == 1 ? 0x43003c : 0);
	}
	for (i = 0; i < 3; i++)
		assert_int_equal(rd(rig, 0x309 + i), 0x456);
	assert_int_equal(rd(rig, 0x30c), 510);
	assert_int_equal(rd(rig, 0x329), 0x7f000102);
	assert_int_equal(rd(rig, 0x38d), 0x330);
	assert_int_equal(rd(rig, 0x38e), 0x800000001);
	assert_int_equal(rd(rig, 0x38f), 0x60000000f);
	/* and what counts, counts */
	work(rig, PMU_WORK_INSTRUCTION, 100);
	assert_int_equal(rd(rig, 0xc1), 0x123);
	assert_true(rd(rig, 0xc2) > 0x123);
	assert_int_equal(rd(rig, 0x309), 0x456);
	assert_true(rd(rig, 0x30a) > 0x456);
	pmu_reset(rig->pmu);
	assert_int_equal(rd(rig, 0xc2), 0x123);
	assert_int_equal(rd(rig, 0x30a), 0x456);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_name_line_and_key),
		cmocka_unit_test(contradictions_are_refused),
		cmocka_unit_test(other_name_spaces_are_ignored),
		cmocka_unit_test(cpuid_of_each_machine),
		cmocka_unit_test(absent_event_is_enumerated_so),
		cmocka_unit_test(one_cpu_of_two_lacks_metrics),
		cmocka_unit_test(what_was_before),
	};

	return cmocka_run_group_tests_name("machine", tests, NULL, NULL);
}
