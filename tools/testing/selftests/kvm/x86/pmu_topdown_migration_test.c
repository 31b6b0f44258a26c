// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test that topdown survives the migration of a VM: fixed counter 3
 * (TOPDOWN.SLOTS) and PERF_METRICS are saved in one VM and restored in another
 * one, of the same process or of a new one, in any order of the MSRs that the
 * API allows; and that state with PERF_METRICS is refused by a vCPU that lacks
 * it, while state without it is not missed.
 */
#include <sys/wait.h>

#include "pmu_topdown.h"

FIXTURE(migration) {
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(migration)
{
	REQUIRE_METRICS();
	self->vcpu = create_vcpu(FULL);
}

FIXTURE_TEARDOWN(migration)
{
	if (self->vcpu)
		kvm_vm_free(self->vcpu->vm);
}

static const u32 topdown_msrs[] = {
	MSR_CORE_PERF_FIXED_CTR1,
	MSR_CORE_PERF_FIXED_CTR3,
	MSR_PERF_METRICS,
	MSR_CORE_PERF_FIXED_CTR_CTRL,
	MSR_CORE_PERF_GLOBAL_CTRL,
	MSR_CORE_PERF_GLOBAL_STATUS,
};

#define NR_MSRS		ARRAY_SIZE(topdown_msrs)

static void read_msrs(struct kvm_vcpu *vcpu, u64 *values)
{
	int i;

	for (i = 0; i < NR_MSRS; i++)
		values[i] = vcpu_get_msr(vcpu, topdown_msrs[i]);
}

static void compare_msrs(struct kvm_vcpu *vcpu, const u64 *want)
{
	u64 values[NR_MSRS];
	int i;

	read_msrs(vcpu, values);
	for (i = 0; i < NR_MSRS; i++)
		TEST_ASSERT(values[i] == want[i],
			    "MSR 0x%x is 0x%lx after it was restored, want 0x%lx",
			    topdown_msrs[i], values[i], want[i]);
}

static struct kvm_vcpu *migrate_and_compare(struct kvm_vcpu *vcpu)
{
	u64 before[NR_MSRS];

	vcpu_run_complete_io(vcpu);
	read_msrs(vcpu, before);
	vcpu = save_and_restore(vcpu);
	compare_msrs(vcpu, before);
	return vcpu;
}

static void guest_round_trip(void)
{
	u64 slots, metrics;

	/* Pending status, armed controls, values; all of it stopped. */
	start_overflow(1000, 0, 0);
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

TEST_F(migration, save_restore_round_trip)
{
	start_guest(self->vcpu, guest_round_trip);
	TEST_ASSERT_EQ(run_to_sync(self->vcpu, NULL), 0);
	self->vcpu = migrate_and_compare(self->vcpu);
	TEST_ASSERT_EQ(run_to_sync(self->vcpu, NULL), 1);
	self->vcpu = migrate_and_compare(self->vcpu);
	run_to_done(self->vcpu);
}

/* A change of the vCPU's model starts its PMU from zero. */
TEST_F(migration, perf_capabilities_write_resets)
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

/* A new process: this program again, which reads the VM from a pipe. */

#define RESTORE_OPTION	"--restore-vm"

struct image {
	u64 host_base;
	u64 size;
	u64 xsave_size;
	u64 state_size;
	u64 msrs[NR_MSRS];
};

static struct userspace_mem_region *memory_of(struct kvm_vm *vm)
{
	return vm_get_mem_region(vm, MEM_REGION_DATA);
}

static void write_all(int fd, const void *data, size_t size)
{
	ssize_t r;

	for (; size; data += r, size -= r) {
		r = write(fd, data, size);
		TEST_ASSERT(r > 0, "write() failed, errno %d", errno);
	}
}

static void read_all(int fd, void *data, size_t size)
{
	ssize_t r;

	for (; size; data += r, size -= r) {
		r = read(fd, data, size);
		TEST_ASSERT(r > 0, "read() returned %ld, errno %d", r, errno);
	}
}

static size_t xsave_size(void)
{
	int size = kvm_check_cap(KVM_CAP_XSAVE2);

	return size ?: sizeof(struct kvm_xsave);
}

/* Stop the VM, and be rid of it, before the other process starts its own. */
static void run_elsewhere(struct kvm_vcpu *vcpu)
{
	struct userspace_mem_region *memory = memory_of(vcpu->vm);
	struct image image = {
		.host_base = (u64)memory->host_mem,
		.size = memory->region.memory_size,
		.xsave_size = xsave_size(),
	};
	struct kvm_x86_state *state = vcpu_save_state(vcpu);
	char fd_arg[16];
	int pipe_fds[2], status;
	void *copy;
	pid_t pid;

	image.state_size = sizeof(*state) +
			   state->msrs.nmsrs * sizeof(state->msrs.entries[0]);
	read_msrs(vcpu, image.msrs);
	copy = malloc(image.size);
	TEST_ASSERT(copy, "No memory for the VM's %lu bytes", image.size);
	memcpy(copy, memory->host_mem, image.size);
	kvm_vm_free(vcpu->vm);

	TEST_ASSERT(!pipe(pipe_fds), "pipe() failed");
	snprintf(fd_arg, sizeof(fd_arg), "%d", pipe_fds[0]);
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork() failed");
	if (!pid) {
		close(pipe_fds[1]);
		execl("/proc/self/exe", program_invocation_name, RESTORE_OPTION,
		      fd_arg, NULL);
		_exit(KSFT_FAIL);
	}
	close(pipe_fds[0]);
	write_all(pipe_fds[1], &image, sizeof(image));
	write_all(pipe_fds[1], copy, image.size);
	write_all(pipe_fds[1], state, image.state_size);
	write_all(pipe_fds[1], state->xsave, image.xsave_size);
	close(pipe_fds[1]);

	TEST_ASSERT(waitpid(pid, &status, 0) == pid, "waitpid() failed");
	TEST_ASSERT(WIFEXITED(status) && !WEXITSTATUS(status),
		    "The process that restored the VM ended with status 0x%x", status);
	free(copy);
	kvm_x86_state_cleanup(state);
}

/*
 * The guest tells the address of its ucall as the first process has mapped it,
 * which vcpu_run() and get_ucall() can't know.
 */
static void run_restored(struct kvm_vcpu *vcpu, u64 old_base)
{
	u64 base = (u64)memory_of(vcpu->vm)->host_mem;
	struct kvm_regs regs;
	struct ucall *uc;

	for (;;) {
		TEST_ASSERT(!__vcpu_run(vcpu), "KVM_RUN failed, errno %d", errno);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
		vcpu_regs_get(vcpu, &regs);
		uc = (void *)(regs.rdi - old_base + base);
		if (uc->cmd == UCALL_ABORT)
			REPORT_GUEST_ASSERT(*uc);
		if (uc->cmd == UCALL_DONE)
			return;
		TEST_ASSERT_EQ(uc->cmd, UCALL_SYNC);
	}
}

static int restore_vm(int fd)
{
	struct kvm_vcpu *vcpu = create_vcpu(FULL);
	struct userspace_mem_region *memory = memory_of(vcpu->vm);
	struct kvm_x86_state *state;
	struct image image;

	read_all(fd, &image, sizeof(image));
	TEST_ASSERT_EQ(image.size, memory->region.memory_size);
	read_all(fd, memory->host_mem, image.size);
	state = malloc(image.state_size);
	TEST_ASSERT(state, "No memory for the vCPU's state");
	read_all(fd, state, image.state_size);
	state->xsave = malloc(image.xsave_size);
	TEST_ASSERT(state->xsave, "No memory for the vCPU's registers");
	read_all(fd, state->xsave, image.xsave_size);

	/* create_vcpu() has set PERF_CAPABILITIES, which comes first. */
	vcpu_load_state(vcpu, state);
	compare_msrs(vcpu, image.msrs);
	run_restored(vcpu, image.host_base);
	return 0;
}

/* Stopped in the first test, so that values are exact, counting in the second. */
static void guest_stopped(void)
{
	write_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, SLOTS_CTRL);
	GUEST_SYNC(0);
	assert_pattern(PATTERN_SLOTS, PATTERN_METRICS);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_FIXED_CTR_CTRL), SLOTS_CTRL);
	guest_survive_ucall();
}

