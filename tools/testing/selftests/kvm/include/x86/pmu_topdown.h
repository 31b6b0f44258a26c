/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of topdown in guests share: facts of the host, the kinds of
 * vCPUs, accesses to fixed counter 3 (TOPDOWN.SLOTS) and PERF_METRICS, and
 * work to be counted.
 */
#ifndef SELFTEST_KVM_PMU_TOPDOWN_H
#define SELFTEST_KVM_PMU_TOPDOWN_H

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/perf_event.h>

#include "apic.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "pmu.h"
#include "processor.h"

#include "vmx.h"

#define SLOTS_ENABLE		FIXED_PMC_GLOBAL_CTRL_ENABLE(3)
#define CYCLES_ENABLE		FIXED_PMC_GLOBAL_CTRL_ENABLE(1)
#define SLOTS_CTRL		FIXED_PMC_CTRL(3, FIXED_PMC_KERNEL)
#define CYCLES_CTRL		FIXED_PMC_CTRL(1, FIXED_PMC_KERNEL)
#define RDPMC_SLOTS		((u32)(INTEL_RDPMC_FIXED | 3))
#define RDPMC_METRICS		((u32)INTEL_RDPMC_METRICS)

/*
 * Values that no workload produces.  The fields, 100, 40, 80 and 35, or 50, 100,
 * 80 and 25, sum to 255, and the slots are a multiple of 255, so that each field
 * stands for a whole number of slots and a CPU that converts between slots and
 * fractions, in either direction, does so without a remainder.
 */
#define PATTERN_SLOTS		(255ull * 1000000)
#define PATTERN_METRICS		0x23502864ull
#define PATTERN_METRICS_2	0x19506432ull

#define PMI_VECTOR		0x33
#define TIMER_VECTOR		0x34

/* What the host and KVM support, gathered once in main(). */
static struct {
	u64 perf_capabilities;
	u64 metrics_rsvd;
	int width;
	u8 nr_contiguous;
	u8 nr_fixed;
	bool mediated;
	bool host_metrics;
	bool has_slots;
	bool has_metrics;
} facts;

/* What guest code needs to know, synchronized to each VM. */
static struct {
	u64 metrics_rsvd;
	int width;
	bool smt;
	bool has_slots;
} guest;

/* Guest helpers. */

static inline void assert_gp(u8 vector, const char *insn, u32 index)
{
	__GUEST_ASSERT(vector == GP_VECTOR, "Expected #GP on %s(0x%x), got %s",
		       insn, index, ex_str(vector));
}

static inline void assert_rdmsr_gp(u32 msr)
{
	u64 val;

	assert_gp(rdmsr_safe(msr, &val), "RDMSR", msr);
	if (is_forced_emulation_enabled)
		assert_gp(rdmsr_safe_fep(msr, &val), "emulated RDMSR", msr);
}

static inline u8 wrmsr_safe_fep(u32 msr, u64 val)
{
	return kvm_asm_safe_fep("wrmsr", "a"((u32)val), "d"((u32)(val >> 32)),
				"c"(msr));
}

static inline void assert_wrmsr_gp(u32 msr, u64 val)
{
	u8 vector = wrmsr_safe(msr, val);

	__GUEST_ASSERT(vector == GP_VECTOR,
		       "Expected #GP on WRMSR(0x%x, 0x%lx), got %s",
		       msr, val, ex_str(vector));
	if (is_forced_emulation_enabled)
		assert_gp(wrmsr_safe_fep(msr, val), "emulated WRMSR", msr);
}

static inline void assert_rdpmc_gp(u32 index)
{
	u64 val;

	assert_gp(rdpmc_safe(index, &val), "RDPMC", index);
	if (is_forced_emulation_enabled)
		assert_gp(rdpmc_safe_fep(index, &val), "emulated RDPMC", index);
}

static inline u64 rdpmc(u32 index)
{
	u8 vector;
	u64 val;

	vector = rdpmc_safe(index, &val);
	__GUEST_ASSERT(!vector, "Expected no fault on RDPMC(0x%x), got %s",
		       index, ex_str(vector));
	return val;
}

/* Both registers start from zero, and counter 3 is written first (SDM). */
static inline void write_pattern(u64 slots, u64 metrics)
{
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, 0);
	wrmsr(MSR_PERF_METRICS, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, slots);
	wrmsr(MSR_PERF_METRICS, metrics);
}

