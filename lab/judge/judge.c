// SPDX-License-Identifier: GPL-2.0
/*
 * Judges a run of the emulated host: PASS, FAIL or ERROR for each program of its
 * plan and for the boot itself.
 *
 *	judge [-q] [-e EXPECTATIONS] [-r RESULTS] DIR
 *
 * Reads DIR/plan, console.log, emulator.log and .out, truth.jsonl and result.
 * Prints one line each, "OUTCOME RUN/NAME: why", and appends it to RESULTS.  Exits
 * with 1 if something failed, 2 if the lab broke, else with 0.  With -q, only
 * what the programs' own exit status does not tell counts and is printed.
 *
 * FAIL is the subject's fault (a test, the kernel), ERROR the lab's: a run
 * that says too little to tell is an ERROR, never a PASS.
 *
 * A program that speaks TAP has to keep its plan; so has each test whose output one that
 * runs others, as the kernel's run_kselftest.sh, passes on behind "# ".  How many of its tests
 * skipped is told, and no fault.
 *
 * A program has to pass; to skip is to FAIL, unless it is expected.  EXPECTATIONS are lines of
 *	outcome NAME WORD TEXT	the program is to "skip" or "fail", or either
 *				("skip|fail"), by its own status, for a reason
 *				with TEXT: PASS if so.  "fail" may be without
 *				TEXT; "pass" says what holds anyway
 *	allow NAME TEXT		a kernel line with TEXT is no fault of NAME
 *	explicit NAME [TEXT]	the program writes registers of a guest's PMU in the
 *				guest's place: lines of loss (with TEXT, see
 *				truth_matches()) in the ground truth are counted and
 *				told, and are no fault, if user mode of the host ran since the
 *				guest left, or a nested VM entry or exit was
 *				emulated, which the guest can have load them
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "console.h"
#include "results.h"
#include "truth.h"

#define MAX_ITEMS	258
#define SKIP_STATUS	4	/* KSFT_SKIP, tools/testing/selftests/kselftest.h */
#define WHY		400
#define TAP_LEVELS	2	/* run_kselftest.sh, and the tests that it runs */

/* What one TAP document said so far. */
struct tap {
	bool seen, has_plan;
	unsigned int planned, results, skipped;
};

struct item {
	char name[128];
	enum outcome outcome;
	char why[WHY];
	bool by_status;		/* judged by its own word, not by the kernel's */
	bool began, ended;
	struct console_ending ending;
	/* What its output said. */
	char last[WHY], skip[WHY], assertion[WHY], not_ok[WHY];
	bool in_assertion;
	struct tap tap[TAP_LEVELS];	/* [1] is within [0] */
	unsigned int inner_skipped;	/* of all documents within it that ended */
	/* What the ground truth says of the time in which it ran. */
	bool marked_begin, marked_end;
	unsigned long long explicit_changes;
};

/* Leaks or losses: how many the model counted, of how many there is a line. */
struct tally {
	unsigned long long at_begin, lines, lines_at_begin, audited;
};

struct expectation {
	char keyword[16], name[128];
	const char *text;	/* "" for none */
};

struct judge {
	const char *dir;
	struct expectation *expectations;
	unsigned int nr_expectations;
	struct item items[MAX_ITEMS];
	unsigned int nr_items;		/* the boot is item 0 */
	struct item *current;
	unsigned int banners;
	bool plan_seen, done, powered_down;
	unsigned int plan_count;
	unsigned long garbage;
	char kernel[64], facts[WHY], cpus[16];
};

