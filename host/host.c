// SPDX-License-Identifier: GPL-2.0
/*
 * Is this host fit for guests that count topdown?  What it lacks is told in one line,
 * with the way to get it: the first thing that an operator has to mend.  So the order is
 * hardware, firmware, kernel, its parameters, and last who else uses the PMU.
 *
 * Each line is provoked by a boot in lab/boots/check.
 *
 * What needs root to be seen (MSRs, file descriptors of others) makes the message better,
 * and is not needed to come to a verdict.
 */
#define _GNU_SOURCE
#include "host.h"
#include "words.h"

#include <cpuid.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MAX_CPUID	256

#define PMUS		"/sys/bus/event_source/devices/"
#define VPMU		"/sys/module/kvm/parameters/enable_pmu"
#define WATCHDOG	"/proc/sys/kernel/nmi_watchdog"

#define OTHER_HOST	"take a host with a CPU of Ice Lake or later, with performance cores only"

bool host_force;

/* What was found, for host_print_facts(). */
static struct {
	struct pmu_leaf pmu, offered;
	uint64_t capabilities, offered_capabilities;
	unsigned int msrs;	/* CPUs of which capabilities was read */
} facts;

void missing(const char *format, ...)
{
	va_list args;

	printf("%s: " WORDS_MISSING, program_invocation_short_name);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	if (!host_force)
		exit(SKIP);
}

bool host_read_line(const char *path, char *line, int size)
{
	FILE *file = fopen(path, "r");
	bool read = file && fgets(line, size, file);

	if (!read)
		snprintf(line, size, "?");
	if (file)
		fclose(file);
	line[strcspn(line, "\n")] = '\0';
	return read;
}

bool host_perf_has_field(const char *event)
{
	char path[128], line[64];

	/*
	 * Event 0x00 with umask 0x80 and up; CPUs without the MSR have others by these
	 * names (arch/x86/events/intel/core.c).
	 */
	snprintf(path, sizeof(path), PMUS "cpu/events/%s", event);
	host_read_line(path, line, sizeof(line));
	return !strncmp(line, "event=0x00,umask=0x8", 20);
}

/* The value of "KEY : VALUE" in /proc/cpuinfo for the first CPU, "" if there is none. */
static const char *cpuinfo(const char *key)
{
	static char line[4096];
	FILE *file = fopen("/proc/cpuinfo", "r");
	size_t length = strlen(key);
	const char *value = "";

	while (file && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, key, length) || !strchr(" \t:", line[length]))
			continue;
		value = strchr(line, ':');
		value = value && value[1] ? value + 2 : "";
		break;
	}
	if (file)
		fclose(file);
	return value;
}

static bool has_flag(const char *flag)
{
	const char *flags = cpuinfo("flags"), *at = flags;
	size_t length = strlen(flag);

	while ((at = strstr(at, flag))) {
		if ((at == flags || at[-1] == ' ') && (!at[length] || at[length] == ' '))
			return true;
		at += length;
	}
	return false;
}

/* CPUID.7:EDX[15]; perf has a PMU for each kind then. */
static bool is_hybrid(void)
{
	unsigned int eax, ebx, ecx, edx = 0;

	return (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && edx & 1u << 15) ||
	       !access(PMUS "cpu_core", F_OK);
}

/* CPUID.1:ECX. */
static bool cpuid_1_ecx(unsigned int bit)
{
	unsigned int eax, ebx, ecx = 0, edx;

	return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & 1u << bit;
}

#define VMX		5
#define PDCM		15
#define HYPERVISOR	31

/* Who emulates the machine that this host is, "" if nobody says so. */
static const char *hypervisor(void)
{
	static char name[13];
	unsigned int eax;

	if (!cpuid_1_ecx(HYPERVISOR))
		return "";
	__cpuid(0x40000000, eax, *(unsigned int *)name, *(unsigned int *)(name + 4),
		*(unsigned int *)(name + 8));
	return name[0] ? name : "unnamed";
}

