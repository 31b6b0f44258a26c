// SPDX-License-Identifier: GPL-2.0
/*
 * The demonstration: a guest that counts TOPDOWN.SLOTS with fixed counter 3
 * and reads the level 1 fractions from IA32_PERF_METRICS.
 *
 * A virtual machine monitor of one file: /dev/kvm and nothing else.  The
 * guest's code (topdown-payload.c) is part of this program and runs at the
 * addresses it has here: the program's own memory is the guest's.  What the
 * guest may use is what KVM offers by itself (KVM_GET_SUPPORTED_CPUID and the
 * default IA32_PERF_CAPABILITIES): nothing is forced.
 *
 * Prints a line per workload and exits with 0; with 4 (a kselftest's skip)
 * and one line "missing: ..." where the feature is not offered; with 1 where
 * anything else is wrong.  lab/run/table sets the ground truth beside it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "topdown.h"

#define SKIP		4
#define PAGE		4096ul
#define HUGE		(2ul << 20)
#define MEDIATED	"/sys/module/kvm_intel/parameters/enable_mediated_pmu"

/* Guest physical memory beside the program itself, at TABLES. */
#define TABLES		0x2000000ul
#define NR_PAGE_TABLES	(PAGES * PAGE / HUGE)

/* Bits of page table entries (SDM volume 3, chapter 5). */
#define PTE_TABLE	0x003ul		/* present, writable */
#define PTE_PAGE	0x063ul		/* and accessed, dirty */
#define PTE_HUGE	0x0e3ul		/* and a 2 MiB page */

#define CR0_LONG	0x80050033ul	/* PG AM WP NE ET MP PE */
#define CR4_PAE		(1ul << 5)
#define EFER_LONG	0x500ul		/* LME LMA */

struct tables {
	uint64_t pml4[512], pdpt[512], pd[512];
	uint64_t pt[NR_PAGE_TABLES][512];
	uint64_t gdt[512];
	unsigned char data[PAGE];	/* what the many pages all are */
};

static const char *const names[NR_WORKLOADS] = {
	"retiring", "bad-speculation", "frontend", "backend",
};

extern const char __executable_start[], _end[];

static int kvm, vm, vcpu;

__attribute__((noreturn, format(printf, 1, 2)))
static void missing(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("topdown-guest: missing: ");
	vprintf(format, args);
	putchar('\n');
	exit(SKIP);
}

static void need_mediated(void)
{
	char value = '?';
	int fd = open(MEDIATED, O_RDONLY);

	if (fd < 0)
		missing("kvm_intel has no mediated vPMU (no " MEDIATED ")");
	if (read(fd, &value, 1) != 1)
		err(1, "cannot read " MEDIATED);
	close(fd);
	if (value != 'Y')
		missing("kvm_intel.enable_mediated_pmu is %c, must be Y", value);
}

static struct kvm_cpuid2 *supported_cpuid(void)
{
	const int entries = 256;
	struct kvm_cpuid2 *cpuid;

	cpuid = calloc(1, sizeof(*cpuid) + entries * sizeof(cpuid->entries[0]));
	if (!cpuid)
		errx(1, "out of memory");
	cpuid->nent = entries;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid))
		err(1, "KVM_GET_SUPPORTED_CPUID");
	return cpuid;
}

static void need_fixed_counter_3(const struct kvm_cpuid2 *cpuid)
{
	unsigned int i, version = 0, fixed = 0;

	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function == 0xa) {
			version = cpuid->entries[i].eax & 0xff;
			fixed = cpuid->entries[i].edx & 0x1f;
		}
	}
	if (fixed < 4)
		missing("fixed counter 3: KVM offers %u fixed counters in CPUID.0xA (version %u)",
			fixed, version);
}

static void need_metrics(void)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = {
		.head.nmsrs = 1,
		.entry.index = MSR_PERF_CAPABILITIES,
	};

	/* As a feature MSR of the system: what KVM can offer. */
	if (ioctl(kvm, KVM_GET_MSRS, &msrs) != 1)
		missing("IA32_PERF_CAPABILITIES as a feature MSR of KVM");
	if (!(msrs.entry.data & PERF_CAPABILITIES_METRICS))
		missing("PERF_METRICS: bit 15 of IA32_PERF_CAPABILITIES, which KVM offers as %#llx",
			(unsigned long long)msrs.entry.data);
}

static void add_memory(unsigned int slot, uint64_t guest, const void *host,
		       uint64_t size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = guest,
		.memory_size = (size + PAGE - 1) & -PAGE,
		.userspace_addr = (uintptr_t)host,
	};

	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		err(1, "KVM_SET_USER_MEMORY_REGION for %#lx", (unsigned long)guest);
}

/* Aligned, so that KVM can map it by huge pages and exits stay few. */
static void *allocate(size_t size)
{
	char *memory = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		err(1, "cannot allocate %zu bytes", size);
	memory = (char *)(((uintptr_t)memory + HUGE - 1) & -HUGE);
	madvise(memory, size, MADV_HUGEPAGE);
	return memory;
}

static uint64_t table_address(const struct tables *tables, const void *part)
{
	return TABLES + ((uintptr_t)part - (uintptr_t)tables);
}

static void map_huge(struct tables *tables, uint64_t start, uint64_t end)
{
	uint64_t address;

	for (address = start & -HUGE; address < end; address += HUGE)
		tables->pd[address / HUGE] = address | PTE_HUGE;
}

