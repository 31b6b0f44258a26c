// SPDX-License-Identifier: GPL-2.0
/*
 * Process 1 of the emulated host, and of the guests in QEMU on it: runs the
 * programs of a plan and reports.
 *
 * Everything that is printed goes through /dev/kmsg, so kernel messages and
 * program output are one ordered stream of whole, time-stamped lines, and
 * neither can pass for the other; host/words.h has what the lines can be.
 *
 * The plan is /lab/plan or what LAB_PLAN=FILE on the kernel command line says.
 * A line is "NAME LIMIT COMMAND": LIMIT in seconds of guest time, COMMAND for
 * the shell.  With LAB=shell on the kernel command line there is an interactive
 * shell instead.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../host/mark.h"
#include "../../host/words.h"

#define DEFAULT_PLAN	"/lab/plan"
#define CONSOLE		"/dev/ttyS0"
#define MODPROBE	"/sbin/modprobe"
/* Below the kernel's limit for one message (PRINTKRB_RECORD_MAX, 1024). */
#define LINE_MAX_BYTES	800
#define MAX_PROGRAMS	256
/*
 * A guest second is more than a billion instructions on the emulated host:
 * rare enough to disturb nothing, often enough to tell slow from dead.
 */
#define ALIVE_SECONDS	1
#define DRAIN_MS	10
/*
 * A thread of the kernel prints the console.  What it has not printed when a program
 * begins costs that program time, and a guest's program VM exits, for each character.
 */
#define CONSOLE_MS	50

struct program {
	char name[128];
	long limit;
	char *command;
};

struct output {
	char line[LINE_MAX_BYTES + 1];
	size_t length;
};

static int log_fd = -1;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
	char text[LINE_MAX_BYTES + 64];
	va_list args;
	int length;

	length = snprintf(text, sizeof(text), "<6>");
	va_start(args, format);
	length += vsnprintf(text + length, sizeof(text) - length, format, args);
	va_end(args);
	if (length >= (int)sizeof(text))
		length = sizeof(text) - 1;
	/* A failed write leaves a hole that the judge sees: nobody to tell. */
	if (write(log_fd, text, length) < 0)
		return;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

static void mount_or_say(const char *type, const char *where)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, NULL) && errno != EBUSY)
		say(WORDS_SAID WORDS_ERROR "cannot mount %s: %s", where, strerror(errno));
}

static void set_up(void)
{
	mkdir("/dev", 0755);
	if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY)
		perror("init: cannot mount /dev");
	log_fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (log_fd < 0) {
		perror("init: cannot open /dev/kmsg");
		log_fd = STDERR_FILENO;
	}
	mount_or_say("proc", "/proc");
	mount_or_say("sysfs", "/sys");
	mount_or_say("tmpfs", "/tmp");
	mkdir("/dev/shm", 01777);
	/* Of udev's links, what shell scripts want. */
	if (symlink("/proc/self/fd", "/dev/fd") || symlink("fd/0", "/dev/stdin") ||
	    symlink("fd/1", "/dev/stdout") || symlink("fd/2", "/dev/stderr"))
		say(WORDS_SAID WORDS_ERROR "cannot make links in /dev: %s", strerror(errno));
	setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin:/lab/bin:/selftests", 1);
	setenv("HOME", "/", 1);
}

/*
 * The modules that drive this CPU, as udev finds them; their parameters are on the
 * kernel's command line.  A guest has none, and its kernel says itself why one that is
 * there does not load.
 */
static void load_modules(void)
{
	if (access(MODPROBE, X_OK))
		return;
	if (system(MODPROBE " -qa $(cat /sys/devices/system/cpu/modalias)") < 0)
		say(WORDS_SAID WORDS_ERROR "cannot run " MODPROBE ": %s", strerror(errno));
}

/* First line of a file in sysfs, "absent" when there is no such file. */
static void say_fact(const char *key, const char *path)
{
	char value[256] = "absent";
	FILE *file = fopen(path, "r");

	if (file) {
		if (!fgets(value, sizeof(value), file))
			strcpy(value, "empty");
		fclose(file);
	}
	value[strcspn(value, "\n")] = '\0';
	say(WORDS_SAID WORDS_FACT "%s=%s", key, value);
}

