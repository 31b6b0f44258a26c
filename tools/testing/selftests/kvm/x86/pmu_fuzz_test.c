// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fuzz KVM's vPMU: random accesses by a hostile guest and by hostile userspace,
 * each of whose outcomes, i.e. the value, the exception or the error, must be the
 * one that a reference model of the PMU predicts.
 *
 *   pmu_fuzz_test [-s SEED] [-n OPERATIONS] [-t THREADS] [-v] [-w] [-T FROM]
 *
 * -v tells of the progress, -T prints each operation from number FROM on.  -w also
 * tries what KVM does its own way even with the mediated vPMU, so that hardware's
 * counters change behind the guest's back: see kvm_cuts_to_vcpu_width().
 *
 * The same seed means the same operations, and none of the outcomes depends on
 * timing.  What a counter reads while it counts isn't predictable, so there the
 * model only knows what is always true: a counter doesn't go backwards, one that
 * wraps sets its status bit, and one that isn't enabled doesn't move at all.
 * Once something has stopped, whichever way it is read first teaches the model,
 * and all other ways must give the same from then on.
 *
 * Guest code executes batches of operations from a table that it shares with the
 * test, so that an operation doesn't cost more VM exits than it causes itself.
 *
 * The model is written from the SDM, "Architectural Performance Monitoring", and
 * from KVM's API documentation.  Where KVM deviates from the SDM on purpose, a
 * function that says so in its name tells when, see "Where KVM isn't a CPU".
 */
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "kvm_util.h"
#include "pmu.h"
#include "processor.h"
#include "user_mode.h"

#define MAX_GP			8
#define MAX_FIXED		4
#define MAX_VCPUS		3
#define MAX_OPS			250
#define MAX_FILTER_EVENTS	4
#define MAX_MSR_LIST		12

/* KVM refuses this many entries, and more, in one KVM_{GET,SET}_MSRS. */
#define MAX_IO_MSRS		256

#define MSR_PERF_GLOBAL_STATUS_SET	0x391
#define MSR_PERF_GLOBAL_INUSE		0x392

#define METRICS_BIT		48
#define ENABLE_METRICS		BIT_ULL(METRICS_BIT)
#define FIXED_BIT(i)		(32 + (i))
#define SLOTS			3

/* Where guest code exits after a batch. */
#define BATCH_PORT		0x2000

/* What the guest does. */
enum what {
	RDMSR,
	WRMSR,
	RDPMC,
	NR_INSNS,
	SET_PCE = NR_INSNS,
	CLEAR_PCE,
	WORK,
};

/* How an instruction is executed. */
#define BY_EMULATOR	BIT(0)
#define IN_USER_MODE	BIT(1)

struct op {
	u16 what;
	u16 how;
	u32 index;
	u64 value;
	u64 result;
	u64 vector;
};

struct batch {
	u32 nr;
	u32 at;
	struct op ops[MAX_OPS];
};

/* What host and KVM have, gathered once in main(). */
static struct {
	u64 perf_capabilities;
	u64 metrics_rsvd;
	u64 gp_mask;
	u64 fixed_mask;
	u32 leaf_eax, leaf_ebx, leaf_edx;
	u8 nr_gp;
	u8 nr_fixed;
	bool mediated;
	bool has_pdcm;
	bool has_rtm;
	bool can_disable;
	cpu_set_t cpus;
} facts;

/* Guest code. */

/*
 * What user mode executes, 16 bytes each: RDMSR, WRMSR, RDPMC, then the same with
 * the prefix that makes KVM emulate them.  HLT raises #GP at CPL 3, which is how
 * an instruction that didn't fault returns to the kernel.
 */
#define USER_INSN(insn)		".balign 16\n\t" insn "\n\thlt\n\t"

static void __aligned(128) __attribute__((naked)) user_insns(void)
{
	asm volatile(USER_INSN("rdmsr")
		     USER_INSN("wrmsr")
		     USER_INSN("rdpmc")
		     USER_INSN(KVM_FEP "rdmsr")
		     USER_INSN(KVM_FEP "wrmsr")
		     USER_INSN(KVM_FEP "rdpmc"));
}

#define INSN_LEN	2
#define FEP_LEN		5

/*
 * #GP or #UD.  From user mode go back to in_user_mode(), whose stack and address
 * are in R12 and R13; R14 is where the instruction would have ended.
 */
static void guest_fault(struct ex_regs *regs)
{
	u64 *frame = (u64 *)(regs + 1);

	if ((regs->cs & 3) == 3) {
		regs->r8 = regs->rip == regs->r14 ? 0 : regs->vector;
		regs->rip = regs->r13;
		regs->cs = KERNEL_CS;
		frame[0] = regs->r12;
		frame[1] = 0;
		return;
	}

	__GUEST_ASSERT(regs->r9 == KVM_EXCEPTION_MAGIC && regs->rip == regs->r10,
		       "%s at RIP 0x%lx", ex_str(regs->vector), regs->rip);
	regs->rip = regs->r11;
	regs->r9 = regs->vector;
}

static void in_user_mode(struct op *op)
{
	bool fep = op->how & BY_EMULATOR;
	u64 rip = (u64)user_insns + 16 * (op->what + (fep ? NR_INSNS : 0));
	u64 end = rip + INSN_LEN + (fep ? FEP_LEN : 0);
	u64 eax = (u32)op->value, edx = op->value >> 32;

	asm volatile("lea 1f(%%rip), %%r13\n\t"
		     "mov %[end], %%r14\n\t"
		     "mov %%rsp, %%r12\n\t"
		     "sub $128, %%rsp\n\t"	/* the red zone */
		     "pushq %[ss]\n\t"
		     "pushq %%r12\n\t"
		     "pushfq\n\t"
		     "pushq %[cs]\n\t"
		     "pushq %[rip]\n\t"
		     "iretq\n\t"
		     "1:\n\t"
		     "mov %%r8, %[vector]"
		     : "+a"(eax), "+d"(edx), [vector] "=m"(op->vector)
		     : "c"(op->index), [ss] "i"(USER_DS), [cs] "i"(USER_CS),
		       [rip] "r"(rip), [end] "r"(end)
		     : "memory", "cc", "r8", "r12", "r13", "r14");

	op->result = (u32)eax | edx << 32;
}

static u8 wrmsr_safe_fep(u32 msr, u64 val)
{
	return kvm_asm_safe_fep("wrmsr", "a"((u32)val), "d"((u32)(val >> 32)),
				"c"(msr));
}

static void in_kernel_mode(struct op *op)
{
	bool fep = op->how & BY_EMULATOR;

	switch (op->what) {
	case RDMSR:
		op->vector = fep ? rdmsr_safe_fep(op->index, &op->result) :
				   rdmsr_safe(op->index, &op->result);
		break;
	case WRMSR:
		op->vector = fep ? wrmsr_safe_fep(op->index, op->value) :
				   wrmsr_safe(op->index, op->value);
		break;
	case RDPMC:
		op->vector = fep ? rdpmc_safe_fep(op->index, &op->result) :
				   rdpmc_safe(op->index, &op->result);
		break;
	}
}

/* Something to count: instructions, branches, and with luck mispredictions. */
static void guest_work(u64 loops)
{
	u64 x = loops | 1;

	asm volatile("1:\n\t"
		     "imul $0x19660d, %[x]\n\t"
		     "test $0x10000, %[x]\n\t"
		     "jz 2f\n\t"
		     "nop\n\t"
		     "2:\n\t"
		     "dec %[loops]\n\t"
		     "jnz 1b"
		     : [loops] "+r"(loops), [x] "+r"(x) : : "cc");
}

static void execute(struct op *op)
{
	switch (op->what) {
	case SET_PCE:
		set_cr4(get_cr4() | X86_CR4_PCE);
		break;
	case CLEAR_PCE:
		set_cr4(get_cr4() & ~X86_CR4_PCE);
		break;
	case WORK:
		guest_work(op->value);
		break;
	default:
		if (op->how & IN_USER_MODE)
			in_user_mode(op);
		else
			in_kernel_mode(op);
	}
}

static void guest_main(struct batch *batch)
{
	u32 i;

	for (;;) {
		for (i = 0; i < batch->nr; i++) {
			WRITE_ONCE(batch->at, i);
			execute(&batch->ops[i]);
		}
		asm volatile("out %%al, %%dx" : : "a"(0), "d"(BATCH_PORT) : "memory");
	}
}

/* The reference model. */

struct filter {
	u32 action;
	u32 fixed_bitmap;
	u32 flags;
	u32 nr;
	u64 events[MAX_FILTER_EVENTS];
	bool set;
};

/*
 * A counter.  If its value isn't known, because it has been counting, then it has
 * counted up from @val.
 */
struct counter {
	u64 val;
	bool known;
	/* Its status bit wasn't cleared since it was @val. */
	bool status_kept;
};

struct model {
	/* What userspace has configured. */
	u32 leaf_eax, leaf_edx;
	u64 capabilities;
	bool pmu_enabled;
	bool pdcm;
	bool ran;

	/* What follows from it. */
	u64 gp_mask, fixed_mask;
	u64 enables;		/* valid bits of GLOBAL_CTRL */
	u8 version, nr_gp, nr_fixed;
	bool mediated;
	bool full_width_writes;
	bool has_metrics;

	/* The registers. */
	struct counter gp[MAX_GP], fixed[MAX_FIXED];
	u64 evntsel[MAX_GP];
	u64 fixed_ctrl;
	u64 global_ctrl;
	u64 status, status_known;
	u64 metrics;
	bool metrics_known;
	bool metrics_clear;	/* zero was written, not just rounded to */
	bool pce;

	/* What may be counting, and what has, in the layout of GLOBAL_CTRL. */
	u64 counting;
	u64 has_counted;

	/* How often it applied, to tell that it does. */
	u64 nr_exact, nr_overflows;
};

/* By whom a register is accessed. */
enum accessor {
	BY_CPU,		/* an instruction of the guest; KVM may intercept it */
	BY_KVM,		/* an instruction of the guest, emulated */
	BY_HOST,	/* KVM_{GET,SET}_MSRS */
};

enum outcome { SUCCESS, FAILURE, MAY_FAIL };

enum pmu_reg {
	NO_REG,
	PERFCTR,
	PMC,
	EVNTSEL,
	FIXED_CTR,
	FIXED_CTR_CTRL,
	GLOBAL_STATUS,
	GLOBAL_CTRL,
	OVF_CTRL,
	METRICS,
	CAPABILITIES,
};