TEST_F(migration, new_process_stopped)
{
	start_guest(self->vcpu, guest_stopped);
	TEST_ASSERT_EQ(run_to_sync(self->vcpu, NULL), 0);
	run_elsewhere(self->vcpu);
	self->vcpu = NULL;
}

static void guest_counting(void)
{
	u64 slots;

	/* More than what the exits take, even if caches are cold. */
	start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
	retire(4000);
	slots = rdpmc(RDPMC_SLOTS);
	GUEST_SYNC(0);
	GUEST_ASSERT(rdpmc(RDPMC_SLOTS) >= slots && rdpmc(RDPMC_SLOTS) < 2 * slots);
	assert_sum(rdpmc(RDPMC_METRICS), 2);
	retire(1000);
	GUEST_ASSERT(rdpmc(RDPMC_SLOTS) >= slots + 1000 * 128);
	assert_sum(rdpmc(RDPMC_METRICS), 2);
	stop_counting();
	GUEST_DONE();
}

TEST_F(migration, new_process_counting)
{
	start_guest(self->vcpu, guest_counting);
	TEST_ASSERT_EQ(run_to_sync(self->vcpu, NULL), 0);
	run_elsewhere(self->vcpu);
	self->vcpu = NULL;
}

/* Orders of the MSRs. */

