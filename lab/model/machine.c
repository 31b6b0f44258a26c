// SPDX-License-Identifier: GPL-2.0
/*
 * Machine descriptions: "key = value" lines into a struct pmu_machine.
 *
 * lab/machine/icelake shows the keys with their meaning; keys that are left out
 * have the values of Ice Lake.  Beside those there are pmu.pdcm (0: the machine
 * has no IA32_PERF_CAPABILITIES), pmu.cpuN.perf_capabilities (one CPU that
 * differs), and pmu.before.*.
 *
 * At power on the registers of the PMU are zero, but Linux need not be the first that
 * runs: firmware can use counters and leave them to themselves, for which Linux has a
 * message (check_hw_exists() in arch/x86/events/core.c), and a kernel that was started
 * by kexec finds what the crashed one had.  pmu.before.* are what such a one left, on
 * each CPU: the values of general counters (gp), fixed counters (fixed, of counter 3
 * slots), PERF_METRICS (metrics), overflows (status); an event selector and a mask of the
 * general counters that have it (selector, selectors), FIXED_CTR_CTRL (fixed_ctrl), and
 * bits of GLOBAL_CTRL beside those that are set at power on (global_ctrl).
 *
 * A description that contradicts itself is refused here, so that the rest of
 * the model never meets one.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Where the parser stands, for its messages. */
struct parser {
	struct pmu_machine *machine;
	unsigned int line;
	char *error;
	size_t error_size;
	uint64_t seen;
	bool seen_name;
};

struct key {
	const char *name;
	size_t offset;
	uint64_t min;
	uint64_t max;
	const char *words[3];	/* instead of numbers, NULL terminated */
};

#define KEY(name, field, min, max)					\
	{ "pmu." name, offsetof(struct pmu_machine, field), min, max, { NULL } }
#define WORDS(name, field, zero, one)					\
	{ "pmu." name, offsetof(struct pmu_machine, field), 0, 1, { zero, one, NULL } }

/*
 * A counter of 48 bits is the widest there is, and lets 255 * count fit in 64
 * bits.  Penalties are bounded so that their products with any count do, too.
 */
static const struct key keys[] = {
	KEY("version", version, 2, 5),
	KEY("gp_counters", gp_counters, 1, PMU_MAX_GP),
	KEY("fixed_bitmap", fixed_bitmap, 0, 0x7f),
	KEY("gp_width", gp_width, 32, 48),
	KEY("fixed_width", fixed_width, 32, 48),
	KEY("events", events, 7, 13),
	KEY("pdcm", pdcm, 0, 1),
	KEY("perf_capabilities", capabilities, 0, UINT64_MAX),
	KEY("metrics", metrics, 0, PMU_MAX_METRICS),
	KEY("width", width, 1, 16),
	KEY("save_global_ctrl", save_global_ctrl, 0, 1),
	KEY("asci", asci, 0, 1),
	WORDS("metrics_write", metrics_keep, "rederive", "keep"),
	WORDS("metrics_reserved", metrics_ignore, "gp", "ignore"),
	WORDS("metrics_rounding", metrics_truncate, "nearest", "truncate"),
	KEY("penalty.dependency", penalty.dependency, 0, 1024),
	KEY("penalty.branch", penalty.branch, 0, 1024),
	KEY("penalty.branch_miss", penalty.branch_miss, 0, 1024),
	KEY("penalty.fetch_miss", penalty.fetch_miss, 0, 1024),
	KEY("penalty.page_walk", penalty.page_walk, 0, 1024),
	KEY("penalty.line_flush", penalty.line_flush, 0, 1024),
	KEY("before.gp", before.gp, 0, UINT64_MAX),
	KEY("before.fixed", before.fixed, 0, UINT64_MAX),
	KEY("before.slots", before.slots, 0, UINT64_MAX),
	KEY("before.metrics", before.metrics, 0, UINT64_MAX),
	KEY("before.status", before.status, 0, UINT64_MAX),
	KEY("before.selector", before.selector, 0, UINT32_MAX),
	KEY("before.selectors", before.selectors, 0, MASK(PMU_MAX_GP)),
	KEY("before.fixed_ctrl", before.fixed_ctrl, 0, UINT64_MAX),
	KEY("before.global_ctrl", before.global_ctrl, 0, UINT64_MAX),
};

