/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a plan has added or kept so far, by descriptor: op_change.c undoes it, op_mount.c attaches it.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct added added;

static struct {
	uint32_t count;
	int trees[ADDED_MAX];
} kept;

/* Called before the tree is attached: if it never is, the undo fails and does no harm. */
int added_mount(struct init *in, int tree, const char *name)
{
	int copy;

	if (added.mount_count == ADDED_MAX)
		errno = E2BIG;
	copy = added.mount_count == ADDED_MAX ? -1 : fcntl(tree, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return note(in, STEP_MOVE_MOUNT, name);
	added.mounts[added.mount_count].tree = copy;
	added.mounts[added.mount_count].rdonly_later = false;
	added.mount_count++;
	return 0;
}

/* A directory or file that was made for a mount. -1 with errno. */
int added_target(struct init *in, int dir, const char *name)
{
	int copy;

	if (in->undo == NULL)
		return 0;
	copy = fcntl(dir, F_DUPFD_CLOEXEC, 3);
	if (copy < 0 || added.target_count == ADDED_MAX) {
		unlinkat(dir, name, 0);
		unlinkat(dir, name, AT_REMOVEDIR);
		if (copy >= 0) {
			close(copy);
			errno = E2BIG;
		}
		return -1;
	}
	added.targets[added.target_count].dir = copy;
	strcpy(added.targets[added.target_count].name, name);
	added.target_count++;
	return 0;
}

void added_rdonly_later(struct init *in)
{
	if (in->undo != NULL && added.mount_count > 0)
		added.mounts[added.mount_count - 1].rdonly_later = true;
}

void keep_tree(struct init *in, int tree)
{
	if (kept.count == ADDED_MAX)
		fail(in, STEP_PLAN, 0, "too many trees");
	kept.trees[kept.count++] = tree;
}

/* Once; the caller closes it. */
int kept_tree(struct init *in, uint32_t number)
{
	int tree;

	if (number >= kept.count || kept.trees[number] < 0)
		fail(in, STEP_PLAN, 0, "a MOUNT_BIND without its TREE");
	tree = kept.trees[number];
	kept.trees[number] = -1;
	return tree;
}
