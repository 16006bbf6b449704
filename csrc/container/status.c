/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a container's init live, and which status follows. The contract is in container.h.
 *
 * "Gone" needs proof: ESRCH, another start time. Whatever keeps us from looking (no descriptor left, no memory, a
 * seccomp filter around us, a /proc that shows other processes) is an error, never an answer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "impl.h"

#define NANOSECONDS 1000000000L

/* The call failed on /proc/PID/stat, or on the pid itself. */
static int fail_process(int pid, bool file, const char *call, struct container_error *error)
{
	int number = errno;
	char path[64];

	snprintf(path, sizeof(path), "%s%d%s", file ? "/proc/" : "", pid, file ? "/stat" : "");
	errno = number;
	return container_fail_call(error, call, path);
}

/* Fields 22 and 3 of /proc/PID/stat. 1: there. 0: /proc has no such process. -1: *call failed with errno. proc(5). */
static int read_stat(int pid, uint64_t *start_time, char *state, const char **call)
{
	char path[64], text[1024];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	*call = "open";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ESRCH ? 0 : -1;
	*call = "read";
	ssize_t size = read(fd, text, sizeof(text) - 1);
	int number = size == 0 ? EIO : errno;
	close(fd);
	errno = number;
	if (size <= 0)
		return size < 0 && errno == ESRCH ? 0 : -1;
	text[size] = '\0';
	/* The name in parentheses may itself hold blanks and parentheses. */
	char *at = strrchr(text, ')');
	errno = EIO;
	if (!at || strlen(at) < 3)
		return -1;
	*state = at[2];
	for (int field = 2; field < 22; field++) {
		at = strchr(at + 1, ' ');
		if (!at)
			return -1;
	}
	*start_time = strtoull(at + 1, NULL, 10);
	return 1;
}

/*
 * By how many ticks /proc shows all start times later in our time namespace. What is recorded is without it, so that
 * every time namespace finds the same process. *uneven: not whole ticks. -1: errno. time_namespaces(7)
 */
static int read_time_offset(int64_t *ticks, bool *uneven)
{
	long per_second = sysconf(_SC_CLK_TCK), tick = NANOSECONDS / per_second, nanoseconds = 0;
	long long seconds = 0;
	char text[256];
	int fd = open("/proc/self/timens_offsets", O_RDONLY | O_CLOEXEC);

	*ticks = 0;
	*uneven = false;
	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	ssize_t size = read(fd, text, sizeof(text) - 1);
	int number = errno;
	close(fd);
	errno = number;
	if (size < 0)
		return -1;
	text[size] = '\0';
	const char *line = strstr(text, "boottime");
	if (!line || sscanf(line, "boottime %lld %ld", &seconds, &nanoseconds) != 2)
		return 0;
	*ticks = seconds * per_second + nanoseconds / tick;
	*uneven = nanoseconds % tick != 0;
	return 0;
}

/* Whether the start time that /proc shows here is the recorded one. 1, 0; -1: errno. */
static int is_start(uint64_t shown, uint64_t recorded)
{
	int64_t offset;
	bool uneven;

	if (read_time_offset(&offset, &uneven) != 0)
		return -1;
	shown -= (uint64_t)offset;
	return shown == recorded || (uneven && shown == recorded + 1);
}

/* /proc of another pid namespace has other processes by the same numbers. */
static int check_proc(int pid, struct container_error *error)
{
	char text[32];
	ssize_t size = readlink("/proc/self", text, sizeof(text) - 1);

	text[size > 0 ? size : 0] = '\0';
	if (size > 0 && atoi(text) == getpid())
		return CONTAINER_OK;
	container_fail(error, CONTAINER_BAD_STATE,
		       "cannot tell whether process %d lives: /proc is not that of our pid "
		       "namespace",
		       pid);
	container_hint(error, "mount a proc file system at /proc");
	return CONTAINER_BAD_STATE;
}

/* The process of the pidfd has no entry in /proc: it has gone meanwhile, or it is hidden. */
static int check_hidden(int pid, int pidfd, struct container_error *error)
{
	if (syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0u) != 0 && errno == ESRCH)
		return CONTAINER_OK;
	errno = ENOENT;
	fail_process(pid, true, "open", error);
	container_hint(error, "process %d exists: /proc is not mounted, or hides the processes of others (hidepid)",
		       pid);
	return CONTAINER_KERNEL;
}

