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
 *   unsupported  a vCPU without PERF_METRICS gets #GP, for every reason why a
 *                vCPU can lack it
 *
 * Nested guests, migration, and guests that share a CPU have tests of their own,
 * pmu_topdown_*_test.  Tests that need a feature the host lacks are skipped, with
 * the reason.
 */
#include "pmu_topdown.h"
#include "user_mode.h"

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

static void guest_slots_overflow(void)
{
	int i;

	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	sti();

	/* Without the PMI enabled, only the status is set... */
	start_overflow(10000, 0, 0);
	retire(1000);
	stop_counting();
	GUEST_ASSERT_EQ(READ_ONCE(nr_pmis), 0);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), SLOTS_ENABLE);
	wrmsr(MSR_CORE_PERF_GLOBAL_OVF_CTRL, SLOTS_ENABLE);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), 0);

	/* ... with it, the handler runs as well. */
	start_overflow(10000, FIXED_PMC_ENABLE_PMI, 0);
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

/*
 * CondChgd (bit 63) can be read and cleared, but not be set by software.  It must
 * not keep the other bits from being loaded, nor make KVM fault on the host.
 */
static void guest_status(void)
{
	u64 status = rdmsr(MSR_CORE_PERF_GLOBAL_STATUS) & ~BIT_ULL(63);

	__GUEST_ASSERT(status == SLOTS_ENABLE,
		       "GLOBAL_STATUS is 0x%lx but for bit 63, want 0x%lx",
		       status, (u64)SLOTS_ENABLE);
	GUEST_DONE();
}

TEST_F(slots, status_survives_condchgd)
{
	vcpu_set_msr(self->vcpu, MSR_CORE_PERF_GLOBAL_STATUS,
		     SLOTS_ENABLE | BIT_ULL(63));
	run_guest_code(self->vcpu, guest_status);
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

/*
 * Spend as many slots on one thing as then on another, the latter in pieces far
 * smaller than 1/255 of all.  Exits in between don't count, so they mustn't make a
 * difference, either.
 */
#define NR_PIECES	2000

static u64 guest_measure_halves(bool exits)
{
	u64 half;
	int i;

	start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
	for (i = 0; i < NR_PIECES; i++)
		mispredict(50);
	half = rdpmc(RDPMC_SLOTS);
	while (rdpmc(RDPMC_SLOTS) < 2 * half) {
		retire(20);
		if (exits)
			this_cpu_has(X86_FEATURE_XMM);
	}
	stop_counting();

	return rdpmc(RDPMC_METRICS);
}

/*
 * What the host does in an exit costs the guest some cache lines and predictions,
 * at most a few dozen of the thousands of slots of a piece.  A field that stopped
 * moving after the first half would be off by half the difference of the two kinds
 * of work, see DISTINCT.
 */
#define SIMILAR		(DISTINCT / 2)

static void guest_exits_change_nothing(void)
{
	u64 without = guest_measure_halves(false);
	u64 with = guest_measure_halves(true);
	int i;

	for (i = RETIRING; i <= BE_BOUND; i++)
		__GUEST_ASSERT(field(with, i) <= field(without, i) + SIMILAR &&
			       field(without, i) <= field(with, i) + SIMILAR,
			       "Field %d of PERF_METRICS: 0x%lx with exits, 0x%lx without",
			       i, with, without);
	GUEST_DONE();
}

TEST_F(metrics, precise_after_exits)
{
	run_guest_code(self->vcpu, guest_exits_change_nothing);
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

TEST_F(metrics, survive_exit_to_userspace)
{
	run_guest_code(self->vcpu, guest_survive_ucall);
}

static void guest_survive_hlt(void)
{
	prepare_timer();
	guest_survive_idle(stop_by_hlt);
	guest_survive_counting(stop_by_hlt);
	GUEST_DONE();
}

TEST_F(metrics, survive_hlt)
{
	vm_install_exception_handler(self->vcpu->vm, TIMER_VECTOR, guest_timer_handler);
	run_guest_code(self->vcpu, guest_survive_hlt);
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

	/* The fractions may change with what they are fractions of. */
	GUEST_SYNC(1);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_SLOTS), PATTERN_SLOTS);
	GUEST_SYNC(2);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_METRICS), PATTERN_METRICS);
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
	TEST_ASSERT_EQ(run_to_sync(vcpu, NULL), 1);

	/* Each alone is a write, too. */
	vcpu_set_msr(vcpu, MSR_CORE_PERF_FIXED_CTR3, PATTERN_SLOTS);
	TEST_ASSERT_EQ(run_to_sync(vcpu, NULL), 2);
	vcpu_set_msr(vcpu, MSR_PERF_METRICS, PATTERN_METRICS);
	run_to_done(vcpu);
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