static struct pmu_leaf pmu_leaf(uint32_t eax, uint32_t ecx, uint32_t edx)
{
	struct pmu_leaf pmu = {
		.version = eax & 0xff, .general = eax >> 8 & 0xff, .fixed = edx & 0x1f,
	};

	/* From version 5 ECX has a bit for each; those of before are contiguous. */
	pmu.fixed_bitmap = (pmu.version >= 5 ? ecx : 0) | ((1u << pmu.fixed) - 1);
	return pmu;
}

/* The hardware's, or what the hypervisor says. */
static struct pmu_leaf own_pmu(void)
{
	unsigned int eax = 0, ebx, ecx = 0, edx = 0;

	if (!__get_cpuid_count(0xa, 0, &eax, &ebx, &ecx, &edx))
		eax = ecx = edx = 0;
	return pmu_leaf(eax, ecx, edx);
}

struct kvm_cpuid2 *host_supported_cpuid(int kvm)
{
	struct kvm_cpuid2 *cpuid;

	cpuid = calloc(1, sizeof(*cpuid) + MAX_CPUID * sizeof(cpuid->entries[0]));
	if (!cpuid)
		errx(1, "out of memory");
	cpuid->nent = MAX_CPUID;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid))
		err(1, "KVM_GET_SUPPORTED_CPUID");
	return cpuid;
}

struct pmu_leaf host_offered_pmu(const struct kvm_cpuid2 *cpuid)
{
	struct pmu_leaf pmu = { 0 };
	unsigned int i;

	for (i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 0xa)
			pmu = pmu_leaf(cpuid->entries[i].eax, cpuid->entries[i].ecx,
				       cpuid->entries[i].edx);
	return pmu;
}

uint64_t host_offered_capabilities(int kvm)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = {
		.head.nmsrs = 1,
		.entry.index = MSR_PERF_CAPABILITIES,
	};

	/* As a feature MSR of the system: what KVM can offer. */
	return ioctl(kvm, KVM_GET_MSRS, &msrs) == 1 ? msrs.entry.data : 0;
}

static void need_cpu(void)
{
	if (strcmp(cpuinfo("vendor_id"), "GenuineIntel"))
		missing("an Intel CPU: this one is by %s; TOPDOWN.SLOTS and PERF_METRICS are Intel's, since Ice Lake",
			cpuinfo("vendor_id"));
	if (!cpuid_1_ecx(VMX))
		missing("VMX: %s", cpuid_1_ecx(HYPERVISOR) ?
			"this host is a virtual machine itself without it; switch nested virtualization on outside of it" :
			"the CPU has none; take one for virtual machines");
	else if (!has_flag("vmx"))
		missing("VMX: the CPU has it, but it is switched off; switch virtualization (VT-x) on in the firmware's setup");
	if (is_hybrid())
		missing("a CPU with cores of one kind: this one is hybrid, and KVM gives its guests no PMU; take a host with another CPU");
}

static void need_pmu(void)
{
	struct pmu_leaf pmu = facts.pmu = own_pmu();

	if (pmu.version < 4)
		missing("version 4 of the PMU: this CPU's is %u, too old for the mediated vPMU; %s", pmu.version,
			cpuid_1_ecx(HYPERVISOR) ? "run on the host, not in a virtual machine" :
			OTHER_HOST);
	if ((pmu.fixed_bitmap & 0xf) != 0xf)
		missing("fixed counter 3 (TOPDOWN.SLOTS): the CPU's fixed counters are %#x, as a bitmap; " OTHER_HOST,
			pmu.fixed_bitmap);
}

/* Needs root and the driver "msr". */
static bool read_msr(unsigned int cpu, uint32_t index, uint64_t *value)
{
	char path[64];
	bool read;
	int fd;

	snprintf(path, sizeof(path), "/dev/cpu/%u/msr", cpu);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	read = pread(fd, value, sizeof(*value), index) == sizeof(*value);
	close(fd);
	return read;
}

