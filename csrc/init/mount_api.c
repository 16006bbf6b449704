/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mount API of Linux 5.2 and later (open_tree, move_mount, fsopen, mount_setattr) on descriptors. Where
 * `in` is given, a failure is noted.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "shared/mounts.h"

int tree_clone(int dir, const char *path, unsigned int flags)
{
	return (int)syscall(SYS_open_tree, dir, path, flags | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

/* Put the detached `tree` on `target`. When that covers the container's root, the root is the new mount from now on. */
int tree_attach(struct init *in, int tree, int target, const char *name)
{
	struct fd_facts root, place;
	bool covers;

	if (fd_facts(path_root(in), &root) < 0 || fd_facts(target, &place) < 0)
		return note(in, STEP_FSTAT, name);
	covers = root.mount == place.mount && root.inode == place.inode;
	if (in->undo != NULL && added_mount(in, tree, name) < 0)
		return -1;
	if (syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return note(in, STEP_MOVE_MOUNT, name);
	if (covers) {
		close(in->root_fd);
		in->root_fd = fcntl(tree, F_DUPFD_CLOEXEC, 3);
	}
	return 0;
}

/*
 * The host's own node. It is read-only, so that root inside cannot change its mode, owner and times; writes still go
 * to the device.
 */
int device_clone(struct init *in, int dir, const char *path, unsigned int flags)
{
	int tree = tree_clone(dir, path, flags);

	if (tree < 0 ||
	    mount_attributes(in, tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0, false, path) == 0)
		return tree;
	close_quietly(tree);
	return -1;
}

int mount_attributes(struct init *in, int fd, uint64_t set, uint64_t clear, bool recursive, const char *text)
{
	struct mount_attr attr = {.attr_set = set, .attr_clr = clear};

	if (set == 0 && clear == 0)
		return 0;
	/* the access time modes are a number, not bits: the kernel wants the whole field cleared before one is set */
	if (((set | clear) & MOUNT_ATTR__ATIME) != 0)
		attr.attr_clr |= MOUNT_ATTR__ATIME;
	if (mounts_set_attributes(fd, &attr, recursive) < 0)
		return note(in, STEP_MOUNT_SETATTR, text);
	return 0;
}

int mount_propagation(struct init *in, int fd, uint32_t flags, const char *text)
{
	struct mount_attr attr = {.propagation = flags & (MS_SHARED | MS_SLAVE | MS_PRIVATE | MS_UNBINDABLE)};

	if (mounts_set_attributes(fd, &attr, (flags & MS_REC) != 0) < 0)
		return note(in, STEP_MOUNT_SETATTR, text);
	return 0;
}

int mount_propagate(struct init *in, int fd, const struct numbers *steps, const char *text)
{
	for (uint32_t i = 0; i < steps->count; i++)
		if (mount_propagation(in, fd, steps->values[i], text) < 0)
			return -1;
	return 0;
}

/* From a context, which is closed; fs < 0: there is none, for the reason in errno. */
int filesystem_of(struct init *in, int fs, const char *type, const char *source, const struct list *params,
		  uint64_t attributes)
{
	const char *const *items = (const char *const *)params->items;
	struct mounts_attempt attempt;
	int mount;

	if (fs < 0)
		return note(in, STEP_FSOPEN, type);
	mount = mounts_make(fs, type, source, items, params->count, attributes, &attempt);
	if (mount < 0)
		note_fs(in, attempt.fsmount ? STEP_FSMOUNT : STEP_FSCONFIG, fs, attempt.text);
	close_quietly(fs);
	return mount;
}

/* A detached mount of a new file system. */
int filesystem(struct init *in, const char *type, const char *source, const struct list *params, uint64_t attributes)
{
	return filesystem_of(in, (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), type, source, params, attributes);
}

int filesystem_reconfigure(struct init *in, int target, const struct list *params, const char *name)
{
	int fs = (int)syscall(SYS_fspick, target, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC), result = 0;
	const char *const *items = (const char *const *)params->items;
	struct mounts_attempt attempt;

	if (fs < 0)
		return note(in, STEP_FSPICK, name);
	if (mounts_configure(fs, "", items, params->count, &attempt) < 0)
		result = note_fs(in, STEP_FSCONFIG, fs, attempt.text);
	else if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
		result = note_fs(in, STEP_FSCONFIG, fs, name);
	close_quietly(fs);
	return result;
}
