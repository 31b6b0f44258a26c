// SPDX-License-Identifier: GPL-2.0
/* The ownership audit and the ground truth: who is told what about whom. */
#include "rig.h"

#define A	0x111000
#define B	0x222000
#define TOP	0x1000000000000		/* 2^48 */

/* Everything counts at every level. */
static void count_all(struct rig *rig)
{
	unsigned int i;

	for (i = 0; i < 8; i++)
		wr(rig, 0x186 + i, 0xc0 | BIT(16) | BIT(17) | BIT(22));
	wr(rig, 0x38d, 0x3333);
	wr(rig, 0x38f, 0x0001000f000000ff);
}

static void expect_leaks(struct rig *rig, unsigned int n)
{
	if (count_lines(rig, "leak") != n)
		fail_msg("expected %u leaks, found %u; last: %s", n,
			 count_lines(rig, "leak"),
			 last_line(rig, "leak") ? last_line(rig, "leak") : "none");
}

/* A worked, B reads: every counter by every way to read it. */
static void every_way_to_read(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);
	unsigned int i, leaks = 0;
	char name[32];

	(void)state;
	count_all(rig);
	in_guest(rig, A, 0);
	slots(rig, 100, 0, 0, 0);
	work(rig, PMU_WORK_REFERENCE, 100);
	in_root(rig, 0);
	in_guest(rig, B, 0);
	for (i = 0; i < 8; i++) {
		rdpmc(rig, i);
		expect_leaks(rig, ++leaks);
		rd(rig, 0xc1 + i);
		expect_leaks(rig, ++leaks);
		rd(rig, 0x4c1 + i);
		expect_leaks(rig, ++leaks);
		snprintf(name, sizeof(name), "\"reg\":\"PMC%u\"", i);
		assert_non_null(strstr(last_line(rig, "leak"), name));
	}
	for (i = 0; i < 4; i++) {
		rdpmc(rig, 0x40000000 + i);
		expect_leaks(rig, ++leaks);
		rd(rig, 0x309 + i);
		expect_leaks(rig, ++leaks);
		snprintf(name, sizeof(name), "\"reg\":\"FIXED_CTR%u\"", i);
		assert_non_null(strstr(last_line(rig, "leak"), name));
	}
	rdpmc(rig, 0x20000000);
	expect_leaks(rig, ++leaks);
	rd(rig, 0x329);
	expect_leaks(rig, ++leaks);
	assert_non_null(strstr(last_line(rig, "leak"), "\"reg\":\"PERF_METRICS\""));
	rig_free(rig);
}

/* The line says who read whose work, where, and how they got there. */
static void line_of_a_leak(void **state)
{
	struct rig *rig = rig_new(BENCH, 3);
	const char *line;

	(void)state;
	count_all(rig);
	in_guest(rig, A, 0);
	slots(rig, 50, 0, 0, 0);
	slots(rig, 50, 0, 0, 0);
	in_root(rig, 0);
	slots(rig, 5, 0, 0, 0);
	in_guest(rig, B, 3);
	rdpmc(rig, 0x40000003);
	line = last_line(rig, "leak");
	assert_non_null(line);
	assert_true(is_json(line));
	assert_int_equal(number(line, "cpu"), 3);
	assert_int_equal(number(line, "cpl"), 3);
	assert_non_null(strstr(line, "\"reg\":\"FIXED_CTR3\""));
	assert_non_null(strstr(line, "\"value\":\"0x69\""));	/* 105 slots */
	assert_non_null(strstr(line, "\"reader\":\"0x222000\""));
	assert_non_null(strstr(line, "\"owners\":[\"0x111000\",\"root\"]"));
	assert_non_null(strstr(line, "\"rip\":\"0x2000\""));
	/* newest first */
	assert_non_null(strstr(line, "\"history\":["
		"{\"from\":\"root\",\"to\":\"0x222000\",\"vmcs\":\"0x223000\",\"rip\":\"0x2000\"},"
		"{\"from\":\"0x111000\",\"to\":\"root\",\"vmcs\":\"0x0\",\"rip\":\"0x1000\"},"
		"{\"from\":\"root\",\"to\":\"0x111000\",\"vmcs\":\"0x112000\",\"rip\":\"0x2000\"}]"));
	rig_free(rig);
}