static inline void __assert_pattern(u64 slots, u64 metrics, int line)
{
	__GUEST_ASSERT(rdmsr(MSR_CORE_PERF_FIXED_CTR3) == slots,
		       "Line %d: fixed counter 3 is 0x%lx by RDMSR, want 0x%lx",
		       line, rdmsr(MSR_CORE_PERF_FIXED_CTR3), slots);
	__GUEST_ASSERT(rdpmc(RDPMC_SLOTS) == slots,
		       "Line %d: fixed counter 3 is 0x%lx by RDPMC, want 0x%lx",
		       line, rdpmc(RDPMC_SLOTS), slots);
	__GUEST_ASSERT(rdmsr(MSR_PERF_METRICS) == metrics,
		       "Line %d: PERF_METRICS is 0x%lx by RDMSR, want 0x%lx",
		       line, rdmsr(MSR_PERF_METRICS), metrics);
	__GUEST_ASSERT(rdpmc(RDPMC_METRICS) == metrics,
		       "Line %d: PERF_METRICS is 0x%lx by RDPMC, want 0x%lx",
		       line, rdpmc(RDPMC_METRICS), metrics);
}

#define assert_pattern(slots, metrics) __assert_pattern(slots, metrics, __LINE__)

/* Count cycles and slots, and with PERF_METRICS their fractions, from zero. */
static inline void start_counting(u64 metrics_enable)
{
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR1, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, 0);
	if (metrics_enable)
		wrmsr(MSR_PERF_METRICS, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, SLOTS_CTRL | CYCLES_CTRL);
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL,
	      SLOTS_ENABLE | CYCLES_ENABLE | metrics_enable);
}

static inline void stop_counting(void)
{
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
}

/* Let fixed counter 3 overflow after @distance slots. */
static inline void start_overflow(u64 distance, u64 pmi, u64 metrics_enable)
{
	u64 mask = GENMASK_ULL(this_cpu_property(X86_PROPERTY_PMU_FIXED_COUNTERS_BIT_WIDTH) - 1, 0);

	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, -distance & mask);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL,
	      FIXED_PMC_CTRL(3, FIXED_PMC_KERNEL | pmi));
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, SLOTS_ENABLE | metrics_enable);
}

#define field(metrics, idx)	(((metrics) >> (8 * (idx))) & 0xff)
enum { RETIRING, BAD_SPEC, FE_BOUND, BE_BOUND };

static inline u64 sum_of_fields(u64 metrics)
{
	return field(metrics, RETIRING) + field(metrics, BAD_SPEC) +
	       field(metrics, FE_BOUND) + field(metrics, BE_BOUND);
}

/*
 * Every slot belongs to exactly one of the four categories, i.e. the fractions
 * sum to 255/255 before they are rounded.  Rounding, in any direction, changes
 * each of the four fields by less than one.  Each time that KVM switches the
 * PMU, a CPU that keeps slots internally may round all four once more.  Allow
 * for @switches known ones and for two interrupts of the host, as a measurement
 * takes less than the time between two of them.
 */
static inline void __assert_sum(u64 metrics, int switches, int line)
{
	int sum = sum_of_fields(metrics);
	int tolerance = 4 * (1 + switches + 2);

	__GUEST_ASSERT(sum >= 255 - tolerance && sum <= 255 + tolerance,
		       "Line %d: fields of PERF_METRICS 0x%lx sum to %d, want 255 +- %d",
		       line, metrics, sum, tolerance);
}

#define assert_sum(metrics, switches) __assert_sum(metrics, switches, __LINE__)

/* Independent single-uop instructions, which fill nearly every slot. */
static inline void retire(int loops)
{
	asm volatile("1:\n\t"
		     ".rept 32\n\t"
		     "inc %%rax\n\t"
		     "inc %%rdx\n\t"
		     "inc %%rsi\n\t"
		     "inc %%rdi\n\t"
		     ".endr\n\t"
		     "dec %[loops]\n\t"
		     "jnz 1b"
		     : [loops] "+r"(loops)
		     : : "rax", "rdx", "rsi", "rdi", "cc");
}

