/* SPDX-License-Identifier: Apache-2.0 */
/* A container's cgroup directories: frozen?, freeze, thaw, signal all, remove. The contract is in container.h. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container_impl.h"

#define CGROUP1_MAGIC 0x27e0eb
#define CGROUP2_MAGIC 0x63677270
#define WALK_DEPTH 64
#define FREEZE_MS 500
#define SIGNAL_MS 2000

static const char *directory_of(const char *cgroup)
{
	return strchr(cgroup, ':') + 1;
}

static bool has_controller(const char *cgroup, const char *name)
{
	size_t length = strlen(name);

	if (length == 0)
		return cgroup[0] == ':';
	for (const char *at = cgroup; *at != ':'; at++) {
		if (strncmp(at, name, length) == 0 && (at[length] == ':' || at[length] == ','))
			return true;
		while (*at != ',' && at[1] != ':')
			at++;
	}
	return false;
}

static const char *find(const char *const *cgroups, size_t count, const char *controller)
{
	for (size_t i = 0; i < count; i++)
		if (has_controller(cgroups[i], controller))
			return cgroups[i];
	return NULL;
}

/*
 * Open a cgroup directory, or -1. The root of what is mounted is refused: a container may have been put there
 * (cgroupsPath "/"), but everybody else is there, too.
 */
static int open_cgroup(const char *path)
{
	struct statfs fs;
	struct stat here, above;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (fstatfs(fd, &fs) != 0 || (fs.f_type != CGROUP1_MAGIC && fs.f_type != CGROUP2_MAGIC) ||
	    fstat(fd, &here) != 0 || fstatat(fd, "..", &above, 0) != 0 || here.st_dev != above.st_dev) {
		close(fd);
		errno = EINVAL;
		return -1;
	}
	return fd;
}

static ssize_t read_at(int directory, const char *name, char *text, size_t size)
{
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	ssize_t got = read(fd, text, size - 1);
	close(fd);
	text[got > 0 ? got : 0] = '\0';
	return got;
}