/* What is no leak: own work, zero, and the host's kernel. */
static void no_leak(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);
	unsigned int i;

	(void)state;
	count_all(rig);
	in_guest(rig, A, 0);
	for (i = 0; i < 10; i++)
		slots(rig, 10, 0, 0, 0);
	rdpmc(rig, 0x40000003);
	in_guest(rig, A, 3);
	rdpmc(rig, 0x40000003);
	rdpmc(rig, 0x20000000);
	in_root(rig, 0);
	rdpmc(rig, 0x40000003);
	rd(rig, 0x329);
	expect_leaks(rig, 0);
	/* the same guest again, with nothing counted in between */
	in_guest(rig, A, 0);
	rdpmc(rig, 0x40000003);
	expect_leaks(rig, 0);
	in_root(rig, 0);
	wr(rig, 0x38f, 0);
	wr(rig, 0x30c, 0);
	in_guest(rig, B, 0);
	rdpmc(rig, 0x20000000);		/* A's hidden counts, but of 0 slots */
	expect_leaks(rig, 0);
	in_root(rig, 0);
	wr(rig, 0x329, 0);
	in_guest(rig, B, 0);
	rdpmc(rig, 0x40000003);
	rdpmc(rig, 0x20000000);
	expect_leaks(rig, 0);
	rig_free(rig);
}

/* User mode of the host may not see a guest's work, but may see the host's. */
static void host_user_mode(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	count_all(rig);
	slots(rig, 100, 0, 0, 0);
	in_root(rig, 3);
	rdpmc(rig, 0x40000003);
	expect_leaks(rig, 0);
	in_guest(rig, A, 0);
	slots(rig, 100, 0, 0, 0);
	in_root(rig, 3);
	rdpmc(rig, 0x40000003);
	expect_leaks(rig, 1);
	assert_non_null(strstr(last_line(rig, "leak"), "\"reader\":\"root\""));
	rig_free(rig);
}

/* A write ends what a counter holds, of that counter only. */
static void writes_clear_holders(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	count_all(rig);
	in_guest(rig, A, 0);
	slots(rig, 100, 0, 0, 0);
	in_root(rig, 0);
	wr(rig, 0x38f, 0);
	wr(rig, 0x4c1, 77);
	wr(rig, 0x30c, 77);
	in_guest(rig, B, 0);
	rdpmc(rig, 0);
	rdpmc(rig, 0x40000003);
	expect_leaks(rig, 0);
	rdpmc(rig, 1);
	expect_leaks(rig, 1);
	/* the hidden counts behind the metrics were not written */
	rdpmc(rig, 0x20000000);
	expect_leaks(rig, 2);
	in_root(rig, 0);
	wr(rig, 0x329, 0x11);
	in_guest(rig, B, 0);
	rdpmc(rig, 0x20000000);
	expect_leaks(rig, 2);
	rig_free(rig);
}

/* Metrics are fractions of counter 3: its holders count, too. */
static void metrics_tell_of_counter_three(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	wr(rig, 0x38d, 0x3000);
	wr(rig, 0x38f, BIT(35));
	in_guest(rig, A, 0);
	slots(rig, 1000, 0, 0, 0);
	in_root(rig, 0);
	wr(rig, 0x329, 0x40);		/* clean, but of A's counter */
	in_guest(rig, B, 0);
	rdpmc(rig, 0x20000000);
	expect_leaks(rig, 1);
	rig_free(rig);
}

