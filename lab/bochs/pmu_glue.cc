/////////////////////////////////////////////////////////////////////////
// SPDX-License-Identifier: GPL-2.0
/////////////////////////////////////////////////////////////////////////

#define NEED_CPU_REG_SHORTCUTS 1
#include "bochs.h"
#include "cpu.h"
#include "cpuid.h"
#include "msr.h"
#include "param_names.h"
#include "gui/siminterface.h"
#include "pc_system.h"
#define LOG_THIS BX_CPU_THIS_PTR

#if BX_SUPPORT_APIC
#include "apic.h"
#endif

static struct pmu_machine *machine;
static FILE *truth;

static void BX_CPP_AttrNoReturn() pmu_quit(const char *path, const char *why)
{
  fprintf(stderr, "pmu: %s: %s\n", path, why);
  exit(2);
}

/////////////////////////////////////////////////////////////////////////
// What the model asks for
/////////////////////////////////////////////////////////////////////////

static void pmu_op_pmi(void *cpu)
{
  ((BX_CPU_C *) cpu)->pmu_interrupt();
}

static uint32_t pmu_op_lvtpc(void *cpu)
{
#if BX_SUPPORT_APIC
  return ((BX_CPU_C *) cpu)->lapic->get_perfmon_lvt();
#else
  return 0x10000; // masked
#endif
}

static void pmu_op_deadline(void *cpu, uint64_t instructions)
{
  ((BX_CPU_C *) cpu)->pmu_set_deadline(instructions);
}

static void pmu_op_emit(void *cpu, const char *json)
{
  if (truth) fprintf(truth, "%s\n", json);
}

static const struct pmu_ops pmu_ops = {
  pmu_op_pmi, pmu_op_lvtpc, pmu_op_deadline, pmu_op_emit
};

static void pmu_timer(void *cpu)
{
  ((BX_CPU_C *) cpu)->pmu_deadline_due();
}

/////////////////////////////////////////////////////////////////////////
// Start and end
/////////////////////////////////////////////////////////////////////////

static struct pmu_machine *pmu_load_machine(const char *path)
{
  static char text[65536];
  char error[256];

  FILE *file = fopen(path, "r");
  if (! file) pmu_quit(path, strerror(errno));
  size_t size = fread(text, 1, sizeof(text), file);
  fclose(file);
  if (size == sizeof(text)) pmu_quit(path, "too long for a machine description");
  text[size] = 0;

  struct pmu_machine *m = pmu_machine_parse(text, error, sizeof(error));
  if (! m) pmu_quit(path, error);
  return m;
}

static void pmu_open(void)
{
  if (machine) return;

  const char *path = SIM->get_param_string(BXPN_PMU_MACHINE)->getptr();
  if (! path[0]) return;
  machine = pmu_load_machine(path);

  path = SIM->get_param_string(BXPN_PMU_TRUTH)->getptr();
  if (! path[0]) return;
  truth = fopen(path, "w");
  if (! truth) pmu_quit(path, strerror(errno));
  setvbuf(truth, NULL, _IOLBF, BUFSIZ);
}

void BX_CPU_C::pmu_init(void)
{
  memset(&BX_CPU_THIS_PTR pmu, 0, sizeof(BX_CPU_THIS_PTR pmu));

  pmu_open();
  if (! machine) return;

  Bit32u leaf[4];
  pmu_machine_cpuid(machine, leaf);

  // perfmon version 2 brought IA32_PERF_GLOBAL_CTRL
  BX_CPU_THIS_PTR vmx_extensions_bitmask &= ~(BX_VMX_PERF_GLOBAL_CTRL | BX_VMX_SAVE_PERF_GLOBAL_CTRL);
  if ((leaf[0] & 0xff) >= 2)
    BX_CPU_THIS_PTR vmx_extensions_bitmask |= BX_VMX_PERF_GLOBAL_CTRL;
  if (pmu_machine_saves_global_ctrl(machine))
    BX_CPU_THIS_PTR vmx_extensions_bitmask |= BX_VMX_SAVE_PERF_GLOBAL_CTRL;

  BX_CPU_THIS_PTR pmu.timer = bx_pc_system.register_timer_ticks(this, pmu_timer, 1, 0, 0, "pmu");

  BX_CPU_THIS_PTR pmu.model = pmu_create(machine, BX_CPU_ID, &pmu_ops, this);
  if (! BX_CPU_THIS_PTR pmu.model) pmu_quit(pmu_machine_name(machine), "out of memory");
}