static int write_at(int directory, const char *name, const char *text)
{
	int fd = openat(directory, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	ssize_t put = write(fd, text, strlen(text));
	int number = errno;
	close(fd);
	errno = number;
	return put < 0 ? -1 : 0;
}

/* The freezer */

struct freezer {
	int fd; /* -1: there is none */
	bool v1;
};

static struct freezer open_freezer(const char *const *cgroups, size_t count, const char **path)
{
	const char *found = find(cgroups, count, "freezer");
	struct freezer freezer = {.fd = -1, .v1 = found != NULL};

	if (!found)
		found = find(cgroups, count, "");
	if (!found)
		return freezer;
	*path = directory_of(found);
	freezer.fd = open_cgroup(*path);
	return freezer;
}

static bool is_frozen(struct freezer freezer)
{
	char text[256];

	if (read_at(freezer.fd, freezer.v1 ? "freezer.state" : "cgroup.events", text, sizeof(text)) <= 0)
		return false;
	return freezer.v1 ? strncmp(text, "FROZEN", 6) == 0 : strstr(text, "frozen 1") != NULL;
}

/* On the way counts, too: a signal lets go of a v2 process for a moment, and one that hangs keeps v1 at FREEZING. */
static bool wants_frozen(struct freezer freezer)
{
	char text[32];

	if (read_at(freezer.fd, freezer.v1 ? "freezer.state" : "cgroup.freeze", text, sizeof(text)) <= 0)
		return false;
	return freezer.v1 ? text[0] == 'F' : text[0] == '1' || is_frozen(freezer);
}

static int set_frozen(struct freezer freezer, bool wanted)
{
	if (freezer.v1)
		return write_at(freezer.fd, "freezer.state", wanted ? "FROZEN" : "THAWED");
	return write_at(freezer.fd, "cgroup.freeze", wanted ? "1" : "0");
}

/* 1: it is so. 0: not in time. -1: errno. */
static int freeze(struct freezer freezer, bool wanted, int timeout_ms)
{
	int64_t deadline = container_now_ms() + timeout_ms;
	long wait = 50;

	for (;;) {
		/* v1 misses tasks that come in while it freezes; a second write catches them. */
		if (set_frozen(freezer, wanted) != 0)
			return -1;
		if (is_frozen(freezer) == wanted)
			return 1;
		if (container_now_ms() >= deadline)
			return 0;
		container_sleep_us(wait);
		wait = wait < 5000 ? wait * 2 : wait;
	}
}

int cgroup_frozen(const char *const *cgroups, size_t count)
{
	const char *path;
	struct freezer freezer = open_freezer(cgroups, count, &path);

	if (freezer.fd < 0)
		return 0;
	bool frozen = wants_frozen(freezer);
	close(freezer.fd);
	return frozen;
}

static int set_and_wait(const char *const *cgroups, size_t count, bool wanted, int timeout_ms,
			struct container_error *error)
{
	const char *path = NULL;
	struct freezer freezer = open_freezer(cgroups, count, &path);

	memset(error, 0, sizeof(*error));
	if (!path)
		return container_fail(error, CONTAINER_BAD_STATE, "the container has no cgroup with a freezer");
	if (freezer.fd < 0)
		return container_fail_call(error, "open", path);
	int done = freeze(freezer, wanted, timeout_ms);
	int result = CONTAINER_OK;
	if (done < 0)
		result = container_fail_call(error, "write", path);
	if (done == 0 && wanted)
		set_frozen(freezer, false);
	if (done == 0)
		result = container_fail(error, CONTAINER_BAD_STATE, "cannot %s '%s' within %d ms",
					wanted ? "freeze" : "thaw", path, timeout_ms);
	close(freezer.fd);
	return result;
}

int cgroup_freeze(const char *const *cgroups, size_t count, int timeout_ms, struct container_error *error)
{
	return set_and_wait(cgroups, count, true, timeout_ms, error);
}

int cgroup_thaw(const char *const *cgroups, size_t count, struct container_error *error)
{
	return set_and_wait(cgroups, count, false, SIGNAL_MS, error);
}

/* Signals */

static void signal_one(int pid, int signal, size_t *found)
{
	/* 0: a process that our pid namespace does not show. */
	if (pid <= 1 || pid == getpid())
		return;
	(*found)++;
	kill(pid, signal);
}

/* Signal the processes of one directory; what the file lists may change while it is read. */
static void signal_members(int directory, int signal, size_t *found)
{
	char text[4096];
	int pid = 0, fd = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return;
	while ((got = read(fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < got; i++) {
			if (text[i] >= '0' && text[i] <= '9') {
				pid = pid < INT_MAX / 10 ? pid * 10 + (text[i] - '0') : 0;
				continue;
			}
			signal_one(pid, signal, found);
			pid = 0;
		}
	close(fd);
}

static bool is_subdirectory(const struct dirent *entry)
{
	return entry->d_type == DT_DIR && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static DIR *list(int directory)
{
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);

	if (!stream && fd >= 0)
		close(fd);
	return stream;
}

static void signal_tree(int directory, int signal, int depth, size_t *found)
{
	/* The container may have frozen cgroups of its own. */
	if (signal == SIGKILL && depth > 0)
		write_at(directory, "freezer.state", "THAWED");
	signal_members(directory, signal, found);
	DIR *stream = depth < WALK_DEPTH ? list(directory) : NULL;
	if (!stream)
		return;
	for (struct dirent *entry; (entry = readdir(stream));) {
		if (!is_subdirectory(entry))
			continue;
		int below = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below < 0)
			continue;
		signal_tree(below, signal, depth + 1, found);
		close(below);
	}
	closedir(stream);
}

/* cgroup.kill of v2: nothing can fork away from it. false: not there, or nobody is in that hierarchy's directory. */
static bool kill_v2(const char *const *cgroups, size_t count, size_t *found)
{
	char events[256];
	const char *cgroup = find(cgroups, count, "");
	int fd = cgroup ? open_cgroup(directory_of(cgroup)) : -1;

	if (fd < 0)
		return false;
	bool populated = read_at(fd, "cgroup.events", events, sizeof(events)) > 0 && strstr(events, "populated 1");
	bool done = populated && write_at(fd, "cgroup.kill", "1") == 0;
	close(fd);
	if (done)
		*found = 1;
	return done;
}

/* One process after the other, frozen meanwhile so that none escapes by forking. */
static void signal_each(int fd, struct freezer freezer, int signal, size_t *found)
{
	bool was_frozen = freezer.fd >= 0 && wants_frozen(freezer);
	int64_t deadline = container_now_ms() + SIGNAL_MS;

	for (int pass = 0;; pass++) {
		size_t now = 0;
		bool frozen = was_frozen || (freezer.fd >= 0 && freeze(freezer, true, FREEZE_MS) == 1);
		signal_tree(fd, signal, 0, &now);
		if (freezer.fd >= 0 && (!was_frozen || signal == SIGKILL))
			set_frozen(freezer, false);
		if (pass == 0)
			*found = now;
		/* Without a freezer only SIGKILL is worth repeating: a handler would run twice. */
		if (frozen || now == 0 || signal != SIGKILL || container_now_ms() >= deadline)
			return;
		was_frozen = false;
		container_sleep_us(1000);
	}
}

int cgroup_signal(const char *const *cgroups, size_t count, int signal, size_t *found, struct container_error *error)
{
	const char *path = NULL;

	*found = 0;
	memset(error, 0, sizeof(*error));
	if (count == 0)
		return CONTAINER_OK;
	struct freezer freezer = open_freezer(cgroups, count, &path);
	if (signal == SIGKILL && kill_v2(cgroups, count, found)) {
		/* v2 lets SIGKILL through to the frozen, the v1 freezer beside it does not. */
		if (freezer.fd >= 0 && freezer.v1)
			set_frozen(freezer, false);
	} else {
		int fd = freezer.fd;
		for (size_t i = 0; fd < 0 && i < count; i++)
			fd = open_cgroup(directory_of(cgroups[i]));
		if (fd >= 0)
			signal_each(fd, freezer, signal, found);
		if (fd >= 0 && fd != freezer.fd)
			close(fd);
	}
	if (freezer.fd >= 0)
		close(freezer.fd);
	return CONTAINER_OK;
}

/* Removal */

/* The first directory below, or -1 when there is none. */
static int first_below(int directory)
{
	int below = -1;
	DIR *stream = list(directory);

	if (!stream)
		return -1;
	for (struct dirent *entry; below < 0 && (entry = readdir(stream));)
		if (is_subdirectory(entry))
			below = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	closedir(stream);
	return below;
}

/* Remove `leaf` from `parent`, which knows its name only by the inode: it may lie deeper than any path is long. */
static int remove_leaf(int parent, int leaf)
{
	struct stat about;
	DIR *stream = list(parent);
	int result = -1, number = ENOENT;

	if (!stream || fstat(leaf, &about) != 0) {
		if (stream)
			closedir(stream);
		return -1;
	}
	for (struct dirent *entry; (entry = readdir(stream));) {
		if (!is_subdirectory(entry) || entry->d_ino != about.st_ino)
			continue;
		result = unlinkat(parent, entry->d_name, AT_REMOVEDIR);
		number = errno;
		break;
	}
	closedir(stream);
	errno = number;
	return result;
}

/* Remove all below `base`, deepest first, with two descriptors however deep. -1: errno, often EBUSY. */
static int remove_below(int base)
{
	struct stat top, here;
	int at = fcntl(base, F_DUPFD_CLOEXEC, 3), number = 0;

	if (at < 0 || fstat(base, &top) != 0)
		number = errno;
	while (!number) {
		int below = first_below(at);
		if (below >= 0) {
			close(at);
			at = below;
			continue;
		}
		if (fstat(at, &here) != 0)
			number = errno;
		if (number || here.st_ino == top.st_ino)
			break;
		size_t found = 0;
		signal_members(at, SIGKILL, &found);
		int parent = openat(at, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (parent < 0 || (remove_leaf(parent, at) != 0 && errno != ENOENT))
			number = errno;
		if (parent >= 0) {
			close(at);
			at = parent;
		}
	}
	if (at >= 0)
		close(at);
	errno = number;
	return number ? -1 : 0;
}

static bool is_cgroup(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (fs.f_type == CGROUP1_MAGIC || fs.f_type == CGROUP2_MAGIC);
}

/* Remove a directory that create made, whatever the container did in it. */
static int remove_own(const char *path, const char *const *cgroups, size_t count, int64_t deadline,
		      struct container_error *error)
{
	long wait = 100;

	for (int pass = 0;; pass++) {
		size_t all;
		if (!is_cgroup(path) || rmdir(path) == 0 || errno == ENOENT)
			return CONTAINER_OK;
		if (errno != EBUSY && errno != ENOTEMPTY)
			return container_fail_call(error, "rmdir", path);
		/* Whoever sits here may be held by the freezer of another hierarchy. */
		if (pass == 0)
			cgroup_signal(cgroups, count, SIGKILL, &all, error);
		int fd = open_cgroup(path);
		if (fd < 0 && errno == EINVAL)
			return CONTAINER_OK;
		if (fd >= 0) {
			size_t found = 0;
			remove_below(fd);
			signal_members(fd, SIGKILL, &found);
			close(fd);
		}
		if (rmdir(path) == 0)
			return CONTAINER_OK;
		if (container_now_ms() >= deadline)
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

int cgroup_remove(const char *const *cgroups, size_t count, const char *const *made, size_t made_count, int timeout_ms,
		  struct container_error *error)
{
	int64_t deadline = container_now_ms() + timeout_ms;
	int result = CONTAINER_OK;
	struct container_error later;

	memset(error, 0, sizeof(*error));
	memset(&later, 0, sizeof(later));
	for (size_t i = count; i-- > 0;) {
		const char *path = directory_of(cgroups[i]);
		if (!is_among(path, made, made_count)) {
			/* Somebody else's: it may serve others. */
			if (is_cgroup(path))
				rmdir(path);
			continue;
		}
		/* One that stays must not keep the others. */
		int answer = remove_own(path, cgroups, count, deadline, result == CONTAINER_OK ? error : &later);
		if (result == CONTAINER_OK)
			result = answer;
	}
	for (size_t i = made_count; i-- > 0;)
		if (is_cgroup(made[i]))
			rmdir(made[i]);
	return result;
}
