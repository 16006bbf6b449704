/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "detached_mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/mounts.h"
#include "shared/system_calls.h"

int shim_open_tree(int dirfd, const char *path, unsigned int flags)
{
	long fd = syscall(SYS_open_tree, dirfd, path, flags);

	return fd < 0 ? -errno : (int)fd;
}

int shim_tree_setattr(int tree, uint64_t propagation, int userns, int recursive)
{
	struct mount_attr attributes = {.propagation = propagation};

	if (userns >= 0) {
		attributes.attr_set = MOUNT_ATTR_IDMAP;
		attributes.userns_fd = (uint64_t)userns;
	}
	return mounts_set_attributes(tree, &attributes, recursive != 0) < 0 ? -errno : 0;
}

/* Names the call that failed; -errno as it was. */
static int failed(struct shim_words *words, const char *call, const char *text)
{
	int error = errno;

	words->call = call;
	if (text != NULL)
		(void)snprintf(words->text, sizeof(words->text), "%s", text);
	return -error;
}

int shim_filesystem(const char *type, const char *source, const char *const *params, struct shim_words *words)
{
	int fs = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), tree;
	struct mounts_attempt attempt;
	size_t count = 0;

	if (fs < 0)
		return failed(words, "fsopen", type);
	while (params[count] != NULL)
		count++;
	tree = mounts_make(fs, type, source, params, count, 0, &attempt);
	if (tree < 0) {
		tree = failed(words, attempt.fsmount ? "fsmount" : "fsconfig", attempt.text);
		(void)mounts_kernel_error(fs, words->text, sizeof(words->text));
	}
	(void)close(fs);
	return tree;
}

static int write_map(pid_t pid, const char *name, const char *text, struct shim_words *words)
{
	char path[64];
	int fd, result = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return failed(words, "open", path);
	/* one write: the kernel accepts a map only once and as a whole */
	if (write(fd, text, strlen(text)) < 0)
		result = failed(words, name, NULL);
	(void)close(fd);
	return result;
}

static int open_namespace(pid_t pid, struct shim_words *words)
{
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? failed(words, "open", path) : fd;
}

/* Holds the namespace until the other end of the gate is closed, also by the runtime's death. */
static noreturn void hold(const int gate[2])
{
	char none;

	(void)close(gate[1]);
	while (read(gate[0], &none, 1) < 0 && errno == EINTR)
		;
	_exit(0);
}

int shim_user_namespace(const char *uid_map, const char *gid_map, struct shim_words *words)
{
	/* A copy of our memory and no signal at its end: no other part of the process may wait for it. */
	struct clone_args args = {.flags = CLONE_NEWUSER};
	sigset_t all, old;
	int gate[2], fd;
	pid_t pid;

	if (pipe2(gate, O_CLOEXEC) < 0)
		return failed(words, "pipe2", NULL);
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, &old);
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0)
		hold(gate);
	fd = pid < 0 ? failed(words, "clone3", "CLONE_NEWUSER") : 0;
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	if (fd == 0)
		fd = write_map(pid, "uid_map", uid_map, words);
	if (fd == 0)
		fd = write_map(pid, "gid_map", gid_map, words);
	if (fd == 0)
		fd = open_namespace(pid, words);
	(void)close(gate[0]);
	(void)close(gate[1]);
	if (pid > 0)
		(void)waitpid(pid, NULL, __WALL);
	return fd;
}
