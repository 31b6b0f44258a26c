// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test topdown in KVM guests: fixed counter 3 (TOPDOWN.SLOTS) and the
 * PERF_METRICS MSR, which holds the fractions of the counter's slots that
 * retired, were wasted by bad speculation, were not supplied by the frontend,
 * and were not accepted by the backend.
 *
 * A vCPU has PERF_METRICS if and only if KVM uses the mediated vPMU, the vCPU
 * has at least version 2 of the architectural PMU and four fixed counters, and
 * bit 15 of its PERF_CAPABILITIES is set.  The test proves both directions:
 *
 *   enumeration  KVM offers what the host has, and nothing else
 *   slots        fixed counter 3 counts, overflows and interrupts
 *   metrics      PERF_METRICS is right, and survives whatever stops the vCPU
 *   partial      same, where KVM has to emulate RDPMC
 *   nested       L2 gets what L1 allows, and what L1 has
 *   unsupported  a vCPU without PERF_METRICS gets #GP, for every reason why a
 *                vCPU can lack it
 *   isolation    two vCPUs that share a CPU never see each other's values
 *
 * Tests that need a feature the host lacks are skipped, with the reason.
 */
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

static void assert_gp(u8 vector, const char *insn, u32 index)
{
	__GUEST_ASSERT(vector == GP_VECTOR, "Expected #GP on %s(0x%x), got %s",
		       insn, index, ex_str(vector));
}

static void assert_rdmsr_gp(u32 msr)
{
	u64 val;

	assert_gp(rdmsr_safe(msr, &val), "RDMSR", msr);
	if (is_forced_emulation_enabled)
		assert_gp(rdmsr_safe_fep(msr, &val), "emulated RDMSR", msr);
}

static u8 wrmsr_safe_fep(u32 msr, u64 val)
{
	return kvm_asm_safe_fep("wrmsr", "a"((u32)val), "d"((u32)(val >> 32)),
				"c"(msr));
}

static void assert_wrmsr_gp(u32 msr, u64 val)
{
	u8 vector = wrmsr_safe(msr, val);

	__GUEST_ASSERT(vector == GP_VECTOR,
		       "Expected #GP on WRMSR(0x%x, 0x%lx), got %s",
		       msr, val, ex_str(vector));
	if (is_forced_emulation_enabled)
		assert_gp(wrmsr_safe_fep(msr, val), "emulated WRMSR", msr);
}

static void assert_rdpmc_gp(u32 index)
{
	u64 val;

	assert_gp(rdpmc_safe(index, &val), "RDPMC", index);
	if (is_forced_emulation_enabled)
		assert_gp(rdpmc_safe_fep(index, &val), "emulated RDPMC", index);
}

static u64 rdpmc(u32 index)
{
	u8 vector;
	u64 val;

	vector = rdpmc_safe(index, &val);
	__GUEST_ASSERT(!vector, "Expected no fault on RDPMC(0x%x), got %s",
		       index, ex_str(vector));
	return val;
}

/* Both registers start from zero, and counter 3 is written first (SDM). */
static void write_pattern(u64 slots, u64 metrics)
{
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, 0);
	wrmsr(MSR_PERF_METRICS, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, slots);
	wrmsr(MSR_PERF_METRICS, metrics);
}

static void __assert_pattern(u64 slots, u64 metrics, int line)
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
static void start_counting(u64 metrics_enable)
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

static void stop_counting(void)
{
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
}

#define field(metrics, idx)	(((metrics) >> (8 * (idx))) & 0xff)
enum { RETIRING, BAD_SPEC, FE_BOUND, BE_BOUND };

static u64 sum_of_fields(u64 metrics)
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
static void __assert_sum(u64 metrics, int switches, int line)
{
	int sum = sum_of_fields(metrics);
	int tolerance = 4 * (1 + switches + 2);

	__GUEST_ASSERT(sum >= 255 - tolerance && sum <= 255 + tolerance,
		       "Line %d: fields of PERF_METRICS 0x%lx sum to %d, want 255 +- %d",
		       line, metrics, sum, tolerance);
}

#define assert_sum(metrics, switches) __assert_sum(metrics, switches, __LINE__)

/* Independent single-uop instructions, which fill nearly every slot. */
static void retire(int loops)
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
static void mispredict(int loops)
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
static void miss_caches(int loops)
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
static u8 nr_contiguous_fixed_counters(void)
{
	u8 i, nr = this_cpu_property(X86_PROPERTY_PMU_NR_FIXED_COUNTERS);
	u32 mask = 0;

	if (this_cpu_property(X86_PROPERTY_PMU_VERSION) >= 5)
		mask = this_cpu_property(X86_PROPERTY_PMU_FIXED_COUNTERS_BITMASK);

	for (i = 0; i < 32 && (i < nr || mask & BIT(i)); i++)
		;
	return i;
}

static bool read_sysfs(const char *path, char *buf, size_t size)
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
static bool perf_has_metrics_event(const char *name, int umask)
{
	char path[128], buf[64], want[64];

	snprintf(path, sizeof(path), PERF_SYSFS "events/%s", name);
	snprintf(want, sizeof(want), "event=0x00,umask=0x%x", umask);
	return read_sysfs(path, buf, sizeof(buf)) &&
	       !strncmp(buf, want, strlen(want));
}

static bool smt_is_active(void)
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
static int pipeline_width(void)
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

static void gather_facts(void)
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
static u64 run_to_sync(struct kvm_vcpu *vcpu, struct ucall *uc)
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

static void run_to_done(struct kvm_vcpu *vcpu)
{
	while (run_to_sync(vcpu, NULL) != -1)
		;
}

static void start_guest(struct kvm_vcpu *vcpu, void *guest_code)
{
	sync_global_to_guest(vcpu->vm, guest);
	vcpu_arch_set_entry_point(vcpu, guest_code);
}

static void run_guest_code(struct kvm_vcpu *vcpu, void *guest_code)
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
 * All reasons why a vCPU has no PERF_METRICS.  Where possible, PERF_CAPABILITIES
 * claims it nonetheless: the bit alone must not grant anything.
 */
enum vcpu_kind {
	FULL,
	NO_CAP_BIT,
	THREE_FIXED,
	THREE_FIXED_CAP_BIT,
	NO_PDCM,
	VERSION_1,
	VERSION_0,
	PMU_DISABLED,
};

static struct kvm_vcpu *create_vcpu(enum vcpu_kind kind)
{
	u64 caps = facts.perf_capabilities;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	vm = vm_create(1);
	if (kind == PMU_DISABLED) {
		vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
		return vm_vcpu_add(vm, 0, NULL);
	}

	vcpu = vm_vcpu_add(vm, 0, NULL);

	/*
	 * Set PERF_CAPABILITIES before CPUID, as KVM disallows enabling
	 * features via PERF_CAPABILITIES if the guest doesn't have a vPMU.
	 */
	if (kind == NO_CAP_BIT || kind == THREE_FIXED)
		caps &= ~PMU_CAP_PERF_METRICS;
	if (kvm_cpu_has(X86_FEATURE_PDCM))
		vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES, caps);

	if (kind == THREE_FIXED || kind == THREE_FIXED_CAP_BIT)
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_NR_FIXED_COUNTERS, 3);
	else if (kind == NO_PDCM)
		vcpu_clear_cpuid_feature(vcpu, X86_FEATURE_PDCM);
	else if (kind == VERSION_1)
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_VERSION, 1);
	else if (kind == VERSION_0)
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_VERSION, 0);

	return vcpu;
}

/* Enumeration. */

FIXTURE(enumeration) {
};

FIXTURE_SETUP(enumeration)
{
}

FIXTURE_TEARDOWN(enumeration)
{
}

/*
 * KVM offers the fixed counters that the host has, contiguously from 0, up to
 * the fourth with the mediated vPMU.  The others, which count by way of perf
 * events, end at the third, as perf has no generic event for slots.
 */
TEST_F(enumeration, fixed_counters)
{
	u8 max = facts.mediated ? 4 : 3;

	TEST_ASSERT(facts.nr_fixed == min(facts.nr_contiguous, max),
		    "KVM offers %u fixed counters, the host has %u contiguous ones, KVM's limit is %u",
		    facts.nr_fixed, facts.nr_contiguous, max);
}

