/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Detached mounts, made by the runtime with its own privileges and handed to init as descriptors. Like calls.h: one
 * function per step, no policy, >= 0 or -errno.
 */
#ifndef PYRUNC_DETACHED_MOUNTS_H
#define PYRUNC_DETACHED_MOUNTS_H

#include <stddef.h>
#include <stdint.h>

/* What failed: a system call, or the name of a file of /proc that was to be written, and the kernel's own words. */
struct shim_words {
	const char *call;
	char text[256];
};

/* A detached clone of the mount at path. flags: OPEN_TREE_*, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW. open_tree(2). */
int shim_open_tree(int dirfd, const char *path, unsigned int flags);

/* A detached mount of a new file system; params are "key=value" or "key", NULL behind the last. fsopen(2). */
int shim_filesystem(const char *type, const char *source, const char *const *params, struct shim_words *words);

/* mount_setattr(2) on tree itself: MS_* propagation (0: none), the mapping of a user namespace (-1: none). */
int shim_tree_setattr(int tree, uint64_t propagation, int userns, int recursive);

/* A user namespace without processes, with these contents of uid_map and gid_map. user_namespaces(7). */
int shim_user_namespace(const char *uid_map, const char *gid_map, struct shim_words *words);

#endif
