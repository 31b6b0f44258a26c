// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test topdown in nested guests: L2 shares L1's fixed counter 3 and PERF_METRICS,
 * L1 decides what L2 may access, and neither gets what L1 doesn't have.
 */
#include "pmu_topdown.h"
#include "vmx.h"

#define EXIT_RDPMC		15
#define EXIT_VMCALL		18
#define EXIT_MSR_READ		31
#define EXIT_MSR_WRITE		32
#define EXIT_BAD_GUEST_STATE	(EXIT_REASON_FAILED_VMENTRY | 33)
#define EXIT_MSR_LOAD_FAIL	(EXIT_REASON_FAILED_VMENTRY | 34)

#define L2_STACK_SIZE		512

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

static void set_exec_control(u32 bit, bool on)
{
	u32 controls = vmreadz(CPU_BASED_VM_EXEC_CONTROL);

	GUEST_ASSERT(!vmwrite(CPU_BASED_VM_EXEC_CONTROL,
			      on ? controls | bit : controls & ~bit));
}

static void prepare_l2(struct vmx_pages *vmx)
{
	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
	prepare_vmcs(vmx, NULL);
	set_exec_control(CPU_BASED_USE_MSR_BITMAPS, true);
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

static void set_bit_of_msr(u8 *bitmap, u32 msr, bool on)
{
	if (on)
		bitmap[msr / 8] |= BIT(msr % 8);
	else
		bitmap[msr / 8] &= ~BIT(msr % 8);
}

static void set_msr_bitmap(struct vmx_pages *vmx, bool reads, bool writes)
{
	set_bit_of_msr(vmx->msr, MSR_PERF_METRICS, reads);
	set_bit_of_msr(vmx->msr + 0x800, MSR_PERF_METRICS, writes);
}

static void l2_swap_pattern(void)
{
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	wrmsr(MSR_PERF_METRICS, PATTERN_METRICS_2);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS_2);
	vmcall();
}

static void l2_swap_pattern_by_msr(void)
{
	GUEST_ASSERT_EQ(rdmsr(MSR_PERF_METRICS), PATTERN_METRICS);
	wrmsr(MSR_PERF_METRICS, PATTERN_METRICS_2);
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

/* KVM intercepts a vCPU's first write, and looks at L1's bitmap at VM entries. */
static void l1_accesses(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
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

static void l2_read_only(void)
{
	GUEST_ASSERT_EQ(rdmsr(MSR_PERF_METRICS), PATTERN_METRICS);
	l2_write();
}

static void l2_write_only(void)
{
	wrmsr(MSR_PERF_METRICS, PATTERN_METRICS);
	l2_read();
}

static void l1_intercept(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);

	set_msr_bitmap(vmx, true, true);
	run_l2(l2_read, EXIT_MSR_READ);
	run_l2(l2_write, EXIT_MSR_WRITE);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);

	set_msr_bitmap(vmx, false, true);
	run_l2(l2_read_only, EXIT_MSR_WRITE);
	set_msr_bitmap(vmx, true, false);
	run_l2(l2_write_only, EXIT_MSR_READ);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);

	set_msr_bitmap(vmx, false, false);
	run_l2(l2_swap_pattern, EXIT_VMCALL);
	GUEST_DONE();
}

TEST_F(nested, l1_intercepts)
{
	start_l1(self->vcpu, l1_intercept, self->vmx);
	run_to_done(self->vcpu);
}

/* Without a bitmap every RDMSR and WRMSR of L2 exits, but not RDPMC. */

static void l2_read_slots(void)
{
	rdmsr(MSR_CORE_PERF_FIXED_CTR3);
	GUEST_FAIL("L1 intercepts RDMSR, but L2 executed it");
}

static void l2_rdpmc(void)
{
	GUEST_ASSERT_EQ(rdpmc(RDPMC_METRICS), PATTERN_METRICS);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_SLOTS), PATTERN_SLOTS);
	vmcall();
}

static void l1_no_bitmap(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	set_exec_control(CPU_BASED_USE_MSR_BITMAPS, false);
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);

	run_l2(l2_read, EXIT_MSR_READ);
	run_l2(l2_read_slots, EXIT_MSR_READ);
	run_l2(l2_write, EXIT_MSR_WRITE);
	run_l2(l2_rdpmc, EXIT_VMCALL);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	GUEST_DONE();
}

