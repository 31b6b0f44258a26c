// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test the interrupts of topdown in guests: an overflow of fixed counter 3
 * (TOPDOWN.SLOTS) or of PERF_METRICS interrupts the vCPU that it belongs to,
 * once, with the right status, no matter what happens to the vCPU meanwhile, and
 * no other vCPU notices, be it of the same VM or of another one.
 */
#include <semaphore.h>
#include <signal.h>

#include "pmu_topdown.h"

/* Enough for any of the distances below: each retires more slots than loops. */
#define MAX_WAIT	20000

/* Long enough for a second PMI to show. */
#define AFTER		20

/* One for each vCPU of a VM, by APIC ID. */
static struct {
	u64 nr;
	u64 status;
} pmis[2];

static void guest_pmi_handler(struct ex_regs *regs)
{
	u64 status = rdmsr(MSR_CORE_PERF_GLOBAL_STATUS);
	u64 id = x2apic_read_reg(APIC_ID);

	wrmsr(MSR_CORE_PERF_GLOBAL_OVF_CTRL, status);
	pmis[id].status |= status;
	WRITE_ONCE(pmis[id].nr, pmis[id].nr + 1);

	/* Delivery masked the entry; unmask it, to see if there is another. */
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	x2apic_write_reg(APIC_EOI, 0);
}

static u64 init_pmis(void)
{
	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	sti();
	return x2apic_read_reg(APIC_ID);
}

static void wait_for_pmi(u64 id)
{
	int i;

	for (i = 0; i < MAX_WAIT && !READ_ONCE(pmis[id].nr); i++)
		retire(1);
	retire(AFTER);
	stop_counting();
}

static void check_pmi(u64 id, u64 status, u64 distance)
{
	__GUEST_ASSERT(READ_ONCE(pmis[id].nr) == 1,
		       "%lu PMIs on vCPU %lu, %lu slots before its overflow, want 1",
		       READ_ONCE(pmis[id].nr), id, distance);
	__GUEST_ASSERT(pmis[id].status == status,
		       "GLOBAL_STATUS 0x%lx in the PMI on vCPU %lu, want 0x%lx",
		       pmis[id].status, id, status);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), 0);
}

/*
 * From an overflow that comes with the next few instructions to one that comes
 * long after the exit that follows, in steps of a quarter.
 */
#define MIN_DISTANCE	64
#define MAX_DISTANCE	60000
static u64 next_distance(u64 d)
{
	return d + d / 4;
}

static void guest_overflow(bool exit)
{
	u64 d, id = init_pmis();

	for (d = MIN_DISTANCE; d < MAX_DISTANCE; d = next_distance(d)) {
		pmis[id].nr = 0;
		pmis[id].status = 0;
		start_overflow(d, FIXED_PMC_ENABLE_PMI, 0);
		if (exit)
			GUEST_SYNC(0);
		wait_for_pmi(id);
		check_pmi(id, SLOTS_ENABLE, d);
	}
	GUEST_DONE();
}

/* Counts as well, with PMIs enabled, but never overflows. */
static void guest_bystander(void)
{
	u64 id = init_pmis();

	for (;;) {
		start_overflow(BIT_ULL(40), FIXED_PMC_ENABLE_PMI, 0);
		retire(AFTER);
		GUEST_SYNC(0);
		retire(AFTER);
		stop_counting();
		__GUEST_ASSERT(!READ_ONCE(pmis[id].nr),
			       "%lu PMIs on vCPU %lu, whose counter didn't overflow",
			       READ_ONCE(pmis[id].nr), id);
		GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), 0);
	}
}

/* Two vCPUs that share a CPU, and a host that may be busy there as well. */

FIXTURE(pmi) {
	struct kvm_vcpu *vcpus[2];
	struct topdown_group group;
	pthread_t spinner;
};

FIXTURE_VARIANT(pmi) {
	bool same_vm;
	bool busy_host;
};

FIXTURE_VARIANT_ADD(pmi, same_vm) { .same_vm = true };
FIXTURE_VARIANT_ADD(pmi, two_vms) { .same_vm = false };
FIXTURE_VARIANT_ADD(pmi, same_vm_busy_host) { .same_vm = true, .busy_host = true };
FIXTURE_VARIANT_ADD(pmi, two_vms_busy_host) { .same_vm = false, .busy_host = true };

static bool stop_spinning;

static void *spin(void *data)
{
	while (!READ_ONCE(stop_spinning))
		sched_yield();
	return NULL;
}

static void ignore_signal(int sig)
{
}