struct msr_list {
	struct kvm_msrs header;
	struct kvm_msr_entry entries[NR_MSRS + 1];
};

/* As topdown_msrs[]: all of it on, so that the guest goes on counting. */
static const u64 restored[NR_MSRS] = {
	12345,
	PATTERN_SLOTS,
	PATTERN_METRICS,
	SLOTS_CTRL | CYCLES_CTRL,
	SLOTS_ENABLE | CYCLES_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS,
	SLOTS_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS,
};

static void set_in_order(struct kvm_vcpu *vcpu, const int *order)
{
	struct msr_list list = { .header.nmsrs = NR_MSRS };
	int i, r;

	for (i = 0; i < NR_MSRS; i++) {
		list.entries[i].index = topdown_msrs[order[i]];
		list.entries[i].data = restored[order[i]];
	}
	r = __vcpu_ioctl(vcpu, KVM_SET_MSRS, &list.header);
	TEST_ASSERT(r == NR_MSRS, "KVM_SET_MSRS set %d MSRs, not MSR 0x%x", r,
		    r < 0 ? 0 : list.entries[r].index);
}

static void swap_ints(int *a, int *b)
{
	int tmp = *a;

	*a = *b;
	*b = tmp;
}

/* The next order in the order of the dictionary, if there is one. */
static bool next_order(int *order)
{
	int i, j, k;

	for (i = NR_MSRS - 1; i && order[i - 1] > order[i]; i--)
		;
	if (!i)
		return false;
	for (j = NR_MSRS - 1; order[j] < order[i - 1]; j--)
		;
	swap_ints(&order[i - 1], &order[j]);
	for (k = NR_MSRS - 1; i < k; i++, k--)
		swap_ints(&order[i], &order[k]);
	return true;
}

/* Changing the vCPU's model resets its PMU, as long as it hasn't run. */
static void reset_pmu(struct kvm_vcpu *vcpu)
{
	static const u64 zeroes[NR_MSRS];

	vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES,
		     facts.perf_capabilities & ~PMU_CAP_PERF_METRICS);
	vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES, facts.perf_capabilities);
	vcpu_set_msr(vcpu, MSR_CORE_PERF_GLOBAL_CTRL, 0);
	compare_msrs(vcpu, zeroes);
}

