/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tmpcopyup: fill a new, still detached tmpfs from the directory it is going to cover. Everything below two directory
 * descriptors, no name is resolved through a symlink; extended attributes and hard links are not kept.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

/* two descriptors and ENTRY_BYTES of stack per level */
#define DEPTH_MAX 100
#define ENTRY_BYTES 1024
#define CHUNK (1 << 20)

struct entry {
	uint64_t inode;
	int64_t offset;
	uint16_t size;
	uint8_t type;
	char name[];
};

static int copy_directory(int from, int to, int depth);

/* An id that the container's user namespace does not map cannot own anything: keep ours. */
static int set_owner(int dir, const char *name, const struct stat *st, int flags)
{
	if (fchownat(dir, name, st->st_uid, st->st_gid, flags) == 0 || errno == EINVAL || errno == EPERM)
		return 0;
	return -1;
}

static int set_facts(int fd, const struct stat *st)
{
	struct timespec times[2] = {st->st_atim, st->st_mtim};

	/* after chown, which clears the set-id bits */
	if (set_owner(fd, "", st, AT_EMPTY_PATH) < 0 || fchmod(fd, st->st_mode & 07777) < 0)
		return -1;
	return futimens(fd, times);
}

static int send_all(int from, int to)
{
	unsigned int times = 0;
	ssize_t n;

	do {
		n = sendfile(to, from, NULL, CHUNK);
	} while (n > 0 || (n < 0 && interrupted(&times)));
	return n < 0 ? -1 : 0;
}

static int copy_file(int from_dir, int to_dir, const char *name)
{
	int from = openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), to, result = -1;
	struct stat st;

	if (from < 0)
		return -1;
	to = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to >= 0 && fstat(from, &st) == 0 && send_all(from, to) == 0)
		result = set_facts(to, &st);
	if (to >= 0)
		close_quietly(to);
	close_quietly(from);
	return result;
}

static int copy_link(int from_dir, int to_dir, const char *name, const struct stat *st)
{
	char target[INIT_PATH_MAX];
	ssize_t size = readlinkat(from_dir, name, target, sizeof(target) - 1);

	if (size < 0)
		return -1;
	target[size] = '\0';
	if (symlinkat(target, to_dir, name) < 0)
		return -1;
	return set_owner(to_dir, name, st, AT_SYMLINK_NOFOLLOW);
}

static int copy_subdirectory(int from_dir, int to_dir, const char *name, int depth)
{
	int from = openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), to = -1, result = -1;

	if (from < 0)
		return -1;
	if (mkdirat(to_dir, name, 0700) == 0)
		to = openat(to_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (to >= 0)
		result = copy_directory(from, to, depth);
	if (to >= 0)
		close_quietly(to);
	close_quietly(from);
	return result;
}

static int copy_node(int to_dir, const char *name, const struct stat *st)
{
	if (mknodat(to_dir, name, st->st_mode, st->st_rdev) < 0)
		return errno == EPERM ? 0 : -1; /* a device, which cannot be made in a user namespace: left out */
	return set_owner(to_dir, name, st, AT_SYMLINK_NOFOLLOW);
}

static int copy_entry(int from, int to, const char *name, int depth)
{
	struct stat st;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return 0;
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	if (S_ISREG(st.st_mode))
		return copy_file(from, to, name);
	if (S_ISDIR(st.st_mode))
		return copy_subdirectory(from, to, name, depth + 1);
	if (S_ISLNK(st.st_mode))
		return copy_link(from, to, name, &st);
	return copy_node(to, name, &st);
}

static int copy_directory(int from, int to, int depth)
{
	_Alignas(struct entry) char buffer[ENTRY_BYTES];
	struct stat st;
	long n;

	if (depth > DEPTH_MAX) {
		errno = ELOOP;
		return -1;
	}
	while ((n = syscall(SYS_getdents64, from, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < n;) {
			struct entry *entry = (struct entry *)(void *)(buffer + at);

			if (copy_entry(from, to, entry->name, depth) < 0)
				return -1;
			at += entry->size;
		}
	}
	/* last, so that the copies do not change the times, and a read-only mode does not stop them */
	if (n < 0 || fstat(from, &st) < 0)
		return -1;
	return depth == 0 ? 0 : set_facts(to, &st);
}

/* As what it covers, but for what the mount's own options say. */
static int set_root_facts(int from, int to, uint32_t flags)
{
	struct stat st, own;

	if (fstat(from, &st) < 0 || fstat(to, &own) < 0)
		return -1;
	if ((flags & MOUNT_FLAG_TARGET_MODE) == 0)
		st.st_mode = own.st_mode;
	if ((flags & MOUNT_FLAG_OWN_UID) != 0)
		st.st_uid = (uid_t)-1;
	if ((flags & MOUNT_FLAG_OWN_GID) != 0)
		st.st_gid = (gid_t)-1;
	return set_facts(to, &st);
}

int copy_up(struct init *in, int from, int to, uint32_t flags, const char *text)
{
	int source = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int copy = openat(to, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int result = -1;

	if (source >= 0 && copy >= 0 && copy_directory(source, copy, 0) == 0)
		result = set_root_facts(source, copy, flags);
	if (result < 0)
		note(in, STEP_COPY_UP, text);
	if (source >= 0)
		close_quietly(source);
	if (copy >= 0)
		close_quietly(copy);
	return result;
}
