// SPDX-License-Identifier: GPL-2.0
/*
 * Writes a core file of the kernel that runs in a Bochs, for gdb (lab/run/gdb).
 *
 *	core [-g] PID FILE
 *
 * Each CPU is a thread: its registers, and the memory that its page tables map, are those
 * of the moment.  With -g each CPU is waited for until it runs a guest (VMX non-root), and
 * it is the guest that is written, by its page tables and those of KVM.  The emulator goes
 * on afterwards.  Exits with 1 and one line if it cannot, with 3 if no CPU ran a guest.
 *
 * Bochs stands still meanwhile (SIGSTOP), possibly within an instruction: a register that
 * this instruction writes may be old or new.
 */
#include "bochs.h"
#include "cpu/cpu.h"
#include "memory/memory-bochs.h"

#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/procfs.h>
#include <unistd.h>
#include <vector>

/* A guest that spins is seen at once, one that mostly sleeps runs at its timer's ticks. */
#define TRIES		2000
#define TRY_US		3000
#define PAGE		4096ULL
#define PRESENT		1ULL
#define EPT_PRESENT	7ULL		/* read, write, execute */
#define LARGE		0x80ULL
#define FRAME		0x000ffffffffff000ULL

static int memory;		/* /proc/PID/mem */
static Bit64u load_address;	/* of the program, which is position-independent */
/* Copies of the emulator's objects, of which nothing may be called. */
static BX_MEM_C *ram = (BX_MEM_C *)calloc(1, sizeof(BX_MEM_C));
static BX_CPU_C *cpu = (BX_CPU_C *)calloc(1, sizeof(BX_CPU_C));
static Bit8u **blocks;

static bool read_emulator(Bit64u address, void *to, size_t size)
{
	return pread(memory, to, size, address) == (ssize_t)size;
}

/* The program's first mapping is where its address 0 lies. */
static void attach(pid_t pid)
{
	char path[64];
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "r");
	if (!maps || fscanf(maps, "%lx", &load_address) != 1)
		err(1, "cannot read %s", path);
	fclose(maps);
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	memory = open(path, O_RDONLY);
	if (memory < 0)
		err(1, "cannot read %s (another user's, or kernel.yama.ptrace_scope is not 0)", path);
}

static void read_ram(void)
{
	size_t count;

	if (!read_emulator(load_address + BX_MEM_SYMBOL, (void *)ram, sizeof(*ram)))
		errx(1, "this process is not the emulator that core was compiled for");
	count = ram->len / ram->block_size;
	blocks = (Bit8u **)calloc(count, sizeof(*blocks));
	if (!read_emulator((Bit64u)ram->blocks, blocks, count * sizeof(*blocks)))
		errx(1, "cannot read the emulator's table of memory");
}

static bool read_host_page(Bit64u address, void *page)
{
	Bit64u offset = address & (ram->block_size - 1);

	if (address >= ram->len)
		return false;
	if (!blocks[address >> ram->block_shift]) {	/* nobody wrote there yet */
		memset(page, 0, PAGE);
		return true;
	}
	return read_emulator((Bit64u)blocks[address >> ram->block_shift] + offset, page, PAGE);
}

static bool translate_ept(Bit64u address, Bit64u *physical)
{
	Bit64u table[512], entry, at = cpu->vmcs.eptptr & FRAME;
	int shift;

	for (shift = 39; ; shift -= 9) {
		if (!read_host_page(at, table))
			return false;
		entry = table[address >> shift & 511];
		if (!(entry & EPT_PRESENT))
			return false;
		at = entry & FRAME;
		if (shift == 12 || (shift < 39 && (entry & LARGE)))
			break;
	}
	*physical = (at & ~((1ULL << shift) - 1)) | (address & ((1ULL << shift) - 1));
	return true;
}

/* @ept: @address is a guest's. */
static bool read_page(Bit64u address, void *page, bool ept)
{
	if (ept && !translate_ept(address, &address))
		return false;
	return read_host_page(address, page);
}

/* A range of linear addresses, and where its bytes are in the file. */
struct range {
	Bit64u start, end, offset;
};

