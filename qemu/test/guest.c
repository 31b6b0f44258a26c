// SPDX-License-Identifier: GPL-2.0
/*
 * Process 1 of a guest that is migrated: does what host.c tells it over the
 * serial port, a word at a time, and says what it sees.
 *
 *	features	what CPUID, the MSRs and sysfs say of topdown
 *	zero start stop	the fixed counters 0-3 and PERF_METRICS, by MSR
 *	allow		their bits in PERF_GLOBAL_CTRL; none is set to count
 *	work		some ten milliseconds, of all kinds
 *	tick		some ten microseconds
 *	read		the PMU's MSRs
 *	perf		what perf has counted since the first "perf"
 *
 * An answer is lines "topdown: NAME=0xVALUE", at last "topdown: end".
 */
#include <cpuid.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#define MSR_FIXED_CTR0		0x309
#define MSR_PERF_METRICS	0x329
#define MSR_PERF_CAPABILITIES	0x345
#define MSR_FIXED_CTR_CTRL	0x38d
#define MSR_GLOBAL_STATUS	0x38e
#define MSR_GLOBAL_CTRL		0x38f
#define FIXED_COUNTERS		4
#define CPUID_1_ECX_PDCM	(1u << 15)
#define ALL_RINGS		0x3333ull	/* in each nibble of FIXED_CTR_CTRL */
#define ENABLE_FIXED		(0xfull << 32)
#define ENABLE_METRICS		(1ull << 48)

#define EVENTS			"/sys/bus/event_source/devices/cpu/events/"

static int tty, msr;

__attribute__((format(printf, 1, 2)))
static void say(const char *format, ...)
{
	char line[200];
	va_list args;
	int length;

	/* In one write: the kernel's messages go to the same port. */
	length = sprintf(line, "topdown: ");
	va_start(args, format);
	length += vsnprintf(line + length, sizeof(line) - length - 1, format, args);
	va_end(args);
	line[length++] = '\n';
	if (write(tty, line, length) != length)
		_exit(1);
}

static void say_value(const char *name, uint64_t value)
{
	say("%s=0x%llx", name, (unsigned long long)value);
}

static uint64_t rdmsr(uint32_t index)
{
	uint64_t value;

	if (pread(msr, &value, sizeof(value), index) != sizeof(value)) {
		say_value("fault", index);
		return 0;
	}
	return value;
}

static void wrmsr(uint32_t index, uint64_t value)
{
	if (pwrite(msr, &value, sizeof(value), index) != sizeof(value))
		say_value("fault", index);
}

static bool has_metrics(void)
{
	unsigned int a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & CPUID_1_ECX_PDCM) &&
	       (rdmsr(MSR_PERF_CAPABILITIES) & (1 << 15));
}

/* A branch in each of @rounds that depends on what no predictor knows. */
static void mispredict(unsigned int rounds)
{
	static uint32_t random = 12345;

	while (rounds--) {
		random = random * 1664525 + 1013904223;
		/* Assembly, lest the compiler finds a way without a branch. */
		if (random & 0x40000000)
			__asm__ volatile("nop");
	}
}

static void retire(unsigned int rounds)
{
	while (rounds--)
		__asm__ volatile("nop;nop;nop;nop;nop;nop;nop;nop;nop;nop");
}

/*
 * Always of the same mixture: if the fractions changed from one exit to the
 * next by less than 8 bits can say, rounding at each of them would show here
 * (see "Precision" in Documentation/virt/kvm/x86/topdown.rst).
 */
static void work_for(unsigned int rounds)
{
	mispredict(rounds);
	retire(rounds);
}

static void work(void)
{
	work_for(200000);
}

static void tick(void)
{
	work_for(1000);
}

static void features(void)
{
	unsigned int eax = 0, ebx, ecx, edx = 0;

	__get_cpuid_count(0xa, 0, &eax, &ebx, &ecx, &edx);
	say_value("version", eax & 0xff);
	say_value("fixed", edx & 0x1f);
	say_value("metrics", has_metrics());
	say_value("perf_slots", !access(EVENTS "slots", F_OK));
	say_value("perf_metrics", !access(EVENTS "topdown-retiring", F_OK));
}

static void stop(void)
{
	wrmsr(MSR_GLOBAL_CTRL, 0);
}

static void zero(void)
{
	unsigned int i;

	stop();
	wrmsr(MSR_FIXED_CTR_CTRL, 0);
	for (i = 0; i < FIXED_COUNTERS; i++)
		wrmsr(MSR_FIXED_CTR0 + i, 0);
	if (has_metrics())
		wrmsr(MSR_PERF_METRICS, 0);
}

