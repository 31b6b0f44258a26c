// SPDX-License-Identifier: GPL-2.0
/*
 * The ownership audit.  Every counter, the metrics and every overflow bit know
 * whose work they hold since they were last written.  A reader who gets a value
 * that holds another owner's work has learned something about it: a leak.
 *
 * Readers are guests (everything in VMX non-root operation) and user mode of the
 * host.  The host's kernel may see everything: it saves and restores guests.
 */
#include <inttypes.h>
#include <string.h>

#include "internal.h"

#define MAX_LINES	100	/* of one kind; more are counted, not written */

void holders_clear(struct holders *holders)
{
	memset(holders, 0, sizeof(*holders));
}

void holders_add(struct holders *holders, const struct account *account)
{
	unsigned int i;

	for (i = 0; i < holders->nr; i++) {
		if (holders->account[i] == account)
			return;
	}
	if (holders->nr < MAX_HOLDERS)
		holders->account[holders->nr++] = account;
	else
		holders->more = true;
}

void holders_merge(struct holders *holders, const struct holders *other)
{
	unsigned int i;

	for (i = 0; i < other->nr; i++)
		holders_add(holders, other->account[i]);
	holders->more |= other->more;
}

/* With @more there are several, so one at least is another. */
static bool holds_another(const struct holders *holders,
			  const struct account *account)
{
	unsigned int i;

	for (i = 0; i < holders->nr; i++) {
		if (holders->account[i] != account)
			return true;
	}
	return false;
}

void audit_switch(struct pmu *pmu, const struct account *to,
		  const struct pmu_context *context)
{
	struct audit *audit = &pmu->audit;

	audit->history[audit->switches++ % MAX_HISTORY] = (struct world_switch){
		.from = pmu->account,
		.to = to,
		.vmcs = context->vmcs,
		.rip = context->rip,
	};
}

/* The last world switches, newest first. */
static void add_history(struct line *line, const struct audit *audit)
{
	const struct world_switch *entry;
	uint64_t n = audit->switches < MAX_HISTORY ? audit->switches : MAX_HISTORY;
	uint64_t i;

	line_add(line, ",\"history\":[");
	for (i = 1; i <= n; i++) {
		entry = &audit->history[(audit->switches - i) % MAX_HISTORY];
		line_add(line, "%s{\"from\":", i > 1 ? "," : "");
		line_owner(line, entry->from);
		line_add(line, ",\"to\":");
		line_owner(line, entry->to);
		line_add(line, ",\"vmcs\":\"0x%" PRIx64 "\",\"rip\":\"0x%" PRIx64 "\"}",
			 entry->vmcs, entry->rip);
	}
	line_add(line, "]");
}

static void report(struct pmu *pmu, const char *type, const char *reg,
		   uint64_t value, const struct holders *holders)
{
	struct line line = { 0 };
	unsigned int i;

	line_add(&line, "{\"type\":\"%s\",\"cpu\":%u,\"reg\":\"%s\","
		 "\"value\":\"0x%" PRIx64 "\",\"reader\":", type, pmu->cpu, reg,
		 value);
	line_owner(&line, pmu->account);
	line_add(&line, ",\"cpl\":%u,\"owners\":[", pmu->context.cpl);
	for (i = 0; i < holders->nr; i++) {
		line_add(&line, i ? "," : "");
		line_owner(&line, holders->account[i]);
	}
	if (holders->more)
		line_add(&line, ",\"more\"");
	line_add(&line, "],\"rip\":\"0x%" PRIx64 "\"", pmu->context.rip);
	add_history(&line, &pmu->audit);
	line_add(&line, "}");
	pmu->ops->emit(pmu->opaque, line.text);
}

/* @index is the number of the counter, appended to @reg unless that is a name. */
void audit_read(struct pmu *pmu, const char *reg, unsigned int index,
		uint64_t value, const struct holders *holders)
{
	bool trusted = !pmu->context.nonroot && !pmu->context.cpl;
	struct line name = { 0 };

	if (trusted || !value || !holds_another(holders, pmu->account))
		return;
	if (pmu->audit.leaks++ >= MAX_LINES)
		return;
	if (!strcmp(reg, "PMC") || !strcmp(reg, "FIXED_CTR"))
		line_add(&name, "%s%u", reg, index);
	else
		line_add(&name, "%s", reg);
	report(pmu, "leak", name.text, value, holders);
}

void audit_status(struct pmu *pmu, uint64_t value)
{
	struct holders holders = { 0 };
	unsigned int bit;

	for (bit = 0; bit < 64; bit++) {
		if (value & BIT(bit))
			holders_merge(&holders, &pmu->status_holders[bit]);
	}
	audit_read(pmu, "GLOBAL_STATUS", 0, value, &holders);
}

/*
 * A PMI in non-root operation for a counter that holds another's work too.  Not
 * a leak by itself: a hypervisor that counts across guests takes a VM exit and
 * the guest sees nothing.  The line is there for whoever searches a lost PMI.
 */
void audit_pmi(struct pmu *pmu, uint64_t overflow)
{
	struct holders holders = { 0 };
	unsigned int bit;

	for (bit = 0; bit < 64; bit++) {
		if (overflow & BIT(bit))
			holders_merge(&holders, &pmu->status_holders[bit]);
	}
	if (!pmu->context.nonroot || !holds_another(&holders, pmu->account))
		return;
	if (pmu->audit.pmis++ < MAX_LINES)
		report(pmu, "pmi", "GLOBAL_STATUS", overflow, &holders);
}

void audit_total(struct pmu *pmu)
{
	struct line line = { 0 };

	line_add(&line, "{\"type\":\"audit\",\"cpu\":%u,\"leaks\":%" PRIu64
		 ",\"foreign_pmis\":%" PRIu64 ",\"world_switches\":%" PRIu64 "}",
		 pmu->cpu, pmu->audit.leaks, pmu->audit.pmis,
		 pmu->audit.switches);
	pmu->ops->emit(pmu->opaque, line.text);
}
