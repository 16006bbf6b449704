/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instances of procfs that init holds: the runtime's, opened before anything else happened, one of our own that
 * no other process has seen, and the one that stays while the container waits for its start.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROC_ROOT_INODE 1

void proc_open_host(struct init *in)
{
	struct stat st;
	int fd = open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		fail(in, STEP_OPENAT, errno, "/proc");
	if (!is_proc(fd) || fstat(fd, &st) < 0 || st.st_ino != PROC_ROOT_INODE)
		fail(in, STEP_WRONG_FS, 0, "/proc");
	in->proc_fd = fd;
}

/* An instance from before a new pid or user namespace is not valid in it. */
void proc_forget(struct init *in)
{
	if (in->procfs_fd >= 0)
		close(in->procfs_fd);
	in->procfs_fd = -1;
}

int proc_own(struct init *in)
{
	const struct list none = {.count = 0};

	if (in->procfs_fd < 0)
		in->procfs_fd = proc_filesystem(in, "", &none, 0);
	if (in->procfs_fd < 0)
		in->procfs_fd = fcntl(in->proc_fd, F_DUPFD_CLOEXEC, 3);
	return in->procfs_fd;
}

/* Go to our own directory of descriptors, where "7" is what descriptor 7 is. */
int proc_enter_fds(struct init *in)
{
	int fds = open_beneath(in->proc_fd, "self/fd", O_PATH | O_DIRECTORY, RESOLVE_NO_XDEV), result;

	if (fds < 0)
		return -1;
	result = fchdir(fds);
	close_quietly(fds);
	return result;
}

/* chmod of an O_PATH descriptor that is no symlink */
int proc_chmod(struct init *in, int fd, uint32_t mode)
{
	char name[40] = "self/fd/", digits[24];

	if (syscall(SYS_fchmodat2, fd, "", mode, AT_EMPTY_PATH) == 0)
		return 0;
	if (errno != ENOSYS)
		return -1;
	strcat(name, number_text(digits, (uint64_t)fd));
	return fchmodat(in->proc_fd, name, (mode_t)mode, 0);
}

/*
 * A container may wait for its start for days, and a process with CAP_SYS_PTRACE that shares its pid namespace may open
 * what it holds. The runtime's /proc must not be among that: it leads to every process of the host. Made while the
 * privileges for it are there; where the kernel refuses (in a user namespace), the runtime's has to do.
 */
void proc_prepare_wait(struct init *in)
{
	char subset[] = "subset=pid";
	char *items[] = {subset, NULL};
	const struct list params = {.items = items, .count = 1};

	if (in->waits && in->wait_fd < 0)
		in->wait_fd =
			proc_filesystem(in, "", &params, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
}

/*
 * If others can see us while we wait, the runtime's /proc may stay open only in a user namespace of the container, in
 * which no process can trace this program. Without an instance of our own we use the container's, which is no secret.
 */
void proc_settle_wait(struct init *in)
{
	int fd;

	if (!in->waits || in->wait_fd >= 0 || in->in_userns)
		return;
	fd = path_open(in, "/proc", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
	if (fd < 0)
		fail(in, STEP_OPENAT2, errno, "/proc");
	if (!is_proc(fd))
		fail(in, STEP_WRONG_FS, 0, "/proc");
	in->wait_fd = fd;
}

static void close_kept(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* No op behind this one may need them. */
void proc_drop(struct init *in)
{
	proc_forget(in);
	close_kept(&in->proc_fd);
}

/*
 * What only the ops before needed; with a proc of the container's own also the runtime's. Not later than any name is
 * looked up that the container controls: /proc/self/fd/3 in the image's links would be what our descriptor 3 is
 * (CVE-2024-21626).
 */
void proc_drop_hosts(struct init *in)
{
	proc_forget(in);
	close_kept(&in->root_fd);
	close_kept(&in->null_fd);
	close_kept(&in->mask_fd);
	in->null_attached = false;
	if (in->wait_fd < 0)
		return;
	close_kept(&in->proc_fd);
	in->proc_fd = in->wait_fd;
	in->wait_fd = -1;
}

/* Before others can see us: close everything of the host. */
void proc_leave(struct init *in)
{
	proc_drop_hosts(in);
	close_kept(&in->pidns_fd);
	if (!in->waits)
		close_kept(&in->proc_fd);
}