/* A branch on each bit of a xorshift generator, which can't be predicted. */
static inline void mispredict(int loops)
{
	u64 x = 0x9e3779b97f4a7c15ull;

	asm volatile("1:\n\t"
		     "mov %[x], %%rax\n\t"
		     "shl $13, %%rax\n\t"
		     "xor %%rax, %[x]\n\t"
		     "mov %[x], %%rax\n\t"
		     "shr $7, %%rax\n\t"
		     "xor %%rax, %[x]\n\t"
		     "mov %[x], %%rax\n\t"
		     "shl $17, %%rax\n\t"
		     "xor %%rax, %[x]\n\t"
		     "test $0x100, %[x]\n\t"
		     "jz 2f\n\t"
		     "nop\n\t"
		     "2:\n\t"
		     "dec %[loops]\n\t"
		     "jnz 1b"
		     : [loops] "+r"(loops), [x] "+r"(x)
		     : : "rax", "cc");
}

/* Loads that miss every cache. */
static inline void miss_caches(int loops)
{
	static u64 line[8] __aligned(64);

	asm volatile("1:\n\t"
		     "clflush %[line]\n\t"
		     "mfence\n\t"
		     "mov %[line], %%rax\n\t"
		     "lfence\n\t"
		     "dec %[loops]\n\t"
		     "jnz 1b"
		     : [loops] "+r"(loops)
		     : [line] "m"(line[0])
		     : "rax", "cc", "memory");
}

/* Host helpers. */

/*
 * Fixed counter i exists if CPUID.0xA:EDX[4:0] > i or CPUID.0xA:ECX[i] is set,
 * the latter as of version 5 (SDM, "Architectural Performance Monitoring").
 */
static inline u8 nr_contiguous_fixed_counters(void)
{
	u8 i, nr = this_cpu_property(X86_PROPERTY_PMU_NR_FIXED_COUNTERS);
	u32 mask = 0;

	if (this_cpu_property(X86_PROPERTY_PMU_VERSION) >= 5)
		mask = this_cpu_property(X86_PROPERTY_PMU_FIXED_COUNTERS_BITMASK);

	for (i = 0; i < 32 && (i < nr || mask & BIT(i)); i++)
		;
	return i;
}

static inline bool read_sysfs(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t r;

	if (fd < 0)
		return false;

	r = read(fd, buf, size - 1);
	close(fd);
	buf[r < 0 ? 0 : r] = '\0';
	return r > 0;
}

#define PERF_SYSFS "/sys/bus/event_source/devices/cpu/"

/*
 * Perf offers events 0x00 with umasks 0x80 and up if and only if all CPUs have
 * PERF_METRICS.  CPUs without it can have events of the same names.
 */
static inline bool perf_has_metrics_event(const char *name, int umask)
{
	char path[128], buf[64], want[64];

	snprintf(path, sizeof(path), PERF_SYSFS "events/%s", name);
	snprintf(want, sizeof(want), "event=0x00,umask=0x%x", umask);
	return read_sysfs(path, buf, sizeof(buf)) &&
	       !strncmp(buf, want, strlen(want));
}

static inline bool smt_is_active(void)
{
	char buf[8];

	return read_sysfs("/sys/devices/system/cpu/smt/active", buf, sizeof(buf)) &&
	       buf[0] != '0';
}

/*
 * Slots per cycle, i.e. the width of the narrowest stage of the pipeline, from
 * Intel's Optimization Reference Manual; perf's metrics use the same numbers,
 * e.g. in the threshold of tma_info_frontend_dsb_coverage in icx-metrics.json
 * and spr-metrics.json.  0 means that this test doesn't know the CPU.
 */
static inline int pipeline_width(void)
{
	if (this_cpu_family() != 0x6)
		return 0;

	switch (this_cpu_model()) {
	case 0x6a: /* Ice Lake X */
	case 0x6c: /* Ice Lake D */
	case 0x7d: /* Ice Lake */
	case 0x7e: /* Ice Lake L */
	case 0x8c: /* Tiger Lake L */
	case 0x8d: /* Tiger Lake */
	case 0xa7: /* Rocket Lake */
		return 5;
	case 0x8f: /* Sapphire Rapids X */
	case 0xcf: /* Emerald Rapids X */
	case 0xad: /* Granite Rapids X */
	case 0xae: /* Granite Rapids D */
		return 6;
	default:
		return 0;
	}
}