/* Of all CPUs that tell: what each of them has. */
static void read_capabilities(int *without_metrics)
{
	unsigned int cpu, cpus = sysconf(_SC_NPROCESSORS_CONF);
	uint64_t value;

	*without_metrics = -1;
	facts.capabilities = ~0ull;
	for (cpu = 0; cpu < cpus && cpuid_1_ecx(PDCM); cpu++) {
		if (!read_msr(cpu, MSR_PERF_CAPABILITIES, &value))
			continue;
		facts.msrs++;
		facts.capabilities &= value;
		if (!(value & CAP_PERF_METRICS) && *without_metrics < 0)
			*without_metrics = cpu;
	}
}

static void need_capabilities(void)
{
	int without_metrics;

	read_capabilities(&without_metrics);
	if (facts.msrs && !(facts.capabilities & CAP_FULL_WIDTH))
		missing("full-width writes of counters: IA32_PERF_CAPABILITIES is %#llx, without bit 13; " OTHER_HOST,
			(unsigned long long)facts.capabilities);
	if (without_metrics >= 0)
		missing("PERF_METRICS: IA32_PERF_CAPABILITIES of CPU %d lacks bit 15; " OTHER_HOST,
			without_metrics);
	else if (!host_perf_has_field("topdown-retiring"))
		missing("PERF_METRICS: perf on this host has no events for it, hence not all CPUs have the MSR; " OTHER_HOST);
}

static const char *release(void)
{
	static struct utsname name;

	uname(&name);
	return name.release;
}

static void need_mediated(void)
{
	char value[8];

	if (access("/sys/module/kvm_intel", F_OK)) {
		missing("kvm_intel: it is not loaded; modprobe kvm_intel enable_mediated_pmu=1");
		return;
	}
	if (!host_read_line(MEDIATED, value, sizeof(value))) {
		missing("the mediated vPMU: kvm_intel of Linux %s has no parameter enable_mediated_pmu; boot the kernel with the topdown series",
			release());
		return;
	}
	if (value[0] == 'Y')
		return;
	if (host_read_line(VPMU, value, sizeof(value)) && value[0] == 'N')
		missing("a vPMU: kvm.enable_pmu is N; boot the host without kvm.enable_pmu=0");
	else
		missing("kvm_intel.enable_mediated_pmu is N; boot the host with kvm_intel.enable_mediated_pmu=1, or load the module with it (modprobe -r kvm_intel && modprobe kvm_intel enable_mediated_pmu=1)");
}

/* What KVM offers, on a CPU that has all. */
static void need_series(int kvm)
{
	struct kvm_cpuid2 *cpuid = host_supported_cpuid(kvm);

	facts.offered = host_offered_pmu(cpuid);
	facts.offered_capabilities = host_offered_capabilities(kvm);
	free(cpuid);
	if (facts.offered.fixed < 4 || !(facts.offered_capabilities & CAP_PERF_METRICS))
		missing("the topdown series: KVM of Linux %s offers %u fixed counters and IA32_PERF_CAPABILITIES %#llx, though the CPU has counter 3 and bit 15; boot the kernel with the series",
			release(), facts.offered.fixed,
			(unsigned long long)facts.offered_capabilities);
}

/* Has process @pid a file descriptor of this kind? */
static bool holds(const char *pid, const char *kind)
{
	char path[300], target[64];
	bool found = false;
	struct dirent *entry;
	ssize_t length;
	DIR *fds;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	fds = opendir(path);
	while (fds && !found && (entry = readdir(fds))) {
		length = readlinkat(dirfd(fds), entry->d_name, target, sizeof(target) - 1);
		target[length > 0 ? length : 0] = '\0';
		found = !strcmp(target, kind);
	}
	if (fds)
		closedir(fds);
	return found;
}

#define PERF_EVENT	"anon_inode:[perf_event]"
#define VM		"anon_inode:kvm-vm"

/* "perf (123), other (456)", as far as this process may see them; "" for nobody. */
static const char *holders(const char *kind)
{
	static char list[200];
	char path[300], name[32];
	struct dirent *entry;
	size_t length = 0;
	DIR *processes;

	list[0] = '\0';
	processes = opendir("/proc");
	while (processes && (entry = readdir(processes))) {
		if (strspn(entry->d_name, "0123456789") != strlen(entry->d_name) ||
		    !holds(entry->d_name, kind) || length >= sizeof(list))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		host_read_line(path, name, sizeof(name));
		length += snprintf(list + length, sizeof(list) - length, "%s%s (%s)", length ? ", " : "",
				   name, entry->d_name);
	}
	if (processes)
		closedir(processes);
	return list;
}

