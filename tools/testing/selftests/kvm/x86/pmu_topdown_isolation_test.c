// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test that vCPUs that share a CPU never see each other's counters, fixed
 * counter 3 (TOPDOWN.SLOTS) and PERF_METRICS above all, that nothing of theirs
 * gets lost, and that the host's perf and they don't see each other either.
 *
 *   pairs  every pair of kinds of vCPUs shares a CPU: they take turns, stopped
 *          (values must be exact) or counting (what a turn adds is known), run
 *          freely and preempt each other, or swap two CPUs
 *   pmi    an overflow interrupts the vCPU it belongs to, once
 *
 * With the emulated vPMU no vCPU has PERF_METRICS or fixed counter 3; the rest
 * of the test is the same.
 */
#include <semaphore.h>
#include <signal.h>

#include "pmu_topdown.h"

/* Cheap enough to not dominate a turn, and far more than what an exit takes. */
#define TURN_LOOPS		200
/* What retire() executes per loop. */
#define RETIRE_INSNS		(32 * 4 + 2)

enum mode {
	/* Take turns: values stand still, or count. */
	STAND_STILL,
	COUNT,
	/* Don't exit; do both until told otherwise. */
	RUN_FREELY,
	/* Have nothing on, and nothing but zeroes. */
	REST,
};

/* What guest code has to know of its vCPU, and what the host may know of it. */
struct vcpu_info {
	u64 id;
	u64 rounds;
	u32 mode;
	u8 version;
	u8 nr_gp;
	u8 nr_fixed;
	bool has_metrics;
};

#define MAX_VCPUS	NR_VCPU_KINDS

static struct vcpu_info infos[MAX_VCPUS];

/* Guest: what the vCPU has, all values of it telling of whom they are. */

static u64 own_counter(struct vcpu_info *me, int i)
{
	return 0x1000000 + me->id * 0x10000 + i * 0x100;
}

static u64 own_slots(struct vcpu_info *me)
{
	return PATTERN_SLOTS + 255 * me->id;
}

/* Add to "retiring" and take from "bad speculation", so that the sum stays. */
static u64 own_metrics(struct vcpu_info *me)
{
	return PATTERN_METRICS - (me->id << 8) + me->id;
}

static u64 all_enables(struct vcpu_info *me)
{
	u64 enables = GENMASK_ULL(me->nr_gp - 1, 0);
	int i;

	for (i = 0; i < me->nr_fixed; i++)
		enables |= FIXED_PMC_GLOBAL_CTRL_ENABLE(i);
	return enables | (me->has_metrics ? PMU_GLOBAL_CTRL_PERF_METRICS : 0);
}

static u64 all_fixed_ctrl(struct vcpu_info *me)
{
	u64 ctrl = 0;
	int i;

	for (i = 0; i < me->nr_fixed; i++)
		ctrl |= FIXED_PMC_CTRL(i, FIXED_PMC_KERNEL);
	return ctrl;
}

/* Nothing counts because of one enable or the other, or neither is set. */
static u64 still_global_ctrl(struct vcpu_info *me)
{
	return me->id % 3 == 1 ? all_enables(me) : 0;
}

static u64 still_fixed_ctrl(struct vcpu_info *me)
{
	return me->id % 3 == 2 ? all_fixed_ctrl(me) : 0;
}

static bool has_slots(struct vcpu_info *me)
{
	return me->nr_fixed > 3;
}

static void stop_own(struct vcpu_info *me)
{
	if (me->version >= 2) {
		wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
		wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, 0);
	}
	if (me->version)
		wrmsr(MSR_P6_EVNTSEL0, 0);
}

static void write_own(struct vcpu_info *me)
{
	int i;

	stop_own(me);
	for (i = 0; i < me->nr_gp; i++)
		wrmsr(MSR_IA32_PERFCTR0 + i, own_counter(me, i));
	for (i = 0; i < me->nr_fixed; i++)
		wrmsr(MSR_CORE_PERF_FIXED_CTR0 + i,
		      i == 3 ? own_slots(me) : own_counter(me, 32 + i));
	if (me->has_metrics)
		wrmsr(MSR_PERF_METRICS, own_metrics(me));
	if (me->version >= 2) {
		wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, still_fixed_ctrl(me));
		wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, still_global_ctrl(me));
	}
}