TEST_F(enumeration, perf_capabilities)
{
	bool expected = facts.mediated && facts.host_metrics &&
			facts.nr_contiguous >= 4;

	TEST_ASSERT(facts.has_metrics == expected,
		    "PERF_CAPABILITIES is 0x%lx, want bit 15 %s (mediated vPMU: %s, host's PERF_METRICS: %s, contiguous fixed counters: %u)",
		    facts.perf_capabilities, expected ? "set" : "clear",
		    facts.mediated ? "on" : "off",
		    facts.host_metrics ? "yes" : "no", facts.nr_contiguous);
}

/* The RDPMC_METRICS_CLEAR mode (bit 19) is not virtualized. */
TEST_F(enumeration, no_rdpmc_metrics_clear)
{
	TEST_ASSERT(!(facts.perf_capabilities & BIT_ULL(19)),
		    "PERF_CAPABILITIES 0x%lx has RDPMC_METRICS_CLEAR (bit 19)",
		    facts.perf_capabilities);
}

TEST_F(enumeration, msr_list)
{
	TEST_ASSERT_EQ(kvm_msr_is_in_save_restore_list(MSR_CORE_PERF_FIXED_CTR3),
		       facts.has_slots);
	TEST_ASSERT_EQ(kvm_msr_is_in_save_restore_list(MSR_PERF_METRICS),
		       facts.has_metrics);
}

static void guest_missing_fixed_counter(u32 idx)
{
	assert_rdpmc_gp(INTEL_RDPMC_FIXED | idx);
	assert_rdmsr_gp(MSR_CORE_PERF_FIXED_CTR0 + idx);
	assert_wrmsr_gp(MSR_CORE_PERF_FIXED_CTR0 + idx, 0);
	assert_wrmsr_gp(MSR_CORE_PERF_FIXED_CTR_CTRL,
			FIXED_PMC_CTRL(idx, FIXED_PMC_KERNEL));
	assert_wrmsr_gp(MSR_CORE_PERF_GLOBAL_CTRL,
			FIXED_PMC_GLOBAL_CTRL_ENABLE(idx));
	GUEST_DONE();
}

/*
 * Userspace can't give the guest a counter that KVM doesn't have.  RDPMC has
 * no exception fixup in KVM: if KVM believed in the counter, and the host
 * lacked it, then the host would not survive.
 */
TEST_F(enumeration, claimed_fixed_counters)
{
	struct kvm_vcpu *vcpu;
	u8 claim;

	for (claim = facts.nr_fixed + 1; claim <= facts.nr_fixed + 2; claim++) {
		vcpu = create_vcpu(FULL);
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_NR_FIXED_COUNTERS, claim);
		start_guest(vcpu, guest_missing_fixed_counter);
		vcpu_args_set(vcpu, 1, (u64)claim - 1);
		run_to_done(vcpu);
		kvm_vm_free(vcpu->vm);
	}
}

/* Fixed counter 3, alone. */

FIXTURE(slots) {
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(slots)
{
	REQUIRE_SLOTS();
	self->vcpu = create_vcpu(FULL);
}

FIXTURE_TEARDOWN(slots)
{
	kvm_vm_free(self->vcpu->vm);
}

static void guest_slots_read_write(void)
{
	u64 mask = GENMASK_ULL(this_cpu_property(X86_PROPERTY_PMU_FIXED_COUNTERS_BIT_WIDTH) - 1, 0);

	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, 0);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_FIXED_CTR3), 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, 0xa5a5a5a5a5a5ull & mask);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_FIXED_CTR3), 0xa5a5a5a5a5a5ull & mask);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_SLOTS), 0xa5a5a5a5a5a5ull & mask);

	/* Doesn't count while disabled, locally or globally. */
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, SLOTS_CTRL);
	retire(100);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_SLOTS), 0xa5a5a5a5a5a5ull & mask);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, 0);
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, SLOTS_ENABLE);
	retire(100);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_SLOTS), 0xa5a5a5a5a5a5ull & mask);
	GUEST_DONE();
}

TEST_F(slots, read_write)
{
	run_guest_code(self->vcpu, guest_slots_read_write);
}

/*
 * Both counters are enabled and disabled by one WRMSR, so they count the same
 * cycles, give or take what the WRMSR itself takes; 1% is far more than that.
 * With SMT, slots are distributed among the CPUs of a core that are not halted,
 * i.e. at least every other one is this CPU's.
 */
static void guest_slots_per_cycle(void)
{
	u64 slots, cycles, max, min;

	start_counting(0);
	retire(1000);
	stop_counting();

	slots = rdpmc(RDPMC_SLOTS);
	cycles = rdpmc(INTEL_RDPMC_FIXED | 1);
	max = cycles * (guest.width ?: 16);
	min = cycles * (guest.width ?: 2);
	if (guest.smt)
		min /= 2;

	__GUEST_ASSERT(cycles > 10000, "Only %lu cycles", cycles);
	__GUEST_ASSERT(slots <= max + max / 100 && slots >= min - min / 100,
		       "%lu slots in %lu cycles, want %lu to %lu (width %d, SMT %d)",
		       slots, cycles, min, max, guest.width, guest.smt);
	GUEST_DONE();
}

TEST_F(slots, per_cycle)
{
	run_guest_code(self->vcpu, guest_slots_per_cycle);
}

static u64 nr_pmis, pmi_status;

static void guest_pmi_handler(struct ex_regs *regs)
{
	u64 status = rdmsr(MSR_CORE_PERF_GLOBAL_STATUS);

	wrmsr(MSR_CORE_PERF_GLOBAL_OVF_CTRL, status);
	WRITE_ONCE(pmi_status, status);
	WRITE_ONCE(nr_pmis, nr_pmis + 1);
	x2apic_write_reg(APIC_EOI, 0);
}

static void start_overflow(u64 distance, u64 pmi)
{
	u64 mask = GENMASK_ULL(this_cpu_property(X86_PROPERTY_PMU_FIXED_COUNTERS_BIT_WIDTH) - 1, 0);

	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, -distance & mask);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL,
	      FIXED_PMC_CTRL(3, FIXED_PMC_KERNEL | pmi));
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, SLOTS_ENABLE);
}

static void guest_slots_overflow(void)
{
	int i;

	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	sti();

	/* Without the PMI enabled, only the status is set... */
	start_overflow(10000, 0);
	retire(1000);
	stop_counting();
	GUEST_ASSERT_EQ(READ_ONCE(nr_pmis), 0);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), SLOTS_ENABLE);
	wrmsr(MSR_CORE_PERF_GLOBAL_OVF_CTRL, SLOTS_ENABLE);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), 0);

	/* ... with it, the handler runs as well. */
	start_overflow(10000, FIXED_PMC_ENABLE_PMI);
	for (i = 0; i < 100000 && !READ_ONCE(nr_pmis); i++)
		retire(1);
	stop_counting();
	__GUEST_ASSERT(READ_ONCE(nr_pmis) == 1,
		       "%lu PMIs after an overflow of fixed counter 3, want 1",
		       READ_ONCE(nr_pmis));
	GUEST_ASSERT_EQ(READ_ONCE(pmi_status), SLOTS_ENABLE);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), 0);
	cli();
	GUEST_DONE();
}

TEST_F(slots, overflow_interrupts)
{
	vm_install_exception_handler(self->vcpu->vm, PMI_VECTOR, guest_pmi_handler);
	run_guest_code(self->vcpu, guest_slots_overflow);
}

/* PERF_METRICS, on a vCPU that has all of it. */

