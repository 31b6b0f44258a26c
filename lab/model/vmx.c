// SPDX-License-Identifier: GPL-2.0
/*
 * Between guest and hypervisor: VM entries and VM exits, what these load and
 * save, and when a guest's life ends.
 *
 * A guest's identity is an address, and can be used again.  A life ends when
 * the identity enters by VMLAUNCH on a VMCS that was never entered, while the
 * VMCS that it left from has been cleared.  A new vCPU has a new VMCS, and the old
 * one was cleared before its memory went.  The second VMCS of a vCPU, for
 * nested guests, is also new once, but then the first one is still launched.
 * (If that vCPU moves to another CPU in exactly that moment, one comparison is
 * missed.)  What a dead guest left in registers is nobody else's, whoever
 * has its identity now.
 */
#include "internal.h"

void pmu_set_switching(struct pmu *pmu, bool switching)
{
	pmu->switching = switching;
}

uint64_t pmu_global_ctrl(struct pmu *pmu)
{
	pmu->accesses.msr[STORED][MSR_GLOBAL_CTRL]++;
	return pmu->global_ctrl;
}

bool pmu_global_ctrl_valid(const struct pmu *pmu, uint64_t value)
{
	return !(value & ~pmu->counter_bits);
}

void pmu_set_global_ctrl(struct pmu *pmu, uint64_t value)
{
	pmu->accesses.msr[LOADED][MSR_GLOBAL_CTRL]++;
	pmu->global_ctrl = value;
	pmu_configure(pmu);
}

static void end_life(struct pmu *pmu, struct guest *guest)
{
	struct pmu *other;

	conserve_end(pmu, guest);
	for (other = pmu->machine->registry->pmus; other; other = other->next)
		audit_depart(other, guest->owner);
}

void pmu_vmclear(struct pmu *pmu, uint64_t vmcs)
{
	struct guest *guest;

	if (!pmu)
		return;
	for (guest = pmu->machine->registry->guests; guest; guest = guest->next) {
		if (guest->vmcs == vmcs)
			guest->cleared = true;
	}
}

void pmu_vmentry(struct pmu *pmu, const struct pmu_entry *entry)
{
	struct guest *guest = pmu->account->guest;

	pmu->accesses.entries++;
	if (!guest)
		return;
	if (entry->launch && entry->fresh && guest->cleared)
		end_life(pmu, guest);
	if (guest->away)
		conserve_compare(pmu, guest);
	if (entry->launch && entry->owned & pmu->counter_bits & ~guest->owned)
		conserve_give(pmu, guest, entry->owned);
	guest->away = false;
}

/*
 * GLOBAL_CTRL and the list of MSRs to store are read by the CPU after this,
 * for the hypervisor: see audit_read().
 */
void pmu_vmexit(struct pmu *pmu, const struct pmu_exit *exit)
{
	struct guest *guest = pmu->account->guest;

	if (!pmu->context.nonroot)
		return;
	access_exit(pmu, exit->reason);
	pmu->leaving = true;
	if (!guest)
		return;
	guest->vmcs = pmu->context.vmcs;
	guest->cleared = false;
	conserve_leave(pmu, guest, exit);
}