TEST_F(nested, no_msr_bitmap)
{
	start_l1(self->vcpu, l1_no_bitmap, self->vmx);
	run_to_done(self->vcpu);
}

static void l2_rdpmc_exits(void)
{
	rdpmc(RDPMC_METRICS);
	GUEST_FAIL("L1 intercepts RDPMC, but L2 executed it");
}

static void l1_rdpmc_exiting(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	set_exec_control(CPU_BASED_RDPMC_EXITING, true);
	run_l2(l2_rdpmc_exits, EXIT_RDPMC);
	run_l2(l2_swap_pattern_by_msr, EXIT_VMCALL);
	set_exec_control(CPU_BASED_RDPMC_EXITING, false);
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	run_l2(l2_rdpmc, EXIT_VMCALL);
	GUEST_DONE();
}

TEST_F(nested, l1_intercepts_rdpmc)
{
	start_l1(self->vcpu, l1_rdpmc_exiting, self->vmx);
	run_to_done(self->vcpu);
}

/* L2's first use of counter 3 changes what KVM intercepts, but not what L1 does. */
static void l2_uses_slots_first(void)
{
	start_counting(0);
	l2_rdpmc_exits();
}

static void l1_rdpmc_exiting_first_use(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	set_exec_control(CPU_BASED_RDPMC_EXITING, true);
	set_msr_bitmap(vmx, true, false);
	run_l2(l2_uses_slots_first, EXIT_RDPMC);
	run_l2(l2_read, EXIT_MSR_READ);
	set_exec_control(CPU_BASED_RDPMC_EXITING, false);
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	run_l2(l2_rdpmc, EXIT_VMCALL);
	GUEST_DONE();
}

TEST_F(nested, l1_intercepts_after_first_use_in_l2)
{
	start_l1(self->vcpu, l1_rdpmc_exiting_first_use, self->vmx);
	run_to_done(self->vcpu);
}

/*
 * Userspace can deny L2 both MSRs as well, whatever L1's bitmap says, and while L1 is
 * active or L2.  A denied access is userspace's, if it wants to have it, else #GP, and
 * never reaches the register, which RDPMC tells.
 */
#define DENY_READS	KVM_MSR_FILTER_READ
#define DENY_WRITES	KVM_MSR_FILTER_WRITE
#define DENY_ALL	(DENY_READS | DENY_WRITES)

#define DENIED_VALUE	0x01020304ull
#define USERSPACE_VALUE	0x0a0b0c0dull

static const u8 filters[] = {
	DENY_ALL, 0, DENY_ALL, 0, DENY_ALL, DENY_READS, DENY_WRITES, 0
};

static bool exits_to_userspace;
static int step;

static void l2_assert_denied(u32 msr, u32 denied)
{
	u8 vector, want = exits_to_userspace ? 0 : GP_VECTOR;
	u64 val;

	if (denied & DENY_READS) {
		vector = rdmsr_safe(msr, &val);
		__GUEST_ASSERT(vector == want, "Step %d: %s on denied RDMSR(0x%x)",
			       step, ex_str(vector), msr);
		__GUEST_ASSERT(vector || val == USERSPACE_VALUE,
			       "Step %d: denied RDMSR(0x%x) got 0x%lx, want userspace's 0x%llx",
			       step, msr, val, USERSPACE_VALUE);
	}
	if (denied & DENY_WRITES) {
		vector = wrmsr_safe(msr, DENIED_VALUE);
		__GUEST_ASSERT(vector == want, "Step %d: %s on denied WRMSR(0x%x)",
			       step, ex_str(vector), msr);
	}
}

static void l2_check_filter(void)
{
	static u64 slots, metrics;

	if (!(filters[step] & DENY_WRITES)) {
		slots += PATTERN_SLOTS;
		metrics = step % 2 ? PATTERN_METRICS : PATTERN_METRICS_2;
		write_pattern(slots, metrics);
	}
	if (!(filters[step] & DENY_READS)) {
		GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_FIXED_CTR3), slots);
		GUEST_ASSERT_EQ(rdmsr(MSR_PERF_METRICS), metrics);
	}
	l2_assert_denied(MSR_CORE_PERF_FIXED_CTR3, filters[step]);
	l2_assert_denied(MSR_PERF_METRICS, filters[step]);
	__GUEST_ASSERT(rdpmc(RDPMC_SLOTS) == slots && rdpmc(RDPMC_METRICS) == metrics,
		       "Step %d: fixed counter 3 and PERF_METRICS are 0x%lx and 0x%lx, want 0x%lx and 0x%lx",
		       step, rdpmc(RDPMC_SLOTS), rdpmc(RDPMC_METRICS), slots, metrics);
}

