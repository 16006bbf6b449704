/* SPDX-License-Identifier: Apache-2.0 */
/*
 * measure EVENT OUTPUT ERRORS COMMAND [ARG...]
 *
 * Runs COMMAND (a path) once and says what it cost. Being small itself is the point: until its exec a child is a copy of
 * its parent, also for getrusage(2), so a Python program cannot see how little memory a small one takes. The command
 * gets /dev/null as standard input, OUTPUT and ERRORS (truncated) as standard output and error.
 *
 * One line on standard output: nanoseconds from before the fork until the end is known, wait status, peak resident kB
 * of the largest process that ended, microseconds of CPU time of all that ended, events counted (-1: not here).
 * EVENT is counted for the command and all its descendants: "instructions", "page-faults", or "none".
 * Exit status: 0 whatever the command did, 2 for wrong arguments, 3 when it could not be run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* A counter of this process that its children inherit and that begins to count at their exec; -1 without one. */
static int open_counter(const char *event)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr), .disabled = 1, .inherit = 1, .enable_on_exec = 1, .exclude_hv = 1};

	if (strcmp(event, "instructions") == 0) {
		attr.type = PERF_TYPE_HARDWARE;
		attr.config = PERF_COUNT_HW_INSTRUCTIONS;
	} else if (strcmp(event, "page-faults") == 0) {
		attr.type = PERF_TYPE_SOFTWARE;
		attr.config = PERF_COUNT_SW_PAGE_FAULTS;
	} else {
		return -1;
	}
	return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static void place(const char *path, int flags, int target)
{
	int fd = open(path, flags, 0600);

	if (fd < 0 || (fd != target && dup2(fd, target) < 0))
		_exit(127);
	if (fd != target)
		close(fd);
}

static _Noreturn void child(char **argv)
{
	place("/dev/null", O_RDONLY, 0);
	place(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 1);
	place(argv[3], O_WRONLY | O_CREAT | O_TRUNC, 2);
	execv(argv[4], argv + 4);
	dprintf(2, "measure: execve '%s': %s\n", argv[4], strerror(errno));
	_exit(127);
}

int main(int argc, char **argv)
{
	struct rusage usage;
	int64_t events = -1;
	int status;

	if (argc < 5)
		return 2;
	int counter = open_counter(argv[1]);
	long long begin = now_ns();
	/* not vfork: the parent's peak must not become the child's, and a process of 0.1 MB is copied in no time */
	pid_t pid = fork();
	if (pid == 0)
		child(argv);
	if (pid < 0 || wait4(pid, &status, 0, &usage) != pid)
		return 3;
	long long took = now_ns() - begin;
	if (counter >= 0 && read(counter, &events, sizeof(events)) != (ssize_t)sizeof(events))
		events = -1;
	long long cpu = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000ll + usage.ru_utime.tv_usec +
			usage.ru_stime.tv_usec;
	printf("%lld %d %ld %lld %lld\n", took, status, usage.ru_maxrss, cpu, (long long)events);
	return 0;
}