FIXTURE(metrics) {
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(metrics)
{
	REQUIRE_METRICS();
	self->vcpu = create_vcpu(FULL);
}

FIXTURE_TEARDOWN(metrics)
{
	kvm_vm_free(self->vcpu->vm);
}

static void guest_metrics_read_write(void)
{
	GUEST_ASSERT(rdmsr(MSR_IA32_PERF_CAPABILITIES) & PMU_CAP_PERF_METRICS);
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	write_pattern(2 * PATTERN_SLOTS, PATTERN_METRICS_2);
	assert_pattern(2 * PATTERN_SLOTS, PATTERN_METRICS_2);
	write_pattern(0, 0);
	assert_pattern(0, 0);
	GUEST_DONE();
}

TEST_F(metrics, read_write)
{
	run_guest_code(self->vcpu, guest_metrics_read_write);
}

static void guest_rdpmc_agrees(void)
{
	u64 slots, metrics;
	int i;

	for (i = 0; i < 3; i++) {
		start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
		retire(100);
		mispredict(1000 * (i + 1));
		stop_counting();

		slots = rdmsr(MSR_CORE_PERF_FIXED_CTR3);
		metrics = rdmsr(MSR_PERF_METRICS);
		GUEST_ASSERT_NE(slots, 0);
		GUEST_ASSERT_NE(metrics, 0);
		assert_pattern(slots, metrics);
	}
	GUEST_DONE();
}

TEST_F(metrics, rdpmc_agrees_with_rdmsr)
{
	run_guest_code(self->vcpu, guest_rdpmc_agrees);
}

static u64 measure(void (*workload)(int), int loops)
{
	u64 metrics;

	workload(loops / 10);

	start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
	workload(loops);
	stop_counting();

	metrics = rdpmc(RDPMC_METRICS);
	assert_sum(metrics, 0);
	return metrics;
}

/*
 * The loops differ by far more than this on any CPU: the first fills most of
 * the slots, the second loses one branch in four, i.e. some 15 cycles in 14
 * instructions, and the third waits for memory nearly all the time.
 */
#define DISTINCT	16

static void guest_metrics_follow_workload(void)
{
	u64 good = measure(retire, 500);
	u64 spec = measure(mispredict, 5000);
	u64 back = measure(miss_caches, 500);

	__GUEST_ASSERT(field(good, RETIRING) >= field(spec, RETIRING) + DISTINCT,
		       "retiring: 0x%lx in the retiring loop, 0x%lx in the mispredicting loop",
		       good, spec);
	__GUEST_ASSERT(field(spec, BAD_SPEC) >= field(good, BAD_SPEC) + DISTINCT,
		       "bad speculation: 0x%lx in the retiring loop, 0x%lx in the mispredicting loop",
		       good, spec);
	__GUEST_ASSERT(field(good, RETIRING) >= field(back, RETIRING) + DISTINCT,
		       "retiring: 0x%lx in the retiring loop, 0x%lx in the cache missing loop",
		       good, back);
	__GUEST_ASSERT(field(back, BE_BOUND) >= field(good, BE_BOUND) + DISTINCT,
		       "backend bound: 0x%lx in the retiring loop, 0x%lx in the cache missing loop",
		       good, back);
	GUEST_DONE();
}

TEST_F(metrics, follow_workload)
{
	run_guest_code(self->vcpu, guest_metrics_follow_workload);
}

/* Nothing counts unless all of the enables are set. */
static void guest_metrics_need_enable(void)
{
	start_counting(0);
	wrmsr(MSR_PERF_METRICS, 0);
	retire(100);
	stop_counting();
	GUEST_ASSERT_NE(rdpmc(RDPMC_SLOTS), 0);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_METRICS), 0);
	GUEST_DONE();
}

TEST_F(metrics, need_global_enable)
{
	run_guest_code(self->vcpu, guest_metrics_need_enable);
}

/*
 * Values must survive whatever stops the vCPU.  First while nothing counts, so
 * that they must come back exactly, then while counting, so that they must not
 * go backwards or lose their sum.
 */
#define NR_STOPS	4

static void guest_survive_idle(void (*stop)(int))
{
	int i;

	for (i = 0; i < NR_STOPS; i++) {
		write_pattern(PATTERN_SLOTS + 255 * i, PATTERN_METRICS);
		stop(i);
		assert_pattern(PATTERN_SLOTS + 255 * i, PATTERN_METRICS);
	}
}

static void guest_survive_counting(void (*stop)(int))
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

static void stop_by_ucall(int i)
{
	GUEST_SYNC(i);
}

static void guest_survive_ucall(void)
{
	guest_survive_idle(stop_by_ucall);
	guest_survive_counting(stop_by_ucall);
	GUEST_DONE();
}

TEST_F(metrics, survive_exit_to_userspace)
{
	run_guest_code(self->vcpu, guest_survive_ucall);
}

static int nr_timer_irqs;

static void guest_timer_handler(struct ex_regs *regs)
{
	WRITE_ONCE(nr_timer_irqs, nr_timer_irqs + 1);
	x2apic_write_reg(APIC_EOI, 0);
}

/* KVM's APIC bus runs at 1 GHz; 1 ms is long enough for the vCPU to block. */
static void stop_by_hlt(int i)
{
	int before = READ_ONCE(nr_timer_irqs);

	x2apic_write_reg(APIC_TMICT, 1000000);
	safe_halt();
	cli();
	__GUEST_ASSERT(READ_ONCE(nr_timer_irqs) == before + 1,
		       "%d timer interrupts, want 1",
		       READ_ONCE(nr_timer_irqs) - before);
}

static void guest_survive_hlt(void)
{
	x2apic_enable();
	x2apic_write_reg(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | TIMER_VECTOR);
	x2apic_write_reg(APIC_TDCR, 0xb);

	guest_survive_idle(stop_by_hlt);
	guest_survive_counting(stop_by_hlt);
	GUEST_DONE();
}

TEST_F(metrics, survive_hlt)
{
	vm_install_exception_handler(self->vcpu->vm, TIMER_VECTOR, guest_timer_handler);
	run_guest_code(self->vcpu, guest_survive_hlt);
}

static int next_allowed_cpu(const cpu_set_t *allowed, int cpu)
{
	do {
		cpu = (cpu + 1) % CPU_SETSIZE;
	} while (!CPU_ISSET(cpu, allowed));

	return cpu;
}

TEST_F(metrics, survive_migration_between_cpus)
{
	cpu_set_t allowed;
	int cpu = -1;

	TEST_ASSERT(!sched_getaffinity(0, sizeof(allowed), &allowed),
		    "sched_getaffinity() failed");
	REQUIRE(CPU_COUNT(&allowed) >= 2, "One CPU only, need two");

	start_guest(self->vcpu, guest_survive_ucall);
	do {
		cpu = next_allowed_cpu(&allowed, cpu);
		pin_self_to_cpu(cpu);
	} while (run_to_sync(self->vcpu, NULL) != -1);
}

/* The guest's values are userspace's, and the other way round. */
static void guest_userspace_access(void)
{
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	GUEST_SYNC(0);
	assert_pattern(2 * PATTERN_SLOTS, PATTERN_METRICS_2);
	GUEST_DONE();
}

TEST_F(metrics, userspace_reads_and_writes)
{
	struct kvm_vcpu *vcpu = self->vcpu;

	start_guest(vcpu, guest_userspace_access);
	run_to_sync(vcpu, NULL);

	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_CORE_PERF_FIXED_CTR3), PATTERN_SLOTS);
	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_PERF_METRICS), PATTERN_METRICS);

	vcpu_set_msr(vcpu, MSR_CORE_PERF_FIXED_CTR3, 2 * PATTERN_SLOTS);
	vcpu_set_msr(vcpu, MSR_PERF_METRICS, PATTERN_METRICS_2);
	run_to_done(vcpu);
}

static void assert_set_msr_fails(struct kvm_vcpu *vcpu, u32 msr, u64 val)
{
	TEST_ASSERT(!_vcpu_set_msr(vcpu, msr, val),
		    "KVM_SET_MSRS(0x%x, 0x%lx) didn't fail", msr, val);
}

TEST_F(metrics, userspace_reserved_bits)
{
	struct kvm_vcpu *vcpu = self->vcpu;
	int bit;

	for (bit = 0; bit < 64; bit++) {
		if (facts.metrics_rsvd & BIT_ULL(bit))
			assert_set_msr_fails(vcpu, MSR_PERF_METRICS, BIT_ULL(bit));
		else
			vcpu_set_msr(vcpu, MSR_PERF_METRICS, BIT_ULL(bit));
	}
	vcpu_set_msr(vcpu, MSR_PERF_METRICS, 0);

	vcpu_set_msr(vcpu, MSR_CORE_PERF_GLOBAL_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS);
	assert_set_msr_fails(vcpu, MSR_CORE_PERF_GLOBAL_CTRL,
			     PMU_GLOBAL_CTRL_PERF_METRICS << 1);
	vcpu_set_msr(vcpu, MSR_CORE_PERF_GLOBAL_CTRL, 0);

	vcpu_set_msr(vcpu, MSR_CORE_PERF_GLOBAL_STATUS, PMU_GLOBAL_CTRL_PERF_METRICS);
	vcpu_set_msr(vcpu, MSR_CORE_PERF_GLOBAL_STATUS, 0);

	/* RDPMC_METRICS_CLEAR_EN is hidden. */
	assert_set_msr_fails(vcpu, MSR_CORE_PERF_FIXED_CTR_CTRL, BIT_ULL(14));
}