// Called before icount starts again from 0
void BX_CPU_C::pmu_reset_begin(unsigned source)
{
  pmu_sync(BX_PMU_NOT_YET);
  if (source != BX_RESET_HARDWARE) return; // INIT leaves the PMU alone

  BX_CPU_THIS_PTR pmu.icount_before_reset += BX_CPU_THIS_PTR icount;
  BX_CPU_THIS_PTR pmu.debugctl = 0;
  if (BX_CPU_THIS_PTR pmu.model) pmu_reset(BX_CPU_THIS_PTR pmu.model);
}

void BX_CPU_C::pmu_atexit(void)
{
  if (! BX_CPU_THIS_PTR pmu.model) return;

  pmu_sync(BX_PMU_NOT_YET);
  pmu_emit_totals(BX_CPU_THIS_PTR pmu.model);
  pmu_destroy(BX_CPU_THIS_PTR pmu.model);
  BX_CPU_THIS_PTR pmu.model = NULL;
  if (truth) fflush(truth);
}

/////////////////////////////////////////////////////////////////////////
// Work and contexts
/////////////////////////////////////////////////////////////////////////

// Tells the model of all work up to here.  An instruction that changes a
// context or the PMU's configuration retires under the old one, before Bochs
// counts it: then in_flight counts it now.  It cannot be counted twice, since
// the counts told never go back.
void BX_CPU_C::pmu_sync(unsigned in_flight)
{
  if (! BX_CPU_THIS_PTR pmu.model) return;

  bx_cpu_work_c *w = &BX_CPU_THIS_PTR work;
  Bit64u ticks = BX_CPU_THIS_PTR pmu.icount_before_reset + BX_CPU_THIS_PTR icount;
  Bit64u now[PMU_NR_WORK], delta[PMU_NR_WORK];

  if (BX_CPU_THIS_PTR pmu.unwinding) in_flight = BX_PMU_NOT_YET;

  now[PMU_WORK_INSTRUCTION] = ticks - w->empty_ticks + (in_flight != BX_PMU_NOT_YET);
  now[PMU_WORK_EXTRA_UOP] = w->repeats;
  now[PMU_WORK_BRANCH] = w->branches + (in_flight == BX_PMU_RETIRES_BRANCH);
  now[PMU_WORK_BRANCH_MISS] = w->branch_misses;
  now[PMU_WORK_FETCH_MISS] = w->fetch_misses;
  now[PMU_WORK_PAGE_WALK] = w->page_walks;
  now[PMU_WORK_LINE_FLUSH] = w->line_flushes;
  // one tick of the TSC is one of icount, except while the CPU is halted,
  // where icount stands still, and in fast string instructions
  now[PMU_WORK_REFERENCE] = ticks + w->fast_repeats;

  for (unsigned n = 0; n < PMU_NR_WORK; n++) {
    delta[n] = 0;
    if (now[n] > BX_CPU_THIS_PTR pmu.synced[n]) {
      delta[n] = now[n] - BX_CPU_THIS_PTR pmu.synced[n];
      BX_CPU_THIS_PTR pmu.synced[n] = now[n];
    }
  }

  pmu_advance(BX_CPU_THIS_PTR pmu.model, delta);
}

// From now on work belongs to the mode that the CPU is in now
void BX_CPU_C::pmu_enter_context(void)
{
  if (! BX_CPU_THIS_PTR pmu.model) return;

  struct pmu_context context;
  memset(&context, 0, sizeof(context));
  context.cpl = BX_CPU_THIS_PTR pmu.cpl = CPL;
  context.rip = BX_CPU_THIS_PTR prev_rip;
#if BX_SUPPORT_VMX
  if (BX_CPU_THIS_PTR in_vmx_guest) {
    context.nonroot = true;
    context.owner = BX_CPU_THIS_PTR pmu.owner;
    context.vmcs = BX_CPU_THIS_PTR vmcsptr;
  }
#endif
  pmu_set_context(BX_CPU_THIS_PTR pmu.model, &context);
}

