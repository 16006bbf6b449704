/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting programs. Every function answers >= 0 or -errno.
 * tools/cffi_source.py hands the declarations below to cffi: keep them free of macros.
 */
#ifndef PYRUNC_SPAWN_H
#define PYRUNC_SPAWN_H

#include <stddef.h>
#include <stdint.h>

/* What shim_spawn starts: exactly one of exe_fd (a sealed memfd, >= 0) and path is used. */
struct shim_spawn {
	int exe_fd;
	const char *path;
	char *const *argv;
	char *const *envp;
	const char *cwd; /* NULL: stay */
	int stdio[3];    /* -1: inherit */
	const int *keep; /* file descriptors that lose close-on-exec */
	size_t keep_count;
	uint64_t clone_flags; /* CLONE_NEW* only */
	const char *bound;    /* with CLONE_NEWNS: what is mounted, with all below it, on bound_on; NULL: nothing */
	const char *bound_on;
	int cgroup_fd;   /* >= 0: CLONE_INTO_CGROUP */
	int new_session; /* 1: setsid, so that a timeout can end the whole group */
	int pidfd;       /* out */
	int failed_step; /* out: 0 clone3, 1 chdir, 2 dup2, 3 exec, 4 mount */
};

/* The pid, or -errno. Returns when the child has exec'd; the child never comes back. clone(2), execveat(2). */
int shim_spawn(struct shim_spawn *spawn);

/* A route netlink socket (AF_NETLINK, SOCK_DGRAM) of the network namespace of netns_fd. rtnetlink(7), setns(2). */
int shim_netlink_in(int netns_fd);

#endif
