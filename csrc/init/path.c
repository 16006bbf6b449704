/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths inside the rootfs. The kernel resolves them below the container's root (openat2, RESOLVE_IN_ROOT), the result is
 * a file descriptor, and everything is then done through that. What is missing is made one component at a time below
 * the descriptor of its parent, so that a concurrently swapped component can misdirect us within the container at most
 * (CVE-2021-30465, CVE-2024-45310).
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define LINKS_MAX 16
/* openat2 gives up with EAGAIN when something is renamed meanwhile; an attacker could do that forever */
#define AGAIN_MAX 256
#define STATX_MNT_ID_MASK 0x1000u
#define STATX_INO_MASK 0x100u
#define STATX_ATTR_MOUNT_ROOT_BIT 0x2000u

/* struct statx as far as we need it; musl and glibc disagree about where it is declared */
struct statx_facts {
	uint32_t mask, block_size;
	uint64_t attributes;
	uint32_t links, uid, gid;
	uint16_t mode, pad;
	uint64_t inode, size, blocks, attributes_mask;
	uint64_t times[8];
	uint32_t device[4];
	uint64_t mount;
	uint64_t rest[13];
};
_Static_assert(offsetof(struct statx_facts, mount) == 0x90, "struct statx");
_Static_assert(sizeof(struct statx_facts) == 256, "struct statx");

static int openat2_retried(int dir, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {.flags = (uint64_t)(unsigned int)flags | O_CLOEXEC, .resolve = resolve};

	for (int i = 0;; i++) {
		long fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));

		if (fd >= 0 || (errno != EAGAIN && errno != EINTR) || i == AGAIN_MAX)
			return (int)fd;
	}
}

void close_quietly(int fd)
{
	int error = errno;

	close(fd);
	errno = error;
}