// CPL is new already; far transfers retire with the old one
void BX_CPU_C::pmu_cpl_changed(void)
{
  if (BX_CPU_THIS_PTR pmu.switching) return;

  pmu_sync(BX_PMU_RETIRES_BRANCH);
  pmu_enter_context();
}

#if BX_SUPPORT_VMX

// All checks have passed, the first register is about to change
void BX_CPU_C::pmu_vmentry_begin(void)
{
  pmu_sync(BX_PMU_RETIRES);
  BX_CPU_THIS_PTR pmu.switching = true;
  pmu_by_switch(true);
}

// Software initializes the VMCS region before the first VMCLEAR, so a mark in
// it stays for as long as the region is this VMCS.  12 is the last dword before
// VMCS_DATA_OFFSET, of which Bochs uses three.
bool BX_CPU_C::pmu_vmcs_is_fresh(void)
{
  const Bit32u mark = 0x4b4d4454;
  bx_phy_address pAddr = BX_CPU_THIS_PTR vmcsptr + VMCS_DATA_OFFSET - 4;

  if (read_physical_dword(pAddr, MEMTYPE(BX_CPU_THIS_PTR vmcs_memtype), BX_VMCS_ACCESS) == mark) return false;
  write_physical_dword(pAddr, mark, MEMTYPE(BX_CPU_THIS_PTR vmcs_memtype), BX_VMCS_ACCESS);
  return true;
}

// Does the guest read this MSR without a VM exit?
bool BX_CPU_C::pmu_passed_through(Bit32u index)
{
  VMCS_CACHE *vm = &BX_CPU_THIS_PTR vmcs;
  if (! vm->vmexec_ctrls1.MSR_BITMAPS()) return false;

  bx_phy_address pAddr = vm->msr_bitmap_addr + (index >> 3);
  return ! (read_physical_byte(pAddr, MEMTYPE(resolve_memtype(pAddr)), BX_MSR_BITMAP_ACCESS) >> (index & 7) & 1);
}

Bit64u BX_CPU_C::pmu_owned_registers(void)
{
  Bit64u owned = 0;

  if (! BX_CPU_THIS_PTR vmcs.vmexec_ctrls1.RDPMC_VMEXIT()) return ~Bit64u(0);

  for (unsigned n = 0; n < PMU_MAX_GP; n++)
    if (pmu_passed_through(0xc1 + n)) owned |= Bit64u(1) << n;
  for (unsigned n = 0; n < PMU_MAX_FIXED; n++)
    if (pmu_passed_through(0x309 + n)) owned |= Bit64u(1) << (32 + n);
  if (pmu_passed_through(0x329)) owned |= Bit64u(1) << 48;
  return owned;
}

void BX_CPU_C::pmu_vmentry_end(bool launch)
{
  // Whose work is it?  The current VMCS does not tell: KVM runs a guest's
  // nested guests on another one (vmcs02) than the guest itself (vmcs01),
  // but they share the PMU that the guest sees.  Both VMCSs of a vCPU have
  // the same VM-exit MSR-load area, though (vmx->msr_autoload.host in
  // arch/x86/kvm/vmx).  A hypervisor without such an area gets the VMCS.
  BX_CPU_THIS_PTR pmu.owner = VMread64(VMCS_64BIT_CONTROL_VMEXIT_MSR_LOAD_ADDR);
  if (! BX_CPU_THIS_PTR pmu.owner) BX_CPU_THIS_PTR pmu.owner = BX_CPU_THIS_PTR vmcsptr;

  BX_CPU_THIS_PTR pmu.switching = false;
  pmu_by_switch(false);
  pmu_enter_context();
  if (! BX_CPU_THIS_PTR pmu.model) return;

  struct pmu_entry entry = { launch, false, 0 };
  if (launch) {
    entry.fresh = pmu_vmcs_is_fresh();
    entry.owned = pmu_owned_registers();
  }
  pmu_vmentry(BX_CPU_THIS_PTR pmu.model, &entry);
}

