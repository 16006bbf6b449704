/* SPDX-License-Identifier: Apache-2.0 */
/* What init and the shim both do with mounts. -1: errno. */
#ifndef PYRUNC_MOUNTS_H
#define PYRUNC_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mount_attr; /* of linux/mount.h, with which older versions of sys/mount.h clash */

/* fsconfig(2) takes as many bytes per string. */
#define MOUNTS_TEXT_MAX 255
/* Roots on top of each other: a limit that is never reached. */
#define MOUNTS_STACKED_MAX 16

/* What was tried: fsmount(2) or, before it, fsconfig(2), and the text that this was about. */
struct mounts_attempt {
	bool fsmount;
	const char *text;
};

/* Give a file system context its source ("": none) and `count` parameters, "key=value" or "key". fsconfig(2) */
int mounts_configure(int fs, const char *source, const char *const *parameters, size_t count,
		     struct mounts_attempt *attempt);

/* Configure, and make a detached mount of it, which is returned. MOUNT_ATTR_* */
int mounts_make(int fs, const char *type, const char *source, const char *const *parameters, size_t count,
		uint64_t attributes, struct mounts_attempt *attempt);

/*
 * The first error in the kernel's log of a context, as much of it as fits; false: there is none. The first is the cause,
 * and a warning is none. errno stays as it is.
 */
bool mounts_kernel_error(int fs, char *text, size_t size);

/* mount_setattr(2) on the mount itself, or on all that is mounted below it, too. */
int mounts_set_attributes(int fd, struct mount_attr *attributes, bool recursive);

/*
 * A process that joins a mount namespace gets its root. A caller in a chroot has another root, and so has one whose "/"
 * was mounted over. This joins the own namespace by a descriptor of the process, which needs no /proc. setns(2)
 */
int mounts_go_to_namespace_root(void);

#endif