/* Ice Lake: SDM table 2-2, CPUID leaf 0xA as read on such machines. */
static const struct pmu_machine defaults = {
	.version = 5,
	.gp_counters = 8,
	.fixed_bitmap = 0xf,
	.gp_width = 48,
	.fixed_width = 48,
	.events = 8,
	.pdcm = 1,
	.capabilities = CAP_FULL_WIDTH | CAP_METRICS,
	.metrics = 4,
	.width = 5,
	.penalty = {
		.dependency = 6,
		.branch = 1,
		.branch_miss = 40,
		.fetch_miss = 40,
		.page_walk = 60,
		.line_flush = 200,
	},
};

static bool __attribute__((format(printf, 2, 3)))
fail(struct parser *parser, const char *format, ...)
{
	va_list args;
	int n = 0;

	if (parser->line)
		n = snprintf(parser->error, parser->error_size, "line %u: ",
			     parser->line);
	if (n >= 0 && (size_t)n < parser->error_size) {
		va_start(args, format);
		vsnprintf(parser->error + n, parser->error_size - n, format, args);
		va_end(args);
	}
	return false;
}

static bool parse_number(struct parser *parser, const char *key,
			 const char *text, uint64_t min, uint64_t max,
			 uint64_t *number)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, hex ? 16 : 10);
	if (!isdigit((unsigned char)text[0]) || *end || errno)
		return fail(parser, "%s: '%s' is not a number; write decimal or 0x hexadecimal",
			    key, text);
	if (n < min || n > max)
		return fail(parser, "%s: %s is out of range; use 0x%llx to 0x%llx",
			    key, text, (unsigned long long)min,
			    (unsigned long long)max);
	*number = n;
	return true;
}

static bool parse_value(struct parser *parser, const struct key *key,
			const char *text)
{
	uint64_t *field = (uint64_t *)((char *)parser->machine + key->offset);
	unsigned int i;

	if (!key->words[0])
		return parse_number(parser, key->name, text, key->min, key->max,
				    field);

	for (i = 0; key->words[i]; i++) {
		if (!strcmp(text, key->words[i])) {
			*field = i;
			return true;
		}
	}
	return fail(parser, "%s: '%s' is unknown; use %s or %s", key->name, text,
		    key->words[0], key->words[1]);
}

/* pmu.cpu1.perf_capabilities = 0x2000 */
static bool parse_cpu(struct parser *parser, const char *name, const char *text)
{
	struct cpu_override *cpu;
	unsigned long n;
	char *end;

	n = strtoul(name + strlen("pmu.cpu"), &end, 10);
	if (strcmp(end, ".perf_capabilities"))
		return fail(parser, "%s: unknown key; a CPU of its own can have pmu.cpuN.perf_capabilities",
			    name);
	if (n >= MACHINE_MAX_CPUS)
		return fail(parser, "%s: there is no such CPU; use 0 to %d", name,
			    MACHINE_MAX_CPUS - 1);
	cpu = &parser->machine->cpu[n];
	if (cpu->has_capabilities)
		return fail(parser, "%s: given twice; remove one", name);
	cpu->has_capabilities = true;
	return parse_number(parser, name, text, 0, UINT64_MAX, &cpu->capabilities);
}

/* The name goes into JSON as it is. */
static bool parse_name(struct parser *parser, const char *text)
{
	const char *c;

	for (c = text; *c; c++) {
		if (!isalnum((unsigned char)*c) && !strchr("-_.", *c))
			return fail(parser, "name: '%s' has a character other than letters, digits, '-', '_' and '.'",
				    text);
	}
	if (!*text || strlen(text) >= sizeof(parser->machine->name))
		return fail(parser, "name: '%s' is empty or too long", text);
	if (parser->seen_name)
		return fail(parser, "name: given twice; remove one");
	parser->seen_name = true;
	strcpy(parser->machine->name, text);
	return true;
}

