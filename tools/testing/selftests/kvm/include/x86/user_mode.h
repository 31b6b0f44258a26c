/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What guest code needs to execute something at CPL 3.  The library's guests run at
 * CPL 0 only: there are no segments for user mode, no stack for the way back, and
 * no page that user mode may touch.
 */
#ifndef SELFTEST_KVM_USER_MODE_H
#define SELFTEST_KVM_USER_MODE_H

#include "kvm_util.h"
#include "processor.h"

/* Two entries of the GDT that the library leaves free, and its code segment. */
#define USER_CS		(0x28 | 3)
#define USER_DS		(0x30 | 3)
#define KERNEL_CS	0x8

/* 64-bit code and data segments of DPL 3, present, flat, accessed. */
#define USER_CS_DESC	0x00affb000000ffffull
#define USER_DS_DESC	0x00cff3000000ffffull

/* SDM, "64-Bit Mode Task State Segment": RSP0 is at offset 4. */
#define TSS_RSP0	4

static inline void map_for_user(struct kvm_vm *vm, gva_t gva)
{
	u64 *table = addr_gpa2hva(vm, vm->mmu.pgd);
	int level;
	u64 *pte;

	for (level = vm->mmu.pgtable_levels; level > 0; level--) {
		pte = &table[(gva >> PG_LEVEL_SHIFT(level)) & 0x1ff];
		*pte |= PTE_USER_MASK(&vm->mmu);
		if (level > 1)
			table = addr_gpa2hva(vm, PTE_GET_PA(*pte));
	}
}

/* Let IRETQ to USER_CS execute the page at @code; #GP and #UD end in @handler. */
static inline void prepare_user_mode(struct kvm_vm *vm, void *code,
				     void (*handler)(struct ex_regs *))
{
	u64 *gdt = addr_gva2hva(vm, vm->arch.gdt);
	void *tss = addr_gva2hva(vm, vm->arch.tss);
	u64 rsp0 = vm_alloc_page(vm) + getpagesize();

	gdt[USER_CS >> 3] = USER_CS_DESC;
	gdt[USER_DS >> 3] = USER_DS_DESC;
	memcpy(tss + TSS_RSP0, &rsp0, sizeof(rsp0));
	map_for_user(vm, (gva_t)code);
	vm_install_exception_handler(vm, GP_VECTOR, handler);
	vm_install_exception_handler(vm, UD_VECTOR, handler);
}

#endif /* SELFTEST_KVM_USER_MODE_H */