static struct {
	FILE *file;
	std::vector<range> ranges;
	Bit64u offset;
} core;

/* Pages of zeros are holes. */
static void add_page(Bit64u linear, Bit64u physical, bool ept)
{
	static Bit8u page[PAGE], zero[PAGE];

	if (!read_page(physical, page, ept))
		return;
	if (core.ranges.empty() || core.ranges.back().end != linear)
		core.ranges.push_back((range){ linear, linear, core.offset });
	core.ranges.back().end += PAGE;
	if (memcmp(page, zero, PAGE) &&
	    (fseeko(core.file, core.offset, SEEK_SET) || fwrite(page, PAGE, 1, core.file) != 1))
		err(1, "cannot write the core file");
	core.offset += PAGE;
}

static int top;		/* the shift of the first table's entries */

/* What the table at @at, of pages that are 1 << @shift large, maps. */
static void walk(Bit64u at, int shift, Bit64u linear, bool ept)
{
	Bit64u table[512], i, offset;

	if (!read_page(at & FRAME, table, ept))
		return;
	for (i = 0; i < 512; i++) {
		Bit64u address = linear | i << shift;

		if (!(table[i] & PRESENT))
			continue;
		/* The topmost bit that is translated stands for all above it. */
		if (shift == top && i >= 256)
			address |= ~0ULL << (shift + 9);
		if (shift == 12 || (shift < 39 && (table[i] & LARGE))) {
			Bit64u frame = table[i] & FRAME & ~((1ULL << shift) - 1);

			for (offset = 0; offset < 1ULL << shift; offset += PAGE)
				add_page(address + offset, frame + offset, ept);
		} else {
			walk(table[i], shift - 9, address, ept);
		}
	}
}

static std::vector<prstatus_t> threads;

/* The host's state of a CPU that runs a guest is in its VMCS, without general registers. */
static void add_thread(unsigned int number, bool guest)
{
	const bx_gen_reg_t *reg = cpu->gen_reg;
	bool away = cpu->in_vmx_guest && !guest;
	struct user_regs_struct regs;
	prstatus_t status;

	memset(&regs, 0, sizeof(regs));
	if (away) {
		regs.rip = cpu->vmcs.host_state.rip;
		regs.rsp = cpu->vmcs.host_state.rsp;
	} else {
		regs.rip = reg[BX_64BIT_REG_RIP].rrx;
		regs.rsp = reg[4].rrx;
		regs.rax = reg[0].rrx;
		regs.rcx = reg[1].rrx;
		regs.rdx = reg[2].rrx;
		regs.rbx = reg[3].rrx;
		regs.rbp = reg[5].rrx;
		regs.rsi = reg[6].rrx;
		regs.rdi = reg[7].rrx;
		regs.r8 = reg[8].rrx;
		regs.r9 = reg[9].rrx;
		regs.r10 = reg[10].rrx;
		regs.r11 = reg[11].rrx;
		regs.r12 = reg[12].rrx;
		regs.r13 = reg[13].rrx;
		regs.r14 = reg[14].rrx;
		regs.r15 = reg[15].rrx;
		regs.eflags = cpu->eflags;
		regs.cs = cpu->sregs[BX_SEG_REG_CS].selector.value;
		regs.ss = cpu->sregs[BX_SEG_REG_SS].selector.value;
	}
	memset(&status, 0, sizeof(status));
	status.pr_pid = number + 1;
	memcpy(status.pr_reg, &regs, sizeof(regs));
	threads.push_back(status);
}

/* The tables that are in force, of host or guest. */
static void add_memory(bool guest)
{
	Bit64u tables = cpu->in_vmx_guest && !guest ? cpu->vmcs.host_state.cr3 : cpu->cr3;

	top = cpu->cr4.val32 & 1 << 12 ? 48 : 39;	/* CR4.LA57 */
	walk(tables, top, 0, guest);
}

