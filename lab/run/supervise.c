// SPDX-License-Identifier: GPL-2.0
/*
 * Runs the emulator, follows its console, and always ends it.
 *
 *	supervise [-c NAME] [-i] [-p LABEL] [-s SECONDS] [-t SECONDS] [-w SECONDS]
 *		  DIR COMMAND...
 *
 * DIR is the run's directory: DIR/console.log is the console that the
 * emulator writes, DIR/result gets how it went, as KEY=VALUE lines.
 *
 *   -c NAME	pass on the output of program NAME, exit with its status
 *   -i		interactive: DIR/tty becomes the emulator's side of a pseudo
 *		terminal, whose other side is this terminal
 *   -p LABEL	say on standard error which program runs, after LABEL
 *   -s SECONDS	processor time that the emulator may use while the console
 *		stays silent; init breaks the silence once a guest second
 *   -t SECONDS	wall time that it may spend without using or wanting a processor
 *   -w SECONDS	wall time at most
 *
 * A slow or shared machine must not look like a dead guest: progress is
 * measured in the emulator's own processor time, which is proportional to
 * the instructions it emulated.  An emulator that uses none, without waiting
 * for a processor either, is stuck.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "../judge/console.h"

#define EXIT_LAB	125	/* as timeout(1) and git-bisect: not the program's */
#define EXIT_TIMEOUT	124
#define POLL_MS		100
#define ESCAPE		0x1d	/* Ctrl-] leaves, as in telnet */

struct run {
	const char *dir, *command, *label;
	bool interactive;
	double silence, stuck, wall;

	pid_t pid;
	int console, terminal, keys;
	struct termios saved;
	char line[4096];
	size_t length;
	double began, heard;		/* wall time; processor time */
	double used, moved;		/* processor time, wall time of its last change */
	double stopping;		/* wall time from which on to kill, or 0 */
	unsigned int banners;
	const char *reason;		/* why it ended, if not by itself */
	bool done;
	int status;			/* of the program, -1 for none */
	int emulator_status;
};

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
	interrupted = number;
}

static double wall_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

/*
 * Seconds of processor time of all threads (proc(5): utime, stime), and
 * whether the process would like to have more.
 */
static double processor_time(pid_t pid, bool *runnable)
{
	unsigned long user, system;
	char state;
	char path[64], text[1024], *at;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[length < 0 ? 0 : length] = '\0';
	at = strrchr(text, ')');
	if (!at || sscanf(at, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
			  &state, &user, &system) != 3)
		return 0;
	if (runnable)
		*runnable = state == 'R';
	return (double)(user + system) / sysconf(_SC_CLK_TCK);
}

/* A pseudo terminal for the emulator; DIR/tty is a link to it. */
static void open_terminal(struct run *run)
{
	char path[4096];
	struct termios raw;

	run->keys = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (run->keys < 0 || grantpt(run->keys) || unlockpt(run->keys))
		err(EXIT_LAB, "cannot make a pseudo terminal");
	snprintf(path, sizeof(path), "%s/tty", run->dir);
	unlink(path);
	if (symlink(ptsname(run->keys), path))
		err(EXIT_LAB, "cannot make %s", path);
	/* Held open, so that reading gives no error before the emulator opens it. */
	run->terminal = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (run->terminal < 0)
		err(EXIT_LAB, "cannot open %s", path);
	if (!tcgetattr(run->terminal, &raw)) {
		cfmakeraw(&raw);
		tcsetattr(run->terminal, TCSANOW, &raw);
	}
	if (tcgetattr(STDIN_FILENO, &run->saved))
		return;
	raw = run->saved;
	cfmakeraw(&raw);
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	fprintf(stderr, "Ctrl-] ends the emulated host.\r\n");
}

static void open_console(struct run *run)
{
	char path[4096];
	int flags = O_CREAT | O_TRUNC | O_CLOEXEC;

	snprintf(path, sizeof(path), "%s/console.log", run->dir);
	run->console = open(path, flags | (run->interactive ? O_WRONLY : O_RDONLY), 0666);
	if (run->console < 0)
		err(EXIT_LAB, "cannot open %s", path);
	if (run->interactive)
		open_terminal(run);
}