static void next_filter(void)
{
	step++;
	GUEST_SYNC(filters[step]);
}

static void l2_filtered_once(void)
{
	l2_check_filter();
	vmcall();
}

static void l2_filtered(void)
{
	l2_check_filter();
	while (step < ARRAY_SIZE(filters) - 1) {
		next_filter();
		l2_check_filter();
	}

	/* Nothing is denied anymore. */
	guest_accesses();
}

static void l1_filtered(struct vmx_pages *vmx)
{
	int i;

	prepare_l2(vmx);
	for (i = 0; i < 3; i++) {
		run_l2(l2_filtered_once, EXIT_VMCALL);
		next_filter();
	}
	run_l2(l2_filtered, EXIT_VMCALL);
	GUEST_FAIL("L2 came back");
}

/* Like run_to_sync(), but count and complete the accesses that come to userspace. */
static u64 run_filtered(struct kvm_vcpu *vcpu, int *nr_denied)
{
	struct kvm_run *run = vcpu->run;
	struct ucall uc;

	for (;;) {
		vcpu_run(vcpu);
		if (run->exit_reason != KVM_EXIT_X86_RDMSR &&
		    run->exit_reason != KVM_EXIT_X86_WRMSR)
			break;

		TEST_ASSERT_EQ(run->msr.reason, KVM_MSR_EXIT_REASON_FILTER);
		TEST_ASSERT(run->msr.index == MSR_CORE_PERF_FIXED_CTR3 ||
			    run->msr.index == MSR_PERF_METRICS,
			    "MSR 0x%x isn't denied", run->msr.index);
		if (run->exit_reason == KVM_EXIT_X86_RDMSR)
			run->msr.data = USERSPACE_VALUE;
		else
			TEST_ASSERT_EQ(run->msr.data, DENIED_VALUE);
		run->msr.error = 0;
		++*nr_denied;
	}

	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	switch (get_ucall(vcpu, &uc)) {
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
		break;
	case UCALL_SYNC:
		return uc.args[1];
	case UCALL_DONE:
		return -1;
	default:
		TEST_FAIL("Unexpected ucall: %lu", uc.cmd);
	}
	return 0;
}

static void run_filter_test(struct kvm_vcpu *vcpu, gva_t vmx, bool to_userspace)
{
	int i, nr_denied = 0, want = 0;

	if (to_userspace)
		vm_enable_cap(vcpu->vm, KVM_CAP_X86_USER_SPACE_MSR,
			      KVM_MSR_EXIT_REASON_FILTER);
	exits_to_userspace = to_userspace;
	sync_global_to_guest(vcpu->vm, exits_to_userspace);

	set_msr_filter(vcpu, filters[0]);
	start_l1(vcpu, l1_filtered, vmx);
	for (i = 1; i < ARRAY_SIZE(filters); i++) {
		if (to_userspace)
			want += 2 * __builtin_popcount(filters[i - 1]);
		TEST_ASSERT_EQ(run_filtered(vcpu, &nr_denied), filters[i]);
		TEST_ASSERT_EQ(nr_denied, want);
		set_msr_filter(vcpu, filters[i]);
	}
	assert_few_exits(vcpu);
}

TEST_F(nested, msr_filter)
{
	run_filter_test(self->vcpu, self->vmx, false);
}

TEST_F(nested, msr_filter_exits_to_userspace)
{
	run_filter_test(self->vcpu, self->vmx, true);
}

/* What L1 intercepts comes to L1, denied or not. */

static void l2_write_slots(void)
{
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, DENIED_VALUE);
	GUEST_FAIL("L1 intercepts WRMSR, but L2 executed it");
}

static void l2_read_when_denied(void)
{
	GUEST_SYNC(DENY_ALL);
	l2_read();
}

static void l1_intercepts_denied(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	set_msr_bitmap(vmx, true, true);
	set_bit_of_msr(vmx->msr, MSR_CORE_PERF_FIXED_CTR3, true);
	set_bit_of_msr(vmx->msr + 0x800, MSR_CORE_PERF_FIXED_CTR3, true);

	run_l2(l2_read_when_denied, EXIT_MSR_READ);
	run_l2(l2_write, EXIT_MSR_WRITE);
	run_l2(l2_read_slots, EXIT_MSR_READ);
	run_l2(l2_write_slots, EXIT_MSR_WRITE);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_SLOTS), PATTERN_SLOTS);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_METRICS), PATTERN_METRICS);
	GUEST_DONE();
}