static inline void gather_facts(void)
{
	facts.mediated = kvm_is_mediated_pmu_enabled();
	facts.width = pipeline_width();
	facts.nr_contiguous = nr_contiguous_fixed_counters();
	facts.nr_fixed = kvm_cpu_property(X86_PROPERTY_PMU_NR_FIXED_COUNTERS);
	facts.host_metrics = perf_has_metrics_event("topdown-retiring", 0x80);

	if (kvm_cpu_has(X86_FEATURE_PDCM))
		facts.perf_capabilities = kvm_get_feature_msr(MSR_IA32_PERF_CAPABILITIES);

	/* Four metrics of 8 bits each, or eight where heavy-ops exists. */
	if (!perf_has_metrics_event("topdown-heavy-ops", 0x84))
		facts.metrics_rsvd = GENMASK_ULL(63, 32);

	facts.has_slots = facts.nr_fixed >= 4;
	facts.has_metrics = facts.perf_capabilities & PMU_CAP_PERF_METRICS;

	guest.metrics_rsvd = facts.metrics_rsvd;
	guest.width = facts.width;
	guest.smt = smt_is_active();
}

/* Run the vCPU to its next GUEST_SYNC (returns its stage) or GUEST_DONE (-1). */
static inline u64 run_to_sync(struct kvm_vcpu *vcpu, struct ucall *uc)
{
	struct ucall ignored;

	uc = uc ?: &ignored;

	for (;;) {
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);

		switch (get_ucall(vcpu, uc)) {
		case UCALL_PRINTF:
			REPORT_GUEST_PRINTF(*uc);
			break;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(*uc);
			break;
		case UCALL_SYNC:
			return uc->args[1];
		case UCALL_DONE:
			return -1;
		default:
			TEST_FAIL("Unexpected ucall: %lu", uc->cmd);
		}
	}
}

static inline void run_to_done(struct kvm_vcpu *vcpu)
{
	while (run_to_sync(vcpu, NULL) != -1)
		;
}

static inline void start_guest(struct kvm_vcpu *vcpu, void *guest_code)
{
	sync_global_to_guest(vcpu->vm, guest);
	vcpu_arch_set_entry_point(vcpu, guest_code);
}

static inline void run_guest_code(struct kvm_vcpu *vcpu, void *guest_code)
{
	start_guest(vcpu, guest_code);
	run_to_done(vcpu);
}

#define REQUIRE(cond, fmt, ...)					\
do {								\
	if (!(cond))						\
		SKIP(return, fmt, ##__VA_ARGS__);		\
} while (0)

#define REQUIRE_SLOTS()						\
	REQUIRE(facts.has_slots,				\
		"KVM has %u fixed counters, not 4 (mediated vPMU: %s)", \
		facts.nr_fixed, facts.mediated ? "on" : "off")

#define REQUIRE_METRICS()					\
	REQUIRE(facts.has_metrics,				\
		"KVM has no PERF_METRICS (mediated vPMU: %s, host's: %s)", \
		facts.mediated ? "on" : "off", facts.host_metrics ? "yes" : "no")

/*
 * Kinds of vCPUs.  FEWER_GP has PERF_METRICS as FULL does, but fewer general
 * purpose counters than the host: KVM intercepts RDPMC and GLOBAL_CTRL to hide
 * the rest.  The others are all reasons why a vCPU has no PERF_METRICS.  Where
 * possible, PERF_CAPABILITIES claims it nonetheless: the bit alone must not
 * grant anything.  NO_CAP_BIT is what a VMM gets that never sets the bit.
 */
enum vcpu_kind {
	FULL,
	FEWER_GP,
	NO_CAP_BIT,
	THREE_FIXED,
	THREE_FIXED_CAP_BIT,
	NO_PDCM,
	VERSION_1,
	VERSION_0,
	PMU_DISABLED,
	NR_VCPU_KINDS,
};

static inline bool kind_has_metrics(enum vcpu_kind kind)
{
	return facts.has_metrics && (kind == FULL || kind == FEWER_GP);
}

static inline bool kind_has_slots(enum vcpu_kind kind)
{
	return facts.has_slots && (kind == FULL || kind == FEWER_GP ||
				   kind == NO_CAP_BIT || kind == NO_PDCM);
}

static inline bool can_disable_pmu(void)
{
	return kvm_check_cap(KVM_CAP_PMU_CAPABILITY) & KVM_PMU_CAP_DISABLE;
}

/*
 * A VM for vCPUs of this kind: that it has no PMU is a property of the VM, all
 * others are properties of the vCPU.
 */
static inline struct kvm_vm *create_vm(enum vcpu_kind kind, int nr_vcpus)
{
	struct kvm_vm *vm = vm_create(nr_vcpus);

	if (kind == PMU_DISABLED)
		vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
	return vm;
}

static inline struct kvm_vcpu *add_vcpu(struct kvm_vm *vm, int id, enum vcpu_kind kind)
{
	u8 nr_gp = kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);
	struct kvm_vcpu *vcpu = vm_vcpu_add(vm, id, NULL);
	u64 caps = facts.perf_capabilities;

	if (kind == PMU_DISABLED) {
		/* Whether KVM takes it or not, it must not grant anything. */
		if (kvm_cpu_has(X86_FEATURE_PDCM))
			_vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES, caps);
		return vcpu;
	}

	/*
	 * Set PERF_CAPABILITIES before CPUID, as KVM disallows enabling
	 * features via PERF_CAPABILITIES if the guest doesn't have a vPMU.
	 */
	if (kind == THREE_FIXED)
		caps &= ~PMU_CAP_PERF_METRICS;
	if (kvm_cpu_has(X86_FEATURE_PDCM) && kind != NO_CAP_BIT)
		vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES, caps);

	if (kind == THREE_FIXED || kind == THREE_FIXED_CAP_BIT)
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_NR_FIXED_COUNTERS, 3);
	else if (kind == FEWER_GP)
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_NR_GP_COUNTERS, nr_gp - 1);
	else if (kind == NO_PDCM)
		vcpu_clear_cpuid_feature(vcpu, X86_FEATURE_PDCM);
	else if (kind == VERSION_1)
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_VERSION, 1);
	else if (kind == VERSION_0)
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_VERSION, 0);

	return vcpu;
}

