// SPDX-License-Identifier: GPL-2.0
/*
 * The first guest whose PMU is loaded on a CPU, for machines whose registers are not zero then
 * (lab/machine/garbage), or where firmware counts in them (firmware-counts): it finds zeros
 * in all that it can read, and what it writes into counters that it doesn't enable stays.
 *
 *	first-guest [CPU [GENERAL FIXED]]	(0, and as many counters as KVM offers)
 *
 * Every later guest on the CPU can profit from what KVM did for this one: run it first. If
 * this one has fewer counters, the next one shows what KVM did with those that it lacks. Works
 * with KVM's mediated vPMU of any Linux, and skips without.
 */
#include <stdlib.h>

#include "kvm_util.h"
#include "processor.h"

#define RDPMC_FIXED	BIT(30)
#define RDPMC_METRICS	BIT(29)
#define CAP_METRICS	BIT(15)
#define METRICS_MSR	0x329
#define WRITTEN		0x1000
#define LOOPS		3000
#define STOPS		4

static u64 rdpmc(u32 index)
{
	u32 low, high;

	asm volatile("rdpmc" : "=a"(low), "=d"(high) : "c"(index));
	return (u64)high << 32 | low;
}

static void expect(const char *name, u32 i, u64 is, u64 wanted)
{
	__GUEST_ASSERT(is == wanted, "%s %u is 0x%lx, not 0x%lx", name, i, is, wanted);
}

/* Whatever the guest has: its own values, and nothing else. */
static void check(u32 nr_gp, u32 nr_fixed, bool metrics, u64 wanted)
{
	u32 i;

	for (i = 0; i < nr_gp; i++) {
		expect("RDPMC of general counter", i, rdpmc(i), wanted);
		expect("MSR of general counter", i, rdmsr(MSR_IA32_PERFCTR0 + i), wanted);
		expect("Event selector", i, rdmsr(MSR_P6_EVNTSEL0 + i), 0);
	}
	for (i = 0; i < nr_fixed; i++) {
		expect("RDPMC of fixed counter", i, rdpmc(RDPMC_FIXED | i), wanted);
		expect("MSR of fixed counter", i, rdmsr(MSR_CORE_PERF_FIXED_CTR0 + i), wanted);
	}
	/* Nobody wrote them: fractions of a counter that was written remain zero. */
	if (metrics) {
		expect("RDPMC of metrics", 0, rdpmc(RDPMC_METRICS), 0);
		expect("MSR of metrics", 0, rdmsr(METRICS_MSR), 0);
	}
	expect("FIXED_CTR_CTRL", 0, rdmsr(MSR_CORE_PERF_FIXED_CTR_CTRL), 0);
	expect("GLOBAL_STATUS", 0, rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), 0);
}

static void work(void)
{
	u32 i;

	for (i = 0; i < LOOPS; i++)
		asm volatile("nop");
}

static void guest_code(u32 nr_gp, u32 nr_fixed, bool metrics)
{
	u64 all = (BIT_ULL(nr_gp) - 1) | (BIT_ULL(nr_fixed) - 1) << 32;
	u32 i, stop;

	check(nr_gp, nr_fixed, metrics, 0);
	/* The master switch is on, as for a Linux that counts something else. */
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, all);
	for (stop = 0; stop < STOPS; stop++) {
		work();
		check(nr_gp, nr_fixed, metrics, 0);
		GUEST_SYNC(stop);
	}
	for (i = 0; i < nr_gp; i++)
		wrmsr(MSR_IA32_PERFCTR0 + i, WRITTEN);
	for (i = 0; i < nr_fixed; i++)
		wrmsr(MSR_CORE_PERF_FIXED_CTR0 + i, WRITTEN);
	for (stop = 0; stop < STOPS; stop++) {
		work();
		check(nr_gp, nr_fixed, metrics, WRITTEN);
		GUEST_SYNC(stop);
	}
	GUEST_DONE();
}

int main(int argc, char **argv)
{
	bool metrics = kvm_get_feature_msr(MSR_IA32_PERF_CAPABILITIES) & CAP_METRICS;
	u32 nr_gp = kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);
	u32 nr_fixed = kvm_cpu_property(X86_PROPERTY_PMU_NR_FIXED_COUNTERS);
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct ucall uc;

	TEST_REQUIRE(kvm_is_pmu_enabled());
	__TEST_REQUIRE(kvm_is_mediated_pmu_enabled(), "The vPMU isn't mediated");
	pin_self_to_cpu(argc > 1 ? atoi(argv[1]) : 0);

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	if (argc > 3) {
		nr_gp = atoi(argv[2]);
		nr_fixed = atoi(argv[3]);
		metrics &= nr_fixed > 3;
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_NR_GP_COUNTERS, nr_gp);
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_NR_FIXED_COUNTERS, nr_fixed);
	}
	vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES,
		     kvm_get_feature_msr(MSR_IA32_PERF_CAPABILITIES) &
		     ~(metrics ? 0 : (u64)CAP_METRICS));
	vcpu_args_set(vcpu, 3, nr_gp, nr_fixed, metrics);
	do {
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
		if (get_ucall(vcpu, &uc) == UCALL_ABORT)
			REPORT_GUEST_ASSERT(uc);
	} while (uc.cmd != UCALL_DONE);
	kvm_vm_free(vm);
	return 0;
}
