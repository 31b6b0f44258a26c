// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test the vPMU of nested guests.  L1 and L2 share one PMU, of which KVM keeps
 * controls in two VMCSs: what L1 or L2 enables counts on in the other one, also
 * across SMM and save/restore, and L1's and userspace's intercepts hold in L2
 * when KVM changes its own.
 */
#include "apic.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "pmu.h"
#include "processor.h"
#include "smm.h"
#include "vmx.h"

#define EXIT_INIT		3
#define EXIT_RDPMC		15
#define EXIT_VMCALL		18
#define EXIT_MSR_READ		31
#define EXIT_INVALID_STATE	(EXIT_REASON_FAILED_VMENTRY | 33)
#define EXIT_MSR_LOAD_FAIL	(EXIT_REASON_FAILED_VMENTRY | 34)

#define SMRAM_GPA		0x1000000
#define SMI_PORT		0xe

/*
 * Values of PERF_GLOBAL_CTRL that differ, with and without fixed counter 0, which
 * counts instructions.  The general purpose counters are off by their selectors.
 */
#define CTR			FIXED_PMC_GLOBAL_CTRL_ENABLE(0)
#define ON_1			(CTR | BIT_ULL(0))
#define ON_2			(CTR | BIT_ULL(1))
#define ON_3			(CTR | BIT_ULL(0) | BIT_ULL(1))
#define OFF_1			BIT_ULL(0)
#define OFF_2			BIT_ULL(1)

#define NR_INSTRUCTIONS		1000

#define L2_STACK_SIZE		512

static unsigned long l2_stack[L2_STACK_SIZE];
static struct vmx_msr_entry msr_list;
static u64 msr_list_gpa;
static struct vmx_msr_entry entry_and_exit_list[2] __aligned(32);

/* Run in SMM, in real mode: in $SMI_PORT, %al; rsm */
static const u8 smi_handler[] = { 0xe4, SMI_PORT, 0x0f, 0xaa };

static void __assert_ctrl(u64 want, int line)
{
	u64 before, after, ctrl = rdmsr(MSR_CORE_PERF_GLOBAL_CTRL);
	int i;

	__GUEST_ASSERT(ctrl == want, "Line %d: PERF_GLOBAL_CTRL is 0x%lx, want 0x%lx",
		       line, ctrl, want);

	before = rdmsr(MSR_CORE_PERF_FIXED_CTR0);
	for (i = 0; i < NR_INSTRUCTIONS; i++)
		asm volatile("nop");
	after = rdmsr(MSR_CORE_PERF_FIXED_CTR0);

	if (want & CTR)
		__GUEST_ASSERT(after >= before + NR_INSTRUCTIONS,
			       "Line %d: fixed counter 0 went from %lu to %lu, want %u more",
			       line, before, after, NR_INSTRUCTIONS);
	else
		__GUEST_ASSERT(after == before,
			       "Line %d: fixed counter 0 went from %lu to %lu, want it stopped",
			       line, before, after);
}

/* What PERF_GLOBAL_CTRL reads as, and what it does. */
#define assert_ctrl(want) __assert_ctrl(want, __LINE__)

static void set_ctrl(u64 ctrl)
{
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, ctrl);
}

static void set_bits(u64 field, u64 bits)
{
	GUEST_ASSERT(!vmwrite(field, vmreadz(field) | bits));
}

static void prepare_l2_without_pmu(struct vmx_pages *vmx)
{
	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
	prepare_vmcs(vmx, NULL);
	set_bits(CPU_BASED_VM_EXEC_CONTROL, CPU_BASED_USE_MSR_BITMAPS);
}

static void prepare_l2(struct vmx_pages *vmx)
{
	prepare_l2_without_pmu(vmx);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, FIXED_PMC_CTRL(0, FIXED_PMC_KERNEL));
}

static void load_on_entry(u64 ctrl)
{
	set_bits(VM_ENTRY_CONTROLS, VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL);
	GUEST_ASSERT(!vmwrite(GUEST_IA32_PERF_GLOBAL_CTRL, ctrl));
}

static void load_on_exit(u64 ctrl)
{
	set_bits(VM_EXIT_CONTROLS, VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL);
	GUEST_ASSERT(!vmwrite(HOST_IA32_PERF_GLOBAL_CTRL, ctrl));
}

/* The first successful entry has to be a VMLAUNCH, all others VMRESUME. */
static bool launched;

static int enter_l2(void *code)
{
	GUEST_ASSERT(!vmwrite(GUEST_RIP, (u64)code));
	GUEST_ASSERT(!vmwrite(GUEST_RSP, (u64)&l2_stack[L2_STACK_SIZE]));
	return launched ? vmresume() : vmlaunch();
}

static void __run_l2(void *code, u32 expected_exit, int line)
{
	u32 reason;

	GUEST_ASSERT(!enter_l2(code));
	reason = vmreadz(VM_EXIT_REASON);
	__GUEST_ASSERT(reason == expected_exit,
		       "Line %d: VM exit 0x%x from L2, want 0x%x, qualification 0x%lx",
		       line, reason, expected_exit, vmreadz(EXIT_QUALIFICATION));
	if (!(reason & EXIT_REASON_FAILED_VMENTRY))
		launched = true;
}