static enum pmu_reg decode_msr(u32 msr, u32 *i)
{
	static const struct {
		u32 base, nr;
		enum pmu_reg reg;
	} regs[] = {
		{ MSR_IA32_PERFCTR0, MAX_GP, PERFCTR },
		{ MSR_IA32_PMC0, MAX_GP, PMC },
		{ MSR_P6_EVNTSEL0, MAX_GP, EVNTSEL },
		{ MSR_CORE_PERF_FIXED_CTR0, MAX_FIXED, FIXED_CTR },
		{ MSR_CORE_PERF_FIXED_CTR_CTRL, 1, FIXED_CTR_CTRL },
		{ MSR_CORE_PERF_GLOBAL_STATUS, 1, GLOBAL_STATUS },
		{ MSR_CORE_PERF_GLOBAL_CTRL, 1, GLOBAL_CTRL },
		{ MSR_CORE_PERF_GLOBAL_OVF_CTRL, 1, OVF_CTRL },
		{ MSR_PERF_METRICS, 1, METRICS },
		{ MSR_IA32_PERF_CAPABILITIES, 1, CAPABILITIES },
	};
	int r;

	for (r = 0; r < ARRAY_SIZE(regs); r++) {
		*i = msr - regs[r].base;
		if (*i < regs[r].nr)
			return regs[r].reg;
	}
	return NO_REG;
}

static enum pmu_reg reg_of(u32 msr)
{
	u32 i;

	return decode_msr(msr, &i);
}

static bool has_reg(const struct model *m, enum pmu_reg reg, u32 i)
{
	switch (reg) {
	case PERFCTR:
	case EVNTSEL:
		return i < m->nr_gp;
	case PMC:
		return i < m->nr_gp && m->full_width_writes;
	case FIXED_CTR:
		return i < m->nr_fixed;
	case FIXED_CTR_CTRL:
	case GLOBAL_STATUS:
	case GLOBAL_CTRL:
	case OVF_CTRL:
		return m->version >= 2;
	case METRICS:
		return m->has_metrics;
	case CAPABILITIES:
		return m->pdcm;
	default:
		return false;
	}
}

/* Where KVM isn't a CPU. */

/*
 * KVM ignores accesses to the performance counters of the P6, of which there were
 * two, if the vCPU doesn't have those of the architectural PMU in their place.
 */
static bool kvm_ignores_p6_msr(u32 msr)
{
	return msr == MSR_IA32_PERFCTR0 || msr == MSR_IA32_PERFCTR0 + 1 ||
	       msr == MSR_P6_EVNTSEL0 || msr == MSR_P6_EVNTSEL0 + 1;
}

/*
 * Userspace can read MSRs that KVM_GET_MSR_INDEX_LIST names, and write zero to
 * them, even if the vCPU doesn't have them.
 */
static bool kvm_lets_userspace_access(u32 msr, u64 val)
{
	return !val && kvm_msr_is_in_save_restore_list(msr);
}

/*
 * The mediated vPMU gives the guest hardware's counters: if userspace set fewer
 * bits in CPUID, then only what KVM itself reads or writes has that width.
 */
static bool kvm_cuts_to_vcpu_width(const struct model *m, enum accessor access)
{
	return access != BY_CPU || !m->mediated;
}

/* KVM takes a value that is too wide for a fixed counter, and cuts it. */
static enum outcome wide_fixed_counter_write(const struct model *m, enum accessor access)
{
	/* Hardware faults or cuts; documents don't tell. */
	return kvm_cuts_to_vcpu_width(m, access) ? SUCCESS : MAY_FAIL;
}

/*
 * KVM's RDPMC has VMware's pseudo counters, also if kvm.enable_vmware_backdoor is
 * off.  Hardware doesn't have them, which is what counts if RDPMC isn't intercepted.
 */
static bool kvm_may_have_vmware_counter(const struct model *m, u32 ecx)
{
	return m->version && ecx >= 0x10000 && ecx <= 0x10002;
}

/*
 * GLOBAL_STATUS bits of hardware that isn't virtualized (PT, LBR and counter
 * freezing, SGX, uncore, PEBS, CondChgd).  Their clearing in OVF_CTRL reaches
 * hardware if the MSR isn't intercepted.
 */
#define OTHER_STATUS_BITS	(GENMASK_ULL(63, 58) | BIT_ULL(55))

/* Of these, KVM emulates the last two. */
#define EMULATED_STATUS_BITS	GENMASK_ULL(63, 62)

static u64 status_bits(const struct model *m)
{
	return m->enables | EMULATED_STATUS_BITS;
}

/*
 * Nothing but hardware can set CondChgd.  If userspace sets it, then the mediated
 * vPMU drops it when the vCPU runs, but KVM without PERF_METRICS may be so old that
 * it tries, which faults.
 */
#define COND_CHANGED	BIT_ULL(63)

static bool kvm_may_fault_on_status(u64 val)
{
	return facts.mediated && val & COND_CHANGED &&
	       !(facts.perf_capabilities & PMU_CAP_PERF_METRICS);
}

static void kvm_drops_cond_changed(struct model *m)
{
	if (m->mediated)
		m->status &= ~COND_CHANGED;
}

/*
 * Without the mediated vPMU, KVM learns of an overflow by an interrupt of the
 * perf event behind the counter, which can come after the guest has read the
 * counter.  And if the guest writes to a counter while it counts, then KVM makes
 * that event overflow as soon as it has counted once more what it had counted
 * before.  So don't expect anything of the status of counters that have counted.
 */
static bool kvm_guesses_status(const struct model *m)
{
	return !m->mediated;
}

/*
 * Without the mediated vPMU, counters count for the thread that runs the vCPU, in
 * any guest: KVM's API asks for a thread per vCPU.  The mediated vPMU copes with
 * vCPUs that share a thread, which here means that they take turns more often.
 */
static bool vcpus_can_share_thread(void)
{
	return facts.mediated;
}

/* Configuration. */

static void reset_registers(struct model *m)
{
	int i;

	for (i = 0; i < MAX_GP; i++) {
		m->gp[i] = (struct counter) { .known = true, .status_kept = true };
		m->evntsel[i] = 0;
	}
	for (i = 0; i < MAX_FIXED; i++)
		m->fixed[i] = (struct counter) { .known = true, .status_kept = true };

	m->fixed_ctrl = 0;
	m->status = 0;
	m->status_known = ~0ull;
	m->metrics = 0;
	m->metrics_known = true;
	m->metrics_clear = true;
	m->counting = 0;
	m->has_counted = 0;

	/* All general purpose counters are enabled at RESET (SDM). */
	m->global_ctrl = GENMASK_ULL(m->nr_gp, 0) >> 1;
}

/* CPUID or PERF_CAPABILITIES have changed: which PMU does the vCPU have? */
static void configure(struct model *m)
{
	u64 caps = m->pdcm ? m->capabilities : 0;
	u32 eax = m->leaf_eax, edx = m->leaf_edx;

	m->version = m->pmu_enabled ? eax & 0xff : 0;
	m->nr_gp = m->version ? min_t(u32, eax >> 8 & 0xff, facts.nr_gp) : 0;
	m->nr_fixed = m->version >= 2 ? min_t(u32, edx & 0x1f, facts.nr_fixed) : 0;
	m->gp_mask = facts.gp_mask & (BIT_ULL(min_t(u32, eax >> 16 & 0xff, 63)) - 1);
	m->fixed_mask = facts.fixed_mask & (BIT_ULL(min_t(u32, edx >> 5 & 0xff, 63)) - 1);
	m->mediated = facts.mediated && m->version;
	m->full_width_writes = caps & PMU_CAP_FW_WRITES;
	m->has_metrics = m->mediated && m->nr_fixed > SLOTS &&
			 caps & PMU_CAP_PERF_METRICS;

	m->enables = GENMASK_ULL(m->nr_gp, 0) >> 1 |
		     (GENMASK_ULL(m->nr_fixed, 0) >> 1) << 32;
	if (m->has_metrics)
		m->enables |= ENABLE_METRICS;

	reset_registers(m);
}

/* What counts. */

static bool filter_matches(const struct filter *f, u64 evntsel)
{
	bool included = false, excluded = false;
	u64 event, mask;
	int i;

	for (i = 0; i < f->nr; i++) {
		event = f->events[i];
		if (f->flags & KVM_PMU_EVENT_FLAG_MASKED_EVENTS) {
			mask = event >> KVM_PMU_MASKED_ENTRY_UMASK_MASK_SHIFT << 8;
		} else {
			if (event & ~GENMASK_ULL(15, 0))
				continue;
			mask = ARCH_PERFMON_EVENTSEL_UMASK;
		}
		if ((event ^ evntsel) & ARCH_PERFMON_EVENTSEL_EVENT ||
		    (evntsel & mask) != (event & ARCH_PERFMON_EVENTSEL_UMASK))
			continue;
		if (f->flags && event & KVM_PMU_MASKED_ENTRY_EXCLUDE)
			excluded = true;
		else
			included = true;
	}
	return included && !excluded;
}

static bool filter_allows(const struct filter *f, int bit, u64 evntsel)
{
	bool named;

	if (!f->set)
		return true;

	named = bit >= 32 ? f->fixed_bitmap & BIT(bit - 32) : filter_matches(f, evntsel);
	return named == (f->action == KVM_PMU_EVENT_ALLOW);
}

static u64 locally_enabled(const struct model *m, const struct filter *f)
{
	const u64 any_mode = ARCH_PERFMON_EVENTSEL_OS | ARCH_PERFMON_EVENTSEL_USR;
	u64 bits = 0;
	int i;

	for (i = 0; i < m->nr_gp; i++) {
		if (m->evntsel[i] & ARCH_PERFMON_EVENTSEL_ENABLE &&
		    m->evntsel[i] & any_mode && filter_allows(f, i, m->evntsel[i]))
			bits |= BIT_ULL(i);
	}
	for (i = 0; i < m->nr_fixed; i++) {
		if (m->fixed_ctrl >> (4 * i) & 3 && filter_allows(f, FIXED_BIT(i), 0))
			bits |= BIT_ULL(FIXED_BIT(i));
	}
	return bits;
}

/* @f and @g are the filters before and after a change, whose moment isn't known. */
static void update_counting(struct model *m, const struct filter *f,
			    const struct filter *g)
{
	u64 bits = locally_enabled(m, f);

	if (g != f)
		bits |= locally_enabled(m, g);
	if (m->version >= 2)
		bits &= m->global_ctrl;
	/* The metrics are fractions of what counter 3 counts. */
	if (m->global_ctrl & ENABLE_METRICS && bits & BIT_ULL(FIXED_BIT(SLOTS)))
		bits |= ENABLE_METRICS;
	m->counting = bits;
}

/*
 * No VM lives as long as a counter takes to count to this; one that is farther
 * from its end doesn't overflow.
 */
#define FAR	BIT_ULL(44)

static void count_up(struct model *m, struct counter *c, int bit, u64 mask, u64 hw_mask)
{
	c->known = false;
	if (hw_mask - c->val < FAR || mask < 2 * FAR || c->val > mask - FAR)
		m->status_known &= ~BIT_ULL(bit);
}