/* Those that "maxcpus=" leaves for later count, too. */
static long count_cpus(void)
{
	FILE *file = fopen("/proc/cmdline", "r");
	char line[4096] = "";

	if (file) {
		if (!fgets(line, sizeof(line), file))
			line[0] = '\0';
		fclose(file);
	}
	return sysconf(strstr(line, " maxcpus=") ? _SC_NPROCESSORS_CONF : _SC_NPROCESSORS_ONLN);
}

static void say_facts(void)
{
	struct utsname name;

	uname(&name);
	say(WORDS_SAID WORDS_FACT "kernel=%s", name.release);
	say(WORDS_SAID WORDS_FACT "cpus=%ld", count_cpus());
	say_fact("pmu", "/sys/bus/event_source/devices/cpu/caps/pmu_name");
	say_fact("topdown_event",
		 "/sys/bus/event_source/devices/cpu/events/slots");
	say_fact("mediated_pmu",
		 "/sys/module/kvm_intel/parameters/enable_mediated_pmu");
}

/* Terminal escapes and other bytes of a program must not garble the log. */
static void flush_line(struct output *output)
{
	size_t i;

	for (i = 0; i < output->length; i++)
		if (!isprint((unsigned char)output->line[i]))
			output->line[i] = output->line[i] == '\t' ? ' ' : '?';
	output->line[output->length] = '\0';
	say(WORDS_OUTPUT "%s", output->line);
	output->length = 0;
}

static void take_output(struct output *output, const char *bytes, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (bytes[i] == '\r')
			continue;
		if (bytes[i] != '\n')
			output->line[output->length++] = bytes[i];
		if (bytes[i] == '\n' || output->length == LINE_MAX_BYTES)
			flush_line(output);
	}
}

/* Returns true while the program may write more. */
static bool read_output(int fd, struct output *output)
{
	char bytes[4096];
	ssize_t count = read(fd, bytes, sizeof(bytes));

	if (count > 0)
		take_output(output, bytes, count);
	return count > 0 || (count < 0 && (errno == EINTR || errno == EAGAIN));
}

static void exec_command(const char *command, int fd)
{
	int null = open("/dev/null", O_RDONLY);

	setpgid(0, 0);
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	dprintf(fd, "init: cannot run /bin/sh: %s\n", strerror(errno));
	_exit(127);
}

/*
 * Waits for the end of @pid, passing on what it prints.  Returns false when
 * it took longer than its limit.  Output that comes with the end, or from a
 * child left behind, is still read: until DRAIN_MS of silence.
 */
static bool follow(pid_t pid, int fd, const struct program *program, int *status)
{
	struct pollfd fds[] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = pidfd_open(pid, 0), .events = POLLIN },
	};
	struct output output = { .length = 0 };
	double last = now(), end = last + program->limit;
	bool ended = false, open = true;

	while (open || !ended) {
		int ready;

		fds[0].fd = open ? fd : -1;
		ready = poll(fds, 2, ended ? DRAIN_MS : ALIVE_SECONDS * 1000);
		if (ready > 0 && fds[0].revents) {
			open = read_output(fd, &output);
			last = now();
		} else if (ended) {
			break;
		}
		if (!ended && waitpid(pid, status, WNOHANG) == pid) {
			ended = true;
			close(fds[1].fd);
			fds[1].fd = -1;
		}
		if (!ended && now() > end)
			break;
		if (now() - last >= ALIVE_SECONDS) {
			say(WORDS_SAID WORDS_ALIVE);
			last = now();
		}
	}
	if (output.length)
		flush_line(&output);
	if (fds[1].fd >= 0)
		close(fds[1].fd);
	return ended;
}

/*
 * The truth file must tell in which program something happened.  Only the host's
 * programs are in the judge's plan.
 */
static void mark_program(uint64_t id)
{
	const unsigned int hypervisor = 1u << 31;	/* CPUID.1:ECX, set in guests */
	unsigned int eax, ebx, ecx = 0, edx;

	__get_cpuid(1, &eax, &ebx, &ecx, &edx);
	if (!(ecx & hypervisor))
		mark(id);
}

