// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that does nothing but leave: VM exits by the dozen thousand, for the
 * speed of the emulator (lab/bench/speed). Nothing here needs a PMU, so that it
 * runs where there is none.
 *
 *	exits [NUMBER]
 *
 * Most exits are CPUID, which KVM handles; each eighth is an OUT for userspace.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kvm_util.h"
#include "processor.h"

#define EXITS	40000
#define PORT	0x80	/* nobody is there: userspace is told of each OUT */

static void guest_code(u64 exits)
{
	u32 eax, ecx;
	u64 i;

	for (i = 1; i < exits; i++) {
		if (i % 8) {
			eax = ecx = 0;
			asm volatile("cpuid" : "+a"(eax), "+c"(ecx) : : "ebx", "edx");
		} else {
			asm volatile("outb %%al, %0" : : "N"(PORT), "a"(0));
		}
	}
	GUEST_DONE();
}

int main(int argc, char **argv)
{
	u64 exits = argc > 1 ? strtoull(argv[1], NULL, 0) : EXITS;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct ucall uc;
	u64 outs = 0;

	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	vcpu_args_set(vcpu, 1, exits);
	do {
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
		outs += vcpu->run->io.port == PORT;
	} while (vcpu->run->io.port == PORT);
	TEST_ASSERT(get_ucall(vcpu, &uc) == UCALL_DONE, "The guest did not end");
	kvm_vm_free(vm);
	TEST_ASSERT(outs == (exits - 1) / 8, "%lu exits to userspace, expected %lu",
		    outs, (exits - 1) / 8);
	printf("exits: %lu\n", exits);
	return 0;
}
