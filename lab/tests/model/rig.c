// SPDX-License-Identifier: GPL-2.0
/* The bench: callbacks, short names for register accesses, JSON, random. */
#include <ctype.h>
#include <time.h>

#include "rig.h"

static void on_pmi(void *opaque)
{
	struct rig *rig = opaque;

	rig->pmis++;
}

static uint32_t on_lvtpc(void *opaque)
{
	struct rig *rig = opaque;

	return rig->lvtpc;
}

static void on_deadline(void *opaque, uint64_t instructions)
{
	struct rig *rig = opaque;

	rig->deadline = instructions;
	rig->deadline_calls++;
}

static void on_emit(void *opaque, const char *json)
{
	struct rig *rig = opaque;

	assert_true(rig->nr_lines < MAX_LINES);
	rig->lines[rig->nr_lines] = strdup(json);
	assert_non_null(rig->lines[rig->nr_lines]);
	rig->nr_lines++;
}

static const struct pmu_ops ops = {
	.pmi = on_pmi,
	.lvtpc = on_lvtpc,
	.deadline = on_deadline,
	.emit = on_emit,
};

static struct rig *rig_of(struct pmu_machine *machine, unsigned int cpu)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	rig->machine = machine;
	rig->lvtpc = LVTPC_HOST;
	rig->pmu = pmu_create(rig->machine, cpu, &ops, rig);
	assert_non_null(rig->pmu);
	return rig;
}

struct rig *rig_new(const char *description, unsigned int cpu)
{
	char error[200] = "";
	struct pmu_machine *machine;

	machine = pmu_machine_parse(description, error, sizeof(error));
	if (!machine)
		fail_msg("description refused: %s", error);
	return rig_of(machine, cpu);
}

struct rig *rig_sibling(struct rig *rig, unsigned int cpu)
{
	struct rig *sibling = rig_of(rig->machine, cpu);

	sibling->borrows_machine = true;
	return sibling;
}

char *machine_text(const char *name)
{
	char path[512], *text = calloc(1, 65536);
	FILE *file;

	assert_non_null(text);
	snprintf(path, sizeof(path), "%s/%s", MACHINES, name);
	file = fopen(path, "r");
	if (!file)
		fail_msg("cannot open %s", path);
	assert_true(fread(text, 1, 65535, file) > 0);
	fclose(file);
	return text;
}

struct rig *rig_from_file(const char *name, unsigned int cpu)
{
	char *text = machine_text(name);
	struct rig *rig = rig_new(text, cpu);

	free(text);
	return rig;
}

void rig_free(struct rig *rig)
{
	unsigned int i;

	for (i = 0; i < rig->nr_lines; i++)
		free(rig->lines[i]);
	pmu_destroy(rig->pmu);
	if (!rig->borrows_machine)
		pmu_machine_free(rig->machine);
	free(rig);
}

void wr(struct rig *rig, uint32_t msr, uint64_t value)
{
	if (pmu_wrmsr(rig->pmu, msr, value) != PMU_OK)
		fail_msg("WRMSR(0x%x, 0x%llx) refused", msr,
			 (unsigned long long)value);
}

uint64_t rd(struct rig *rig, uint32_t msr)
{
	uint64_t value = 0;

	if (pmu_rdmsr(rig->pmu, msr, &value) != PMU_OK)
		fail_msg("RDMSR(0x%x) refused", msr);
	return value;
}

uint64_t rdpmc(struct rig *rig, uint32_t ecx)
{
	uint64_t value = 0;

	if (pmu_rdpmc(rig->pmu, ecx, &value) != PMU_OK)
		fail_msg("RDPMC(0x%x) refused", ecx);
	return value;
}

void wr_gp(struct rig *rig, uint32_t msr, uint64_t value)
{
	if (pmu_wrmsr(rig->pmu, msr, value) != PMU_GP)
		fail_msg("WRMSR(0x%x, 0x%llx) did not fault", msr,
			 (unsigned long long)value);
}

void rd_gp(struct rig *rig, uint32_t msr)
{
	uint64_t value = 0x5a5a;

	if (pmu_rdmsr(rig->pmu, msr, &value) != PMU_GP)
		fail_msg("RDMSR(0x%x) did not fault", msr);
	assert_int_equal(value, 0x5a5a);
}

void work(struct rig *rig, enum pmu_work kind, uint64_t n)
{
	uint64_t delta[PMU_NR_WORK] = { 0 };

	delta[kind] = n;
	pmu_advance(rig->pmu, delta);
}

void slots(struct rig *rig, uint64_t retiring, uint64_t bad_spec,
	   uint64_t fe_bound, uint64_t be_bound)
{
	uint64_t delta[PMU_NR_WORK] = {
		[PMU_WORK_INSTRUCTION] = retiring,
		[PMU_WORK_BRANCH_MISS] = bad_spec,
		[PMU_WORK_FETCH_MISS] = fe_bound,
		[PMU_WORK_PAGE_WALK] = be_bound,
	};

	pmu_advance(rig->pmu, delta);
}

