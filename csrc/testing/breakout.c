/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ways out of a root directory that is not the root of its mount namespace, tried from inside a container.
 *
 *     breakout MARKER
 *
 * MARKER is a path that only the host has. Each way is one line, "chroot inside": inside or outside of the container,
 * or the error number with which the kernel refused it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEPTH 64

/* Each returns 0 when it has gone as far as it can, else -errno. */
typedef int way(void);

/* chroot(2): "This call does not change the current working directory, so that ... '.' can be outside". */
static int by_chroot(void)
{
	if (mkdir("breakout.d", 0700) < 0 && errno != EEXIST)
		return -errno;
	if (chroot("breakout.d") < 0)
		return -errno;
	for (int i = 0; i < DEPTH; i++)
		if (chdir("..") < 0)
			return -errno;
	return chroot(".") < 0 ? -errno : 0;
}

/* Whoever joins a mount namespace gets its root, which need not be the root that its processes have. */
static int by_setns(void)
{
	int fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return setns(fd, CLONE_NEWNS) < 0 ? -errno : 0;
}

/* The same when what is on top of the namespace's root has been taken away. */
static int by_umount(void)
{
	if (umount2("/", MNT_DETACH) < 0)
		return -errno;
	return by_setns();
}

static const struct {
	const char *name;
	way *act;
} ways[] = {{"chroot", by_chroot}, {"setns", by_setns}, {"umount", by_umount}};

static void attempt(const char *name, way *act, const char *marker)
{
	int error = act();

	if (error < 0)
		printf("%s %d\n", name, -error);
	else
		printf("%s %s\n", name, access(marker, F_OK) == 0 ? "outside" : "inside");
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: breakout MARKER\n");
		return 2;
	}
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		pid_t pid = fork();

		if (pid < 0)
			return 2;
		if (pid == 0) {
			attempt(ways[i].name, ways[i].act, argv[1]);
			return fflush(stdout) == 0 ? 0 : 1;
		}
		if (waitpid(pid, NULL, 0) != pid)
			return 2;
	}
	return 0;
}