/* PERF_METRICS means something only relative to counter 3. */
static void slots_have_changed(struct model *m)
{
	if (!m->metrics_clear)
		m->metrics_known = false;
}

static void let_time_pass(struct model *m)
{
	int i;

	if (!m->counting)
		return;

	m->has_counted |= m->counting;
	if (kvm_guesses_status(m))
		m->status_known &= ~m->has_counted;
	for (i = 0; i < m->nr_gp; i++) {
		if (m->counting & BIT_ULL(i))
			count_up(m, &m->gp[i], i, m->gp_mask, facts.gp_mask);
	}
	for (i = 0; i < m->nr_fixed; i++) {
		if (m->counting & BIT_ULL(FIXED_BIT(i)))
			count_up(m, &m->fixed[i], FIXED_BIT(i), m->fixed_mask,
				 facts.fixed_mask);
	}
	if (m->counting & BIT_ULL(FIXED_BIT(SLOTS)))
		slots_have_changed(m);
	if (m->counting & ENABLE_METRICS) {
		m->metrics_known = false;
		m->metrics_clear = false;
		m->status_known &= ~ENABLE_METRICS;
	}
}

static void set_counter(struct counter *c, u64 val)
{
	*c = (struct counter) { .val = val, .known = true, .status_kept = true };
}

/* Reads.  Each returns NULL or what is wrong, for which @want is the right value. */

static const char *check_counter(struct model *m, struct counter *c, int bit, u64 got,
				 u64 kvm_mask, u64 hw_mask, bool cut, u64 *want)
{
	u64 mask = cut ? kvm_mask : hw_mask;

	*want = c->val & mask;
	if (got & ~mask)
		return "is wider than the counter";
	if (c->known) {
		m->nr_exact++;
		return got == *want ? NULL : "is not what the counter stopped at";
	}

	/* KVM increments the counter modulo one width, hardware modulo another. */
	if (m->mediated && kvm_mask != hw_mask) {
		if (!cut)
			set_counter(c, got);
		return NULL;
	}

	if (mask >= FAR && ((got - c->val) & mask) > mask / 2)
		return "is less than before";

	if (got < c->val && c->status_kept && m->mediated) {
		if (m->status_known & ~m->status & BIT_ULL(bit))
			return "has wrapped without setting its status bit";
		m->status |= BIT_ULL(bit);
		m->status_known |= BIT_ULL(bit);
		m->nr_overflows++;
	}
	set_counter(c, got);
	return NULL;
}

static const char *check_gp(struct model *m, int i, bool cut, u64 got, u64 *want)
{
	return check_counter(m, &m->gp[i], i, got, m->gp_mask, facts.gp_mask, cut, want);
}

static const char *check_fixed(struct model *m, int i, bool cut, u64 got, u64 *want)
{
	return check_counter(m, &m->fixed[i], FIXED_BIT(i), got, m->fixed_mask,
			     facts.fixed_mask, cut, want);
}

static const char *check_status(struct model *m, u64 got, u64 *want)
{
	u64 learned;

	*want = m->status & m->status_known;
	if ((got ^ m->status) & m->status_known)
		return "has wrong status bits";

	/* Bits stay until they are cleared. */
	learned = ~m->status_known & (got | ~m->counting);
	m->status = (m->status & ~learned) | (got & learned);
	m->status_known |= learned;
	if (kvm_guesses_status(m))
		m->status_known &= ~m->has_counted;
	return NULL;
}

static const char *check_metrics(struct model *m, u64 got, u64 *want)
{
	const struct counter *slots = &m->fixed[SLOTS];

	*want = m->metrics;
	if (got & facts.metrics_rsvd)
		return "has reserved bits";
	if (m->metrics_known)
		return got == m->metrics ? NULL : "is not what was written";

	if (slots->known && slots->val) {
		m->metrics = got;
		m->metrics_known = true;
	}
	return NULL;
}

static const char *check_equal(u64 got, u64 want_val, u64 *want)
{
	*want = want_val;
	return got == want_val ? NULL : "is not the register's value";
}

static const char *check_msr_value(struct model *m, enum pmu_reg reg, u32 i,
				   enum accessor access, u64 got, u64 *want)
{
	bool cut = kvm_cuts_to_vcpu_width(m, access);

	switch (reg) {
	case PERFCTR:
	case PMC:
		return check_gp(m, i, cut, got, want);
	case FIXED_CTR:
		return check_fixed(m, i, cut, got, want);
	case EVNTSEL:
		return check_equal(got, m->evntsel[i], want);
	case FIXED_CTR_CTRL:
		return check_equal(got, m->fixed_ctrl, want);
	case GLOBAL_CTRL:
		return check_equal(got, m->global_ctrl, want);
	case GLOBAL_STATUS:
		return check_status(m, got, want);
	case METRICS:
		return check_metrics(m, got, want);
	case CAPABILITIES:
		return check_equal(got, m->capabilities, want);
	default:
		return check_equal(got, 0, want);
	}
}

/* The MSR isn't there, but does the access fail? */
static enum outcome absent_msr_outcome(u32 msr, enum accessor access, u64 val)
{
	if (kvm_ignores_p6_msr(msr) ||
	    (access == BY_HOST && kvm_lets_userspace_access(msr, val)))
		return SUCCESS;
	return FAILURE;
}

static const char *wrong_outcome(enum outcome expected, bool failed)
{
	if (expected == SUCCESS && failed)
		return "must not fail";
	if (expected == FAILURE && !failed)
		return "must fail";
	return NULL;
}

static enum outcome read_outcome(const struct model *m, u32 msr, enum accessor access)
{
	enum pmu_reg reg;
	u32 i;

	reg = decode_msr(msr, &i);
	if (has_reg(m, reg, i))
		return SUCCESS;
	return absent_msr_outcome(msr, access, 0);
}

static const char *check_read(struct model *m, u32 msr, enum accessor access, u64 got, u64 *want)
{
	enum pmu_reg reg;
	u32 i;

	reg = decode_msr(msr, &i);
	if (!has_reg(m, reg, i))
		return check_equal(got, 0, want);
	return check_msr_value(m, reg, i, access, got, want);
}

/* RDPMC: ECX[31:16] is the type, ECX[15:0] the index (SDM). */

static enum outcome rdpmc_outcome(const struct model *m, u32 ecx, bool privileged)
{
	u32 i = ecx & 0xffff;

	if (kvm_may_have_vmware_counter(m, ecx))
		return MAY_FAIL;
	if (!privileged && !m->pce)
		return FAILURE;

	switch (ecx >> 16) {
	case 0:
		return i < m->nr_gp ? SUCCESS : FAILURE;
	case INTEL_RDPMC_FIXED >> 16:
		return i < m->nr_fixed ? SUCCESS : FAILURE;
	case INTEL_RDPMC_METRICS >> 16:
		return !i && m->has_metrics ? SUCCESS : FAILURE;
	default:
		return FAILURE;
	}
}

/* KVM intercepts RDPMC if the widths differ from hardware's. */
static const char *check_rdpmc(struct model *m, u32 ecx, u64 got, u64 *want)
{
	if (kvm_may_have_vmware_counter(m, ecx))
		return NULL;
	if (ecx & INTEL_RDPMC_FIXED)
		return check_fixed(m, ecx & 0xffff, true, got, want);
	if (ecx & INTEL_RDPMC_METRICS)
		return check_metrics(m, got, want);
	return check_gp(m, ecx, true, got, want);
}

/* Writes. */

/* Bits 63:32 are for features that KVM doesn't offer, AnyThread doesn't exist. */
#define EVNTSEL_RSVD	(GENMASK_ULL(63, 32) | ARCH_PERFMON_EVENTSEL_ANY)

static u64 fixed_ctrl_bits(const struct model *m)
{
	u64 nibble = FIXED_PMC_KERNEL | FIXED_PMC_USER | FIXED_PMC_ENABLE_PMI;
	u64 bits = 0;
	int i;

	for (i = 0; i < m->nr_fixed; i++)
		bits |= FIXED_PMC_CTRL(i, nibble);
	return bits;
}

static enum outcome fails_if(u64 wrong_bits)
{
	return wrong_bits ? FAILURE : SUCCESS;
}

/* After the first run, userspace can't change what the vCPU is. */
static enum outcome capabilities_write_outcome(const struct model *m, u64 val)
{
	if (m->ran)
		return fails_if(val ^ m->capabilities);
	return fails_if(val & ~facts.perf_capabilities);
}

static enum outcome ovf_ctrl_outcome(const struct model *m, enum accessor access, u64 val)
{
	if (access != BY_CPU || !m->mediated)
		return fails_if(val & ~status_bits(m));
	if (val & ~(status_bits(m) | OTHER_STATUS_BITS))
		return FAILURE;
	return val & OTHER_STATUS_BITS ? MAY_FAIL : SUCCESS;
}

static enum outcome write_outcome(const struct model *m, u32 msr, enum accessor access, u64 val)
{
	bool cut = kvm_cuts_to_vcpu_width(m, access);
	enum pmu_reg reg;
	u32 i;

	reg = decode_msr(msr, &i);
	if (!has_reg(m, reg, i))
		return absent_msr_outcome(msr, access, val);

	switch (reg) {
	case PMC:
		return fails_if(val & ~(cut ? m->gp_mask : facts.gp_mask));
	case EVNTSEL:
		return fails_if(val & EVNTSEL_RSVD);
	case FIXED_CTR:
		return val & ~facts.fixed_mask ? wide_fixed_counter_write(m, access) : SUCCESS;
	case FIXED_CTR_CTRL:
		return fails_if(val & ~fixed_ctrl_bits(m));
	case GLOBAL_CTRL:
		return fails_if(val & ~m->enables);
	case GLOBAL_STATUS:
		return access == BY_HOST ? fails_if(val & ~status_bits(m)) : FAILURE;
	case OVF_CTRL:
		return ovf_ctrl_outcome(m, access, val);
	case METRICS:
		/* It isn't documented whether hardware faults or ignores. */
		if (val & facts.metrics_rsvd)
			return access == BY_CPU ? MAY_FAIL : FAILURE;
		return SUCCESS;
	case CAPABILITIES:
		return access == BY_HOST ? capabilities_write_outcome(m, val) : FAILURE;
	default:
		return SUCCESS;
	}
}

static void set_status(struct model *m, u64 val, u64 mask)
{
	int i;

	m->status = (m->status & ~mask) | (val & mask);
	m->status_known |= mask;
	if (kvm_guesses_status(m))
		m->status_known &= ~m->has_counted;
	for (i = 0; i < MAX_GP; i++)
		m->gp[i].status_kept &= !(mask & BIT_ULL(i));
	for (i = 0; i < MAX_FIXED; i++)
		m->fixed[i].status_kept &= !(mask & BIT_ULL(FIXED_BIT(i)));
}

