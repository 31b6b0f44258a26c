// SPDX-License-Identifier: GPL-2.0
/*
 * Makes VM exits of one kind between two marks of the ground truth, in a guest
 * that uses its PMU in one way, so that lab/judge/cost can tell what KVM does
 * with the PMU for each of them.
 *
 *	world-switch CASE [EXITS]
 *
 * Prints
 *
 *	world-switch: case=CASE mark=NUMBER
 *
 * before the first mark, whose number it is; the second one is the next number.
 * Exits with 4 (KSFT_SKIP) if KVM lacks what the case needs.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvm_util.h"
#include "pmu.h"
#include "processor.h"

#include "../../host/mark.h"

#define EXITS		1000
/*
 * Before the first mark: pages of the guest get mapped, and KVM learns what the
 * guest uses of the PMU.
 */
#define WARM_UP		16
/* No device is there; userspace is told of each OUT. */
#define PORT		0x80

/* What a guest does with its PMU. */
enum use { NOTHING, GENERAL, TOPDOWN };

/* How it leaves. */
enum exit {
	CPUID,		/* handled by KVM with interrupts on, after putting the PMU */
	INVD,		/* a NOP for KVM, which handles it in the fastpath */
	USERSPACE,	/* by OUT */
};

static const struct {
	const char *name;
	enum exit exit;
	unsigned int guests;	/* that take turns on one CPU */
	enum use use[2];
} cases[] = {
	{ "idle", CPUID, 1, { NOTHING } },
	{ "general", CPUID, 1, { GENERAL } },
	{ "topdown", CPUID, 1, { TOPDOWN } },
	{ "idle-fastpath", INVD, 1, { NOTHING } },
	{ "topdown-fastpath", INVD, 1, { TOPDOWN } },
	{ "two-idle", USERSPACE, 2, { NOTHING, NOTHING } },
	{ "two-general", USERSPACE, 2, { GENERAL, GENERAL } },
	{ "two-topdown", USERSPACE, 2, { TOPDOWN, TOPDOWN } },
	{ "topdown-and-idle", USERSPACE, 2, { TOPDOWN, NOTHING } },
};

/*
 * Guest: as `perf stat` without events (cycles, instructions, branches and
 * branch misses, here in general counters) and all fixed counters that Linux without the series has.
 */
static void use_general(void)
{
	static const u8 events[][2] = {	/* event, umask: SDM, architectural events */
		{ 0x3c, 0x00 }, { 0xc0, 0x00 }, { 0xc4, 0x00 }, { 0xc5, 0x00 }
	};
	u64 enable = 0, fixed = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(events); i++) {
		wrmsr(MSR_P6_EVNTSEL0 + i, events[i][0] | events[i][1] << 8 |
		      ARCH_PERFMON_EVENTSEL_OS | ARCH_PERFMON_EVENTSEL_ENABLE);
		enable |= BIT_ULL(i);
	}
	for (i = 0; i < 3; i++) {
		fixed |= FIXED_PMC_CTRL(i, FIXED_PMC_KERNEL);
		enable |= FIXED_PMC_GLOBAL_CTRL_ENABLE(i);
	}
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, fixed);
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, enable);
}

/* Guest: as `perf stat --topdown`. */
static void use_topdown(void)
{
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, 0);
	wrmsr(MSR_PERF_METRICS, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, FIXED_PMC_CTRL(3, FIXED_PMC_KERNEL));
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL,
	      FIXED_PMC_GLOBAL_CTRL_ENABLE(3) | PMU_GLOBAL_CTRL_PERF_METRICS);
}

static void leave(enum exit exit)
{
	u32 eax = 0, ecx = 0;

	switch (exit) {
	case CPUID:
		asm volatile("cpuid" : "+a"(eax), "+c"(ecx) : : "ebx", "edx", "memory");
		break;
	case INVD:
		asm volatile("invd" : : : "memory");
		break;
	case USERSPACE:
		asm volatile("outb %%al, %0" : : "N"(PORT), "a"(0) : "memory");
		break;
	}
}

/*
 * Guest: the marks are made here if it is alone, so that nothing else is between
 * them than the exits.
 */
static void guest_code(enum use use, enum exit exit, u64 number, u64 exits)
{
	u64 i;

	if (use == GENERAL)
		use_general();
	else if (use == TOPDOWN)
		use_topdown();
	for (i = 0; exit != USERSPACE && i < WARM_UP; i++)
		leave(exit);
	if (exit != USERSPACE)
		mark(number);
	for (i = 0; i < exits; i++)
		leave(exit);
	if (exit != USERSPACE)
		mark(number + 1);
	for (;;)
		leave(USERSPACE);
}

static void run(struct kvm_vcpu *vcpu)
{
	vcpu_run(vcpu);
	if (vcpu->run->exit_reason == KVM_EXIT_IO && vcpu->run->io.port == PORT)
		return;
	assert_on_unhandled_exception(vcpu);
	TEST_FAIL("Exit reason %u (%s)", vcpu->run->exit_reason,
		  exit_reason_str(vcpu->run->exit_reason));
}

static void take_turns(struct kvm_vcpu *vcpus[], unsigned int nr, u64 turns)
{
	u64 i;

	for (i = 0; i < turns; i++)
		run(vcpus[i % nr]);
}

static void require(enum use use)
{
	TEST_REQUIRE(kvm_is_pmu_enabled());
	__TEST_REQUIRE(get_kvm_intel_param_bool("enable_mediated_pmu"),
		       "missing: the mediated vPMU");
	__TEST_REQUIRE(use != TOPDOWN || (kvm_get_feature_msr(MSR_IA32_PERF_CAPABILITIES) &
					  PMU_CAP_PERF_METRICS),
		       "missing: PERF_METRICS");
}

int main(int argc, char **argv)
{
	/* No other measurement of this boot has this number. */
	u64 number = __builtin_ia32_rdtsc() & ~1ull;
	u64 exits = argc > 2 ? strtoull(argv[2], NULL, 0) : EXITS;
	struct kvm_vcpu *vcpus[2];
	unsigned int i, n;

	for (n = 0; n < ARRAY_SIZE(cases); n++) {
		if (argc > 1 && !strcmp(cases[n].name, argv[1]))
			break;
	}
	if (n == ARRAY_SIZE(cases) || !exits) {
		fprintf(stderr, "usage: world-switch CASE [EXITS], CASE one of:\n");
		for (n = 0; n < ARRAY_SIZE(cases); n++)
			fprintf(stderr, "  %s\n", cases[n].name);
		return 2;
	}
	for (i = 0; i < cases[n].guests; i++)
		require(cases[n].use[i]);

	for (i = 0; i < cases[n].guests; i++) {
		vm_create_with_one_vcpu(&vcpus[i], guest_code);
		vcpu_set_msr(vcpus[i], MSR_IA32_PERF_CAPABILITIES,
			     kvm_get_feature_msr(MSR_IA32_PERF_CAPABILITIES));
		vcpu_args_set(vcpus[i], 4, cases[n].use[i], cases[n].exit, number, exits);
	}
	printf("world-switch: case=%s mark=%lu\n", cases[n].name, number);
	fflush(stdout);

	if (cases[n].exit == USERSPACE) {
		take_turns(vcpus, cases[n].guests, WARM_UP);
		mark(number);
		take_turns(vcpus, cases[n].guests, exits);
		mark(number + 1);
	} else {
		run(vcpus[0]);
	}
	return 0;
}
