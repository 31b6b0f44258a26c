// SPDX-License-Identifier: GPL-2.0
/*
 * What does KVM on this host offer to guests?
 *
 *	topdown-offer [NAME=VALUE...]
 *
 * Prints all that it finds, and fails if a NAME is not as expected:
 *
 *	mediated  Y or N, the parameter of kvm_intel
 *	version   of the PMU, CPUID.0xA:EAX[7:0] as KVM supports it
 *	general   counters, CPUID.0xA:EAX[15:8]
 *	fixed     counters, CPUID.0xA:EDX[4:0]
 *	bit15     of IA32_PERF_CAPABILITIES as a feature MSR: PERF_METRICS
 *	saved     which of MSRs 0x30c and 0x329 KVM_GET_MSR_INDEX_LIST has: "none",
 *		  "counter", "metrics" or "both"
 *	fields    of PERF_METRICS that KVM_SET_MSRS accepts for a vCPU that has all
 *		  that KVM supports
 *	host      fields for which perf on the host has an event
 *
 * Exit status as a kselftest: 0 passes, 4 skips (no KVM), else fails.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SKIP			4
#define MAX_CPUID		256
#define MAX_MSRS		1024

#define MSR_FIXED_CTR3		0x30c
#define MSR_PERF_METRICS	0x329
#define MSR_PERF_CAPABILITIES	0x345
#define CAP_PERF_METRICS	(1ull << 15)

#define PARAMETER	"/sys/module/kvm_intel/parameters/enable_mediated_pmu"
#define EVENTS		"/sys/bus/event_source/devices/cpu/events/"

static struct {
	const char *name;
	char value[16];
} offers[] = {
	{ "mediated", "" }, { "version", "" }, { "general", "" }, { "fixed", "" },
	{ "bit15", "" }, { "saved", "" }, { "fields", "" }, { "host", "" },
};
#define NR_OFFERS	(sizeof(offers) / sizeof(offers[0]))

static char *value_of(const char *name, size_t length)
{
	size_t i;

	for (i = 0; i < NR_OFFERS; i++) {
		if (strlen(offers[i].name) == length && !strncmp(offers[i].name, name, length))
			return offers[i].value;
	}
	return NULL;
}

static void set(const char *name, const char *value)
{
	snprintf(value_of(name, strlen(name)), sizeof(offers[0].value), "%s", value);
}

static void set_number(const char *name, unsigned int value)
{
	snprintf(value_of(name, strlen(name)), sizeof(offers[0].value), "%u", value);
}

/* The first line of a file, or "?". */
static void read_line(const char *path, char *line, int size)
{
	FILE *file = fopen(path, "r");

	if (!file || !fgets(line, size, file))
		snprintf(line, size, "?");
	if (file)
		fclose(file);
	line[strcspn(line, "\n")] = '\0';
}

/*
 * Perf has an event 0x00 with umask 0x80 and up for each field; CPUs without the
 * MSR have others by these names (arch/x86/events/intel/core.c).
 */
static unsigned int perf_fields(void)
{
	static const char *const names[] = {
		"topdown-retiring", "topdown-bad-spec", "topdown-fe-bound",
		"topdown-be-bound", "topdown-heavy-ops", "topdown-br-mispredict",
		"topdown-fetch-lat", "topdown-mem-bound",
	};
	char path[128], line[64];
	unsigned int i, n = 0;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), EVENTS "%s", names[i]);
		read_line(path, line, sizeof(line));
		n += !strncmp(line, "event=0x00,umask=0x8", 20);
	}
	return n;
}

static struct kvm_cpuid2 *supported_cpuid(int kvm)
{
	struct kvm_cpuid2 *cpuid;

	cpuid = calloc(1, sizeof(*cpuid) + MAX_CPUID * sizeof(cpuid->entries[0]));
	if (!cpuid)
		err(1, "CPUID");
	cpuid->nent = MAX_CPUID;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid))
		err(1, "KVM_GET_SUPPORTED_CPUID");
	return cpuid;
}

