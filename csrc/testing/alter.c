/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tries to change files that may be the host's own: masks and devices of a container.
 *
 *     alter PATH...
 *
 * For each path and each way one line, "/dev/null fchmod 30": what the kernel answered, 0 for a change that was made.
 * The last line of a path is "/dev/null write 0" when it can be opened for writing and written to, as programs do with
 * devices. What PATH is given as "-" is standard input.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static void tell(const char *path, const char *what, long result)
{
	printf("%s %s %d\n", path, what, result < 0 ? errno : 0);
}

static void by_descriptor(const char *path, int fd)
{
	struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};

	tell(path, "fchmod", fchmod(fd, 0600));
	tell(path, "fchown", fchown(fd, 1, 1));
	tell(path, "futimens", futimens(fd, times));
	tell(path, "fsetxattr", fsetxattr(fd, "security.alter", "x", 1, 0));
}

static void by_name(const char *path)
{
	struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	tell(path, "chmod", chmod(path, 0600));
	tell(path, "chown", lchown(path, 1, 1));
	tell(path, "utimensat", utimensat(AT_FDCWD, path, times, 0));
	tell(path, "setxattr", setxattr(path, "security.alter", "x", 1, 0));
	tell(path, "truncate", truncate(path, 1));
	if (fd >= 0) {
		by_descriptor(path, fd);
		close(fd);
	}
	/* as a shell does for "> /dev/null" */
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
	tell(path, "write", fd < 0 ? -1 : write(fd, "x", 1));
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-") == 0)
			by_descriptor("-", STDIN_FILENO);
		else
			by_name(argv[i]);
	}
	return fflush(stdout) == 0 ? 0 : 1;
}