static void start(void)
{
	wrmsr(MSR_FIXED_CTR_CTRL, ALL_RINGS);
	wrmsr(MSR_GLOBAL_CTRL, ENABLE_FIXED | (has_metrics() ? ENABLE_METRICS : 0));
}

/* As Linux does with all that CPUID says as soon as it uses any counter. */
static void allow(void)
{
	wrmsr(MSR_GLOBAL_CTRL, ENABLE_FIXED);
}

static void read_all(void)
{
	char name[] = "counter0";
	unsigned int i;

	for (i = 0; i < FIXED_COUNTERS; i++) {
		name[7] = '0' + i;
		say_value(name, rdmsr(MSR_FIXED_CTR0 + i));
	}
	say_value("metrics", has_metrics() ? rdmsr(MSR_PERF_METRICS) : 0);
	say_value("controls", rdmsr(MSR_FIXED_CTR_CTRL));
	say_value("global", rdmsr(MSR_GLOBAL_CTRL));
	say_value("status", rdmsr(MSR_GLOBAL_STATUS));
	say_value("capabilities", rdmsr(MSR_PERF_CAPABILITIES));
}

static int open_event(uint32_t type, uint64_t config, int group)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.type = type,
		.config = config,
		.read_format = PERF_FORMAT_GROUP,
		.disabled = group < 0,
	};
	/* On the CPU, since that of a task is read at every context switch. */
	int fd = syscall(SYS_perf_event_open, &attr, -1, 0, group, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		say_value("no_event", config);
	return fd;
}

static void perf(void)
{
	static const struct {
		const char *name;
		uint32_t type;
		uint64_t config;
	} events[] = {
		{ "slots", PERF_TYPE_RAW, 0x0400 },
		{ "retiring", PERF_TYPE_RAW, 0x8000 },
		{ "bad_speculation", PERF_TYPE_RAW, 0x8100 },
		{ "frontend", PERF_TYPE_RAW, 0x8200 },
		{ "backend", PERF_TYPE_RAW, 0x8300 },
		{ "cycles", PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES },
	};
	enum { EVENTS_COUNT = sizeof(events) / sizeof(events[0]) };
	uint64_t values[1 + EVENTS_COUNT];
	static int group = -1;
	int i;

	if (group < 0) {
		for (i = 0; i < EVENTS_COUNT; i++) {
			int fd = open_event(events[i].type, events[i].config, group);

			if (fd < 0)
				return;
			if (!i)
				group = fd;
		}
		ioctl(group, PERF_EVENT_IOC_ENABLE, PERF_IOC_FLAG_GROUP);
		return;
	}
	if (read(group, values, sizeof(values)) != sizeof(values)) {
		say_value("no_values", 1);
		return;
	}
	for (i = 0; i < EVENTS_COUNT; i++)
		say_value(events[i].name, values[1 + i]);
}

static void obey(const char *word)
{
	static const struct {
		const char *word;
		void (*call)(void);
	} words[] = {
		{ "features", features }, { "zero", zero }, { "start", start },
		{ "stop", stop }, { "allow", allow }, { "work", work }, { "tick", tick },
		{ "read", read_all }, { "perf", perf },
	};
	unsigned int i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(word, words[i].word))
			words[i].call();
	say("end");
}

static void set_up(void)
{
	struct termios termios;

	mkdir("/dev", 0755);
	mkdir("/sys", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	tty = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
	msr = open("/dev/cpu/0/msr", O_RDWR);
	if (tty < 0)
		exit(1);
	if (msr < 0)
		say("no /dev/cpu/0/msr");
	if (!tcgetattr(tty, &termios)) {
		termios.c_lflag &= ~ECHO;
		termios.c_oflag &= ~OPOST;
		tcsetattr(tty, TCSANOW, &termios);
	}
}

int main(void)
{
	char word[64];
	ssize_t length;

	set_up();
	/* What the firmware and the kernel left: of use after a reset. */
	read_all();
	say("end");
	for (;;) {
		struct pollfd poll_fd = { .fd = tty, .events = POLLIN };

		/* Busy enough to be migrated in the midst of it at times. */
		if (!poll(&poll_fd, 1, 1)) {
			tick();
			continue;
		}
		length = read(tty, word, sizeof(word) - 1);
		if (length <= 0)
			break;
		word[length] = '\0';
		word[strcspn(word, "\n")] = '\0';
		obey(word);
	}
	say("the serial port is gone");
	reboot(RB_POWER_OFF);
	return 1;
}