static void add_tables(void)
{
	struct tables *tables = allocate(sizeof(*tables));
	unsigned int i, j;

	tables->pml4[0] = table_address(tables, tables->pdpt) | PTE_TABLE;
	tables->pdpt[0] = table_address(tables, tables->pd) | PTE_TABLE;
	map_huge(tables, (uintptr_t)__executable_start, (uintptr_t)_end);
	map_huge(tables, TABLES, TABLES + sizeof(*tables));
	map_huge(tables, JUMPS_BASE, JUMPS_BASE + JUMPS_BYTES);
	for (i = 0; i < NR_PAGE_TABLES; i++) {
		tables->pd[PAGES_BASE / HUGE + i] =
			table_address(tables, tables->pt[i]) | PTE_TABLE;
		for (j = 0; j < 512; j++)
			tables->pt[i][j] = table_address(tables, tables->data) | PTE_PAGE;
	}
	/* Code segment 8: 64-bit, present, ring 0 (SDM volume 3, 3.4.5). */
	tables->gdt[1] = 0x00af9b000000ffffull;
	add_memory(1, TABLES, tables, sizeof(*tables));
}

/*
 * One "jmp" in each line of 64 bytes, to the line 17 further on: 17 has no
 * divisor in common with the number of lines, so the last one, a "ret", comes
 * after all others.
 */
static void add_jumps(void)
{
	const unsigned int lines = JUMPS_BYTES / 64, step = 17;
	unsigned char *code = allocate(JUMPS_BYTES);
	unsigned int i, at = 0;

	for (i = 0; i < lines - 1; i++) {
		unsigned int next = (at + step) % lines;
		int32_t offset = ((int32_t)next - (int32_t)at) * 64 - 5;

		code[at * 64ul] = 0xe9;
		memcpy(code + at * 64ul + 1, &offset, sizeof(offset));
		at = next;
	}
	code[at * 64ul] = 0xc3;
	add_memory(2, JUMPS_BASE, code, JUMPS_BYTES);
}

static void make_vm(void)
{
	vm = ioctl(kvm, KVM_CREATE_VM, 0ul);
	if (vm < 0)
		err(1, "KVM_CREATE_VM");
	/* An address range that is nobody else's, as in api.rst. */
	if (ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000ul))
		err(1, "KVM_SET_TSS_ADDR");
	/* The mediated vPMU wants the local APIC in the kernel. */
	if (ioctl(vm, KVM_CREATE_IRQCHIP, 0ul))
		err(1, "KVM_CREATE_IRQCHIP");
	add_memory(0, (uintptr_t)__executable_start, __executable_start,
		   _end - __executable_start);
	add_tables();
	add_jumps();
}

static void set_segments(struct kvm_sregs *sregs)
{
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 0xb, .present = 1,
		.s = 1, .l = 1, .g = 1,
	};
	struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1,
		.s = 1, .db = 1, .g = 1,
	};

	sregs->cs = code;
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
}

static void set_registers(void)
{
	const struct tables *tables = NULL;
	struct kvm_regs regs = {
		.rip = (uintptr_t)payload_main,
		/* As after a call: the ABI wants rsp + 8 divisible by 16. */
		.rsp = (uintptr_t)payload_stack + sizeof(payload_stack) - 8,
		.rflags = 2,
	};
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		err(1, "KVM_GET_SREGS");
	set_segments(&sregs);
	sregs.cr0 = CR0_LONG;
	sregs.cr3 = TABLES;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LONG;
	sregs.gdt.base = table_address(tables, &tables->gdt);
	sregs.gdt.limit = 2 * 8 - 1;
	sregs.idt.base = (uintptr_t)payload_idt;
	sregs.idt.limit = 32 * 16 - 1;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs))
		err(1, "cannot set the vCPU's registers");
}

static struct kvm_run *make_vcpu(struct kvm_cpuid2 *cpuid)
{
	long size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0ul);
	struct kvm_run *run;

	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0ul);
	if (vcpu < 0 || size < 0)
		err(1, "KVM_CREATE_VCPU");
	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		err(1, "cannot map the vCPU");
	if (ioctl(vcpu, KVM_SET_CPUID2, cpuid))
		err(1, "KVM_SET_CPUID2");
	set_registers();
	return run;
}

static void run_guest(const struct kvm_run *run)
{
	uint32_t code;

	if (ioctl(vcpu, KVM_RUN, 0ul))
		err(1, "KVM_RUN");
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != PORT_EXIT)
		errx(1, "the guest died: KVM exit reason %u", run->exit_reason);
	memcpy(&code, (const char *)run + run->io.data_offset, sizeof(code));
	if (code != EXIT_DONE)
		errx(1, "exception %llu in the guest, error code %#llx, at %#llx",
		     (unsigned long long)report.vector,
		     (unsigned long long)report.error,
		     (unsigned long long)report.rip);
}

static void print_report(void)
{
	unsigned int n;

	for (n = 0; n < NR_WORKLOADS; n++) {
		const struct measurement *m = &report.measurement[n];

		printf("topdown-guest: workload=%s begin=%llu end=%llu slots=%llu,%llu metrics=%#llx,%#llx\n",
		       names[n], MARK_BEGIN(n), MARK_END(n),
		       (unsigned long long)m->slots_begin,
		       (unsigned long long)m->slots_end,
		       (unsigned long long)m->metrics_begin,
		       (unsigned long long)m->metrics_end);
	}
}

int main(void)
{
	struct kvm_cpuid2 *cpuid;
	cpu_set_t set;

	/* The ground truth is kept per CPU: stay on one. */
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "cannot stay on CPU 0");
	setvbuf(stdout, NULL, _IOLBF, 0);

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		missing("/dev/kvm: no VMX, or a kernel without KVM");
	need_mediated();
	cpuid = supported_cpuid();
	need_fixed_counter_3(cpuid);
	need_metrics();

	make_vm();
	payload_fill_idt();
	run_guest(make_vcpu(cpuid));
	print_report();
	return 0;
}