#define run_l2(code, expected_exit) __run_l2(code, expected_exit, __LINE__)

static void l2_unreachable(void)
{
	GUEST_FAIL("L2 must not run");
}

/*
 * The same with all counters that KVM offers, i.e. with PERF_GLOBAL_CTRL and RDPMC
 * passed through if that is all the host has, and with less, i.e. intercepted.
 */
FIXTURE(nested_pmu) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	gva_t vmx;
};

FIXTURE_VARIANT(nested_pmu) {
	bool fewer;
};

FIXTURE_VARIANT_ADD(nested_pmu, all_counters) { .fewer = false };
FIXTURE_VARIANT_ADD(nested_pmu, fewer_counters) { .fewer = true };

/* Changing PERF_CAPABILITIES resets the PMU, i.e. it comes before other MSRs. */
static void configure_pmu(struct kvm_vcpu *vcpu, bool fewer)
{
	u8 nr_gp = kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);

	if (kvm_cpu_has(X86_FEATURE_PDCM))
		vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES,
			     kvm_get_feature_msr(MSR_IA32_PERF_CAPABILITIES));
	if (fewer)
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_NR_GP_COUNTERS, nr_gp - 1);
}

FIXTURE_SETUP(nested_pmu)
{
	self->vm = vm_create(2);
	self->vcpu = vm_vcpu_add(self->vm, 0, NULL);
	configure_pmu(self->vcpu, variant->fewer);
	vcpu_alloc_vmx(self->vm, &self->vmx);
}

FIXTURE_TEARDOWN(nested_pmu)
{
	kvm_vm_free(self->vm);
}

static void start_l1(struct kvm_vcpu *vcpu, void *code, gva_t vmx, u64 arg)
{
	vcpu_arch_set_entry_point(vcpu, code);
	vcpu_args_set(vcpu, 2, vmx, arg);
}

/* Returns the stage of a GUEST_SYNC, or -1 for GUEST_DONE. */
static u64 run_to_sync(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);

	switch (get_ucall(vcpu, &uc)) {
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
		break;
	case UCALL_SYNC:
		return uc.args[1];
	case UCALL_DONE:
		return -1;
	default:
		TEST_FAIL("Unexpected ucall: %lu", uc.cmd);
	}
	return 0;
}

static void assert_sync(struct kvm_vcpu *vcpu, u64 stage)
{
	TEST_ASSERT_EQ(run_to_sync(vcpu), stage);
}

static void assert_done(struct kvm_vcpu *vcpu)
{
	assert_sync(vcpu, -1);
}

/* VMX capability MSRs, which have their defaults, can't be set in VMX operation. */
static void set_msrs(struct kvm_vcpu *vcpu, struct kvm_msrs *msrs)
{
	struct kvm_msr_entry *entry;

	for (entry = msrs->entries; entry < msrs->entries + msrs->nmsrs; entry++) {
		if (entry->index < MSR_IA32_VMX_BASIC ||
		    entry->index > MSR_IA32_VMX_VMFUNC)
			TEST_ASSERT_EQ(_vcpu_set_msr(vcpu, entry->index, entry->data), 1);
	}
}

/*
 * Save, destroy the VM, create another one, restore.  Neither order of nested state
 * and MSRs is required.
 */
static struct kvm_vcpu *save_and_restore(struct kvm_vcpu *vcpu, bool fewer,
					 bool msrs_last)
{
	struct kvm_x86_state *state = vcpu_save_state(vcpu);
	struct kvm_vm *vm = vcpu->vm;

	kvm_vm_release(vm);
	vcpu = vm_recreate_with_one_vcpu(vm);
	configure_pmu(vcpu, fewer);

	if (msrs_last) {
		vcpu_sregs_set(vcpu, &state->sregs);
		vcpu_events_set(vcpu, &state->events);
		vcpu_nested_state_set(vcpu, &state->nested);
		set_msrs(vcpu, &state->msrs);
		vcpu_xsave_set(vcpu, state->xsave);
		vcpu_mp_state_set(vcpu, &state->mp_state);
		vcpu_debugregs_set(vcpu, &state->debugregs);
		vcpu_regs_set(vcpu, &state->regs);
	} else {
		vcpu_load_state(vcpu, state);
	}
	kvm_x86_state_cleanup(state);
	return vcpu;
}

/* Run to the end, and save and restore at each sync. */
static void run_with_restores(struct kvm_vcpu *vcpu, bool fewer, bool msrs_last)
{
	while (run_to_sync(vcpu) != -1)
		vcpu = save_and_restore(vcpu, fewer, msrs_last);
}

static bool nested_can_load_ctrl(void)
{
	u64 entry = kvm_get_feature_msr(MSR_IA32_VMX_TRUE_ENTRY_CTLS) >> 32;
	u64 exit = kvm_get_feature_msr(MSR_IA32_VMX_TRUE_EXIT_CTLS) >> 32;

	return (entry & VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL) &&
	       (exit & VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL);
}

/* What one of them turns on or off is on or off in the other one. */

static void l2_turns_off(void)
{
	assert_ctrl(ON_1);
	GUEST_SYNC(0);
	assert_ctrl(ON_1);
	set_ctrl(OFF_2);
	assert_ctrl(OFF_2);
	vmcall();
}