/* Kernel messages after which nothing counts as passed. */
static const struct {
	const char *text;
} splats[] = {
	{ "WARNING: " },
	{ "BUG: " },
	{ "Oops" },
	{ "general protection" },
	{ "invalid opcode" },
	{ "divide error" },
	{ "double fault" },
	{ "Call Trace" },
	{ "cut here" },
	{ "Kernel panic" },
	{ "unchecked MSR access" },
	{ "detected stall" },		/* RCU: self-detected, on CPUs/tasks */
	{ "rcu_sched kthread" },
	{ "rcu_preempt kthread" },
	{ "soft lockup" },
	{ "hard LOCKUP" },
	{ "blocked for more than" },	/* hung task */
	{ "UBSAN: " },
	{ "KASAN: " },
	{ "INFO: possible" },		/* lockdep */
	{ "KVM internal error" },
	{ "nhandled rdmsr" },
	{ "nhandled wrmsr" },
	{ "nhandled RDMSR" },
	{ "nhandled WRMSR" },
	{ "nhandled MSR" },
	{ "ignored rdmsr" },
	{ "ignored wrmsr" },
	{ "Broken PMU hardware" },	/* arch/x86/events/core.c, check_hw_exists() */
	{ "PMU hardware broken" },
	{ "triple fault" },
};

/* The first finding of the gravest kind stays. */
__attribute__((format(printf, 3, 4)))
static void find(struct item *item, enum outcome outcome, const char *format, ...)
{
	va_list args;

	if (outcome <= item->outcome)
		return;
	item->outcome = outcome;
	item->by_status = false;
	va_start(args, format);
	vsnprintf(item->why, WHY, format, args);
	va_end(args);
}

/* A finding that the program itself brought up: may be what is expected. */
__attribute__((format(printf, 3, 4)))
static void find_by_status(struct item *item, enum outcome outcome,
			   const char *format, ...)
{
	char why[WHY];
	va_list args;

	if (outcome <= item->outcome)
		return;
	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	find(item, outcome, "%s", why);
	item->by_status = true;
}

static void copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from);
}

/* A file of the run as one string, NULL if there is none. */
static char *read_file(const char *dir, const char *name, size_t *size)
{
	char path[4096], *text;
	size_t length;
	FILE *file;
	long end;

	snprintf(path, sizeof(path), "%s%s%s", dir, *dir ? "/" : "", name);
	file = fopen(path, "rb");
	if (!file)
		return NULL;
	fseek(file, 0, SEEK_END);
	end = ftell(file);
	rewind(file);
	text = malloc(end + 1);
	if (!text)
		errx(2, "out of memory");
	length = fread(text, 1, end, file);
	fclose(file);
	text[length] = '\0';
	if (size)
		*size = length;
	return text;
}

/* The next line of *@at as a string, NULL at the end. */
static char *next_line(char **at)
{
	char *line = *at, *end;

	if (!line || !*line)
		return NULL;
	end = strchr(line, '\n');
	*at = end ? end + 1 : NULL;
	if (end)
		*end = '\0';
	end = line + strlen(line);
	while (end > line && end[-1] == '\r')
		*--end = '\0';
	return line;
}

static struct item *add_item(struct judge *judge, const char *name)
{
	struct item *item = &judge->items[judge->nr_items++];

	copy(item->name, sizeof(item->name), name);
	return item;
}

static struct item *find_item(struct judge *judge, const char *name)
{
	unsigned int i;

	for (i = 1; i < judge->nr_items; i++)
		if (!strcmp(judge->items[i].name, name))
			return &judge->items[i];
	return NULL;
}

static void read_plan(struct judge *judge)
{
	char *text = read_file(judge->dir, "plan", NULL), *at = text, *line;

	if (!text) {
		find(&judge->items[0], ERROR, "no file plan in %s", judge->dir);
		return;
	}
	while ((line = next_line(&at)) && judge->nr_items < MAX_ITEMS - 1) {
		line[strcspn(line, " ")] = '\0';
		if (*line && *line != '#')
			add_item(judge, line);
	}
	free(text);
}

static void read_expectations(struct judge *judge, const char *path)
{
	char *text = read_file("", path, NULL), *at = text, *line;
	struct expectation entry;
	int used;

	if (!text)
		err(2, "cannot read %s", path);
	/* What they say stays in @text. */
	while ((line = next_line(&at))) {
		used = 0;
		if (sscanf(line, "%15s %127s%n", entry.keyword, entry.name, &used) != 2 || !used)
			continue;
		entry.text = line + used + strspn(line + used, " ");
		judge->expectations = reallocarray(judge->expectations, judge->nr_expectations + 1,
						   sizeof(entry));
		if (!judge->expectations)
			errx(2, "out of memory");
		judge->expectations[judge->nr_expectations++] = entry;
	}
}

