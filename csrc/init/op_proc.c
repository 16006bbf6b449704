/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing below /proc. Never through the container's /proc, which its mounts may have replaced: through an instance of
 * our own that nobody else has seen, or, where the kernel refuses us one (a nested container that only sees a masked
 * /proc), through the runtime's, opened before anything else happened. Each lookup stays on that one mount and passes
 * no magic link (CVE-2019-16884, CVE-2025-52881).
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define PROC_ROOT_INODE 1

bool is_proc(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (unsigned long)fs.f_type == PROC_SUPER_MAGIC;
}

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

/* An instance of before a new pid or user namespace is not the right one after. */
void proc_forget(struct init *in)
{
	if (in->procfs_fd >= 0)
		close(in->procfs_fd);
	in->procfs_fd = -1;
}

static int procfs(struct init *in)
{
	const struct list none = {.count = 0};

	if (in->procfs_fd < 0)
		in->procfs_fd = filesystem(in, "proc", "", &none, 0);
	if (in->procfs_fd < 0)
		in->procfs_fd = fcntl(in->proc_fd, F_DUPFD_CLOEXEC, 3);
	return in->procfs_fd;
}

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
		fd = open_value(procfs(in), "self", path);
	if (fd < 0)
		fail(in, STEP_OPENAT2, errno, path);
	write_value(in, fd, value, path);
	close(fd);
}

void op_sysctl(struct init *in, struct cursor *fields)
{
	const char *path = take_string(fields), *value = take_string(fields);
	int fd = open_value(procfs(in), "sys", path);

	if (fd < 0)
		fail(in, STEP_OPENAT2, errno, path);
	write_value(in, fd, value, path);
	close(fd);
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
			filesystem(in, "proc", "", &params, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
}

/*
 * Who waits where others are may hold the runtime's /proc only in a user namespace of the container, in which nobody can
 * trace this program. Without an instance of our own the container's has to do, which shows what it shows to all in it.
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

/* Before others can see us: nothing of the host stays open. */
void proc_leave(struct init *in)
{
	proc_drop_hosts(in);
	close_kept(&in->pidns_fd);
	if (!in->waits)
		close_kept(&in->proc_fd);
}

void op_start_wait(struct init *in, struct cursor *fields)
{
	char name[40] = "self/fd/", digits[24];
	int inherited = take_fd(fields), fifo;

	if (inherited < 0)
		fail(in, STEP_PLAN, 0, "START_WAIT has no fifo");
	proc_drop_hosts(in);
	strcat(name, number_text(digits, (uint64_t)inherited));
	/* while somebody can still be told; a seccomp filter may forbid the question, which is no answer */
	if (syscall(SYS_faccessat2, in->proc_fd, name, W_OK, AT_EACCESS) < 0 && (errno == EACCES || errno == ENOENT))
		fail(in, STEP_OPENAT, errno, "exec.fifo");
	/* our parent takes the end of the messages as "created"; from now on it may be gone */
	if (in->report_fd != in->sync_fd)
		close(in->report_fd);
	close(in->sync_fd);
	in->sync_fd = in->report_fd = -1;
	plan_drop_behind(in, fields->end);
	fifo = openat(in->proc_fd, name, O_WRONLY | O_CLOEXEC);
	/* a filter may answer with success: then it is the number of a standard stream */
	if (fifo <= STDERR_FILENO) {
		/* run has not gone, and reads this */
		note(in, STEP_OPENAT, "exec.fifo");
		keep_words(in);
		leave(INIT_EXIT_FAILED);
	}
	in->report_fd = fifo;
	in->report_is_fifo = true;
	close(inherited);
	close_kept(&in->proc_fd);
}
