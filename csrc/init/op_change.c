/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts that come and go while the container runs. Its processes may change any path at any time, so what has been
 * attached is remembered by descriptor, and taken away by descriptor, when a later step fails or the runtime goes away
 * before it has written down what was added.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Unmount exactly the mount whose root `fd` is. "." and a magic link lead to it, whatever is on top of it. */
static int unmount(struct init *in, int fd)
{
	char digits[24];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -1;
	if (S_ISDIR(st.st_mode))
		return fchdir(fd) < 0 ? -1 : (int)syscall(SYS_umount2, ".", INIT_MNT_DETACH);
	if (proc_enter_fds(in) < 0)
		return -1;
	return (int)syscall(SYS_umount2, number_text(digits, (uint64_t)fd), INIT_MNT_DETACH);
}

/* The last one first. Nothing in here may call fail(), which calls this. */
static void added_undo(struct init *in)
{
	in->undo = NULL;
	while (added.mount_count > 0)
		unmount(in, added.mounts[--added.mount_count].tree);
	while (added.target_count > 0) {
		uint32_t last = --added.target_count;
		struct stat st;

		if (fstatat(added.targets[last].dir, added.targets[last].name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		/* there may be something else by now, which is not ours to remove */
		if (S_ISDIR(st.st_mode))
			unlinkat(added.targets[last].dir, added.targets[last].name, AT_REMOVEDIR);
		else if (S_ISREG(st.st_mode) && st.st_size == 0)
			unlinkat(added.targets[last].dir, added.targets[last].name, 0);
	}
}

void op_add_begin(struct init *in, struct cursor *fields)
{
	(void)fields;
	in->undo = added_undo;
}

void op_add_end(struct init *in, struct cursor *fields)
{
	(void)fields;
	for (uint32_t i = 0; i < added.mount_count; i++)
		if (added.mounts[i].rdonly_later &&
		    mount_attributes(in, added.mounts[i].tree, MOUNT_ATTR_RDONLY, 0, false, "") < 0)
			fail_noted(in);
}

/* Without privileges for the host's mounts: in a copy of its mount namespace, before the container's is entered. */
void op_tree(struct init *in, struct cursor *fields)
{
	const char *source = take_string(fields);
	uint32_t flags = take_u32(fields);
	unsigned int how = 0;
	int tree;

	if ((flags & MOUNT_FLAG_RECURSIVE) != 0)
		how |= AT_RECURSIVE;
	if ((flags & MOUNT_FLAG_SOURCE_NOFOLLOW) != 0)
		how |= AT_SYMLINK_NOFOLLOW;
	tree = tree_clone(AT_FDCWD, source, how);
	if (tree < 0)
		fail(in, STEP_OPEN_TREE, errno, source);
	keep_tree(in, tree);
}

/* The mount at `path`: a mounted symlink is the mount itself, any other link leads to it. */
static int open_mount(struct init *in, const char *path, struct fd_facts *facts)
{
	int fd = path_open(in, path, O_PATH | O_NOFOLLOW, 0);

	if (fd >= 0 && fd_facts(fd, facts) == 0 && !facts->mount_root) {
		close(fd);
		fd = path_open(in, path, O_PATH, 0);
	}
	if (fd >= 0 && fd_facts(fd, facts) < 0)
		fail(in, STEP_FSTAT, errno, path);
	return fd;
}

void op_umount(struct init *in, struct cursor *fields)
{
	const char *path = take_string(fields);
	struct list stay = take_list(fields);
	bool only_look = take_u32(fields) != 0;
	struct fd_facts facts, other;
	int fd = open_mount(in, path, &facts);

	if (fd < 0 && errno != ENOENT && errno != ENOTDIR)
		fail(in, STEP_OPENAT2, errno, path);
	if (fd < 0 || !facts.mount_root)
		fail(in, STEP_NOT_A_MOUNT, 0, path);
	for (uint32_t i = 0; i < stay.count; i++) {
		int there = open_mount(in, stay.items[i], &other);

		if (there < 0)
			continue;
		close(there);
		/* whatever names led to it */
		if (other.mount_root && other.mount == facts.mount)
			fail(in, STEP_PROTECTED, 0, stay.items[i]);
	}
	if (!only_look && unmount(in, fd) < 0)
		fail(in, STEP_UMOUNT2, errno, path);
	close(fd);
}
