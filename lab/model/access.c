// SPDX-License-Identifier: GPL-2.0
/*
 * What a hypervisor does with the PMU: how often it accesses which register by
 * RDMSR, WRMSR and RDPMC, which of the PMU's fields by VMREAD and VMWRITE, and how
 * often and why guests leave and come back.
 *
 * Registers that the CPU itself accesses at a VM entry or VM exit (lists of MSRs,
 * the controls for IA32_PERF_GLOBAL_CTRL) are counted apart, as "loaded" and
 * "stored".  What a guest does is not counted, nor is what faults.
 */
#include <inttypes.h>

#include "internal.h"

/* All that a VMCS has of the PMU (SDM vol. 3, appendix B). */
static const uint32_t fields[NR_FIELDS] = {
	0x2808,		/* guest's IA32_PERF_GLOBAL_CTRL */
	0x2c04,		/* host's */
};

/* As @by_cpu if a VM entry or VM exit does it, as @by_root if the hypervisor does. */
static void count_msr(struct pmu *pmu, enum msr_access by_cpu,
		      enum msr_access by_root, uint32_t msr)
{
	if (msr >= NR_MSRS)
		return;
	if (pmu->switching)
		pmu->accesses.msr[by_cpu][msr]++;
	else if (!pmu->context.nonroot)
		pmu->accesses.msr[by_root][msr]++;
}

void access_rdmsr(struct pmu *pmu, uint32_t msr)
{
	count_msr(pmu, STORED, RDMSR, msr);
}

void access_wrmsr(struct pmu *pmu, uint32_t msr)
{
	count_msr(pmu, LOADED, WRMSR, msr);
}

void access_rdpmc(struct pmu *pmu, unsigned int bit)
{
	if (!pmu->context.nonroot)
		pmu->accesses.rdpmc[bit]++;
}

void access_exit(struct pmu *pmu, unsigned int reason)
{
	if (reason < NR_REASONS)
		pmu->accesses.exits[reason]++;
}

void pmu_vmcs_field(struct pmu *pmu, uint32_t field, bool write)
{
	unsigned int i;

	for (i = 0; i < NR_FIELDS; i++) {
		if (field == fields[i])
			pmu->accesses.field[write][i]++;
	}
}

/* ",\"NAME\":{", or what separates a further member of it. */
static void add_member(struct line *line, const char *name, bool *first)
{
	if (*first)
		line_add(line, ",\"%s\":{", name);
	else
		line_add(line, ",");
	*first = false;
}

/* The counts that are not 0, as an object with hexadecimal numbers for names. */
static void add_counts(struct line *line, const char *name, const uint64_t *count,
		       unsigned int nr, uint32_t (*number)(unsigned int index))
{
	bool first = true;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!count[i])
			continue;
		add_member(line, name, &first);
		line_add(line, "\"0x%" PRIx32 "\":%" PRIu64, number(i), count[i]);
	}
	if (!first)
		line_add(line, "}");
}

static uint32_t same(unsigned int index)
{
	return index;
}

static uint32_t field_number(unsigned int index)
{
	return fields[index];
}

/* ECX of RDPMC for a bit of IA32_PERF_GLOBAL_CTRL. */
static uint32_t selector(unsigned int bit)
{
	if (bit == METRICS_BIT)
		return RDPMC_METRICS << 16;
	return bit < FIXED_SHIFT ? bit : RDPMC_FIXED << 16 | (bit - FIXED_SHIFT);
}

void access_emit(struct pmu *pmu, const char *head)
{
	static const char *const names[NR_MSR_ACCESSES] = {
		[RDMSR] = "rdmsr", [WRMSR] = "wrmsr",
		[STORED] = "stored", [LOADED] = "loaded",
	};
	const struct accesses *accesses = &pmu->accesses;
	struct line line = { 0 };
	unsigned int i;

	line_add(&line, "{\"type\":\"accesses\"%s,\"cpu\":%u,\"entries\":%" PRIu64,
		 head, pmu->cpu, accesses->entries);
	add_counts(&line, "exits", accesses->exits, NR_REASONS, same);
	for (i = 0; i < NR_MSR_ACCESSES; i++)
		add_counts(&line, names[i], accesses->msr[i], NR_MSRS, same);
	add_counts(&line, "rdpmc", accesses->rdpmc, 64, selector);
	add_counts(&line, "vmread", accesses->field[false], NR_FIELDS, field_number);
	add_counts(&line, "vmwrite", accesses->field[true], NR_FIELDS, field_number);
	line_add(&line, "}");
	pmu->ops->emit(pmu->opaque, line.text);
}
