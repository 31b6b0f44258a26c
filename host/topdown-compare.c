// SPDX-License-Identifier: GPL-2.0
/*
 * Sets what perf counted in a guest beside what it counted for the same workload on the
 * bare host, where there is no ground truth.
 *
 *	topdown-compare [-t HUNDREDTHS] DIR
 *
 * Reads DIR/console.log as topdown-check writes it, prints a table, and as the last line
 *
 *	topdown: largest difference X.XX points over N workloads
 *
 *   -t HUNDREDTHS	by so much fractions may differ, in hundredths of a point (1000)
 *
 * Exits with 1 if something differs, with 2 if there is nothing to compare, with 4 if
 * topdown is not available: a program said "missing:", or perf has no topdown events in
 * any measurement.
 */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lab/judge/measured.h"

/*
 * Two runs on real hardware are never the same.  What is the same work in a guest and on
 * bare metal has to give about the same fractions; its page walks, which have two
 * dimensions in a guest, take more slots.  Nobody has measured on hardware how near the
 * two come: these limits are there to tell a PMU that works from one that does not.
 */
#define BARE_POINTS	1000		/* hundredths of a percentage point */
#define BARE_FACTOR	2		/* slots */

/* Workloads that are not the same work in a guest: they leave it, or wait. */
static const char *const apart[] = { "exits", "messaging" };

static long limit = BARE_POINTS;

/* What perf counted of the same on the host, in the truth's place. */
static void find_bare(struct measurement *m)
{
	unsigned int i;

	for (i = 0; i < nr_measured; i++) {
		const struct measurement *host = &measured[i];

		if (host->who || strcmp(host->shape_name, m->shape_name) ||
		    strcmp(host->workload, m->workload))
			continue;
		if (!host->ended || host->status || !host->slots) {
			fail(m, "on bare metal: %s",
			     host->last[0] ? host->last : "perf printed no slots");
			return;
		}
		if (host->percent != 100)
			fail(m, "on bare metal perf counted only %" PRIu64 " %% of the time",
			     host->percent);
		m->true_slots = host->slots;
		memcpy(m->true_metric, host->metric, sizeof(m->true_metric));
		return;
	}
	fail(m, "was not measured on bare metal");
}

/* The host's are what guests' are compared with. */
static bool is_shown(const struct measurement *m)
{
	return m->who;
}

static bool is_judged(const struct measurement *m)
{
	unsigned int i;

	for (i = 0; i < sizeof(apart) / sizeof(apart[0]); i++)
		if (!strcmp(apart[i], m->workload))
			return false;
	return true;
}

static long tolerance(const struct measurement *m)
{
	(void)m;
	return limit;
}

static void compare(struct measurement *m);

static void print_end(const struct measurement *m)
{
	long times = measured_percent(m->slots, m->true_slots);

	printf("   x%ld.%02ld\n", times / WHOLE, times / 100 % 100);
}

static const struct beside bare_metal = {
	.column = "bare",
	.where = "on bare metal",
	.end = "  slots",
	.unjudged = "Not judged, as it is other work in a guest: ",
	.unjudged_more = "",
	.normalized = true,
	.is_shown = is_shown,
	.is_judged = is_judged,
	.tolerance = tolerance,
	.compare = compare,
	.print_end = print_end,
};

static void compare(struct measurement *m)
{
	find_bare(m);
	if (m->why[0])
		return;
	if (is_judged(m) && (m->slots > BARE_FACTOR * m->true_slots ||
			     m->slots * BARE_FACTOR < m->true_slots))
		fail(m, "perf counted %" PRIu64 " slots, on bare metal %" PRIu64, m->slots,
		     m->true_slots);
	if (m->percent != 100)
		fail(m, "perf counted only %" PRIu64 " %% of the time", m->percent);
	measured_metrics(m, &bare_metal);
}

int main(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "t:")) >= 0) {
		if (option != 't')
			return 2;
		limit = atol(optarg);
	}
	if (optind != argc - 1)
		errx(2, "usage: topdown-compare [-t HUNDREDTHS] DIR");
	measured_read(argv[optind]);
	measured_compare(&bare_metal);
	measured_print(&bare_metal);
	return measured_conclude(&bare_metal, limit);
}
