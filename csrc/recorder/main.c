/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recorder: waits for the end of a container that was created with --record-exit and records its exit status.
 *
 * Descriptor 3 is a pidfd of the container's init, 4 its state directory. By a pidfd the kernel
 * returns the wait status of a process once its parent has reaped it (Linux 6.15, ioctl_pidfd(2)). It then replaces the
 * empty file `exit`, in decimal; if it is not available, `exit` is removed. The caller waits for the first of our two
 * processes, and is not the parent of the other.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PIDFD = 3, DIRECTORY = 4 };

/* linux/pidfd.h of Linux 6.15; headers of older kernels lack it. */
#define INFO_EXIT (UINT64_C(1) << 3)
struct info {
	uint64_t mask, cgroup;
	uint32_t pid, tgid, ppid, uids_and_gids[8];
	int32_t exit_code;
};
#define GET_INFO _IOWR(0xFF, 11, struct info)

static int record(int32_t status)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%d\n", status);
	int fd = openat(DIRECTORY, ".exit.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	/* Deleted with its container: the status is not needed any more. */
	if (fd < 0)
		return 1;
	if (write(fd, text, (size_t)length) != length || close(fd) != 0)
		return 1;
	return renameat(DIRECTORY, ".exit.new", DIRECTORY, "exit") != 0;
}

int main(void)
{
	struct info info = {.mask = INFO_EXIT};
	/* Its end, and then that it was collected: POLLHUP, which is always reported. */
	struct pollfd gone = {.fd = PIDFD, .events = 0};
	pid_t child = fork();

	if (child != 0)
		return child < 0;
	setsid();
	/* What the caller was given without close-on-exec would stay open as long as the container runs. */
	syscall(SYS_close_range, DIRECTORY + 1, ~0U, 0);
	if (chdir("/") != 0)
		return 1;
	while (poll(&gone, 1, -1) < 0 && errno == EINTR)
		;
	if (ioctl(PIDFD, GET_INFO, &info) == 0 && info.mask & INFO_EXIT)
		return record(info.exit_code);
	unlinkat(DIRECTORY, "exit", 0);
	return 1;
}