static void run_l1_intercepts_denied(struct kvm_vcpu *vcpu, gva_t vmx)
{
	int nr_denied = 0;

	start_l1(vcpu, l1_intercepts_denied, vmx);
	TEST_ASSERT_EQ(run_filtered(vcpu, &nr_denied), DENY_ALL);
	set_msr_filter(vcpu, DENY_ALL);
	TEST_ASSERT_EQ(run_filtered(vcpu, &nr_denied), -1ull);
	TEST_ASSERT_EQ(nr_denied, 0);
}

TEST_F(nested, l1_intercepts_denied)
{
	run_l1_intercepts_denied(self->vcpu, self->vmx);
}

TEST_F(nested, l1_intercepts_denied_not_userspace)
{
	vm_enable_cap(self->vcpu->vm, KVM_CAP_X86_USER_SPACE_MSR,
		      KVM_MSR_EXIT_REASON_FILTER);
	run_l1_intercepts_denied(self->vcpu, self->vmx);
}

/*
 * L2's PMU is L1's, GLOBAL_CTRL included: what one of them turns on counts on in
 * the other one, whichever of them KVM enters next.
 */
static void l2_starts(void)
{
	start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
	vmcall();
}

static void l2_continues(void)
{
	u64 slots = rdpmc(RDPMC_SLOTS);

	retire(100);
	GUEST_ASSERT(rdpmc(RDPMC_SLOTS) >= slots + 100 * 128);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL),
			SLOTS_ENABLE | CYCLES_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
	stop_counting();
	vmcall();
}

static void l1_counting(struct vmx_pages *vmx)
{
	u64 slots;

	prepare_l2(vmx);
	run_l2(l2_starts, EXIT_VMCALL);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL),
			SLOTS_ENABLE | CYCLES_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
	slots = rdpmc(RDPMC_SLOTS);
	retire(100);
	GUEST_ASSERT(rdpmc(RDPMC_SLOTS) >= slots + 100 * 128);
	assert_sum(rdpmc(RDPMC_METRICS), 2);

	run_l2(l2_continues, EXIT_VMCALL);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL), 0);
	slots = rdpmc(RDPMC_SLOTS);
	retire(100);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_SLOTS), slots);
	GUEST_DONE();
}

TEST_F(nested, counting_goes_on)
{
	start_l1(self->vcpu, l1_counting, self->vmx);
	run_to_done(self->vcpu);
}

/*
 * L1 doesn't intercept I/O, so that L2 exits to userspace directly, where it can
 * be moved, to another CPU or to another VM.
 */
static void l2_survive_ucall(void)
{
	guest_survive_idle(stop_by_ucall);
	guest_survive_counting(stop_by_ucall);
	vmcall();
}

static void l1_survive_ucall(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	run_l2(l2_survive_ucall, EXIT_VMCALL);
	GUEST_ASSERT(rdpmc(RDPMC_SLOTS));
	GUEST_DONE();
}

TEST_F(nested, l2_survives_exit_to_userspace)
{
	start_l1(self->vcpu, l1_survive_ucall, self->vmx);
	run_to_done(self->vcpu);
}

TEST_F(nested, l2_survives_migration_between_cpus)
{
	cpu_set_t allowed;
	int cpu = -1;

	TEST_ASSERT(!sched_getaffinity(0, sizeof(allowed), &allowed),
		    "sched_getaffinity() failed");
	REQUIRE(CPU_COUNT(&allowed) >= 2, "One CPU only, need two");

	start_l1(self->vcpu, l1_survive_ucall, self->vmx);
	do {
		cpu = next_allowed_cpu(&allowed, cpu);
		pin_self_to_cpu(cpu);
	} while (run_to_sync(self->vcpu, NULL) != -1);
}

TEST_F(nested, l2_survives_save_and_restore)
{
	start_l1(self->vcpu, l1_survive_ucall, self->vmx);
	while (run_to_sync(self->vcpu, NULL) != -1)
		self->vcpu = save_and_restore(self->vcpu);
}