/* Is @entry a line "KEYWORD NAME [TEXT]" for @item? */
static bool is_for(const struct expectation *entry, const char *keyword, const struct item *item)
{
	return !strcmp(entry->keyword, keyword) && !strcmp(entry->name, item->name);
}

/* A message of a kernel. */
static bool allowed(const struct judge *judge, const struct item *item, const char *message)
{
	const struct expectation *entry = judge->expectations;

	for (; entry < judge->expectations + judge->nr_expectations; entry++)
		if (is_for(entry, "allow", item) && *entry->text && strstr(message, entry->text))
			return true;
	return false;
}

/* Without TEXT this is for all losses, also for those that have no line, @loss being NULL. */
static bool explicit(const struct judge *judge, const struct item *item,
		     const struct truth *loss)
{
	const struct expectation *entry = judge->expectations;

	for (; entry < judge->expectations + judge->nr_expectations; entry++) {
		if (!is_for(entry, "explicit", item))
			continue;
		if (!*entry->text || (loss && truth_matches(loss, entry->text)))
			return true;
	}
	return false;
}

/* One that matches nothing would excuse nothing, without a word. */
static void check_expectations(struct judge *judge)
{
	const struct expectation *entry = judge->expectations;

	for (; entry < judge->expectations + judge->nr_expectations; entry++)
		if (!strcmp(entry->keyword, "explicit") && !truth_pattern(entry->text))
			find(&judge->items[0], ERROR,
			     "explicit %s: neither words nor members of JSON: %s",
			     entry->name, entry->text);
}

static void find_splat(struct judge *judge, struct item *item, const char *whose,
		       const char *text)
{
	unsigned int i;

	for (i = 0; i < sizeof(splats) / sizeof(splats[0]); i++) {
		if (strstr(text, splats[i].text) && !allowed(judge, item, text)) {
			find(item, FAIL, "%s: %s", whose, text);
			return;
		}
	}
}

static void take_kernel_line(struct judge *judge, const char *text)
{
	struct item *item = judge->current ? judge->current : &judge->items[0];

	if (console_after(text, CONSOLE_BANNER)) {
		if (++judge->banners > 1)
			find(item, FAIL, "the host was reset: Linux started again");
		sscanf(text, CONSOLE_BANNER "%63s", judge->kernel);
	}
	if (strstr(text, CONSOLE_POWER_DOWN))
		judge->powered_down = true;
	find_splat(judge, item, "kernel", text);
}

/* The console of a guest, as host/topdown-vm.c passes it on. */
static void take_guest_line(struct judge *judge, struct item *item, const char *text)
{
	struct console_line line;
	const char *passed;

	if (console_passed_on(text, &passed) <= 0)
		return;
	line = console_line(passed);
	if (line.stamped && line.kind == CONSOLE_KERNEL)
		find_splat(judge, item, "guest's kernel", line.text);
}

/* What is wrong with a document at its end, "" for nothing. */
static void check_tap(const struct tap *tap, char *why)
{
	why[0] = '\0';
	if (tap->seen && !tap->has_plan)
		snprintf(why, WHY, "TAP without a plan line (1..N)");
	else if (tap->has_plan && tap->planned != tap->results)
		snprintf(why, WHY, "%u TAP results, planned %u", tap->results, tap->planned);
}

/* A result of the outer document ends the inner one, which it is the result of. */
static void end_inner(struct item *item, bool ok)
{
	struct tap *inner = &item->tap[1];
	char why[WHY];

	check_tap(inner, why);
	if (ok && why[0])
		find(item, FAIL, "ok of a test with %s", why);
	item->inner_skipped += inner->skipped;
	*inner = (struct tap) { 0 };
}