static bool parse_key(struct parser *parser, const char *name, const char *text)
{
	const char *cpu = "pmu.cpu";
	unsigned int i;

	if (!strcmp(name, "name"))
		return parse_name(parser, text);
	if (strncmp(name, "pmu.", 4))
		return true;
	for (i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strcmp(name, keys[i].name))
			continue;
		if (parser->seen & BIT(i))
			return fail(parser, "%s: given twice; remove one", name);
		parser->seen |= BIT(i);
		return parse_value(parser, &keys[i], text);
	}
	if (!strncmp(name, cpu, strlen(cpu)) && isdigit((unsigned char)name[strlen(cpu)]))
		return parse_cpu(parser, name, text);
	return fail(parser, "%s: unknown key; lab/model/machine.c lists the known ones",
		    name);
}

/* Cut white space off both ends, in place. */
static char *trim(char *text)
{
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	end = text + strlen(text);
	while (end > text && isspace((unsigned char)end[-1]))
		end--;
	*end = '\0';
	return text;
}

static bool parse_line(struct parser *parser, char *text)
{
	char *value;

	text[strcspn(text, "#")] = '\0';
	text = trim(text);
	if (!*text)
		return true;
	value = strchr(text, '=');
	if (!value)
		return fail(parser, "'%s' has no '='; write key = value", text);
	*value++ = '\0';
	return parse_key(parser, trim(text), trim(value));
}

static bool check_capabilities(struct parser *parser, const char *key,
			       uint64_t capabilities)
{
	const struct pmu_machine *machine = parser->machine;
	uint64_t unknown = capabilities & ~(CAP_FULL_WIDTH | CAP_METRICS);

	if (unknown)
		return fail(parser, "%s: 0x%llx has no model; only bits 13 and 15 do",
			    key, (unsigned long long)unknown);
	if (capabilities & CAP_METRICS && !machine->metrics)
		return fail(parser, "%s: bit 15 needs pmu.metrics = 4 or 8", key);
	if (capabilities && !machine->pdcm)
		return fail(parser, "%s: needs pmu.pdcm = 1", key);
	return true;
}

/* What was before must be what the registers can hold. */
static bool check_before(struct parser *parser)
{
	const struct pmu_machine *machine = parser->machine;
	const struct before *before = &machine->before;
	uint64_t counters = MASK(machine->gp_counters) | machine->fixed_bitmap << FIXED_SHIFT;
	uint64_t nibbles = 0;
	unsigned int i;

	for (i = 0; i < PMU_MAX_FIXED; i++) {
		if (machine->fixed_bitmap & BIT(i))
			nibbles |= (FIXED_OS | FIXED_USR | FIXED_PMI) << 4 * i;
	}
	if (before->gp & ~MASK(machine->gp_width))
		return fail(parser, "pmu.before.gp: is wider than pmu.gp_width");
	if ((before->fixed | before->slots) & ~MASK(machine->fixed_width))
		return fail(parser, "pmu.before.fixed, pmu.before.slots: wider than pmu.fixed_width");
	if (before->slots && !(machine->fixed_bitmap & BIT(SLOTS_INDEX)))
		return fail(parser, "pmu.before.slots: needs fixed counter 3 in pmu.fixed_bitmap");
	if (before->metrics & ~MASK(8 * machine->metrics))
		return fail(parser, "pmu.before.metrics: has more fields than pmu.metrics");
	if (before->metrics && !before->slots)
		return fail(parser, "pmu.before.metrics: are fractions of pmu.before.slots, which is 0");
	if (before->selectors & ~MASK(machine->gp_counters))
		return fail(parser, "pmu.before.selectors: has more than pmu.gp_counters");
	if (before->fixed_ctrl & ~nibbles)
		return fail(parser, "pmu.before.fixed_ctrl: has bits of no counter in pmu.fixed_bitmap");
	if (machine->metrics)
		counters |= BIT(METRICS_BIT);
	if ((before->global_ctrl | before->status) & ~counters)
		return fail(parser, "pmu.before.global_ctrl, pmu.before.status: have bits of no counter");
	return true;
}

