// SPDX-License-Identifier: GPL-2.0
/*
 * What a VM exit stores of the TSC in its list of MSRs is the TSC itself: the TSC offset is for
 * what the guest reads (SDM volume 3, "Use TSC offsetting"). KVM counts on that for a guest
 * that has a list in turn: it has the CPU store the TSC when the nested guest leaves, and adds
 * the offset of the guest.
 *
 * Skips where KVM has no nested VMX.
 */
#include <stdio.h>

#include "kvm_util.h"
#include "processor.h"
#include "vmx.h"

#define L2_OFFSET	BIT_ULL(40)

/* An entry of the list, SDM table "Format of an MSR Entry". */
struct entry {
	u32 index;
	u32 reserved;
	u64 value;
};

static struct entry list[1] __aligned(16);

static void l2_code(void)
{
	for (;;)
		asm volatile("vmcall");
}

/* One run of L2, with or without a TSC offset of its own. */
static void run_l2(bool launched, u64 offset)
{
	u64 before, after;

	GUEST_ASSERT(!vmwrite(TSC_OFFSET, offset));
	list[0] = (struct entry) { .index = MSR_IA32_TSC };
	before = rdtsc();
	GUEST_ASSERT(!(launched ? vmresume() : vmlaunch()));
	after = rdtsc();
	GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON), EXIT_REASON_VMCALL);
	GUEST_ASSERT(!vmwrite(GUEST_RIP, vmreadz(GUEST_RIP) + vmreadz(VM_EXIT_INSTRUCTION_LEN)));
	GUEST_PRINTF("offset %lx: %lx stored between %lx and %lx\n", offset, list[0].value,
		     before, after);
	__GUEST_ASSERT(before < list[0].value && list[0].value < after,
		       "0x%lx stored, not between 0x%lx and 0x%lx", list[0].value, before, after);
}

static void l1_code(struct vmx_pages *vmx, u64 list_gpa)
{
	u64 control;

	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
	prepare_vmcs(vmx, l2_code);
	control = vmreadz(CPU_BASED_VM_EXEC_CONTROL);
	GUEST_ASSERT(!vmwrite(CPU_BASED_VM_EXEC_CONTROL, control | CPU_BASED_USE_TSC_OFFSETTING));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_STORE_ADDR, list_gpa));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_STORE_COUNT, 1));
	run_l2(false, 0);
	run_l2(true, L2_OFFSET);
	GUEST_DONE();
}

int main(void)
{
	struct kvm_vcpu *vcpu;
	struct ucall uc;
	struct kvm_vm *vm;
	gva_t vmx_gva;

	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_VMX));
	vm = vm_create_with_one_vcpu(&vcpu, l1_code);
	vcpu_alloc_vmx(vm, &vmx_gva);
	vcpu_args_set(vcpu, 2, vmx_gva, addr_gva2gpa(vm, (gva_t)list));
	do {
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
		switch (get_ucall(vcpu, &uc)) {
		case UCALL_PRINTF:
			printf("%s", uc.buffer);
			break;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
		}
	} while (uc.cmd != UCALL_DONE);
	kvm_vm_free(vm);
	return 0;
}