/*
 * A fraction of a counter that is zero, or that isn't known, can read as anything
 * but for one of zero.
 */
static void set_metrics(struct model *m, u64 val)
{
	const struct counter *slots = &m->fixed[SLOTS];

	m->metrics = val;
	m->metrics_clear = !val;
	m->metrics_known = !val || (slots->known && slots->val &&
				    !(val & facts.metrics_rsvd));
}

/* PERFCTRx takes 32 bits from a guest, and extends their sign (SDM). */
static u64 perfctr_value(u64 val, enum accessor access)
{
	return access == BY_HOST ? val : (u64)(s64)(s32)val;
}

static void set_capabilities(struct model *m, u64 val)
{
	if (m->capabilities == val)
		return;
	m->capabilities = val;
	configure(m);
}

static void write_reg(struct model *m, enum pmu_reg reg, u32 i, enum accessor access, u64 val)
{
	bool cut = kvm_cuts_to_vcpu_width(m, access);

	switch (reg) {
	case PERFCTR:
		val = perfctr_value(val, access);
		fallthrough;
	case PMC:
		set_counter(&m->gp[i], val & (cut ? m->gp_mask : facts.gp_mask));
		break;
	case EVNTSEL:
		m->evntsel[i] = val;
		break;
	case FIXED_CTR:
		set_counter(&m->fixed[i], val & (cut ? m->fixed_mask : facts.fixed_mask));
		if (i == SLOTS)
			slots_have_changed(m);
		break;
	case FIXED_CTR_CTRL:
		m->fixed_ctrl = val;
		break;
	case GLOBAL_CTRL:
		m->global_ctrl = val;
		break;
	case GLOBAL_STATUS:
		set_status(m, val, ~0ull);
		break;
	case OVF_CTRL:
		/* Userspace's is ignored, so that it can restore all MSRs. */
		if (access != BY_HOST)
			set_status(m, 0, val);
		break;
	case METRICS:
		set_metrics(m, val);
		break;
	case CAPABILITIES:
		set_capabilities(m, val);
		break;
	default:
		break;
	}
}

static void write_msr(struct model *m, u32 msr, enum accessor access, u64 val)
{
	enum pmu_reg reg;
	u32 i;

	reg = decode_msr(msr, &i);
	if (has_reg(m, reg, i))
		write_reg(m, reg, i, access, val);
}

/* The fuzzer: one per thread, with VMs of its own. */

enum count {
	GUEST_RDMSR,
	GUEST_WRMSR,
	GUEST_RDPMC,
	GUEST_OTHER,
	EMULATED,
	USER_MODE,
	HOST_GET,
	HOST_SET,
	HOST_CPUID,
	HOST_CAP,
	HOST_FILTER,
	RUNS_INTERRUPTED,
	RUNS_HANDED_OVER,
	MOVES,
	RESTORES,
	KILLS,
	VMS,
	EXACT,
	OVERFLOWS,
	NR_COUNTS,
};

static const char *const count_names[] = {
	[GUEST_RDMSR] = "guest rdmsr",
	[GUEST_WRMSR] = "wrmsr",
	[GUEST_RDPMC] = "rdpmc",
	[GUEST_OTHER] = "other",
	[EMULATED] = "of these emulated",
	[USER_MODE] = "of these in user mode",
	[HOST_GET] = "host get",
	[HOST_SET] = "set",
	[HOST_CPUID] = "cpuid",
	[HOST_CAP] = "capabilities",
	[HOST_FILTER] = "filters",
	[RUNS_INTERRUPTED] = "runs interrupted",
	[RUNS_HANDED_OVER] = "handed over",
	[MOVES] = "moves",
	[RESTORES] = "restores",
	[KILLS] = "kills",
	[VMS] = "VMs",
	[EXACT] = "counters read at rest",
	[OVERFLOWS] = "overflows",
};

struct vcpu {
	struct kvm_vcpu *vcpu;
	struct batch *batch;
	struct model model;
};

struct fuzzer {
	pthread_t thread;
	u64 random;
	int id;
	u64 nr_ops;
	u64 done;
	u64 counts[NR_COUNTS];

	struct kvm_vm *vm;
	struct vcpu vcpus[MAX_VCPUS];
	int nr_vcpus;
	u64 batches_left;
	bool pmu_enabled;
	struct filter filter;
	struct filter new_filter;
};

static struct {
	u64 seed;
	u64 nr_ops;
	int nr_threads;
	u64 trace_from;
	bool verbose;
	bool wild;
} options = {
	.nr_ops = 20000,
	.nr_threads = 1,
	.trace_from = ~0ull,
};

static void __printf(4, 5) wrong(struct fuzzer *f, struct vcpu *v, u64 nr, const char *fmt, ...)
{
	static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
	const struct model *m = &v->model;
	va_list ap;

	pthread_mutex_lock(&one);
	fflush(stdout);
	printf("# operation %lu of thread %d: ", nr, f->id);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n# vCPU %d of %d: version %u, %u+%u counters of 0x%lx and 0x%lx\n",
	       (int)(v - f->vcpus), f->nr_vcpus, m->version, m->nr_gp, m->nr_fixed,
	       m->gp_mask, m->fixed_mask);
	printf("# capabilities 0x%lx%s, PMU %s, metrics %s, %s, %s\n",
	       m->capabilities, m->pdcm ? "" : " (no PDCM)",
	       m->pmu_enabled ? "on" : "off", m->has_metrics ? "yes" : "no",
	       m->mediated ? "mediated" : "not mediated", m->ran ? "ran" : "never ran");
	printf("# GLOBAL_CTRL 0x%lx, FIXED_CTR_CTRL 0x%lx, counting 0x%lx\n",
	       m->global_ctrl, m->fixed_ctrl, m->counting);
	printf("# status 0x%lx, of which 0x%lx is known\n", m->status, m->status_known);
	printf("# replay: pmu_fuzz_test -s 0x%lx -n %lu -t %d%s\n",
	       options.seed, options.nr_ops, options.nr_threads,
	       options.wild ? " -w" : "");
	ksft_test_result_fail("fuzz\n");
	ksft_exit_fail();
}

/* Marsaglia's xorshift64*. */
static u64 next_random(struct fuzzer *f)
{
	f->random ^= f->random >> 12;
	f->random ^= f->random << 25;
	f->random ^= f->random >> 27;
	return f->random * 0x2545f4914f6cdd1dull;
}

static u32 below(struct fuzzer *f, u32 n)
{
	return (next_random(f) >> 32) * n >> 32;
}

static bool one_in(struct fuzzer *f, u32 n)
{
	return !below(f, n);
}

/* What to try. */

static const u64 events[] = {
	INTEL_ARCH_CPU_CYCLES,
	INTEL_ARCH_INSTRUCTIONS_RETIRED,
	INTEL_ARCH_REFERENCE_CYCLES,
	INTEL_ARCH_LLC_REFERENCES,
	INTEL_ARCH_LLC_MISSES,
	INTEL_ARCH_BRANCHES_RETIRED,
	INTEL_ARCH_BRANCHES_MISPREDICTED,
	INTEL_ARCH_TOPDOWN_SLOTS,
};

static u64 valid_evntsel(struct fuzzer *f)
{
	u64 val = events[below(f, ARRAY_SIZE(events))];

	val |= next_random(f) & (ARCH_PERFMON_EVENTSEL_USR | ARCH_PERFMON_EVENTSEL_OS |
				 ARCH_PERFMON_EVENTSEL_INT | ARCH_PERFMON_EVENTSEL_ENABLE);
	if (one_in(f, 8))
		val |= next_random(f) & (ARCH_PERFMON_EVENTSEL_EDGE |
					 ARCH_PERFMON_EVENTSEL_INV |
					 ARCH_PERFMON_EVENTSEL_CMASK);
	return val;
}

/* Near where a counter ends, of its own width or of another one. */
static u64 edge(struct fuzzer *f)
{
	static const u8 widths[] = { 31, 32, 39, 40, 47, 48 };
	u64 val = BIT_ULL(widths[below(f, ARRAY_SIZE(widths))]);

	return one_in(f, 4) ? val : val - 1 - below(f, 3000);
}

/* The rest of PERF_CAPABILITIES are formats of LBRs and PEBS records. */
#define FLIPPED_CAPABILITIES	(PMU_CAP_FW_WRITES | PMU_CAP_PERF_METRICS)

static u64 valid_value(struct fuzzer *f, const struct model *m, enum pmu_reg reg)
{
	u64 val = next_random(f);

	switch (reg) {
	case PERFCTR:
	case PMC:
	case FIXED_CTR:
		return one_in(f, 3) ? edge(f) : val & GENMASK_ULL(below(f, 48), 0);
	case EVNTSEL:
		return valid_evntsel(f);
	case FIXED_CTR_CTRL:
		return val & fixed_ctrl_bits(m);
	case GLOBAL_CTRL:
		/* Most of the time nothing should count. */
		return one_in(f, 3) ? val & m->enables : 0;
	case GLOBAL_STATUS:
	case OVF_CTRL:
		return val & m->enables;
	case METRICS:
		return val & ~facts.metrics_rsvd;
	case CAPABILITIES:
		return facts.perf_capabilities & (val | ~FLIPPED_CAPABILITIES);
	default:
		return val;
	}
}

static u64 any_value(struct fuzzer *f, const struct model *m, enum pmu_reg reg)
{
	switch (below(f, 16)) {
	case 0:
		return 0;
	case 1:
		return ~0ull;
	case 2:
		return BIT_ULL(below(f, 64));
	case 3:
		return next_random(f);
	case 4:
		return valid_value(f, m, reg) | BIT_ULL(below(f, 64));
	case 5:
		return edge(f);
	default:
		return valid_value(f, m, reg);
	}
}

/*
 * KVM without PERF_METRICS may be so old that it counts an instruction or branch that
 * it emulates also where there is a counter mask.  To hardware that looks like a
 * count that came from nowhere.
 */
static u64 without_mask(u64 evntsel)
{
	const u64 event = ARCH_PERFMON_EVENTSEL_EVENT | ARCH_PERFMON_EVENTSEL_UMASK;

	if ((evntsel & event) == INTEL_ARCH_INSTRUCTIONS_RETIRED ||
	    (evntsel & event) == INTEL_ARCH_BRANCHES_RETIRED)
		evntsel &= ~ARCH_PERFMON_EVENTSEL_CMASK;
	return evntsel;
}

/*
 * KVM complains on the console about values that it ignores, hosts with TSX have
 * bits in EVNTSEL that depend on CPUID, and so do the formats of LBRs and PEBS
 * records.  None of that is about the PMU proper.
 */