TEST_F(metrics, accesses_do_not_exit)
{
	start_guest(self->vcpu, guest_accesses);
	assert_few_exits(self->vcpu);
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

/*
 * The filter changes while the guest runs and counts, which it never stops doing:
 * it measures again and again, from zero, with bit 48 of GLOBAL_CTRL set all the
 * time, and tells what it measured.
 */
static struct measurement {
	u64 rounds;
	u64 slots;
	u64 metrics;
	u64 cycles;
	bool stop;
} measured;

static void guest_measure(void)
{
	start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
	while (!READ_ONCE(measured.stop)) {
		wrmsr(MSR_CORE_PERF_FIXED_CTR1, 0);
		wrmsr(MSR_CORE_PERF_FIXED_CTR3, 0);
		wrmsr(MSR_PERF_METRICS, 0);
		/* Passed through, unless the vCPU lacks some of the host's counters. */
		wrmsr(MSR_CORE_PERF_GLOBAL_CTRL,
		      SLOTS_ENABLE | CYCLES_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
		retire(10);
		mispredict(50);
		WRITE_ONCE(measured.slots, rdpmc(RDPMC_SLOTS));
		WRITE_ONCE(measured.metrics, rdpmc(RDPMC_METRICS));
		WRITE_ONCE(measured.cycles, rdpmc(INTEL_RDPMC_FIXED | 1));
		WRITE_ONCE(measured.rounds, measured.rounds + 1);
	}
	GUEST_DONE();
}

static void *run_measurements(void *data)
{
	run_to_done(data);
	return NULL;
}

static struct measurement *measured_by(struct kvm_vm *vm)
{
	return addr_gva2hva(vm, (gva_t)&measured);
}

/* With two of them, one at least began after the call. */
static void await_rounds(struct kvm_vm *vm, int nr)
{
	u64 *rounds = &measured_by(vm)->rounds;
	u64 goal = READ_ONCE(*rounds) + nr;

	while (READ_ONCE(*rounds) < goal)
		usleep(20);
}

static bool is_measured(struct kvm_vm *vm, bool slots, bool cycles)
{
	struct measurement *m = measured_by(vm);

	return !!READ_ONCE(m->slots) == slots && !!READ_ONCE(m->metrics) == slots &&
	       !!READ_ONCE(m->cycles) == cycles;
}

/*
 * A change reaches the vCPU by an interrupt, i.e. soon, but not at once.  Then it
 * has to stay.
 */
#define MAX_ROUNDS	100
#define STABLE_ROUNDS	3

static void assert_measured(struct kvm_vm *vm, bool slots, bool cycles)
{
	struct measurement *m = measured_by(vm);
	int i;

	for (i = 0; i < MAX_ROUNDS && !is_measured(vm, slots, cycles); i++)
		await_rounds(vm, 2);
	for (i = 0; i < STABLE_ROUNDS; i++) {
		await_rounds(vm, 2);
		TEST_ASSERT(is_measured(vm, slots, cycles),
			    "%lu slots, %lu cycles, PERF_METRICS 0x%lx; want slots and metrics to %s, cycles to %s",
			    m->slots, m->cycles, m->metrics, slots ? "count" : "stand still",
			    cycles ? "count" : "stand still");
	}
}

static void change_filters(struct kvm_vcpu *vcpu)
{
	static const struct {
		u32 action, bitmap;
		bool slots, cycles;
	} filters[] = {
		{ KVM_PMU_EVENT_DENY, BIT(3), false, true },
		{ KVM_PMU_EVENT_DENY, 0, true, true },
		{ KVM_PMU_EVENT_DENY, BIT(1) | BIT(3), false, false },
		{ KVM_PMU_EVENT_DENY, BIT(1), true, false },
		{ KVM_PMU_EVENT_ALLOW, BIT(1), false, true },
		{ KVM_PMU_EVENT_ALLOW, BIT(3), true, false },
		{ KVM_PMU_EVENT_ALLOW, 0, false, false },
		{ KVM_PMU_EVENT_ALLOW, GENMASK(3, 0), true, true },
	};
	int i, turn;

	for (turn = 0; turn < 4; turn++) {
		for (i = 0; i < ARRAY_SIZE(filters); i++) {
			set_fixed_filter(vcpu, filters[i].action, filters[i].bitmap);
			assert_measured(vcpu->vm, filters[i].slots, filters[i].cycles);
		}
	}
}

static void test_filter_while_running(struct kvm_vcpu *vcpu)
{
	pthread_t thread;

	start_guest(vcpu, guest_measure);
	TEST_ASSERT(!pthread_create(&thread, NULL, run_measurements, vcpu),
		    "pthread_create() failed");
	await_rounds(vcpu->vm, 2);
	assert_measured(vcpu->vm, true, true);
	change_filters(vcpu);
	WRITE_ONCE(measured_by(vcpu->vm)->stop, true);
	pthread_join(thread, NULL);
}

TEST_F(metrics, event_filter_while_running)
{
	test_filter_while_running(self->vcpu);
}

/*
 * A denied counter stays denied whatever the guest does to its control, and to the
 * controls of its neighbours: KVM consults the filter only for what has changed.
 */
static const u16 denied_controls[] = {
	0xb000, 0, 0xb000, 0x3000, 0x3030, 0xb030, 0xb000, 0x1030, 0x1000, 0x2003, 0xb033,
};

static void guest_denied_steps(void)
{
	u64 cycles;
	int i;

	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, 0);
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL,
	      SLOTS_ENABLE | CYCLES_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
	for (i = 0; i < ARRAY_SIZE(denied_controls); i++) {
		wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, denied_controls[i]);
		cycles = rdpmc(INTEL_RDPMC_FIXED | 1);
		retire(10);
		cycles = rdpmc(INTEL_RDPMC_FIXED | 1) - cycles;
		__GUEST_ASSERT(rdpmc(RDPMC_SLOTS) == PATTERN_SLOTS,
			       "Step %d: the denied counter 3 counts %lu slots", i,
			       rdpmc(RDPMC_SLOTS) - (u64)PATTERN_SLOTS);
		__GUEST_ASSERT(rdpmc(RDPMC_METRICS) == PATTERN_METRICS,
			       "Step %d: PERF_METRICS is 0x%lx", i, rdpmc(RDPMC_METRICS));
		__GUEST_ASSERT(!!cycles == !!(denied_controls[i] & 0x30),
			       "Step %d: counter 1 counts %lu cycles", i, cycles);
		GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_FIXED_CTR_CTRL), denied_controls[i]);
	}
	GUEST_DONE();
}

