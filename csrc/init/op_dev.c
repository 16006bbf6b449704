/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device nodes, links and the terminal. All of them below a descriptor of their directory, and checked by descriptor
 * after they were made: an image may ship a /dev that is a symlink, or nodes of its own (CVE-2026-41579).
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
/* majors of Unix98 pty slaves */
#define PTS_MAJOR_FIRST 136
#define PTS_MAJOR_LAST 143
/* fs.overflowuid, which is practically never changed */
#define OVERFLOW_ID 65534

struct device {
	const char *path;
	mode_t mode;
	dev_t number;
	uid_t uid;
	gid_t gid;
	uint32_t flags;
};

static bool matches(const struct device *d, const struct stat *st)
{
	if ((st->st_mode & S_IFMT) != (d->mode & S_IFMT))
		return false;
	return (d->mode & S_IFMT) == S_IFIFO || st->st_rdev == d->number;
}

/* config-linux.md: "if a file already exists at path that does not match the requested device, the runtime MUST
 * generate an error". Returns an O_PATH descriptor; a match is left as it is, the host's /dev may be mounted there. */
static int open_existing(struct init *in, int dir, const char *name, const struct device *d, struct stat *st)
{
	int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fstat(fd, st) < 0)
		fail(in, STEP_OPENAT, errno, d->path);
	return fd;
}

static void bind_device(struct init *in, int dir, const char *name, const struct device *d, int mknod_error)
{
	int tree = device_clone(in, AT_FDCWD, d->path, AT_SYMLINK_NOFOLLOW), target;
	struct stat st;

	if (tree < 0 && mknod_error != 0)
		fail(in, STEP_MKNODAT, mknod_error, d->path);
	if (tree < 0 || fstat(tree, &st) < 0)
		fail(in, STEP_OPEN_TREE, errno, d->path);
	if (!matches(d, &st))
		fail(in, STEP_DEVICE_MISMATCH, 0, d->path);
	if (mknodat(dir, name, S_IFREG, 0) < 0 && errno != EEXIST)
		fail(in, STEP_MKNODAT, errno, d->path);
	target = open_existing(in, dir, name, d, &st);
	if (!matches(d, &st)) {
		if (!S_ISREG(st.st_mode))
			fail(in, STEP_DEVICE_MISMATCH, EEXIST, d->path);
		if (tree_attach(in, tree, target, d->path) < 0)
			fail_noted(in);
	}
	close(target);
	close(tree);
}

static void finish_device(struct init *in, int dir, const char *name, const struct device *d)
{
	struct stat st;
	int fd = open_existing(in, dir, name, d, &st);

	if (!matches(d, &st))
		fail(in, STEP_DEVICE_MISMATCH, EEXIST, d->path);
	if (fchownat(fd, "", d->uid, d->gid, AT_EMPTY_PATH) < 0)
		fail(in, STEP_FCHOWNAT, errno, d->path);
	/* a default ACL of the directory may have changed what mknod was told, and chown clears the set-id bits */
	if (((st.st_mode & 07777) != (d->mode & 07777) || (d->mode & 06000) != 0) &&
	    proc_chmod(in, fd, d->mode & 07777) < 0)
		fail(in, STEP_FCHMODAT, errno, d->path);
	close(fd);
}

void op_device(struct init *in, struct cursor *fields)
{
	struct device d = {.path = take_string(fields), .mode = take_u32(fields)};
	uint32_t major_number = take_u32(fields), minor_number = take_u32(fields);
	char name[INIT_NAME_MAX];
	struct stat st;
	int dir;

	d.number = makedev(major_number, minor_number);
	d.uid = take_u32(fields);
	d.gid = take_u32(fields);
	d.flags = take_u32(fields);
	dir = path_parent(in, d.path, name);
	if (dir < 0)
		fail_noted(in);
	if ((d.flags & DEVICE_FLAG_BIND) != 0) {
		bind_device(in, dir, name, &d, 0);
	} else if (mknodat(dir, name, d.mode, d.number) == 0) {
		finish_device(in, dir, name, &d);
	} else if (errno == EPERM) {
		bind_device(in, dir, name, &d, EPERM);
	} else if (errno == EEXIST) {
		close(open_existing(in, dir, name, &d, &st));
		if (!matches(&d, &st))
			fail(in, STEP_DEVICE_MISMATCH, EEXIST, d.path);
	} else {
		fail(in, STEP_MKNODAT, errno, d.path);
	}
	close(dir);
}