static u64 tame_value(const struct model *m, u32 msr, enum accessor access, u64 val)
{
	enum pmu_reg reg;
	u32 i;

	reg = decode_msr(msr, &i);
	if (!has_reg(m, reg, i) && kvm_ignores_p6_msr(msr))
		return 0;
	if (reg == EVNTSEL) {
		if (facts.has_rtm)
			val &= ~GENMASK_ULL(33, 32);
		if (!(facts.perf_capabilities & PMU_CAP_PERF_METRICS))
			val = without_mask(val);
		return val;
	}
	if (reg == CAPABILITIES && !(val & ~facts.perf_capabilities))
		return val | (facts.perf_capabilities & ~FLIPPED_CAPABILITIES);
	if (reg == GLOBAL_STATUS && access == BY_HOST && kvm_may_fault_on_status(val))
		return val & ~COND_CHANGED;
	return val;
}

/* A register of all that exist, or might; counters more often than others. */
static u32 any_msr(struct fuzzer *f)
{
	static const u32 singles[] = {
		MSR_CORE_PERF_GLOBAL_CTRL,
		MSR_CORE_PERF_GLOBAL_CTRL,
		MSR_CORE_PERF_GLOBAL_STATUS,
		MSR_CORE_PERF_GLOBAL_OVF_CTRL,
		MSR_PERF_METRICS,
		MSR_PERF_METRICS,
		MSR_PERF_METRICS,
		MSR_CORE_PERF_FIXED_CTR_CTRL,
		MSR_IA32_PERF_CAPABILITIES,
		MSR_PERF_GLOBAL_STATUS_SET,
		MSR_PERF_GLOBAL_INUSE,
	};
	u32 i = below(f, 16);

	if (i < 3)
		return MSR_IA32_PERFCTR0 + below(f, MAX_GP);
	if (i < 6)
		return MSR_IA32_PMC0 + below(f, MAX_GP);
	if (i < 9)
		return MSR_CORE_PERF_FIXED_CTR0 + below(f, one_in(f, 4) ? 7 : MAX_FIXED);
	if (i < 10)
		return MSR_P6_EVNTSEL0 + below(f, MAX_GP);
	return singles[below(f, ARRAY_SIZE(singles))];
}

static u32 any_rdpmc_index(struct fuzzer *f)
{
	static const u32 types[] = {
		0, 0, 0, INTEL_RDPMC_FIXED, INTEL_RDPMC_FIXED, INTEL_RDPMC_FIXED,
		INTEL_RDPMC_METRICS, INTEL_RDPMC_METRICS,
	};
	u32 type = types[below(f, ARRAY_SIZE(types))];

	switch (below(f, 32)) {
	case 0:
		return next_random(f);
	case 1:
		return BIT(below(f, 32)) | below(f, 4);
	case 2:
		return type | 0xffff;
	default:
		if (type == (u32)INTEL_RDPMC_METRICS)
			return type | (one_in(f, 4) ? below(f, 4) : 0);
		return type | below(f, one_in(f, 4) ? 10 : type ? MAX_FIXED : MAX_GP);
	}
}

/* Hostile guest. */

#define NR_OVERFLOW_STEPS	9
#define NR_LEAVING_STEPS	3
#define NR_LOOK_STEPS		2

static void make_op(struct fuzzer *f, const struct model *m, struct op *op)
{
	enum pmu_reg reg;
	u32 i;

	*op = (struct op) {};
	if (is_forced_emulation_enabled && one_in(f, 16))
		op->how |= BY_EMULATOR;
	if (one_in(f, 8))
		op->how |= IN_USER_MODE;

	switch (below(f, 32)) {
	case 0:
		op->what = one_in(f, 2) ? SET_PCE : CLEAR_PCE;
		break;
	case 1:
		op->what = WORK;
		op->value = 1 + below(f, 100);
		break;
	case 2 ... 11:
		op->what = RDPMC;
		op->index = any_rdpmc_index(f);
		break;
	case 12 ... 20:
		op->what = RDMSR;
		op->index = any_msr(f);
		break;
	default:
		op->what = WRMSR;
		op->index = any_msr(f);
		reg = decode_msr(op->index, &i);
		op->value = tame_value(m, op->index, BY_CPU, any_value(f, m, reg));
		break;
	}
	if (op->what >= NR_INSNS)
		op->how = 0;
}

/*
 * Chance alone rarely lets a counter overflow.  The steps are like any others, e.g.
 * fail if the vCPU doesn't have the counter.
 */
static void make_overflow(struct fuzzer *f, const struct model *m, struct op *op)
{
	u32 i = below(f, MAX_GP + MAX_FIXED);
	bool fixed = i >= MAX_GP;
	u64 bit = BIT_ULL(fixed ? FIXED_BIT(i - MAX_GP) : i);
	u64 pmi = one_in(f, 4) ? FIXED_PMC_ENABLE_PMI : 0;
	const struct op steps[NR_OVERFLOW_STEPS] = {
		{ WRMSR, 0, MSR_CORE_PERF_GLOBAL_CTRL, 0 },
		{ WRMSR, 0, MSR_CORE_PERF_GLOBAL_OVF_CTRL, bit },
		{ WRMSR, 0, fixed ? MSR_CORE_PERF_FIXED_CTR0 + i - MAX_GP : MSR_IA32_PMC0 + i,
		  (fixed ? facts.fixed_mask : facts.gp_mask) - below(f, 400) },
		fixed ? (struct op) { WRMSR, 0, MSR_CORE_PERF_FIXED_CTR_CTRL,
				      FIXED_PMC_CTRL(i - MAX_GP, FIXED_PMC_KERNEL | pmi) } :
			(struct op) { WRMSR, 0, MSR_P6_EVNTSEL0 + i,
				      valid_evntsel(f) | ARCH_PERFMON_EVENTSEL_ENABLE },
		{ WRMSR, 0, MSR_CORE_PERF_GLOBAL_CTRL, bit },
		{ WORK, 0, 0, 1 + below(f, 100) },
		{ WRMSR, 0, MSR_CORE_PERF_GLOBAL_CTRL, 0 },
		{ RDPMC, 0, fixed ? (u32)INTEL_RDPMC_FIXED | (i - MAX_GP) : i },
		{ RDMSR, 0, MSR_CORE_PERF_GLOBAL_STATUS },
	};

	memcpy(op, steps, sizeof(steps));
	for (i = 0; i < NR_OVERFLOW_STEPS; i++) {
		op[i].value = tame_value(m, op[i].index, BY_CPU, op[i].value);
		if (is_forced_emulation_enabled && op[i].what < NR_INSNS && one_in(f, 16))
			op[i].how = BY_EMULATOR;
	}
}

/*
 * PERF_METRICS are fractions of counter 3.  Before another vCPU runs, leave slots in
 * the fractions of a counter that reads as zero, or don't...
 */
static void make_leavings(struct fuzzer *f, struct op *op)
{
	u64 metrics = one_in(f, 2) ? 0 : next_random(f) & ~facts.metrics_rsvd;
	const struct op steps[NR_LEAVING_STEPS] = {
		{ WRMSR, 0, MSR_CORE_PERF_FIXED_CTR3, 1 + below(f, 1000000) },
		{ WRMSR, 0, MSR_PERF_METRICS, metrics },
		{ WRMSR, 0, MSR_CORE_PERF_FIXED_CTR3, 0 },
	};

	memcpy(op, steps, sizeof(steps));
}

/* ... and look whether they are somebody else's fractions then. */
static void make_look(struct fuzzer *f, struct op *op)
{
	const struct op steps[NR_LOOK_STEPS] = {
		{ WRMSR, 0, MSR_CORE_PERF_FIXED_CTR3, 1 + below(f, 1000000) },
		{ RDMSR, 0, MSR_PERF_METRICS },
	};

	memcpy(op, steps, sizeof(steps));
}

static void make_batch(struct fuzzer *f, struct vcpu *v)
{
	struct batch *batch = v->batch;
	u32 i = 0;

	batch->nr = NR_LOOK_STEPS + below(f, MAX_OPS - NR_LOOK_STEPS - NR_LEAVING_STEPS);
	if (one_in(f, 4)) {
		make_look(f, batch->ops);
		i = NR_LOOK_STEPS;
	}
	for (; i < batch->nr; i++) {
		if (i + NR_OVERFLOW_STEPS <= batch->nr && one_in(f, 100)) {
			make_overflow(f, &v->model, &batch->ops[i]);
			i += NR_OVERFLOW_STEPS - 1;
		} else {
			make_op(f, &v->model, &batch->ops[i]);
		}
	}
	if (one_in(f, 4)) {
		make_leavings(f, &batch->ops[batch->nr]);
		batch->nr += NR_LEAVING_STEPS;
	}
}

static void format_op(char *buf, size_t size, const struct op *op)
{
	static const char *const names[] = {
		[RDMSR] = "RDMSR",
		[WRMSR] = "WRMSR",
		[RDPMC] = "RDPMC",
		[SET_PCE] = "set CR4.PCE",
		[CLEAR_PCE] = "clear CR4.PCE",
		[WORK] = "work",
	};
	char value[32] = "", got[48] = "no exception";

	if (op->what >= NR_INSNS) {
		snprintf(buf, size, "%s", names[op->what]);
		return;
	}
	if (op->what == WRMSR)
		snprintf(value, sizeof(value), ", 0x%lx", op->value);
	if (op->vector)
		snprintf(got, sizeof(got), "%s", ex_str(op->vector));
	else if (op->what != WRMSR)
		snprintf(got, sizeof(got), "0x%lx", op->result);

	snprintf(buf, size, "%s(0x%x%s), %s at CPL %d: %s", names[op->what], op->index,
		 value, op->how & BY_EMULATOR ? "emulated" : "native",
		 op->how & IN_USER_MODE ? 3 : 0, got);
}

static void trace_op(struct fuzzer *f, struct vcpu *v, const struct op *op, u64 nr)
{
	char buf[128];

	if (nr < options.trace_from)
		return;
	format_op(buf, sizeof(buf), op);
	printf("# %d/%d %lu: %s\n", f->id, (int)(v - f->vcpus), nr, buf);
}

#define HISTORY	12

static void wrong_op(struct fuzzer *f, struct vcpu *v, const struct op *op, u64 nr,
		     u64 want, const char *why)
{
	const struct op *before = op - min_t(u64, HISTORY, (op - v->batch->ops));
	char buf[128];

	for (; before < op; before++) {
		format_op(buf, sizeof(buf), before);
		printf("# before: %s\n", buf);
	}
	format_op(buf, sizeof(buf), op);
	wrong(f, v, nr, "%s: %s (the model has 0x%lx)", buf, why, want);
}

static enum outcome expected_outcome(struct model *m, const struct op *op, enum accessor access)
{
	bool privileged = !(op->how & IN_USER_MODE);

	if (op->what == RDPMC)
		return rdpmc_outcome(m, op->index, privileged);
	if (!privileged)
		return FAILURE;
	if (op->what == RDMSR)
		return read_outcome(m, op->index, access);
	return write_outcome(m, op->index, access, op->value);
}