/*
 * Guest writes go to hardware.  It isn't documented whether reserved bits
 * fault, but in no case can they be stored.  An emulated write must fault.
 */
static void guest_reserved_bits(void)
{
	u64 val, bit;
	u8 vector;

	for (bit = BIT_ULL(63); bit; bit >>= 1) {
		if (!(guest.metrics_rsvd & bit))
			continue;

		write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
		vector = wrmsr_safe(MSR_PERF_METRICS, bit);
		__GUEST_ASSERT(!vector || vector == GP_VECTOR,
			       "WRMSR of reserved bit 0x%lx of PERF_METRICS: %s",
			       bit, ex_str(vector));
		val = rdmsr(MSR_PERF_METRICS);
		__GUEST_ASSERT(!(val & guest.metrics_rsvd),
			       "PERF_METRICS is 0x%lx after WRMSR of reserved bit 0x%lx",
			       val, bit);
		if (vector)
			GUEST_ASSERT_EQ(val, PATTERN_METRICS);
	}

	assert_wrmsr_gp(MSR_CORE_PERF_FIXED_CTR_CTRL, SLOTS_CTRL | BIT_ULL(14));
	assert_wrmsr_gp(MSR_CORE_PERF_GLOBAL_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS << 1);
	assert_rdpmc_gp(RDPMC_METRICS | 1);
	assert_rdpmc_gp(RDPMC_METRICS | 0xffff);
	assert_rdpmc_gp(INTEL_RDPMC_FIXED | 4);

	/* The CPU and its VM survive, e.g. exits don't fault in KVM. */
	GUEST_SYNC(0);
	write_pattern(0, 0);
	GUEST_DONE();
}

TEST_F(metrics, guest_reserved_bits)
{
	run_guest_code(self->vcpu, guest_reserved_bits);
}

static void guest_forced_emulation(void)
{
	u64 val;

	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	GUEST_ASSERT(!rdmsr_safe_fep(MSR_PERF_METRICS, &val));
	GUEST_ASSERT_EQ(val, PATTERN_METRICS);
	GUEST_ASSERT(!rdpmc_safe_fep(RDPMC_METRICS, &val));
	GUEST_ASSERT_EQ(val, PATTERN_METRICS);
	GUEST_ASSERT(!rdpmc_safe_fep(RDPMC_SLOTS, &val));
	GUEST_ASSERT_EQ(val, PATTERN_SLOTS);
	GUEST_ASSERT(!wrmsr_safe_fep(MSR_PERF_METRICS, PATTERN_METRICS_2));
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS_2);

	if (guest.metrics_rsvd)
		assert_gp(wrmsr_safe_fep(MSR_PERF_METRICS, BIT_ULL(32)),
			  "emulated WRMSR of a reserved bit", MSR_PERF_METRICS);
	assert_gp(rdpmc_safe_fep(RDPMC_METRICS | 1, &val), "emulated RDPMC",
		  RDPMC_METRICS | 1);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS_2);
	GUEST_DONE();
}

TEST_F(metrics, forced_emulation)
{
	REQUIRE(is_forced_emulation_enabled, "kvm.force_emulation_prefix is 0");
	run_guest_code(self->vcpu, guest_forced_emulation);
}

/*
 * Accesses to PERF_METRICS don't exit.  Count the exits of two batches: a few
 * are due to interrupts of the host, but not one per access.
 */
#define NR_ACCESSES	200

static void guest_accesses(void)
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

static void assert_few_exits(struct kvm_vcpu *vcpu)
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

TEST_F(metrics, accesses_do_not_exit)
{
	start_guest(self->vcpu, guest_accesses);
	assert_few_exits(self->vcpu);
}

/* Save, destroy the VM, create another one, restore. */

static struct kvm_vcpu *save_and_restore(struct kvm_vcpu *vcpu)
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

static const u32 topdown_msrs[] = {
	MSR_CORE_PERF_FIXED_CTR1,
	MSR_CORE_PERF_FIXED_CTR3,
	MSR_PERF_METRICS,
	MSR_CORE_PERF_FIXED_CTR_CTRL,
	MSR_CORE_PERF_GLOBAL_CTRL,
	MSR_CORE_PERF_GLOBAL_STATUS,
};

static struct kvm_vcpu *migrate_and_compare(struct kvm_vcpu *vcpu)
{
	u64 before[ARRAY_SIZE(topdown_msrs)], after;
	int i;

	vcpu_run_complete_io(vcpu);
	for (i = 0; i < ARRAY_SIZE(topdown_msrs); i++)
		before[i] = vcpu_get_msr(vcpu, topdown_msrs[i]);

	vcpu = save_and_restore(vcpu);

	for (i = 0; i < ARRAY_SIZE(topdown_msrs); i++) {
		after = vcpu_get_msr(vcpu, topdown_msrs[i]);
		TEST_ASSERT(after == before[i],
			    "MSR 0x%x is 0x%lx before and 0x%lx after save and restore",
			    topdown_msrs[i], before[i], after);
	}
	return vcpu;
}

static void guest_round_trip(void)
{
	u64 slots, metrics;

	/* Pending status, armed controls, values; all of it stopped. */
	start_overflow(1000, 0);
	retire(100);
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	GUEST_SYNC(0);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_FIXED_CTR_CTRL), SLOTS_CTRL);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL), 0);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), SLOTS_ENABLE);
	wrmsr(MSR_CORE_PERF_GLOBAL_OVF_CTRL, SLOTS_ENABLE);

	/* Counting goes on in the new VM. */
	start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
	retire(100);
	slots = rdpmc(RDPMC_SLOTS);
	GUEST_SYNC(1);
	GUEST_ASSERT(rdpmc(RDPMC_SLOTS) > slots);
	slots = rdpmc(RDPMC_SLOTS);
	retire(1000);
	GUEST_ASSERT(rdpmc(RDPMC_SLOTS) >= slots + 1000);
	metrics = rdpmc(RDPMC_METRICS);
	assert_sum(metrics, 2);
	stop_counting();
	GUEST_DONE();
}

TEST_F(metrics, save_restore_round_trip)
{
	start_guest(self->vcpu, guest_round_trip);
	TEST_ASSERT_EQ(run_to_sync(self->vcpu, NULL), 0);
	self->vcpu = migrate_and_compare(self->vcpu);
	TEST_ASSERT_EQ(run_to_sync(self->vcpu, NULL), 1);
	self->vcpu = migrate_and_compare(self->vcpu);
	run_to_done(self->vcpu);
}

/* A change of the vCPU's model starts its PMU from zero. */
TEST_F(metrics, perf_capabilities_write_resets)
{
	struct kvm_vcpu *vcpu = self->vcpu;

	vcpu_set_msr(vcpu, MSR_CORE_PERF_FIXED_CTR3, PATTERN_SLOTS);
	vcpu_set_msr(vcpu, MSR_PERF_METRICS, PATTERN_METRICS);
	vcpu_set_msr(vcpu, MSR_CORE_PERF_GLOBAL_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS);
	vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES,
		     facts.perf_capabilities & ~PMU_CAP_PERF_METRICS);
	TEST_ASSERT(!(vcpu_get_msr(vcpu, MSR_CORE_PERF_GLOBAL_CTRL) &
		      PMU_GLOBAL_CTRL_PERF_METRICS),
		    "GLOBAL_CTRL bit 48 outlived PERF_METRICS");
	vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES, facts.perf_capabilities);
	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_CORE_PERF_FIXED_CTR3), 0);
	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_PERF_METRICS), 0);
}

/* The event filter's bit 3 stops the counter and with it the metrics. */

static void set_fixed_filter(struct kvm_vcpu *vcpu, u32 action, u32 bitmap)
{
	struct kvm_pmu_event_filter filter = {
		.action = action,
		.fixed_counter_bitmap = bitmap,
	};

	vm_ioctl(vcpu->vm, KVM_SET_PMU_EVENT_FILTER, &filter);
}

static void guest_filter(void)
{
	u64 slots, metrics;

	for (;;) {
		/* Filtered or not before the counter is programmed... */
		start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
		retire(100);
		stop_counting();
		GUEST_SYNC_ARGS(0, rdpmc(RDPMC_SLOTS), rdpmc(RDPMC_METRICS), 0, 0);

		/* ... or while it counts; the workload changes the fractions. */
		start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
		retire(10);
		GUEST_SYNC(1);
		slots = rdpmc(RDPMC_SLOTS);
		metrics = rdpmc(RDPMC_METRICS);
		mispredict(5000);
		stop_counting();
		GUEST_SYNC_ARGS(2, rdpmc(RDPMC_SLOTS) - slots,
				rdpmc(RDPMC_METRICS) ^ metrics, 0, 0);
	}
}

