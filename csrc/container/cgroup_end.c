/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a container's cgroups: signal all in them, remove them. The contract is in container.h. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "impl.h"

#define FREEZE_MS 500
#define SIGNAL_MS 2000

/* Signals */

struct signalling {
	int signal;
	size_t found;
	bool threads; /* the topmost cgroup is a threaded one: it lists no processes */
	int refused;  /* errno of a kill(2) */
};

static void signal_one(int pid, struct signalling *signalling)
{
	/* 0: a process that our pid namespace does not contain. */
	if (pid <= 1 || pid == getpid())
		return;
	signalling->found++;
	if (kill(pid, signalling->signal) != 0 && errno != ESRCH)
		signalling->refused = errno;
}

/* Signal the processes that a file lists; it may change while it is read. */
static int signal_listed(int directory, const char *name, struct signalling *signalling)
{
	char text[4096];
	int pid = 0, fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return cgroup_is_gone(errno) ? 0 : -1;
	while ((got = read(fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < got; i++) {
			if (text[i] >= '0' && text[i] <= '9') {
				pid = pid < INT_MAX / 10 ? pid * 10 + (text[i] - '0') : 0;
				continue;
			}
			signal_one(pid, signalling);
			pid = 0;
		}
	int number = errno;
	close(fd);
	errno = number;
	return got == 0 || cgroup_is_gone(number) ? 0 : -1;
}

static int signal_members(int directory, size_t depth, void *data)
{
	struct signalling *signalling = data;

	if (!signalling->threads) {
		if (signal_listed(directory, "cgroup.procs", signalling) == 0)
			return 0;
		/* A threaded cgroup: its processes are listed by its parent, unless that is not ours. */
		if (errno != EOPNOTSUPP)
			return -1;
		signalling->threads = depth == 0;
	}
	return signalling->threads ? signal_listed(directory, "cgroup.threads", signalling) : 0;
}

static int signal_tree(int directory, int signal, size_t *found)
{
	struct signalling signalling = {.signal = signal};
	int result = cgroup_walk(directory, container_now_ms() + WALK_MS, signal_members, &signalling);

	*found = signalling.found;
	if (result == 0 && signalling.refused) {
		errno = signalling.refused;
		return -1;
	}
	return result;
}

/*
 * cgroup.kill of v2: nothing can fork away from it. 1: done. 0: no such file, or no process in that hierarchy's directory.
 * -1: errno.
 */
static int kill_v2(const char *const *cgroups, size_t count)
{
	char events[256];
	const char *cgroup = cgroup_find(cgroups, count, "");
	int fd = cgroup ? cgroup_open(cgroup_directory(cgroup)) : -1;

	if (fd < 0)
		return !cgroup || cgroup_is_gone(errno) ? 0 : -1;
	int result = cgroup_read(fd, "cgroup.events", events, sizeof(events)) < 0
			     ? -1
			     : strstr(events, "populated 1") != NULL;
	if (result == 1 && cgroup_write(fd, "cgroup.kill", "1") != 0)
		result = -1;
	int number = errno;
	close(fd);
	errno = number;
	/* Before Linux 5.14, and in a threaded cgroup, there is no such file. */
	return result < 0 && (cgroup_is_gone(errno) || errno == EOPNOTSUPP) ? 0 : result;
}

/* After the signal: SIGKILL thaws all, another one restores the earlier state. -1: errno. */
static int let_go(struct freezer freezer, int signal, bool frozen_before)
{
	bool held;

	if (freezer.fd < 0 || (frozen_before && signal != SIGKILL))
		return 0;
	if (signal == SIGKILL)
		return freezer_release(freezer, &held);
	return freezer_set(freezer, false) == 0 || cgroup_is_gone(errno) ? 0 : -1;
}

/* One process after the other, frozen meanwhile so that none escapes by forking. -1: errno. */
static int signal_each(int fd, struct freezer freezer, int signal, size_t *found)
{
	int frozen_before = freezer.fd >= 0 ? freezer_wants_frozen(freezer) : 0;
	int64_t deadline = container_now_ms() + SIGNAL_MS;

	if (frozen_before < 0)
		return -1;
	for (int pass = 0;; pass++) {
		size_t now = 0;
		bool frozen = frozen_before || (freezer.fd >= 0 && freezer_change(freezer, true, FREEZE_MS) == 1);
		int result = signal_tree(fd, signal, &now), number = errno;
		if (let_go(freezer, signal, frozen_before) != 0 && result == 0) {
			result = -1;
			number = errno;
		}
		if (pass == 0)
			*found = now;
		errno = number;
		/* Without a freezer only SIGKILL is repeated: for others a handler would run twice. */
		if (result != 0 || frozen || now == 0 || signal != SIGKILL || container_now_ms() >= deadline)
			return result;
		frozen_before = 0;
		container_sleep_us(1000);
	}
}

/* Where all are found: the freezer's directory, else the first that is there. -1: errno. */
static int open_any(const char *const *cgroups, size_t count, struct freezer freezer)
{
	int fd = freezer.fd;

	for (size_t i = 0; fd < 0 && i < count; i++) {
		fd = cgroup_open(cgroup_directory(cgroups[i]));
		if (fd < 0 && !cgroup_is_gone(errno))
			break;
	}
	return fd;
}

int cgroup_signal(const char *const *cgroups, size_t count, int signal, size_t *found, struct container_error *error)
{
	const char *path;
	bool held;

	*found = 0;
	memset(error, 0, sizeof(*error));
	if (count == 0)
		return CONTAINER_OK;
	struct freezer freezer = freezer_open(cgroups, count, &path);
	if (freezer.fd < 0 && path && !cgroup_is_gone(errno))
		return container_fail_call(error, "open", path);
	int fd = freezer.fd, result = signal == SIGKILL ? kill_v2(cgroups, count) : 0;
	if (result == 1) {
		*found = 1;
		/* v2 lets SIGKILL through to the frozen, the v1 freezer beside it does not. */
		result = freezer.fd >= 0 ? freezer_release(freezer, &held) : 0;
	} else if (result == 0) {
		fd = open_any(cgroups, count, freezer);
		if (fd >= 0)
			result = signal_each(fd, freezer, signal, found);
		else
			result = cgroup_is_gone(errno) ? 0 : -1;
	}
	int number = errno;
	if (fd >= 0)
		close(fd);
	errno = number;
	return result < 0 ? container_fail_call(error, "signal", path ? path : cgroup_directory(cgroups[0]))
			  : CONTAINER_OK;
}

/* Removal */

/* The first directory below. -1: errno, 0 if there is none. */
static int first_below(int directory)
{
	int below = -1, number;
	DIR *stream = cgroup_list(directory);

	if (!stream)
		return -1;
	for (struct dirent *entry; errno = 0, below < 0 && (entry = readdir(stream));) {
		if (!cgroup_is_below(entry))
			continue;
		below = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below < 0 && !cgroup_is_gone(errno))
			break;
	}
	number = cgroup_is_gone(errno) ? 0 : errno;
	closedir(stream);
	errno = number;
	return below;
}

/* Remove `leaf` from `parent`, which knows its name only by the inode: it may lie deeper than any path is long. */
static int remove_leaf(int parent, int leaf)
{
	struct stat about;
	DIR *stream = fstat(leaf, &about) == 0 ? cgroup_list(parent) : NULL;
	int result = 0, number = 0;

	if (!stream)
		return errno ? -1 : 0;
	for (struct dirent *entry; errno = 0, (entry = readdir(stream));) {
		if (!cgroup_is_below(entry) || entry->d_ino != about.st_ino)
			continue;
		result = unlinkat(parent, entry->d_name, AT_REMOVEDIR);
		break;
	}
	number = errno;
	closedir(stream);
	errno = number;
	return result == 0 || cgroup_is_gone(number) ? 0 : -1;
}

/* One step of remove_below(). 1: continue. 0: `base` is empty. -1: errno. */
static int remove_next(int *at, ino_t top, size_t *removed)
{
	struct stat here;
	struct signalling kill_all = {.signal = SIGKILL};
	int below = first_below(*at);

	if (below >= 0) {
		close(*at);
		*at = below;
		return 1;
	}
	if (errno || fstat(*at, &here) != 0)
		return -1;
	if (here.st_ino == top)
		return 0;
	if (signal_members(*at, 1, &kill_all) != 0)
		return -1;
	int parent = openat(*at, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0)
		return -1;
	int result = remove_leaf(parent, *at) == 0 ? 1 : -1, number = errno;
	*removed += result == 1;
	close(*at);
	*at = parent;
	errno = number;
	return result;
}

/* Remove all below `base`, deepest first, with two descriptors however deep. -1: errno, often EBUSY. */
static int remove_below(int base, int64_t deadline, size_t *removed)
{
	struct stat top;
	int at = fcntl(base, F_DUPFD_CLOEXEC, 3), result = 1;

	if (at < 0 || fstat(base, &top) != 0)
		result = -1;
	while (result == 1) {
		result = remove_next(&at, top.st_ino, removed);
		if (result == 1 && container_now_ms() >= deadline) {
			errno = EBUSY;
			result = -1;
		}
	}
	int number = errno;
	if (at >= 0)
		close(at);
	errno = number;
	return result;
}

/* 1: a cgroup. 0: none, or not there. -1: errno. */
static int is_cgroup(const char *path)
{
	struct statfs fs;

	if (statfs(path, &fs) != 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ENODEV ? 0 : -1;
	return cgroup_is_type(&fs);
}

static bool is_busy(int number)
{
	return number == EBUSY || number == ENOTEMPTY;
}

/* One try to remove what makes rmdir fail. 1: done. 0: nothing there is ours to remove. -1: errno. */
static int clear(const char *path, int64_t deadline, size_t *removed)
{
	struct signalling kill_all = {.signal = SIGKILL};
	int fd = cgroup_open(path);

	if (fd < 0)
		return cgroup_is_gone(errno) ? 0 : -1;
	int result = remove_below(fd, deadline, removed);
	if (result == 0 || is_busy(errno))
		result = signal_members(fd, 0, &kill_all);
	int number = errno;
	close(fd);
	errno = number;
	return result == 0 ? 1 : -1;
}

/* Remove a directory that create made, whatever the container did in it; the time is without any progress. */
static int remove_own(const char *path, const char *const *cgroups, size_t count, int timeout_ms,
		      struct container_error *error)
{
	int64_t deadline = container_now_ms() + timeout_ms, last = deadline + 5 * (int64_t)timeout_ms;
	long wait = 100;

	for (int pass = 0;; pass++) {
		size_t all, removed = 0;
		int held, there = is_cgroup(path);
		if (there < 0)
			return container_fail_call(error, "statfs", path);
		if (!there || rmdir(path) == 0 || errno == ENOENT || errno == ENODEV)
			return CONTAINER_OK;
		if (!is_busy(errno))
			return container_fail_call(error, "rmdir", path);
		/* A process here may be frozen by the freezer of another hierarchy. */
		int result = pass == 0 ? cgroup_signal(cgroups, count, SIGKILL, &all, error)
				       : cgroup_release(cgroups, count, &held, error);
		if (result != CONTAINER_OK)
			return result;
		int cleared = clear(path, container_now_ms() + timeout_ms, &removed);
		if (cleared == 0)
			return CONTAINER_OK;
		if (cleared < 0)
			return container_fail_call(error, "rmdir", path);
		if (rmdir(path) == 0)
			return CONTAINER_OK;
		int number = errno;
		int64_t now = container_now_ms();
		/* There may be very many: continue as long as their number decreases. */
		if (removed)
			deadline = now + timeout_ms < last ? now + timeout_ms : last;
		errno = number;
		if (now >= deadline)
			return container_fail_call(error, "rmdir", path);
		container_sleep_us(wait);
		wait = wait < 20000 ? wait * 2 : wait;
	}
}

static bool is_among(const char *path, const char *const *paths, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(path, paths[i]) == 0)
			return true;
	return false;
}

/* Not ours alone, or a parent with other children: removed only if it is empty. */
static int remove_empty(const char *path, struct container_error *error)
{
	int there = is_cgroup(path);

	if (there < 0)
		return container_fail_call(error, "statfs", path);
	if (there)
		rmdir(path);
	return CONTAINER_OK;
}

int cgroup_remove(const char *const *cgroups, size_t count, const char *const *made, size_t made_count, int timeout_ms,
		  struct container_error *error)
{
	int result = CONTAINER_OK;
	struct container_error later;

	memset(error, 0, sizeof(*error));
	memset(&later, 0, sizeof(later));
	/* If one cannot be removed, go on with the others; the first failure is reported. */
	for (size_t i = count; i-- > 0;) {
		const char *path = cgroup_directory(cgroups[i]);
		struct container_error *words = result == CONTAINER_OK ? error : &later;
		int answer = is_among(path, made, made_count) ? remove_own(path, cgroups, count, timeout_ms, words)
							      : remove_empty(path, words);
		if (result == CONTAINER_OK)
			result = answer;
	}
	for (size_t i = made_count; i-- > 0;) {
		int answer = remove_empty(made[i], result == CONTAINER_OK ? error : &later);
		if (result == CONTAINER_OK)
			result = answer;
	}
	return result;
}