static inline struct kvm_vcpu *create_vcpu(enum vcpu_kind kind)
{
	return add_vcpu(create_vm(kind, 1), 0, kind);
}

/*
 * Values must survive whatever stops the vCPU.  First while nothing counts, so
 * that they must come back exactly, then while counting, so that they must not
 * go backwards or lose their sum.
 */
#define NR_STOPS	4

static inline void guest_survive_idle(void (*stop)(int))
{
	int i;

	for (i = 0; i < NR_STOPS; i++) {
		write_pattern(PATTERN_SLOTS + 255 * i, PATTERN_METRICS);
		stop(i);
		assert_pattern(PATTERN_SLOTS + 255 * i, PATTERN_METRICS);
	}
}

static inline void guest_survive_counting(void (*stop)(int))
{
	u64 slots, before = 0;
	int i;

	start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
	for (i = 0; i < NR_STOPS; i++) {
		retire(100);
		slots = rdpmc(RDPMC_SLOTS);
		__GUEST_ASSERT(slots >= before + 100,
			       "%lu slots after stop %d, %lu before", slots, i, before);
		assert_sum(rdpmc(RDPMC_METRICS), i);

		before = rdpmc(RDPMC_SLOTS);
		stop(i);
		slots = rdpmc(RDPMC_SLOTS);
		__GUEST_ASSERT(slots >= before,
			       "%lu slots after stop %d, %lu before", slots, i, before);
		assert_sum(rdpmc(RDPMC_METRICS), i + 1);
	}
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL),
			SLOTS_ENABLE | CYCLES_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
	stop_counting();
}

static inline void stop_by_ucall(int i)
{
	GUEST_SYNC(i);
}

static inline void guest_survive_ucall(void)
{
	guest_survive_idle(stop_by_ucall);
	guest_survive_counting(stop_by_ucall);
	GUEST_DONE();
}

static int nr_timer_irqs;

static inline void guest_timer_handler(struct ex_regs *regs)
{
	WRITE_ONCE(nr_timer_irqs, nr_timer_irqs + 1);
	x2apic_write_reg(APIC_EOI, 0);
}

static inline void prepare_timer(void)
{
	x2apic_enable();
	x2apic_write_reg(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | TIMER_VECTOR);
	x2apic_write_reg(APIC_TDCR, 0xb);
}

/* KVM's APIC bus runs at 1 GHz; 1 ms is long enough for the vCPU to block. */
static inline void stop_by_hlt(int i)
{
	int before = READ_ONCE(nr_timer_irqs);

	x2apic_write_reg(APIC_TMICT, 1000000);
	safe_halt();
	cli();
	__GUEST_ASSERT(READ_ONCE(nr_timer_irqs) == before + 1,
		       "%d timer interrupts, want 1",
		       READ_ONCE(nr_timer_irqs) - before);
}