static void l2_turns_on(void)
{
	assert_ctrl(OFF_1);
	GUEST_SYNC(1);
	assert_ctrl(OFF_1);
	set_ctrl(ON_2);
	GUEST_SYNC(2);
	assert_ctrl(ON_2);
	vmcall();
}

static void l1_switches(struct vmx_pages *vmx)
{
	int i;

	prepare_l2(vmx);
	for (i = 0; i < 2; i++) {
		set_ctrl(ON_1);
		assert_ctrl(ON_1);
		run_l2(l2_turns_off, EXIT_VMCALL);
		assert_ctrl(OFF_2);

		set_ctrl(OFF_1);
		assert_ctrl(OFF_1);
		run_l2(l2_turns_on, EXIT_VMCALL);
		assert_ctrl(ON_2);
	}
	GUEST_DONE();
}

TEST_F(nested_pmu, l1_and_l2_share_ctrl)
{
	start_l1(self->vcpu, l1_switches, self->vmx, 0);
	while (run_to_sync(self->vcpu) != -1)
		;
}

TEST_F(nested_pmu, restored_in_l2)
{
	start_l1(self->vcpu, l1_switches, self->vmx, 0);
	run_with_restores(self->vcpu, variant->fewer, false);
}

TEST_F(nested_pmu, restored_in_l2_msrs_last)
{
	start_l1(self->vcpu, l1_switches, self->vmx, 0);
	run_with_restores(self->vcpu, variant->fewer, true);
}

/* A PMU of version 1 lacks PERF_GLOBAL_CTRL: its counters don't wait for it, in L2 neither. */

static void assert_counts(void)
{
	u64 before, after;
	int i;

	before = rdmsr(MSR_IA32_PERFCTR0);
	for (i = 0; i < NR_INSTRUCTIONS; i++)
		asm volatile("nop");
	after = rdmsr(MSR_IA32_PERFCTR0);
	__GUEST_ASSERT(after >= before + NR_INSTRUCTIONS,
		       "General counter 0 went from %lu to %lu, want %u more",
		       before, after, NR_INSTRUCTIONS);
}

static void l2_version_1(void)
{
	assert_counts();
	GUEST_SYNC(0);
	assert_counts();
	vmcall();
}

static void l1_version_1(struct vmx_pages *vmx)
{
	prepare_l2_without_pmu(vmx);
	wrmsr(MSR_P6_EVNTSEL0, ARCH_PERFMON_EVENTSEL_ENABLE | ARCH_PERFMON_EVENTSEL_OS |
			       INTEL_ARCH_INSTRUCTIONS_RETIRED);
	assert_counts();
	run_l2(l2_version_1, EXIT_VMCALL);
	assert_counts();
	GUEST_DONE();
}

TEST_F(nested_pmu, version_1)
{
	vcpu_set_cpuid_property(self->vcpu, X86_PROPERTY_PMU_VERSION, 1);
	vcpu_set_cpuid_property(self->vcpu, X86_PROPERTY_PMU_NR_FIXED_COUNTERS, 0);
	start_l1(self->vcpu, l1_version_1, self->vmx, 0);
	assert_sync(self->vcpu, 0);
	assert_done(self->vcpu);
}

/* VM-Entry and VM-Exit load what L1 wants, restoring L2 loads what L2 had. */

static void l2_loaded(void)
{
	assert_ctrl(OFF_1);
	set_ctrl(ON_1);
	assert_ctrl(ON_1);
	GUEST_SYNC(0);
	assert_ctrl(ON_1);
	vmcall();
}

static void l1_loads(struct vmx_pages *vmx)
{
	int i;

	prepare_l2(vmx);
	load_on_entry(OFF_1);
	load_on_exit(ON_2);
	for (i = 0; i < 2; i++) {
		set_ctrl(OFF_2);
		run_l2(l2_loaded, EXIT_VMCALL);
		assert_ctrl(ON_2);
	}

	load_on_exit(OFF_2);
	run_l2(l2_loaded, EXIT_VMCALL);
	assert_ctrl(OFF_2);
	GUEST_DONE();
}

TEST_F(nested_pmu, entry_and_exit_load_ctrl)
{
	start_l1(self->vcpu, l1_loads, self->vmx, 0);
	while (run_to_sync(self->vcpu) != -1)
		;
}

TEST_F(nested_pmu, restored_with_entry_load)
{
	start_l1(self->vcpu, l1_loads, self->vmx, 0);
	run_with_restores(self->vcpu, variant->fewer, false);
}

TEST_F(nested_pmu, restored_with_entry_load_msrs_last)
{
	start_l1(self->vcpu, l1_loads, self->vmx, 0);
	run_with_restores(self->vcpu, variant->fewer, true);
}

/* The lists are processed after the controls, i.e. what is in both comes from the list. */

static void l2_list_loaded(void)
{
	assert_ctrl(ON_1);
	vmcall();
}