/* An overflow bit tells of work as well. */
static void overflow_bits(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	count_all(rig);
	wr(rig, 0x4c1, TOP - 10);
	in_guest(rig, A, 0);
	slots(rig, 10, 0, 0, 0);
	rd(rig, 0x38e);
	expect_leaks(rig, 0);
	in_guest(rig, B, 0);
	rd(rig, 0x38e);
	expect_leaks(rig, 1);
	/* what a hypervisor sets for B is B's */
	in_root(rig, 0);
	wr(rig, 0x390, 1);
	wr(rig, 0x391, 1);
	in_guest(rig, B, 0);
	rd(rig, 0x38e);
	expect_leaks(rig, 1);
	rig_free(rig);
}

/* A PMI for a counter that others filled is noted, and is no leak. */
static void foreign_pmi(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);

	(void)state;
	wr(rig, 0x186, 0xc0 | BIT(16) | BIT(17) | BIT(20) | BIT(22));
	wr(rig, 0x4c1, TOP - 10);
	in_guest(rig, A, 0);
	slots(rig, 5, 0, 0, 0);
	in_guest(rig, B, 0);
	slots(rig, 5, 0, 0, 0);
	assert_int_equal(rig->pmis, 1);
	assert_int_equal(count_lines(rig, "pmi"), 1);
	assert_true(is_json(last_line(rig, "pmi")));
	expect_leaks(rig, 0);
	/* only counters that interrupt matter: counter 1 holds A's and B's */
	in_guest(rig, A, 0);
	wr(rig, 0x187, 0xc0 | BIT(16) | BIT(17) | BIT(22));
	wr(rig, 0x4c2, TOP - 10);
	wr(rig, 0x4c1, 0);
	slots(rig, 5, 0, 0, 0);
	wr(rig, 0x390, 1);
	wr(rig, 0x4c1, TOP - 5);
	in_guest(rig, B, 0);
	slots(rig, 5, 0, 0, 0);
	assert_int_equal(rd(rig, 0x38e), 3);
	assert_int_equal(rig->pmis, 2);
	assert_int_equal(count_lines(rig, "pmi"), 1);
	wr(rig, 0x390, 2);
	/* of one's own there is nothing to note */
	wr(rig, 0x4c1, TOP - 5);
	wr(rig, 0x390, 1);
	slots(rig, 5, 0, 0, 0);
	assert_int_equal(rig->pmis, 3);
	assert_int_equal(count_lines(rig, "pmi"), 1);
	rig_free(rig);
}

/* A guest that owns its PMU, whose counter 0 is about to overflow. */
static struct rig *owning_guest(void)
{
	struct rig *rig = rig_new(BENCH, 0);

	wr(rig, 0x186, 0xc0 | BIT(16) | BIT(17) | BIT(20) | BIT(22));
	wr(rig, 0x38f, 1);
	wr(rig, 0x4c1, TOP - 10);
	rig->lvtpc = LVTPC_GUEST;
	vm_launch(rig, A, OWNS_ALL);
	return rig;
}

static void expect_pmi_leak(struct rig *rig, const char *why)
{
	expect_leaks(rig, why ? 1 : 0);
	if (!why)
		return;
	assert_true(is_json(last_line(rig, "leak")));
	assert_non_null(strstr(last_line(rig, "leak"), "\"reg\":\"PMI\",\"value\":\"0x1\""));
	if (!strstr(last_line(rig, "leak"), why))
		fail_msg("not \"%s\": %s", why, last_line(rig, "leak"));
}

/* A guest's own PMI, by the vector that KVM takes for it: as it should be. */
static void pmi_of_a_guest(void **state)
{
	struct rig *rig = owning_guest();

	(void)state;
	slots(rig, 10, 0, 0, 0);
	assert_int_equal(rig->pmis, 1);
	expect_pmi_leak(rig, NULL);
	assert_int_equal(count_lines(rig, "pmi"), 0);
	rig_free(rig);

	/* as NMI the host's perf gets it */
	rig = owning_guest();
	rig->lvtpc = LVTPC_HOST;
	slots(rig, 10, 0, 0, 0);
	expect_pmi_leak(rig, "the host is told of a guest's counter");
	assert_non_null(strstr(last_line(rig, "leak"), "\"lvtpc\":\"0x400\""));
	rig_free(rig);

	/* masked, nobody does */
	rig = owning_guest();
	rig->lvtpc = LVTPC_HOST | LVTPC_MASKED;
	slots(rig, 10, 0, 0, 0);
	expect_pmi_leak(rig, NULL);
	rig_free(rig);
}

