// SPDX-License-Identifier: GPL-2.0
/*
 * On the emulated host: runs a guest (guest.c) in one or several QEMU
 * processes and checks what becomes of its topdown.
 *
 *	host TEST [QEMU [CPU]]
 *
 * QEMU is the program under test (/qemu/qemu), CPU what follows -cpu (host).
 * Tests that need an unpatched QEMU take /qemu/qemu-base.
 *
 *	features	four fixed counters, the capability, perf's events
 *	migrate		stopped, counting, counting by perf
 *	reset		starts from zero
 *	refuse		a CPU without the feature, or without a name for it
 *	model		a CPU model, with the feature by its name
 *	off		without the feature: none, and the rest is migrated
 *	streams		to and from a QEMU without the patches
 *	lacking		a host without the feature
 *
 * Exits with 0 if all is well, 4 (a kselftest's skip) if something is missing,
 * else with 1.  The last line says why.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SKIP		4
#define PATCHED		"/qemu/qemu"
#define BASE		"/qemu/qemu-base"
#define SERIAL		"/tmp/serial"	/* QEMU's are SERIAL.in, SERIAL.out */
#define STATE		"/tmp/state"
#define ERRORS		"/tmp/errors"
#define LIMIT		60		/* seconds for any answer */
#define MAX_VALUES	16

struct values {
	char names[MAX_VALUES][32];
	unsigned long long values[MAX_VALUES];
	unsigned int count;
};

struct lines {
	char text[4096];
	size_t length;
};

static const char *cpu = "host", *program = PATCHED;
static pid_t qemu;
static int qmp_in = -1, qmp_out = -1, serial_in, serial_out;
static struct lines qmp_lines, serial_lines;
static unsigned int failures;
static char first[400];			/* of the failures */

__attribute__((format(printf, 2, 3)))
static void check(bool good, const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	printf("%s: %s\n", good ? "good" : "BAD", text);
	fflush(stdout);
	if (!good && !failures++)
		strcpy(first, text);
}

/* What QEMU said on its standard error, in one line. */
static const char *errors(void)
{
	static char text[600];
	size_t length, i;
	FILE *file = fopen(ERRORS, "r");

	if (!file)
		return "";
	length = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[length] = '\0';
	for (i = 0; i < length; i++)
		if (text[i] == '\n')
			text[i] = i + 1 < length ? ';' : '\0';
	return text;
}

