// SPDX-License-Identifier: GPL-2.0
/*
 * Starts guests in QEMU that can count topdown, or says what is missing.
 *
 *	topdown-vm [-f] [-g GUESTS] [-n VCPUS] [-m MIB] [-p CPUS] [-q QEMU]
 *		   [-k KERNEL] [-i INITRD] [-a APPEND] [-o OPTION]... PLAN
 *
 * Runs the programs of PLAN, a file of lab/image/plans, in each of GUESTS
 * guests (1) at the same time, with VCPUS virtual CPUs (1) and MIB MiB of
 * memory (256), all of it on the host's CPUs of the list CPUS ("0", "0,1"; all).
 * QEMU, KERNEL and INITRD are files; APPEND goes to the guest's kernel, OPTION
 * to QEMU.  Passes on what each guest says, line by line, as
 *
 *	guest1| TEXT
 *
 * Before that it checks the host.  What topdown in a guest needs and the host
 * lacks is told in one line, "topdown-vm: missing: ...", with the way to get
 * it; -f starts the guests all the same.
 *
 * Exits with 0 if all programs of all guests ended with status 0; with 1 if
 * not, or if QEMU failed; with 4 (a kselftest's skip) if something is missing.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIP		4
#define MAX_GUESTS	8
#define MAX_OPTIONS	32
#define LINE_BYTES	1024

#define MEDIATED	"/sys/module/kvm_intel/parameters/enable_mediated_pmu"
#define WATCHDOG	"/proc/sys/kernel/nmi_watchdog"

/* SDM volume 4, table 2-2. */
#define MSR_PERF_CAPABILITIES		0x345
#define PERF_CAPABILITIES_METRICS	(1ull << 15)

struct setup {
	bool force;
	unsigned int guests, vcpus, memory;
	const char *cpus, *qemu, *kernel, *initrd, *append, *plan;
	const char *options[MAX_OPTIONS];
	unsigned int nr_options;
};

struct guest {
	unsigned int number;
	pid_t pid;
	int fd;
	char line[LINE_BYTES];
	size_t length;
	bool done;		/* its init ran the whole plan */
	unsigned int failed;	/* programs of it that did not end with 0 */
};

static struct setup setup = {
	.guests = 1, .vcpus = 1, .memory = 256,
	.qemu = "/usr/bin/qemu-system-x86_64",
	.kernel = "/vm/bzImage",
	.initrd = "/vm/initrd.gz",
	.append = "",
};

__attribute__((format(printf, 1, 2)))
static void missing(const char *format, ...)
{
	va_list args;

	printf("topdown-vm: missing: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	if (!setup.force)
		exit(SKIP);
}

/* The first character of a file of sysfs or procfs, 0 if there is none. */
static char flag(const char *path)
{
	char value = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (read(fd, &value, 1) != 1)
			value = 0;
		close(fd);
	}
	return value;
}

static void need_files(void)
{
	if (access(setup.qemu, X_OK))
		errx(1, "no QEMU %s: apt-get install qemu-system-x86, or give one with -q", setup.qemu);
	if (access(setup.kernel, R_OK))
		errx(1, "no guest kernel %s: give a bzImage with -k", setup.kernel);
	if (access(setup.initrd, R_OK))
		errx(1, "no guest image %s: give an initramfs with -i (make image)", setup.initrd);
}

static void need_mediated(void)
{
	char value = flag(MEDIATED);

	if (!value)
		missing("the mediated vPMU: this kernel's kvm_intel has no parameter enable_mediated_pmu; boot Linux 7.0 or later");
	else if (value != 'Y')
		missing("kvm_intel.enable_mediated_pmu is %c: boot the host with kvm_intel.enable_mediated_pmu=1, or load the module with it (modprobe -r kvm_intel && modprobe kvm_intel enable_mediated_pmu=1); if it stays N, the CPU's PMU is not version 4 with full-width writes",
			value);
}

/* It counts system-wide, guests included, so that no mediated vPMU can start. */
static void need_no_watchdog(void)
{
	if (flag(WATCHDOG) == '1')
		missing("a free PMU: the host's NMI watchdog uses it system-wide; echo 0 >" WATCHDOG ", or boot the host with nmi_watchdog=0");
}

