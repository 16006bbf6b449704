/* SPDX-License-Identifier: Apache-2.0 */
/* What init and the shim both do with mounts. -1: errno. */
#ifndef PYRUNC_MOUNTS_H
#define PYRUNC_MOUNTS_H

/* fsconfig(2) takes as many bytes per string. */
#define MOUNTS_TEXT_MAX 255
/* Roots on top of each other: more than anybody has. */
#define MOUNTS_STACKED_MAX 16

/* Give a file system context "key=value" or "key". fsconfig(2) */
int mounts_set_parameter(int fs, const char *parameter);

/*
 * Whoever joins a mount namespace gets its root. A caller in a chroot has another one, and so has one whose "/" was
 * mounted over. Joins the own one, by a descriptor of the process, for which no /proc is needed. setns(2)
 */
int mounts_go_to_namespace_root(void);

#endif
