// SPDX-License-Identifier: GPL-2.0
/*
 * Long random sequences of accesses, work and world switches.  After each step
 * what must always hold is checked, and the audit is compared with a simple
 * idea of it: who was there when a counter changed since it was last written.
 */
#include "rig.h"

#define NR_COUNTERS	12	/* 8 general, 4 fixed */

struct fuzz {
	struct rig *rig;
	unsigned int owner;			/* 0: root, 1, 2: guests */
	unsigned int holders[NR_COUNTERS];	/* bit per owner */
	uint64_t value[NR_COUNTERS];
	unsigned int leaks;
};

static uint32_t selector_of(unsigned int counter)
{
	return counter < 8 ? counter : 0x40000000 + counter - 8;
}

static uint32_t msr_of(unsigned int counter)
{
	return counter < 8 ? 0x4c1 + counter : 0x309 + counter - 8;
}

static void enter(struct fuzz *fuzz, unsigned int owner)
{
	fuzz->owner = owner;
	if (owner)
		in_guest(fuzz->rig, owner * 0x1000, random_below(4));
	else
		in_root(fuzz->rig, 0);
}

/* All counters as the host's kernel sees them, which nobody audits. */
static void observe(struct fuzz *fuzz)
{
	unsigned int owner = fuzz->owner, i;
	uint64_t value;

	in_root(fuzz->rig, 0);
	for (i = 0; i < NR_COUNTERS; i++) {
		value = rdpmc(fuzz->rig, selector_of(i));
		if (value >> 48)
			fail_msg("counter %u has %llx, above 48 bits", i,
				 (unsigned long long)value);
		assert_int_equal(value, rd(fuzz->rig, msr_of(i)));
		if (value != fuzz->value[i])
			fuzz->holders[i] |= 1 << owner;
		fuzz->value[i] = value;
	}
	enter(fuzz, owner);
}

static void step_work(struct fuzz *fuzz)
{
	uint64_t delta[PMU_NR_WORK];
	unsigned int i;

	for (i = 0; i < PMU_NR_WORK; i++)
		delta[i] = random_below(4) ? random_below(1000) : 0;
	pmu_advance(fuzz->rig->pmu, delta);
	observe(fuzz);
}

static void step_write_counter(struct fuzz *fuzz)
{
	unsigned int i = random_below(NR_COUNTERS);

	wr(fuzz->rig, msr_of(i), random_below(2) ? random_below(BIT(48)) :
						   BIT(48) - 1 - random_below(500));
	fuzz->holders[i] = 0;
	fuzz->value[i] = rdpmc(fuzz->rig, selector_of(i));
}

/* Any register, any bits: it may fault, but what it took must be legal. */
static void step_write_control(struct fuzz *fuzz)
{
	static const uint32_t msrs[] = {
		0x186, 0x187, 0x18d, 0x38d, 0x38f, 0x390, 0x391, 0x1a0, 0x329,
	};
	struct rig *rig = fuzz->rig;
	uint64_t value = random_below(~(uint64_t)0);

	while (random_below(4))
		value &= random_below(~(uint64_t)0);
	if (random_below(2))
		value &= 0x0001000f00dfbbff;
	pmu_wrmsr(rig->pmu, msrs[random_below(ARRAY_SIZE(msrs))], value);
	in_root(rig, 0);
	assert_false(rd(rig, 0x186) & ~(uint64_t)0xffdfffff);
	assert_false(rd(rig, 0x38d) & ~(uint64_t)0xbbbb);
	assert_false(rd(rig, 0x38f) & ~(uint64_t)0x0001000f000000ff);
	assert_false(rd(rig, 0x38e) & ~(uint64_t)0x6c01000f000000ff);
	assert_false(rd(rig, 0x329) >> 32);
	enter(fuzz, fuzz->owner);
}

static void step_read(struct fuzz *fuzz)
{
	unsigned int i = random_below(NR_COUNTERS);
	bool leak = fuzz->owner && fuzz->value[i] &&
		    fuzz->holders[i] & ~(1 << fuzz->owner);

	assert_int_equal(rdpmc(fuzz->rig, selector_of(i)), fuzz->value[i]);
	fuzz->leaks += leak;
	/* the model stops writing, not counting, after 100 */
	if (count_lines(fuzz->rig, "leak") != (fuzz->leaks < 100 ? fuzz->leaks : 100))
		fail_msg("counter %u, owner %u, holders %x: %s", i, fuzz->owner,
			 fuzz->holders[i], leak ? "leak not seen" : "false leak");
}

static void random_sequence(struct fuzz *fuzz, unsigned int steps)
{
	while (steps--) {
		switch (random_below(8)) {
		case 0:
			step_write_counter(fuzz);
			break;
		case 1:
			step_write_control(fuzz);
			break;
		case 2:
			enter(fuzz, random_below(3));
			break;
		case 3:
			pmu_set_freeze_on_pmi(fuzz->rig->pmu, !random_below(4));
			break;
		case 4:
		case 5:
			step_read(fuzz);
			break;
		default:
			step_work(fuzz);
		}
	}
}

static void random_sequences(void **state)
{
	struct fuzz fuzz;
	unsigned int round, i;

	(void)state;
	random_start();
	for (round = 0; round < 100; round++) {
		memset(&fuzz, 0, sizeof(fuzz));
		fuzz.rig = rig_from_file("icelake", 0);
		for (i = 0; i < 8; i++)
			wr(fuzz.rig, 0x186 + i, 0x5300c0);
		wr(fuzz.rig, 0x38d, 0xbbbb);
		wr(fuzz.rig, 0x38f, 0x0001000f000000ff);
		random_sequence(&fuzz, 500);
		pmu_emit_totals(fuzz.rig->pmu);
		assert_int_equal(number(last_line(fuzz.rig, "audit"), "leaks"),
				 fuzz.leaks);
		for (i = 0; i < fuzz.rig->nr_lines; i++)
			assert_true(is_json(fuzz.rig->lines[i]));
		rig_free(fuzz.rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_sequences),
	};

	return cmocka_run_group_tests_name("fuzz", tests, NULL, NULL);
}