TEST_F(metrics, event_filter_denies_each_step)
{
	set_fixed_filter(self->vcpu, KVM_PMU_EVENT_DENY, BIT(3));
	run_guest_code(self->vcpu, guest_denied_steps);
}

TEST_F(metrics, event_filter_allows_no_step)
{
	set_fixed_filter(self->vcpu, KVM_PMU_EVENT_ALLOW, BIT(1));
	run_guest_code(self->vcpu, guest_denied_steps);
}

/* The filter can change at any time.  What userspace itself reads isn't filtered. */
static void guest_msr_filter(void)
{
	/* Denied from the start... */
	assert_rdmsr_gp(MSR_CORE_PERF_FIXED_CTR3);
	assert_wrmsr_gp(MSR_CORE_PERF_FIXED_CTR3, PATTERN_SLOTS);
	assert_rdmsr_gp(MSR_PERF_METRICS);
	assert_wrmsr_gp(MSR_PERF_METRICS, PATTERN_METRICS);
	GUEST_SYNC(0);

	/* ... then not... */
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	GUEST_SYNC(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE);

	/* ... again, now that KVM has passed them through... */
	assert_rdmsr_gp(MSR_CORE_PERF_FIXED_CTR3);
	assert_wrmsr_gp(MSR_CORE_PERF_FIXED_CTR3, 0);
	assert_rdmsr_gp(MSR_PERF_METRICS);
	assert_wrmsr_gp(MSR_PERF_METRICS, 0);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_SLOTS), PATTERN_SLOTS);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_METRICS), PATTERN_METRICS);
	GUEST_SYNC(KVM_MSR_FILTER_WRITE);

	/* ... to be written only, after a change that has KVM look at it again. */
	assert_wrmsr_gp(MSR_CORE_PERF_FIXED_CTR3, 0);
	assert_wrmsr_gp(MSR_PERF_METRICS, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, SLOTS_CTRL);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, 0);
	assert_wrmsr_gp(MSR_PERF_METRICS, 0);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	GUEST_SYNC(0);

	write_pattern(2 * PATTERN_SLOTS, PATTERN_METRICS_2);
	assert_pattern(2 * PATTERN_SLOTS, PATTERN_METRICS_2);
	GUEST_DONE();
}