static void take_tap(struct item *item, const char *text)
{
	struct console_tap line = console_tap(text);
	struct tap *tap = &item->tap[line.inner ? 1 : 0];

	switch (line.kind) {
	case TAP_VERSION:
		tap->seen = true;
		break;
	case TAP_PLAN:
		tap->has_plan = true;
		tap->planned = line.planned;
		break;
	case TAP_OK:
	case TAP_NOT_OK:
		tap->seen = true;
		tap->results++;
		tap->skipped += line.skipped;
		if (!line.inner)
			end_inner(item, line.kind == TAP_OK);
		break;
	case TAP_OTHER:
		break;
	}
	if (line.kind == TAP_NOT_OK && !item->not_ok[0])
		copy(item->not_ok, WHY, line.text);
}

static void take_output(struct judge *judge, struct item *item, const char *text)
{
	take_guest_line(judge, item, text);
	take_tap(item, text);
	if (item->in_assertion && !item->assertion[0])
		copy(item->assertion, WHY, text + strspn(text, " "));
	item->in_assertion = strstr(text, "Test Assertion Failure");
	if (!item->skip[0] && console_skips(text))
		copy(item->skip, WHY, text);
	if (text[strspn(text, " ")])
		copy(item->last, WHY, text + strspn(text, " "));
}

static void take_begin(struct judge *judge, const char *name)
{
	struct item *item = find_item(judge, name);

	if (judge->current)
		find(judge->current, ERROR, "did not end before %s began", name);
	if (!item)
		find(&judge->items[0], ERROR, "ran %s, which is not in the plan", name);
	else if (item->began)
		find(item, ERROR, "ran twice");
	else
		item->began = true;
	judge->current = item;
}

static void take_end(struct judge *judge, const char *rest)
{
	struct item *item = judge->current;
	struct console_ending ending;

	console_ending(rest, &ending);
	judge->current = NULL;
	if (!item || strcmp(ending.name, item->name) || !*ending.words) {
		find(&judge->items[0], ERROR, "\"lab: end %s\" without its begin", rest);
		return;
	}
	item->ended = true;
	item->ending = ending;
}

static void take_fact(struct judge *judge, const char *fact)
{
	size_t length = strlen(judge->facts);
	const char *rest;

	rest = console_after(fact, "cpus=");
	if (rest)
		copy(judge->cpus, sizeof(judge->cpus), rest);
	if (!console_after(fact, "kernel="))
		snprintf(judge->facts + length, WHY - length, ", %s", fact);
}

static void take_line(struct judge *judge, const struct console_line *line)
{
	switch (line->kind) {
	case CONSOLE_KERNEL:
		take_kernel_line(judge, line->rest);
		break;
	case CONSOLE_OUTPUT:
		if (judge->current)
			take_output(judge, judge->current, line->rest);
		break;
	case CONSOLE_FACT:
		take_fact(judge, line->rest);
		break;
	case CONSOLE_PLAN:
		judge->plan_seen = sscanf(line->rest, "%u", &judge->plan_count) == 1;
		break;
	case CONSOLE_BEGIN:
		take_begin(judge, line->rest);
		break;
	case CONSOLE_END:
		take_end(judge, line->rest);
		break;
	case CONSOLE_ERROR:
		find(&judge->items[0], ERROR, "init: %s", line->rest);
		break;
	case CONSOLE_DONE:
		judge->done = true;
		break;
	case CONSOLE_ALIVE:
	case CONSOLE_UNKNOWN:
		break;
	}
}

/* Bytes that neither the kernel nor init writes; counted, then replaced. */
static void clean(struct judge *judge, char *text, size_t size)
{
	size_t i;

	for (i = 0; i < size; i++) {
		unsigned char byte = text[i];

		if (byte == '\n' || byte == '\r' || byte == '\t' ||
		    (byte >= 0x20 && byte < 0x7f))
			continue;
		text[i] = '?';
		judge->garbage++;
	}
}