static void missing_free_pmu(void)
{
	char watchdog[8];

	if (host_read_line(WATCHDOG, watchdog, sizeof(watchdog)) && watchdog[0] == '1')
		missing("a free PMU: the host's NMI watchdog uses it; echo 0 >" WATCHDOG ", or boot the host with nmi_watchdog=0");
	else
		missing("a free PMU: events of the host's perf count guests, too, and are held by %s; end that, or have it exclude guests (perf: events with the modifier H)",
			holders(PERF_EVENT)[0] ? holders(PERF_EVENT) : "somebody else");
}

/* Only a vCPU tells whether the PMU is free of events that count guests, too. */
static void need_free_pmu(int kvm)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, 0ul), vcpu;

	if (vm < 0 || ioctl(vm, KVM_CREATE_IRQCHIP, 0ul))
		err(1, "cannot make a VM");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0ul);
	if (vcpu < 0 && errno == EBUSY)
		missing_free_pmu();
	else if (vcpu < 0)
		err(1, "KVM_CREATE_VCPU");
	if (vcpu >= 0)
		close(vcpu);
	close(vm);
}

static void need_kvm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0) {
		missing("/dev/kvm: %s; %s", strerror(errno), errno == EACCES || errno == EPERM ?
			"be root or in the group kvm" : "modprobe kvm_intel, and see what the kernel's log says");
		return;
	}
	need_series(kvm);
	need_free_pmu(kvm);
	close(kvm);
}

void host_check(void)
{
	need_cpu();
	need_pmu();
	need_capabilities();
	need_mediated();
	need_kvm();
}

__attribute__((format(printf, 1, 2)))
static void fact(const char *format, ...)
{
	va_list args;

	printf("%s: ", program_invocation_short_name);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

void host_print_facts(void)
{
	char mediated[8], watchdog[8];

	fact("CPU: %s", cpuinfo("model name"));
	printf("%s: CPU:", program_invocation_short_name);
	printf(" family %s,", cpuinfo("cpu family"));
	printf(" model %#x,", (unsigned int)strtoul(cpuinfo("model"), NULL, 10));
	printf(" stepping %s,", cpuinfo("stepping"));
	printf(" microcode %s,", cpuinfo("microcode")[0] ? cpuinfo("microcode") : "unknown");
	printf(" %ld online\n", sysconf(_SC_NPROCESSORS_ONLN));
	fact("PMU: version %u, %u general counters, fixed counters %#x", facts.pmu.version,
	     facts.pmu.general, facts.pmu.fixed_bitmap);
	if (facts.msrs)
		fact("PMU: IA32_PERF_CAPABILITIES %#llx on %u CPU%s", (unsigned long long)facts.capabilities,
		     facts.msrs, facts.msrs == 1 ? "" : "s");
	else
		fact("PMU: IA32_PERF_CAPABILITIES not read (modprobe msr, be root), perf has PERF_METRICS");
	host_read_line(MEDIATED, mediated, sizeof(mediated));
	host_read_line(WATCHDOG, watchdog, sizeof(watchdog));
	fact("kernel: Linux %s, kvm_intel.enable_mediated_pmu=%s, nmi_watchdog=%s", release(),
	     mediated, watchdog);
	fact("KVM offers: PMU version %u, %u general and %u fixed counters, IA32_PERF_CAPABILITIES %#llx",
	     facts.offered.version, facts.offered.general, facts.offered.fixed,
	     (unsigned long long)facts.offered_capabilities);
	if (hypervisor()[0])
		fact("note: this host is a virtual machine itself, of %s", hypervisor());
	if (holders(VM)[0])
		fact("note: other virtual machines run here: %s; where they share the CPU, fractions suffer",
		     holders(VM));
}