static void test_msr_filter(struct kvm_vcpu *vcpu)
{
	u64 denied;

	set_msr_filter(vcpu, KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE);
	start_guest(vcpu, guest_msr_filter);
	while ((denied = run_to_sync(vcpu, NULL)) != -1ull) {
		set_msr_filter(vcpu, denied);
		vcpu_get_msr(vcpu, MSR_PERF_METRICS);
	}
}

TEST_F(metrics, msr_filter)
{
	test_msr_filter(self->vcpu);
}

/* RDPMC at CPL 3. */

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

static void run_user_mode_test(struct kvm_vcpu *vcpu, void *guest_code)
{
	prepare_user_mode(vcpu->vm, user_rdpmc, guest_user_exit);
	start_guest(vcpu, guest_code);
	TEST_ASSERT_EQ(run_to_sync(vcpu, NULL), -1);
}

TEST_F(metrics, rdpmc_in_user_mode)
{
	run_user_mode_test(self->vcpu, guest_user_mode);
}

#define GP_PATTERN	0x5a5a5a00

static void guest_leave_counters(void)
{
	int i, nr_gp = this_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);

	for (i = 0; i < nr_gp; i++)
		wrmsr(MSR_IA32_PERFCTR0 + i, GP_PATTERN + i);
	guest_survive_ucall();
}

/* Other counters can hold what the host's perf has left there. */
static void assert_no_gp_pattern(void)
{
	int i, nr_gp = kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);

	for (i = 0; i < nr_gp; i++)
		TEST_ASSERT(raw_rdpmc(i) != GP_PATTERN + i,
			    "The host's user mode reads the guest's counter %d", i);
}

TEST_F(metrics, host_user_mode_sees_nothing)
{
	int i;

	REQUIRE(allow_host_rdpmc(), "perf doesn't let user mode execute RDPMC");

	pin_self_to_any_cpu();
	REQUIRE(!host_counts_slots(), "Somebody counts slots on the host");

	start_guest(self->vcpu, guest_leave_counters);
	for (i = 0; i < 2 * NR_STOPS; i++) {
		run_to_sync(self->vcpu, NULL);
		TEST_ASSERT_EQ(raw_rdpmc(RDPMC_SLOTS), 0);
		TEST_ASSERT_EQ(raw_rdpmc(RDPMC_METRICS), 0);
		assert_no_gp_pattern();
	}
	run_to_done(self->vcpu);
}