void in_root(struct rig *rig, unsigned int cpl)
{
	struct pmu_context context = { .cpl = cpl, .rip = 0x1000 };

	pmu_set_context(rig->pmu, &context);
}

static void in_guest_on(struct rig *rig, uint64_t owner, uint64_t vmcs,
			unsigned int cpl)
{
	struct pmu_context context = {
		.cpl = cpl,
		.nonroot = true,
		.owner = owner,
		.vmcs = vmcs,
		.rip = 0x2000,
	};

	pmu_set_context(rig->pmu, &context);
}

void in_guest(struct rig *rig, uint64_t owner, unsigned int cpl)
{
	in_guest_on(rig, owner, VMCS_OF(owner), cpl);
}

void vm_entry_on(struct rig *rig, uint64_t owner, uint64_t vmcs,
		 const struct pmu_entry *entry)
{
	const struct pmu_entry resume = { .launch = false };

	in_guest_on(rig, owner, vmcs, 0);
	pmu_vmentry(rig->pmu, entry ? entry : &resume);
}

void vm_entry(struct rig *rig, uint64_t owner)
{
	vm_entry_on(rig, owner, VMCS_OF(owner), NULL);
}

void vm_launch(struct rig *rig, uint64_t owner, uint64_t owned)
{
	const struct pmu_entry entry = {
		.launch = true, .fresh = true, .owned = owned,
	};

	vm_entry_on(rig, owner, VMCS_OF(owner), &entry);
}

static void leave(struct rig *rig, const struct pmu_exit *exit)
{
	pmu_vmexit(rig->pmu, exit);
	in_root(rig, 0);
}

void vm_exit(struct rig *rig, unsigned int reason)
{
	leave(rig, &(struct pmu_exit){ .reason = reason, .rip = 0x3000 });
}

void vm_exit_wrmsr(struct rig *rig, uint32_t msr, uint64_t value)
{
	leave(rig, &(struct pmu_exit){
		.reason = 32, .msr = msr, .value = value, .rip = 0x3000,
	});
}

static int is_type(const char *line, const char *type)
{
	char start[64];

	snprintf(start, sizeof(start), "{\"type\":\"%s\",", type);
	return !strncmp(line, start, strlen(start));
}

const char *last_line(const struct rig *rig, const char *type)
{
	unsigned int i;

	for (i = rig->nr_lines; i; i--) {
		if (is_type(rig->lines[i - 1], type))
			return rig->lines[i - 1];
	}
	return NULL;
}

unsigned int count_lines(const struct rig *rig, const char *type)
{
	unsigned int i, n = 0;

	for (i = 0; i < rig->nr_lines; i++)
		n += is_type(rig->lines[i], type);
	return n;
}

uint64_t number(const char *line, const char *key)
{
	char quoted[64];
	const char *at;

	assert_non_null(line);
	snprintf(quoted, sizeof(quoted), "\"%s\":", key);
	at = strstr(line, quoted);
	if (!at)
		fail_msg("no %s in %s", quoted, line);
	return strtoull(at + strlen(quoted), NULL, 10);
}

/* A JSON recognizer; each function returns the end of what it read, or NULL. */

static const char *json_value(const char *c);

static const char *json_string(const char *c)
{
	if (*c++ != '"')
		return NULL;
	for (; *c && *c != '"'; c++) {
		if ((unsigned char)*c < 0x20 || *c == '\\')
			return NULL;	/* legal escapes are not used */
	}
	return *c ? c + 1 : NULL;
}

static const char *json_number(const char *c)
{
	if (*c == '0')
		return c + 1;
	if (!isdigit((unsigned char)*c))
		return NULL;
	while (isdigit((unsigned char)*c))
		c++;
	return c;
}

static const char *json_items(const char *c, char close, int keys)
{
	if (*c == close)
		return c + 1;
	for (;;) {
		if (keys) {
			c = json_string(c);
			if (!c || *c++ != ':')
				return NULL;
		}
		c = json_value(c);
		if (!c)
			return NULL;
		if (*c == close)
			return c + 1;
		if (*c++ != ',')
			return NULL;
	}
}

static const char *json_value(const char *c)
{
	if (*c == '{')
		return json_items(c + 1, '}', 1);
	if (*c == '[')
		return json_items(c + 1, ']', 0);
	if (*c == '"')
		return json_string(c);
	if (!strncmp(c, "true", 4))
		return c + 4;
	if (!strncmp(c, "false", 5))
		return c + 5;
	return json_number(c);
}

int is_json(const char *text)
{
	const char *end = json_value(text);

	return end && !*end;
}

/* xorshift64*, Vigna, "An experimental exploration of Marsaglia's generators" */
static uint64_t random_state;

void random_start(void)
{
	const char *seed = getenv("SEED");

	random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	printf("# SEED=%llu\n", (unsigned long long)random_state);
	random_state = random_state * 2654435761u + 88172645463325252u;
}

uint64_t random_below(uint64_t limit)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * 2685821657736338717u) % limit;
}