static void assert_filtered(struct kvm_vcpu *vcpu, u64 stage, bool counts)
{
	struct ucall uc;

	TEST_ASSERT_EQ(run_to_sync(vcpu, &uc), stage);
	TEST_ASSERT(!!uc.args[2] == counts,
		    "Stage %lu: %lu slots, want them to %s", stage, uc.args[2],
		    counts ? "count" : "stand still");
	TEST_ASSERT(!!uc.args[3] == counts,
		    "Stage %lu: PERF_METRICS changed by 0x%lx, want them to %s",
		    stage, uc.args[3], counts ? "count" : "stand still");
}

TEST_F(metrics, event_filter)
{
	struct kvm_vcpu *vcpu = self->vcpu;
	static const struct {
		u32 action, bitmap;
		bool counts;
	} filters[] = {
		{ KVM_PMU_EVENT_DENY, 0, true },
		{ KVM_PMU_EVENT_DENY, BIT(3), false },
		{ KVM_PMU_EVENT_DENY, BIT(2), true },
		{ KVM_PMU_EVENT_ALLOW, 0, false },
		{ KVM_PMU_EVENT_ALLOW, BIT(3), true },
		{ KVM_PMU_EVENT_ALLOW, GENMASK(2, 0), false },
		{ KVM_PMU_EVENT_ALLOW, GENMASK(3, 0), true },
	};
	int i;

	start_guest(vcpu, guest_filter);
	for (i = 0; i < ARRAY_SIZE(filters); i++) {
		set_fixed_filter(vcpu, filters[i].action, filters[i].bitmap);
		assert_filtered(vcpu, 0, filters[i].counts);

		/* From "allowed" to the filter under test, mid-flight. */
		set_fixed_filter(vcpu, KVM_PMU_EVENT_ALLOW, BIT(3));
		TEST_ASSERT_EQ(run_to_sync(vcpu, NULL), 1);
		set_fixed_filter(vcpu, filters[i].action, filters[i].bitmap);
		assert_filtered(vcpu, 2, filters[i].counts);
	}
}

/* RDPMC at CPL 3. */

#define USER_CS		(0x28 | 3)
#define USER_DS		(0x30 | 3)
#define KERNEL_CS	0x8

/* 64-bit code and data segments of DPL 3, present, flat, accessed. */
#define USER_CS_DESC	0x00affb000000ffffull
#define USER_DS_DESC	0x00cff3000000ffffull

/* Ends with an exception in any case: #GP if RDPMC fails, else #UD. */
static void __aligned(64) __attribute__((naked)) user_rdpmc(void)
{
	asm volatile("rdpmc\n\t"
		     "ud2");
}

static u64 user_exit_rip, user_exit_rsp, user_vector;

/* Return to rdpmc_in_user_mode(), with RDPMC's result in RAX and RDX. */
static void guest_user_exit(struct ex_regs *regs)
{
	u64 *frame = (u64 *)(regs + 1);

	__GUEST_ASSERT((regs->cs & 3) == 3, "Exception %lu at RIP 0x%lx in ring 0",
		       regs->vector, regs->rip);
	user_vector = regs->vector;
	regs->rip = user_exit_rip;
	regs->cs = KERNEL_CS;
	frame[0] = user_exit_rsp;
	frame[1] = 0;
}

static u8 rdpmc_in_user_mode(u32 index, u64 *val)
{
	u32 eax, edx;

	asm volatile("lea 1f(%%rip), %%rax\n\t"
		     "mov %%rax, %[exit_rip]\n\t"
		     "mov %%rsp, %%rdx\n\t"
		     "mov %%rsp, %[exit_rsp]\n\t"
		     "sub $128, %%rsp\n\t"	/* the red zone */
		     "pushq %[ss]\n\t"
		     "pushq %%rdx\n\t"
		     "pushfq\n\t"
		     "pushq %[cs]\n\t"
		     "pushq %[rip]\n\t"
		     "iretq\n\t"
		     "1:"
		     : "=&a"(eax), "=&d"(edx), [exit_rip] "=m"(user_exit_rip),
		       [exit_rsp] "=m"(user_exit_rsp)
		     : "c"(index), [ss] "i"(USER_DS), [cs] "i"(USER_CS),
		       [rip] "r"((u64)user_rdpmc)
		     : "memory", "cc");

	*val = (u64)edx << 32 | eax;
	return user_vector == UD_VECTOR ? 0 : user_vector;
}

static void assert_user_rdpmc(u32 index, u64 expected, bool allowed)
{
	u64 val;
	u8 vector = rdpmc_in_user_mode(index, &val);

	__GUEST_ASSERT(vector == (allowed ? 0 : GP_VECTOR),
		       "Expected %s on RDPMC(0x%x) at CPL 3, got %s",
		       allowed ? "no fault" : "#GP", index, ex_str(vector));
	if (allowed)
		__GUEST_ASSERT(val == expected, "RDPMC(0x%x) at CPL 3 is 0x%lx, want 0x%lx",
			       index, val, expected);
}

static void guest_user_mode_unsupported(void)
{
	set_cr4(get_cr4() & ~X86_CR4_PCE);
	assert_user_rdpmc(RDPMC_METRICS, 0, false);
	set_cr4(get_cr4() | X86_CR4_PCE);
	assert_user_rdpmc(RDPMC_METRICS, 0, false);
	GUEST_DONE();
}

static void guest_user_mode(void)
{
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);

	set_cr4(get_cr4() & ~X86_CR4_PCE);
	assert_user_rdpmc(RDPMC_METRICS, PATTERN_METRICS, false);
	assert_user_rdpmc(RDPMC_METRICS | 1, 0, false);
	assert_user_rdpmc(RDPMC_SLOTS, PATTERN_SLOTS, false);

	set_cr4(get_cr4() | X86_CR4_PCE);
	assert_user_rdpmc(RDPMC_METRICS, PATTERN_METRICS, true);
	assert_user_rdpmc(RDPMC_METRICS | 1, 0, false);
	assert_user_rdpmc(RDPMC_SLOTS, PATTERN_SLOTS, true);
	GUEST_DONE();
}

static void map_for_user(struct kvm_vm *vm, gva_t gva)
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

static void run_user_mode_test(struct kvm_vcpu *vcpu, void *guest_code)
{
	struct kvm_vm *vm = vcpu->vm;
	u64 *gdt = addr_gva2hva(vm, vm->arch.gdt);
	void *tss = addr_gva2hva(vm, vm->arch.tss);
	u64 rsp0 = vm_alloc_page(vm) + getpagesize();

	gdt[USER_CS >> 3] = USER_CS_DESC;
	gdt[USER_DS >> 3] = USER_DS_DESC;
	memcpy(tss + 4, &rsp0, sizeof(rsp0));
	map_for_user(vm, (gva_t)user_rdpmc);

	vm_install_exception_handler(vm, GP_VECTOR, guest_user_exit);
	vm_install_exception_handler(vm, UD_VECTOR, guest_user_exit);
	start_guest(vcpu, guest_code);
	TEST_ASSERT_EQ(run_to_sync(vcpu, NULL), -1);
}

TEST_F(metrics, rdpmc_in_user_mode)
{
	run_user_mode_test(self->vcpu, guest_user_mode);
}

/*
 * After the guest, nothing of it is left for the host's user mode, which can
 * read all PMCs and PERF_METRICS while it has a perf event mapped.
 */
static u64 raw_rdpmc(u32 index)
{
	u32 eax, edx;

	asm volatile("rdpmc" : "=a"(eax), "=d"(edx) : "c"(index));
	return (u64)edx << 32 | eax;
}

static bool allow_host_rdpmc(void)
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
static bool host_counts_slots(void)
{
	u64 slots = raw_rdpmc(RDPMC_SLOTS);
	int i;

	for (i = 0; i < 1000; i++)
		barrier();
	return raw_rdpmc(RDPMC_SLOTS) != slots;
}