static void l1_loads_twice(struct vmx_pages *vmx, u64 lists_gpa)
{
	struct vmx_msr_entry *lists = entry_and_exit_list;

	prepare_l2(vmx);
	load_on_entry(OFF_1);
	load_on_exit(OFF_2);
	lists[0].index = MSR_CORE_PERF_GLOBAL_CTRL;
	lists[0].value = ON_1;
	lists[1].index = MSR_CORE_PERF_GLOBAL_CTRL;
	lists[1].value = ON_2;
	GUEST_ASSERT(!vmwrite(VM_ENTRY_MSR_LOAD_ADDR, lists_gpa));
	GUEST_ASSERT(!vmwrite(VM_ENTRY_MSR_LOAD_COUNT, 1));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_LOAD_ADDR, lists_gpa + sizeof(*lists)));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_LOAD_COUNT, 1));

	set_ctrl(OFF_1);
	run_l2(l2_list_loaded, EXIT_VMCALL);
	assert_ctrl(ON_2);
	GUEST_DONE();
}

TEST_F(nested_pmu, lists_load_after_controls)
{
	start_l1(self->vcpu, l1_loads_twice, self->vmx,
		 addr_gva2gpa(self->vm, (gva_t)entry_and_exit_list));
	assert_done(self->vcpu);
}

/*
 * VM-Entries that fail.  If controls are invalid, nothing is loaded.  KVM leaves a
 * TPR threshold above the TPR to hardware.  If an MSR can't be loaded, what was
 * loaded before stays, unless VM-Exit loads another value, as it does if L2's state
 * is invalid.
 */
static void l1_vmfail(struct vmx_pages *vmx, u64 virtual_apic_gpa)
{
	prepare_l2(vmx);
	set_bits(CPU_BASED_VM_EXEC_CONTROL, CPU_BASED_TPR_SHADOW);
	GUEST_ASSERT(!vmwrite(VIRTUAL_APIC_PAGE_ADDR, virtual_apic_gpa));
	GUEST_ASSERT(!vmwrite(TPR_THRESHOLD, 1));
	load_on_entry(OFF_1);
	load_on_exit(OFF_2);

	set_ctrl(ON_1);
	GUEST_ASSERT(enter_l2(l2_unreachable));
	assert_ctrl(ON_1);

	load_on_entry(ON_2);
	set_ctrl(OFF_1);
	GUEST_ASSERT(enter_l2(l2_unreachable));
	assert_ctrl(OFF_1);

	GUEST_ASSERT(!vmwrite(VM_ENTRY_CONTROLS, vmreadz(VM_ENTRY_CONTROLS) &
			      ~VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL));
	msr_list.index = MSR_CORE_PERF_GLOBAL_CTRL;
	msr_list.value = ON_2;
	GUEST_ASSERT(!vmwrite(VM_ENTRY_MSR_LOAD_ADDR, msr_list_gpa));
	GUEST_ASSERT(!vmwrite(VM_ENTRY_MSR_LOAD_COUNT, 1));
	GUEST_ASSERT(enter_l2(l2_unreachable));
	assert_ctrl(OFF_1);
	GUEST_DONE();
}

TEST_F(nested_pmu, vmfail)
{
	u64 ctls = kvm_get_feature_msr(MSR_IA32_VMX_TRUE_PROCBASED_CTLS) >> 32;

	if (!(ctls & CPU_BASED_TPR_SHADOW))
		SKIP(return, "Nested VMX has no TPR shadow");

	msr_list_gpa = addr_gva2gpa(self->vm, (gva_t)&msr_list);
	sync_global_to_guest(self->vm, msr_list_gpa);
	start_l1(self->vcpu, l1_vmfail, self->vmx,
		 addr_gva2gpa(self->vm, vm_alloc_page(self->vm)));
	assert_done(self->vcpu);
}

static void l1_entry_fails(struct vmx_pages *vmx, u64 list_gpa)
{
	prepare_l2(vmx);
	msr_list.index = MSR_CORE_PERF_GLOBAL_CTRL;
	msr_list.value = BIT_ULL(63);
	GUEST_ASSERT(!vmwrite(VM_ENTRY_MSR_LOAD_ADDR, list_gpa));
	GUEST_ASSERT(!vmwrite(VM_ENTRY_MSR_LOAD_COUNT, 1));

	set_ctrl(ON_1);
	run_l2(l2_unreachable, EXIT_MSR_LOAD_FAIL);
	assert_ctrl(ON_1);

	load_on_entry(ON_2);
	set_ctrl(OFF_1);
	run_l2(l2_unreachable, EXIT_MSR_LOAD_FAIL);
	assert_ctrl(ON_2);

	load_on_exit(OFF_2);
	run_l2(l2_unreachable, EXIT_MSR_LOAD_FAIL);
	assert_ctrl(OFF_2);

	load_on_entry(BIT_ULL(63));
	load_on_exit(ON_1);
	run_l2(l2_unreachable, EXIT_INVALID_STATE);
	assert_ctrl(ON_1);
	GUEST_DONE();
}

TEST_F(nested_pmu, entry_fails)
{
	start_l1(self->vcpu, l1_entry_fails, self->vmx,
		 addr_gva2gpa(self->vm, (gva_t)&msr_list));
	assert_done(self->vcpu);
}

/*
 * SMM interrupts L2.  That isn't a VM-Exit, i.e. SMM runs with L2's value, and L2
 * goes on with that of SMM, whatever VM-Entries and VM-Exits load.
 */