/* CPUID.0xA as KVM can offer it. */
static void need_fixed_counter_3(int kvm)
{
	const int entries = 256;
	unsigned int i, version = 0, fixed = 0;
	struct kvm_cpuid2 *cpuid;

	cpuid = calloc(1, sizeof(*cpuid) + entries * sizeof(cpuid->entries[0]));
	if (!cpuid)
		errx(1, "out of memory");
	cpuid->nent = entries;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid))
		err(1, "KVM_GET_SUPPORTED_CPUID");
	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function == 0xa) {
			version = cpuid->entries[i].eax & 0xff;
			fixed = cpuid->entries[i].edx & 0x1f;
		}
	}
	free(cpuid);
	if (fixed < 4)
		missing("fixed counter 3 (TOPDOWN.SLOTS): KVM offers %u fixed counters, PMU version %u; the host's kernel lacks the topdown series, or its CPU is older than Ice Lake",
			fixed, version);
}

static void need_metrics(int kvm)
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
		missing("IA32_PERF_CAPABILITIES: KVM offers none");
	else if (!(msrs.entry.data & PERF_CAPABILITIES_METRICS))
		missing("PERF_METRICS: KVM offers IA32_PERF_CAPABILITIES %#llx, without bit 15; the host's kernel lacks the topdown series, or its CPU has no PERF_METRICS (hybrid and older than Ice Lake)",
			(unsigned long long)msrs.entry.data);
}

/* Only a vCPU tells whether the PMU is free (KVM_CREATE_VCPU). */
static void need_free_pmu(int kvm)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, 0ul), vcpu;

	if (vm < 0 || ioctl(vm, KVM_CREATE_IRQCHIP, 0ul))
		err(1, "cannot make a VM");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0ul);
	if (vcpu < 0 && errno == EBUSY)
		missing("a free PMU: something on the host counts system-wide, guests included; end it, or have it exclude guests (perf: events with the modifier H)");
	else if (vcpu < 0)
		err(1, "KVM_CREATE_VCPU");
	if (vcpu >= 0)
		close(vcpu);
	close(vm);
}

static void check_host(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0) {
		if (errno == ENOENT)
			missing("/dev/kvm: load kvm_intel, on a machine whose CPU has VMX, switched on in the firmware");
		else
			missing("/dev/kvm: %s; be root or in the group kvm", strerror(errno));
		return;
	}
	need_mediated();
	need_no_watchdog();
	need_fixed_counter_3(kvm);
	need_metrics(kvm);
	need_free_pmu(kvm);
	close(kvm);
}

/* "0", "0,2": where this process and all guests run. */
static void stay_on(const char *list)
{
	cpu_set_t set;
	char *end;

	CPU_ZERO(&set);
	do {
		unsigned long cpu = strtoul(list, &end, 10);

		if (end == list || cpu >= CPU_SETSIZE || (*end && *end != ','))
			errx(1, "-p %s: not a list of CPUs like 0,1", list);
		CPU_SET(cpu, &set);
		list = end + 1;
	} while (*end);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "cannot run on these CPUs");
}

static void exec_qemu(int out)
{
	char smp[16], memory[16], append[512];
	const char *args[64] = {
		setup.qemu, "-nodefaults", "-no-user-config", "-display", "none",
		"-M", "microvm,rtc=off,pit=off,pic=off", "-accel", "kvm",
		"-cpu", "host,migratable=off", "-smp", smp, "-m", memory,
		"-kernel", setup.kernel, "-initrd", setup.initrd, "-append", append,
		"-serial", "stdio", "-no-reboot",
	};
	unsigned int i, n = 0;
	int null = open("/dev/null", O_RDONLY);

	snprintf(smp, sizeof(smp), "%u", setup.vcpus);
	snprintf(memory, sizeof(memory), "%u", setup.memory);
	snprintf(append, sizeof(append),
		 "console=ttyS0 ignore_loglevel printk.devkmsg=on LAB_PLAN=/lab/plans/%s %s",
		 setup.plan, setup.append);
	while (args[n])
		n++;
	for (i = 0; i < setup.nr_options; i++)
		args[n++] = setup.options[i];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
	    dup2(out, STDERR_FILENO) < 0)
		_exit(126);
	execv(setup.qemu, (char **)args);
	dprintf(out, "topdown-vm: cannot run %s: %s\n", setup.qemu, strerror(errno));
	_exit(127);
}