static void check_insn(struct fuzzer *f, struct vcpu *v, const struct op *op, u64 nr)
{
	enum accessor access = op->how & BY_EMULATOR ? BY_KVM : BY_CPU;
	struct model *m = &v->model;
	const char *why = NULL;
	u64 want = 0;

	if (op->vector && op->vector != GP_VECTOR)
		why = "only #GP is possible";
	if (!why)
		why = wrong_outcome(expected_outcome(m, op, access), op->vector);
	if (!why && !op->vector) {
		if (op->what == RDPMC)
			why = check_rdpmc(m, op->index, op->result, &want);
		else if (op->what == RDMSR)
			why = check_read(m, op->index, access, op->result, &want);
		else
			write_msr(m, op->index, access, op->value);
	}
	if (why)
		wrong_op(f, v, op, nr, want, why);
}

static void count_op(struct fuzzer *f, const struct op *op)
{
	static const enum count counts[] = {
		[RDMSR] = GUEST_RDMSR,
		[WRMSR] = GUEST_WRMSR,
		[RDPMC] = GUEST_RDPMC,
		[SET_PCE] = GUEST_OTHER,
		[CLEAR_PCE] = GUEST_OTHER,
		[WORK] = GUEST_OTHER,
	};

	f->counts[counts[op->what]]++;
	f->counts[EMULATED] += !!(op->how & BY_EMULATOR);
	f->counts[USER_MODE] += !!(op->how & IN_USER_MODE);
}

static void check_batch(struct fuzzer *f, struct vcpu *v)
{
	struct model *m = &v->model;
	const struct op *op;
	u32 i;

	m->ran = true;
	kvm_drops_cond_changed(m);
	update_counting(m, &f->filter, &f->new_filter);
	for (i = 0; i < v->batch->nr; i++) {
		op = &v->batch->ops[i];
		count_op(f, op);
		trace_op(f, v, op, f->done + i);
		let_time_pass(m);
		if (op->what == SET_PCE || op->what == CLEAR_PCE)
			m->pce = op->what == SET_PCE;
		else if (op->what < NR_INSNS)
			check_insn(f, v, op, f->done + i);
		if (op->what == WRMSR) {
			update_counting(m, &f->filter, &f->new_filter);
			let_time_pass(m);
		}
	}
	let_time_pass(m);
	f->done += v->batch->nr;
	f->filter = f->new_filter;
	update_counting(m, &f->filter, &f->filter);
}

/* True if the batch is complete, false if a signal came in between. */
static bool run_vcpu(struct fuzzer *f, struct vcpu *v)
{
	struct kvm_run *run = v->vcpu->run;
	struct ucall uc;

	if (__vcpu_run(v->vcpu)) {
		if (errno == EINTR)
			return false;
		wrong(f, v, f->done, "KVM_RUN: %s", strerror(errno));
	}
	if (run->exit_reason == KVM_EXIT_IO && run->io.port == BATCH_PORT)
		return true;

	if (run->exit_reason == KVM_EXIT_IO && get_ucall(v->vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	wrong(f, v, f->done + v->batch->at, "exit to userspace: %s",
	      exit_reason_str(run->exit_reason));
	return false;
}

static void run_batch(struct fuzzer *f, struct vcpu *v)
{
	make_batch(f, v);
	while (!run_vcpu(f, v))
		;
	check_batch(f, v);
}

/* Run the guest in another thread, which a signal ends; the batch goes on here. */

struct runner {
	struct fuzzer *f;
	struct vcpu *v;
	bool complete;
};

static void *run_in_thread(void *arg)
{
	struct runner *runner = arg;

	runner->complete = run_vcpu(runner->f, runner->v);
	return NULL;
}

static int set_filter(struct fuzzer *f, const struct filter *filter);
static void make_filter(struct fuzzer *f, struct filter *filter);

static int any_cpu(struct fuzzer *f)
{
	int nr = below(f, CPU_COUNT(&facts.cpus)), cpu;

	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &facts.cpus) && !nr--)
			break;
	}
	return cpu;
}

static void hand_over(struct fuzzer *f, struct vcpu *v)
{
	struct runner runner = { .f = f, .v = v };
	bool filters = one_in(f, 2), moves = one_in(f, 2);
	u32 yields = below(f, 20);
	pthread_t thread;
	int r;

	make_batch(f, v);
	r = pthread_create(&thread, NULL, run_in_thread, &runner);
	TEST_ASSERT(!r, "pthread_create() failed: %s", strerror(r));

	while (yields--)
		sched_yield();
	if (moves) {
		__pin_task_to_cpu(thread, any_cpu(f));
		f->counts[MOVES]++;
	}
	if (filters) {
		make_filter(f, &f->new_filter);
		r = set_filter(f, &f->new_filter);
		if (r)
			wrong(f, v, f->done, "KVM_SET_PMU_EVENT_FILTER while running: %s",
			      strerror(errno));
	}
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	f->counts[RUNS_HANDED_OVER]++;

	while (!runner.complete)
		runner.complete = run_vcpu(f, v);
	check_batch(f, v);
}

/* Hostile userspace. */

struct msr_list {
	struct kvm_msrs header;
	struct kvm_msr_entry entries[MAX_IO_MSRS];
};

static void wrong_msr(struct fuzzer *f, struct vcpu *v, const char *ioctl,
		      const struct msr_list *list, int i, int r, u64 want, const char *why)
{
	wrong(f, v, f->done + i,
	      "%s of %u MSRs returned %d: MSR 0x%x, 0x%llx (the model's is 0x%lx): %s",
	      ioctl, list->header.nmsrs, r, list->entries[i].index,
	      list->entries[i].data, want, why);
}

static void trace_msr(struct fuzzer *f, struct vcpu *v, const char *ioctl,
		      const struct msr_list *list, int i)
{
	if (f->done + i >= options.trace_from)
		printf("# %d/%d %lu: %s(0x%x): 0x%llx\n", f->id, (int)(v - f->vcpus),
		       f->done + i, ioctl, list->entries[i].index, list->entries[i].data);
}

static void get_msrs(struct fuzzer *f, struct vcpu *v, struct msr_list *list)
{
	int r, i, nr = list->header.nmsrs;
	struct model *m = &v->model;
	const char *why;
	u64 want = 0;

	r = __vcpu_ioctl(v->vcpu, KVM_GET_MSRS, &list->header);
	for (i = 0; i < nr; i++) {
		why = wrong_outcome(read_outcome(m, list->entries[i].index, BY_HOST), i >= r);
		if (!why && i < r)
			why = check_read(m, list->entries[i].index, BY_HOST,
					 list->entries[i].data, &want);
		trace_msr(f, v, "KVM_GET_MSRS", list, i);
		if (why)
			wrong_msr(f, v, "KVM_GET_MSRS", list, i, r, want, why);
		if (i >= r)
			break;
	}
	f->done += nr;
	f->counts[HOST_GET] += nr;
}

static void set_msrs(struct fuzzer *f, struct vcpu *v, struct msr_list *list)
{
	int r, i, nr = list->header.nmsrs;
	struct model *m = &v->model;
	enum outcome expected;
	const char *why;

	r = __vcpu_ioctl(v->vcpu, KVM_SET_MSRS, &list->header);
	for (i = 0; i < nr; i++) {
		expected = write_outcome(m, list->entries[i].index, BY_HOST,
					 list->entries[i].data);
		why = wrong_outcome(expected, i >= r);
		trace_msr(f, v, "KVM_SET_MSRS", list, i);
		if (why)
			wrong_msr(f, v, "KVM_SET_MSRS", list, i, r, 0, why);
		if (i >= r)
			break;
		write_msr(m, list->entries[i].index, BY_HOST, list->entries[i].data);
	}
	update_counting(m, &f->filter, &f->filter);
	f->done += nr;
	f->counts[HOST_SET] += nr;
}

static void access_msrs(struct fuzzer *f, struct vcpu *v)
{
	bool set = one_in(f, 2);
	struct msr_list list;
	u64 val;
	u32 msr, i;
	enum pmu_reg reg;

	list.header.nmsrs = 1 + below(f, MAX_MSR_LIST);
	for (i = 0; i < list.header.nmsrs; i++) {
		msr = any_msr(f);
		reg = reg_of(msr);
		val = tame_value(&v->model, msr, BY_HOST, any_value(f, &v->model, reg));
		/* What doesn't fail gets farther. */
		if (set && !one_in(f, 8) &&
		    write_outcome(&v->model, msr, BY_HOST, val) == FAILURE) {
			msr = MSR_IA32_PERFCTR0;
			val = tame_value(&v->model, msr, BY_HOST, val);
		}
		list.entries[i] = (struct kvm_msr_entry) { .index = msr, .data = val };
	}
	if (set)
		set_msrs(f, v, &list);
	else
		get_msrs(f, v, &list);
}

static void access_too_many_msrs(struct fuzzer *f, struct vcpu *v)
{
	struct msr_list list = { .header.nmsrs = MAX_IO_MSRS };
	int r;

	r = __vcpu_ioctl(v->vcpu, KVM_SET_MSRS, &list.header);
	if (r != -1 || errno != E2BIG)
		wrong(f, v, f->done, "KVM_SET_MSRS of %u MSRs returned %d, want E2BIG",
		      MAX_IO_MSRS, r);
	f->done++;
	f->counts[HOST_SET]++;
}

/* CPUID. */

static struct kvm_cpuid_entry2 *pmu_leaf(struct vcpu *v)
{
	return (struct kvm_cpuid_entry2 *)get_cpuid_entry(v->vcpu->cpuid, 0xa, 0);
}

static u32 any_width(struct fuzzer *f, u64 mask)
{
	u32 width = __builtin_popcountll(mask);

	if (!one_in(f, 4))
		return width;
	return options.wild || !facts.mediated ? below(f, 65) : width + below(f, 16);
}

static void make_leaf(struct fuzzer *f, u32 *eax, u32 *edx)
{
	u32 version = one_in(f, 3) ? below(f, 6) : 2;
	u32 nr_gp = one_in(f, 2) ? below(f, facts.nr_gp + 3) : facts.nr_gp;
	u32 nr_fixed = one_in(f, 2) ? below(f, facts.nr_fixed + 3) : facts.nr_fixed;

	*eax = version | nr_gp << 8 | any_width(f, facts.gp_mask) << 16 |
	       (facts.leaf_eax & GENMASK(31, 24));
	*edx = nr_fixed | any_width(f, facts.fixed_mask) << 5 |
	       (facts.leaf_edx & GENMASK(31, 13));
}

static bool flip_pdcm(struct vcpu *v)
{
	struct kvm_cpuid_entry2 *entry;

	entry = (struct kvm_cpuid_entry2 *)get_cpuid_entry(v->vcpu->cpuid, 1, 0);
	entry->ecx ^= BIT(X86_FEATURE_PDCM.bit);
	return entry->ecx & BIT(X86_FEATURE_PDCM.bit);
}