static void l2_interrupted(void)
{
	set_ctrl(ON_1);
	GUEST_SYNC(0);
	assert_ctrl(ON_1);
	set_ctrl(OFF_1);
	GUEST_SYNC(1);
	assert_ctrl(OFF_1);
	/* Userspace writes ON_3 while in SMM. */
	GUEST_SYNC(2);
	assert_ctrl(ON_3);
	vmcall();
}

enum { NO_LOADS, EXIT_LOADS, ENTRY_LOADS, LIST_LOADS };

static void l1_interrupted(struct vmx_pages *vmx, int loads)
{
	u64 want = ON_3;

	prepare_l2(vmx);
	if (loads == ENTRY_LOADS)
		load_on_entry(ON_2);
	if (loads == EXIT_LOADS || loads == ENTRY_LOADS) {
		load_on_exit(OFF_2);
		want = OFF_2;
	}
	if (loads == LIST_LOADS) {
		msr_list.index = MSR_CORE_PERF_GLOBAL_CTRL;
		msr_list.value = OFF_2;
		GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_LOAD_ADDR, msr_list_gpa));
		GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_LOAD_COUNT, 1));
		want = OFF_2;
	}

	set_ctrl(ON_2);
	run_l2(l2_interrupted, EXIT_VMCALL);
	assert_ctrl(want);
	set_ctrl(ON_2);
	assert_ctrl(ON_2);
	GUEST_DONE();
}

static void assert_ctrl_in_smm(struct kvm_vcpu *vcpu, u64 want)
{
	u64 ctrl;

	inject_smi(vcpu);
	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	TEST_ASSERT(vcpu->run->io.port == SMI_PORT, "No SMI, I/O at port 0x%x",
		    vcpu->run->io.port);

	ctrl = vcpu_get_msr(vcpu, MSR_CORE_PERF_GLOBAL_CTRL);
	TEST_ASSERT(ctrl == want, "PERF_GLOBAL_CTRL is 0x%lx in SMM, want 0x%lx",
		    ctrl, want);
}

static void run_smm_test(struct kvm_vcpu *vcpu, gva_t vmx, int loads, bool fewer,
			 bool restore)
{
	struct kvm_vm *vm = vcpu->vm;

	setup_smram(vm, vcpu, SMRAM_GPA, smi_handler, sizeof(smi_handler));
	msr_list_gpa = addr_gva2gpa(vm, (gva_t)&msr_list);
	sync_global_to_guest(vm, msr_list_gpa);

	start_l1(vcpu, l1_interrupted, vmx, loads);
	assert_sync(vcpu, 0);
	assert_ctrl_in_smm(vcpu, ON_1);
	if (restore)
		vcpu = save_and_restore(vcpu, fewer, false);
	assert_sync(vcpu, 1);
	assert_ctrl_in_smm(vcpu, OFF_1);
	if (restore)
		vcpu = save_and_restore(vcpu, fewer, true);
	assert_sync(vcpu, 2);
	assert_ctrl_in_smm(vcpu, OFF_1);
	vcpu_set_msr(vcpu, MSR_CORE_PERF_GLOBAL_CTRL, ON_3);
	assert_done(vcpu);
}

TEST_F(nested_pmu, smm)
{
	if (!kvm_has_cap(KVM_CAP_X86_SMM))
		SKIP(return, "KVM has no SMM");

	run_smm_test(self->vcpu, self->vmx, NO_LOADS, variant->fewer, false);
}

TEST_F(nested_pmu, smm_with_exit_load)
{
	if (!kvm_has_cap(KVM_CAP_X86_SMM))
		SKIP(return, "KVM has no SMM");

	run_smm_test(self->vcpu, self->vmx, EXIT_LOADS, variant->fewer, false);
}

TEST_F(nested_pmu, smm_with_entry_load)
{
	if (!kvm_has_cap(KVM_CAP_X86_SMM))
		SKIP(return, "KVM has no SMM");

	run_smm_test(self->vcpu, self->vmx, ENTRY_LOADS, variant->fewer, false);
}

TEST_F(nested_pmu, smm_with_load_list)
{
	if (!kvm_has_cap(KVM_CAP_X86_SMM))
		SKIP(return, "KVM has no SMM");

	run_smm_test(self->vcpu, self->vmx, LIST_LOADS, variant->fewer, false);
}

TEST_F(nested_pmu, restored_in_smm)
{
	if (!kvm_has_cap(KVM_CAP_X86_SMM))
		SKIP(return, "KVM has no SMM");

	run_smm_test(self->vcpu, self->vmx, ENTRY_LOADS, variant->fewer, true);
}

/*
 * RSM returns to L2, and userspace saves the vCPU before KVM has run L2.  That looks
 * as if VM-Entry was pending.
 */
static void step_out_of_smm(struct kvm_vcpu *vcpu)
{
	struct kvm_guest_debug debug = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
	};
	struct kvm_vcpu_events events;
	int i;

	vcpu_guest_debug_set(vcpu, &debug);
	for (i = 0; i < 4; i++) {
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_DEBUG);
		vcpu_events_get(vcpu, &events);
		if (!events.smi.smm)
			break;
	}
	TEST_ASSERT(!events.smi.smm, "Still in SMM");
	debug.control = 0;
	vcpu_guest_debug_set(vcpu, &debug);
}