TEST_F(metrics, host_user_mode_sees_nothing)
{
	int i;

	REQUIRE(allow_host_rdpmc(), "perf doesn't let user mode execute RDPMC");

	pin_self_to_any_cpu();
	REQUIRE(!host_counts_slots(), "Somebody counts slots on the host");

	start_guest(self->vcpu, guest_survive_ucall);
	for (i = 0; i < 2 * NR_STOPS; i++) {
		run_to_sync(self->vcpu, NULL);
		TEST_ASSERT_EQ(raw_rdpmc(RDPMC_SLOTS), 0);
		TEST_ASSERT_EQ(raw_rdpmc(RDPMC_METRICS), 0);
	}
	run_to_done(self->vcpu);
}

/*
 * A vCPU with PERF_METRICS but fewer general purpose counters than the host:
 * KVM intercepts RDPMC and GLOBAL_CTRL to hide the rest.
 */
FIXTURE(partial) {
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(partial)
{
	u8 nr_gp = kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);

	REQUIRE_METRICS();
	REQUIRE(nr_gp > 1, "The host has one general purpose counter, need two");
	self->vcpu = create_vcpu(FULL);
	vcpu_set_cpuid_property(self->vcpu, X86_PROPERTY_PMU_NR_GP_COUNTERS, nr_gp - 1);
}

FIXTURE_TEARDOWN(partial)
{
	kvm_vm_free(self->vcpu->vm);
}

static void guest_emulated_rdpmc(void)
{
	guest_survive_idle(stop_by_ucall);

	assert_rdpmc_gp(RDPMC_METRICS | 1);
	assert_rdpmc_gp(RDPMC_METRICS | 0xffff);
	assert_rdpmc_gp(RDPMC_METRICS | INTEL_RDPMC_FIXED);
	assert_rdpmc_gp(INTEL_RDPMC_FIXED | 4);
	assert_rdpmc_gp(this_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS));

	start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
	retire(1000);
	stop_counting();
	assert_sum(rdpmc(RDPMC_METRICS), 4);
	assert_pattern(rdmsr(MSR_CORE_PERF_FIXED_CTR3), rdmsr(MSR_PERF_METRICS));
	GUEST_DONE();
}

TEST_F(partial, rdpmc_is_emulated)
{
	run_guest_code(self->vcpu, guest_emulated_rdpmc);
}

TEST_F(partial, rdpmc_in_user_mode)
{
	run_user_mode_test(self->vcpu, guest_user_mode);
}

TEST_F(partial, survive_exit_to_userspace)
{
	run_guest_code(self->vcpu, guest_survive_ucall);
}

/* Nested: L1's MSR bitmap decides, and L2 shares L1's PMU. */

#define EXIT_MSR_READ		31
#define EXIT_MSR_WRITE		32
#define EXIT_VMCALL		18
#define EXIT_BAD_GUEST_STATE	(EXIT_REASON_FAILED_VMENTRY | 33)
#define EXIT_MSR_LOAD_FAIL	(EXIT_REASON_FAILED_VMENTRY | 34)

#define L2_STACK_SIZE		256

static unsigned long l2_stack[L2_STACK_SIZE];

FIXTURE(nested) {
	struct kvm_vcpu *vcpu;
	gva_t vmx;
};

FIXTURE_SETUP(nested)
{
	REQUIRE_METRICS();
	REQUIRE(kvm_cpu_has(X86_FEATURE_VMX), "KVM has no nested VMX");
	self->vcpu = create_vcpu(FULL);
	vcpu_alloc_vmx(self->vcpu->vm, &self->vmx);
}

FIXTURE_TEARDOWN(nested)
{
	kvm_vm_free(self->vcpu->vm);
}

static void start_l1(struct kvm_vcpu *vcpu, void *l1_code, gva_t vmx)
{
	start_guest(vcpu, l1_code);
	vcpu_args_set(vcpu, 1, vmx);
}

static void prepare_l2(struct vmx_pages *vmx)
{
	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
	prepare_vmcs(vmx, NULL, &l2_stack[L2_STACK_SIZE]);
	GUEST_ASSERT(!vmwrite(CPU_BASED_VM_EXEC_CONTROL,
			      vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
			      CPU_BASED_USE_MSR_BITMAPS));
}

/* The first successful entry has to be a VMLAUNCH, all others VMRESUME. */
static void __run_l2(void *code, u32 expected_exit, int line)
{
	static bool launched;
	u32 reason;

	GUEST_ASSERT(!vmwrite(GUEST_RIP, (u64)code));
	GUEST_ASSERT(!vmwrite(GUEST_RSP, (u64)&l2_stack[L2_STACK_SIZE]));
	GUEST_ASSERT(!(launched ? vmresume() : vmlaunch()));

	reason = vmreadz(VM_EXIT_REASON);
	__GUEST_ASSERT(reason == expected_exit,
		       "Line %d: VM exit 0x%x from L2, want 0x%x, qualification 0x%lx",
		       line, reason, expected_exit, vmreadz(EXIT_QUALIFICATION));
	if (!(reason & EXIT_REASON_FAILED_VMENTRY))
		launched = true;
}

#define run_l2(code, expected_exit) __run_l2(code, expected_exit, __LINE__)

static void set_msr_bitmap(struct vmx_pages *vmx, bool intercept)
{
	u8 *reads = vmx->msr, *writes = reads + 0x800;
	u8 bit = BIT(MSR_PERF_METRICS % 8);

	if (intercept) {
		reads[MSR_PERF_METRICS / 8] |= bit;
		writes[MSR_PERF_METRICS / 8] |= bit;
	} else {
		reads[MSR_PERF_METRICS / 8] &= ~bit;
		writes[MSR_PERF_METRICS / 8] &= ~bit;
	}
}

static void l2_swap_pattern(void)
{
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	wrmsr(MSR_PERF_METRICS, PATTERN_METRICS_2);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS_2);
	vmcall();
}

static void l1_passthrough(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	run_l2(l2_swap_pattern, EXIT_VMCALL);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS_2);
	GUEST_DONE();
}

TEST_F(nested, l2_shares_metrics)
{
	start_l1(self->vcpu, l1_passthrough, self->vmx);
	run_to_done(self->vcpu);
}

static void l1_accesses(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	run_l2(guest_accesses, EXIT_VMCALL);
	GUEST_FAIL("L2 came back");
}

TEST_F(nested, l2_accesses_do_not_exit)
{
	start_l1(self->vcpu, l1_accesses, self->vmx);
	assert_few_exits(self->vcpu);
}

static void l2_read(void)
{
	rdmsr(MSR_PERF_METRICS);
	GUEST_FAIL("L1 intercepts RDMSR, but L2 executed it");
}

static void l2_write(void)
{
	wrmsr(MSR_PERF_METRICS, PATTERN_METRICS_2);
	GUEST_FAIL("L1 intercepts WRMSR, but L2 executed it");
}

static void l1_intercept(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);

	set_msr_bitmap(vmx, true);
	run_l2(l2_read, EXIT_MSR_READ);
	run_l2(l2_write, EXIT_MSR_WRITE);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);

	set_msr_bitmap(vmx, false);
	run_l2(l2_swap_pattern, EXIT_VMCALL);
	GUEST_DONE();
}

TEST_F(nested, l1_intercepts)
{
	start_l1(self->vcpu, l1_intercept, self->vmx);
	run_to_done(self->vcpu);
}

/* L1's VM-entry load, VM-exit store and VM-exit load lists. */

static struct vmx_msr_entry entry_load, exit_store, exit_load;

static void l2_check_loaded(void)
{
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS_2);
	wrmsr(MSR_PERF_METRICS, 0x01020304);
	vmcall();
}

/* L1 has no means to translate addresses, so userspace passes them in. */
static void l1_msr_lists(struct vmx_pages *vmx, u64 load_gpa, u64 store_gpa,
			 u64 reload_gpa)
{
	const struct vmx_msr_entry metrics = {
		.index = MSR_PERF_METRICS,
		.value = PATTERN_METRICS_2,
	};

	prepare_l2(vmx);
	GUEST_ASSERT(!vmwrite(VM_ENTRY_MSR_LOAD_ADDR, load_gpa));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_STORE_ADDR, store_gpa));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_LOAD_ADDR, reload_gpa));
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);

	entry_load = metrics;
	exit_store = metrics;
	exit_load = metrics;
	exit_load.value = PATTERN_METRICS;
	GUEST_ASSERT(!vmwrite(VM_ENTRY_MSR_LOAD_COUNT, 1));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_STORE_COUNT, 1));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_LOAD_COUNT, 1));

	run_l2(l2_check_loaded, EXIT_VMCALL);
	GUEST_ASSERT_EQ(exit_store.value, 0x01020304);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);

	/* A reserved bit fails the entry, as WRMSR would #GP. */
	if (guest.metrics_rsvd) {
		entry_load.value = BIT_ULL(32);
		run_l2(l2_check_loaded, EXIT_MSR_LOAD_FAIL);
		assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	}
	GUEST_DONE();
}

