/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "trust.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "impl.h"

#define LINKS_MAX 40
/* The default of fs.overflowuid; if it was changed, our root is refused in a user namespace, with a message. */
#define OVERFLOW_UID 65534

/* A path on its way: `at` is what has been walked, `done` its name for messages, `rest` what is to come. */
struct walk {
	const char *path;
	int at;
	int links;
	struct stat status;
	char *rest;
	char text[PATH_MAX]; /* where `rest` points into */
	char done[PATH_MAX];
};

bool trust_in_user_namespace(void)
{
	char text[128];
	unsigned int inside = 0, outside = 0, size = 0;
	int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	ssize_t got = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[got > 0 ? got : 0] = '\0';
	return sscanf(text, "%u %u %u", &inside, &outside, &size) != 3 || inside || outside || size != UINT_MAX;
}

static bool is_trusted_owner(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

/* A private group, as systems with umask 002 give each user one. Root has none: others may be in group 0. */
static bool is_private_group(gid_t group)
{
	return geteuid() != 0 && group == getegid() && group == geteuid();
}

int container_others_write(uint32_t mode, uint32_t group)
{
	return mode & S_IWOTH || (mode & S_IWGRP && !is_private_group(group));
}

static bool is_writable_by_others(const struct stat *status)
{
	return container_others_write(status->st_mode, status->st_gid);
}

bool trust_is_ours(const struct stat *status)
{
	if (!is_trusted_owner(status->st_uid))
		return false;
	if (S_ISDIR(status->st_mode))
		return !is_writable_by_others(status);
	/* exec.fifo is written by the container's user, through a descriptor. */
	return status->st_nlink <= 1 && (S_ISFIFO(status->st_mode) || !is_writable_by_others(status));
}

static int distrust(const struct walk *walk, const char *reason, struct container_error *error)
{
	container_fail(error, CONTAINER_BAD_STATE, "'%s' cannot be trusted with containers: '%s' %s", walk->path,
		       walk->done[0] ? walk->done : "/", reason);
	container_hint(error, geteuid() == 0 ? "choose a --root that nobody but root can change"
					     : "choose a --root that nobody but you and root can change");
	return CONTAINER_BAD_STATE;
}

/* `last`: it is the directory itself, and not one above it. */
static int check(const struct walk *walk, const struct stat *status, bool last, struct container_error *error)
{
	char reason[64];
	bool overflow = !last && status->st_uid == OVERFLOW_UID && trust_in_user_namespace();

	if (!is_trusted_owner(status->st_uid) && !overflow) {
		snprintf(reason, sizeof(reason), "belongs to user %u", status->st_uid);
		return distrust(walk, reason, error);
	}
	if (S_ISDIR(status->st_mode) && is_writable_by_others(status) && !(status->st_mode & S_ISVTX))
		return distrust(walk, "may be written by others", error);
	return CONTAINER_OK;
}

static int open_top(struct walk *walk, struct container_error *error)
{
	if (walk->at >= 0)
		close(walk->at);
	walk->done[0] = '\0';
	walk->at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (walk->at < 0 || fstat(walk->at, &walk->status) != 0)
		return container_fail_call(error, "open", walk->path);
	return check(walk, &walk->status, false, error);
}

/* Put a link's text before the rest of the path. */
static int follow(struct walk *walk, int link, struct container_error *error)
{
	char target[PATH_MAX], rest[PATH_MAX];

	ssize_t length = readlinkat(link, "", target, sizeof(target) - 1);
	if (length < 0)
		return container_fail_call(error, "readlink", walk->path);
	target[length] = '\0';
	strcpy(rest, walk->rest);
	errno = walk->links++ < LINKS_MAX ? ENAMETOOLONG : ELOOP;
	if (errno == ELOOP || snprintf(walk->text, PATH_MAX, "%s/%s", target, rest) >= PATH_MAX)
		return container_fail_call(error, "open", walk->path);
	walk->rest = walk->text;
	return target[0] == '/' ? open_top(walk, error) : CONTAINER_OK;
}

/* Cut the next name off the rest; NULL if there is none. */
static const char *next_name(struct walk *walk)
{
	char *name = walk->rest + strspn(walk->rest, "/");
	size_t length = strcspn(name, "/");

	if (length == 0)
		return NULL;
	walk->rest = name + length + strspn(name + length, "/");
	name[length] = '\0';
	return name;
}

/* For messages: the user must be able to find the directory. */
static void note(struct walk *walk, const char *name)
{
	size_t used = strlen(walk->done);
	char *slash = strrchr(walk->done, '/');

	if (strcmp(name, "..") == 0 && slash)
		*slash = '\0';
	else if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
		snprintf(walk->done + used, sizeof(walk->done) - used, "/%s", name);
}

static int step(struct walk *walk, const char *name, struct container_error *error)
{
	struct stat status;
	int fd = openat(walk->at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return container_fail(error, CONTAINER_NOT_FOUND, "container does not exist");
	if (fd < 0)
		return container_fail_call(error, "open", walk->path);
	size_t used = strlen(walk->done);
	note(walk, name);
	int result = fstat(fd, &status) != 0 ? container_fail_call(error, "fstat", walk->path)
					     : check(walk, &status, !*walk->rest && !S_ISLNK(status.st_mode), error);
	if (result == CONTAINER_OK && S_ISLNK(status.st_mode)) {
		walk->done[used] = '\0';
		result = follow(walk, fd, error);
		close(fd);
		return result;
	}
	close(walk->at);
	walk->at = fd;
	walk->status = status;
	return result;
}

int trust_open(const char *path, int *fd, struct container_error *error)
{
	struct walk walk = {.path = path, .at = -1};

	memset(error, 0, sizeof(*error));
	*fd = -1;
	errno = ENAMETOOLONG;
	if (snprintf(walk.text, sizeof(walk.text), "%s", path) >= PATH_MAX)
		return container_fail_call(error, "open", path);
	walk.rest = walk.text;
	int result = open_top(&walk, error);
	for (const char *name; result == CONTAINER_OK && (name = next_name(&walk));)
		result = step(&walk, name, error);
	errno = ENOTDIR;
	if (result == CONTAINER_OK && !S_ISDIR(walk.status.st_mode))
		result = container_fail_call(error, "open", path);
	if (result == CONTAINER_OK)
		*fd = walk.at;
	else if (walk.at >= 0)
		close(walk.at);
	return result;
}
