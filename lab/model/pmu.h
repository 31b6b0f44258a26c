/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The performance monitoring unit of one logical CPU, as a model in C.
 *
 * An emulator owns a struct pmu per logical CPU.  It counts work (retired
 * instructions, mispredicted branches, ...) in the cheapest way it can and
 * hands the model the difference since the last time, at sync points only:
 * before an access to a PMU register, before the privilege level or the VMX
 * operation changes, and when the deadline that the model asked for is due.
 * The order is always
 *
 *	pmu_advance()		the work up to here, in the old context
 *	pmu_set_context(), pmu_wrmsr(), ...	then the change
 *
 * so an instruction that changes the PMU's configuration retires under the
 * old one, as on hardware.
 *
 * The model knows nothing of the emulator and uses nothing but C11.
 */
#ifndef LAB_MODEL_PMU_H
#define LAB_MODEL_PMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PMU_MAX_GP		8
#define PMU_MAX_FIXED		16
#define PMU_MAX_METRICS		8

/* Work that the emulator counts.  Every entry is a plain monotonic count. */
enum pmu_work {
	PMU_WORK_INSTRUCTION,	/* instructions retired */
	PMU_WORK_EXTRA_UOP,	/* micro-ops beyond one per instruction (REP iterations) */
	PMU_WORK_BRANCH,	/* branch instructions retired, taken or not */
	PMU_WORK_BRANCH_MISS,	/* of those, mispredicted */
	PMU_WORK_FETCH_MISS,	/* instruction cache line misses */
	PMU_WORK_PAGE_WALK,	/* data TLB misses that walked the page tables */
	PMU_WORK_LINE_FLUSH,	/* cache lines flushed (CLFLUSH, CLFLUSHOPT) */
	PMU_WORK_REFERENCE,	/* TSC ticks while not halted */
	PMU_NR_WORK
};

/* Where a slot goes: level 1 first, then the parts of it that level 2 names. */
enum pmu_slot {
	PMU_SLOT_RETIRING,
	PMU_SLOT_BAD_SPEC,
	PMU_SLOT_FE_BOUND,
	PMU_SLOT_BE_BOUND,
	PMU_SLOT_HEAVY_OPS,	/* part of retiring */
	PMU_SLOT_BR_MISPREDICT,	/* part of bad speculation */
	PMU_SLOT_FETCH_LATENCY,	/* part of frontend bound */
	PMU_SLOT_MEM_BOUND,	/* part of backend bound */
	PMU_NR_SLOT
};

/* Outcome of a register access. */
enum pmu_result {
	PMU_OK,
	PMU_GP,			/* the instruction takes #GP(0) */
	PMU_NOT_MINE,		/* not a register of the PMU */
};

/**
 * struct pmu_context - who runs
 * @cpl: current privilege level, 0 to 3
 * @nonroot: in VMX non-root operation
 * @owner: identity of the guest in non-root operation, 0 otherwise.  A guest
 *	   and its nested guests share one identity, because the hypervisor
 *	   lets them share the hardware PMU.
 * @vmcs: physical address of the current VMCS in non-root operation
 * @rip: instruction pointer, for the log only
 */
struct pmu_context {
	unsigned int cpl;
	bool nonroot;
	uint64_t owner;
	uint64_t vmcs;
	uint64_t rip;
};

/**
 * struct pmu_entry - what is new with a VM entry
 * @launch: it was VMLAUNCH; the others mean something only then
 * @fresh: this VMCS was never entered before
 * @owned: registers that the guest reads without VM exit, bits as in
 *	   IA32_PERF_GLOBAL_CTRL, bit 48 for IA32_PERF_METRICS
 */
struct pmu_entry {
	bool launch;
	bool fresh;
	uint64_t owned;
};

/**
 * struct pmu_exit - why a guest leaves
 * @reason: basic exit reason (SDM vol. 3, appendix C)
 * @vector: of the exception, if that is the reason
 * @msr: ECX, the register of RDMSR and WRMSR
 * @value: EDX:EAX, the value of WRMSR
 * @rip: where the guest will resume, or the instruction that it left at
 */
struct pmu_exit {
	unsigned int reason;
	unsigned int vector;
	uint32_t msr;
	uint64_t value;
	uint64_t rip;
};

struct pmu;
struct pmu_machine;

/**
 * struct pmu_ops - what the model asks of the emulator
 * @pmi: deliver the performance monitoring interrupt through LVTPC
 * @lvtpc: LVTPC, as the local APIC reads it
 * @deadline: call pmu_advance() after at most @instructions more retired
 *	      instructions; 0 means nothing is due
 * @emit: append one line of JSON (without newline) to the truth file
 */
struct pmu_ops {
	void (*pmi)(void *opaque);
	uint32_t (*lvtpc)(void *opaque);
	void (*deadline)(void *opaque, uint64_t instructions);
	void (*emit)(void *opaque, const char *json);
};

/* Machine description (machine.c). */

/**
 * pmu_machine_parse() - read the "pmu." keys of a machine description
 * @text: the file's content, NUL terminated; lines of "key = value" and "#"
 * @error: buffer for one line that says what is wrong and where
 * @error_size: its size in bytes
 *
 * Keys outside the "pmu." and "name" name space are not the model's and are
 * ignored; an unknown "pmu." key is an error.
 *
 * Return: a machine to be freed with pmu_machine_free(), or NULL with @error
 * filled in.
 */
struct pmu_machine *pmu_machine_parse(const char *text, char *error,
				      size_t error_size);
void pmu_machine_free(struct pmu_machine *machine);

/** pmu_machine_name() - the machine's name, as given in its description */
const char *pmu_machine_name(const struct pmu_machine *machine);