/* What L1 counts goes on when L2, in which the vCPU was restored, exits to it. */
static void l2_restored(void)
{
	GUEST_SYNC(0);
	vmcall();
}

static void l1_counts_on(struct vmx_pages *vmx)
{
	u64 slots;

	prepare_l2(vmx);
	start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
	retire(100);
	slots = rdpmc(RDPMC_SLOTS);
	GUEST_ASSERT(slots >= 100 * 128);
	run_l2(l2_restored, EXIT_VMCALL);
	GUEST_ASSERT(rdpmc(RDPMC_SLOTS) >= slots);

	slots = rdpmc(RDPMC_SLOTS);
	retire(100);
	GUEST_ASSERT(rdpmc(RDPMC_SLOTS) >= slots + 100 * 128);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL),
			SLOTS_ENABLE | CYCLES_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
	stop_counting();
	slots = rdpmc(RDPMC_SLOTS);
	retire(100);
	GUEST_ASSERT_EQ(rdpmc(RDPMC_SLOTS), slots);
	GUEST_DONE();
}

TEST_F(nested, l1_counts_after_restore_in_l2)
{
	start_l1(self->vcpu, l1_counts_on, self->vmx);
	while (run_to_sync(self->vcpu, NULL) != -1)
		self->vcpu = save_and_restore(self->vcpu);
}

static void l2_survive_hlt(void)
{
	guest_survive_idle(stop_by_hlt);
	guest_survive_counting(stop_by_hlt);
	vmcall();
}

static void l1_survive_hlt(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	prepare_timer();
	run_l2(l2_survive_hlt, EXIT_VMCALL);
	GUEST_DONE();
}

TEST_F(nested, l2_survives_hlt)
{
	vm_install_exception_handler(self->vcpu->vm, TIMER_VECTOR, guest_timer_handler);
	start_l1(self->vcpu, l1_survive_hlt, self->vmx);
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

/*
 * Lists of all three registers, in each order: KVM writes PERF_METRICS after
 * fixed counter 3 when it loads them, whatever the list's order.
 */

enum { SLOTS, METRICS, CTRL, NR_IN_LIST };

static struct vmx_msr_entry loads[NR_IN_LIST], stores[NR_IN_LIST], reloads[NR_IN_LIST];

#define LIST_CTRL	(SLOTS_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS)

static const u8 orders[][NR_IN_LIST] = {
	{ SLOTS, METRICS, CTRL }, { SLOTS, CTRL, METRICS }, { METRICS, SLOTS, CTRL },
	{ METRICS, CTRL, SLOTS }, { CTRL, SLOTS, METRICS }, { CTRL, METRICS, SLOTS },
};

static void fill_list(struct vmx_msr_entry *list, const u8 *order, u64 slots,
		      u64 metrics, u64 ctrl)
{
	const struct vmx_msr_entry entries[NR_IN_LIST] = {
		[SLOTS]   = { .index = MSR_CORE_PERF_FIXED_CTR3, .value = slots },
		[METRICS] = { .index = MSR_PERF_METRICS, .value = metrics },
		[CTRL]    = { .index = MSR_CORE_PERF_GLOBAL_CTRL, .value = ctrl },
	};
	int i;

	for (i = 0; i < NR_IN_LIST; i++)
		list[i] = entries[order[i]];
}

/* Nothing counts, as FIXED_CTR_CTRL is zero, so that values are exact. */
static void l2_check_lists(void)
{
	assert_pattern(2 * PATTERN_SLOTS, PATTERN_METRICS_2);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL), LIST_CTRL);
	write_pattern(3 * PATTERN_SLOTS, PATTERN_METRICS);
	vmcall();
}

static void check_order(const u8 *order)
{
	const u64 left[NR_IN_LIST] = { 3 * PATTERN_SLOTS, PATTERN_METRICS, 0 };
	int i;

	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	fill_list(loads, order, 2 * PATTERN_SLOTS, PATTERN_METRICS_2, LIST_CTRL);
	fill_list(stores, order, 0, 0, 0);
	fill_list(reloads, order, PATTERN_SLOTS, PATTERN_METRICS_2, SLOTS_ENABLE);
	run_l2(l2_check_lists, EXIT_VMCALL);

	for (i = 0; i < NR_IN_LIST; i++)
		__GUEST_ASSERT(stores[i].value == left[order[i]],
			       "L1's list got 0x%lx of MSR 0x%x, want 0x%lx",
			       stores[i].value, stores[i].index, left[order[i]]);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS_2);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL), SLOTS_ENABLE);
}

