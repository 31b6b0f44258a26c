// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that counts topdown over so many VM exits, between two reads, while its
 * behaviour changes in a known way; lab/judge/curve.c compares what it reads with
 * the ground truth.
 *
 *	precision [-k EXITS] [-n NEIGHBOUR] [-u SLOTS] SHAPE EXITS...
 *
 * For each EXITS the guest clears counter 3 and PERF_METRICS, counts a unit of
 * work, leaves by CPUID, and so on so many times, stops counting, reads. SHAPE is
 * what the units are:
 *
 *	constant	all the same, a mix
 *	step		of one kind, after half of the exits of another
 *	short		in turns of four exits
 *	long		in turns of a tenth of all exits
 *	burst		of one kind, but each 50th, from the 25th on, of another
 *
 *	-k EXITS	another vCPU, of another VM, runs for a unit after each of
 *			so many exits, on the same CPU
 *	-n NEIGHBOUR	it uses topdown, or is idle, i.e. does not use its PMU, or is
 *			without one (topdown)
 *	-u SLOTS	of a unit, about, in the model of lab/model/slots.c for
 *			icelake (10000)
 *
 * Prints for each EXITS, in one line,
 *
 *	precision: shape=SHAPE neighbour=NEIGHBOUR every=K exits=EXITS mark=NUMBER
 *		slots=SLOTS metrics=METRICS
 *
 * with the number of the first of two marks, what counter 3 and PERF_METRICS were.
 * Exits with 4 (KSFT_SKIP) if KVM lacks PERF_METRICS.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvm_util.h"
#include "pmu.h"
#include "processor.h"

#include "../../host/mark.h"

#define UNIT		10000	/* slots */
#define PORT		0x80	/* nobody is there: userspace is told of each OUT */
#define MAX_POINTS	32
/* Pages of the guest get mapped, and predictors learn, before the first mark. */
#define WARM_UP		64

#define RDPMC_SLOTS		((u32)(INTEL_RDPMC_FIXED | 3))
#define RDPMC_METRICS		((u32)INTEL_RDPMC_METRICS)

static const char *const shapes[] = { "constant", "step", "short", "long", "burst" };
enum shape { CONSTANT, STEP, SHORT, LONG, BURST, NR_SHAPES };

static const char *const neighbours[] = { "none", "topdown", "idle", "without" };
enum neighbour { NONE, TOPDOWN, IDLE, WITHOUT, NR_NEIGHBOURS };

struct result {
	u64 slots;
	u64 metrics;
};

/* For the guest, and from it. */
static struct {
	enum shape shape;
	u64 unit;
	u64 every;
	u64 number;
	u64 nr_points;
	u64 exits[MAX_POINTS];
	struct result result[MAX_POINTS];
} plan;

/* Guest: work, whose length is in the model's slots for icelake. */

/* 64 instructions that do not wait for each other, and two of the loop: 91 slots. */
static void retire(u64 slots)
{
	u64 i;

	for (i = 0; i < slots / 91; i++)
		asm volatile(".rept 16\n\t"
			     "add $1, %%rax\n\t"
			     "add $1, %%rdx\n\t"
			     "add $1, %%rsi\n\t"
			     "add $1, %%rdi\n\t"
			     ".endr"
			     : : : "rax", "rdx", "rsi", "rdi", "cc");
}

/*
 * A branch on a random bit (xorshift64, Marsaglia 2003), mispredicted each second
 * time: some 15 instructions, two branches, 20 slots lost, about 42 in all.
 */
static void mispredict(u64 slots)
{
	static u64 x = 88172645463325252ull;
	u64 i;

	for (i = 0; i < slots / 42; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		asm volatile("testb $1, %b0\n\tjz 1f\n\tnop\n1:" : : "q"(x) : "cc");
	}
}

/* A line that is not in any cache: 200 slots and some ten for the instructions. */
static void miss_caches(u64 slots)
{
	static u64 line[8] __attribute__((aligned(64)));
	u64 i;

	for (i = 0; i < slots / 210; i++)
		asm volatile("clflush %0\n\tmov %0, %%rax" : : "m"(line[0]) : "rax", "memory");
}

/* The usual kind, and the other one that shapes change to. */
static void usual(u64 slots)
{
	retire(slots * 3 / 5);
	mispredict(slots / 5);
	miss_caches(slots / 5);
}

static void other(u64 slots)
{
	mispredict(slots * 3 / 5);
	miss_caches(slots * 2 / 5);
}

static bool is_other(enum shape shape, u64 i, u64 n)
{
	switch (shape) {
	case STEP:
		return i >= n / 2;
	case SHORT:
		return i / 4 % 2;
	case LONG:
		return i * 10 / n % 2;
	case BURST:
		return i % 50 == 24;
	default:
		return false;
	}
}

static void leave(u64 i, u64 every)
{
	u32 eax = 0, ecx = 0;

	if (every && i % every == every - 1)
		asm volatile("outb %%al, %0" : : "N"(PORT), "a"(0) : "memory");
	else
		asm volatile("cpuid" : "+a"(eax), "+c"(ecx) : : "ebx", "edx", "memory");
}

static void run_units(enum shape shape, u64 n)
{
	u64 i;

	for (i = 0; i < n; i++) {
		if (is_other(shape, i, n))
			other(plan.unit);
		else
			usual(plan.unit);
		leave(i, plan.every);
	}
}

