/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of a cgroup: open, read, write, walk. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "impl.h"

#define CGROUP1_MAGIC 0x27e0eb
#define CGROUP2_MAGIC 0x63677270

const char *cgroup_directory(const char *cgroup)
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

const char *cgroup_find(const char *const *cgroups, size_t count, const char *controller)
{
	for (size_t i = 0; i < count; i++)
		if (has_controller(cgroups[i], controller))
			return cgroups[i];
	return NULL;
}

bool cgroup_is_gone(int number)
{
	return number == ENOENT || number == ENODEV || number == EINVAL;
}

bool cgroup_is_type(const struct statfs *fs)
{
	return fs->f_type == CGROUP1_MAGIC || fs->f_type == CGROUP2_MAGIC;
}

/* A container may be in the root of the mount (cgroupsPath "/"). */
static int check_open(int fd)
{
	struct statfs fs;
	struct stat here, above;

	if (fstatfs(fd, &fs) != 0 || fstat(fd, &here) != 0)
		return -1;
	if (fstatat(fd, "..", &above, 0) != 0)
		return -1;
	errno = EINVAL;
	return cgroup_is_type(&fs) && here.st_dev == above.st_dev ? 0 : -1;
}

int cgroup_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || check_open(fd) == 0)
		return fd;
	int number = errno;
	close(fd);
	errno = number;
	return -1;
}

ssize_t cgroup_read(int directory, const char *name, char *text, size_t size)
{
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);

	text[0] = '\0';
	if (fd < 0)
		return -1;
	ssize_t got = read(fd, text, size - 1);
	int number = errno;
	close(fd);
	text[got > 0 ? got : 0] = '\0';
	errno = number;
	return got;
}

int cgroup_write(int directory, const char *name, const char *text)
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

/* Walk: two descriptors however deep, a list of names per level */

bool cgroup_is_below(const struct dirent *entry)
{
	return entry->d_type == DT_DIR && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

DIR *cgroup_list(int directory)
{
	struct stat about;

	if (fstat(directory, &about) != 0)
		return NULL;
	int fd = about.st_nlink == 2 ? -1 : openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (about.st_nlink == 2 || (fd < 0 && cgroup_is_gone(errno)))
		errno = 0;
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	if (!stream && fd >= 0) {
		int number = errno;
		close(fd);
		errno = number;
	}
	return stream;
}

/* Names below one directory, one behind the other, each with its NUL. */
struct level {
	char *names;
	size_t size, used, at;
};

static int keep_name(struct level *level, const char *name)
{
	size_t length = strlen(name) + 1;

	if (level->used + length > level->size) {
		size_t size = 2 * level->size + length + 256;
		char *more = realloc(level->names, size);
		if (!more)
			return -1;
		level->names = more;
		level->size = size;
	}
	memcpy(level->names + level->used, name, length);
	level->used += length;
	return 0;
}

static int fill_level(struct level *level, int directory, int64_t deadline)
{
	int number = 0;
	DIR *stream = cgroup_list(directory);

	memset(level, 0, sizeof(*level));
	if (!stream)
		return errno ? -1 : 0;
	for (struct dirent *entry; errno = 0, (entry = readdir(stream));) {
		if (!cgroup_is_below(entry))
			continue;
		if (container_now_ms() >= deadline)
			number = ETIME;
		if (number || keep_name(level, entry->d_name) != 0) {
			number = errno ? errno : number;
			break;
		}
	}
	if (!number && errno && !cgroup_is_gone(errno))
		number = errno;
	closedir(stream);
	errno = number;
	return number ? -1 : 0;
}

struct walk {
	struct level *levels;
	size_t depth, room;
	int at;
	int64_t deadline;
	cgroup_visit *visit;
	void *data;
};

/* Into a directory: visit it, list what is below. */
static int enter(struct walk *walk, int directory)
{
	close(walk->at);
	walk->at = directory;
	if (walk->depth == walk->room) {
		size_t room = 2 * walk->room + 16;
		struct level *more = realloc(walk->levels, room * sizeof(*more));
		if (!more)
			return -1;
		walk->levels = more;
		walk->room = room;
	}
	if (walk->visit(directory, walk->depth, walk->data) != 0)
		return -1;
	walk->depth++;
	return fill_level(&walk->levels[walk->depth - 1], directory, walk->deadline);
}

static int leave(struct walk *walk)
{
	free(walk->levels[--walk->depth].names);
	if (walk->depth == 0)
		return 0;
	int parent = openat(walk->at, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0)
		return -1;
	close(walk->at);
	walk->at = parent;
	return 0;
}

/* 1: continue. 0: done. -1: errno. */
static int next(struct walk *walk)
{
	struct level *level = &walk->levels[walk->depth - 1];

	if (level->at == level->used)
		return leave(walk) != 0 ? -1 : walk->depth > 0;
	const char *name = level->names + level->at;
	level->at += strlen(name) + 1;
	errno = ETIME;
	if (container_now_ms() >= walk->deadline)
		return -1;
	int below = openat(walk->at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (below < 0)
		return cgroup_is_gone(errno) ? 1 : -1;
	return enter(walk, below) != 0 ? -1 : 1;
}

int cgroup_walk(int base, int64_t deadline, cgroup_visit *visit, void *data)
{
	struct walk walk = {.at = -1, .deadline = deadline, .visit = visit, .data = data};
	int more = -1, top = fcntl(base, F_DUPFD_CLOEXEC, 3);

	if (top >= 0 && enter(&walk, top) == 0)
		do
			more = next(&walk);
		while (more > 0);
	int number = errno;
	while (walk.depth > 0)
		free(walk.levels[--walk.depth].names);
	free(walk.levels);
	if (walk.at >= 0)
		close(walk.at);
	errno = number;
	return more;
}
