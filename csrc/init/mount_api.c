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
 * The host's own node. Read-only, whoever is root inside cannot change its mode, owner and times, while what is written
 * goes to the device as ever.
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
	if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr, sizeof(attr)) < 0)
		return note(in, STEP_MOUNT_SETATTR, text);
	return 0;
}

int mount_propagation(struct init *in, int fd, uint32_t flags, const char *text)
{
	struct mount_attr attr = {.propagation = flags & (MS_SHARED | MS_SLAVE | MS_PRIVATE | MS_UNBINDABLE)};
	int at = AT_EMPTY_PATH | ((flags & MS_REC) != 0 ? AT_RECURSIVE : 0);

	if (syscall(SYS_mount_setattr, fd, "", at, &attr, sizeof(attr)) < 0)
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

static int configure(struct init *in, int fs, const char *source, const struct list *params)
{
	if (source[0] != '\0' && syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", source, 0) < 0)
		return note_fs(in, STEP_FSCONFIG, fs, source);
	for (uint32_t i = 0; i < params->count; i++)
		if (mounts_set_parameter(fs, params->items[i]) < 0)
			return note_fs(in, STEP_FSCONFIG, fs, params->items[i]);
	return 0;
}

/* From a context, which is closed; fs < 0: there is none, for the reason in errno. */
int filesystem_of(struct init *in, int fs, const char *type, const char *source, const struct list *params,
		  uint64_t attributes)
{
	int mount = -1;

	if (fs < 0)
		return note(in, STEP_FSOPEN, type);
	if (configure(in, fs, source, params) == 0) {
		if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
			note_fs(in, STEP_FSCONFIG, fs, source[0] != '\0' ? source : type);
		else if ((mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes)) < 0)
			note_fs(in, STEP_FSMOUNT, fs, type);
	}
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
	int fs = (int)syscall(SYS_fspick, target, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC), result;

	if (fs < 0)
		return note(in, STEP_FSPICK, name);
	result = configure(in, fs, "", params);
	if (result == 0 && syscall(SYS_fsconfig, fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
		result = note_fs(in, STEP_FSCONFIG, fs, name);
	close_quietly(fs);
	return result;
}