static void l2_unreachable(void)
{
	GUEST_FAIL("The VM entry has to fail");
}

/* An invalid entry fails the VM entry, and neither it nor any after it is loaded. */
static void check_invalid(const u8 *order, int bad)
{
	u64 slots = PATTERN_SLOTS, metrics = PATTERN_METRICS, ctrl = 0;
	int i;

	for (i = 0; i < bad; i++) {
		if (order[i] == SLOTS)
			slots = 2 * PATTERN_SLOTS;
		else if (order[i] == METRICS)
			metrics = PATTERN_METRICS_2;
		else
			ctrl = LIST_CTRL;
	}
	run_l2(l2_unreachable, EXIT_MSR_LOAD_FAIL);
	__GUEST_ASSERT(vmreadz(EXIT_QUALIFICATION) == bad + 1,
		       "Entry %lu of the list failed, want %d",
		       vmreadz(EXIT_QUALIFICATION), bad + 1);
	assert_pattern(slots, metrics);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL), ctrl);
}

static void spoil_value(struct vmx_msr_entry *entry)
{
	if (entry->index == MSR_CORE_PERF_GLOBAL_CTRL)
		entry->value = LIST_CTRL | PMU_GLOBAL_CTRL_PERF_METRICS << 1;
	else if (entry->index == MSR_PERF_METRICS && guest.metrics_rsvd)
		entry->value = BIT_ULL(63) & guest.metrics_rsvd;
	else
		entry->reserved = 1;
}

static void check_invalid_entries(const u8 *order)
{
	int bad;

	for (bad = 0; bad < NR_IN_LIST; bad++) {
		write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
		fill_list(loads, order, 2 * PATTERN_SLOTS, PATTERN_METRICS_2, LIST_CTRL);
		spoil_value(&loads[bad]);
		check_invalid(order, bad);

		write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
		fill_list(loads, order, 2 * PATTERN_SLOTS, PATTERN_METRICS_2, LIST_CTRL);
		loads[bad].reserved = 1;
		check_invalid(order, bad);
	}
}

static void set_lists(u64 loads_gpa, u64 stores_gpa, u64 reloads_gpa)
{
	GUEST_ASSERT(!vmwrite(VM_ENTRY_MSR_LOAD_ADDR, loads_gpa));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_STORE_ADDR, stores_gpa));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_LOAD_ADDR, reloads_gpa));
}

static void set_list_lengths(u32 nr_loads, u32 nr_stores, u32 nr_reloads)
{
	GUEST_ASSERT(!vmwrite(VM_ENTRY_MSR_LOAD_COUNT, nr_loads));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_STORE_COUNT, nr_stores));
	GUEST_ASSERT(!vmwrite(VM_EXIT_MSR_LOAD_COUNT, nr_reloads));
}

static void l1_list_orders(struct vmx_pages *vmx, u64 loads_gpa, u64 stores_gpa,
			   u64 reloads_gpa)
{
	int i;

	prepare_l2(vmx);
	set_lists(loads_gpa, stores_gpa, reloads_gpa);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, 0);

	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		set_list_lengths(NR_IN_LIST, NR_IN_LIST, NR_IN_LIST);
		check_order(orders[i]);
		set_list_lengths(NR_IN_LIST, 0, 0);
		check_invalid_entries(orders[i]);
	}
	GUEST_DONE();
}

static void start_with_lists(struct kvm_vcpu *vcpu, void *l1_code, gva_t vmx)
{
	struct kvm_vm *vm = vcpu->vm;

	start_guest(vcpu, l1_code);
	vcpu_args_set(vcpu, 4, vmx, addr_gva2gpa(vm, (gva_t)loads),
		      addr_gva2gpa(vm, (gva_t)stores), addr_gva2gpa(vm, (gva_t)reloads));
}

TEST_F(nested, msr_list_orders)
{
	start_with_lists(self->vcpu, l1_list_orders, self->vmx);
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
	assert_gp(wrmsr_safe(MSR_CORE_PERF_GLOBAL_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS),
		  "WRMSR in L2", MSR_CORE_PERF_GLOBAL_CTRL);
	assert_gp(wrmsr_safe(MSR_CORE_PERF_GLOBAL_OVF_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS),
		  "WRMSR in L2", MSR_CORE_PERF_GLOBAL_OVF_CTRL);
	if (!guest.has_slots) {
		assert_gp(rdmsr_safe(MSR_CORE_PERF_FIXED_CTR3, &val), "RDMSR in L2",
			  MSR_CORE_PERF_FIXED_CTR3);
		assert_gp(rdpmc_safe(RDPMC_SLOTS, &val), "RDPMC in L2", RDPMC_SLOTS);
	}
	vmcall();
}

