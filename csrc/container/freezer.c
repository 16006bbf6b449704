/* SPDX-License-Identifier: Apache-2.0 */
/* The freezer of a container's cgroups: frozen?, freeze, thaw, release. The contract is in container.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "impl.h"

#define THAW_MS 2000

struct freezer freezer_open(const char *const *cgroups, size_t count, const char **path)
{
	const char *found = cgroup_find(cgroups, count, "freezer");
	struct freezer freezer = {.fd = -1, .v1 = found != NULL};

	*path = NULL;
	if (!found)
		found = cgroup_find(cgroups, count, "");
	if (!found)
		return freezer;
	*path = cgroup_directory(found);
	freezer.fd = cgroup_open(*path);
	return freezer;
}

/* 1, 0; -1: errno. A cgroup that goes away, or has no such file, is not frozen. */
static int read_flag(struct freezer freezer, const char *name, const char *word)
{
	char text[256];
	ssize_t got = cgroup_read(freezer.fd, name, text, sizeof(text));

	if (got < 0)
		return cgroup_is_gone(errno) ? 0 : -1;
	return strstr(text, word) != NULL;
}

static int is_frozen(struct freezer freezer)
{
	return freezer.v1 ? read_flag(freezer, "freezer.state", "FROZEN")
			  : read_flag(freezer, "cgroup.events", "frozen 1");
}

/* Freezing counts, too: a signal thaws a v2 process for a moment, and a hanging process keeps v1 at FREEZING. */
int freezer_wants_frozen(struct freezer freezer)
{
	if (freezer.v1)
		return read_flag(freezer, "freezer.state", "F");
	int wanted = read_flag(freezer, "cgroup.freeze", "1");

	return wanted ? wanted : is_frozen(freezer);
}

int freezer_set(struct freezer freezer, bool wanted)
{
	if (freezer.v1)
		return cgroup_write(freezer.fd, "freezer.state", wanted ? "FROZEN" : "THAWED");
	return cgroup_write(freezer.fd, "cgroup.freeze", wanted ? "1" : "0");
}

int freezer_change(struct freezer freezer, bool wanted, int timeout_ms)
{
	int64_t deadline = container_now_ms() + timeout_ms;
	long wait = 50;

	for (;;) {
		/* v1 misses tasks that come in while it freezes; a second write catches them. */
		if (freezer_set(freezer, wanted) != 0)
			return -1;
		int frozen = is_frozen(freezer);
		if (frozen < 0 || frozen == wanted)
			return frozen < 0 ? -1 : 1;
		if (container_now_ms() >= deadline)
			return 0;
		container_sleep_us(wait);
		wait = wait < 5000 ? wait * 2 : wait;
	}
}

int cgroup_frozen(const char *const *cgroups, size_t count, int *frozen, struct container_error *error)
{
	const char *path;
	struct freezer freezer = freezer_open(cgroups, count, &path);

	memset(error, 0, sizeof(*error));
	*frozen = 0;
	if (freezer.fd < 0)
		return !path || cgroup_is_gone(errno) ? CONTAINER_OK : container_fail_call(error, "open", path);
	int answer = freezer_wants_frozen(freezer);
	int number = errno;
	close(freezer.fd);
	errno = number;
	if (answer < 0)
		return container_fail_call(error, "read", path);
	*frozen = answer;
	return CONTAINER_OK;
}

static int set_and_wait(const char *const *cgroups, size_t count, bool wanted, int timeout_ms,
			struct container_error *error)
{
	const char *path;
	struct freezer freezer = freezer_open(cgroups, count, &path);

	memset(error, 0, sizeof(*error));
	if (!path)
		return container_fail(error, CONTAINER_BAD_STATE, "the container has no cgroup with a freezer");
	if (freezer.fd < 0)
		return container_fail_call(error, "open", path);
	int done = freezer_change(freezer, wanted, timeout_ms);
	int result = CONTAINER_OK;
	if (done < 0)
		result = container_fail_call(error, "write", path);
	if (done <= 0 && wanted)
		freezer_set(freezer, false);
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
	return set_and_wait(cgroups, count, false, THAW_MS, error);
}

/* Release: SIGKILL waits for those whom a v1 freezer holds, be it one that the container made itself */

static int thaw_one(int directory, size_t depth, void *data)
{
	struct freezer freezer = {.fd = directory, .v1 = true};

	if (depth == 0)
		return 0;
	*(bool *)data = true;
	int frozen = freezer_wants_frozen(freezer);
	if (frozen <= 0)
		return frozen;
	return freezer_set(freezer, false) == 0 || cgroup_is_gone(errno) ? 0 : -1;
}

int freezer_release(struct freezer freezer, bool *held)
{
	int frozen = freezer_wants_frozen(freezer);

	*held = frozen > 0;
	if (frozen < 0 || (frozen && freezer_set(freezer, false) != 0 && !cgroup_is_gone(errno)))
		return -1;
	/* SIGKILL ends those whom v2 has frozen. On v1 one that is thawed still stops for who is above: that comes first. */
	if (!freezer.v1 || cgroup_walk(freezer.fd, container_now_ms() + WALK_MS, thaw_one, held) == 0)
		return 0;
	/* There are so many that some may still be frozen: signal the others all the same. */
	*held = true;
	return errno == ETIME ? 0 : -1;
}

int cgroup_release(const char *const *cgroups, size_t count, int *held, struct container_error *error)
{
	const char *path;
	struct freezer freezer = freezer_open(cgroups, count, &path);
	bool may_hold = false;

	memset(error, 0, sizeof(*error));
	*held = 0;
	if (freezer.fd < 0)
		return !path || cgroup_is_gone(errno) ? CONTAINER_OK : container_fail_call(error, "open", path);
	int result = CONTAINER_OK;
	if (freezer_release(freezer, &may_hold) != 0)
		result = container_fail_call(error, "thaw", path);
	*held = may_hold;
	close(freezer.fd);
	return result;
}