static void assert_own(const char *what, u32 index, u64 val, u64 own, u64 id)
{
	__GUEST_ASSERT(val == own, "vCPU %lu: %s(0x%x) is 0x%lx, its own is 0x%lx",
		       id, what, index, val, own);
}

static void check_own(struct vcpu_info *me)
{
	u64 val;
	int i;

	for (i = 0; i < me->nr_gp; i++)
		assert_own("RDPMC", i, rdpmc(i), own_counter(me, i), me->id);
	for (i = 0; i < me->nr_fixed; i++)
		assert_own("RDPMC", INTEL_RDPMC_FIXED | i, rdpmc(INTEL_RDPMC_FIXED | i),
			   i == 3 ? own_slots(me) : own_counter(me, 32 + i), me->id);
	if (has_slots(me)) {
		val = rdmsr(MSR_CORE_PERF_FIXED_CTR3);
		assert_own("RDMSR", MSR_CORE_PERF_FIXED_CTR3, val, own_slots(me), me->id);
	}
	if (me->has_metrics) {
		val = rdpmc(RDPMC_METRICS);
		assert_own("RDPMC", RDPMC_METRICS, val, own_metrics(me), me->id);
		val = rdmsr(MSR_PERF_METRICS);
		assert_own("RDMSR", MSR_PERF_METRICS, val, own_metrics(me), me->id);
	}
	if (me->version >= 2) {
		val = rdmsr(MSR_CORE_PERF_FIXED_CTR_CTRL);
		assert_own("RDMSR", MSR_CORE_PERF_FIXED_CTR_CTRL, val,
			   still_fixed_ctrl(me), me->id);
		val = rdmsr(MSR_CORE_PERF_GLOBAL_CTRL);
		assert_own("RDMSR", MSR_CORE_PERF_GLOBAL_CTRL, val,
			   still_global_ctrl(me), me->id);
	}
}

/* Overflows that others had: no vCPU has one in this test, but for its mark. */
static void check_status(struct vcpu_info *me)
{
	u64 mark = me->id & 1;

	if (me->id & 2 && me->has_metrics)
		mark |= PMU_GLOBAL_CTRL_PERF_METRICS;
	if (me->version >= 2)
		assert_own("RDMSR", MSR_CORE_PERF_GLOBAL_STATUS,
			   rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), mark, me->id);
}

static void check_absent_rdpmc(u32 index)
{
	u64 val;

	assert_gp(rdpmc_safe(index, &val), "RDPMC", index);
}

static void check_absent_bits(u32 msr, u64 bits)
{
	assert_gp(wrmsr_safe(msr, bits), "WRMSR", msr);
}

/* What the vCPU doesn't have isn't there, e.g. as left behind by a neighbour. */
static void check_absent(struct vcpu_info *me)
{
	u64 val;

	check_absent_rdpmc(me->nr_gp);
	check_absent_rdpmc(INTEL_RDPMC_FIXED | me->nr_fixed);
	if (!has_slots(me)) {
		check_absent_rdpmc(RDPMC_SLOTS);
		assert_gp(rdmsr_safe(MSR_CORE_PERF_FIXED_CTR3, &val), "RDMSR",
			  MSR_CORE_PERF_FIXED_CTR3);
		check_absent_bits(MSR_CORE_PERF_GLOBAL_CTRL, SLOTS_ENABLE);
	}
	if (!me->has_metrics) {
		check_absent_rdpmc(RDPMC_METRICS);
		assert_gp(rdmsr_safe(MSR_PERF_METRICS, &val), "RDMSR", MSR_PERF_METRICS);
		check_absent_bits(MSR_CORE_PERF_GLOBAL_CTRL, PMU_GLOBAL_CTRL_PERF_METRICS);
		check_absent_bits(MSR_CORE_PERF_GLOBAL_OVF_CTRL,
				  PMU_GLOBAL_CTRL_PERF_METRICS);
	}
}

/* Guest: turns. */

struct counts {
	u64 insns;
	u64 slots;
	u64 metrics;
};