// A VM exit retires nothing, except that a trap-like one comes after the
// instruction that caused it
void BX_CPU_C::pmu_vmexit_begin(unsigned reason, unsigned vector)
{
  bool trap_like = IS_TRAP_LIKE_VMEXIT(reason);

  pmu_sync(trap_like && RIP != BX_CPU_THIS_PTR prev_rip ? BX_PMU_RETIRES : BX_PMU_NOT_YET);
  if (BX_CPU_THIS_PTR pmu.model) {
    struct pmu_exit exit = {
      reason, vector, ECX, GET64_FROM_HI32_LO32(EDX, EAX), BX_CPU_THIS_PTR prev_rip
    };
    pmu_vmexit(BX_CPU_THIS_PTR pmu.model, &exit);
  }
  BX_CPU_THIS_PTR pmu.switching = true;
  BX_CPU_THIS_PTR pmu.unwinding = ! trap_like;
  pmu_by_switch(true);
}

void BX_CPU_C::pmu_vmexit_end(void)
{
  BX_CPU_THIS_PTR pmu.switching = false;
  pmu_enter_context();
}

// From now on VM entry or VM exit access MSRs, or instructions do; unlike
// pmu.switching, this includes what a VM exit loads after it is in root
void BX_CPU_C::pmu_by_switch(bool on)
{
  if (BX_CPU_THIS_PTR pmu.model) pmu_set_switching(BX_CPU_THIS_PTR pmu.model, on);
}

// VMREAD and VMWRITE are frequent: tell only of what the model counts
void BX_CPU_C::pmu_vmcs_access(unsigned encoding, bool write)
{
  if (encoding != VMCS_64BIT_GUEST_IA32_PERF_GLOBAL_CTRL &&
      encoding != VMCS_64BIT_HOST_IA32_PERF_GLOBAL_CTRL) return;
  if (BX_CPU_THIS_PTR pmu.model) pmu_vmcs_field(BX_CPU_THIS_PTR pmu.model, encoding, write);
}

#endif

/////////////////////////////////////////////////////////////////////////
// Overflow
/////////////////////////////////////////////////////////////////////////

void BX_CPU_C::pmu_interrupt(void)
{
#if BX_SUPPORT_APIC
  BX_CPU_THIS_PTR lapic->deliver_perfmon_interrupt();
#endif
}

// The local APIC hands the vector of the last PMI to this CPU
void BX_CPU_C::pmu_interrupt_taken(void)
{
  BX_CPU_THIS_PTR pmu.pmi_vector = 0;
  if (BX_CPU_THIS_PTR pmu.model) pmu_pmi_taken(BX_CPU_THIS_PTR pmu.model);
}

void BX_CPU_C::pmu_set_deadline(Bit64u instructions)
{
  if (! instructions) {
    BX_CPU_THIS_PTR pmu.deadline = 0;
    if (BX_CPU_THIS_PTR pmu.armed) bx_pc_system.deactivate_timer(BX_CPU_THIS_PTR pmu.timer);
    BX_CPU_THIS_PTR pmu.armed = false;
    return;
  }

  // not exact if instructions are long: most deadlines change before they
  // are due, and the CPU may halt
  BX_CPU_THIS_PTR pmu.deadline = BX_CPU_THIS_PTR pmu.synced[PMU_WORK_INSTRUCTION] + instructions;
  pmu_arm_timer(instructions);
}

// An instruction takes at least one tick, so the timer is never late
void BX_CPU_C::pmu_arm_timer(Bit64u ticks)
{
  bx_pc_system.activate_timer_ticks(BX_CPU_THIS_PTR pmu.timer, ticks, 0);
  BX_CPU_THIS_PTR pmu.armed = true;
}

void BX_CPU_C::pmu_deadline_due(void)
{
  BX_CPU_THIS_PTR pmu.armed = false;
  if (BX_CPU_THIS_PTR activity_state != BX_ACTIVITY_STATE_ACTIVE) return; // until it wakes up

  pmu_sync(BX_PMU_NOT_YET);
  pmu_resume_deadline();
}

// Some ticks retire no instruction, and halted CPUs have no deadline
void BX_CPU_C::pmu_resume_deadline(void)
{
  if (! BX_CPU_THIS_PTR pmu.deadline || BX_CPU_THIS_PTR pmu.armed) return;

  Bit64s left = BX_CPU_THIS_PTR pmu.deadline - BX_CPU_THIS_PTR pmu.synced[PMU_WORK_INSTRUCTION];
  pmu_arm_timer(left > 0 ? left : 1);
}

/////////////////////////////////////////////////////////////////////////
// Registers
/////////////////////////////////////////////////////////////////////////