static void run_rsm_test(struct kvm_vcpu *vcpu, gva_t vmx, bool fewer, bool msrs_last)
{
	setup_smram(vcpu->vm, vcpu, SMRAM_GPA, smi_handler, sizeof(smi_handler));
	start_l1(vcpu, l1_interrupted, vmx, ENTRY_LOADS);
	assert_sync(vcpu, 0);
	assert_ctrl_in_smm(vcpu, ON_1);
	step_out_of_smm(vcpu);
	vcpu = save_and_restore(vcpu, fewer, msrs_last);
	assert_sync(vcpu, 1);
}

TEST_F(nested_pmu, restored_after_rsm)
{
	if (!kvm_has_cap(KVM_CAP_X86_SMM))
		SKIP(return, "KVM has no SMM");

	run_rsm_test(self->vcpu, self->vmx, variant->fewer, false);
}

TEST_F(nested_pmu, restored_after_rsm_msrs_last)
{
	if (!kvm_has_cap(KVM_CAP_X86_SMM))
		SKIP(return, "KVM has no SMM");

	run_rsm_test(self->vcpu, self->vmx, variant->fewer, true);
}

/* Neither SMM nor userspace that leaves L2 loads what L1 wants VM-Exit to load. */
static void l2_left(void)
{
	set_ctrl(ON_1);
	assert_ctrl(ON_1);
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_FIXED_CTR_CTRL),
			FIXED_PMC_CTRL(0, FIXED_PMC_KERNEL));
	assert_ctrl(ON_1);
	vmcall();
}

static void l1_left(struct vmx_pages *vmx, u64 list_gpa)
{
	prepare_l2(vmx);
	load_on_exit(OFF_2);
	msr_list.index = MSR_CORE_PERF_FIXED_CTR_CTRL;
	msr_list.value = 0;
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_LOAD_ADDR, list_gpa));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_LOAD_COUNT, 1));
	run_l2(l2_left, EXIT_VMCALL);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_FIXED_CTR_CTRL), 0);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL), OFF_2);
	GUEST_DONE();
}

TEST_F(nested_pmu, smm_with_other_msr_in_list)
{
	if (!kvm_has_cap(KVM_CAP_X86_SMM))
		SKIP(return, "KVM has no SMM");

	setup_smram(self->vm, self->vcpu, SMRAM_GPA, smi_handler, sizeof(smi_handler));
	start_l1(self->vcpu, l1_left, self->vmx,
		 addr_gva2gpa(self->vm, (gva_t)&msr_list));
	assert_sync(self->vcpu, 0);
	assert_ctrl_in_smm(self->vcpu, ON_1);
	assert_done(self->vcpu);
}

TEST_F(nested_pmu, userspace_leaves_l2)
{
	struct kvm_nested_state none = {
		.size = sizeof(none),
		.format = KVM_STATE_NESTED_FORMAT_VMX,
		.hdr.vmx.vmxon_pa = -1ull,
		.hdr.vmx.vmcs12_pa = -1ull,
	};

	start_l1(self->vcpu, l1_left, self->vmx,
		 addr_gva2gpa(self->vm, (gva_t)&msr_list));
	assert_sync(self->vcpu, 0);
	vcpu_nested_state_set(self->vcpu, &none);
	TEST_ASSERT_EQ(vcpu_get_msr(self->vcpu, MSR_CORE_PERF_GLOBAL_CTRL), ON_1);
	TEST_ASSERT_EQ(vcpu_get_msr(self->vcpu, MSR_CORE_PERF_FIXED_CTR_CTRL),
		       FIXED_PMC_CTRL(0, FIXED_PMC_KERNEL));
}

/*
 * Userspace changes its MSR filter while L2 is active, for which KVM recalculates
 * what it intercepts.  L1's intercepts stay, and the filter holds for L2 at once.
 */
static void set_msr_filter(struct kvm_vm *vm, u32 denied_msr)
{
	static u8 deny;
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges = {
			{
				.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
				.base = denied_msr,
				.nmsrs = denied_msr ? 1 : 0,
				.bitmap = &deny,
			},
		},
	};

	vm_ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter);
}

static void l2_rdpmc(void)
{
	u64 val;

	GUEST_SYNC(0);
	rdpmc_safe(INTEL_RDPMC_FIXED, &val);
	GUEST_FAIL("L1 intercepts RDPMC, but L2 executed it");
}

static void l1_intercepts_rdpmc(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	set_bits(CPU_BASED_VM_EXEC_CONTROL, CPU_BASED_RDPMC_EXITING);
	run_l2(l2_rdpmc, EXIT_RDPMC);
	GUEST_DONE();
}

TEST_F(nested_pmu, l1_intercepts_rdpmc)
{
	start_l1(self->vcpu, l1_intercepts_rdpmc, self->vmx, 0);
	assert_sync(self->vcpu, 0);
	set_msr_filter(self->vm, 0);
	assert_done(self->vcpu);
}

/* KVM intercepts RDPMC for a counter that the vCPU lacks, even if L1 doesn't. */
static u32 absent_counter;