static void read_counts(struct vcpu_info *me, struct counts *counts)
{
	counts->insns = rdpmc(me->version >= 2 ? INTEL_RDPMC_FIXED : 0);
	counts->slots = has_slots(me) ? rdpmc(RDPMC_SLOTS) : 0;
	counts->metrics = me->has_metrics ? rdpmc(RDPMC_METRICS) : 0;
}

static void start_own(struct vcpu_info *me)
{
	int i;

	stop_own(me);
	wrmsr(MSR_IA32_PERFCTR0, 0);
	if (me->version < 2) {
		wrmsr(MSR_P6_EVNTSEL0, ARCH_PERFMON_EVENTSEL_ENABLE |
		      ARCH_PERFMON_EVENTSEL_OS | INTEL_ARCH_INSTRUCTIONS_RETIRED);
		return;
	}

	for (i = 0; i < me->nr_fixed; i++)
		wrmsr(MSR_CORE_PERF_FIXED_CTR0 + i, 0);
	if (me->has_metrics)
		wrmsr(MSR_PERF_METRICS, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, all_fixed_ctrl(me));
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, all_enables(me));
}

/*
 * Work that differs in its fractions, so that a neighbour's slots show in one's
 * own: all of it also retires the instructions of @loops.
 */
static void work(struct vcpu_info *me, int loops)
{
	if (me->id & 1)
		mispredict(loops);
	retire(loops);
}

/* At least the loop, and at most half as much again for reading it. */
static void check_work(struct vcpu_info *me, struct counts *counts, int loops)
{
	u64 insns = (u64)loops * RETIRE_INSNS;
	u64 max = insns + insns / 2;

	if (me->id & 1)
		max += loops * 20;
	__GUEST_ASSERT(counts->insns >= insns && counts->insns <= max,
		       "vCPU %lu counted %lu instructions, want %lu to %lu",
		       me->id, counts->insns, insns, max);
	if (has_slots(me))
		__GUEST_ASSERT(counts->slots >= insns,
			       "vCPU %lu counted %lu slots in %lu instructions",
			       me->id, counts->slots, insns);
}

/*
 * Between two reads of counter 3, @added slots went by, and each category got
 * none of them, all of them, or something in between.  The comparison is in
 * 1/255 slots, as the fields are, and a field is off by less than one for each
 * read and each of the two switches that can have rounded it.
 */
static void check_field(struct vcpu_info *me, struct counts *before,
			struct counts *after, int idx)
{
	s64 rounding = 4 * after->slots;
	s64 was = field(before->metrics, idx) * before->slots;
	s64 is = field(after->metrics, idx) * after->slots;
	s64 added = 255 * (after->slots - before->slots);

	__GUEST_ASSERT(is >= was - rounding && is <= was + added + rounding,
		       "vCPU %lu: PERF_METRICS 0x%lx of %lu slots became 0x%lx of %lu slots",
		       me->id, before->metrics, before->slots, after->metrics,
		       after->slots);
}

/*
 * A turn of the neighbour took at least as many instructions as ours, which mustn't
 * show.  An exit costs slots as well, many of them if caches are cold, and what
 * they are good for doesn't matter.
 */
#define EXIT_SLOTS_FACTOR	16

static void check_exit(struct vcpu_info *me, struct counts *before,
		       struct counts *after)
{
	int i;

	__GUEST_ASSERT(after->insns >= before->insns &&
		       after->insns - before->insns < before->insns / 2,
		       "vCPU %lu: %lu instructions before the exit, %lu after",
		       me->id, before->insns, after->insns);
	if (has_slots(me))
		__GUEST_ASSERT(after->slots >= before->slots &&
			       after->slots - before->slots <
			       EXIT_SLOTS_FACTOR * before->slots,
			       "vCPU %lu: %lu slots before the exit, %lu after",
			       me->id, before->slots, after->slots);
	if (me->has_metrics) {
		assert_sum(before->metrics, 0);
		assert_sum(after->metrics, 1);
		for (i = RETIRING; i <= BE_BOUND; i++)
			check_field(me, before, after, i);
	}
}

static void take_counting_turn(struct vcpu_info *me)
{
	struct counts before, after;

	if (!me->version) {
		work(me, TURN_LOOPS);
		GUEST_SYNC(COUNT);
		return;
	}

	start_own(me);
	work(me, TURN_LOOPS);
	read_counts(me, &before);
	GUEST_SYNC(COUNT);
	read_counts(me, &after);
	check_work(me, &before, TURN_LOOPS);
	check_exit(me, &before, &after);
}