static void look_at_cpuid(const struct kvm_cpuid2 *cpuid)
{
	uint32_t i, eax = 0, edx = 0;

	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function == 0xa) {
			eax = cpuid->entries[i].eax;
			edx = cpuid->entries[i].edx;
		}
	}
	set_number("version", eax & 0xff);
	set_number("general", eax >> 8 & 0xff);
	set_number("fixed", edx & 0x1f);
}

static void look_at_msr_list(int kvm)
{
	struct {
		struct kvm_msr_list header;
		uint32_t indices[MAX_MSRS];
	} list = { .header.nmsrs = MAX_MSRS };
	bool counter = false, metrics = false;
	uint32_t i;

	if (ioctl(kvm, KVM_GET_MSR_INDEX_LIST, &list))
		err(1, "KVM_GET_MSR_INDEX_LIST");
	for (i = 0; i < list.header.nmsrs; i++) {
		counter |= list.indices[i] == MSR_FIXED_CTR3;
		metrics |= list.indices[i] == MSR_PERF_METRICS;
	}
	set("saved", counter && metrics ? "both" : counter ? "counter" :
		     metrics ? "metrics" : "none");
}

struct one_msr {
	struct kvm_msrs header;
	struct kvm_msr_entry entry;
};

static bool set_msr(int vcpu, uint32_t index, uint64_t data)
{
	struct one_msr msr = {
		.header.nmsrs = 1,
		.entry = { .index = index, .data = data },
	};

	return ioctl(vcpu, KVM_SET_MSRS, &msr) == 1;
}

static uint64_t perf_capabilities(int kvm)
{
	struct one_msr msr = {
		.header.nmsrs = 1,
		.entry.index = MSR_PERF_CAPABILITIES,
	};

	return ioctl(kvm, KVM_GET_MSRS, &msr) == 1 ? msr.entry.data : 0;
}

/* A field is there if its lowest and its highest bit can be set. */
static unsigned int accepted_fields(int kvm, struct kvm_cpuid2 *cpuid, uint64_t caps)
{
	int vm, vcpu, i, n = 0;

	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0 || ioctl(vm, KVM_CREATE_IRQCHIP, 0))
		err(1, "a VM");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		err(1, "a vCPU");
	if (ioctl(vcpu, KVM_SET_CPUID2, cpuid))
		err(1, "KVM_SET_CPUID2");
	if (caps && !set_msr(vcpu, MSR_PERF_CAPABILITIES, caps))
		errx(1, "KVM refuses the PERF_CAPABILITIES that it offers, 0x%llx",
		     (unsigned long long)caps);
	for (i = 0; i < 64; i += 8)
		n += set_msr(vcpu, MSR_PERF_METRICS, 1ull << i) &&
		     set_msr(vcpu, MSR_PERF_METRICS, 1ull << (i + 7));
	close(vcpu);
	close(vm);
	return n;
}

int main(int argc, char *argv[])
{
	struct kvm_cpuid2 *cpuid;
	bool differs = false;
	char line[16], *found;
	uint64_t caps;
	size_t length;
	int kvm, i;

	kvm = open("/dev/kvm", O_RDWR);
	if (kvm < 0) {
		printf("skip: no /dev/kvm\n");
		return SKIP;
	}
	read_line(PARAMETER, line, sizeof(line));
	set("mediated", line);
	cpuid = supported_cpuid(kvm);
	look_at_cpuid(cpuid);
	look_at_msr_list(kvm);
	caps = perf_capabilities(kvm);
	set_number("bit15", !!(caps & CAP_PERF_METRICS));
	set_number("fields", accepted_fields(kvm, cpuid, caps));
	set_number("host", perf_fields());

	printf("topdown-offer:");
	for (i = 0; i < (int)NR_OFFERS; i++)
		printf(" %s=%s", offers[i].name, offers[i].value);
	printf("\n");

	for (i = 1; i < argc; i++) {
		length = strcspn(argv[i], "=");
		found = value_of(argv[i], length);
		if (!found || argv[i][length] != '=')
			errx(1, "%s: not one of the names in the line above", argv[i]);
		if (strcmp(found, argv[i] + length + 1)) {
			printf("topdown-offer: want %s\n", argv[i]);
			differs = true;
		}
	}
	free(cpuid);
	return differs;
}