/** pmu_machine_saves_global_ctrl() - has VM-exit control "save IA32_PERF_GLOBAL_CTRL" */
bool pmu_machine_saves_global_ctrl(const struct pmu_machine *machine);

/** pmu_machine_cpuid() - CPUID leaf 0xA in @regs as EAX, EBX, ECX, EDX */
void pmu_machine_cpuid(const struct pmu_machine *machine, uint32_t regs[4]);

/** pmu_machine_has_pdcm() - CPUID.1:ECX.PDCM, IA32_PERF_CAPABILITIES exists */
bool pmu_machine_has_pdcm(const struct pmu_machine *machine);

/* One logical CPU (pmu.c). */

/**
 * pmu_create() - make the PMU of one logical CPU
 * @machine: description, must outlive the PMU
 * @cpu: number of the logical CPU; a description can differ per CPU
 * @ops: callbacks, must outlive the PMU
 * @opaque: passed to the callbacks
 *
 * Return: the PMU in its reset state, or NULL when memory is short.
 */
struct pmu *pmu_create(const struct pmu_machine *machine, unsigned int cpu,
		       const struct pmu_ops *ops, void *opaque);
void pmu_destroy(struct pmu *pmu);

/** pmu_reset() - power-on reset; the ground truth is kept */
void pmu_reset(struct pmu *pmu);

/**
 * pmu_advance() - account work in the current context
 * @pmu: the PMU
 * @delta: work since the last call, by enum pmu_work
 *
 * Counts it, attributes slots, detects overflow, asks for PMIs and sets the
 * next deadline.
 */
void pmu_advance(struct pmu *pmu, const uint64_t delta[PMU_NR_WORK]);

/** pmu_set_context() - the context that work from now on belongs to */
void pmu_set_context(struct pmu *pmu, const struct pmu_context *context);

/**
 * pmu_vmclear() - VMCLEAR ran on a VMCS
 * @pmu: the PMU of any CPU
 * @vmcs: physical address of the VMCS
 */
void pmu_vmclear(struct pmu *pmu, uint64_t vmcs);

/**
 * pmu_vmentry() - a VM entry is complete, pmu_set_context() has told of whom
 *
 * Compares what the guest finds with what it left (conserve.c).
 */
void pmu_vmentry(struct pmu *pmu, const struct pmu_entry *entry);

/**
 * pmu_vmexit() - a VM exit begins: nothing has changed, the work is told
 *
 * Until pmu_set_context() tells that it is over, registers are read by the
 * CPU, for the hypervisor (VM-exit MSR-store area).
 */
void pmu_vmexit(struct pmu *pmu, const struct pmu_exit *exit);

/** pmu_set_switching() - from now on a VM entry or VM exit, not software, accesses MSRs */
void pmu_set_switching(struct pmu *pmu, bool switching);

/** pmu_vmcs_field() - VMREAD or, with @write, VMWRITE of a field in VMX root operation */
void pmu_vmcs_field(struct pmu *pmu, uint32_t field, bool write);

/** pmu_pmi_taken() - the CPU takes the interrupt that the last PMI became */
void pmu_pmi_taken(struct pmu *pmu);

/**
 * pmu_rdmsr() - read a register of the PMU
 * @pmu: the PMU, advanced to this instruction
 * @msr: MSR number
 * @value: result, written only when PMU_OK is returned
 */
enum pmu_result pmu_rdmsr(struct pmu *pmu, uint32_t msr, uint64_t *value);

/** pmu_wrmsr() - write a register of the PMU; see pmu_rdmsr() */
enum pmu_result pmu_wrmsr(struct pmu *pmu, uint32_t msr, uint64_t value);

/**
 * pmu_rdpmc() - RDPMC after the privilege check
 * @pmu: the PMU, advanced to this instruction
 * @ecx: counter selector; type in 31:16, index in 15:0 (SDM vol. 2, RDPMC)
 * @value: result, written only when PMU_OK is returned
 */
enum pmu_result pmu_rdpmc(struct pmu *pmu, uint32_t ecx, uint64_t *value);

/** pmu_global_ctrl() - IA32_PERF_GLOBAL_CTRL, for the VM-exit save */
uint64_t pmu_global_ctrl(struct pmu *pmu);

/** pmu_global_ctrl_valid() - no reserved bit set, for VM-entry checks */
bool pmu_global_ctrl_valid(const struct pmu *pmu, uint64_t value);

/** pmu_set_global_ctrl() - VM-entry or VM-exit load of a checked value */
void pmu_set_global_ctrl(struct pmu *pmu, uint64_t value);

/** pmu_set_freeze_on_pmi() - IA32_DEBUGCTL.FREEZE_PERFMON_ON_PMI (bit 12) */
void pmu_set_freeze_on_pmi(struct pmu *pmu, bool freeze);

/* Ground truth (truth.c). */

/*
 * Ids of marks that the host's process 1 makes when program n of its plan, from
 * 0, begins (2 n above this number) and ends (2 n + 1).  They have to fit into 63
 * bits, or not every reader of JSON takes them.
 */
#define PMU_SECTION		((uint64_t)1 << 62)

/** pmu_mark() - guest or host code executed the mark instruction with @id */
void pmu_mark(struct pmu *pmu, uint64_t id);

/** pmu_snapshot() - at a mark of any CPU: what every owner did on this one */
void pmu_snapshot(struct pmu *pmu, uint64_t id);

/** pmu_emit_totals() - write the "total" lines of this CPU, at power off */
void pmu_emit_totals(struct pmu *pmu);

#ifdef __cplusplus
}
#endif

#endif /* LAB_MODEL_PMU_H */