static void take_still_turn(struct vcpu_info *me)
{
	write_own(me);
	GUEST_SYNC(STAND_STILL);
	check_own(me);
}

/* So is a vCPU at first.  What isn't written, as it is zero, must be cleared. */
static void check_zeroes(struct vcpu_info *me)
{
	int i;

	for (i = 0; i < me->nr_gp; i++)
		assert_own("RDPMC", i, rdpmc(i), 0, me->id);
	for (i = 0; i < me->nr_fixed; i++)
		assert_own("RDPMC", INTEL_RDPMC_FIXED | i,
			   rdpmc(INTEL_RDPMC_FIXED | i), 0, me->id);
	if (me->has_metrics)
		assert_own("RDPMC", RDPMC_METRICS, rdpmc(RDPMC_METRICS), 0, me->id);
}

static void rest(struct vcpu_info *me)
{
	int i;

	stop_own(me);
	for (i = 0; i < me->nr_gp; i++)
		wrmsr(MSR_IA32_PERFCTR0 + i, 0);
	for (i = 0; i < me->nr_fixed; i++)
		wrmsr(MSR_CORE_PERF_FIXED_CTR0 + i, 0);
	if (me->has_metrics)
		wrmsr(MSR_PERF_METRICS, 0);
	GUEST_SYNC(REST);
	check_zeroes(me);
}

/* Short, so that few switches fall into it, as each may round the metrics. */
#define FREE_LOOPS	40

static void run_freely(struct vcpu_info *me)
{
	struct counts counts;

	write_own(me);
	retire(FREE_LOOPS);
	check_own(me);

	if (me->version) {
		start_own(me);
		work(me, FREE_LOOPS);
		read_counts(me, &counts);
		check_work(me, &counts, FREE_LOOPS);
		if (me->has_metrics)
			assert_sum(counts.metrics, 4);
	}
}

static void guest_main(u64 index)
{
	struct vcpu_info *me = &infos[index];

	check_zeroes(me);
	for (;;) {
		switch (READ_ONCE(me->mode)) {
		case STAND_STILL:
			take_still_turn(me);
			break;
		case COUNT:
			take_counting_turn(me);
			break;
		case RUN_FREELY:
			run_freely(me);
			break;
		default:
			rest(me);
			break;
		}
		check_status(me);
		check_absent(me);
		WRITE_ONCE(me->rounds, me->rounds + 1);
	}
}

/* The host's perf on fixed counter 3 without metrics, counting or sampling. */

enum host_event {
	NO_EVENT,
	TOPDOWN_GROUP,
	PLAIN_SLOTS,
	SAMPLED_SLOTS,
};

/* Often enough to have some samples, and seldom enough not to be throttled. */
#define SLOTS_PERIOD	500000

struct slots_event {
	int fd;
	u64 slots;
	struct perf_event_mmap_page *page;
};

static void open_slots(struct slots_event *event, u64 period)
{
	event->fd = open_event(SLOTS_EVENT, -1, period);
	event->slots = 0;
	event->page = NULL;
	if (period) {
		event->page = mmap(NULL, 2 * getpagesize(), PROT_READ, MAP_SHARED,
				   event->fd, 0);
		TEST_ASSERT(event->page != MAP_FAILED, "Mapping the event failed");
	}
	TEST_ASSERT(!ioctl(event->fd, PERF_EVENT_IOC_ENABLE, 0),
		    "Enabling the event failed");
}

static u64 read_slots(struct slots_event *event)
{
	struct {
		u64 nr;
		u64 slots;
	} values;

	TEST_ASSERT(read(event->fd, &values, sizeof(values)) == sizeof(values) &&
		    values.nr == 1, "Reading the event failed");
	return values.slots;
}

/*
 * What is counted per turn is more than the loop, and less than what the guests
 * have in their counters.
 */
static void check_slots(struct slots_event *event)
{
	u64 slots;

	retire(20);
	slots = read_slots(event);
	TEST_ASSERT(slots >= event->slots + 20 * RETIRE_INSNS &&
		    slots < event->slots + PATTERN_SLOTS,
		    "The host has %lu slots after it had %lu", slots, event->slots);
	event->slots = slots;
}