static void read_console(struct judge *judge)
{
	struct item *boot = &judge->items[0];
	size_t size = 0;
	char *text = read_file(judge->dir, "console.log", &size), *at = text;
	char *line;

	if (!size) {
		find(boot, ERROR, "the console is empty: the host never said a word");
		free(text);
		return;
	}
	clean(judge, text, size);
	while ((line = next_line(&at))) {
		struct console_line read = console_line(line);

		take_line(judge, &read);
	}
	free(text);
	if (judge->garbage)
		find(boot, ERROR, "%lu garbage bytes on the console", judge->garbage);
}

/* KEY=VALUE of the run's result, "" if absent. */
static void result_value(struct judge *judge, const char *key, char *value,
			 size_t size)
{
	char *text = read_file(judge->dir, "result", NULL), *at = text, *line;
	const char *rest;

	value[0] = '\0';
	while ((line = next_line(&at))) {
		rest = console_after(line, key);
		if (rest && *rest == '=')
			copy(value, size, rest + 1);
	}
	free(text);
}

static void judge_result(struct judge *judge)
{
	struct item *boot = &judge->items[0];
	char reason[64], cpus[16];

	result_value(judge, "reason", reason, sizeof(reason));
	result_value(judge, "cpus", cpus, sizeof(cpus));
	if (!strcmp(reason, "panic"))
		find(boot, FAIL, "the host panicked");
	else if (!strcmp(reason, "reset"))
		find(boot, FAIL, "the host was reset");
	else if (!strcmp(reason, "silent"))
		find(boot, ERROR, "the host went silent");
	else if (!strcmp(reason, "stuck"))
		find(boot, ERROR, "the emulator hung: it used no processor time");
	else if (!strcmp(reason, "wall"))
		find(boot, ERROR, "the run took longer than it may");
	else if (!reason[0])
		find(boot, ERROR, "no file result, or no reason in it");
	else if (strcmp(reason, "done"))
		find(boot, ERROR, "the run ended early: %s", reason);
	if (judge->cpus[0] && strcmp(cpus, judge->cpus))
		find(boot, FAIL, "asked for %s CPUs, Linux has %s", cpus, judge->cpus);
}

static void judge_protocol(struct judge *judge)
{
	struct item *boot = &judge->items[0];

	if (!judge->plan_seen)
		find(boot, ERROR, "truncated log: no \"lab: plan\"");
	else if (judge->plan_count != judge->nr_items - 1)
		find(boot, ERROR, "the host planned %u programs, expected %u",
		     judge->plan_count, judge->nr_items - 1);
	if (!judge->done)
		find(boot, ERROR, "truncated log: no \"lab: done\"");
	else if (!judge->powered_down)
		find(boot, ERROR, "the host did not power down");
}

/* What Bochs says when it gives up at once, for example about its options. */
static void judge_emulator_start(struct judge *judge)
{
	char *text = read_file(judge->dir, "emulator.out", NULL), *at = text;
	bool next = false;
	char *line;

	while ((line = next_line(&at))) {
		if (next && !strstr(line, "soft power off"))
			find(&judge->items[0], ERROR, "emulator: %s", line);
		next = strstr(line, "exiting with the following message");
	}
	free(text);
}

/*
 * A line of Bochs' log that it died of has ">>PANIC<<", "p" or nothing before
 * the device; power off by ACPI is one, too.
 */
static void judge_emulator(struct judge *judge)
{
	struct item *boot = &judge->items[0];
	char *text = read_file(judge->dir, "emulator.log", NULL), *at = text;
	bool power_off = false;
	char *line, *panic;

	if (!text) {
		find(boot, ERROR, "no emulator.log: the emulator did not start");
		return;
	}
	while ((line = next_line(&at))) {
		if (strstr(line, "soft power off"))
			power_off = true;
		panic = strstr(line, ">>PANIC<< ");
		if (!panic || strstr(line, "soft power off"))
			continue;
		panic += strlen(">>PANIC<< ");
		/* Bochs' words for a triple fault, cpu/exception.cc. */
		if (strstr(panic, "3rd (") || strstr(panic, "riple fault"))
			find(boot, FAIL, "triple fault on the host: %s", panic);
		else
			find(boot, ERROR, "emulator: %s", panic);
	}
	if (!power_off)
		find(boot, ERROR, "the emulator saw no power off");
	free(text);
}