enum {
  BX_DEBUGCTL_FREEZE_ON_PMI = 1 << 12,
  // LBR, BTF, TR, BTS, BTINT, BTS_OFF_OS, BTS_OFF_USR, FREEZE_LBRS_ON_PMI,
  // FREEZE_PERFMON_ON_PMI, FREEZE_WHILE_SMM (SDM vol. 4, IA32_DEBUGCTL)
  BX_DEBUGCTL_VALID = 0x5fc3
};

struct msr_range { Bit32u first, last; };

// The MSRs of a PMU.  Those that the machine lacks take #GP, whatever
// "ignore_bad_msrs" says: software probes for them.
static const struct msr_range pmu_msrs[] = {
  { 0x0c1, 0x0c8 },             // IA32_PMC0..7
  { 0x186, 0x18d },             // IA32_PERFEVTSEL0..7
  { 0x1a0, 0x1a0 },             // IA32_MISC_ENABLE
  { 0x309, 0x318 },             // IA32_FIXED_CTR0..15
  { 0x329, 0x329 },             // IA32_PERF_METRICS
  { 0x345, 0x345 },             // IA32_PERF_CAPABILITIES
  { 0x38d, 0x393 },             // IA32_FIXED_CTR_CTRL, IA32_PERF_GLOBAL_*
  { 0x3f1, 0x3f2 },             // IA32_PEBS_ENABLE, MSR_PEBS_DATA_CFG
  { 0x4c1, 0x4c8 },             // IA32_A_PMC0..7
  { 0x600, 0x600 },             // IA32_DS_AREA
  { 0x14ce, 0x14cf },           // IA32_LBR_CTL, IA32_LBR_DEPTH
  { 0x1900, 0x19ff },           // IA32_PMC_*
  { 0, 0 }
};

// Registers that every core from Ice Lake to Golden Cove has and Linux uses
// without asking, but that have no effect here: they keep what is written.
static const struct msr_range inert_msrs[] = {
  { 0x1a6, 0x1a7 },             // MSR_OFFCORE_RSP_0, 1
  { 0x1c8, 0x1c9 },             // MSR_LBR_SELECT, MSR_LASTBRANCH_TOS
  { 0x3f6, 0x3f7 },             // MSR_PEBS_LD_LAT, MSR_PEBS_FRONTEND
  { 0x680, 0x69f },             // MSR_LASTBRANCH_*_FROM_IP
  { 0x6c0, 0x6df },             // MSR_LASTBRANCH_*_TO_IP
  { 0xdc0, 0xddf },             // MSR_LASTBRANCH_INFO_*
  { 0, 0 }
};

// Position of a register in the ranges, counted over all of them; -1 if none
static int find_msr(const struct msr_range *range, Bit32u index)
{
  int before = 0;

  for (; range->last; range++) {
    if (index >= range->first && index <= range->last)
      return before + (index - range->first);
    before += range->last - range->first + 1;
  }
  return -1;
}

// 1: done, 0: #GP, -1: not a register of the PMU
int BX_CPU_C::pmu_read_msr(Bit32u index, Bit64u *value)
{
  uint64_t val_64;

  if (! BX_CPU_THIS_PTR pmu.model) return -1;

  if (index == BX_MSR_DEBUGCTLMSR) {
    *value = BX_CPU_THIS_PTR pmu.debugctl;
    return 1;
  }
  int inert = find_msr(inert_msrs, index);
  if (inert >= 0) {
    *value = BX_CPU_THIS_PTR pmu.inert[inert];
    return 1;
  }
  if (find_msr(pmu_msrs, index) < 0) return -1;

  pmu_sync(BX_PMU_NOT_YET);
  if (! BX_CPU_THIS_PTR pmu.switching) pmu_enter_context(); // for the sake of RIP
  if (pmu_rdmsr(BX_CPU_THIS_PTR pmu.model, index, &val_64) != PMU_OK) return 0;
  *value = val_64;
  return 1;
}