static inline int next_allowed_cpu(const cpu_set_t *allowed, int cpu)
{
	do {
		cpu = (cpu + 1) % CPU_SETSIZE;
	} while (!CPU_ISSET(cpu, allowed));

	return cpu;
}

static inline void assert_set_msr_fails(struct kvm_vcpu *vcpu, u32 msr, u64 val)
{
	TEST_ASSERT(!_vcpu_set_msr(vcpu, msr, val),
		    "KVM_SET_MSRS(0x%x, 0x%lx) didn't fail", msr, val);
}

/*
 * Accesses to PERF_METRICS don't exit.  Count the exits of two batches: a few
 * are due to interrupts of the host, but not one per access.
 */
#define NR_ACCESSES	200

static inline void guest_accesses(void)
{
	int i;

	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	GUEST_SYNC(0);
	for (i = 0; i < NR_ACCESSES; i++) {
		rdmsr(MSR_PERF_METRICS);
		wrmsr(MSR_PERF_METRICS, PATTERN_METRICS);
		rdmsr(MSR_CORE_PERF_FIXED_CTR3);
		rdpmc(RDPMC_METRICS);
	}
	GUEST_SYNC(1);
	GUEST_DONE();
}

static inline void assert_few_exits(struct kvm_vcpu *vcpu)
{
	u64 exits;

	TEST_ASSERT_EQ(run_to_sync(vcpu, NULL), 0);
	exits = vcpu_get_stat(vcpu, exits);
	TEST_ASSERT_EQ(run_to_sync(vcpu, NULL), 1);
	exits = vcpu_get_stat(vcpu, exits) - exits;
	TEST_ASSERT(exits < NR_ACCESSES / 2,
		    "%lu exits in %d rounds of accesses to PERF_METRICS and counter 3",
		    exits, NR_ACCESSES);
	run_to_done(vcpu);
}

/* Save, destroy the VM, create another one, restore. */
static inline struct kvm_vcpu *save_and_restore(struct kvm_vcpu *vcpu)
{
	struct kvm_x86_state *state = vcpu_save_state(vcpu);
	struct kvm_vm *vm = vcpu->vm;

	kvm_vm_release(vm);
	vcpu = vm_recreate_with_one_vcpu(vm);

	/*
	 * PERF_CAPABILITIES comes before all other MSRs of the PMU, as changing
	 * it resets the vCPU's PMU.
	 */
	vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES, facts.perf_capabilities);
	vcpu_load_state(vcpu, state);
	kvm_x86_state_cleanup(state);
	return vcpu;
}

/* The event filter's bit 3 stops the counter and with it the metrics. */
static inline void set_fixed_filter(struct kvm_vcpu *vcpu, u32 action, u32 bitmap)
{
	struct kvm_pmu_event_filter filter = {
		.action = action,
		.fixed_counter_bitmap = bitmap,
	};

	vm_ioctl(vcpu->vm, KVM_SET_PMU_EVENT_FILTER, &filter);
}

/*
 * Userspace can deny its guests both MSRs by a filter, to read, to write, or both.
 * RDPMC isn't an access to an MSR.
 */
static inline void set_msr_filter(struct kvm_vcpu *vcpu, u32 denied)
{
	static u8 none;
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW };
	int i;

	for (i = 0; denied && i < 2; i++)
		filter.ranges[i] = (struct kvm_msr_filter_range) {
			.flags = denied,
			.nmsrs = 1,
			.base = i ? MSR_PERF_METRICS : MSR_CORE_PERF_FIXED_CTR3,
			.bitmap = &none,
		};
	vm_ioctl(vcpu->vm, KVM_X86_SET_MSR_FILTER, &filter);
}

/*
 * After the guest, nothing of it is left for the host's user mode, which can
 * read all PMCs and PERF_METRICS while it has a perf event mapped.
 */
static inline u64 raw_rdpmc(u32 index)
{
	u32 eax, edx;

	asm volatile("rdpmc" : "=a"(eax), "=d"(edx) : "c"(index));
	return (u64)edx << 32 | eax;
}

static inline bool allow_host_rdpmc(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.exclude_kernel = 1,
		.exclude_hv = 1,
		.exclude_guest = 1,
	};
	struct perf_event_mmap_page *page;
	char buf[8];
	int fd;

	if (!read_sysfs(PERF_SYSFS "rdpmc", buf, sizeof(buf)) || buf[0] == '0')
		return false;

	fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	if (fd < 0)
		return false;

	page = mmap(NULL, getpagesize(), PROT_READ, MAP_SHARED, fd, 0);
	return page != MAP_FAILED && page->cap_user_rdpmc;
}