/* Whether the process behind the pidfd is the one that started then, and not dead. */
static int is_alive(int pid, uint64_t start_time, int pidfd, bool *alive, struct container_error *error)
{
	uint64_t started = 0;
	char state = 0;
	const char *call;
	int found = read_stat(pid, &started, &state, &call);

	if (found < 0)
		return fail_process(pid, true, call, error);
	if (found == 0)
		return check_hidden(pid, pidfd, error);
	if (started != start_time) {
		int result = check_proc(pid, error);
		int same = result == CONTAINER_OK ? is_start(started, start_time) : 0;
		if (same < 0)
			return container_fail_call(error, "read", "/proc/self/timens_offsets");
		if (!same)
			return result;
	}
	*alive = state != 'X';
	if (state != 'Z')
		return CONTAINER_OK;
	/* Z alone may be a main thread that left others running; the pidfd shows when the last is gone. */
	struct pollfd gone = {.fd = pidfd, .events = POLLIN};
	int ready = poll(&gone, 1, 0);
	if (ready < 0)
		return fail_process(pid, false, "poll", error);
	*alive = ready == 0;
	return CONTAINER_OK;
}

int process_open(int pid, uint64_t start_time, int *pidfd, struct container_error *error)
{
	bool alive = false;

	memset(error, 0, sizeof(*error));
	*pidfd = -1;
	if (pid <= 1 || start_time == 0)
		return CONTAINER_OK;
	/* The pidfd first: if the start time read behind it is init's, it cannot be of a later process of that pid. */
	int fd = (int)syscall(SYS_pidfd_open, pid, 0u);
	if (fd < 0) {
		/* ENOENT, before Linux 6.15 EINVAL: by now a thread of another process has that number. */
		if (errno == ESRCH || errno == ENOENT || errno == EINVAL)
			return CONTAINER_OK;
		return fail_process(pid, false, "pidfd_open", error);
	}
	int result = is_alive(pid, start_time, fd, &alive, error);
	if (result == CONTAINER_OK && alive)
		*pidfd = fd;
	else
		close(fd);
	return result;
}

int process_start_time(int pid, uint64_t *start_time, struct container_error *error)
{
	char state;
	const char *call;
	int64_t offset;
	bool uneven;

	memset(error, 0, sizeof(*error));
	*start_time = 0;
	int found = read_stat(pid, start_time, &state, &call);
	if (found < 0)
		return fail_process(pid, true, call, error);
	if (found && read_time_offset(&offset, &uneven) != 0)
		return container_fail_call(error, "read", "/proc/self/timens_offsets");
	if (found)
		*start_time -= (uint64_t)offset;
	return CONTAINER_OK;
}

/* That our pid namespace does not show a process says nothing about one of another pid namespace. */
static int check_namespace(struct container *container, struct container_error *error)
{
	struct stat own;

	if (stat("/proc/self/ns/pid", &own) != 0)
		return container_fail_call(error, "stat", "/proc/self/ns/pid");
	container->elsewhere = own.st_ino != container->pid_namespace;
	if (!container->elsewhere)
		return CONTAINER_OK;
	container_fail(error, CONTAINER_BAD_STATE,
		       "cannot tell whether process %d lives: the container was created in another pid namespace",
		       container->pid);
	container_hint(error, "ask there; where that is gone, use: pyrunc delete --force %s", container->id);
	return CONTAINER_BAD_STATE;
}

int container_init(struct container *container, int *pidfd, struct container_error *error)
{
	int result = process_open(container->pid, container->start_time, pidfd, error);

	if (result == CONTAINER_OK && *pidfd < 0 && container->pid > 1 && container->pid_namespace)
		result = check_namespace(container, error);
	return result;
}

static int creator_lives(const struct container *container, bool *lives, struct container_error *error)
{
	*lives = false;
	if (container->locked)
		return CONTAINER_OK;
	while (flock(container->fd, LOCK_SH | LOCK_NB) != 0) {
		*lives = errno == EWOULDBLOCK;
		if (*lives)
			return CONTAINER_OK;
		if (errno != EINTR)
			return container_fail_here(container, "flock", error);
	}
	flock(container->fd, LOCK_UN);
	return CONTAINER_OK;
}

/* Of a container that is alive and not being created. */
static int derive_living(const struct container *container, int *status, struct container_error *error)
{
	int frozen = 0;

	if (faccessat(container->fd, "exec.fifo", F_OK, 0) == 0) {
		*status = CONTAINER_CREATED;
		return CONTAINER_OK;
	}
	if (errno != ENOENT)
		return container_fail_here(container, "faccessat", error);
	int result = cgroup_frozen(container->cgroups, container->cgroup_count, &frozen, error);
	*status = frozen ? CONTAINER_PAUSED : CONTAINER_RUNNING;
	return result;
}

int container_derive(struct container *container, int *status, struct container_error *error)
{
	bool creating = false;
	int pidfd = -1, result = CONTAINER_OK;

	*status = CONTAINER_CREATING;
	if (container->creating)
		result = creator_lives(container, &creating, error);
	if (result != CONTAINER_OK || creating)
		return result;
	result = container_init(container, &pidfd, error);
	if (result != CONTAINER_OK)
		return result;
	if (pidfd < 0) {
		*status = CONTAINER_STOPPED;
		return CONTAINER_OK;
	}
	close(pidfd);
	return container->creating ? CONTAINER_OK : derive_living(container, status, error);
}