/* A sample has nothing but its header.  Some may be missing, if throttled. */
static void check_samples(struct slots_event *event)
{
	u64 head = READ_ONCE(event->page->data_head);
	u64 samples = head / sizeof(struct perf_event_header);
	u64 slots = read_slots(event);

	TEST_ASSERT(samples <= slots / SLOTS_PERIOD + 1 &&
		    (samples || slots < 2 * SLOTS_PERIOD),
		    "The host has %lu samples of %lu slots, one for %u", samples,
		    slots, SLOTS_PERIOD);
}

/* Host: two threads, each of which has a vCPU of each kind. */

struct worker {
	/* One with a PMU, one without. */
	struct kvm_vm *vms[2];
	struct kvm_vcpu *vcpus[NR_VCPU_KINDS];
	struct vcpu_info infos[NR_VCPU_KINDS];

	/* What to run now. */
	struct kvm_vcpu *vcpu;
	struct vcpu_info *info;

	pthread_t thread;
	sem_t go, done;
	enum host_event host_event;
	bool may_rdpmc;
	bool quit;
	u64 interrupted;
	u64 turns;
	struct topdown_group group;
	struct slots_event slots;
};

/*
 * Host user mode, in between: of the guest's, nothing.  Without perf events of
 * one's own, that is zero or what was there before the vCPU ran, as KVM doesn't
 * touch what the vCPU doesn't have.
 */
static void check_host_rdpmc(struct worker *worker, u32 index, u64 before)
{
	u64 val = raw_rdpmc(index);

	TEST_ASSERT(!val || val == before,
		    "Host user mode reads 0x%lx from RDPMC(0x%x) after vCPU %lu ran, want 0 or 0x%lx",
		    val, index, worker->info->id, before);
}

/* Signals and the neighbour interrupt it: go on until the guest has news. */
static void run_interrupted(struct worker *worker)
{
	struct kvm_vcpu *vcpu = worker->vcpu;
	struct ucall uc;

	while (__vcpu_run(vcpu)) {
		TEST_ASSERT(errno == EINTR, "KVM_RUN failed, errno %d", errno);
		worker->interrupted++;
		sched_yield();
	}
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, UCALL_SYNC);
}

static void run_turn(struct worker *worker)
{
	u64 slots = 0, metrics = 0;

	if (worker->may_rdpmc) {
		slots = raw_rdpmc(RDPMC_SLOTS);
		metrics = raw_rdpmc(RDPMC_METRICS);
	}
	run_interrupted(worker);
	worker->turns++;
	if (worker->may_rdpmc) {
		check_host_rdpmc(worker, RDPMC_SLOTS, slots);
		check_host_rdpmc(worker, RDPMC_METRICS, metrics);
	}
	if (worker->host_event == TOPDOWN_GROUP)
		check_topdown(&worker->group);
	else if (worker->host_event)
		check_slots(&worker->slots);
}

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem))
		TEST_ASSERT(errno == EINTR, "sem_wait() failed, errno %d", errno);
}

static void *work_for_test(void *data)
{
	struct worker *worker = data;

	if (worker->host_event == TOPDOWN_GROUP)
		open_topdown(&worker->group);
	else if (worker->host_event)
		open_slots(&worker->slots,
			   worker->host_event == SAMPLED_SLOTS ? SLOTS_PERIOD : 0);
	for (;;) {
		wait_for(&worker->go);
		if (worker->quit)
			return NULL;
		run_turn(worker);
		sem_post(&worker->done);
	}
}

static void ignore_signal(int sig)
{
}

/* Every pair of kinds: one of the first thread, the other of the second one. */

FIXTURE(pairs) {
	struct worker workers[2];
	int cpu;
};

FIXTURE_VARIANT(pairs) {
	enum host_event host_event;
	bool host_rdpmc;
};

/* A host that may execute RDPMC has KVM leave nothing behind, hence not always. */
FIXTURE_VARIANT_ADD(pairs, alone) { .host_event = NO_EVENT };
FIXTURE_VARIANT_ADD(pairs, host_perf) { .host_event = TOPDOWN_GROUP };
FIXTURE_VARIANT_ADD(pairs, host_slots) { .host_event = PLAIN_SLOTS };
FIXTURE_VARIANT_ADD(pairs, host_samples) { .host_event = SAMPLED_SLOTS };
FIXTURE_VARIANT_ADD(pairs, host_rdpmc) { .host_rdpmc = true };

