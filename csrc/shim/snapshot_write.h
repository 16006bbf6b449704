/* SPDX-License-Identifier: Apache-2.0 */
/* The side of a snapshot (command/snapshot.h) that the shim has: tools/cffi_source.py hands the declarations to cffi. */
#ifndef PYRUNC_SNAPSHOT_WRITE_H
#define PYRUNC_SNAPSHOT_WRITE_H

#include <stddef.h>

/* What the command hands to the Python that it becomes; it lies in the memory of the snapshot. */
struct snapshot_arrival {
	int argc;
	char **argv;  /* "pyrunc", then its words */
	char **envp;  /* the caller's, as data */
	char **clean; /* what C is to act on: command/environment.h */
	char **told;  /* [WORD VALUE]..., as boot.py takes them */
	int told_count;
};

/*
 * Write the memory of this process to fd. 0: written. 1: this is the process that came out of the snapshot, and
 * `arrival` says what for. -errno: no snapshot; EOPNOTSUPP when something in the memory cannot be kept. `watched` are
 * the paths, each with its NUL, of files and directories beside the mapped ones that must stay what they are.
 */
int snapshot_write(int fd, const char *watched, size_t watched_size, struct snapshot_arrival *arrival);

#endif
