/* SPDX-License-Identifier: Apache-2.0 */
/* Starts an RCU grace period while Python starts. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "command.h"

/* If three of them cannot be written, the fourth cannot either. */
#define PRIME_TRIES 3

/* cgroup.procs of the caller's own v1 cgroup named by a line "4:freezer:/path" of /proc/self/cgroup, or -1. */
static int open_own_procs(const char *line, size_t length, bool freezer)
{
	char path[PATH_MAX];
	const char *names = memchr(line, ':', length);
	const char *directory = names ? memchr(names + 1, ':', length - (size_t)(names + 1 - line)) : NULL;

	if (!directory || directory == names + 1)
		return -1;
	names++;
	size_t size = (size_t)(directory - names), rest = length - (size_t)(directory + 1 - line);
	if ((size == 7 && memcmp(names, "freezer", 7) == 0) != freezer)
		return -1;
	if (size > 5 && memcmp(names, "name=", 5) == 0) {
		names += 5;
		size -= 5;
	}
	int printed = snprintf(path, sizeof(path), "/sys/fs/cgroup/%.*s%.*s/cgroup.procs", (int)size, names, (int)rest,
			       directory + 1);
	return printed < (int)sizeof(path) ? open(path, O_WRONLY | O_CLOEXEC) : -1;
}

/* The freezer's, because other controllers have work to do when a task is attached. */
static int find_own_procs(void)
{
	char text[8192];
	int tries = 0, fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	ssize_t size = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[size > 0 ? size : 0] = '\0';
	for (int freezer = 1; freezer >= 0; freezer--) {
		const char *line = text;
		for (const char *end; tries < PRIME_TRIES && (end = strchr(line, '\n')); line = end + 1) {
			int procs = open_own_procs(line, (size_t)(end - line), freezer);
			if (procs >= 0)
				return procs;
			tries += !freezer;
		}
	}
	return -1;
}

/*
 * The first write to a cgroup.procs after a quiet while waits 8 to 18 ms for an RCU grace period; create and exec must
 * write one on v1. A child that writes itself into the cgroup it is in sets that off now, while Python starts. Its
 * end sends no signal to us; boot.py collects it. Returns its pid, or 0.
 */
int prime(void)
{
	int procs = find_own_procs();

	if (procs < 0)
		return 0;
	long pid = syscall(SYS_clone, 0L, 0L, 0L, 0L, 0L);
	if (pid == 0) {
		/* A reader of our output must not wait for this process to end. */
		syscall(SYS_close_range, (unsigned int)procs + 1, ~0u, 0u);
		if (procs > 0)
			syscall(SYS_close_range, 0u, (unsigned int)procs - 1, 0u);
		ssize_t ignored = write(procs, "0", 1);
		(void)ignored;
		_exit(0);
	}
	close(procs);
	return pid > 0 ? (int)pid : 0;
}