static void guest_continue(void)
{
	u64 slots = rdpmc(RDPMC_SLOTS);
	u64 metrics = rdpmc(RDPMC_METRICS);
	int i;

	/* In between, far fewer slots went by than one unit of a field stands for. */
	__GUEST_ASSERT(slots >= PATTERN_SLOTS && slots < PATTERN_SLOTS + PATTERN_SLOTS / 255,
		       "%lu slots, want %llu or a few more", slots, PATTERN_SLOTS);
	for (i = RETIRING; i <= BE_BOUND; i++)
		__GUEST_ASSERT(field(metrics, i) + 1 >= field(PATTERN_METRICS, i) &&
			       field(metrics, i) <= field(PATTERN_METRICS, i) + 1,
			       "PERF_METRICS is 0x%lx, want about 0x%llx", metrics,
			       PATTERN_METRICS);
	retire(100);
	GUEST_ASSERT(rdpmc(RDPMC_SLOTS) >= slots + 100 * 128);
	GUEST_ASSERT(rdpmc(INTEL_RDPMC_FIXED | 1) > 12345);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS),
			SLOTS_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
	stop_counting();
	GUEST_DONE();
}

/* One in SAMPLE orders has a guest that goes on with it. */
#define SAMPLE	90

TEST_F(migration, every_order)
{
	int order[NR_MSRS] = { 0, 1, 2, 3, 4, 5 };
	struct kvm_vcpu *vcpu;
	int nr = 0;

	do {
		reset_pmu(self->vcpu);
		set_in_order(self->vcpu, order);
		compare_msrs(self->vcpu, restored);

		if (nr++ % SAMPLE)
			continue;
		vcpu = create_vcpu(FULL);
		set_in_order(vcpu, order);
		run_guest_code(vcpu, guest_continue);
		kvm_vm_free(vcpu->vm);
	} while (next_order(order));
	TEST_ASSERT_EQ(nr, 720);

	run_guest_code(self->vcpu, guest_continue);
}

/*
 * The documented hazard: a PERF_CAPABILITIES that changes resets what has been
 * restored before it, and only that.
 */
TEST_F(migration, perf_capabilities_in_every_place)
{
	struct kvm_vcpu *vcpu = self->vcpu;
	u64 other = facts.perf_capabilities & ~PMU_CAP_FW_WRITES;
	u64 want[NR_MSRS];
	int place, i;

	for (place = 0; place <= NR_MSRS; place++) {
		vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES, other);
		vcpu_set_msr(vcpu, MSR_CORE_PERF_GLOBAL_CTRL, 0);

		for (i = 0; i <= NR_MSRS; i++) {
			if (i == place) {
				vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES,
					     facts.perf_capabilities);
				vcpu_set_msr(vcpu, MSR_CORE_PERF_GLOBAL_CTRL, 0);
			}
			if (i < NR_MSRS)
				vcpu_set_msr(vcpu, topdown_msrs[i], restored[i]);
		}
		for (i = 0; i < NR_MSRS; i++)
			want[i] = i < place ? 0 : restored[i];
		compare_msrs(vcpu, want);
	}
}

/* State from a KVM that knows neither fixed counter 3 nor PERF_METRICS. */

static const u32 old_msrs[] = {
	MSR_CORE_PERF_FIXED_CTR1,
	MSR_CORE_PERF_FIXED_CTR_CTRL,
	MSR_CORE_PERF_GLOBAL_CTRL,
	MSR_CORE_PERF_GLOBAL_STATUS,
};

static void restore_old(struct kvm_vcpu *vcpu)
{
	const u64 values[] = { 12345, CYCLES_CTRL, CYCLES_ENABLE, CYCLES_ENABLE };
	int i;

	for (i = 0; i < ARRAY_SIZE(old_msrs); i++)
		vcpu_set_msr(vcpu, old_msrs[i], values[i]);
}