static void l1_unsupported(struct vmx_pages *vmx)
{
	prepare_l2(vmx);
	run_l2(l2_unsupported, EXIT_VMCALL);
	GUEST_DONE();
}

/* L1 is of any kind that has no PERF_METRICS, and neither can L2 have it. */

FIXTURE(unsupported) {
	struct kvm_vcpu *vcpu;
	gva_t vmx;
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
	REQUIRE(kvm_cpu_has(X86_FEATURE_VMX), "KVM has no nested VMX");
	if (variant->kind == PMU_DISABLED)
		REQUIRE(can_disable_pmu(), "KVM has no KVM_PMU_CAP_DISABLE");

	self->vcpu = create_vcpu(variant->kind);
	guest.has_slots = kind_has_slots(variant->kind);
	vcpu_alloc_vmx(self->vcpu->vm, &self->vmx);
}

FIXTURE_TEARDOWN(unsupported)
{
	kvm_vm_free(self->vcpu->vm);
}

/* L1's MSR bitmap can't give L2 what L1 doesn't have. */
TEST_F(unsupported, l2)
{
	start_l1(self->vcpu, l1_unsupported, self->vmx);
	run_to_done(self->vcpu);
}

TEST_F(unsupported, vm_entry_global_ctrl)
{
	REQUIRE(nested_entry_loads_global_ctrl(), "Nested VMX can't load GLOBAL_CTRL");
	REQUIRE(variant->kind != VERSION_1 && variant->kind != VERSION_0 &&
		variant->kind != PMU_DISABLED, "The vCPU has no GLOBAL_CTRL");
	run_global_ctrl_test(self->vcpu, self->vmx, false);
}

/* Lists of MSRs can't either.  When a VM exit can't store or load, L1 is lost. */

static void l1_unsupported_load(struct vmx_pages *vmx, u64 loads_gpa, u64 stores_gpa,
				u64 reloads_gpa)
{
	prepare_l2(vmx);
	set_lists(loads_gpa, stores_gpa, reloads_gpa);
	fill_list(loads, orders[2], 0, 0, 0);
	set_list_lengths(1, 0, 0);
	run_l2(l2_unreachable, EXIT_MSR_LOAD_FAIL);
	GUEST_ASSERT_EQ(vmreadz(EXIT_QUALIFICATION), 1);
	GUEST_DONE();
}

TEST_F(unsupported, vm_entry_load_list)
{
	start_with_lists(self->vcpu, l1_unsupported_load, self->vmx);
	run_to_done(self->vcpu);
}

static void l2_vmcall(void)
{
	vmcall();
}

static bool aborts_in_store;

static void l1_unsupported_exit(struct vmx_pages *vmx, u64 loads_gpa, u64 stores_gpa,
				u64 reloads_gpa)
{
	prepare_l2(vmx);
	set_lists(loads_gpa, stores_gpa, reloads_gpa);
	fill_list(stores, orders[2], 0, 0, 0);
	fill_list(reloads, orders[2], 0, 0, 0);
	set_list_lengths(0, aborts_in_store, !aborts_in_store);
	run_l2(l2_vmcall, EXIT_VMCALL);
	GUEST_FAIL("L1 survived a VM exit whose list has an MSR that L1 lacks");
}

static void assert_vmx_abort(struct kvm_vcpu *vcpu, gva_t vmx, bool store_list)
{
	aborts_in_store = store_list;
	sync_global_to_guest(vcpu->vm, aborts_in_store);
	start_with_lists(vcpu, l1_unsupported_exit, vmx);
	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_SHUTDOWN);
}

TEST_F(unsupported, vm_exit_store_list)
{
	assert_vmx_abort(self->vcpu, self->vmx, true);
}

TEST_F(unsupported, vm_exit_load_list)
{
	assert_vmx_abort(self->vcpu, self->vmx, false);
}

int main(int argc, char *argv[])
{
	require_pmu();

	return test_harness_run(argc, argv);
}
