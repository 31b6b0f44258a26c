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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../../host/host.h"

#define MAX_MSRS		1024

#define MSR_FIXED_CTR3		0x30c
#define MSR_PERF_METRICS	0x329

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

static unsigned int perf_fields(void)
{
	static const char *const names[] = {
		"topdown-retiring", "topdown-bad-spec", "topdown-fe-bound",
		"topdown-be-bound", "topdown-heavy-ops", "topdown-br-mispredict",
		"topdown-fetch-lat", "topdown-mem-bound",
	};
	unsigned int i, n = 0;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		n += host_perf_has_field(names[i]);
	return n;
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
	struct pmu_leaf pmu;
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
	host_read_line(MEDIATED, line, sizeof(line));
	set("mediated", line);
	cpuid = host_supported_cpuid(kvm);
	pmu = host_offered_pmu(cpuid);
	set_number("version", pmu.version);
	set_number("general", pmu.general);
	set_number("fixed", pmu.fixed);
	look_at_msr_list(kvm);
	caps = host_offered_capabilities(kvm);
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