static void start(struct guest *guest, unsigned int number)
{
	int fds[2];

	guest->number = number;
	if (pipe2(fds, O_CLOEXEC))
		err(1, "no pipe");
	guest->pid = fork();
	if (guest->pid < 0)
		err(1, "cannot fork");
	if (!guest->pid)
		exec_qemu(fds[1]);
	close(fds[1]);
	guest->fd = fds[0];
}

/* What the guest's init reports (lab/image/init.c). */
static void take_line(struct guest *guest)
{
	const char *said, *end;

	guest->line[guest->length] = '\0';
	guest->length = 0;
	printf("guest%u| %s\n", guest->number, guest->line);
	fflush(stdout);
	said = strstr(guest->line, "] lab: ");
	if (!said || guest->line[0] != '[')
		return;
	said += strlen("] lab: ");
	guest->done |= !strcmp(said, "done");
	end = strncmp(said, "end ", 4) ? NULL : strrchr(said, ' ');
	if (!strncmp(said, "error ", 6) || (end && strcmp(end, " status=0")))
		guest->failed++;
}

/* Returns false at the end of the guest. */
static bool take_output(struct guest *guest)
{
	char bytes[4096];
	ssize_t count = read(guest->fd, bytes, sizeof(bytes)), i;

	if (count < 0 && errno == EINTR)
		return true;
	for (i = 0; i < count; i++) {
		if (bytes[i] == '\r')
			continue;
		if (bytes[i] != '\n')
			guest->line[guest->length++] = bytes[i];
		if (bytes[i] == '\n' || guest->length == LINE_BYTES - 1)
			take_line(guest);
	}
	if (count <= 0 && guest->length)
		take_line(guest);
	return count > 0;
}

static bool end(struct guest *guest)
{
	int status = 0;

	close(guest->fd);
	guest->fd = -1;
	waitpid(guest->pid, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		printf("topdown-vm: guest %u: QEMU ended with %s %d\n", guest->number,
		       WIFEXITED(status) ? "status" : "signal",
		       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
		return false;
	}
	if (!guest->done)
		printf("topdown-vm: guest %u ended before its plan did\n", guest->number);
	else if (guest->failed)
		printf("topdown-vm: guest %u: %u programs failed\n", guest->number, guest->failed);
	return guest->done && !guest->failed;
}

static bool run(void)
{
	static struct guest guests[MAX_GUESTS];
	struct pollfd fds[MAX_GUESTS];
	unsigned int i, running = setup.guests;
	bool good = true;

	for (i = 0; i < setup.guests; i++)
		start(&guests[i], i + 1);
	while (running) {
		for (i = 0; i < setup.guests; i++) {
			fds[i].fd = guests[i].fd;
			fds[i].events = POLLIN;
		}
		if (poll(fds, setup.guests, -1) < 0 && errno != EINTR)
			err(1, "poll");
		for (i = 0; i < setup.guests; i++) {
			if (guests[i].fd < 0 || !fds[i].revents || take_output(&guests[i]))
				continue;
			good &= end(&guests[i]);
			running--;
		}
	}
	return good;
}

static unsigned int number(const char *text, unsigned int max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end || !value || value > max)
		errx(1, "%s: must be a number from 1 to %u", text, max);
	return value;
}

static void parse(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "fg:n:m:p:q:k:i:a:o:")) >= 0) {
		switch (option) {
		case 'f': setup.force = true; break;
		case 'g': setup.guests = number(optarg, MAX_GUESTS); break;
		case 'n': setup.vcpus = number(optarg, 64); break;
		case 'm': setup.memory = number(optarg, 1 << 20); break;
		case 'p': setup.cpus = optarg; break;
		case 'q': setup.qemu = optarg; break;
		case 'k': setup.kernel = optarg; break;
		case 'i': setup.initrd = optarg; break;
		case 'a': setup.append = optarg; break;
		case 'o':
			if (setup.nr_options == MAX_OPTIONS)
				errx(1, "more than %d options for QEMU", MAX_OPTIONS);
			setup.options[setup.nr_options++] = optarg;
			break;
		default:
			exit(1);
		}
	}
	if (optind != argc - 1)
		errx(1, "usage: topdown-vm [OPTION]... PLAN (see lab/image/topdown-vm.c)");
	setup.plan = argv[optind];
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	need_files();
	check_host();
	if (setup.cpus)
		stay_on(setup.cpus);
	return !run();
}