static void run(const struct program *program)
{
	int fds[2], status = 0;
	bool ended;
	pid_t pid;

	say(WORDS_SAID WORDS_BEGIN "%s", program->name);
	usleep(CONSOLE_MS * 1000);
	if (pipe2(fds, O_CLOEXEC)) {
		say(WORDS_SAID WORDS_ERROR "no pipe for %s: %s", program->name, strerror(errno));
		return;
	}
	pid = fork();
	if (pid < 0) {
		say(WORDS_SAID WORDS_ERROR "cannot fork for %s: %s", program->name, strerror(errno));
		return;
	}
	if (!pid)
		exec_command(program->command, fds[1]);
	setpgid(pid, pid);
	close(fds[1]);
	ended = follow(pid, fds[0], program, &status);
	close(fds[0]);
	kill(-pid, SIGKILL);
	if (!ended) {
		waitpid(pid, &status, 0);
		say(WORDS_SAID WORDS_END "%s " WORDS_TIMEOUT "%ld", program->name, program->limit);
	} else if (WIFSIGNALED(status)) {
		say(WORDS_SAID WORDS_END "%s " WORDS_SIGNAL "%d", program->name, WTERMSIG(status));
	} else {
		say(WORDS_SAID WORDS_END "%s " WORDS_STATUS "%d", program->name, WEXITSTATUS(status));
	}
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static int read_plan(struct program *plan)
{
	const char *path = getenv("LAB_PLAN") ?: DEFAULT_PLAN;
	FILE *file = fopen(path, "r");
	char *line = NULL;
	size_t size = 0;
	int count = 0, at;

	if (!file) {
		say(WORDS_SAID WORDS_ERROR "cannot open %s: %s", path, strerror(errno));
		return -1;
	}
	while (count < MAX_PROGRAMS && getline(&line, &size, file) >= 0) {
		struct program *program = &plan[count];

		line[strcspn(line, "\n")] = '\0';
		if (!line[0] || line[0] == '#')
			continue;
		if (sscanf(line, "%127s %ld %n", program->name,
			   &program->limit, &at) < 2 || program->limit <= 0) {
			say(WORDS_SAID WORDS_ERROR "%s: not \"NAME LIMIT COMMAND\": %s", path, line);
			return -1;
		}
		program->command = strdup(line + at);
		count++;
	}
	free(line);
	fclose(file);
	return count;
}

static int run_plan(void)
{
	static struct program plan[MAX_PROGRAMS];
	int count, i;

	say_facts();
	count = read_plan(plan);
	if (count < 0)
		return 1;
	say(WORDS_SAID WORDS_PLAN "%d", count);
	for (i = 0; i < count; i++) {
		mark_program(MARK_PROGRAM_BEGIN(i));
		run(&plan[i]);
		mark_program(MARK_PROGRAM_END(i));
	}
	say(WORDS_SAID WORDS_DONE);
	return 0;
}

static int shell(void)
{
	int fd;

	setsid();
	fd = open(CONSOLE, O_RDWR);
	if (fd < 0) {
		say(WORDS_SAID WORDS_ERROR "cannot open " CONSOLE ": %s", strerror(errno));
		return 1;
	}
	ioctl(fd, TIOCSCTTY, 1);
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	puts("The emulated host. Programs: /lab/bin, /selftests. Leave with exit.");
	fflush(stdout);
	setenv("TERM", "vt100", 1);
	setenv("PS1", "host# ", 1);
	execl("/bin/sh", "sh", "-i", (char *)NULL);
	say(WORDS_SAID WORDS_ERROR "cannot run /bin/sh: %s", strerror(errno));
	return 1;
}

int main(void)
{
	const char *mode = getenv("LAB");
	int status = 0;
	pid_t pid;

	set_up();
	load_modules();
	/* The work is done by a child, so that process 1 survives any bug in it. */
	pid = fork();
	if (!pid)
		_exit(mode && !strcmp(mode, "shell") ? shell() : run_plan());
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid < 0 || !WIFEXITED(status))
		say(WORDS_SAID WORDS_ERROR "the runner died (%#x)", (unsigned int)status);
	sync();
	reboot(RB_POWER_OFF);
	say(WORDS_SAID WORDS_ERROR "cannot power off: %s", strerror(errno));
	for (;;)
		pause();
}
