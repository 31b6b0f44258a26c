// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test that the state of a vCPU that has used its PMU can be restored: whatever
 * KVM_GET_MSRS returns for the MSRs in KVM_GET_MSR_INDEX_LIST, KVM_SET_MSRS has to
 * take, be it by the same vCPU or by a new one with the same CPUID.
 */
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "pmu.h"
#include "processor.h"

static void guest_code(void)
{
	u8 version = this_cpu_property(X86_PROPERTY_PMU_VERSION);
	u8 nr_gp = this_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);
	u64 all = 0, ctrl = 0, max = 0, nr_fixed = 0;
	int i;

	if (version > 1) {
		nr_fixed = this_cpu_property(X86_PROPERTY_PMU_NR_FIXED_COUNTERS);
		max = BIT_ULL(this_cpu_property(X86_PROPERTY_PMU_FIXED_COUNTERS_BIT_WIDTH)) - 1;
		for (i = 0; i < 64; i++) {
			if (!wrmsr_safe(MSR_CORE_PERF_GLOBAL_CTRL, BIT_ULL(i)))
				all |= BIT_ULL(i);
		}
		wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
	}

	/* All counters are about to overflow, without an interrupt. */
	for (i = 0; i < nr_gp; i++) {
		wrmsr(MSR_IA32_PERFCTR0 + i, -1ull);
		wrmsr(MSR_P6_EVNTSEL0 + i, ARCH_PERFMON_EVENTSEL_ENABLE |
		      ARCH_PERFMON_EVENTSEL_OS | INTEL_ARCH_CPU_CYCLES);
	}
	for (i = 0; i < nr_fixed; i++) {
		wrmsr(MSR_CORE_PERF_FIXED_CTR0 + i, max);
		ctrl |= FIXED_PMC_CTRL((u64)i, FIXED_PMC_KERNEL);
	}
	if (version > 1) {
		wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, ctrl);
		wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, all);
	}

	for (;;) {
		for (i = 0; i < 10000; i++)
			asm volatile("nop");
		GUEST_SYNC(0);
	}
}

FIXTURE(msr_list) {
	struct kvm_vcpu *vcpu;
};

struct pmu_config {
	bool all_capabilities;
	u8 version;
	s8 nr_fixed;
	s8 fewer_gp;
};

FIXTURE_VARIANT(msr_list) {
	struct pmu_config config;
};

FIXTURE_VARIANT_ADD(msr_list, all)
{
	.config = { .all_capabilities = true, .version = 2, .nr_fixed = -1 },
};

FIXTURE_VARIANT_ADD(msr_list, default_capabilities)
{
	.config = { .version = 2, .nr_fixed = -1 },
};

FIXTURE_VARIANT_ADD(msr_list, no_fixed)
{
	.config = { .version = 2, .nr_fixed = 0 },
};

FIXTURE_VARIANT_ADD(msr_list, fewer_gp)
{
	.config = { .version = 2, .nr_fixed = -1, .fewer_gp = 1 },
};

FIXTURE_VARIANT_ADD(msr_list, version_1)
{
	.config = { .version = 1, .nr_fixed = -1 },
};

static struct kvm_vcpu *create_vcpu(const struct pmu_config *config)
{
	u8 nr_gp = kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);
	struct kvm_vcpu *vcpu;

	vm_create_with_one_vcpu(&vcpu, guest_code);
	if (config->all_capabilities && kvm_cpu_has(X86_FEATURE_PDCM))
		vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES,
			     kvm_get_feature_msr(MSR_IA32_PERF_CAPABILITIES));
	vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_VERSION, config->version);
	if (config->nr_fixed >= 0)
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_NR_FIXED_COUNTERS,
					config->nr_fixed);
	vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_NR_GP_COUNTERS,
				nr_gp - config->fewer_gp);
	return vcpu;
}

FIXTURE_SETUP(msr_list)
{
	self->vcpu = create_vcpu(&variant->config);
}

FIXTURE_TEARDOWN(msr_list)
{
	kvm_vm_free(self->vcpu->vm);
}

static void run(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	TEST_ASSERT_EQ(get_ucall(vcpu, &uc), UCALL_SYNC);
}

TEST_F(msr_list, what_is_saved_can_be_restored)
{
	const struct kvm_msr_list *list = kvm_get_msr_index_list();
	struct kvm_vcpu *vcpu = self->vcpu, *other = create_vcpu(&variant->config);
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry;
	} msr = { .header.nmsrs = 1 };
	u32 i;

	/* All that the vCPU has is used, i.e. there is something to restore. */
	run(vcpu);
	if (variant->config.version > 1)
		TEST_ASSERT(vcpu_get_msr(vcpu, MSR_CORE_PERF_GLOBAL_STATUS),
			    "No counter has overflowed");

	for (i = 0; i < list->nmsrs; i++) {
		msr.entry.index = list->indices[i];
		if (__vcpu_ioctl(vcpu, KVM_GET_MSRS, &msr.header) != 1)
			continue;

		TEST_ASSERT(__vcpu_ioctl(vcpu, KVM_SET_MSRS, &msr.header) == 1,
			    "MSR 0x%x: the vCPU can't be given back 0x%llx",
			    msr.entry.index, msr.entry.data);
		TEST_ASSERT(__vcpu_ioctl(other, KVM_SET_MSRS, &msr.header) == 1,
			    "MSR 0x%x: a new vCPU can't be given 0x%llx",
			    msr.entry.index, msr.entry.data);
	}

	run(vcpu);
	run(other);
	kvm_vm_free(other->vm);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_is_pmu_enabled());
	TEST_REQUIRE(kvm_cpu_has_p(X86_PROPERTY_PMU_VERSION));
	TEST_REQUIRE(kvm_cpu_property(X86_PROPERTY_PMU_VERSION) > 1);

	return test_harness_run(argc, argv);
}