/* What a guest left in a counter overflows while somebody else runs. */
static void pmi_for_others_work(void **state)
{
	struct rig *rig = owning_guest();

	(void)state;
	slots(rig, 5, 0, 0, 0);
	vm_exit(rig, 1);
	vm_launch(rig, B, OWNS_ALL);
	slots(rig, 5, 0, 0, 0);
	expect_pmi_leak(rig, "a guest is told of another's work");
	rig_free(rig);

	/* in the host */
	rig = owning_guest();
	slots(rig, 5, 0, 0, 0);
	vm_exit(rig, 1);
	rig->lvtpc = LVTPC_HOST;
	slots(rig, 5, 0, 0, 0);
	expect_pmi_leak(rig, "the host is told of a guest's counter");
	rig_free(rig);

	/* what a dead guest left is no less its work */
	rig = owning_guest();
	slots(rig, 5, 0, 0, 0);
	vm_exit(rig, 1);
	pmu_vmclear(rig->pmu, VMCS_OF(A));
	vm_launch(rig, A, 0);
	vm_exit(rig, 1);
	rig->lvtpc = LVTPC_HOST;
	slots(rig, 5, 0, 0, 0);
	expect_pmi_leak(rig, "the host is told of a guest's counter");
	rig_free(rig);
}

/* A PMI that comes late: whose it is, KVM can only tell by who runs. */
static void late_pmi(void **state)
{
	struct rig *rig = owning_guest();

	(void)state;
	slots(rig, 10, 0, 0, 0);
	pmu_pmi_taken(rig->pmu);
	vm_exit(rig, 1);
	vm_launch(rig, B, OWNS_ALL);
	vm_exit(rig, 1);
	pmu_pmi_taken(rig->pmu);	/* that vector, but no PMI is on its way */
	expect_pmi_leak(rig, NULL);
	rig_free(rig);

	rig = owning_guest();
	slots(rig, 10, 0, 0, 0);
	vm_exit(rig, 1);
	pmu_pmi_taken(rig->pmu);
	expect_pmi_leak(rig, NULL);
	rig_free(rig);

	rig = owning_guest();
	slots(rig, 10, 0, 0, 0);
	vm_exit(rig, 1);
	vm_launch(rig, B, OWNS_ALL);
	vm_exit(rig, 1);
	pmu_pmi_taken(rig->pmu);
	expect_pmi_leak(rig, "another guest has run when it is taken");
	assert_non_null(strstr(last_line(rig, "leak"), "\"owners\":[\"0x111000\"]"));
	rig_free(rig);
}