FIXTURE_SETUP(pmi)
{
	struct kvm_vm *vms[2];
	int i;

	REQUIRE_SLOTS();
	pin_self_to_any_cpu();
	signal(SIGUSR1, ignore_signal);

	vms[0] = create_vm(FULL, 2);
	vms[1] = variant->same_vm ? vms[0] : create_vm(FULL, 2);
	for (i = 0; i < 2; i++) {
		self->vcpus[i] = add_vcpu(vms[i], i, FULL);
		vm_install_exception_handler(vms[i], PMI_VECTOR, guest_pmi_handler);
	}

	if (!variant->busy_host)
		return;

	REQUIRE(facts.host_metrics, "The host's perf has no PERF_METRICS");
	pthread_create(&self->spinner, NULL, spin, NULL);
	open_topdown(&self->group);
	/* CPU_CLK_UNHALTED.THREAD, so often that it interrupts between two exits. */
	ioctl(open_event(0x3c, -1, 20000), PERF_EVENT_IOC_ENABLE, 0);
}

FIXTURE_TEARDOWN(pmi)
{
	if (variant->busy_host) {
		WRITE_ONCE(stop_spinning, true);
		pthread_join(self->spinner, NULL);
	}
	kvm_vm_free(self->vcpus[0]->vm);
	if (!variant->same_vm)
		kvm_vm_free(self->vcpus[1]->vm);
}

static u64 pmis_of(struct kvm_vcpu *vcpu)
{
	u64 *nr = addr_gva2hva(vcpu->vm, (gva_t)&pmis[vcpu->id].nr);

	return READ_ONCE(*nr);
}

static void prepare_vcpu(struct kvm_vcpu *vcpu, void *guest_code, bool exit)
{
	start_guest(vcpu, guest_code);
	vcpu_args_set(vcpu, 1, (u64)exit);
}

/*
 * The vCPU is in userspace, and the other one on its CPU, before the overflow,
 * after it, or in between: then the PMI has been raised but not delivered.
 */
TEST_F(pmi, overflow_around_exit)
{
	struct kvm_vcpu *vcpu = self->vcpus[0];
	int before = 0, between = 0, after = 0;
	u64 status;

	prepare_vcpu(vcpu, guest_overflow, true);
	prepare_vcpu(self->vcpus[1], guest_bystander, true);

	while (run_to_sync(vcpu, NULL) != -1) {
		status = vcpu_get_msr(vcpu, MSR_CORE_PERF_GLOBAL_STATUS);
		TEST_ASSERT(!(status & ~SLOTS_ENABLE), "GLOBAL_STATUS is 0x%lx", status);
		if (pmis_of(vcpu))
			before++;
		else if (status)
			between++;
		else
			after++;

		TEST_ASSERT_EQ(run_to_sync(self->vcpus[1], NULL), 0);
		TEST_ASSERT_EQ(vcpu_get_msr(self->vcpus[1], MSR_CORE_PERF_GLOBAL_STATUS), 0);
		if (variant->busy_host)
			check_topdown(&self->group);
	}
	TH_LOG("%d PMIs before the exit, %d around it, %d after it", before, between, after);
	TEST_ASSERT((before || between) && after, "All overflows came %s the exit",
		    after ? "after" : "before");
}

/* Both overflow, and neither exits by itself: signals and the other one stop it. */

static sem_t ended;

static void *run_interrupted(void *data)
{
	struct kvm_vcpu *vcpu = data;
	struct ucall uc;

	while (__vcpu_run(vcpu)) {
		TEST_ASSERT(errno == EINTR, "KVM_RUN failed, errno %d", errno);
		sched_yield();
	}
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, UCALL_DONE);
	sem_post(&ended);
	return NULL;
}

