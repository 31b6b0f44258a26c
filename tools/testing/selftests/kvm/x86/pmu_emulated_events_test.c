// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test which counters of a vPMU KVM increments for an instruction or a branch that
 * it emulates: those that count instructions or branches, and no others.
 *
 * With a counter mask (CMASK), a counter counts cycles instead of events: those in
 * which at least that many events occur or, with INV, fewer.  No CPU retires NEVER
 * instructions in a cycle, i.e. with that mask a counter stands still, and with INV
 * it counts every cycle.  With the mask ONE, it and its inverse add up to all cycles.
 */
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "pmu.h"
#include "processor.h"

/* The largest mask that neither vendor reserves. */
#define NEVER		(127ull << 24)

#define ONE		BIT_ULL(24)

#define NR_COUNTERS	3
#define NR_LOOPS	20000

/*
 * Counters are enabled one after the other, and so is their disabling: allow for the
 * instructions and cycles that only some of them see.
 */
#define SLACK		(NR_LOOPS / 4)

static struct {
	u32 evntsel;
	u32 counter;
	u64 cycles;
	u64 branches;
} guest;

/* CPUID always exits, and thus is emulated. */
static void emulate_instructions(void)
{
	int i;

	for (i = 0; i < NR_LOOPS; i++)
		this_cpu_has(X86_FEATURE_XMM);
}

static void emulate_branches(void)
{
	int i;

	for (i = 0; i < NR_LOOPS; i++)
		asm volatile(KVM_FEP "jmp 1f\n\t"
			     "1:");
}

static void count(void (*work)(void), u64 event0, u64 event1, u64 event2, u64 *val)
{
	const u64 enable = ARCH_PERFMON_EVENTSEL_OS | ARCH_PERFMON_EVENTSEL_ENABLE;
	int i;

	for (i = 0; i < NR_COUNTERS; i++) {
		wrmsr(guest.evntsel + i, 0);
		wrmsr(guest.counter + i, 0);
	}
	wrmsr(guest.evntsel, event0 | enable);
	wrmsr(guest.evntsel + 1, event1 | enable);
	wrmsr(guest.evntsel + 2, event2 | enable);
	work();
	for (i = 0; i < NR_COUNTERS; i++)
		wrmsr(guest.evntsel + i, 0);
	for (i = 0; i < NR_COUNTERS; i++)
		val[i] = rdmsr(guest.counter + i);
}

static void assert_close(const char *what, u64 val, u64 want)
{
	__GUEST_ASSERT(val + SLACK > want && val < want + SLACK,
		       "%s: counted %lu, want %lu", what, val, want);
}

static void test_event(void (*work)(void), u64 event)
{
	const u64 inv = ARCH_PERFMON_EVENTSEL_INV;
	u64 val[NR_COUNTERS];

	/* Whatever the guest executes natively comes on top. */
	count(work, event, event | NEVER, event | NEVER | ARCH_PERFMON_EVENTSEL_EDGE, val);
	__GUEST_ASSERT(val[0] >= NR_LOOPS, "Counted %lu of %u emulated events",
		       val[0], NR_LOOPS);
	__GUEST_ASSERT(!val[1], "Counted %lu cycles that can't exist", val[1]);
	__GUEST_ASSERT(!val[2], "Counted %lu edges that can't exist", val[2]);

	count(work, guest.cycles, guest.cycles, event | NEVER | inv, val);
	assert_close("All cycles, by an inverted mask", val[2], val[0]);

	count(work, guest.cycles, event | ONE, event | ONE | inv, val);
	assert_close("Cycles with events and without", val[1] + val[2], val[0]);
}

/* No CPU retires as many instructions in a cycle as the upper bits of a mask ask for. */
static void guest_masks(void)
{
	const u64 event = INTEL_ARCH_INSTRUCTIONS_RETIRED;
	u64 val[NR_COUNTERS];
	int i;

	count(emulate_instructions, event | BIT_ULL(29), event | BIT_ULL(30),
	      event | BIT_ULL(31), val);
	for (i = 0; i < NR_COUNTERS; i++)
		__GUEST_ASSERT(!val[i], "Counted %lu cycles with %u instructions",
			       val[i], 32 << i);
	GUEST_DONE();
}

static void guest_instructions(void)
{
	test_event(emulate_instructions, INTEL_ARCH_INSTRUCTIONS_RETIRED);
	GUEST_DONE();
}

static void guest_branches(void)
{
	test_event(emulate_branches, guest.branches);
	GUEST_DONE();
}

/* Without a mask, there is nothing to invert (SDM). */
static void guest_no_mask(void)
{
	u64 val[NR_COUNTERS];

	count(emulate_instructions, INTEL_ARCH_INSTRUCTIONS_RETIRED, guest.cycles,
	      INTEL_ARCH_INSTRUCTIONS_RETIRED | ARCH_PERFMON_EVENTSEL_INV, val);
	assert_close("Instructions, with INV but without a mask", val[2], val[0]);
	GUEST_DONE();
}

KVM_ONE_VCPU_TEST_SUITE(emulated_events);

static void run(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	sync_global_to_guest(vcpu->vm, guest);
	vcpu_run(vcpu);
	switch (get_ucall(vcpu, &uc)) {
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
		break;
	case UCALL_DONE:
		break;
	default:
		TEST_FAIL("Unexpected ucall: %lu", uc.cmd);
	}
}

KVM_ONE_VCPU_TEST(emulated_events, instructions, guest_instructions)
{
	run(vcpu);
}

KVM_ONE_VCPU_TEST(emulated_events, branches, guest_branches)
{
	if (!is_forced_emulation_enabled) {
		ksft_print_msg("kvm.force_emulation_prefix is N\n");
		return;
	}
	run(vcpu);
}

KVM_ONE_VCPU_TEST(emulated_events, masks, guest_masks)
{
	/* AMD reserves the uppermost bit. */
	if (host_cpu_is_intel)
		run(vcpu);
}

KVM_ONE_VCPU_TEST(emulated_events, inverted_without_mask, guest_no_mask)
{
	if (host_cpu_is_intel)
		run(vcpu);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_is_pmu_enabled());
	TEST_REQUIRE(host_cpu_is_intel || host_cpu_is_amd);
	if (host_cpu_is_intel) {
		TEST_REQUIRE(kvm_cpu_has_p(X86_PROPERTY_PMU_VERSION));
		TEST_REQUIRE(kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS) >= NR_COUNTERS);
	}

	/* At reset, all general purpose counters are enabled globally. */
	guest.evntsel = host_cpu_is_intel ? MSR_P6_EVNTSEL0 : MSR_K7_EVNTSEL0;
	guest.counter = host_cpu_is_intel ? MSR_IA32_PERFCTR0 : MSR_K7_PERFCTR0;
	guest.cycles = host_cpu_is_intel ? INTEL_ARCH_CPU_CYCLES : AMD_ZEN_CORE_CYCLES;
	guest.branches = host_cpu_is_intel ? INTEL_ARCH_BRANCHES_RETIRED :
					     AMD_ZEN_BRANCHES_RETIRED;

	return test_harness_run(argc, argv);
}