static void l2_absent_rdpmc(void)
{
	u64 val;

	GUEST_ASSERT_EQ(rdpmc_safe(absent_counter, &val), GP_VECTOR);
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(rdpmc_safe(absent_counter, &val), GP_VECTOR);
	vmcall();
}

static void l1_absent_rdpmc(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	run_l2(l2_absent_rdpmc, EXIT_VMCALL);
	GUEST_DONE();
}

TEST_F(nested_pmu, kvm_intercepts_rdpmc)
{
	absent_counter = kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);
	if (variant->fewer)
		absent_counter--;
	sync_global_to_guest(self->vm, absent_counter);

	start_l1(self->vcpu, l1_absent_rdpmc, self->vmx, 0);
	assert_sync(self->vcpu, 0);
	set_msr_filter(self->vm, 0);
	assert_done(self->vcpu);
}

static void l2_assert_denied(u32 msr, bool denied)
{
	u64 val;
	u8 vector = rdmsr_safe(msr, &val);

	__GUEST_ASSERT(vector == (denied ? GP_VECTOR : 0),
		       "%s on RDMSR(0x%x), which is %s by the filter",
		       ex_str(vector), msr, denied ? "denied" : "allowed");
	vector = wrmsr_safe(msr, 0);
	__GUEST_ASSERT(vector == (denied ? GP_VECTOR : 0),
		       "%s on WRMSR(0x%x), which is %s by the filter",
		       ex_str(vector), msr, denied ? "denied" : "allowed");
}

static u32 filtered_msr;

static void l2_filtered(void)
{
	l2_assert_denied(filtered_msr, false);
	GUEST_SYNC(0);
	l2_assert_denied(filtered_msr, true);
	GUEST_SYNC(1);
	l2_assert_denied(filtered_msr, false);

	/* L1 intercepts it. */
	rdmsr(MSR_FS_BASE);
	GUEST_FAIL("L1 intercepts RDMSR, but L2 executed it");
}

static void l1_filtered(struct vmx_pages *vmx)
{
	u32 bit = MSR_FS_BASE & 0x1fff;

	prepare_l2(vmx);
	((u8 *)vmx->msr)[0x400 + bit / 8] |= BIT(bit % 8);
	run_l2(l2_filtered, EXIT_MSR_READ);
	l2_assert_denied(filtered_msr, false);
	GUEST_DONE();
}

static void run_filter_test(struct kvm_vcpu *vcpu, gva_t vmx, u32 msr)
{
	struct kvm_vm *vm = vcpu->vm;

	filtered_msr = msr;
	sync_global_to_guest(vm, filtered_msr);
	start_l1(vcpu, l1_filtered, vmx, 0);
	assert_sync(vcpu, 0);
	set_msr_filter(vm, msr);
	assert_sync(vcpu, 1);
	set_msr_filter(vm, 0);
	assert_done(vcpu);
}

TEST_F(nested_pmu, msr_filter)
{
	run_filter_test(self->vcpu, self->vmx, MSR_KERNEL_GS_BASE);
}

TEST_F(nested_pmu, msr_filter_counter)
{
	run_filter_test(self->vcpu, self->vmx, MSR_CORE_PERF_FIXED_CTR0);
}

/* L1 uses its MSR bitmap for an L2, then none, i.e. intercepts all MSRs. */
static void l2_with_bitmap(void)
{
	rdmsr(MSR_FS_BASE);
	vmcall();
}

static void l2_without_bitmap(void)
{
	GUEST_SYNC(0);
	rdmsr(MSR_FS_BASE);
	GUEST_FAIL("L1 intercepts all MSRs, but L2 executed RDMSR");
}

static void l1_without_bitmap(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	run_l2(l2_with_bitmap, EXIT_VMCALL);
	GUEST_ASSERT(!vmwrite(CPU_BASED_VM_EXEC_CONTROL,
			      vmreadz(CPU_BASED_VM_EXEC_CONTROL) &
			      ~CPU_BASED_USE_MSR_BITMAPS));
	run_l2(l2_without_bitmap, EXIT_MSR_READ);
	GUEST_DONE();
}

TEST_F(nested_pmu, filter_without_msr_bitmap)
{
	start_l1(self->vcpu, l1_without_bitmap, self->vmx, 0);
	assert_sync(self->vcpu, 0);
	set_msr_filter(self->vm, 0);
	assert_done(self->vcpu);
}

/*
 * KVM stores TSC at VM-Exit if L1 wants to have it, next to PERF_GLOBAL_CTRL if
 * the CPU can't save that into the VMCS.
 */
static void l2_stores_tsc(void)
{
	set_ctrl(ON_1);
	GUEST_SYNC(0);
	assert_ctrl(ON_1);
	vmcall();
}

static void l1_stores_tsc(struct vmx_pages *vmx, u64 list_gpa)
{
	u64 before, after;
	int i;

	prepare_l2(vmx);
	msr_list.index = MSR_IA32_TSC;
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_STORE_ADDR, list_gpa));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_STORE_COUNT, 1));

	for (i = 0; i < 2; i++) {
		msr_list.value = 0;
		set_ctrl(OFF_1);
		before = rdtsc();
		run_l2(l2_stores_tsc, EXIT_VMCALL);
		after = rdtsc();
		__GUEST_ASSERT(msr_list.value >= before && msr_list.value <= after,
			       "TSC stored by VM exit is 0x%lx, want it from 0x%lx to 0x%lx",
			       msr_list.value, before, after);
		assert_ctrl(ON_1);
	}
	GUEST_DONE();
}

