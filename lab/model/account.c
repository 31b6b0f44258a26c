// SPDX-License-Identifier: GPL-2.0
/*
 * Owners of work: an account for each on each CPU, the guests of a machine by
 * their identity, and which owners' work a register holds.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

void line_owner(struct line *line, const struct account *account)
{
	if (account->nonroot && account->owner == DEPARTED)
		line_add(line, "\"departed\"");
	else if (account->nonroot && account->owner == BEFORE)
		line_add(line, "\"before\"");
	else if (account->nonroot)
		line_add(line, "\"0x%" PRIx64 "\"", account->owner);
	else
		line_add(line, "\"root\"");
}

static struct guest *guest_of(struct pmu *pmu, uint64_t owner)
{
	struct registry *registry = pmu->machine->registry;
	struct guest *guest;

	for (guest = registry->guests; guest; guest = guest->next) {
		if (guest->owner == owner)
			return guest;
	}
	guest = calloc(1, sizeof(*guest));
	if (!guest)
		return NULL;
	guest->owner = owner;
	guest->next = registry->guests;
	registry->guests = guest;
	return guest;
}

void registry_free(struct registry *registry)
{
	struct guest *guest, *next;

	for (guest = registry ? registry->guests : NULL; guest; guest = next) {
		next = guest->next;
		free(guest);
	}
	free(registry);
}

/*
 * A guest is found by identity.  When memory is short, all further guests
 * share one account, whose owner is all ones.
 */
struct account *account_of(struct pmu *pmu, bool nonroot, uint64_t owner)
{
	struct account *account;

	if (!nonroot)
		return &pmu->root;
	for (account = pmu->root.next; account; account = account->next) {
		if (account->owner == owner)
			return account;
	}
	account = calloc(1, sizeof(*account));
	if (!account) {
		pmu->spill.nonroot = true;
		pmu->spill.owner = UINT64_MAX;
		return &pmu->spill;
	}
	account->nonroot = true;
	account->owner = owner;
	account->guest = guest_of(pmu, owner);
	account->next = pmu->root.next;
	pmu->root.next = account;
	return account;
}

void account_free(struct pmu *pmu)
{
	struct account *account = pmu->root.next, *next;

	for (; account; account = next) {
		next = account->next;
		free(account);
	}
}

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