/*
 * Don't conclude from a value that somebody counts: it can be one that a vCPU
 * left behind, which is what the test is about.
 */
static inline bool host_counts_slots(void)
{
	u64 slots = raw_rdpmc(RDPMC_SLOTS);
	int i;

	for (i = 0; i < 1000; i++)
		barrier();
	return raw_rdpmc(RDPMC_SLOTS) != slots;
}

/* The host's perf counts topdown of the thread that opens this, next to guests. */

struct topdown_group {
	int leader;
	u64 slots;
};

/* Of this thread on any CPU, or of all tasks (@pid is -1) on @cpu. */
static inline int open_event_of(pid_t pid, int cpu, u64 config, int leader, u64 period)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_RAW,
		.size = sizeof(attr),
		.config = config,
		.sample_period = period,
		.disabled = leader < 0,
		.exclude_guest = 1,
		.read_format = PERF_FORMAT_GROUP,
	};
	int fd = syscall(SYS_perf_event_open, &attr, pid, cpu, leader, 0);

	TEST_ASSERT(fd >= 0, "perf_event_open(0x%lx) failed, errno %d", config, errno);
	return fd;
}

static inline int open_event(u64 config, int leader, u64 period)
{
	return open_event_of(0, -1, config, leader, period);
}

/* Slots, and topdown-retiring to topdown-be-bound, see PERF_SYSFS events/. */
#define SLOTS_EVENT	0x0400
#define METRICS_EVENT	0x8000

/*
 * Perf stops using PERF_METRICS when a CPU that lacks it comes up.  It then takes a
 * metrics event for a raw one, which needs no slots event as leader of its group.
 */
static inline bool perf_uses_metrics(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_RAW,
		.size = sizeof(attr),
		.config = METRICS_EVENT,
		.disabled = 1,
		.exclude_guest = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);

	if (fd >= 0)
		close(fd);
	return facts.host_metrics && fd < 0;
}

static inline void open_topdown_of(pid_t pid, int cpu, struct topdown_group *group)
{
	int i;

	group->slots = 0;
	group->leader = open_event_of(pid, cpu, SLOTS_EVENT, -1, 0);
	for (i = 0; i < 4; i++)
		open_event_of(pid, cpu, METRICS_EVENT + 0x100 * i, group->leader, 0);
	TEST_ASSERT(!ioctl(group->leader, PERF_EVENT_IOC_ENABLE, PERF_IOC_FLAG_GROUP),
		    "Enabling the group failed");
}

static inline void open_topdown(struct topdown_group *group)
{
	open_topdown_of(0, -1, group);
}

/*
 * Perf adds up what each of the fields stands for, and they stand for all slots
 * up to rounding: that of each of four fields, at each update.
 */
static inline void check_topdown(struct topdown_group *group)
{
	struct {
		u64 nr;
		u64 slots;
		u64 metrics[4];
	} values;
	u64 sum = 0;
	int i;

	retire(20);
	TEST_ASSERT(read(group->leader, &values, sizeof(values)) == sizeof(values) &&
		    values.nr == 5, "Reading the group failed");
	for (i = 0; i < 4; i++)
		sum += values.metrics[i];

	TEST_ASSERT(values.slots > group->slots,
		    "The host has %lu slots after it had %lu", values.slots, group->slots);
	group->slots = values.slots;
	TEST_ASSERT(sum > values.slots - values.slots / 8 &&
		    sum < values.slots + values.slots / 8,
		    "The host's metrics sum to %lu of %lu slots", sum, values.slots);
}

/* What all tests need; call it first in main(). */
static inline void require_pmu(void)
{
	TEST_REQUIRE(host_cpu_is_intel);
	TEST_REQUIRE(kvm_is_pmu_enabled());
	TEST_REQUIRE(!kvm_is_ignore_msrs());
	TEST_REQUIRE(kvm_cpu_has_p(X86_PROPERTY_PMU_VERSION));
	TEST_REQUIRE(kvm_cpu_property(X86_PROPERTY_PMU_VERSION) >= 2);

	gather_facts();
}

#endif /* SELFTEST_KVM_PMU_TOPDOWN_H */