static void start_tsc_test(struct kvm_vcpu *vcpu, gva_t vmx)
{
	start_l1(vcpu, l1_stores_tsc, vmx, addr_gva2gpa(vcpu->vm, (gva_t)&msr_list));
}

TEST_F(nested_pmu, exit_stores_tsc)
{
	start_tsc_test(self->vcpu, self->vmx);
	while (run_to_sync(self->vcpu) != -1)
		;
}

TEST_F(nested_pmu, exit_stores_tsc_after_restore)
{
	start_tsc_test(self->vcpu, self->vmx);
	run_with_restores(self->vcpu, variant->fewer, false);
}

TEST_F(nested_pmu, exit_stores_tsc_after_restore_msrs_last)
{
	start_tsc_test(self->vcpu, self->vmx);
	run_with_restores(self->vcpu, variant->fewer, true);
}

/* INIT leaves the PMU alone.  In L2 it is a VM-Exit, which loads what L1 wants. */

static void send_init(void)
{
	x2apic_enable();
	x2apic_write_reg(APIC_ICR, APIC_DEST_PHYSICAL | APIC_INT_ASSERT | APIC_DM_INIT);
	GUEST_DONE();
}

static void l1_gets_init(void)
{
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, FIXED_PMC_CTRL(0, FIXED_PMC_KERNEL));
	set_ctrl(ON_1);
	assert_ctrl(ON_1);
	GUEST_SYNC(0);
	assert_ctrl(ON_1);
	GUEST_DONE();
}

TEST_F(nested_pmu, init)
{
	struct kvm_vcpu *sender = vm_vcpu_add(self->vm, 1, send_init);
	struct kvm_mp_state mp_state;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	u64 counter;

	start_l1(self->vcpu, l1_gets_init, 0, 0);
	assert_sync(self->vcpu, 0);

	vcpu_mp_state_get(self->vcpu, &mp_state);
	vcpu_sregs_get(self->vcpu, &sregs);
	vcpu_regs_get(self->vcpu, &regs);
	assert_done(sender);

	/* Perf counts a thread's vCPUs together, i.e. the sender's work as well. */
	counter = vcpu_get_msr(self->vcpu, MSR_CORE_PERF_FIXED_CTR0);

	/* Getting the state has KVM process the INIT. */
	vcpu_mp_state_get(self->vcpu, &(struct kvm_mp_state){});
	vcpu_regs_get(self->vcpu, &(struct kvm_regs){});
	TEST_ASSERT_EQ(vcpu_get_msr(self->vcpu, MSR_CORE_PERF_FIXED_CTR0), counter);
	TEST_ASSERT_EQ(vcpu_get_msr(self->vcpu, MSR_CORE_PERF_GLOBAL_CTRL), ON_1);

	/* In lieu of getting back to 64-bit mode. */
	vcpu_sregs_set(self->vcpu, &sregs);
	vcpu_regs_set(self->vcpu, &regs);
	vcpu_mp_state_set(self->vcpu, &mp_state);
	assert_done(self->vcpu);
}

static void l2_gets_init(void)
{
	set_ctrl(ON_1);
	assert_ctrl(ON_1);
	GUEST_SYNC(0);
	GUEST_FAIL("L2 survived INIT");
}

static void l1_gets_init_exit(struct vmx_pages *vmx, bool load)
{
	prepare_l2(vmx);
	if (load)
		load_on_exit(OFF_2);
	run_l2(l2_gets_init, EXIT_INIT);
	assert_ctrl(load ? OFF_2 : ON_1);
	GUEST_DONE();
}

static void run_init_in_l2(struct kvm_vcpu *vcpu, gva_t vmx, bool load)
{
	struct kvm_vcpu *sender = vm_vcpu_add(vcpu->vm, 1, send_init);

	start_l1(vcpu, l1_gets_init_exit, vmx, load);
	assert_sync(vcpu, 0);
	assert_done(sender);
	assert_done(vcpu);
}

TEST_F(nested_pmu, init_in_l2)
{
	run_init_in_l2(self->vcpu, self->vmx, false);
}

TEST_F(nested_pmu, init_in_l2_with_exit_load)
{
	run_init_in_l2(self->vcpu, self->vmx, true);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_VMX));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_NESTED_STATE));
	TEST_REQUIRE(kvm_is_pmu_enabled());
	TEST_REQUIRE(!kvm_is_ignore_msrs());
	TEST_REQUIRE(kvm_cpu_has_p(X86_PROPERTY_PMU_VERSION));
	TEST_REQUIRE(kvm_cpu_property(X86_PROPERTY_PMU_VERSION) >= 2);
	TEST_REQUIRE(kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS) >= 3);
	TEST_REQUIRE(kvm_cpu_property(X86_PROPERTY_PMU_NR_FIXED_COUNTERS) >= 1);
	TEST_REQUIRE(nested_can_load_ctrl());

	return test_harness_run(argc, argv);
}
