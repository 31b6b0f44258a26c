/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a host needs so that its guests can count topdown, and what KVM on it offers;
 * for topdown-vm, which starts such guests, and topdown-offer, which prints the offer.
 */
#ifndef HOST_HOST_H
#define HOST_HOST_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#define SKIP			4	/* a kselftest's exit status */

#define MSR_PERF_CAPABILITIES	0x345	/* SDM volume 4, table 2-2 */
#define CAP_FULL_WIDTH		(1ull << 13)
#define CAP_PERF_METRICS	(1ull << 15)

#define MEDIATED		"/sys/module/kvm_intel/parameters/enable_mediated_pmu"

/* CPUID.0xA. */
struct pmu_leaf {
	unsigned int version, general, fixed, fixed_bitmap;
};

/* One line, "PROGRAM: missing: ..."; then the end with SKIP, unless host_force is set. */
void missing(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern bool host_force;

/* Checks the host up to a vCPU that KVM creates; calls missing() for what it lacks. */
void host_check(void);

/* Prints what host_check() went by. */
void host_print_facts(void);

/* The first line of a file of sysfs or procfs; false, and "?", if there is none. */
bool host_read_line(const char *path, char *line, int size);

/* All that KVM supports; to be freed. */
struct kvm_cpuid2 *host_supported_cpuid(int kvm);

/* What that says of the PMU. */
struct pmu_leaf host_offered_pmu(const struct kvm_cpuid2 *cpuid);

/* IA32_PERF_CAPABILITIES as a feature MSR, 0 if there is none. */
uint64_t host_offered_capabilities(int kvm);

/* In perf's event for a field of PERF_METRICS on CPUs that have the MSR? */
bool host_perf_has_field(const char *event);

#endif