/*
 * KVM may leave the pair where it is while nobody can read it.  The task whose vCPU
 * it was becomes able to...
 */
TEST_F(metrics, rdpmc_enabled_later_sees_nothing)
{
	pin_self_to_any_cpu();
	start_guest(self->vcpu, guest_survive_ucall);
	run_to_sync(self->vcpu, NULL);

	REQUIRE(allow_host_rdpmc(), "perf doesn't let user mode execute RDPMC");
	REQUIRE(!host_counts_slots(), "Somebody counts slots on the host");
	TEST_ASSERT_EQ(raw_rdpmc(RDPMC_SLOTS), 0);
	TEST_ASSERT_EQ(raw_rdpmc(RDPMC_METRICS), 0);
	run_to_done(self->vcpu);
}

/* ... or another task on the CPU is. */
struct reading {
	u64 slots;
	u64 metrics;
};

static bool read_all(int fd, void *data, size_t size)
{
	return read(fd, data, size) == size;
}

static void read_registers_when_told(int request, int reply)
{
	struct reading reading;
	bool able = allow_host_rdpmc() && !host_counts_slots();
	char c;

	if (write(reply, &able, sizeof(able)) != sizeof(able) || !able)
		_exit(1);

	while (read_all(request, &c, 1)) {
		reading.slots = raw_rdpmc(RDPMC_SLOTS);
		reading.metrics = raw_rdpmc(RDPMC_METRICS);
		if (write(reply, &reading, sizeof(reading)) != sizeof(reading))
			break;
	}
	_exit(0);
}

/* Pipes to and from a task that tells what it reads, and first whether it can. */
static pid_t fork_reader(int request[2], int reply[2])
{
	pid_t child;

	TEST_ASSERT(!pipe(request) && !pipe(reply), "pipe() failed");
	child = fork();
	TEST_ASSERT(child >= 0, "fork() failed");
	if (!child) {
		close(request[1]);
		read_registers_when_told(request[0], reply[1]);
	}
	close(reply[1]);
	return child;
}

static void ask_reader(int request, int reply, struct reading *reading)
{
	TEST_ASSERT(write(request, "", 1) == 1 &&
		    read_all(reply, reading, sizeof(*reading)),
		    "The other task is gone");
}

TEST_F(metrics, other_tasks_see_nothing)
{
	int request[2], reply[2], i;
	struct reading reading;
	bool able = false;
	pid_t child;

	pin_self_to_any_cpu();
	child = fork_reader(request, reply);
	REQUIRE(read_all(reply[0], &able, sizeof(able)) && able,
		"perf doesn't let user mode execute RDPMC, or somebody counts slots");

	start_guest(self->vcpu, guest_survive_ucall);
	for (i = 0; i < 2 * NR_STOPS; i++) {
		run_to_sync(self->vcpu, NULL);
		ask_reader(request[1], reply[0], &reading);
		TEST_ASSERT_EQ(reading.slots, 0);
		TEST_ASSERT_EQ(reading.metrics, 0);
	}
	run_to_done(self->vcpu);
	close(request[1]);
	waitpid(child, NULL, 0);
}

/* ... or all are, whether or not they have mapped an event. */
static bool write_rdpmc_attr(const char *val)
{
	int fd = open(PERF_SYSFS "rdpmc", O_WRONLY);
	bool ok = write(fd, val, 1) == 1;

	close(fd);
	return ok;
}

static void restore_rdpmc_attr(void)
{
	write_rdpmc_attr("1");
}