/* A thread that has ended can't be sent a signal, so wait for both in the end. */
TEST_F(pmi, overflow_while_preempted)
{
	const struct timespec pause = { .tv_nsec = 20000 };
	pthread_t threads[2];
	int i, left = 2;

	sem_init(&ended, 0, 0);
	for (i = 0; i < 2; i++) {
		prepare_vcpu(self->vcpus[i], guest_overflow, false);
		TEST_ASSERT(!pthread_create(&threads[i], NULL, run_interrupted,
					    self->vcpus[i]), "pthread_create() failed");
	}
	for (i = 0; left; i++) {
		nanosleep(&pause, NULL);
		pthread_kill(threads[i % 2], SIGUSR1);
		if (!sem_trywait(&ended))
			left--;
	}
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

/* PERF_METRICS' own overflow, GLOBAL_STATUS bit 48. */

FIXTURE(metrics_pmi) {
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(metrics_pmi)
{
	REQUIRE_METRICS();
	self->vcpu = create_vcpu(FULL);
	vm_install_exception_handler(self->vcpu->vm, PMI_VECTOR, guest_pmi_handler);
}

FIXTURE_TEARDOWN(metrics_pmi)
{
	kvm_vm_free(self->vcpu->vm);
}

/* Userspace restores a status; that is no overflow, and interrupts nobody. */
static void guest_restored_status(void)
{
	u64 id = init_pmis();
	u64 val;

	start_counting(PMU_GLOBAL_CTRL_PERF_METRICS);
	retire(AFTER);
	val = rdmsr(MSR_CORE_PERF_GLOBAL_STATUS);
	GUEST_ASSERT_EQ(val, SLOTS_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
	GUEST_SYNC(0);

	wrmsr(MSR_CORE_PERF_GLOBAL_OVF_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS);
	GUEST_SYNC(1);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), SLOTS_ENABLE);
	GUEST_ASSERT_EQ(READ_ONCE(pmis[id].nr), 0);
	GUEST_DONE();
}

TEST_F(metrics_pmi, restored_status)
{
	struct kvm_vcpu *vcpu = self->vcpu;

	vcpu_set_msr(vcpu, MSR_CORE_PERF_GLOBAL_STATUS,
		     SLOTS_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
	start_guest(vcpu, guest_restored_status);
	TEST_ASSERT_EQ(run_to_sync(vcpu, NULL), 0);
	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_CORE_PERF_GLOBAL_STATUS),
		       SLOTS_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
	TEST_ASSERT_EQ(run_to_sync(vcpu, NULL), 1);
	TEST_ASSERT_EQ(vcpu_get_msr(vcpu, MSR_CORE_PERF_GLOBAL_STATUS), SLOTS_ENABLE);
	run_to_done(vcpu);
}

/*
 * A metric that has counted nearly as many slots as fit overflows soon after the
 * counter does, and interrupts without being enabled to (SDM, on GLOBAL_STATUS).
 * A VM exit in between makes it start from what the 8 bits tell, so there are
 * several attempts.  Whether a CPU keeps such counts at all is its own business.
 */
#define ATTEMPTS	20
#define METRICS_FULL	0xffull
#define METRICS_DISTANCE 5000

static void guest_metrics_overflow(void)
{
	u64 status, id = init_pmis();
	int i;

	for (i = 0; i < ATTEMPTS; i++) {
		start_overflow(METRICS_DISTANCE, 0, 0);
		stop_counting();
		wrmsr(MSR_PERF_METRICS, METRICS_FULL);
		wrmsr(MSR_CORE_PERF_GLOBAL_CTRL,
		      SLOTS_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS);
		retire(4 * METRICS_DISTANCE / 128);
		stop_counting();
		if (READ_ONCE(pmis[id].nr))
			break;

		/* Without a PMI it didn't overflow, and the counter did. */
		status = rdmsr(MSR_CORE_PERF_GLOBAL_STATUS);
		GUEST_ASSERT_EQ(status, SLOTS_ENABLE);
		wrmsr(MSR_CORE_PERF_GLOBAL_OVF_CTRL, status);
	}
	GUEST_SYNC(i);

	if (i < ATTEMPTS)
		check_pmi(id, SLOTS_ENABLE | PMU_GLOBAL_CTRL_PERF_METRICS,
			  METRICS_DISTANCE);
	GUEST_DONE();
}

TEST_F(metrics_pmi, overflow)
{
	u64 attempts;

	start_guest(self->vcpu, guest_metrics_overflow);
	attempts = run_to_sync(self->vcpu, NULL);
	TH_LOG("PERF_METRICS overflowed after %lu of %d attempts failed", attempts, ATTEMPTS);
	run_to_done(self->vcpu);
}

/*
 * KVM's PMU of version 2 has no FREEZE_PERFMON_ON_PMI, so a guest can't have it,
 * not even if the host uses it, and counters go on.
 */
#define DEBUGCTL_FREEZE_PERFMON_ON_PMI	BIT(12)

static void guest_no_freeze(void)
{
	u64 slots, id = init_pmis();
	int i;

	assert_wrmsr_gp(MSR_IA32_DEBUGCTLMSR, DEBUGCTL_FREEZE_PERFMON_ON_PMI);

	start_overflow(METRICS_DISTANCE, FIXED_PMC_ENABLE_PMI, 0);
	for (i = 0; i < MAX_WAIT && !READ_ONCE(pmis[id].nr); i++)
		retire(1);
	slots = rdpmc(RDPMC_SLOTS);
	retire(AFTER);
	GUEST_ASSERT(rdpmc(RDPMC_SLOTS) >= slots + AFTER);
	stop_counting();
	check_pmi(id, SLOTS_ENABLE, METRICS_DISTANCE);
	GUEST_DONE();
}

TEST_F(metrics_pmi, no_freeze)
{
	REQUIRE(kvm_cpu_property(X86_PROPERTY_PMU_VERSION) < 4,
		"KVM has a PMU of version 4 or higher");
	TEST_ASSERT(!_vcpu_set_msr(self->vcpu, MSR_IA32_DEBUGCTLMSR,
				   DEBUGCTL_FREEZE_PERFMON_ON_PMI),
		    "KVM_SET_MSRS took FREEZE_PERFMON_ON_PMI");
	run_guest_code(self->vcpu, guest_no_freeze);
}

int main(int argc, char *argv[])
{
	require_pmu();

	return test_harness_run(argc, argv);
}