TEST_F(nested, msr_lists)
{
	struct kvm_vm *vm = self->vcpu->vm;

	start_guest(self->vcpu, l1_msr_lists);
	vcpu_args_set(self->vcpu, 4, self->vmx,
		      addr_gva2gpa(vm, (gva_t)&entry_load),
		      addr_gva2gpa(vm, (gva_t)&exit_store),
		      addr_gva2gpa(vm, (gva_t)&exit_load));
	run_to_done(self->vcpu);
}

/* The VM-entry load of GLOBAL_CTRL accepts bit 48 if the vCPU does. */

static void l2_check_global_ctrl(void)
{
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL),
			SLOTS_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
	vmcall();
}

static void l1_global_ctrl(struct vmx_pages *vmx, bool has_metrics)
{
	prepare_l2(vmx);
	GUEST_ASSERT(!vmwrite(VM_ENTRY_CONTROLS, vmreadz(VM_ENTRY_CONTROLS) |
			      VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL));
	GUEST_ASSERT(!vmwrite(GUEST_IA32_PERF_GLOBAL_CTRL,
			      SLOTS_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS));
	run_l2(l2_check_global_ctrl, has_metrics ? EXIT_VMCALL : EXIT_BAD_GUEST_STATE);
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
	GUEST_DONE();
}

static void run_global_ctrl_test(struct kvm_vcpu *vcpu, gva_t vmx, bool has_metrics)
{
	start_guest(vcpu, l1_global_ctrl);
	vcpu_args_set(vcpu, 2, vmx, (u64)has_metrics);
	run_to_done(vcpu);
}

static bool nested_entry_loads_global_ctrl(void)
{
	u64 ctls = kvm_get_feature_msr(MSR_IA32_VMX_TRUE_ENTRY_CTLS);

	return (ctls >> 32) & VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL;
}

TEST_F(nested, vm_entry_loads_global_ctrl)
{
	REQUIRE(nested_entry_loads_global_ctrl(), "Nested VMX can't load GLOBAL_CTRL");
	run_global_ctrl_test(self->vcpu, self->vmx, true);
}

static void l2_unsupported(void)
{
	u64 val;

	assert_gp(rdmsr_safe(MSR_PERF_METRICS, &val), "RDMSR in L2", MSR_PERF_METRICS);
	assert_gp(wrmsr_safe(MSR_PERF_METRICS, 0), "WRMSR in L2", MSR_PERF_METRICS);
	assert_gp(rdpmc_safe(RDPMC_METRICS, &val), "RDPMC in L2", RDPMC_METRICS);
	vmcall();
}

static void l1_unsupported(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	run_l2(l2_unsupported, EXIT_VMCALL);
	GUEST_DONE();
}

/* Unsupported: every kind of vCPU that has no PERF_METRICS. */

FIXTURE(unsupported) {
	struct kvm_vcpu *vcpu;
	bool has_slots;
};

FIXTURE_VARIANT(unsupported) {
	enum vcpu_kind kind;
};

FIXTURE_VARIANT_ADD(unsupported, no_cap_bit) { .kind = NO_CAP_BIT };
FIXTURE_VARIANT_ADD(unsupported, three_fixed) { .kind = THREE_FIXED };
FIXTURE_VARIANT_ADD(unsupported, three_fixed_cap_bit) { .kind = THREE_FIXED_CAP_BIT };
FIXTURE_VARIANT_ADD(unsupported, no_pdcm) { .kind = NO_PDCM };
FIXTURE_VARIANT_ADD(unsupported, version_1) { .kind = VERSION_1 };
FIXTURE_VARIANT_ADD(unsupported, version_0) { .kind = VERSION_0 };
FIXTURE_VARIANT_ADD(unsupported, pmu_disabled) { .kind = PMU_DISABLED };

static bool kind_has_slots(enum vcpu_kind kind)
{
	return facts.has_slots &&
	       (kind == FULL || kind == NO_CAP_BIT || kind == NO_PDCM);
}

FIXTURE_SETUP(unsupported)
{
	if (variant->kind == PMU_DISABLED)
		REQUIRE(kvm_check_cap(KVM_CAP_PMU_CAPABILITY) & KVM_PMU_CAP_DISABLE,
			"KVM has no KVM_PMU_CAP_DISABLE");

	self->vcpu = create_vcpu(variant->kind);
	self->has_slots = kind_has_slots(variant->kind);
	guest.has_slots = self->has_slots;
}

FIXTURE_TEARDOWN(unsupported)
{
	kvm_vm_free(self->vcpu->vm);
}

static void guest_unsupported_msr(void)
{
	assert_rdmsr_gp(MSR_PERF_METRICS);
	assert_wrmsr_gp(MSR_PERF_METRICS, 0);
	assert_wrmsr_gp(MSR_PERF_METRICS, PATTERN_METRICS);

	if (!guest.has_slots) {
		assert_rdmsr_gp(MSR_CORE_PERF_FIXED_CTR3);
		assert_wrmsr_gp(MSR_CORE_PERF_FIXED_CTR3, 0);
	}
	GUEST_DONE();
}

TEST_F(unsupported, msr)
{
	run_guest_code(self->vcpu, guest_unsupported_msr);
}

/*
 * KVM hides bit 15 from a guest that can't use PERF_METRICS, as that guest would
 * set GLOBAL_CTRL's bit 48 otherwise, and shows userspace what userspace wrote.
 */
static void guest_capability(void)
{
	__GUEST_ASSERT(!(rdmsr(MSR_IA32_PERF_CAPABILITIES) & PMU_CAP_PERF_METRICS),
		       "PERF_CAPABILITIES is 0x%lx, want bit 15 clear",
		       rdmsr(MSR_IA32_PERF_CAPABILITIES));
	GUEST_DONE();
}

TEST_F(unsupported, capability_is_hidden)
{
	struct kvm_vcpu *vcpu = self->vcpu;
	u64 caps;

	REQUIRE(vcpu_cpuid_has(vcpu, X86_FEATURE_PDCM), "The vCPU has no PERF_CAPABILITIES");

	caps = vcpu_get_msr(vcpu, MSR_IA32_PERF_CAPABILITIES);
	run_guest_code(vcpu, guest_capability);
	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_IA32_PERF_CAPABILITIES), caps);
	if (variant->kind == THREE_FIXED_CAP_BIT)
		TEST_ASSERT_EQ(caps, facts.perf_capabilities);
}

static void guest_unsupported_rdpmc(void)
{
	assert_rdpmc_gp(RDPMC_METRICS);
	assert_rdpmc_gp(RDPMC_METRICS | 1);
	if (!guest.has_slots)
		assert_rdpmc_gp(RDPMC_SLOTS);
	GUEST_DONE();
}

TEST_F(unsupported, rdpmc)
{
	run_guest_code(self->vcpu, guest_unsupported_rdpmc);
}

TEST_F(unsupported, rdpmc_in_user_mode)
{
	run_user_mode_test(self->vcpu, guest_user_mode_unsupported);
}

static void guest_unsupported_control_bits(void)
{
	assert_wrmsr_gp(MSR_CORE_PERF_GLOBAL_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS);
	assert_wrmsr_gp(MSR_CORE_PERF_GLOBAL_OVF_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS);
	assert_wrmsr_gp(MSR_CORE_PERF_FIXED_CTR_CTRL, BIT_ULL(14));

	if (!guest.has_slots) {
		assert_wrmsr_gp(MSR_CORE_PERF_GLOBAL_CTRL, SLOTS_ENABLE);
		assert_wrmsr_gp(MSR_CORE_PERF_GLOBAL_OVF_CTRL, SLOTS_ENABLE);
		assert_wrmsr_gp(MSR_CORE_PERF_FIXED_CTR_CTRL, SLOTS_CTRL);
	}
	GUEST_DONE();
}

TEST_F(unsupported, control_bits)
{
	run_guest_code(self->vcpu, guest_unsupported_control_bits);
}

/*
 * Userspace can't set what the vCPU doesn't have.  It can read and write zero,
 * as for all MSRs in KVM_GET_MSR_INDEX_LIST.
 */