/* A fault of the program that ran, and of the boot. */
static void find_in(struct judge *judge, struct item *item, const char *what,
		    const char *line)
{
	find(&judge->items[0], FAIL, "%s: %s", what, line);
	if (item)
		find(item, FAIL, "%s: %s", what, line);
}

static void take_loss(struct judge *judge, struct item *item, const struct truth *loss)
{
	bool possible = truth_flag(loss, "user") ||
			truth_flag(loss, "nested");

	if (item && possible && explicit(judge, item, loss))
		item->explicit_changes++;
	else
		find_in(judge, item, "lost", loss->text);
}

/*
 * @counted since power on, of which some have no line: the model writes no more
 * than a hundred for a program.  They are as bad.
 */
static void take_rest(struct judge *judge, struct item *item, const char *what,
		      struct tally *tally, unsigned long long counted)
{
	unsigned long long all = counted - tally->at_begin;
	unsigned long long told = tally->lines - tally->lines_at_begin;
	char number[32];

	tally->at_begin = counted;
	tally->lines_at_begin = tally->lines;
	if (all <= told)
		return;
	if (item && !strcmp(what, "lost") && explicit(judge, item, NULL)) {
		item->explicit_changes += all - told;
		return;
	}
	snprintf(number, sizeof(number), "%llu more", all - told);
	find_in(judge, item, what, number);
}

/* Process 1 of the host began a program, or ended it. */
static struct item *take_section(struct judge *judge, struct item *item,
				 const struct truth *section)
{
	unsigned long long program = truth_number(section, "program");
	bool ends = truth_flag(section, "ends");

	if (program >= judge->nr_items - 1) {
		find(&judge->items[0], ERROR, "truth.jsonl knows of a program %llu", program);
		return NULL;
	}
	if (ends && item != &judge->items[program + 1])
		find(&judge->items[0], ERROR, "truth.jsonl: a program ended that did not begin");
	item = &judge->items[program + 1];
	if (!ends) {
		item->marked_begin = true;
		return item;
	}
	item->marked_end = true;
	return NULL;
}

static void judge_marks(struct judge *judge)
{
	unsigned int i;

	for (i = 1; i < judge->nr_items; i++) {
		struct item *item = &judge->items[i];

		if ((item->began && !item->marked_begin) ||
		    (item->ended && !item->marked_end))
			find(item, ERROR, "truth.jsonl does not say when it ran");
	}
}

static void judge_truth(struct judge *judge)
{
	struct item *boot = &judge->items[0], *item = NULL;
	struct tally leaks = { 0 }, losses = { 0 };
	bool has[NR_TRUTH_TYPES] = { false };
	struct truth truth;

	truth_try(&truth, judge->dir);
	while (truth_next(&truth)) {
		has[truth.type] = true;
		switch (truth.type) {
		case TRUTH_LEAK:
			leaks.lines++;
			find_in(judge, item, "leak", truth.text);
			break;
		case TRUTH_LOST:
			losses.lines++;
			take_loss(judge, item, &truth);
			break;
		case TRUTH_SECTION:
			take_rest(judge, item, "leak", &leaks, truth_number(&truth, "leaks"));
			take_rest(judge, item, "lost", &losses, truth_number(&truth, "lost"));
			item = take_section(judge, item, &truth);
			break;
		case TRUTH_AUDIT:
			leaks.audited += truth_number(&truth, "leaks");
			losses.audited += truth_number(&truth, "lost");
			break;
		case TRUTH_GARBLED:
			find(boot, ERROR, "truth.jsonl:%lu: not an object of JSON", truth.number);
			break;
		default:
			break;
		}
	}
	if (!truth.number)
		find(boot, ERROR, "no ground truth: truth.jsonl is empty or absent");
	if (truth.cut)
		find(boot, ERROR, "truncated truth.jsonl: its last line has no end");
	if (has[TRUTH_AUDIT]) {
		take_rest(judge, NULL, "leak", &leaks, leaks.audited);
		take_rest(judge, NULL, "lost", &losses, losses.audited);
	}
	if (!has[TRUTH_MACHINE])
		find(boot, ERROR, "no machine line in truth.jsonl");
	if (!has[TRUTH_TOTAL])
		find(boot, ERROR, "truncated truth.jsonl: no total line");
	if (!has[TRUTH_AUDIT])
		find(boot, ERROR, "truncated truth.jsonl: no audit line");
	if (has[TRUTH_MACHINE] && has[TRUTH_TOTAL] && has[TRUTH_AUDIT])
		judge_marks(judge);
	truth_close(&truth);
}