static void fill_info(struct vcpu_info *info, struct kvm_vcpu *vcpu, int side,
		      enum vcpu_kind kind)
{
	u8 nr_gp = kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);

	info->id = 2 * kind + side;
	info->has_metrics = kind_has_metrics(kind);
	if (kind == VERSION_0 || kind == PMU_DISABLED)
		return;

	info->version = kind == VERSION_1 ? 1 : 2;
	info->nr_gp = nr_gp - (kind == FEWER_GP);
	if (info->version == 1)
		return;

	info->nr_fixed = facts.nr_fixed;
	if (!kind_has_slots(kind) && info->nr_fixed > 3)
		info->nr_fixed = 3;
	vcpu_set_msr(vcpu, MSR_CORE_PERF_GLOBAL_STATUS, (info->id & 1) |
		     (info->id & 2 && info->has_metrics ? PMU_GLOBAL_CTRL_PERF_METRICS : 0));
}

static struct vcpu_info *guest_info(struct kvm_vcpu *vcpu)
{
	struct vcpu_info *first = addr_gva2hva(vcpu->vm, (gva_t)infos);

	return &first[vcpu->id];
}

static void create_vcpus(struct worker *worker, int side)
{
	struct kvm_vcpu *vcpu;
	int kind, id;

	worker->vms[0] = create_vm(FULL, PMU_DISABLED);
	worker->vms[1] = can_disable_pmu() ? create_vm(PMU_DISABLED, 1) : NULL;

	for (kind = FULL; kind < NR_VCPU_KINDS; kind++) {
		if (kind == PMU_DISABLED && !worker->vms[1])
			break;

		id = kind % PMU_DISABLED;
		vcpu = add_vcpu(worker->vms[kind == PMU_DISABLED], id, kind);
		fill_info(&worker->infos[kind], vcpu, side, kind);
		start_guest(vcpu, guest_main);
		vcpu_args_set(vcpu, 1, (u64)id);
		*guest_info(vcpu) = worker->infos[kind];
		worker->vcpus[kind] = vcpu;
	}
}

FIXTURE_SETUP(pairs)
{
	int i;

	if (variant->host_event)
		REQUIRE(facts.host_metrics, "The host's perf has no PERF_METRICS");

	self->cpu = pin_self_to_any_cpu();
	if (variant->host_rdpmc) {
		REQUIRE(facts.host_metrics, "The host's perf has no PERF_METRICS");
		REQUIRE(allow_host_rdpmc(), "perf doesn't let user mode execute RDPMC");
		REQUIRE(!host_counts_slots(), "Somebody counts slots on the host");
	}
	signal(SIGUSR1, ignore_signal);

	for (i = 0; i < 2; i++) {
		create_vcpus(&self->workers[i], i);
		self->workers[i].host_event = variant->host_event;
		self->workers[i].may_rdpmc = variant->host_rdpmc;
		sem_init(&self->workers[i].go, 0, 0);
		sem_init(&self->workers[i].done, 0, 0);
		/* The threads inherit this one's CPU. */
		TEST_ASSERT(!pthread_create(&self->workers[i].thread, NULL,
					    work_for_test, &self->workers[i]),
			    "pthread_create() failed");
	}
}

FIXTURE_TEARDOWN(pairs)
{
	int i;

	for (i = 0; i < 2; i++) {
		self->workers[i].quit = true;
		sem_post(&self->workers[i].go);
		pthread_join(self->workers[i].thread, NULL);
		if (variant->host_event == SAMPLED_SLOTS)
			check_samples(&self->workers[i].slots);
		kvm_vm_free(self->workers[i].vms[0]);
		if (self->workers[i].vms[1])
			kvm_vm_free(self->workers[i].vms[1]);
	}
	TH_LOG("%lu turns, %lu interrupted", self->workers[0].turns + self->workers[1].turns,
	       self->workers[0].interrupted + self->workers[1].interrupted);
}

static void set_mode(struct worker *worker, enum mode mode)
{
	WRITE_ONCE(guest_info(worker->vcpu)->mode, mode);
}