/* The host's counter, while the guest's vector is in LVTPC. */
static void pmi_of_the_host(void **state)
{
	struct rig *rig = owning_guest();

	(void)state;
	vm_exit(rig, 1);
	slots(rig, 10, 0, 0, 0);
	expect_pmi_leak(rig, "a guest is told of the host's counter");
	rig_free(rig);

	/* its own */
	rig = owning_guest();
	vm_exit(rig, 1);
	rig->lvtpc = LVTPC_HOST;
	slots(rig, 10, 0, 0, 0);
	expect_pmi_leak(rig, NULL);
	pmu_emit_totals(rig->pmu);
	assert_int_equal(number(last_line(rig, "audit"), "pmis"), 1);
	rig_free(rig);

	/* guests whose counters are the host's: perf counts them with its own */
	rig = rig_new(BENCH, 0);
	wr(rig, 0x186, 0xc0 | BIT(16) | BIT(17) | BIT(20) | BIT(22));
	wr(rig, 0x38f, 1);
	wr(rig, 0x4c1, TOP - 10);
	vm_launch(rig, A, 0);
	slots(rig, 5, 0, 0, 0);
	vm_exit(rig, 1);
	vm_launch(rig, B, 0);
	slots(rig, 5, 0, 0, 0);
	assert_int_equal(rig->pmis, 1);
	expect_pmi_leak(rig, NULL);
	assert_int_equal(count_lines(rig, "pmi"), 1);
	rig_free(rig);

	/* by a vector it would be KVM that is told */
	rig = rig_new(BENCH, 0);
	wr(rig, 0x186, 0xc0 | BIT(16) | BIT(17) | BIT(20) | BIT(22));
	wr(rig, 0x38f, 1);
	wr(rig, 0x4c1, TOP - 10);
	rig->lvtpc = LVTPC_GUEST;
	vm_launch(rig, A, 0);
	slots(rig, 10, 0, 0, 0);
	expect_pmi_leak(rig, "a guest is told of the host's counter");
	rig_free(rig);
}

/* More owners than a counter lists are more than one still. */
static void many_owners(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);
	unsigned int i;

	(void)state;
	count_all(rig);
	wr(rig, 0x4c2, TOP - 300 * 5);
	for (i = 1; i <= 300; i++) {
		in_guest(rig, i * 0x1000, 0);
		slots(rig, 5, 0, 0, 0);
	}
	rdpmc(rig, 0);
	expect_leaks(rig, 1);
	assert_non_null(strstr(last_line(rig, "leak"), ",\"more\"]"));
	assert_true(is_json(last_line(rig, "leak")));
	rd(rig, 0x38e);
	assert_non_null(strstr(last_line(rig, "leak"), "GLOBAL_STATUS"));
	assert_non_null(strstr(last_line(rig, "leak"), ",\"more\"]"));
	rig_free(rig);
}

/* A flood is counted to the end and written to a point. */
static void flood_of_leaks(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);
	unsigned int i;

	(void)state;
	count_all(rig);
	in_guest(rig, A, 0);
	slots(rig, 5, 0, 0, 0);
	in_guest(rig, B, 0);
	for (i = 0; i < 1000; i++)
		rdpmc(rig, 0);
	expect_leaks(rig, 100);
	pmu_emit_totals(rig->pmu);
	assert_int_equal(number(last_line(rig, "audit"), "leaks"), 1000);
	rig_free(rig);
}

/* The truth belongs to whoever ran, whatever the PMU counts. */
static void truth_per_owner(void **state)
{
	static const char * const fields[] = { "retiring", "bad_spec", "fe_bound", "be_bound" };
	struct rig *rig = rig_new(BENCH, 0);
	unsigned int i;

	(void)state;
	in_guest(rig, A, 0);
	slots(rig, 10, 20, 30, 40);
	pmu_mark(rig->pmu, 1);
	in_guest(rig, B, 3);
	slots(rig, 100, 200, 300, 400);
	pmu_mark(rig->pmu, 18446744073709551615u);
	in_root(rig, 0);
	slots(rig, 1000, 2000, 3000, 4000);
	pmu_mark(rig->pmu, 3);
	assert_int_equal(number(last_line(rig, "mark"), "retiring"), 1000);
	in_guest(rig, A, 3);
	slots(rig, 10, 20, 30, 40);
	pmu_mark(rig->pmu, 4);
	for (i = 0; i < 4; i++)
		assert_int_equal(number(last_line(rig, "mark"), fields[i]), 20 * (i + 1));
	assert_int_equal(number(last_line(rig, "mark"), "id"), 4);
	assert_non_null(strstr(last_line(rig, "mark"), "\"owner\":\"0x111000\""));
	assert_non_null(strstr(last_line(rig, "mark"), "\"nonroot\":true,\"cpl\":3"));
	assert_int_equal(number(last_line(rig, "mark"), "switches"), 2);

	/* a snapshot is of all owners, whoever runs */
	pmu_snapshot(rig->pmu, 5);
	assert_int_equal(count_lines(rig, "snapshot"), 3);
	for (i = 0; i < rig->nr_lines; i++) {
		if (!strstr(rig->lines[i], "\"type\":\"snapshot\""))
			continue;
		assert_int_equal(number(rig->lines[i], "id"), 5);
		assert_int_equal(number(rig->lines[i], "retiring"),
				 strstr(rig->lines[i], "\"0x111000\"") ? 20 :
				 strstr(rig->lines[i], "\"root\"") ? 1000 : 100);
	}

	pmu_reset(rig->pmu);	/* keeps the truth */
	pmu_emit_totals(rig->pmu);
	assert_int_equal(count_lines(rig, "total"), 3);
	for (i = 0; i < rig->nr_lines; i++) {
		if (!is_json(rig->lines[i]))
			fail_msg("not JSON: %s", rig->lines[i]);
		if (strstr(rig->lines[i], "\"total\"") && strstr(rig->lines[i], "\"owner\":\"root\""))
			assert_int_equal(number(rig->lines[i], "slots"), 10000);
	}
	assert_non_null(strstr(rig->lines[2], "\"id\":18446744073709551615,"));
	rig_free(rig);
}