int open_beneath(int dir, const char *path, int flags, uint64_t resolve)
{
	return openat2_retried(dir, path, flags, resolve | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
}

int path_root(struct init *in)
{
	if (in->root_fd < 0)
		in->root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (in->root_fd < 0)
		fail(in, STEP_OPENAT, errno, "/");
	return in->root_fd;
}

int path_open(struct init *in, const char *path, int flags, uint64_t resolve)
{
	/* an empty path is the root as "/" is */
	return openat2_retried(path_root(in), path[0] == '\0' ? "/" : path, flags,
			       resolve | RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

/* Without leading, double and trailing slashes and "."; ".." stays, only the kernel may resolve it. */
static int tidy(char out[INIT_PATH_MAX], const char *path)
{
	size_t used = 0;

	for (;;) {
		size_t size;

		while (*path == '/')
			path++;
		size = strcspn(path, "/");
		if (size == 0)
			break;
		if (size >= INIT_NAME_MAX || used + size + 2 > INIT_PATH_MAX) {
			errno = ENAMETOOLONG;
			return -1;
		}
		if (size != 1 || *path != '.') {
			if (used > 0)
				out[used++] = '/';
			memcpy(out + used, path, size);
			used += size;
		}
		path += size;
	}
	out[used] = '\0';
	return 0;
}

/* The deepest directory of `path` that exists; `*rest` is the first component below it. */
static int deepest(struct init *in, char *path, uint64_t resolve, char **rest)
{
	char *slash = path + strlen(path);

	while (slash > path) {
		int fd;

		do {
			slash--;
		} while (slash > path && *slash != '/');
		if (slash == path)
			break;
		*rest = slash + 1;
		*slash = '\0';
		fd = path_open(in, path, O_PATH | O_DIRECTORY, resolve);
		*slash = '/';
		if (fd >= 0 || errno != ENOENT)
			return fd;
	}
	*rest = path;
	return fcntl(path_root(in), F_DUPFD_CLOEXEC, 3);
}

static int make_one(struct init *in, int dir, const char *name, enum path_kind kind, uint32_t mode)
{
	int fd;

	if (kind == PATH_DIRECTORY) {
		if (mkdirat(dir, name, (mode_t)mode) == 0) {
			if (added_target(in, dir, name) < 0)
				return -1;
		} else if (errno != EEXIST) {
			return -1;
		}
		return open_beneath(dir, name, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
	}
	fd = openat(dir, name, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, (mode_t)mode);
	if (fd >= 0) {
		close(fd);
		if (added_target(in, dir, name) < 0)
			return -1;
	} else if (errno != EEXIST) {
		return -1;
	}
	return open_beneath(dir, name, O_PATH, RESOLVE_NO_SYMLINKS);
}

/*
 * Make `rest` below `dir`, which it closes. When a component is a symlink (a dangling one, or it would have been
 * followed), fails with ELOOP and says which by `*stopped`.
 */
static int make_below(struct init *in, int dir, const char *rest, enum path_kind kind, uint32_t mode,
		      const char **stopped)
{
	while (*rest != '\0') {
		char name[INIT_NAME_MAX];
		size_t size = strcspn(rest, "/");
		bool last = rest[size] == '\0';
		int next;

		memcpy(name, rest, size);
		name[size] = '\0';
		*stopped = rest;
		/* ".." below what does not exist makes no sense, and we must not resolve it */
		if (strcmp(name, "..") == 0) {
			close(dir);
			errno = EINVAL;
			return -1;
		}
		next = make_one(in, dir, name, last ? kind : PATH_DIRECTORY, last ? mode : 0755);
		close_quietly(dir);
		if (next < 0)
			return -1;
		dir = next;
		rest += size + (last ? 0 : 1);
	}
	return dir;
}

/* path = a/b/link/c, link -> t: a/b/t/c, or t/c when t is absolute. */
static int expand_link(struct init *in, char path[INIT_PATH_MAX], const char *link_at)
{
	char text[INIT_PATH_MAX], target[INIT_PATH_MAX];
	size_t head = (size_t)(link_at - path), name = strcspn(link_at, "/");
	size_t tail = strlen(link_at + name);
	ssize_t size;
	int dir;

	memcpy(text, path, head);
	text[head] = '\0';
	dir = path_open(in, text, O_PATH | O_DIRECTORY, 0);
	if (dir < 0)
		return -1;
	memcpy(text, link_at, name);
	text[name] = '\0';
	size = readlinkat(dir, text, target, sizeof(target));
	close_quietly(dir);
	if (size <= 0)
		return -1;
	if (target[0] == '/')
		head = 0;
	if (head + (size_t)size + tail + 1 > sizeof(text)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(text, path, head);
	memcpy(text + head, target, (size_t)size);
	memcpy(text + head + size, link_at + name, tail + 1);
	return tidy(path, text);
}

/*
 * An O_PATH descriptor of `path`, made as a directory or an empty file when it is missing. A dangling symlink on the
 * way is followed inside the rootfs and what it points to is made there (images have /var/run -> /run without /run).
 * -1 with errno; the failure is noted, with `path` as its text.
 */
int path_make(struct init *in, const char *path, enum path_kind kind, uint32_t mode, uint64_t resolve)
{
	char text[INIT_PATH_MAX];
	const char *stopped = text;
	char *rest = text;

	if (tidy(text, path) < 0)
		return note(in, STEP_OPENAT2, path);
	for (int links = 0; links < LINKS_MAX; links++) {
		int fd = path_open(in, text, kind == PATH_DIRECTORY ? O_PATH | O_DIRECTORY : O_PATH, resolve);

		if (fd >= 0 || errno != ENOENT)
			return fd >= 0 ? fd : note(in, STEP_OPENAT2, path);
		fd = deepest(in, text, resolve, &rest);
		if (fd < 0)
			return note(in, STEP_OPENAT2, path);
		fd = make_below(in, fd, rest, kind, mode, &stopped);
		if (fd >= 0)
			return fd;
		if (errno != ELOOP || (resolve & RESOLVE_NO_SYMLINKS) != 0)
			return note(in, kind == PATH_FILE ? STEP_OPENAT : STEP_MKDIRAT, path);
		if (expand_link(in, text, stopped) < 0)
			return note(in, STEP_READLINK, path);
	}
	errno = ELOOP;
	return note(in, STEP_OPENAT2, path);
}

/* The directory of `path`, made if it is missing; `name` is the last component. Failures are noted. */
int path_parent(struct init *in, const char *path, char name[INIT_NAME_MAX])
{
	char text[INIT_PATH_MAX];
	char *slash;

	if (tidy(text, path) < 0)
		return note(in, STEP_OPENAT2, path);
	slash = strrchr(text, '/');
	strcpy(name, slash == NULL ? text : slash + 1);
	if (name[0] == '\0' || strcmp(name, "..") == 0) {
		errno = EINVAL;
		return note(in, STEP_OPENAT2, path);
	}
	if (slash == NULL)
		return fcntl(path_root(in), F_DUPFD_CLOEXEC, 3);
	*slash = '\0';
	return path_make(in, text, PATH_DIRECTORY, 0755, 0);
}

/* An existing file stays; with `same` it must be a link with the same text. -1 if a failure is noted. */
int make_symlink(struct init *in, const char *text, const char *path, bool same)
{
	char name[INIT_NAME_MAX], there[INIT_PATH_MAX];
	int dir = path_parent(in, path, name), result = 0;

	if (dir < 0)
		return -1;
	if (symlinkat(text, dir, name) < 0 && errno != EEXIST) {
		result = note(in, STEP_SYMLINKAT, path);
	} else if (same) {
		ssize_t size = readlinkat(dir, name, there, sizeof(there));

		if (size < 0 || (size_t)size != strlen(text) || memcmp(there, text, (size_t)size) != 0) {
			errno = 0;
			result = note(in, STEP_LINK_EXISTS, path);
		}
	}
	close_quietly(dir);
	return result;
}

int fd_facts(int fd, struct fd_facts *facts)
{
	struct statx_facts st;

	memset(&st, 0, sizeof(st));
	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_MNT_ID_MASK | STATX_INO_MASK, &st) < 0)
		return -1;
	facts->mount = st.mount;
	facts->inode = st.inode;
	facts->mount_root = (st.attributes & STATX_ATTR_MOUNT_ROOT_BIT) != 0;
	return 0;
}

bool is_proc(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (unsigned long)fs.f_type == PROC_SUPER_MAGIC;
}