int BX_CPU_C::pmu_write_msr(Bit32u index, Bit64u value)
{
  if (! BX_CPU_THIS_PTR pmu.model) return -1;

  if (index == BX_MSR_DEBUGCTLMSR) {
    if (! pmu_debugctl_valid(value)) return 0;
    pmu_sync(BX_PMU_RETIRES);
    pmu_set_debugctl(value);
    return 1;
  }
  int inert = find_msr(inert_msrs, index);
  if (inert >= 0) {
    BX_CPU_THIS_PTR pmu.inert[inert] = value;
    return 1;
  }
  if (find_msr(pmu_msrs, index) < 0) return -1;

  pmu_sync(BX_PMU_RETIRES);
  if (! BX_CPU_THIS_PTR pmu.switching) pmu_enter_context();
  return pmu_wrmsr(BX_CPU_THIS_PTR pmu.model, index, value) == PMU_OK;
}

bool BX_CPU_C::pmu_read_counter(Bit32u index, Bit64u *value)
{
  uint64_t val_64;

  pmu_sync(BX_PMU_NOT_YET);
  pmu_enter_context();
  if (pmu_rdpmc(BX_CPU_THIS_PTR pmu.model, index, &val_64) != PMU_OK) return false;
  *value = val_64;
  return true;
}

bool BX_CPU_C::pmu_debugctl_valid(Bit64u value)
{
  return ! BX_CPU_THIS_PTR pmu.model || ! (value & ~Bit64u(BX_DEBUGCTL_VALID));
}

void BX_CPU_C::pmu_set_debugctl(Bit64u value)
{
  if (! BX_CPU_THIS_PTR pmu.model) return;

  BX_CPU_THIS_PTR pmu.debugctl = value;
  pmu_set_freeze_on_pmi(BX_CPU_THIS_PTR pmu.model, (value & BX_DEBUGCTL_FREEZE_ON_PMI) != 0);
}

bool BX_CPU_C::is_perf_global_ctrl_valid(Bit64u val_64)
{
  return ! BX_CPU_THIS_PTR pmu.model || pmu_global_ctrl_valid(BX_CPU_THIS_PTR pmu.model, val_64);
}

Bit64u BX_CPU_C::get_perf_global_ctrl(void)
{
  if (BX_CPU_THIS_PTR pmu.model) return pmu_global_ctrl(BX_CPU_THIS_PTR pmu.model);
  return BX_CPU_THIS_PTR msr.perf_global_ctrl;
}

// VM entry and VM exit have synced
void BX_CPU_C::set_perf_global_ctrl(Bit64u val_64)
{
  if (BX_CPU_THIS_PTR pmu.model) pmu_set_global_ctrl(BX_CPU_THIS_PTR pmu.model, val_64);
  else BX_CPU_THIS_PTR msr.perf_global_ctrl = val_64;
}

void BX_CPU_C::pmu_patch_cpuid(Bit32u function, struct cpuid_function_t *leaf)
{
  if (! BX_CPU_THIS_PTR pmu.model) return;

  if (function == 0xa) {
    Bit32u regs[4];
    pmu_machine_cpuid(machine, regs);
    leaf->eax = regs[0];
    leaf->ebx = regs[1];
    leaf->ecx = regs[2];
    leaf->edx = regs[3];
  }
  if (function == 1) {
    leaf->ecx &= ~BX_CPUID_STD1_ECX_PDCM;
    if (pmu_machine_has_pdcm(machine)) leaf->ecx |= BX_CPUID_STD1_ECX_PDCM;
  }
}

/////////////////////////////////////////////////////////////////////////
// The mark
/////////////////////////////////////////////////////////////////////////

// Any CPL, any mode.  The mark itself belongs to the interval that it opens.
void BX_CPP_AttrRegparmN(1) BX_CPU_C::PMU_MARK(bxInstruction_c *i)
{
  if (BX_CPU_THIS_PTR pmu.model && RAX == BX_PMU_MARK_RAX) {
    pmu_sync(BX_PMU_NOT_YET);
    pmu_enter_context(); // for the sake of RIP
    pmu_mark(BX_CPU_THIS_PTR pmu.model, RCX);

    // The other CPUs stand between two instructions
    for (unsigned n = 0; n < BX_SMP_PROCESSORS; n++) {
      BX_CPU_C *cpu = BX_CPU(n);
      cpu->pmu_sync(BX_PMU_NOT_YET);
      pmu_snapshot(cpu->pmu.model, RCX);
    }
  }

  BX_NEXT_INSTR(i);
}