static void assert_msr_absent(struct kvm_vcpu *vcpu, u32 msr)
{
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry;
	} buffer = { .header.nmsrs = 1, .entry.index = msr };
	int r;

	assert_set_msr_fails(vcpu, msr, PATTERN_METRICS);
	r = __vcpu_ioctl(vcpu, KVM_GET_MSRS, &buffer.header);
	TEST_ASSERT(r != 1 || !buffer.entry.data,
		    "KVM_GET_MSRS(0x%x) is 0x%llx on a vCPU without the MSR",
		    msr, buffer.entry.data);
}

TEST_F(unsupported, userspace)
{
	struct kvm_vcpu *vcpu = self->vcpu;

	assert_msr_absent(vcpu, MSR_PERF_METRICS);
	assert_set_msr_fails(vcpu, MSR_CORE_PERF_GLOBAL_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS);
	assert_set_msr_fails(vcpu, MSR_CORE_PERF_GLOBAL_STATUS, PMU_GLOBAL_CTRL_PERF_METRICS);
	if (!self->has_slots) {
		assert_msr_absent(vcpu, MSR_CORE_PERF_FIXED_CTR3);
		assert_set_msr_fails(vcpu, MSR_CORE_PERF_GLOBAL_CTRL, SLOTS_ENABLE);
	}
}

/* L1's MSR bitmap can't give L2 what L1 doesn't have. */
TEST_F(unsupported, nested)
{
	gva_t vmx;

	REQUIRE(kvm_cpu_has(X86_FEATURE_VMX), "KVM has no nested VMX");
	vcpu_alloc_vmx(self->vcpu->vm, &vmx);
	start_l1(self->vcpu, l1_unsupported, vmx);
	run_to_done(self->vcpu);
}

TEST_F(unsupported, nested_vm_entry_global_ctrl)
{
	gva_t vmx;

	REQUIRE(kvm_cpu_has(X86_FEATURE_VMX), "KVM has no nested VMX");
	REQUIRE(nested_entry_loads_global_ctrl(), "Nested VMX can't load GLOBAL_CTRL");
	REQUIRE(variant->kind != VERSION_1 && variant->kind != VERSION_0 &&
		variant->kind != PMU_DISABLED, "The vCPU has no GLOBAL_CTRL");
	vcpu_alloc_vmx(self->vcpu->vm, &vmx);
	run_global_ctrl_test(self->vcpu, vmx, false);
}

/*
 * Without an in-kernel APIC, a vCPU can't have the mediated vPMU.  The library
 * always creates the APIC along with the IDT, so do without both: an exception
 * becomes a triple fault, and HLT exits to userspace.
 */
FIXTURE(no_irqchip) {
};

FIXTURE_SETUP(no_irqchip)
{
}

FIXTURE_TEARDOWN(no_irqchip)
{
}

static void guest_bare_rdmsr(void)
{
	rdmsr(MSR_PERF_METRICS);
	hlt();
}

static void guest_bare_wrmsr(void)
{
	wrmsr(MSR_PERF_METRICS, 0);
	hlt();
}

static void guest_bare_rdpmc(void)
{
	raw_rdpmc(RDPMC_METRICS);
	hlt();
}

static void guest_bare_global_ctrl(void)
{
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS);
	hlt();
}

static void guest_bare_hlt(void)
{
	hlt();
}

static u32 run_bare(void *guest_code)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	u32 exit_reason;
	int i;

	vm = vm_create_barebones();
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, 0, 0, 2048, 0);
	for (i = 0; i < NR_MEM_REGIONS; i++)
		vm->memslots[i] = 0;
	kvm_vm_elf_load(vm, program_invocation_name);

	vcpu = vm_vcpu_add(vm, 0, guest_code);
	assert_msr_absent(vcpu, MSR_PERF_METRICS);
	vcpu_run(vcpu);
	exit_reason = vcpu->run->exit_reason;
	kvm_vm_free(vm);
	return exit_reason;
}

static void assert_bare_fault(void *guest_code, const char *what)
{
	u32 exit_reason = run_bare(guest_code);

	TEST_ASSERT(exit_reason == KVM_EXIT_SHUTDOWN,
		    "%s: Expected a triple fault, got exit %s", what,
		    exit_reason_str(exit_reason));
}

TEST_F(no_irqchip, guest_gets_nothing)
{
	TEST_ASSERT_EQ(run_bare(guest_bare_hlt), KVM_EXIT_HLT);
	assert_bare_fault(guest_bare_rdmsr, "RDMSR(PERF_METRICS)");
	assert_bare_fault(guest_bare_wrmsr, "WRMSR(PERF_METRICS)");
	assert_bare_fault(guest_bare_rdpmc, "RDPMC(PERF_METRICS)");
	assert_bare_fault(guest_bare_global_ctrl, "WRMSR(GLOBAL_CTRL, bit 48)");
}

/* Isolation: a vCPU with PERF_METRICS and a neighbour take turns on one CPU. */

FIXTURE(isolation) {
	struct kvm_vcpu *vcpu;
	struct kvm_vcpu *neighbour;
};

FIXTURE_VARIANT(isolation) {
	enum vcpu_kind kind;
};

FIXTURE_VARIANT_ADD(isolation, full) { .kind = FULL };
FIXTURE_VARIANT_ADD(isolation, no_cap_bit) { .kind = NO_CAP_BIT };
FIXTURE_VARIANT_ADD(isolation, three_fixed) { .kind = THREE_FIXED };
FIXTURE_VARIANT_ADD(isolation, three_fixed_cap_bit) { .kind = THREE_FIXED_CAP_BIT };
FIXTURE_VARIANT_ADD(isolation, version_1) { .kind = VERSION_1 };
FIXTURE_VARIANT_ADD(isolation, version_0) { .kind = VERSION_0 };
FIXTURE_VARIANT_ADD(isolation, pmu_disabled) { .kind = PMU_DISABLED };

FIXTURE_SETUP(isolation)
{
	REQUIRE_METRICS();
	if (variant->kind == PMU_DISABLED)
		REQUIRE(kvm_check_cap(KVM_CAP_PMU_CAPABILITY) & KVM_PMU_CAP_DISABLE,
			"KVM has no KVM_PMU_CAP_DISABLE");

	self->vcpu = create_vcpu(FULL);
	self->neighbour = create_vcpu(variant->kind);
}

FIXTURE_TEARDOWN(isolation)
{
	kvm_vm_free(self->vcpu->vm);
	kvm_vm_free(self->neighbour->vm);
}

static void guest_neighbour(bool has_slots, bool has_metrics)
{
	u64 slots = 0, metrics = 0;

	for (;;) {
		if (has_metrics) {
			assert_pattern(slots, metrics);
			slots = 2 * PATTERN_SLOTS;
			metrics = PATTERN_METRICS_2;
			write_pattern(slots, metrics);
		} else {
			assert_rdpmc_gp(RDPMC_METRICS);
			assert_rdmsr_gp(MSR_PERF_METRICS);
		}

		if (has_slots) {
			GUEST_ASSERT_EQ(rdpmc(RDPMC_SLOTS), slots);
			GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_FIXED_CTR3), slots);
			slots = 2 * PATTERN_SLOTS;
			wrmsr(MSR_CORE_PERF_FIXED_CTR3, slots);
		} else {
			assert_rdpmc_gp(RDPMC_SLOTS);
		}
		GUEST_SYNC(0);
	}
}

TEST_F(isolation, share_a_cpu)
{
	bool has_slots = kind_has_slots(variant->kind);

	pin_self_to_any_cpu();
	start_guest(self->neighbour, guest_neighbour);
	vcpu_args_set(self->neighbour, 2, (u64)has_slots,
		      (u64)(variant->kind == FULL));

	start_guest(self->vcpu, guest_survive_ucall);
	do {
		TEST_ASSERT_EQ(run_to_sync(self->neighbour, NULL), 0);
	} while (run_to_sync(self->vcpu, NULL) != -1);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(host_cpu_is_intel);
	TEST_REQUIRE(kvm_is_pmu_enabled());
	TEST_REQUIRE(!kvm_is_ignore_msrs());
	TEST_REQUIRE(kvm_cpu_has_p(X86_PROPERTY_PMU_VERSION));
	TEST_REQUIRE(kvm_cpu_property(X86_PROPERTY_PMU_VERSION) >= 2);

	gather_facts();

	return test_harness_run(argc, argv);
}