/* "counted" is what the counters saw; the difference to the truth is a loss. */
static void truth_of_what_was_counted(void **state)
{
	struct rig *rig = rig_new(BENCH, 0);
	const char *line;

	(void)state;
	in_guest(rig, A, 0);
	slots(rig, 10, 20, 30, 40);
	wr(rig, 0x38d, 0x3333);
	wr(rig, 0x38f, 0x0001000f00000000);
	slots(rig, 1, 1, 1, 2);
	slots(rig, 0, 1, 2, 2);
	work(rig, PMU_WORK_REFERENCE, 7);
	wr(rig, 0x30c, 0);	/* a write does not change what was counted */
	pmu_mark(rig->pmu, 1);
	line = last_line(rig, "mark");
	assert_int_equal(number(line, "slots"), 110);
	assert_int_equal(number(line, "fixed0"), 1);
	assert_int_equal(number(line, "fixed1"), 2);
	assert_int_equal(number(line, "fixed2"), 7);
	assert_int_equal(number(line, "fixed3"), 10);
	assert_int_equal(number(line, "metric0"), 1);
	assert_int_equal(number(line, "metric1"), 2);
	assert_int_equal(number(line, "metric2"), 3);
	assert_int_equal(number(line, "metric3"), 4);
	rig_free(rig);
}

/* What was there at power on is nobody's who may read it, until it is written. */
static void before_power_on(void **state)
{
	struct rig *rig = rig_from_file("garbage", 0);
	unsigned int i, leaks = 0;

	(void)state;
	for (i = 0; i < 8; i++)
		rdpmc(rig, i);
	expect_leaks(rig, 0);
	in_guest(rig, A, 0);
	for (i = 0; i < 8; i++) {
		assert_int_not_equal(rdpmc(rig, i), 0);
		expect_leaks(rig, ++leaks);
	}
	for (i = 0; i < 4; i++) {
		assert_int_not_equal(rdpmc(rig, 0x40000000 + i), 0);
		expect_leaks(rig, ++leaks);
	}
	assert_non_null(strstr(last_line(rig, "leak"), "\"owners\":[\"before\"]"));
	rd(rig, 0x329);
	expect_leaks(rig, ++leaks);
	assert_non_null(strstr(last_line(rig, "leak"), "\"owners\":[\"before\"]"));
	/* the metrics without the counter, which the guest wrote */
	wr(rig, 0x30c, 1000);
	rd(rig, 0x329);
	expect_leaks(rig, ++leaks);
	rd(rig, 0x38e);
	expect_leaks(rig, ++leaks);
	assert_non_null(strstr(last_line(rig, "leak"), "\"owners\":[\"before\"]"));
	in_root(rig, 3);
	rdpmc(rig, 0);
	expect_leaks(rig, ++leaks);
	in_guest(rig, A, 0);
	wr(rig, 0xc1, 5);
	wr(rig, 0x309, 5);
	wr(rig, 0x329, 0x0a0b0c0d);
	wr(rig, 0x390, rd(rig, 0x38e));
	expect_leaks(rig, ++leaks);	/* to know what to clear */
	rdpmc(rig, 0);
	rdpmc(rig, 0x40000000);
	rd(rig, 0x329);
	rd(rig, 0x38e);
	expect_leaks(rig, leaks);
	rig_free(rig);
}