TEST_F(metrics, rdpmc_for_all_sees_nothing)
{
	char buf[8];
	bool counts;
	int i;

	REQUIRE(read_sysfs(PERF_SYSFS "rdpmc", buf, sizeof(buf)) && buf[0] == '1',
		PERF_SYSFS "rdpmc isn't 1");

	pin_self_to_any_cpu();
	start_guest(self->vcpu, guest_leave_counters);
	run_to_sync(self->vcpu, NULL);

	/* Also if the test fails. */
	TEST_ASSERT(!atexit(restore_rdpmc_attr), "atexit() failed");
	REQUIRE(write_rdpmc_attr("2"), "Can't write " PERF_SYSFS "rdpmc");
	counts = host_counts_slots();
	if (counts)
		restore_rdpmc_attr();
	REQUIRE(!counts, "Somebody counts slots on the host");

	for (i = 1; i < 2 * NR_STOPS; i++) {
		TEST_ASSERT_EQ(raw_rdpmc(RDPMC_SLOTS), 0);
		TEST_ASSERT_EQ(raw_rdpmc(RDPMC_METRICS), 0);
		assert_no_gp_pattern();
		run_to_sync(self->vcpu, NULL);
	}
	restore_rdpmc_attr();
	run_to_done(self->vcpu);
}

/*
 * All at once: the host counts topdown on the CPU, for whoever runs, one task can
 * execute RDPMC, and one vCPU has never used its PMU, one has.
 */
static void guest_stay_idle(void)
{
	for (;;) {
		GUEST_ASSERT_EQ(rdpmc(RDPMC_SLOTS), 0);
		GUEST_ASSERT_EQ(rdpmc(RDPMC_METRICS), 0);
		GUEST_SYNC(0);
	}
}

TEST_F(metrics, idle_beside_perf_and_rdpmc)
{
	struct kvm_vcpu *idle = create_vcpu(FULL);
	int request[2], reply[2], i, cpu;
	struct topdown_group group;
	struct reading reading;
	bool able = false;
	pid_t child;

	REQUIRE(perf_uses_metrics(), "The host's perf doesn't use PERF_METRICS");
	cpu = pin_self_to_any_cpu();
	child = fork_reader(request, reply);
	REQUIRE(read_all(reply[0], &able, sizeof(able)) && able,
		"perf doesn't let user mode execute RDPMC, or somebody counts slots");

	start_guest(idle, guest_stay_idle);
	start_guest(self->vcpu, guest_survive_ucall);
	open_topdown_of(-1, cpu, &group);
	for (i = 0; i < 2 * NR_STOPS; i++) {
		run_to_sync(self->vcpu, NULL);
		ask_reader(request[1], reply[0], &reading);
		TEST_ASSERT(reading.slots < PATTERN_SLOTS,
			    "The other task reads %lu slots", reading.slots);
		run_to_sync(idle, NULL);
		check_topdown(&group);

		/* In the other order, and after the host has used the registers. */
		ask_reader(request[1], reply[0], &reading);
		run_to_sync(idle, NULL);
	}
	run_to_done(self->vcpu);
	close(group.leader);
	close(request[1]);
	waitpid(child, NULL, 0);
	kvm_vm_free(idle->vm);
}

static void guest_leave_pattern(void)
{
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	GUEST_DONE();
}

static void guest_find_nothing(void)
{
	assert_pattern(0, 0);
	GUEST_DONE();
}

/* A new vCPU isn't the one that had its place in the host's memory before. */
TEST_F(metrics, successor_inherits_nothing)
{
	int i;

	pin_self_to_any_cpu();
	for (i = 0; i < NR_STOPS; i++) {
		struct kvm_vcpu *vcpu = create_vcpu(FULL);

		run_guest_code(vcpu, guest_leave_pattern);
		kvm_vm_free(vcpu->vm);

		vcpu = create_vcpu(FULL);
		run_guest_code(vcpu, guest_find_nothing);
		kvm_vm_free(vcpu->vm);
	}
}

static u64 read_host_msr(int cpu, u32 msr)
{
	u64 val = ~0ull;
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpu);
	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		TEST_ASSERT(pread(fd, &val, sizeof(val), msr) == sizeof(val),
			    "Can't read MSR 0x%x of CPU %d", msr, cpu);
		close(fd);
	}
	return val;
}