static void judge_success(struct item *item)
{
	const struct tap *tap = &item->tap[0];
	char why[WHY];

	check_tap(tap, why);
	if (item->not_ok[0])
		find_by_status(item, FAIL, "status 0, but \"%s\"", item->not_ok);
	else if (tap->has_plan && !tap->planned)
		find_by_status(item, SKIP, "%s", item->skip[0] ? item->skip : "empty TAP plan");
	else if (why[0])
		find(item, tap->has_plan ? FAIL : ERROR, "%s", why);
	else if (tap->results && tap->skipped == tap->results)
		find_by_status(item, SKIP, "%s", item->skip);
}

static void judge_status(struct item *item, int status)
{
	if (status == SKIP_STATUS && !item->skip[0])
		find(item, ERROR, "skips without naming the unmet fact");
	else if (status == SKIP_STATUS)
		find_by_status(item, SKIP, "%s", item->skip);
	else if (status)
		find_by_status(item, FAIL, "exit status %d: %s", status,
			       item->assertion[0] ? item->assertion :
			       item->not_ok[0] ? item->not_ok : item->last);
	else
		judge_success(item);
}

static void judge_ending(struct item *item)
{
	int number = item->ending.number;

	switch (item->ending.how) {
	case CONSOLE_STATUS:
		judge_status(item, number);
		break;
	case CONSOLE_SIGNAL:
		find(item, FAIL, "killed by signal %d (%s)", number, strsignal(number));
		break;
	case CONSOLE_TIMEOUT:
		find(item, FAIL, "still running after %d s of guest time", number);
		break;
	case CONSOLE_NOHOW:
		find(item, ERROR, "no status in \"%s\"", item->ending.words);
		break;
	}
}

static void judge_program(struct item *item)
{
	if (!item->began)
		find(item, ERROR, "never ran");
	else if (!item->ended)
		find(item, ERROR, "did not end: the log stops in it");
	else
		judge_ending(item);
}

/* Turn what "outcome NAME WORD TEXT" announces into a PASS, and its absence not. */
static void apply_expectation(struct judge *judge, const struct expectation *entry)
{
	char words[64], why[WHY];
	struct item *item;
	const char *text;
	int used = 0;
	bool met;

	if (strcmp(entry->keyword, "outcome") || sscanf(entry->text, "%63s%n", words, &used) != 1)
		return;
	text = entry->text + used + strspn(entry->text + used, " ");
	item = find_item(judge, entry->name);
	if (!item) {
		find(&judge->items[0], ERROR, "expectation for %s, which is not in the plan",
		     entry->name);
		return;
	}
	if (strstr(words, "skip") && !*text) {
		find(&judge->items[0], ERROR, "%s is expected to skip without a reason",
		     entry->name);
		return;
	}
	met = item->by_status &&
	      ((item->outcome == SKIP && strstr(words, "skip")) ||
	       (item->outcome == FAIL && strstr(words, "fail")));
	copy(why, sizeof(why), item->why);
	if (met && !strstr(why, text)) {
		find(item, FAIL, "does not pass, as expected, but not for \"%.100s\": %.200s",
		     text, why);
	} else if (met) {
		item->outcome = PASS;
		snprintf(item->why, WHY, "does not pass here, as expected: %.300s", why);
	} else if (item->outcome == PASS && strcmp(words, "pass")) {
		find(item, FAIL, "passes, expected to %s here", words);
	}
}

