/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What whoever runs us trusts must be nobody else's to change: a state names hooks to run and pids to signal, a snapshot
 * is code. Trusted are root and our effective user; a directory that others may write is trusted if it is sticky, as
 * only the owner of what is in it may then exchange that. In a user namespace the host's root is nobody with a number:
 * what shows as the overflow uid may be above our own directories, not they themselves.
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
