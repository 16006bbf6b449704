/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other users must not be able to change what we trust: a state names hooks to run and pids to signal, a snapshot is
 * code. Trusted are root and our effective user. A directory that others may write is trusted if it is sticky, as only
 * the owner of a file in it may then replace that. In a user namespace the host's root is shown as the overflow uid,
 * which may own parents of our directories, but not these themselves.
 */
#ifndef PYRUNC_TRUST_H
#define PYRUNC_TRUST_H

#include <stdbool.h>
#include <sys/stat.h>

#include "container.h"

/*
 * Open the directory at an absolute path (O_PATH), each part of which is trusted, links on the way included.
 * CONTAINER_NOT_FOUND: a part is missing, what is there is trusted.
 */
int trust_open(const char *path, int *fd, struct container_error *error);

/* Whether what lies in a trusted directory is trusted: a directory, or a regular file or fifo of one name. */
bool trust_is_ours(const struct stat *status);

/* Whether our root is an ordinary user of the host. */
bool trust_in_user_namespace(void);

#endif