static void write_headers(void)
{
	struct __attribute__((packed)) {
		Elf64_Nhdr header;
		char name[8];
		prstatus_t status;
	} note = { { 5, sizeof(prstatus_t), NT_PRSTATUS }, "CORE", prstatus_t() };
	size_t notes = threads.size() * sizeof(note), i;
	Elf64_Ehdr header;
	Elf64_Phdr segment;

	memset(&header, 0, sizeof(header));
	memcpy(header.e_ident, ELFMAG, SELFMAG);
	header.e_ident[EI_CLASS] = ELFCLASS64;
	header.e_ident[EI_DATA] = ELFDATA2LSB;
	header.e_ident[EI_VERSION] = header.e_version = EV_CURRENT;
	header.e_type = ET_CORE;
	header.e_machine = EM_X86_64;
	header.e_phoff = core.offset + notes;
	header.e_ehsize = sizeof(header);
	header.e_phentsize = sizeof(segment);
	header.e_phnum = core.ranges.size() + 1;
	if (core.ranges.size() >= PN_XNUM - 1)
		errx(1, "%zu ranges of memory are mapped, too many for a core file", core.ranges.size());

	fseeko(core.file, core.offset, SEEK_SET);
	for (i = 0; i < threads.size(); i++) {
		note.status = threads[i];
		fwrite(&note, sizeof(note), 1, core.file);
	}
	memset(&segment, 0, sizeof(segment));
	segment.p_type = PT_NOTE;
	segment.p_offset = core.offset;
	segment.p_filesz = notes;
	segment.p_align = 4;
	fwrite(&segment, sizeof(segment), 1, core.file);
	for (i = 0; i < core.ranges.size(); i++) {
		segment.p_type = PT_LOAD;
		segment.p_flags = PF_R | PF_W | PF_X;
		segment.p_offset = core.ranges[i].offset;
		segment.p_vaddr = core.ranges[i].start;
		segment.p_filesz = segment.p_memsz = core.ranges[i].end - core.ranges[i].start;
		segment.p_align = PAGE;
		fwrite(&segment, sizeof(segment), 1, core.file);
	}
	rewind(core.file);
	fwrite(&header, sizeof(header), 1, core.file);
	if (fflush(core.file) || ferror(core.file))
		err(1, "cannot write the core file");
}

/* CPU @number as it is now; false if there is none. */
static bool read_cpu(unsigned int number)
{
	Bit64u array, address;
	Bit8u count;

	if (!read_emulator(load_address + BX_COUNT_SYMBOL, &count, sizeof(count)) || number >= count)
		return false;
	if (!read_emulator(load_address + BX_CPU_SYMBOL, &array, sizeof(array)) ||
	    !read_emulator(array + number * sizeof(address), &address, sizeof(address)) ||
	    !read_emulator(address, (void *)cpu, sizeof(*cpu)))
		errx(1, "cannot read the state of CPU %u", number);
	return true;
}

/* Stops the emulator, with -g when one of its CPUs runs a guest. */
static bool stop(pid_t pid, bool guest, unsigned int *number)
{
	int i;

	for (i = 0; i < TRIES; i++) {
		if (kill(pid, SIGSTOP))
			err(1, "cannot stop process %d", pid);
		/* The signal takes effect at the latest when it is scheduled again. */
		usleep(1000);
		for (*number = 0; read_cpu(*number); (*number)++)
			if (!guest || cpu->in_vmx_guest)
				return true;
		kill(pid, SIGCONT);
		usleep(TRY_US);
	}
	return false;
}

static pid_t stopped;

static void go_on(void)
{
	if (stopped)
		kill(stopped, SIGCONT);
}

int main(int argc, char **argv)
{
	bool guest = argc > 1 && !strcmp(argv[1], "-g");
	unsigned int number;

	if (argc != 3 + guest)
		errx(1, "usage: core [-g] PID FILE");
	stopped = atoi(argv[1 + guest]);
	attach(stopped);
	core.file = fopen(argv[2 + guest], "w");
	if (!core.file)
		err(1, "cannot write %s", argv[2 + guest]);
	atexit(go_on);
	if (!stop(stopped, guest, &number)) {
		fprintf(stderr, "core: no CPU runs a guest\n");
		return 3;
	}
	read_ram();
	core.offset = PAGE;
	add_memory(guest);
	add_thread(number, guest);
	while (!guest && read_cpu(++number))
		add_thread(number, guest);
	write_headers();
	return 0;
}