static void take_turn(struct worker *worker)
{
	sem_post(&worker->go);
	wait_for(&worker->done);
}

/* Both orders of a pair are the same, as the vCPUs take turns. */
static void test_each_pair(struct worker workers[2],
			   void (*test)(struct worker workers[2], void *data),
			   void *data)
{
	enum vcpu_kind i, j;

	for (i = FULL; i < NR_VCPU_KINDS; i++) {
		for (j = i; j < NR_VCPU_KINDS; j++) {
			workers[0].vcpu = workers[0].vcpus[i];
			workers[0].info = &workers[0].infos[i];
			workers[1].vcpu = workers[1].vcpus[j];
			workers[1].info = &workers[1].infos[j];
			if (workers[0].vcpu && workers[1].vcpu)
				test(workers, data);
		}
	}
}

#define TURNS	8

static void take_turns(struct worker workers[2], void *data)
{
	enum mode mode = *(enum mode *)data;
	int turn, i;

	for (turn = 0; turn <= TURNS; turn++) {
		for (i = 0; i < 2; i++) {
			set_mode(&workers[i], turn < TURNS ? mode : REST);
			take_turn(&workers[i]);
		}
	}
}

TEST_F(pairs, stand_still)
{
	enum mode mode = STAND_STILL;

	test_each_pair(self->workers, take_turns, &mode);
}

TEST_F(pairs, count)
{
	enum mode mode = COUNT;

	test_each_pair(self->workers, take_turns, &mode);
}

/*
 * Let both vCPUs run, without exits of their own, and disturb them.  This thread
 * shares the CPU, and so can go on only if it preempts one of them.
 */
#define MIN_ROUNDS	2

static u64 rounds(struct worker *worker)
{
	return READ_ONCE(guest_info(worker->vcpu)->rounds);
}

struct disturbance {
	void (*disturb)(struct worker workers[2], int i, int cpus[2]);
	int times;
	int cpus[2];
};

static void run_both_freely(struct worker workers[2], void *data)
{
	struct disturbance *disturbance = data;
	const struct timespec pause = { .tv_nsec = 20000 };
	u64 goal[2];
	int i;

	for (i = 0; i < 2; i++) {
		goal[i] = rounds(&workers[i]) + MIN_ROUNDS;
		set_mode(&workers[i], RUN_FREELY);
		sem_post(&workers[i].go);
	}
	for (i = 0; i < disturbance->times || rounds(&workers[0]) < goal[0] ||
	     rounds(&workers[1]) < goal[1]; i++) {
		nanosleep(&pause, NULL);
		disturbance->disturb(workers, i, disturbance->cpus);
	}
	for (i = 0; i < 2; i++) {
		set_mode(&workers[i], REST);
		wait_for(&workers[i].done);
	}
}

static void interrupt_one(struct worker workers[2], int i, int cpus[2])
{
	pthread_kill(workers[i % 2].thread, SIGUSR1);
}

TEST_F(pairs, run_freely)
{
	struct disturbance signals = { .disturb = interrupt_one, .times = 16 };

	test_each_pair(self->workers, run_both_freely, &signals);
	TEST_ASSERT(self->workers[0].interrupted && self->workers[1].interrupted,
		    "No signal interrupted a vCPU");
}

static void swap_cpus(struct worker workers[2], int i, int cpus[2])
{
	pin_task_to_cpu(workers[0].thread, cpus[i % 2]);
	pin_task_to_cpu(workers[1].thread, cpus[(i + 1) % 2]);
}

TEST_F(pairs, swap_cpus)
{
	struct disturbance swaps = { .disturb = swap_cpus, .times = 5 };
	cpu_set_t allowed;

	TEST_ASSERT(!sched_getaffinity(getppid(), sizeof(allowed), &allowed),
		    "sched_getaffinity() failed");
	REQUIRE(CPU_COUNT(&allowed) >= 2, "One CPU only, need two");

	swaps.cpus[0] = self->cpu;
	swaps.cpus[1] = next_allowed_cpu(&allowed, self->cpu);
	test_each_pair(self->workers, run_both_freely, &swaps);
}

int main(int argc, char *argv[])
{
	require_pmu();

	return test_harness_run(argc, argv);
}