static u64 read_pmc(u32 index)
{
	u32 eax, edx;

	asm volatile("rdpmc" : "=a"(eax), "=d"(edx) : "c"(index));
	return (u64)edx << 32 | eax;
}

static void clear(void)
{
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR3, 0);
	wrmsr(MSR_PERF_METRICS, 0);
	wrmsr(MSR_CORE_PERF_FIXED_CTR_CTRL, FIXED_PMC_CTRL(3, FIXED_PMC_KERNEL));
}

static void start(void)
{
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL,
	      FIXED_PMC_GLOBAL_CTRL_ENABLE(3) | PMU_GLOBAL_CTRL_PERF_METRICS);
}

/* Nothing counts at the marks, so that exactly what is between them counts. */
static void measure(u64 point)
{
	struct result *result = &plan.result[point];

	clear();
	mark(plan.number + 2 * point);
	start();
	run_units(plan.shape, plan.exits[point]);
	wrmsr(MSR_CORE_PERF_GLOBAL_CTRL, 0);
	mark(plan.number + 2 * point + 1);
	result->slots = read_pmc(RDPMC_SLOTS);
	result->metrics = read_pmc(RDPMC_METRICS);
}

static void guest_code(void)
{
	u64 i;

	run_units(LONG, WARM_UP);
	for (i = 0; i < plan.nr_points; i++)
		measure(i);
	GUEST_DONE();
}

static void neighbour_code(enum neighbour kind)
{
	if (kind == TOPDOWN) {
		clear();
		start();
	}
	for (;;) {
		other(plan.unit);
		leave(0, 1);
	}
}

/* Until the next OUT, or the end; says which. */
static bool run(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	if (vcpu->run->exit_reason == KVM_EXIT_IO && vcpu->run->io.port == PORT)
		return true;
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT(uc.cmd == UCALL_DONE, "Unexpected ucall: %lu", uc.cmd);
	return false;
}

/* KVM gives PERF_METRICS only to who asks for it. */
static void set_capabilities(struct kvm_vcpu *vcpu)
{
	vcpu_set_msr(vcpu, MSR_IA32_PERF_CAPABILITIES,
		     kvm_get_feature_msr(MSR_IA32_PERF_CAPABILITIES));
}

static struct kvm_vcpu *create_neighbour(enum neighbour kind)
{
	struct kvm_vm *vm = vm_create(1);
	struct kvm_vcpu *vcpu;

	if (kind == WITHOUT)
		vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
	vcpu = vm_vcpu_add(vm, 0, neighbour_code);
	if (kind != WITHOUT)
		set_capabilities(vcpu);
	vcpu_args_set(vcpu, 1, kind);
	sync_global_to_guest(vm, plan);
	return vcpu;
}

static enum neighbour find_neighbour(const char *name)
{
	enum neighbour kind;

	for (kind = TOPDOWN; kind < NR_NEIGHBOURS; kind++)
		if (!strcmp(name, neighbours[kind]))
			return kind;
	TEST_FAIL("%s: must be topdown, idle or without", name);
	return NONE;
}

static u64 number(const char *text)
{
	char *end;
	u64 value = strtoull(text, &end, 0);

	TEST_ASSERT(value && !*end, "%s: must be a number, from 1 on", text);
	return value;
}

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpu, *neighbour = NULL;
	enum neighbour kind = TOPDOWN;
	int option;
	u64 i;

	plan.unit = UNIT;
	while ((option = getopt(argc, argv, "k:n:u:")) >= 0) {
		switch (option) {
		case 'k':
			plan.every = number(optarg);
			break;
		case 'n':
			kind = find_neighbour(optarg);
			break;
		case 'u':
			plan.unit = number(optarg);
			break;
		default:
			return 2;
		}
	}
	while (optind < argc && plan.shape < NR_SHAPES &&
	       strcmp(argv[optind], shapes[plan.shape]))
		plan.shape++;
	if (optind + 1 >= argc || plan.shape == NR_SHAPES || argc - optind - 1 > MAX_POINTS) {
		fprintf(stderr, "usage: precision [-k EXITS] [-n NEIGHBOUR] [-u SLOTS] SHAPE EXITS...\n");
		return 2;
	}
	for (i = optind + 1; i < (u64)argc; i++)
		plan.exits[plan.nr_points++] = number(argv[i]);

	TEST_REQUIRE(kvm_is_pmu_enabled());
	__TEST_REQUIRE(kvm_get_feature_msr(MSR_IA32_PERF_CAPABILITIES) & PMU_CAP_PERF_METRICS,
		       "missing: PERF_METRICS");

	/* No other measurement of this boot has these numbers. */
	plan.number = __builtin_ia32_rdtsc() & ~1ull;
	vm_create_with_one_vcpu(&vcpu, guest_code);
	set_capabilities(vcpu);
	sync_global_to_guest(vcpu->vm, plan);
	if (plan.every)
		neighbour = create_neighbour(kind);
	else
		kind = NONE;
	while (run(vcpu))
		run(neighbour);
	sync_global_from_guest(vcpu->vm, plan);
	for (i = 0; i < plan.nr_points; i++)
		printf("precision: shape=%s neighbour=%s every=%lu exits=%lu mark=%lu slots=%lu metrics=0x%lx\n",
		       shapes[plan.shape], neighbours[kind], plan.every, plan.exits[i],
		       plan.number + 2 * i, plan.result[i].slots, plan.result[i].metrics);
	return 0;
}