/*
 * The vCPU's model can be set as often as userspace likes until it runs, and
 * can't be changed from then on.
 */
static void set_cpuid(struct fuzzer *f, struct vcpu *v, u32 eax, u32 edx, bool flip)
{
	struct kvm_cpuid_entry2 *leaf = pmu_leaf(v);
	struct kvm_cpuid_entry2 old = *leaf;
	struct model *m = &v->model;
	bool pdcm = m->pdcm, fails;
	int r;

	leaf->eax = eax;
	leaf->edx = edx;
	if (flip)
		pdcm = flip_pdcm(v);

	fails = m->ran && (eax != old.eax || edx != old.edx || flip);
	r = __vcpu_ioctl(v->vcpu, KVM_SET_CPUID2, v->vcpu->cpuid);
	if (r != (fails ? -1 : 0) || (fails && errno != EINVAL))
		wrong(f, v, f->done,
		      "KVM_SET_CPUID2, leaf 0xa 0x%x, 0x%x: returned %d, %s, want %s",
		      eax, edx, r, strerror(errno), fails ? "EINVAL" : "0");
	f->done++;
	f->counts[HOST_CPUID]++;

	if (fails) {
		*leaf = old;
		if (flip)
			flip_pdcm(v);
		return;
	}
	if (m->ran)
		return;
	m->leaf_eax = eax;
	m->leaf_edx = edx;
	m->pdcm = pdcm;
	configure(m);
}

static void set_any_cpuid(struct fuzzer *f, struct vcpu *v)
{
	u32 eax = v->model.leaf_eax, edx = v->model.leaf_edx;

	if (!one_in(f, 4))
		make_leaf(f, &eax, &edx);
	set_cpuid(f, v, eax, edx, facts.has_pdcm && one_in(f, 6));
}

/* The event filter. */

static int set_filter(struct fuzzer *f, const struct filter *filter)
{
	struct {
		struct kvm_pmu_event_filter header;
		u64 events[MAX_FILTER_EVENTS];
	} arg = {
		.header.action = filter->action,
		.header.nevents = filter->nr,
		.header.fixed_counter_bitmap = filter->fixed_bitmap,
		.header.flags = filter->flags,
	};

	memcpy(arg.events, filter->events, sizeof(arg.events));
	f->done++;
	f->counts[HOST_FILTER]++;
	return __vm_ioctl(f->vm, KVM_SET_PMU_EVENT_FILTER, &arg.header);
}

static void use_filter(struct fuzzer *f, const struct filter *filter)
{
	f->filter = *filter;
	f->new_filter = *filter;
}

static void make_filter(struct fuzzer *f, struct filter *filter)
{
	u64 event;
	int i;

	*filter = (struct filter) {
		.set = true,
		.action = one_in(f, 2) ? KVM_PMU_EVENT_ALLOW : KVM_PMU_EVENT_DENY,
		.fixed_bitmap = one_in(f, 4) ? next_random(f) : below(f, 16),
		.flags = one_in(f, 2) ? KVM_PMU_EVENT_FLAG_MASKED_EVENTS : 0,
		.nr = below(f, MAX_FILTER_EVENTS + 1),
	};
	for (i = 0; i < filter->nr; i++) {
		event = events[below(f, ARRAY_SIZE(events))];
		if (filter->flags)
			event = KVM_PMU_ENCODE_MASKED_ENTRY(event & 0xff,
							    one_in(f, 2) ? 0xff : below(f, 256),
							    event >> 8 & 0xff, one_in(f, 4));
		else if (one_in(f, 8))
			event |= BIT_ULL(16 + below(f, 48));
		filter->events[i] = event;
	}
}

static void set_any_filter(struct fuzzer *f, struct vcpu *v)
{
	int r, expected = 0;
	struct filter filter;

	make_filter(f, &filter);
	switch (below(f, 8)) {
	case 0:
		filter.action = 2 + below(f, 100);
		expected = EINVAL;
		break;
	case 1:
		filter.flags |= BIT(1 + below(f, 31));
		expected = EINVAL;
		break;
	case 2:
		filter.nr = KVM_PMU_EVENT_FILTER_MAX_EVENTS + 1 + below(f, 100);
		expected = E2BIG;
		break;
	case 3:
		/* Bits that no masked entry has. */
		filter.flags = KVM_PMU_EVENT_FLAG_MASKED_EVENTS;
		filter.nr = 1;
		filter.events[0] = BIT_ULL(16 + below(f, 16));
		expected = EINVAL;
		break;
	}

	r = set_filter(f, &filter);
	if (r != (expected ? -1 : 0) || (expected && errno != expected))
		wrong(f, v, f->done,
		      "KVM_SET_PMU_EVENT_FILTER(action %u, flags 0x%x, %u events) returned %d, %s, want %s",
		      filter.action, filter.flags, filter.nr, r, strerror(errno),
		      strerror(expected));
	if (!expected)
		use_filter(f, &filter);
}

/* KVM_CAP_PMU_CAPABILITY, which is for VMs without vCPUs. */

static void enable_any_cap(struct fuzzer *f, struct vcpu *v)
{
	u64 arg = one_in(f, 2) ? below(f, 2) : next_random(f);
	int r;

	r = __vm_enable_cap(f->vm, KVM_CAP_PMU_CAPABILITY, arg);
	if (r != -1 || errno != EINVAL)
		wrong(f, v, f->done,
		      "KVM_CAP_PMU_CAPABILITY(0x%lx) with vCPUs returned %d, want EINVAL",
		      arg, r);
	f->done++;
	f->counts[HOST_CAP]++;
}

static void configure_vm(struct fuzzer *f)
{
	u64 garbage = next_random(f) | BIT_ULL(1 + below(f, 63));
	int r;

	f->pmu_enabled = true;
	if (!facts.can_disable)
		return;

	r = __vm_enable_cap(f->vm, KVM_CAP_PMU_CAPABILITY, garbage);
	TEST_ASSERT(r == -1 && errno == EINVAL,
		    "KVM_CAP_PMU_CAPABILITY(0x%lx) returned %d, want EINVAL", garbage, r);
	f->pmu_enabled = !one_in(f, 12);
	if (!f->pmu_enabled || one_in(f, 4))
		vm_enable_cap(f->vm, KVM_CAP_PMU_CAPABILITY,
			      f->pmu_enabled ? 0 : KVM_PMU_CAP_DISABLE);
	f->done++;
	f->counts[HOST_CAP]++;
}

/* KVM_RUN that returns at once doesn't count as having run. */
static void interrupt_run(struct fuzzer *f, struct vcpu *v)
{
	int r;

	v->vcpu->run->immediate_exit = 1;
	r = __vcpu_run(v->vcpu);
	v->vcpu->run->immediate_exit = 0;
	if (r != -1 || errno != EINTR)
		wrong(f, v, f->done, "KVM_RUN with immediate_exit returned %d, want EINTR", r);
	f->done++;
	f->counts[RUNS_INTERRUPTED]++;
}

/* VMs and vCPUs. */

/* By default, a vCPU has all that KVM supports. */
static void add_vcpu(struct fuzzer *f)
{
	struct vcpu *v = &f->vcpus[f->nr_vcpus];
	gva_t batch;

	batch = vm_alloc_pages(f->vm, DIV_ROUND_UP(sizeof(struct batch), getpagesize()));
	*v = (struct vcpu) {
		.vcpu = vm_vcpu_add(f->vm, f->nr_vcpus, guest_main),
		.batch = addr_gva2hva(f->vm, batch),
		.model = {
			.leaf_eax = facts.leaf_eax,
			.leaf_edx = facts.leaf_edx,
			.capabilities = facts.perf_capabilities & ~PMU_CAP_PERF_METRICS,
			.pdcm = facts.has_pdcm,
			.pmu_enabled = f->pmu_enabled,
		},
	};
	vcpu_args_set(v->vcpu, 1, batch);
	configure(&v->model);
	f->nr_vcpus++;
}

static void destroy_vm(struct fuzzer *f)
{
	int i;

	for (i = 0; i < f->nr_vcpus; i++) {
		f->counts[EXACT] += f->vcpus[i].model.nr_exact;
		f->counts[OVERFLOWS] += f->vcpus[i].model.nr_overflows;
	}
	kvm_vm_free(f->vm);
	f->vm = NULL;
}

static void create_vm(struct fuzzer *f, int nr_vcpus)
{
	f->vm = vm_create(nr_vcpus);
	f->nr_vcpus = 0;
	use_filter(f, &(struct filter) {});
	configure_vm(f);
	while (nr_vcpus--)
		add_vcpu(f);
	prepare_user_mode(f->vm, user_insns, guest_fault);
	f->counts[VMS]++;
}

static void set_capabilities_msr(struct fuzzer *f, struct vcpu *v, u64 val)
{
	struct msr_list list = {
		.header.nmsrs = 1,
		.entries[0] = { .index = MSR_IA32_PERF_CAPABILITIES, .data = val },
	};

	set_msrs(f, v, &list);
}

static void create_any_vm(struct fuzzer *f)
{
	int i, nr = vcpus_can_share_thread() ? 1 + below(f, MAX_VCPUS) : 1;

	create_vm(f, nr);
	for (i = 0; i < nr; i++) {
		if (!one_in(f, 4))
			set_capabilities_msr(f, &f->vcpus[i], facts.perf_capabilities);
		if (one_in(f, 2))
			continue;
		set_any_cpuid(f, &f->vcpus[i]);
		if (one_in(f, 2))
			set_capabilities_msr(f, &f->vcpus[i],
					     tame_value(&f->vcpus[i].model,
							MSR_IA32_PERF_CAPABILITIES, BY_HOST,
							any_value(f, &f->vcpus[i].model,
								  CAPABILITIES)));
	}
	f->batches_left = 10 + below(f, 80);
}

/* All that a VMM saves, PERF_CAPABILITIES first, as it resets the others. */
static void save_msrs(struct fuzzer *f, struct vcpu *v, struct msr_list *list)
{
	const struct kvm_msr_list *all = kvm_get_msr_index_list();
	struct kvm_msr_entry *entry = list->entries;
	u32 i, reg;

	if (facts.has_pdcm)
		(entry++)->index = MSR_IA32_PERF_CAPABILITIES;
	for (i = 0; i < all->nmsrs; i++) {
		reg = reg_of(all->indices[i]);
		if (reg != NO_REG && reg != CAPABILITIES)
			(entry++)->index = all->indices[i];
	}
	list->header.nmsrs = entry - list->entries;
	get_msrs(f, v, list);
}

/*
 * Move all vCPUs to a new VM, as migration does.  The model of the new ones starts
 * from reset, i.e. that the values survive is the model's own conclusion.
 */