static void guest_old_state(bool has_metrics)
{
	GUEST_ASSERT(rdpmc(INTEL_RDPMC_FIXED | 1) > 12345);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_FIXED_CTR_CTRL), CYCLES_CTRL);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_CTRL), CYCLES_ENABLE);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), CYCLES_ENABLE);
	if (!has_metrics) {
		assert_rdpmc_gp(RDPMC_METRICS);
		assert_rdmsr_gp(MSR_PERF_METRICS);
		assert_wrmsr_gp(MSR_CORE_PERF_GLOBAL_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS);
		GUEST_DONE();
		return;
	}
	assert_pattern(0, 0);
	guest_survive_ucall();
}

static void run_old_state(struct kvm_vcpu *vcpu, bool has_metrics)
{
	restore_old(vcpu);
	start_guest(vcpu, guest_old_state);
	vcpu_args_set(vcpu, 1, (u64)has_metrics);
	run_to_done(vcpu);
}

TEST_F(migration, old_state)
{
	struct kvm_vcpu *vcpu;

	run_old_state(self->vcpu, true);

	vcpu = create_vcpu(NO_CAP_BIT);
	run_old_state(vcpu, false);
	kvm_vm_free(vcpu->vm);
	vcpu = create_vcpu(THREE_FIXED);
	run_old_state(vcpu, false);
	kvm_vm_free(vcpu->vm);
}

/*
 * A vCPU that lacks PERF_METRICS, or fixed counter 3, refuses them: KVM_SET_MSRS
 * returns how many MSRs it has set before, and sets none after.
 */
static void assert_refused(struct kvm_vcpu *vcpu, u32 msr, u64 value)
{
	struct msr_list list = {
		.header.nmsrs = 4,
		.entries = {
			{ .index = MSR_IA32_SYSENTER_CS, .data = 0x11 },
			{ .index = MSR_IA32_SYSENTER_ESP, .data = 0x22 },
			{ .index = msr, .data = value },
			{ .index = MSR_IA32_SYSENTER_EIP, .data = 0x33 },
		},
	};
	int r;

	vcpu_set_msr(vcpu, MSR_IA32_SYSENTER_CS, 0);
	vcpu_set_msr(vcpu, MSR_IA32_SYSENTER_ESP, 0);
	vcpu_set_msr(vcpu, MSR_IA32_SYSENTER_EIP, 0);
	r = __vcpu_ioctl(vcpu, KVM_SET_MSRS, &list.header);
	TEST_ASSERT(r == 2, "KVM_SET_MSRS returned %d, with MSR 0x%x at 2", r, msr);
	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_IA32_SYSENTER_CS), 0x11);
	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_IA32_SYSENTER_ESP), 0x22);
	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_IA32_SYSENTER_EIP), 0);
}

TEST_F(migration, refused_where_unsupported)
{
	struct kvm_vcpu *vcpu;
	enum vcpu_kind kind;

	for (kind = NO_CAP_BIT; kind < NR_VCPU_KINDS; kind++) {
		if (kind == PMU_DISABLED && !can_disable_pmu())
			continue;
		vcpu = create_vcpu(kind);
		assert_refused(vcpu, MSR_PERF_METRICS, PATTERN_METRICS);
		assert_refused(vcpu, MSR_CORE_PERF_GLOBAL_CTRL,
			       PMU_GLOBAL_CTRL_PERF_METRICS);
		assert_refused(vcpu, MSR_CORE_PERF_GLOBAL_STATUS,
			       PMU_GLOBAL_CTRL_PERF_METRICS);
		if (!kind_has_slots(kind))
			assert_refused(vcpu, MSR_CORE_PERF_FIXED_CTR3, PATTERN_SLOTS);
		kvm_vm_free(vcpu->vm);
	}
}

int main(int argc, char *argv[])
{
	require_pmu();

	if (argc == 3 && !strcmp(argv[1], RESTORE_OPTION))
		return restore_vm(atoi(argv[2]));
	return test_harness_run(argc, argv);
}