/* KVM has to clean up before it loses control of a CPU. */
TEST_F(metrics, last_vm_leaves_nothing)
{
	int cpu = pin_self_to_any_cpu();
	char buf[8];

	REQUIRE(read_sysfs("/sys/module/kvm/parameters/enable_virt_at_load", buf, sizeof(buf)) &&
		buf[0] == 'N', "kvm.enable_virt_at_load isn't N");
	REQUIRE(read_host_msr(cpu, MSR_CORE_PERF_FIXED_CTR3) != ~0ull,
		"Can't open /dev/cpu/%d/msr", cpu);

	run_guest_code(self->vcpu, guest_leave_pattern);
	TEST_ASSERT_EQ(read_host_msr(cpu, MSR_CORE_PERF_FIXED_CTR3), PATTERN_SLOTS);
	TEST_ASSERT_EQ(read_host_msr(cpu, MSR_PERF_METRICS), PATTERN_METRICS);

	/* There is another one for the teardown. */
	kvm_vm_free(self->vcpu->vm);
	TEST_ASSERT_EQ(read_host_msr(cpu, MSR_CORE_PERF_FIXED_CTR3), 0);
	TEST_ASSERT_EQ(read_host_msr(cpu, MSR_PERF_METRICS), 0);
	self->vcpu = create_vcpu(FULL);
}

/*
 * While counter 3 is zero, so are its fractions, but the slots behind them are
 * still there.  They must not show when the next vCPU writes the counter.
 */
static void guest_zero_counter_last(void)
{
	for (;;) {
		write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
		wrmsr(MSR_CORE_PERF_FIXED_CTR3, 0);
		GUEST_SYNC(0);
	}
}

static void guest_write_counter_only(void)
{
	int i;

	for (i = 0; i < NR_STOPS; i++) {
		GUEST_ASSERT_EQ(rdpmc(RDPMC_METRICS), 0);
		wrmsr(MSR_CORE_PERF_FIXED_CTR3, PATTERN_SLOTS);
		__GUEST_ASSERT(!rdpmc(RDPMC_METRICS),
			       "Turn %d: PERF_METRICS is 0x%lx, never written here",
			       i, rdpmc(RDPMC_METRICS));
		wrmsr(MSR_CORE_PERF_FIXED_CTR3, 0);
		GUEST_SYNC(1);
	}
	GUEST_DONE();
}

TEST_F(metrics, neighbour_inherits_nothing)
{
	struct kvm_vcpu *neighbour = create_vcpu(FULL);

	pin_self_to_any_cpu();
	start_guest(neighbour, guest_zero_counter_last);
	start_guest(self->vcpu, guest_write_counter_only);
	do {
		TEST_ASSERT_EQ(run_to_sync(neighbour, NULL), 0);
	} while (run_to_sync(self->vcpu, NULL) != -1);
	kvm_vm_free(neighbour->vm);
}

/* A vCPU with PERF_METRICS but fewer general purpose counters than the host. */
FIXTURE(partial) {
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(partial)
{
	REQUIRE_METRICS();
	self->vcpu = create_vcpu(FEWER_GP);
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

TEST_F(partial, msr_filter)
{
	test_msr_filter(self->vcpu);
}

TEST_F(partial, event_filter_denies_each_step)
{
	set_fixed_filter(self->vcpu, KVM_PMU_EVENT_DENY, BIT(3));
	run_guest_code(self->vcpu, guest_denied_steps);
}

/* Here KVM intercepts GLOBAL_CTRL. */
TEST_F(partial, event_filter_while_running)
{
	test_filter_while_running(self->vcpu);
}

TEST_F(partial, survive_exit_to_userspace)
{
	run_guest_code(self->vcpu, guest_survive_ucall);
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

FIXTURE_SETUP(unsupported)
{
	if (variant->kind == PMU_DISABLED)
		REQUIRE(can_disable_pmu(), "KVM has no KVM_PMU_CAP_DISABLE");

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
	if (kvm_cpu_has(X86_FEATURE_PDCM))
		vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES, facts.perf_capabilities);
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

int main(int argc, char *argv[])
{
	require_pmu();

	return test_harness_run(argc, argv);
}
