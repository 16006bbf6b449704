/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing below /proc. Never through the container's /proc, which its mounts may have replaced: through an instance of
 * our own that no other process has seen, or, where the kernel refuses us one (a nested container that only sees a masked
 * /proc), through the runtime's, opened before anything else happened. Each lookup stays on that one mount and passes
 * no magic link (CVE-2019-16884, CVE-2025-52881).
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* One write(2): the kernel takes values of these files in one piece. */
static void write_value(struct init *in, int fd, const char *value, const char *path)
{
	size_t size = strlen(value);
	ssize_t n;

	if (!is_proc(fd))
		fail(in, STEP_WRONG_FS, 0, path);
	n = write(fd, value, size);
	if (n < 0)
		fail(in, STEP_WRITE, errno, path);
	if ((size_t)n != size)
		fail(in, STEP_WRITE, EIO, path);
}

static int open_value(int proc, const char *directory, const char *path)
{
	/* "self" is a symlink made of text, not a magic one */
	int dir = open_beneath(proc, directory, O_PATH | O_DIRECTORY, RESOLVE_NO_XDEV), fd;

	if (dir < 0)
		return -1;
	fd = open_beneath(dir, path, O_WRONLY, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS);
	close_quietly(dir);
	return fd;
}

/* The runtime's /proc is as good for what concerns ourselves and saves a mount, unless it is of another pid namespace. */
void op_proc_self(struct init *in, struct cursor *fields)
{
	const char *path = take_string(fields), *value = take_string(fields);
	int fd = open_value(in->proc_fd, "self", path);

	if (fd < 0 && (errno == ENOENT || errno == EXDEV))
		fd = open_value(proc_own(in), "self", path);
	if (fd < 0)
		fail(in, STEP_OPENAT2, errno, path);
	write_value(in, fd, value, path);
	close(fd);
}

void op_sysctl(struct init *in, struct cursor *fields)
{
	const char *path = take_string(fields), *value = take_string(fields);
	int fd = open_value(proc_own(in), "sys", path);

	if (fd < 0)
		fail(in, STEP_OPENAT2, errno, path);
	write_value(in, fd, value, path);
	close(fd);
}
