/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the model share and the emulator does not see.  They are
 *
 *	line.c		lines of the truth file
 *	account.c	owners of work, and whose work a register holds
 *	machine.c	reads a machine description
 *	slots.c		turns work into slots and cycles
 *	events.c	which event selector counts what
 *	metrics.c	arithmetic of PERF_METRICS
 *	counter.c	what each counter is
 *	access.c	how often the hypervisor accesses which register
 *	audit.c		who reads a register that holds another's work
 *	conserve.c	what a guest gets back of what it left
 *	truth.c		ground truth per owner
 *	pmu.c		counting, overflow, freeze, deadline
 *	vmx.c		between guest and hypervisor: VM entries, VM exits
 *	registers.c	RDMSR, WRMSR, RDPMC
 *
 * Each calls only those above it; lab/tests/model/order compares.
 *
 * "SDM" is Intel's Software Developer's Manual, chapter numbers of volume 3B
 * as of 2023 to 2025 (chapter 20 or 21, "Performance Monitoring").  [HW] marks
 * what no document at hand settles: the model takes the strict reading.
 */
#ifndef LAB_MODEL_INTERNAL_H
#define LAB_MODEL_INTERNAL_H

#include "pmu.h"

#define BIT(n)			((uint64_t)1 << (n))
#define MASK(n)			((n) < 64 ? BIT(n) - 1 : ~(uint64_t)0)
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))

/* MSR numbers: SDM volume 4, table 2-2. */
#define MSR_PERFCTR0		0x0c1
#define MSR_PERFEVTSEL0		0x186
#define MSR_MISC_ENABLE		0x1a0
#define MSR_FIXED_CTR0		0x309
#define MSR_PERF_METRICS	0x329
#define MSR_PERF_CAPABILITIES	0x345
#define MSR_FIXED_CTR_CTRL	0x38d
#define MSR_GLOBAL_STATUS	0x38e
#define MSR_GLOBAL_CTRL		0x38f
#define MSR_GLOBAL_RESET	0x390	/* GLOBAL_OVF_CTRL before version 4 */
#define MSR_GLOBAL_SET		0x391	/* version 4 on */
#define MSR_GLOBAL_INUSE	0x392	/* version 4 on */
#define MSR_PEBS_ENABLE		0x3f1
#define MSR_PMC0		0x4c1	/* full-width alias of PERFCTR0 */
#define MSR_DS_AREA		0x600

/* Bit positions shared by GLOBAL_CTRL and GLOBAL_STATUS. */
#define FIXED_SHIFT		32
#define SLOTS_INDEX		3	/* fixed counter 3 is TOPDOWN.SLOTS */
#define METRICS_BIT		48

/* More bits of GLOBAL_STATUS, GLOBAL_STATUS_RESET and GLOBAL_STATUS_SET. */
#define STATUS_LBR_FRZ		BIT(58)
#define STATUS_CTR_FRZ		BIT(59)
#define STATUS_ASCI		BIT(60)
#define STATUS_UNCORE		BIT(61)
#define STATUS_BUFFER		BIT(62)
#define STATUS_COND_CHGD	BIT(63)

/* IA32_PERF_CAPABILITIES. */
#define CAP_FULL_WIDTH		BIT(13)
#define CAP_METRICS		BIT(15)

/* IA32_PERFEVTSELx. */
#define SEL_USR			BIT(16)
#define SEL_OS			BIT(17)
#define SEL_EDGE		BIT(18)
#define SEL_INT			BIT(20)
#define SEL_ANY			BIT(21)
#define SEL_EN			BIT(22)
#define SEL_INV			BIT(23)
#define SEL_CMASK_SHIFT		24

/* ECX[31:16] of RDPMC, the type (SDM vol. 2, RDPMC); ECX[15:0] is the index. */
#define RDPMC_GP		0x0000
#define RDPMC_METRICS		0x2000
#define RDPMC_FIXED		0x4000

/* One nibble of IA32_FIXED_CTR_CTRL. */
#define FIXED_OS		BIT(0)
#define FIXED_USR		BIT(1)
#define FIXED_ANY		BIT(2)
#define FIXED_PMI		BIT(3)