/* A counter of the firmware's counts whoever runs; it is no guest's. */
static void firmware_counts(void **state)
{
	struct rig *rig = rig_from_file("firmware-counts", 0);

	(void)state;
	in_guest(rig, A, 0);
	work(rig, PMU_WORK_INSTRUCTION, 100);
	in_root(rig, 0);
	in_guest(rig, B, 0);
	assert_int_not_equal(rdpmc(rig, 0x40000001), 0);
	expect_leaks(rig, 1);
	assert_non_null(strstr(last_line(rig, "leak"), "\"0x111000\""));
	assert_int_not_equal(rdpmc(rig, 0), 0);
	expect_leaks(rig, 2);
	assert_int_equal(rdpmc(rig, 0x40000000), 0);
	assert_int_equal(rdpmc(rig, 0x40000003), 0);
	expect_leaks(rig, 2);
	rig_free(rig);
}

/* One machine line, first, from CPU 0. */
static void machine_line(void **state)
{
	struct rig *rig = rig_from_file("sapphire-rapids", 0);
	struct rig *second = rig_from_file("sapphire-rapids", 1);

	(void)state;
	assert_int_equal(rig->nr_lines, 1);
	assert_int_equal(second->nr_lines, 0);
	assert_true(is_json(rig->lines[0]));
	assert_int_equal(strncmp(rig->lines[0], "{\"type\":\"machine\",\"name\":\"sapphire-rapids\"", 42), 0);
	assert_int_equal(number(rig->lines[0], "width"), 6);
	assert_int_equal(number(rig->lines[0], "metrics"), 8);
	rig_free(rig);
	rig_free(second);
}

/* The recognizer itself says no. */
static void json_recognizer(void **state)
{
	(void)state;
	assert_true(is_json("{\"a\":[1,20,\"x\",{}],\"b\":true}"));
	assert_false(is_json("{\"a\":1,}"));
	assert_false(is_json("{\"a\":01}"));
	assert_false(is_json("{\"a\" 1}"));
	assert_false(is_json("{\"a\":1"));
	assert_false(is_json("{\"a\":1} "));
	assert_false(is_json("{\"a\":-}"));
	assert_false(is_json(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_way_to_read),
		cmocka_unit_test(line_of_a_leak),
		cmocka_unit_test(no_leak),
		cmocka_unit_test(host_user_mode),
		cmocka_unit_test(writes_clear_holders),
		cmocka_unit_test(metrics_tell_of_counter_three),
		cmocka_unit_test(overflow_bits),
		cmocka_unit_test(foreign_pmi),
		cmocka_unit_test(pmi_of_a_guest),
		cmocka_unit_test(pmi_for_others_work),
		cmocka_unit_test(late_pmi),
		cmocka_unit_test(pmi_of_the_host),
		cmocka_unit_test(many_owners),
		cmocka_unit_test(flood_of_leaks),
		cmocka_unit_test(truth_per_owner),
		cmocka_unit_test(truth_of_what_was_counted),
		cmocka_unit_test(before_power_on),
		cmocka_unit_test(firmware_counts),
		cmocka_unit_test(machine_line),
		cmocka_unit_test(json_recognizer),
	};

	return cmocka_run_group_tests_name("audit", tests, NULL, NULL);
}