/* "/proc/kcore" exists if this kernel has it; looked up in our own procfs, not in the container's /proc. */
static bool resolves(struct init *in, const char *text)
{
	struct stat st;

	if (strncmp(text, "/proc/", 6) != 0)
		return true;
	return fstatat(in->proc_fd, text + 6, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

void op_symlink(struct init *in, struct cursor *fields)
{
	const char *text = take_string(fields), *path = take_string(fields);

	if (take_u32(fields) != 0 && !resolves(in, text))
		return;
	if (make_symlink(in, text, path, false) < 0)
		fail_noted(in);
}

static bool is_devpts(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (unsigned long)fs.f_type == DEVPTS_SUPER_MAGIC;
}

static int open_master(struct init *in)
{
	int dir = path_open(in, "/dev/pts", O_PATH | O_DIRECTORY, 0), master, unlocked = 0;

	if (dir < 0)
		fail(in, STEP_OPENAT2, errno, "/dev/pts");
	/* before opening anything in it: opening a device of the image's choice may have effects */
	if (!is_devpts(dir))
		fail(in, STEP_WRONG_FS, 0, "/dev/pts");
	master = open_beneath(dir, "ptmx", O_RDWR | O_NOCTTY, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS);
	if (master < 0)
		fail(in, STEP_OPENAT2, errno, "/dev/pts/ptmx");
	if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
		fail(in, STEP_IOCTL, errno, "TIOCSPTLCK");
	close(dir);
	return master;
}

/* CVE-2025-52565: the slave comes from the master, never from a name below /dev/pts. */
static int open_slave(struct init *in, int master)
{
	int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	if (slave < 0)
		fail(in, STEP_IOCTL, errno, "TIOCGPTPEER");
	if (fstat(slave, &st) < 0)
		fail(in, STEP_FSTAT, errno, "TIOCGPTPEER");
	if (!is_devpts(slave) || !S_ISCHR(st.st_mode) || major(st.st_rdev) < PTS_MAJOR_FIRST ||
	    major(st.st_rdev) > PTS_MAJOR_LAST)
		fail(in, STEP_WRONG_FS, 0, "TIOCGPTPEER");
	return slave;
}

static void bind_console(struct init *in, int slave)
{
	char name[INIT_NAME_MAX];
	int dir = path_parent(in, "/dev/console", name), tree, target;

	if (dir < 0)
		fail_noted(in);
	tree = tree_clone(slave, "", AT_EMPTY_PATH);
	if (tree < 0)
		fail(in, STEP_OPEN_TREE, errno, "/dev/console");
	if (mknodat(dir, name, S_IFREG | 0666, 0) < 0 && errno != EEXIST)
		fail(in, STEP_MKNODAT, errno, "/dev/console");
	target = open_beneath(dir, name, O_PATH, RESOLVE_NO_SYMLINKS);
	if (target < 0)
		fail(in, STEP_OPENAT2, errno, "/dev/console");
	if (tree_attach(in, tree, target, "/dev/console") < 0)
		fail_noted(in);
	close(target);
	close(tree);
	close(dir);
}

static void make_stdio(struct init *in, int slave)
{
	for (int fd = 0; fd < 3; fd++)
		if (dup2(slave, fd) < 0)
			fail(in, STEP_DUP3, errno, "");
	close(slave);
}

void op_console(struct init *in, struct cursor *fields)
{
	struct winsize size = {0};
	bool bind;
	uid_t uid;
	gid_t gid;
	int master, slave;

	size.ws_row = (unsigned short)take_u32(fields);
	size.ws_col = (unsigned short)take_u32(fields);
	bind = take_u32(fields) != 0;
	uid = take_u32(fields);
	gid = take_u32(fields);
	master = open_master(in);
	slave = open_slave(in, master);
	if ((size.ws_row != 0 || size.ws_col != 0) && ioctl(slave, TIOCSWINSZ, &size) < 0)
		fail(in, STEP_IOCTL, errno, "TIOCSWINSZ");
	/* unmapped ids cannot own it; the terminal still works by its descriptors */
	if (fchown(slave, uid, gid) < 0 && errno != EPERM && errno != EINVAL)
		fail(in, STEP_FCHOWN, errno, "TIOCGPTPEER");
	if (bind)
		bind_console(in, slave);
	sync_send(in, SYNC_CONSOLE, 0, master);
	sync_wait(in);
	close(master);
	make_stdio(in, slave);
}

static bool is_null(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

/* A null device in a file system of its own, which no other process sees. -1 if the kernel does not make one. */
static int make_null(struct init *in, int flags)
{
	const struct list none = {.count = 0};
	int mount = filesystem(in, "tmpfs", "tmpfs", &none, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC), fd = -1;

	if (mount < 0)
		return -1;
	if (mknodat(mount, "null", S_IFCHR | 0666, makedev(1, 3)) == 0)
		fd = openat(mount, "null", flags);
	close_quietly(mount);
	return fd;
}

/*
 * The null device that came in from the host gives way to the container's: root inside could change the node of who
 * has it open, and CRIU can save no file of a mount that the container does not have.
 */
static void own_null(struct init *in, int fd, const struct stat *st)
{
	/* Never blocks, whatever kind of file it is. */
	int flags = (fcntl(fd, F_GETFL) & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC;
	int ours = open("/dev/null", flags);
	struct stat found;

	if (ours >= 0 && (fstat(ours, &found) < 0 || !is_null(&found))) {
		close(ours);
		ours = -1;
	}
	if (ours < 0)
		ours = make_null(in, flags);
	/* no process inside may access a file whose owner is not mapped */
	if (ours < 0 && st->st_uid == OVERFLOW_ID)
		return;
	if (ours < 0 || fcntl(ours, F_SETFL, 0) < 0 || dup2(ours, fd) < 0)
		fail(in, STEP_MKNODAT, errno, "/dev/null");
	close(ours);
}

/*
 * Who reads `program < file` keeps the file; a pipe must be the user's, or /dev/stdin cannot be opened. Devices and
 * directories are the host's.
 */
static bool wants_owner(int fd, const struct stat *st, uid_t uid)
{
	if (st->st_uid == uid)
		return false;
	if (S_ISREG(st->st_mode))
		return (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
	return S_ISFIFO(st->st_mode) || S_ISSOCK(st->st_mode);
}

void op_stdio_owner(struct init *in, struct cursor *fields)
{
	uid_t uid = take_u32(fields);
	char digits[24];

	for (int fd = 0; fd < 3; fd++) {
		struct stat st;

		if (fstat(fd, &st) < 0)
			continue;
		if (is_null(&st))
			own_null(in, fd, &st);
		if (!wants_owner(fd, &st, uid))
			continue;
		if (fchown(fd, uid, (gid_t)-1) < 0 && errno != EINVAL && errno != EPERM && errno != EROFS)
			fail(in, STEP_FCHOWN, errno, number_text(digits, (uint64_t)fd));
	}
}