/* What can be counted: work, cycles and slots of one pmu_advance(). */
enum quantity {
	Q_NOTHING,		/* always 0: an event the model does not know */
	Q_INSTRUCTIONS,
	Q_CYCLES,
	Q_REFERENCE,
	Q_BRANCHES,
	Q_BRANCH_MISSES,
	Q_LINE_FLUSHES,
	Q_SLOTS,
	Q_RETIRING,		/* PMU_NR_SLOT entries in the order of enum pmu_slot */
	Q_BAD_SPEC,
	Q_FE_BOUND,
	Q_BE_BOUND,
	Q_HEAVY_OPS,
	Q_BR_MISPREDICT,
	Q_FETCH_LATENCY,
	Q_MEM_BOUND,
	NR_QUANTITY
};

/* line.c: a line of JSON in the making; cut off rather than overrun */
struct line {
	size_t length;
	char text[8192];	/* the longest, "accesses", has some 300 counts */
};

void line_add(struct line *line, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* account.c: one account per owner and CPU */
struct account {
	bool nonroot;
	uint64_t owner;
	uint64_t switches;			/* to it: VM entries of a guest */
	uint64_t done[NR_QUANTITY];		/* what the owner did */
	uint64_t fixed[SLOTS_INDEX + 1];	/* what counters 0..3 saw of it */
	uint64_t metrics[PMU_MAX_METRICS];	/* what PERF_METRICS saw of it */
	struct guest *guest;			/* NULL for root */
	struct account *next;
};

#define DEPARTED	(UINT64_MAX - 1)	/* owner of pmu->departed */
#define BEFORE		(UINT64_MAX - 2)	/* owner of pmu->before */

/* The owners whose work a register holds. */
#define MAX_HOLDERS	4

struct holders {
	unsigned int nr;
	bool more;		/* than MAX_HOLDERS */
	const struct account *account[MAX_HOLDERS];
};

struct registry;

struct account *account_of(struct pmu *pmu, bool nonroot, uint64_t owner);
void account_free(struct pmu *pmu);
void registry_free(struct registry *registry);
void line_owner(struct line *line, const struct account *account);
void holders_clear(struct holders *holders);
void holders_add(struct holders *holders, const struct account *account);
void holders_merge(struct holders *holders, const struct holders *other);

/* machine.c: a description; every number a uint64_t so that one table parses all. */

#define MACHINE_MAX_CPUS	64

struct penalty {
	uint64_t dependency;	/* backend slots per 16 instructions */
	uint64_t branch;	/* frontend slots per branch */
	uint64_t branch_miss;	/* bad speculation slots */
	uint64_t fetch_miss;	/* frontend slots */
	uint64_t page_walk;	/* backend slots */
	uint64_t line_flush;	/* backend slots */
};

struct cpu_override {
	bool has_capabilities;
	uint64_t capabilities;
};

/* What whoever ran before Linux left in the registers; see machine.c. */
struct before {
	uint64_t gp;		/* in each general counter */
	uint64_t fixed;		/* in each fixed counter but 3 */
	uint64_t slots;		/* in fixed counter 3 */
	uint64_t metrics;	/* PERF_METRICS */
	uint64_t status;	/* overflows in GLOBAL_STATUS */
	uint64_t selector;	/* of the general counters of selectors */
	uint64_t selectors;	/* a mask */
	uint64_t fixed_ctrl;
	uint64_t global_ctrl;	/* bits beside those that reset sets */
};

struct pmu_machine {
	char name[64];
	uint64_t version;
	uint64_t gp_counters;
	uint64_t fixed_bitmap;
	uint64_t gp_width;
	uint64_t fixed_width;
	uint64_t events;
	uint64_t pdcm;
	uint64_t capabilities;
	uint64_t metrics;
	uint64_t width;
	uint64_t save_global_ctrl;
	uint64_t asci;			/* guests run enclaves, says GLOBAL_STATUS */
	uint64_t metrics_keep;		/* metrics_write = keep */
	uint64_t metrics_ignore;	/* metrics_reserved = ignore */
	uint64_t metrics_truncate;	/* metrics_rounding = truncate */
	struct penalty penalty;
	struct before before;
	struct cpu_override cpu[MACHINE_MAX_CPUS];
	struct registry *registry;	/* the machine's one thing that changes */
};

uint64_t machine_capabilities(const struct pmu_machine *machine,
			      unsigned int cpu);
bool machine_has_anythread(const struct pmu_machine *machine);

/* slots.c */
void slots_attribute(const struct pmu_machine *machine,
		     const uint64_t work[PMU_NR_WORK], uint64_t q[NR_QUANTITY]);

/* events.c */
enum quantity event_quantity(uint64_t selector);
enum quantity fixed_quantity(unsigned int index);
uint64_t event_count(const struct pmu_machine *machine, uint64_t selector,
		     const uint64_t q[NR_QUANTITY]);
uint64_t quantity_per_instruction(const struct pmu_machine *machine,
				  enum quantity quantity);

/* metrics.c */
#define METRICS_ONE		((uint64_t)255)	/* a field that says "all slots" */

uint64_t metrics_read(const struct pmu_machine *machine, uint64_t slots,
		      const uint64_t hidden[PMU_MAX_METRICS]);
void metrics_write(const struct pmu_machine *machine, uint64_t slots,
		   uint64_t value, uint64_t hidden[PMU_MAX_METRICS]);

/* counter.c: a counter, by its bit in GLOBAL_CTRL */
struct counter {
	uint64_t value;
	struct holders holders;
};

bool pmu_has_metrics(const struct pmu *pmu);
uint64_t pmu_metrics(const struct pmu *pmu);
struct counter *pmu_counter(struct pmu *pmu, unsigned int bit);
unsigned int first_bit(uint64_t bits);
unsigned int counter_width(const struct pmu *pmu, unsigned int bit);
unsigned int counter_levels(const struct pmu *pmu, unsigned int bit);
enum quantity counter_quantity(const struct pmu *pmu, unsigned int bit);

/* access.c: what the hypervisor did with the PMU */
#define NR_MSRS		(MSR_DS_AREA + 1)	/* the last one here */
#define NR_REASONS	128	/* basic exit reasons; the SDM has some 80 */
#define NR_FIELDS	2

enum msr_access {
	RDMSR,
	WRMSR,
	STORED,			/* by a VM exit */
	LOADED,			/* by a VM entry or VM exit */
	NR_MSR_ACCESSES
};

struct accesses {
	uint64_t entries;
	uint64_t exits[NR_REASONS];
	uint64_t msr[NR_MSR_ACCESSES][NR_MSRS];
	uint64_t rdpmc[64];	/* bits as in IA32_PERF_GLOBAL_CTRL */
	uint64_t field[2][NR_FIELDS];	/* VMREAD, VMWRITE */
};

void access_rdmsr(struct pmu *pmu, uint32_t msr);
void access_wrmsr(struct pmu *pmu, uint32_t msr);
void access_rdpmc(struct pmu *pmu, unsigned int bit);
void access_exit(struct pmu *pmu, unsigned int reason);
void access_emit(struct pmu *pmu, const char *head);

/* audit.c: who reads what */
struct world_switch {
	const struct account *from;
	const struct account *to;
	uint64_t vmcs;
	uint64_t rip;
};

#define MAX_HISTORY	6
#define MAX_LINES	100	/* of one kind and program; more are counted, not written */

/* Why a register holds another value than at the VM exit (conserve.c). */
enum explanation {
	UNEXPLAINED,
	BY_INSTRUCTION,
	BY_WRITE,
	BY_NESTING,
	NR_EXPLANATIONS
};

struct audit {
	uint64_t leaks;
	uint64_t pmis;
	uint64_t pmis_seen;
	uint64_t switches;
	struct world_switch history[MAX_HISTORY];
	/* conserve.c */
	uint64_t audited;	/* VM entries */
	uint64_t compared;	/* registers */
	uint64_t explained[NR_EXPLANATIONS];
	uint64_t sums;		/* counters whose books were checked */
	uint64_t lost;
};

void audit_switch(struct pmu *pmu, const struct account *to,
		  const struct pmu_context *context);
void audit_read(struct pmu *pmu, const char *reg, unsigned int index,
		uint64_t value, const struct holders *holders);
void audit_status(struct pmu *pmu, uint64_t value);
void audit_pmi(struct pmu *pmu, uint64_t overflow);
void audit_depart(struct pmu *pmu, uint64_t owner);
void audit_section(struct pmu *pmu, uint64_t id);
void audit_total(struct pmu *pmu);
void add_history(struct line *line, const struct audit *audit);

/* conserve.c: a guest's registers, and where its counts came from */
#define NR_COUNTERS	(PMU_MAX_GP + PMU_MAX_FIXED)
#define NR_HELD		(NR_COUNTERS + 3)	/* metrics, status, control */

struct held {
	uint64_t value[NR_HELD];
};

struct sum {
	uint64_t first;
	uint64_t counted;
	uint64_t written;	/* by the guest; new minus old values */
	uint64_t changed;	/* between a VM exit and the next VM entry */
};

struct guest {
	uint64_t owner;
	uint64_t owned;		/* registers that it was given, as in counter_bits */
	unsigned int nr_owned;
	struct sum sum[NR_COUNTERS];
	uint64_t vmcs;		/* that it left from last */
	bool cleared;		/* by VMCLEAR since */
	bool away;		/* left, and the following is true of it */
	struct pmu_exit exit;
	unsigned int cpu;
	unsigned int cpl;
	uint64_t rip;
	uint64_t retired;	/* counters that may count the instruction it left at */
	uint64_t user_entries;	/* of the registry, then */
	struct held held;
	struct guest *next;
};

/* What all CPUs of a machine share. */
struct registry {
	struct pmu *pmus;
	struct guest *guests;
	uint64_t user_entries;	/* how often a CPU entered user mode of the host */
	uint64_t leaks;
	uint64_t lost;
	uint64_t leak_lines;	/* since the last section began */
	uint64_t lost_lines;
	bool closed;
};

void conserve_write(struct pmu *pmu, unsigned int bit, uint64_t from, uint64_t to);
void conserve_compare(struct pmu *pmu, struct guest *guest);
void conserve_give(struct pmu *pmu, struct guest *guest, uint64_t owned);
void conserve_leave(struct pmu *pmu, struct guest *guest, const struct pmu_exit *exit);
void conserve_end(struct pmu *pmu, struct guest *guest);
void conserve_close(struct pmu *pmu);
unsigned int held_index(unsigned int bit);

/* truth.c */
void truth_machine(struct pmu *pmu);

/* pmu.c */
struct pmu {
	const struct pmu_machine *machine;
	const struct pmu_ops *ops;
	void *opaque;
	unsigned int cpu;

	/* What exists on this CPU. */
	uint64_t capabilities;
	uint64_t counter_bits;	/* of GLOBAL_CTRL, METRICS_BIT included */

	uint64_t selector[PMU_MAX_GP];
	struct counter gp[PMU_MAX_GP];
	struct counter fixed[PMU_MAX_FIXED];
	uint64_t hidden[PMU_MAX_METRICS];	/* behind PERF_METRICS, 1/255 slot */
	struct holders hidden_holders;
	uint64_t fixed_ctrl;
	uint64_t global_ctrl;
	uint64_t global_status;
	struct holders status_holders[64];
	uint64_t misc_enable;
	bool freeze_on_pmi;

	/* Derived from the registers by pmu_configure(). */
	uint64_t active[2];	/* counting at CPL 0, at CPL 1 to 3 */
	uint64_t interrupting;	/* raise a PMI on overflow */
	bool deadline_set;

	struct pmu_context context;
	bool leaving;		/* VM exit under way: the CPU reads, for the hypervisor */
	bool switching;		/* MSRs are accessed by a VM entry or VM exit */
	struct account root;	/* heads the list of accounts */
	struct account spill;	/* for owners beyond memory */
	struct account departed;	/* what guests held that are no more */
	struct account before;		/* what was there at power on */
	struct account *account;
	const struct account *last_guest;	/* that ran here */
	const struct account *pmi_guest;	/* that a PMI is on its way for, or NULL */
	uint64_t pmi_overflow;			/* and why */
	struct audit audit;
	struct accesses accesses;
	struct pmu *next;	/* of the registry */
};

void pmu_configure(struct pmu *pmu);

#endif /* LAB_MODEL_INTERNAL_H */