static void save_and_restore(struct fuzzer *f)
{
	struct msr_list lists[MAX_VCPUS] = {};
	struct vcpu old[MAX_VCPUS];
	bool pmu_enabled = f->pmu_enabled;
	struct filter filter = f->filter;
	int i, nr = f->nr_vcpus;

	for (i = 0; i < nr; i++)
		save_msrs(f, &f->vcpus[i], &lists[i]);
	memcpy(old, f->vcpus, sizeof(old));
	destroy_vm(f);

	f->vm = vm_create(nr);
	f->nr_vcpus = 0;
	f->pmu_enabled = pmu_enabled;
	if (!pmu_enabled)
		vm_enable_cap(f->vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
	for (i = 0; i < nr; i++)
		add_vcpu(f);
	prepare_user_mode(f->vm, user_insns, guest_fault);

	for (i = 0; i < nr; i++) {
		set_cpuid(f, &f->vcpus[i], old[i].model.leaf_eax, old[i].model.leaf_edx,
			  old[i].model.pdcm != facts.has_pdcm);
		set_msrs(f, &f->vcpus[i], &lists[i]);
		get_msrs(f, &f->vcpus[i], &lists[i]);
	}
	use_filter(f, &filter);
	if (filter.set && set_filter(f, &filter))
		wrong(f, &f->vcpus[0], f->done, "KVM_SET_PMU_EVENT_FILTER: %s",
		      strerror(errno));
	for (i = 0; i < nr; i++)
		update_counting(&f->vcpus[i].model, &f->filter, &f->filter);
	f->counts[RESTORES]++;
	f->counts[VMS]++;
}

/* A process that is killed while its guest runs must leave nothing behind. */
static void run_until_killed(struct fuzzer *f, int fd)
{
	struct fuzzer child = { .random = next_random(f), .id = f->id };

	/* A VM belongs to the process that created it. */
	if (__vcpu_run(f->vcpus[0].vcpu) != -1 || errno != EIO)
		_exit(1);

	create_vm(&child, 1);
	run_batch(&child, &child.vcpus[0]);
	if (write(fd, "", 1) != 1)
		_exit(2);
	for (;;)
		run_batch(&child, &child.vcpus[0]);
}

static void kill_process(struct fuzzer *f)
{
	u32 yields = below(f, 50);
	int fds[2], status, r;
	pid_t pid;
	char c;

	TEST_ASSERT(!pipe(fds), "pipe() failed");
	fflush(stdout);
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork() failed");
	if (!pid)
		run_until_killed(f, fds[1]);

	close(fds[1]);
	next_random(f);
	r = read(fds[0], &c, 1);
	close(fds[0]);
	while (r == 1 && yields--)
		sched_yield();
	kill(pid, SIGKILL);
	TEST_ASSERT(waitpid(pid, &status, 0) == pid, "waitpid() failed");
	if (r != 1 || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		wrong(f, &f->vcpus[0], f->done,
		      "a process that was to be killed ended with status 0x%x",
		      status);
	f->done++;
	f->counts[KILLS]++;
}

static void move_to_any_cpu(struct fuzzer *f)
{
	pin_self_to_cpu(any_cpu(f));
	f->counts[MOVES]++;
}

static void do_something(struct fuzzer *f)
{
	struct vcpu *v = &f->vcpus[below(f, f->nr_vcpus)];
	u32 what = below(f, 256);

	switch (what) {
	case 0:
		if (one_in(f, 4))
			kill_process(f);
		break;
	case 1:
		if (one_in(f, 4))
			save_and_restore(f);
		break;
	case 2 ... 3:
		access_too_many_msrs(f, v);
		break;
	case 4 ... 7:
		hand_over(f, v);
		break;
	case 8 ... 15:
		set_any_cpuid(f, v);
		break;
	case 16 ... 23:
		set_any_filter(f, v);
		break;
	case 24 ... 27:
		if (facts.can_disable)
			enable_any_cap(f, v);
		break;
	case 28 ... 31:
		interrupt_run(f, v);
		break;
	case 32 ... 39:
		move_to_any_cpu(f);
		break;
	case 40 ... 119:
		access_msrs(f, v);
		break;
	default:
		run_batch(f, v);
		f->batches_left--;
	}
}

static void *fuzz(void *arg)
{
	struct fuzzer *f = arg;
	u64 next_report = 0;

	while (f->done < f->nr_ops) {
		if (f->vm && !f->batches_left)
			destroy_vm(f);
		if (!f->vm)
			create_any_vm(f);
		do_something(f);

		if (options.verbose && f->done >= next_report) {
			printf("# thread %d: %lu operations\n", f->id, f->done);
			next_report += f->nr_ops / 20;
		}
	}
	destroy_vm(f);
	return NULL;
}

static bool perf_has_heavy_ops(void)
{
	char buf[32] = "";
	int fd;

	fd = open("/sys/bus/event_source/devices/cpu/events/topdown-heavy-ops", O_RDONLY);
	if (fd < 0)
		return false;
	if (read(fd, buf, sizeof(buf) - 1) < 0)
		buf[0] = '\0';
	close(fd);
	return !strncmp(buf, "event=0x00,umask=0x84", 21);
}

static void gather_facts(void)
{
	const struct kvm_cpuid_entry2 *leaf;

	leaf = get_cpuid_entry(kvm_get_supported_cpuid(), 0xa, 0);
	facts.leaf_eax = leaf->eax;
	facts.leaf_ebx = leaf->ebx;
	facts.leaf_edx = leaf->edx;
	facts.nr_gp = kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);
	facts.nr_fixed = kvm_cpu_property(X86_PROPERTY_PMU_NR_FIXED_COUNTERS);
	facts.gp_mask = BIT_ULL(kvm_cpu_property(X86_PROPERTY_PMU_GP_COUNTERS_BIT_WIDTH)) - 1;
	facts.fixed_mask = BIT_ULL(kvm_cpu_property(X86_PROPERTY_PMU_FIXED_COUNTERS_BIT_WIDTH)) - 1;
	facts.mediated = kvm_is_mediated_pmu_enabled();
	facts.has_rtm = this_cpu_has(X86_FEATURE_RTM) || this_cpu_has(X86_FEATURE_HLE);
	facts.can_disable = kvm_check_cap(KVM_CAP_PMU_CAPABILITY) & KVM_PMU_CAP_DISABLE;
	facts.has_pdcm = kvm_cpu_has(X86_FEATURE_PDCM);
	if (facts.has_pdcm)
		facts.perf_capabilities = kvm_get_feature_msr(MSR_IA32_PERF_CAPABILITIES);

	/* Four metrics of 8 bits each, or eight where heavy-ops exists. */
	if (!perf_has_heavy_ops())
		facts.metrics_rsvd = GENMASK_ULL(63, 32);

	kvm_get_msr_index_list();
	TEST_ASSERT(!sched_getaffinity(0, sizeof(facts.cpus), &facts.cpus),
		    "sched_getaffinity() failed");
}

static void do_nothing(int signal)
{
}

static void print_counts(const struct fuzzer *fuzzers)
{
	u64 total = 0, count;
	int i, t;

	for (t = 0; t < options.nr_threads; t++)
		total += fuzzers[t].done;
	printf("# operations: %lu (", total);
	for (i = 0; i < NR_COUNTS; i++) {
		count = 0;
		for (t = 0; t < options.nr_threads; t++)
			count += fuzzers[t].counts[i];
		printf("%s%s %lu", i ? ", " : "", count_names[i], count);
	}
	printf(")\n");
}

static void run_fuzzers(void)
{
	struct sigaction action = { .sa_handler = do_nothing };
	struct fuzzer *fuzzers;
	int t, r;

	fuzzers = calloc(options.nr_threads, sizeof(*fuzzers));
	TEST_ASSERT(fuzzers, "Insufficient memory");
	sigaction(SIGUSR1, &action, NULL);

	for (t = 0; t < options.nr_threads; t++) {
		fuzzers[t].id = t;
		fuzzers[t].nr_ops = options.nr_ops / options.nr_threads;
		/* The state must not be zero; the multiplier is odd, i.e. no two are equal. */
		fuzzers[t].random = (options.seed + t) * 0x9e3779b97f4a7c15ull ?: 1;
		r = pthread_create(&fuzzers[t].thread, NULL, fuzz, &fuzzers[t]);
		TEST_ASSERT(!r, "pthread_create() failed: %s", strerror(r));
	}
	for (t = 0; t < options.nr_threads; t++)
		pthread_join(fuzzers[t].thread, NULL);

	print_counts(fuzzers);
	free(fuzzers);
}

static void help(const char *name)
{
	printf("usage: %s [-s SEED] [-n OPERATIONS] [-t THREADS] [-v] [-w] [-T FROM]\n", name);
}

static void parse_options(int argc, char *argv[])
{
	int opt;

	options.seed = time(NULL);
	while ((opt = getopt(argc, argv, "hs:n:t:vwT:")) != -1) {
		switch (opt) {
		case 's':
			options.seed = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			options.nr_ops = strtoull(optarg, NULL, 0);
			break;
		case 't':
			options.nr_threads = atoi_positive("Number of threads", optarg);
			break;
		case 'w':
			options.wild = true;
			break;
		case 'T':
			options.trace_from = strtoull(optarg, NULL, 0);
			break;
		case 'v':
			options.verbose = true;
			break;
		default:
			help(argv[0]);
			exit(opt == 'h' ? 0 : KSFT_FAIL);
		}
	}
}

int main(int argc, char *argv[])
{
	parse_options(argc, argv);
	setbuf(stdout, NULL);

	TEST_REQUIRE(host_cpu_is_intel);
	TEST_REQUIRE(kvm_is_pmu_enabled());
	TEST_REQUIRE(!kvm_is_ignore_msrs());
	TEST_REQUIRE(kvm_cpu_has_p(X86_PROPERTY_PMU_VERSION));
	TEST_REQUIRE(kvm_cpu_property(X86_PROPERTY_PMU_VERSION) >= 2);

	gather_facts();
	TEST_REQUIRE(facts.nr_gp <= MAX_GP && facts.nr_fixed <= MAX_FIXED);

	ksft_print_header();
	ksft_set_plan(1);
	ksft_print_msg("seed 0x%lx, %lu operations, threads: %d\n", options.seed,
		       options.nr_ops, options.nr_threads);
	ksft_print_msg("vPMU: %s, %u+%u counters, PERF_CAPABILITIES 0x%lx, forced emulation: %s\n",
		       facts.mediated ? "mediated" : "not mediated", facts.nr_gp,
		       facts.nr_fixed, facts.perf_capabilities,
		       is_forced_emulation_enabled ? "on" : "off");

	run_fuzzers();
	ksft_test_result_pass("fuzz\n");
	ksft_finished();
}