__attribute__((format(printf, 1, 2), noreturn))
static void fail(const char *format, ...)
{
	va_list args;

	printf("FAILED: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(" (QEMU: %s)\n", errors());
	if (qemu > 0)
		kill(qemu, SIGKILL);
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

/* Takes a whole line out of @lines, if there is one. */
static bool take_line(struct lines *lines, char *line, size_t size)
{
	char *end = memchr(lines->text, '\n', lines->length);
	size_t length;

	if (!end)
		return false;
	*end = '\0';
	snprintf(line, size, "%s", lines->text);
	line[strcspn(line, "\r")] = '\0';
	length = end + 1 - lines->text;
	lines->length -= length;
	memmove(lines->text, end + 1, lines->length);
	return true;
}

/* The next line, or false at the end or when @seconds are over. */
static bool next_line(int fd, struct lines *lines, char *line, size_t size,
		      double seconds)
{
	double end = now() + seconds;

	while (!take_line(lines, line, size)) {
		struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
		double left = end - now();
		ssize_t length;

		if (lines->length == sizeof(lines->text))
			lines->length = 0;
		if (left <= 0 || poll(&poll_fd, 1, left * 1000 + 1) <= 0)
			return false;
		length = read(fd, lines->text + lines->length,
			      sizeof(lines->text) - lines->length);
		if (length <= 0)
			return false;
		lines->length += length;
	}
	return true;
}

/* What QEMU returns for @command; false if it is an error or QEMU is gone. */
static bool qmp(const char *command, char *line, size_t size)
{
	if (dprintf(qmp_in, "%s\n", command) < 0)
		return false;
	while (next_line(qmp_out, &qmp_lines, line, size, LIMIT)) {
		if (!strncmp(line, "{\"return\"", 9))
			return true;
		if (!strncmp(line, "{\"error\"", 8)) {
			printf("qemu| %s\n", line);
			return false;
		}
	}
	line[0] = '\0';
	return false;
}

/* start PROGRAM: with the guest's state in STATE, or to boot it. */
static bool start(const char *path, const char *model, bool incoming)
{
	int in[2], out[2];
	char line[4096];
	const char *args[] = {
		path, "-L", "/qemu/share", "-nodefaults", "-no-user-config",
		"-display", "none", "-M", "microvm,rtc=off,pit=off,pic=off",
		"-accel", "kvm", "-cpu", model, "-m", "128",
		"-kernel", "/qemu/bzImage", "-initrd", "/qemu/guest.cpio.lz4",
		"-append", "console=ttyS0 loglevel=5 nmi_watchdog=0 msr.allow_writes=on",
		"-chardev", "pipe,id=serial,path=" SERIAL,
		"-serial", "chardev:serial", "-qmp", "stdio",
		incoming ? "-incoming" : NULL, "file:" STATE, NULL,
	};

	printf("starting %s -cpu %s%s\n", path, model, incoming ? " -incoming" : "");
	fflush(stdout);
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		err(1, "pipe");
	qemu = fork();
	if (qemu < 0)
		err(1, "fork");
	if (!qemu) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		dup2(open(ERRORS, O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
		execv(path, (char **)args);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	qmp_in = in[1];
	qmp_out = out[0];
	qmp_lines.length = 0;
	/* First there is a greeting, which the answer to this one follows. */
	return qmp("{\"execute\":\"qmp_capabilities\"}", line, sizeof(line));
}

/* Ends QEMU; returns its status, or 128 and the signal. */
static int end(bool kill_it)
{
	int status = 0;

	if (kill_it)
		kill(qemu, SIGKILL);
	waitpid(qemu, &status, 0);
	qemu = 0;
	close(qmp_in);
	close(qmp_out);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* A splat of the guest's kernel, which the lab does not see. */
static void check_guest_line(const char *line)
{
	static const char *const splats[] = {
		"WARNING:", "BUG:", "unchecked MSR access", "Call Trace", "PMU broken",
	};
	unsigned int i;

	for (i = 0; i < sizeof(splats) / sizeof(splats[0]); i++)
		if (strstr(line, splats[i]))
			check(false, "the guest's kernel says: %s", line);
}

/* Reads what the guest says, up to its "end". */
static void listen(struct values *values)
{
	char line[1024], *text;

	values->count = 0;
	while (next_line(serial_out, &serial_lines, line, sizeof(line), LIMIT)) {
		text = strstr(line, "topdown: ");
		if (!text) {
			printf("guest| %s\n", line);
			check_guest_line(line);
			continue;
		}
		if (!strcmp(text, "topdown: end"))
			return;
		if (values->count == MAX_VALUES ||
		    sscanf(text, "topdown: %31[a-z_0-9]=%llx",
			   values->names[values->count],
			   &values->values[values->count]) != 2)
			fail("the guest said \"%s\"", line);
		values->count++;
	}
	fail("the guest is silent");
}

static unsigned long long value(const struct values *values, const char *name)
{
	unsigned int i;

	for (i = 0; i < values->count; i++)
		if (!strcmp(values->names[i], name))
			return values->values[i];
	fail("the guest did not say what %s is", name);
}

static void tell(const char *word, struct values *values)
{
	struct values unused;
	unsigned int i;

	if (!values)
		values = &unused;
	dprintf(serial_in, "%s\n", word);
	listen(values);
	printf("guest: %s:", word);
	for (i = 0; i < values->count; i++) {
		printf(" %s=%#llx", values->names[i], values->values[i]);
	}
	putchar('\n');
	fflush(stdout);
	for (i = 0; i < values->count; i++)
		if (!strcmp(values->names[i], "fault"))
			check(false, "MSR %#llx faults", values->values[i]);
}

/* From zero, work that counts; then the counters stand still, and what they read. */
static void count_work(struct values *values)
{
	tell("zero", NULL);
	tell("start", NULL);
	tell("work", NULL);
	tell("stop", NULL);
	if (values)
		tell("read", values);
}

/* Boots the guest; what it sees first goes to @values. */
static void boot(const char *path, const char *model, struct values *values)
{
	struct values unused;

	if (!start(path, model, false))
		fail("%s does not start with -cpu %s", path, model);
	listen(values ? values : &unused);
}

/* Saves the guest to STATE, and ends QEMU. */
static void save(void)
{
	double begin = now();
	char line[4096];

	if (!qmp("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"file:" STATE "\"}}",
		 line, sizeof(line)))
		fail("cannot migrate");
	do {
		usleep(20000);
		if (!qmp("{\"execute\":\"query-migrate\"}", line, sizeof(line)))
			fail("QEMU is gone while it migrates");
		if (strstr(line, "\"failed\""))
			fail("migration failed: %s", line);
		if (now() > begin + LIMIT)
			fail("migration takes too long: %s", line);
	} while (!strstr(line, "\"completed\""));
	qmp("{\"execute\":\"quit\"}", line, sizeof(line));
	end(false);
}

/* Does QEMU go on with the guest in STATE? */
static bool load(const char *path, const char *model)
{
	double begin = now();
	char line[4096];

	if (!start(path, model, true))
		return false;
	do {
		usleep(20000);
		if (!qmp("{\"execute\":\"query-status\"}", line, sizeof(line)))
			return false;
		if (strstr(line, "\"running\": true"))
			return true;
	} while (now() < begin + LIMIT);
	return false;
}

static void migrate(const char *path, const char *model)
{
	save();
	if (!load(path, model))
		fail("%s does not go on with the guest", path);
}

static unsigned int field(unsigned long long metrics, unsigned int i)
{
	return metrics >> (8 * i) & 0xff;
}

static unsigned int sum(unsigned long long metrics)
{
	return field(metrics, 0) + field(metrics, 1) + field(metrics, 2) + field(metrics, 3);
}

static void check_features(bool expected)
{
	struct values seen;

	tell("features", &seen);
	check(value(&seen, "fixed") == 4, "%llu fixed counters", value(&seen, "fixed"));
	check(value(&seen, "metrics") == expected, "PERF_CAPABILITIES has%s bit 15",
	      value(&seen, "metrics") ? "" : " not");
	check(value(&seen, "perf_slots") == expected, "perf has %sevent for slots",
	      value(&seen, "perf_slots") ? "an " : "no ");
	check(value(&seen, "perf_metrics") == expected, "perf has %sevents for the metrics",
	      value(&seen, "perf_metrics") ? "" : "no ");
}

static void test_features(void)
{
	struct values seen;
	unsigned long long slots, parts;

	boot(program, cpu, NULL);
	check_features(true);
	if (failures)
		return;
	tell("perf", NULL);
	tell("work", NULL);
	tell("perf", &seen);
	slots = value(&seen, "slots");
	parts = value(&seen, "retiring") + value(&seen, "bad_speculation") +
		value(&seen, "frontend") + value(&seen, "backend");
	check(slots > 1000000, "perf counted %llu slots", slots);
	/* Each of the four is rounded to 1/255. */
	check(parts > slots * 0.98 && parts < slots * 1.02,
	      "of which the four metrics make up %.2f%%", 100. * parts / slots);
	check(value(&seen, "bad_speculation") > slots / 20,
	      "mispredicted branches show");
}

/* Nothing counts: all has to be what it was. */
static void migrate_stopped(void)
{
	struct values before, after;
	unsigned int i;

	count_work(&before);
	check(value(&before, "counter3") > 1000000, "stopped: counter 3 is not zero");
	check(sum(value(&before, "metrics")) > 250, "stopped: nor are the metrics");
	migrate(program, cpu);
	tell("read", &after);
	for (i = 0; i < before.count; i++)
		check(value(&after, before.names[i]) == before.values[i],
		      "stopped: %s was %#llx and is %#llx", before.names[i],
		      before.values[i], value(&after, before.names[i]));
}

/*
 * Counters 1 (cycles) and 3 (slots) count from the same moment to the same
 * one.  The first is migrated by every QEMU, so that slots for each cycle tell
 * whether the other one was.  No part of the slots may have shrunk, but for
 * what rounding to 1/255 can do.
 */
static void migrate_counting(void)
{
	static const char *const names[] = {
		"retiring", "bad speculation", "frontend bound", "backend bound",
	};
	unsigned long long slots, old_slots, metrics, old_metrics;
	struct values before, after;
	double width, old_width;
	unsigned int i;

	count_work(&before);
	tell("start", NULL);
	migrate(program, cpu);
	tell("tick", NULL);
	tell("stop", NULL);
	tell("read", &after);
	old_slots = value(&before, "counter3");
	old_metrics = value(&before, "metrics");
	old_width = (double)old_slots / value(&before, "counter1");
	slots = value(&after, "counter3");
	metrics = value(&after, "metrics");
	width = (double)slots / value(&after, "counter1");
	check(slots > old_slots, "counting: %llu slots before, %llu after", old_slots, slots);
	check(width > old_width * 0.999 && width < old_width * 1.001,
	      "counting: %.4f slots a cycle before, %.4f after", old_width, width);
	check(sum(metrics) >= 251 && sum(metrics) <= 259,
	      "counting: the metrics add up to %u", sum(metrics));
	for (i = 0; i < 4; i++) {
		double was = old_slots * field(old_metrics, i) / 255.;
		double is = slots * field(metrics, i) / 255.;

		check(is >= was - slots / 255., "counting: %.0f slots %s before, %.0f after",
		      was, names[i], is);
	}
}

/* The same through perf, which has not yet read what the registers hold. */
static void migrate_perf(void)
{
	unsigned long long slots, parts;
	struct values before, after;
	double width, old_width;

	tell("zero", NULL);
	tell("perf", NULL);
	tell("work", NULL);
	tell("perf", &before);
	tell("work", NULL);
	migrate(program, cpu);
	tell("tick", NULL);
	tell("perf", &after);
	slots = value(&after, "slots");
	old_width = (double)value(&before, "slots") / value(&before, "cycles");
	width = (double)slots / value(&after, "cycles");
	check(slots > 1.8 * value(&before, "slots"),
	      "perf: %llu slots before, %llu after", value(&before, "slots"), slots);
	check(width > old_width * 0.999 && width < old_width * 1.001,
	      "perf: %.4f slots a cycle before, %.4f after", old_width, width);
	parts = value(&after, "retiring") + value(&after, "bad_speculation") +
		value(&after, "frontend") + value(&after, "backend");
	check(parts > slots * 0.98 && parts < slots * 1.02,
	      "perf: the metrics make up %.2f%%", 100. * parts / slots);
	check(value(&after, "bad_speculation") > 1.6 * value(&before, "bad_speculation"),
	      "perf: %llu slots of bad speculation before, %llu after",
	      value(&before, "bad_speculation"), value(&after, "bad_speculation"));
}

static void test_migrate(void)
{
	boot(program, cpu, NULL);
	check_features(true);
	if (failures)
		return;
	migrate_stopped();
	migrate_counting();
	migrate_perf();
}

/* What the guest left is gone when it boots again. */
static void test_reset(void)
{
	struct values seen;
	char line[4096];

	boot(program, cpu, NULL);
	check_features(true);
	if (failures)
		return;
	count_work(&seen);
	check(value(&seen, "counter3") && value(&seen, "metrics"), "counted before the reset");
	if (!qmp("{\"execute\":\"system_reset\"}", line, sizeof(line)))
		fail("no reset");
	listen(&seen);
	check(!value(&seen, "counter3"), "counter 3 is %#llx after it", value(&seen, "counter3"));
	check(!value(&seen, "metrics"), "the metrics are %#llx after it", value(&seen, "metrics"));
}

/* QEMU @path with @model must refuse STATE, and say @text. */
static void check_refused(const char *path, const char *model, const char *text)
{
	bool loaded = load(path, model);
	int status;

	/* It may be about to exit by itself. */
	if (loaded)
		end(true);
	status = loaded ? 0 : end(false);
	check(!loaded && status == 1 && strstr(errors(), text),
	      "%s -cpu %s %s: status %d, %s", path, model,
	      loaded ? "took the guest" : "refused", status, errors());
}

static void test_refuse(void)
{
	/* Enabled but never counted: nothing but GLOBAL_CTRL tells. */
	boot(program, cpu, NULL);
	tell("zero", NULL);
	tell("start", NULL);
	save();
	check_refused(program, "host,-perf-metrics", "feature perf-metrics");
	if (!load(program, "host,+perf-metrics,enforce"))
		fail("refused with the feature, too");
	tell("stop", NULL);
	tell("work", NULL);
	tell("read", NULL);
	end(true);
	/* Nothing counted, nor could. */
	boot(program, "host,-perf-metrics", NULL);
	tell("zero", NULL);
	tell("allow", NULL);
	save();
	check_refused(program, "host,pmu=off", "fixed counter 3");
	boot(program, cpu, NULL);
	count_work(NULL);
	save();
	check_refused(program, "host,-perf-metrics", "feature perf-metrics");
	check_refused(program, "host,pmu=off", "fixed counter 3");
	if (access(BASE, X_OK))
		printf("no %s\n", BASE);
	else
		check_refused(BASE, "host,migratable=off,-invtsc", "load of migration failed");
}

/* Of the same generation as the host; versions before have an Atom's number. */
static void test_model(void)
{
	boot(program, "Icelake-Server-v4,pmu=on,+pdcm,+perf-metrics", NULL);
	check_features(true);
}

/* A guest without PERF_METRICS has counter 3 nevertheless. */
static void test_off(void)
{
	struct values before, after;

	boot(program, "host,-perf-metrics", NULL);
	check_features(false);
	if (failures)
		return;
	count_work(&before);
	migrate(program, "host,-perf-metrics");
	tell("read", &after);
	check(value(&before, "counter3") && value(&before, "counter3") == value(&after, "counter3"),
	      "counter 3 was %#llx and is %#llx", value(&before, "counter3"),
	      value(&after, "counter3"));
}

/* A host that cannot offer the feature. */
static void test_lacking(void)
{
	struct values seen;
	int status;

	if (start(program, "host,+perf-metrics,enforce", false)) {
		end(true);
		check(false, "starts with enforce where the host lacks the feature");
	} else {
		status = end(false);
		check(status == 1 && strstr(errors(), "perf-metrics"),
		      "enforce: status %d, %s", status, errors());
	}
	boot(program, cpu, NULL);
	tell("features", &seen);
	check(!value(&seen, "metrics"), "-cpu host has no bit 15");
}

/*
 * A guest that doesn't use topdown goes from a QEMU without the patches to one
 * with them, and back.
 */
static void test_streams(void)
{
	struct values before, after;

	if (access(BASE, X_OK)) {
		printf("SKIP no %s in this image\n", BASE);
		exit(SKIP);
	}
	boot(BASE, "host", NULL);
	count_work(&before);
	migrate(program, "host,-perf-metrics");
	tell("read", &after);
	check(value(&before, "counter1") == value(&after, "counter1"),
	      "from the unpatched QEMU: counter 1 was %#llx and is %#llx",
	      value(&before, "counter1"), value(&after, "counter1"));
	tell("zero", NULL);
	migrate(BASE, "host");
	tell("features", NULL);
	check(true, "back to the unpatched QEMU");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{ "features", test_features }, { "migrate", test_migrate },
		{ "reset", test_reset }, { "refuse", test_refuse },
		{ "model", test_model }, { "off", test_off }, { "streams", test_streams },
		{ "lacking", test_lacking },
	};
	unsigned int i;

	signal(SIGPIPE, SIG_IGN);
	if (argc > 2)
		program = argv[2];
	if (argc > 3)
		cpu = argv[3];
	unlink(SERIAL ".in");
	unlink(SERIAL ".out");
	if (mkfifo(SERIAL ".in", 0600) || mkfifo(SERIAL ".out", 0600))
		err(1, "mkfifo");
	/* Open for both, so that neither end ever is the last one. */
	serial_in = open(SERIAL ".in", O_RDWR | O_CLOEXEC);
	serial_out = open(SERIAL ".out", O_RDWR | O_CLOEXEC);
	for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (argc < 2 || strcmp(argv[1], tests[i].name))
			continue;
		tests[i].run();
		if (qemu)
			end(true);
		if (failures)
			printf("%u checks failed, the first: %s\n", failures, first);
		return failures != 0;
	}
	errx(1, "no test %s", argc > 1 ? argv[1] : "given");
}
