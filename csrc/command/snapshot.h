/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot: the memory of a Python that has started, has loaded our modules and waits for a command line. Starting
 * CPython and importing them costs 10 ms, which is more than the whole of create or exec; becoming a snapshot costs
 * one. shim/snapshot_write.c writes one, snapshot.c here maps it and goes on where the
 * writer stood; everything the kernel knows of a process (descriptors, ids, namespaces, limits, parent) is the
 * command's own. Nothing stays behind that runs.
 *
 * The file holds a head (shared/snapshot_file.h), then the pages that differ from the mapped files. It is as trusted as the state of
 * containers beside which it lies (container/trust.h), and closed to others. It is good for one boot of one kernel, and while no
 * file has changed that is mapped or that a module came out of, nor a directory in which Python looks for modules.
 * Whatever does not fit lets the command start Python the ordinary way.
 *
 * What was tried instead (hot create, exec; crun 7.4, 5.3 ms): an embedded libpython saves 1 to 2 of the 10 ms; plans
 * kept by the digest of their input help only if the same input is repeated, which engines do not do; a planner daemon
 * would need the code that starts a container a second time in C, as init must be the caller's descendant.
 */
#ifndef PYRUNC_SNAPSHOT_H
#define PYRUNC_SNAPSHOT_H

#include <stdbool.h>

#include "shim/snapshot_write.h"

enum snapshot_result {
	SNAPSHOT_STALE,   /* there is none, or it is out of date */
	SNAPSHOT_USELESS, /* one was tried and does not work here */
};

/* Become the Python in the snapshot at path, which continues with `arrival`. Returns if that fails. */
enum snapshot_result snapshot_enter(const char *path, const struct snapshot_arrival *arrival);

/* Have `python -I -S boot` make the snapshot at path, and try it. false: there is none that works. */
bool snapshot_make(const char *path, const char *python, const char *boot);

#endif