/* Conditions that involve more than one key. */
static bool check(struct parser *parser)
{
	const struct pmu_machine *machine = parser->machine;
	uint64_t fixed = machine->fixed_bitmap;
	unsigned int i;

	parser->line = 0;
	if (!parser->seen_name)
		return fail(parser, "name: missing; write name = NAME");
	if (machine->metrics != 0 && machine->metrics != 4 && machine->metrics != 8)
		return fail(parser, "pmu.metrics: must be 0, 4 or 8");
	if (machine->metrics && !(fixed & BIT(SLOTS_INDEX)))
		return fail(parser, "pmu.metrics: needs fixed counter 3 in pmu.fixed_bitmap");
	if (machine->metrics && !(machine->capabilities & CAP_METRICS))
		return fail(parser, "pmu.metrics: needs bit 15 in pmu.perf_capabilities");
	if (machine->version < 5 && fixed & (fixed + 1))
		return fail(parser, "pmu.fixed_bitmap: gaps need pmu.version = 5");
	if (!check_capabilities(parser, "pmu.perf_capabilities",
				machine->capabilities))
		return false;
	for (i = 0; i < MACHINE_MAX_CPUS; i++) {
		if (machine->cpu[i].has_capabilities &&
		    !check_capabilities(parser, "pmu.cpuN.perf_capabilities",
					machine->cpu[i].capabilities))
			return false;
	}
	return check_before(parser);
}

static bool parse(struct parser *parser, char *text)
{
	char *next;

	while (text) {
		next = strchr(text, '\n');
		if (next)
			*next++ = '\0';
		parser->line++;
		if (!parse_line(parser, text))
			return false;
		text = next;
	}
	return check(parser);
}

struct pmu_machine *pmu_machine_parse(const char *text, char *error,
				      size_t error_size)
{
	struct parser parser = { .error = error, .error_size = error_size };
	struct registry *registry = calloc(1, sizeof(*registry));
	struct pmu_machine *machine = malloc(sizeof(*machine));
	char *copy = malloc(strlen(text) + 1);
	bool ok = false;

	if (machine && copy && registry) {
		*machine = defaults;
		machine->registry = registry;
		strcpy(copy, text);
		parser.machine = machine;
		ok = parse(&parser, copy);
	} else {
		fail(&parser, "out of memory");
	}
	free(copy);
	if (!ok) {
		free(registry);
		free(machine);
		machine = NULL;
	}
	return machine;
}

void pmu_machine_free(struct pmu_machine *machine)
{
	if (machine)
		registry_free(machine->registry);
	free(machine);
}

const char *pmu_machine_name(const struct pmu_machine *machine)
{
	return machine->name;
}

bool pmu_machine_saves_global_ctrl(const struct pmu_machine *machine)
{
	return machine->save_global_ctrl;
}

bool pmu_machine_has_pdcm(const struct pmu_machine *machine)
{
	return machine->pdcm;
}

uint64_t machine_capabilities(const struct pmu_machine *machine,
			      unsigned int cpu)
{
	if (cpu < MACHINE_MAX_CPUS && machine->cpu[cpu].has_capabilities)
		return machine->cpu[cpu].capabilities;
	return machine->capabilities;
}

/*
 * AnyThread came with version 3.  From version 5 CPUID.0AH:EDX[15] can
 * deprecate it, as Ice Lake and later do.
 */
bool machine_has_anythread(const struct pmu_machine *machine)
{
	return machine->version == 3 || machine->version == 4;
}

/*
 * SDM vol. 2, CPUID leaf 0AH.  EBX has a bit set for each event that does not
 * exist; of the 13 that EAX[31:24] can cover the model lacks LBR inserts.
 * EDX[4:0] is the number of contiguous fixed counters from 0; from version 5
 * ECX has a bit for each fixed counter.
 */
void pmu_machine_cpuid(const struct pmu_machine *machine, uint32_t regs[4])
{
	uint32_t contiguous = 0;

	while (machine->fixed_bitmap & BIT(contiguous))
		contiguous++;

	regs[0] = machine->version | machine->gp_counters << 8 |
		  machine->gp_width << 16 | machine->events << 24;
	regs[1] = machine->events > 12 ? BIT(12) : 0;
	regs[2] = machine->version >= 5 ? machine->fixed_bitmap : 0;
	regs[3] = contiguous | machine->fixed_width << 5;
	if (machine->version >= 5)
		regs[3] |= BIT(15);
}