static void start(struct run *run, char **command)
{
	pid_t parent = getpid();
	char path[4096];
	int fd;

	run->pid = fork();
	if (run->pid < 0)
		err(EXIT_LAB, "cannot start %s", command[0]);
	if (run->pid)
		return;
	/* The emulator must not outlive this process, however that ends. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_LAB);
	setpgid(0, 0);
	snprintf(path, sizeof(path), "%s/emulator.out", run->dir);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0666);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	fd = open("/dev/null", O_RDONLY);
	dup2(fd, STDIN_FILENO);
	close_range(3, ~0u, 0);
	execvp(command[0], command);
	warn("cannot run %s", command[0]);
	_exit(127);
}

static void stop(struct run *run, const char *reason)
{
	if (!run->reason)
		run->reason = reason;
	if (!run->stopping)
		run->stopping = wall_now();
}

static void take_end(struct run *run, const char *rest)
{
	struct console_ending ending;

	console_ending(rest, &ending);
	if (strcmp(ending.name, run->command))
		return;
	if (ending.how == CONSOLE_STATUS)
		run->status = ending.number;
	else if (ending.how == CONSOLE_SIGNAL)
		run->status = 128 + ending.number;
	else if (ending.how == CONSOLE_TIMEOUT)
		run->status = EXIT_TIMEOUT;
}

/* A program begins, on the host or in a guest (host/topdown-vm.c). */
static void show_progress(const struct run *run, const char *who, const char *program)
{
	if (run->label)
		fprintf(stderr, "  %s: %s%s, after %.0f s\n", run->label, who, program,
			wall_now() - run->began);
}

static void take_output(const struct run *run, const char *text)
{
	struct console_line line;
	const char *passed;
	char who[32];
	int number;

	if (run->command) {
		puts(text);
		fflush(stdout);
	}
	number = console_passed_on(text, &passed);
	if (number <= 0)
		return;
	line = console_line(passed);
	snprintf(who, sizeof(who), "guest %d, ", number);
	if (line.kind == CONSOLE_BEGIN)
		show_progress(run, who, line.rest);
}

static void take_line(struct run *run)
{
	struct console_line line = console_line(run->line);

	switch (line.kind) {
	case CONSOLE_OUTPUT:
		take_output(run, line.rest);
		break;
	case CONSOLE_BEGIN:
		show_progress(run, "", line.rest);
		break;
	case CONSOLE_END:
		if (run->command)
			take_end(run, line.rest);
		break;
	case CONSOLE_DONE:
		run->done = true;
		break;
	case CONSOLE_KERNEL:
		/* Nothing good follows these: do not wait for the silence. */
		if (strstr(line.rest, CONSOLE_PANIC_END))
			stop(run, "panic");
		if (console_after(line.rest, CONSOLE_BANNER) && ++run->banners > 1)
			stop(run, "reset");
		break;
	default:
		break;
	}
}

static void take_console(struct run *run, const char *bytes, ssize_t count)
{
	ssize_t i;

	if (count > 0) {
		run->heard = processor_time(run->pid, NULL);
		run->moved = wall_now();
	}
	for (i = 0; i < count; i++) {
		if (bytes[i] == '\n' || run->length == sizeof(run->line) - 1) {
			run->line[run->length] = '\0';
			run->length = 0;
			take_line(run);
		} else if (bytes[i] != '\r') {
			run->line[run->length++] = bytes[i];
		}
	}
}

/* Returns true if there was something. */
static bool read_console(struct run *run)
{
	char bytes[4096];
	ssize_t count = read(run->console, bytes, sizeof(bytes));

	take_console(run, bytes, count);
	return count > 0;
}

static void pass(int from, int to, int copy, struct run *run)
{
	char bytes[4096];
	ssize_t count = read(from, bytes, sizeof(bytes));

	if (count <= 0)
		return;
	if (from == STDIN_FILENO && memchr(bytes, ESCAPE, count))
		stop(run, "left");
	else if (write(to, bytes, count) != count)
		stop(run, "terminal");
	if (copy >= 0 && write(copy, bytes, count) != count)
		stop(run, "disk");
}

static void wait_a_little(struct run *run)
{
	struct pollfd fds[] = {
		{ .fd = run->interactive ? run->keys : -1, .events = POLLIN },
		{ .fd = run->interactive ? STDIN_FILENO : -1, .events = POLLIN },
	};

	if (poll(fds, 2, POLL_MS) <= 0)
		return;
	if (fds[0].revents & POLLIN)
		pass(run->keys, STDOUT_FILENO, run->console, run);
	if (fds[1].revents & POLLIN)
		pass(STDIN_FILENO, run->keys, -1, run);
}

/* Of an interactive guest nothing is demanded. */
static void check_progress(struct run *run, double now)
{
	bool runnable = false;
	double used = processor_time(run->pid, &runnable);

	if (runnable || used > run->used)
		run->moved = now;
	run->used = used;
	if (run->interactive)
		return;
	if (used - run->heard > run->silence)
		stop(run, "silent");
	if (now - run->moved > run->stuck)
		stop(run, "stuck");
}

static void check_limits(struct run *run)
{
	double now = wall_now();

	if (interrupted)
		stop(run, "interrupted");
	if (now - run->began > run->wall)
		stop(run, "wall");
	check_progress(run, now);
	/* A second for the rest of a panic's or second banner's text. */
	if (run->stopping &&
	    (now - run->stopping > 1 || interrupted || run->interactive))
		kill(-run->pid, SIGKILL);
}

static void follow(struct run *run)
{
	while (waitpid(run->pid, &run->emulator_status, WNOHANG) == 0) {
		if (run->interactive || !read_console(run))
			wait_a_little(run);
		check_limits(run);
	}
	while (!run->interactive && read_console(run))
		;
	if (!run->reason)
		run->reason = run->done || run->interactive ? "done" : "exited";
}

static void write_result(const struct run *run, double processor)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/result", run->dir);
	file = fopen(path, "a");
	if (!file)
		err(EXIT_LAB, "cannot write %s", path);
	fprintf(file, "reason=%s\n", run->reason);
	if (WIFSIGNALED(run->emulator_status))
		fprintf(file, "emulator=signal %d\n", WTERMSIG(run->emulator_status));
	else
		fprintf(file, "emulator=status %d\n", WEXITSTATUS(run->emulator_status));
	fprintf(file, "wall=%.1f\nprocessor=%.2f\n", wall_now() - run->began, processor);
	if (fclose(file))
		err(EXIT_LAB, "cannot write %s", path);
}