/* Nothing skips unnoticed. */
static void judge_skip(struct item *item)
{
	char why[WHY];

	copy(why, sizeof(why), item->why);
	if (item->outcome == SKIP)
		find_by_status(item, FAIL, "skips, expected to pass here: %.300s", why);
}

static void apply_expectations(struct judge *judge)
{
	unsigned int i;

	for (i = 0; i < judge->nr_expectations; i++)
		apply_expectation(judge, &judge->expectations[i]);
}

__attribute__((format(printf, 2, 3)))
static void describe(struct item *item, const char *format, ...)
{
	size_t length = strlen(item->why);
	va_list args;

	if (length)
		length += snprintf(item->why + length, WHY - length, "; ");
	if (length >= WHY)
		return;
	va_start(args, format);
	vsnprintf(item->why + length, WHY - length, format, args);
	va_end(args);
}

/* Never silent about what was excused, nor about what did not run. */
static void describe_item(struct item *item)
{
	unsigned int skipped = item->inner_skipped + item->tap[0].skipped;

	if (item->outcome == PASS && skipped)
		describe(item, "of its tests, %u skipped", skipped);
	if (item->explicit_changes)
		describe(item, "%llu explicit changes of guests' registers",
			 item->explicit_changes);
}

static void describe_boot(struct judge *judge)
{
	struct item *boot = &judge->items[0];
	char machine[64];

	if (boot->outcome != PASS)
		return;
	result_value(judge, "machine", machine, sizeof(machine));
	snprintf(boot->why, WHY, "%s, Linux %s%.250s", machine, judge->kernel,
		 judge->facts);
}

static int print(struct judge *judge, const char *results, bool quiet)
{
	FILE *file = results ? results_append(results) : NULL;
	enum outcome worst = PASS;
	char run[128];
	unsigned int i;

	result_value(judge, "run", run, sizeof(run));
	if (!run[0])
		strcpy(run, "run");
	for (i = 1; i <= judge->nr_items; i++) {
		const struct item *item = &judge->items[i % judge->nr_items];

		if (!quiet || (item->outcome >= ERROR && !item->by_status)) {
			worst = item->outcome > worst ? item->outcome : worst;
			results_put(stdout, item->outcome, item->why, "%s/%s", run, item->name);
		}
		if (file)
			results_put(file, item->outcome, item->why, "%s/%s", run, item->name);
	}
	if (file)
		results_end(file, results);
	return results_status(worst);
}

int main(int argc, char **argv)
{
	static struct judge judge;
	const char *results = NULL, *expectations = NULL;
	bool quiet = false;
	unsigned int i;
	int option;

	while ((option = getopt(argc, argv, "e:qr:")) >= 0) {
		if (option == 'e')
			expectations = optarg;
		else if (option == 'q')
			quiet = true;
		else if (option == 'r')
			results = optarg;
		else
			return 2;
	}
	if (optind != argc - 1)
		errx(2, "usage: judge [-q] [-e EXPECTATIONS] [-r RESULTS] DIR");
	judge.dir = argv[optind];
	if (expectations)
		read_expectations(&judge, expectations);
	add_item(&judge, "boot");
	read_plan(&judge);
	check_expectations(&judge);
	judge_emulator_start(&judge);
	read_console(&judge);
	judge_result(&judge);
	judge_emulator(&judge);
	judge_protocol(&judge);
	judge_truth(&judge);
	for (i = 1; i < judge.nr_items; i++)
		judge_program(&judge.items[i]);
	apply_expectations(&judge);
	for (i = 1; i < judge.nr_items; i++) {
		judge_skip(&judge.items[i]);
		describe_item(&judge.items[i]);
	}
	describe_boot(&judge);
	return print(&judge, results, quiet);
}
