// SPDX-License-Identifier: GPL-2.0
/*
 * The ownership audit.  Every counter, the metrics and every overflow bit know
 * whose work they hold since they were last written.  A reader who gets a value
 * that holds another owner's work has learned something about it: a leak.
 *
 * Readers are guests (everything in VMX non-root operation) and user mode of the
 * host.  The host's kernel may see everything: it saves and restores guests, and
 * it reads for whoever it lets (/dev/cpu/N/msr, which takes CAP_SYS_RAWIO).  What
 * the CPU stores at a VM exit, by the list of MSRs to store, it stores for the
 * host's kernel as well.  A hypervisor that takes another's value for its
 * guest's, read like this or otherwise, gives it to the guest later: that is seen
 * then, as a value that the guest did not leave (conserve.c).
 */
#include <inttypes.h>
#include <string.h>

#include "internal.h"

/* An entry of the local vector table, SDM vol. 3, figure "Local Vector Table". */
#define LVT_MODE	(7u << 8)
#define LVT_NMI		(4u << 8)
#define LVT_MASKED	(1u << 16)

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
void add_history(struct line *line, const struct audit *audit)
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
		   uint64_t value, const struct holders *holders, const char *more)
{
	struct line line = { 0 };
	unsigned int i;

	line_add(&line, "{\"type\":\"%s\",\"cpu\":%u,\"reg\":\"%s\","
		 "\"value\":\"0x%" PRIx64 "\"%s,\"reader\":", type, pmu->cpu, reg,
		 value, more);
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

/* Count a leak; is there room for its line? */
static bool leak_allowed(struct pmu *pmu)
{
	pmu->audit.leaks++;
	pmu->machine->registry->leaks++;
	return pmu->machine->registry->leak_lines++ < MAX_LINES;
}

/* @index is the number of the counter, appended to @reg unless that is a name. */
void audit_read(struct pmu *pmu, const char *reg, unsigned int index,
		uint64_t value, const struct holders *holders)
{
	bool trusted = !pmu->context.nonroot && !pmu->context.cpl;
	struct line name = { 0 };

	if (trusted || pmu->leaving || !value || !holds_another(holders, pmu->account))
		return;
	if (!leak_allowed(pmu))
		return;
	if (!strcmp(reg, "PMC") || !strcmp(reg, "FIXED_CTR"))
		line_add(&name, "%s%u", reg, index);
	else
		line_add(&name, "%s", reg);
	report(pmu, "leak", name.text, value, holders, "");
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

/* A guest whose counters are hardware's, not the host's: see conserve.c. */
static bool owns_pmu(const struct account *account)
{
	return (account->nonroot && account->owner == DEPARTED) ||
	       (account->guest && account->guest->owned);
}

/* Whose PMIs the host's kernel takes by which LVTPC entry, see audit_pmi(). */
static const char *misdelivered(const struct pmu *pmu, uint32_t lvtpc,
				const struct holders *holders)
{
	bool nmi = (lvtpc & LVT_MODE) == LVT_NMI;
	unsigned int i;

	if (lvtpc & LVT_MASKED)
		return NULL;
	if (pmu->context.nonroot && owns_pmu(pmu->account) &&
	    holds_another(holders, pmu->account))
		return "a guest is told of another's work";
	for (i = 0; i < holders->nr; i++) {
		if (nmi && owns_pmu(holders->account[i]))
			return "the host is told of a guest's counter";
		if (!nmi && !owns_pmu(holders->account[i]))
			return "a guest is told of the host's counter";
	}
	return NULL;
}

/*
 * A PMI tells that a counter overflowed.  Who is told depends on who runs and on
 * LVTPC: Linux's perf takes the host's PMIs as NMIs (perf_events_lapic_init() in
 * arch/x86/events/core.c), and KVM, which gives counters to guests, takes theirs
 * by a vector of its own while they are loaded (perf_load_guest_lvtpc()).  So an
 * unmasked PMI is a leak
 *
 * - in a guest that owns its counters, if the counter holds another's work;
 * - as NMI, if it holds the work of such a guest, wherever it comes: the host's
 *   perf is told;
 * - by a vector, if it holds the work of the host or of another guest whose
 *   counters are the host's: KVM tells the guest;
 * - by a vector, if another guest has run when the CPU takes the interrupt, as
 *   KVM tells the one that it has loaded (kvm_handle_guest_mediated_pmi()).
 *
 * Guests whose counters are the host's get a PMI only when the host's perf says
 * so.  A PMI for a counter that counts across them is no leak; the "pmi" line is
 * there for whoever searches a lost one.
 */
void audit_pmi(struct pmu *pmu, uint64_t overflow)
{
	uint32_t lvtpc = pmu->ops->lvtpc(pmu->opaque);
	struct holders holders = { 0 };
	struct line more = { 0 };
	const char *why;
	unsigned int bit;

	pmu->audit.pmis_seen++;
	for (bit = 0; bit < 64; bit++) {
		if (overflow & BIT(bit))
			holders_merge(&holders, &pmu->status_holders[bit]);
	}
	why = misdelivered(pmu, lvtpc, &holders);
	if (why) {
		line_add(&more, ",\"why\":\"%s\",\"lvtpc\":\"0x%x\"", why, lvtpc);
		if (leak_allowed(pmu))
			report(pmu, "leak", "PMI", overflow, &holders, more.text);
		return;
	}
	if (!(lvtpc & LVT_MASKED)) {
		pmu->pmi_guest = owns_pmu(pmu->account) ? pmu->account : NULL;
		pmu->pmi_overflow = overflow;
	}
	if (!pmu->context.nonroot || !holds_another(&holders, pmu->account))
		return;
	if (pmu->audit.pmis++ < MAX_LINES)
		report(pmu, "pmi", "GLOBAL_STATUS", overflow, &holders, "");
}

void pmu_pmi_taken(struct pmu *pmu)
{
	struct holders holders = { 0 };

	if (pmu->pmi_guest && pmu->pmi_guest != pmu->last_guest && leak_allowed(pmu)) {
		holders_add(&holders, pmu->pmi_guest);
		report(pmu, "leak", "PMI", pmu->pmi_overflow, &holders,
		       ",\"why\":\"another guest has run when it is taken\"");
	}
	pmu->pmi_guest = NULL;
}

/* A guest is no more: what it left in registers is not its successor's. */
static void depart(struct pmu *pmu, struct holders *holders, uint64_t owner)
{
	struct holders old = *holders;
	unsigned int i;

	holders_clear(holders);
	holders->more = old.more;
	for (i = 0; i < old.nr; i++) {
		if (old.account[i]->nonroot && old.account[i]->owner == owner)
			holders_add(holders, &pmu->departed);
		else
			holders_add(holders, old.account[i]);
	}
}

void audit_depart(struct pmu *pmu, uint64_t owner)
{
	unsigned int i;

	for (i = 0; i < PMU_MAX_GP; i++)
		depart(pmu, &pmu->gp[i].holders, owner);
	for (i = 0; i < PMU_MAX_FIXED; i++)
		depart(pmu, &pmu->fixed[i].holders, owner);
	for (i = 0; i < 64; i++)
		depart(pmu, &pmu->status_holders[i], owner);
	depart(pmu, &pmu->hidden_holders, owner);
}

/* A program of the host's plan begins or ends: lines may be written again. */
void audit_section(struct pmu *pmu, uint64_t id)
{
	struct registry *registry = pmu->machine->registry;
	struct line line = { 0 };

	line_add(&line, "{\"type\":\"section\",\"cpu\":%u,\"id\":%" PRIu64
		 ",\"program\":%" PRIu64 ",\"ends\":%s,\"leaks\":%" PRIu64
		 ",\"lost\":%" PRIu64 "}", pmu->cpu, id, (id - PMU_SECTION) / 2,
		 id & 1 ? "true" : "false", registry->leaks, registry->lost);
	pmu->ops->emit(pmu->opaque, line.text);
	registry->leak_lines = 0;
	registry->lost_lines = 0;
}

void audit_total(struct pmu *pmu)
{
	const struct audit *audit = &pmu->audit;
	struct line line = { 0 };

	line_add(&line, "{\"type\":\"audit\",\"cpu\":%u,\"leaks\":%" PRIu64
		 ",\"foreign_pmis\":%" PRIu64 ",\"world_switches\":%" PRIu64,
		 pmu->cpu, audit->leaks, audit->pmis, audit->switches);
	line_add(&line, ",\"pmis\":%" PRIu64 ",\"audited\":%" PRIu64
		 ",\"compared\":%" PRIu64 ",\"by_instruction\":%" PRIu64
		 ",\"by_write\":%" PRIu64 ",\"by_nesting\":%" PRIu64
		 ",\"sums\":%" PRIu64 ",\"lost\":%" PRIu64 "}", audit->pmis_seen,
		 audit->audited, audit->compared,
		 audit->explained[BY_INSTRUCTION], audit->explained[BY_WRITE],
		 audit->explained[BY_NESTING], audit->sums, audit->lost);
	pmu->ops->emit(pmu->opaque, line.text);
}