static int verdict(const struct run *run)
{
	if (interrupted)
		return 128 + interrupted;
	if (!strcmp(run->reason, "left"))
		return 0;
	if (run->command && run->status >= 0)
		return run->status;
	if (run->command || strcmp(run->reason, "done")) {
		fprintf(stderr, "supervise: the host did not finish (%s): see %s/console.log and emulator.log\n",
			run->reason, run->dir);
		return EXIT_LAB;
	}
	return 0;
}

static void parse(struct run *run, int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "+c:ip:s:t:w:")) >= 0) {
		switch (option) {
		case 'c':
			run->command = optarg;
			break;
		case 'i':
			run->interactive = true;
			break;
		case 'p':
			run->label = optarg;
			break;
		case 's':
			run->silence = atof(optarg);
			break;
		case 't':
			run->stuck = atof(optarg);
			break;
		case 'w':
			run->wall = atof(optarg);
			break;
		default:
			exit(EXIT_LAB);
		}
	}
	if (argc - optind < 2)
		errx(EXIT_LAB, "usage: supervise [-c NAME] [-i] [-p LABEL] [-s SECONDS] [-t SECONDS] [-w SECONDS] DIR COMMAND...");
	run->dir = argv[optind];
}

int main(int argc, char **argv)
{
	struct run run = {
		.silence = 300, .stuck = 120, .wall = 4 * 3600,
		.keys = -1, .terminal = -1, .status = -1,
	};
	struct sigaction action = { .sa_handler = interrupt };
	struct rusage usage;

	parse(&run, argc, argv);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	open_console(&run);
	run.began = run.moved = wall_now();
	start(&run, argv + optind + 1);
	follow(&run);
	if (run.interactive)
		tcsetattr(STDIN_FILENO, TCSANOW, &run.saved);
	getrusage(RUSAGE_CHILDREN, &usage);
	write_result(&run, usage.ru_utime.tv_sec + usage.ru_utime.tv_usec * 1e-6);
	return verdict(&run);
}
