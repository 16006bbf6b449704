/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root file system: finding it, making it the root, and hiding parts of it.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "shared/mounts.h"

/* Every process of exec starts there. */
static void go_to_namespace_root(struct init *in)
{
	if (mounts_go_to_namespace_root() < 0)
		fail(in, STEP_SETNS, errno, "/proc/self/ns/mnt");
}

static void change_root(struct init *in, int root)
{
	if (fchdir(root) < 0 || syscall(SYS_chroot, ".") < 0)
		fail(in, STEP_CHROOT, errno, "/");
}

static int open_slash(struct init *in, struct fd_facts *facts)
{
	int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		fail(in, STEP_OPENAT, errno, "/");
	if (fd_facts(fd, facts) < 0)
		fail(in, STEP_FSTAT, errno, "/");
	return fd;
}

static bool same_place(const struct fd_facts *one, const struct fd_facts *other)
{
	return one->mount == other->mount && one->inode == other->inode;
}

/* Whether lines of mountinfo, which has what is below our root, begin with this number. */
static bool is_below_root(struct init *in, uint64_t mount)
{
	char text[INIT_PATH_MAX], digits[24];
	const char *wanted = number_text(digits, mount);
	int fd = openat(in->proc_fd, "self/mountinfo", O_RDONLY | O_CLOEXEC);
	size_t size = strlen(wanted), at = 0; /* in the line; past its number when it is another */
	bool found = false;
	ssize_t n;

	if (fd < 0)
		fail(in, STEP_OPENAT, errno, "mountinfo");
	while (!found && (n = read(fd, text, sizeof(text))) > 0) {
		for (ssize_t i = 0; i < n && !found; i++) {
			found = at == size && text[i] == ' ';
			if (text[i] == '\n')
				at = 0;
			else if (at <= size)
				at = at < size && text[i] == wanted[at] ? at + 1 : size + 1;
		}
	}
	close(fd);
	return found;
}

/* Returns what is mounted on top of the namespace's root. */
static void unmount_top(struct init *in)
{
	/* or the unmount would reach the host */
	if (syscall(SYS_mount, NULL, "/", NULL, (unsigned long)(MS_SLAVE | MS_REC), NULL) < 0)
		fail(in, STEP_MOUNT, errno, "/");
	if (syscall(SYS_umount2, "/", INIT_MNT_DETACH) < 0)
		fail(in, STEP_UMOUNT2, errno, "/");
	go_to_namespace_root(in);
}

/*
 * A process whose root is older than a mount over "/" has a tree that cannot be reached from the namespace's root: not
 * by setting the propagation of all mounts, nor by "..", which leads to the top mount. So unmount that, here only.
 */
static void uncover(struct init *in, int root, const struct fd_facts *ours, uint64_t top)
{
	if (is_below_root(in, ours->mount))
		return;
	change_root(in, root);
	/* elsewhere in such a tree: unmounting the mounts between could propagate */
	if (!ours->mount_root || !is_below_root(in, top))
		fail(in, STEP_ROOT_OUTSIDE, 0, "/");
	if (mount_propagation(in, root, MS_SLAVE | MS_REC, "/") < 0)
		fail_noted(in);
	go_to_namespace_root(in);
	for (int i = 0; !is_below_root(in, ours->mount); i++) {
		if (i == MOUNTS_STACKED_MAX)
			fail(in, STEP_ROOT_OUTSIDE, 0, "/");
		unmount_top(in);
	}
}

/*
 * pivot_root refuses when the parent of the new root is shared, and a mount on a shared one would show up on the host.
 * The mount that holds the rootfs is found by going up to its root. Of a slave the rootfs becomes one, too.
 */
static void unshare_parent(struct init *in, int rootfs, uint32_t propagation, const char *path)
{
	int at = fcntl(rootfs, F_DUPFD_CLOEXEC, 3);
	struct fd_facts first, facts;

	if (fd_facts(rootfs, &first) < 0)
		fail(in, STEP_FSTAT, errno, path);
	for (int depth = 0; depth < INIT_PATH_MAX / 2; depth++) {
		int up;

		if (at < 0 || fd_facts(at, &facts) < 0)
			fail(in, STEP_FSTAT, errno, path);
		if (facts.mount_root)
			break;
		up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		close_quietly(at);
		at = up;
	}
	/* another mount covers its root */
	if (facts.mount != first.mount)
		fail(in, STEP_MOUNT_SETATTR, EINVAL, path);
	if (mount_propagation(in, at, (propagation & MS_SLAVE) != 0 ? MS_SLAVE : MS_PRIVATE, path) < 0)
		fail_noted(in);
	close(at);
}

/* For the whole namespace, wherever our own root is: that need not even be a mount point. */
static void propagate_all(struct init *in, uint32_t propagation, int rootfs, const char *path)
{
	int directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct fd_facts ours, its;
	int root = open_slash(in, &ours), top;

	go_to_namespace_root(in);
	top = open_slash(in, &its);
	if (!same_place(&ours, &its)) {
		close(top);
		uncover(in, root, &ours, its.mount);
		top = open_slash(in, &its);
	}
	if (mount_propagation(in, top, propagation, "/") < 0)
		fail_noted(in);
	/* with all mounts made slave or private the parent already is */
	if ((propagation & MS_REC) == 0 || (propagation & (MS_SLAVE | MS_PRIVATE)) == 0)
		unshare_parent(in, rootfs, propagation, path);
	in->chrooted = !same_place(&ours, &its);
	if (in->chrooted)
		change_root(in, root);
	/* hooks start in the runtime's directory, if it is still reachable */
	if (directory >= 0 && fchdir(directory) == 0)
		close(directory);
	close(top);
	close(root);
}

/* An empty file for masks: checked to be the null device, and cloned while the host's /dev is reachable. */
static int open_null(struct init *in)
{
	int fd = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC), tree;
	struct stat st;

	if (fd < 0)
		return -1;
	/* CVE-2025-31133: whatever else is there would be put over the masked files, writable */
	if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) {
		close(fd);
		errno = ENODEV;
		return -1;
	}
	tree = device_clone(in, fd, "", AT_EMPTY_PATH);
	close_quietly(fd);
	return tree;
}

void op_rootfs(struct init *in, struct cursor *fields)
{
	const char *path = take_string(fields);
	uint32_t propagation = take_u32(fields);
	bool stay = take_u32(fields) != 0;
	int rootfs = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), tree;

	in->rootfs_path = path;
	if (rootfs < 0)
		fail(in, STEP_OPENAT, errno, path);
	if (in->root_fd >= 0)
		close(in->root_fd);
	in->root_fd = rootfs;
	if (stay)
		return;
	propagate_all(in, propagation, rootfs, path);
	/* pivot_root needs a mount point */
	tree = tree_clone(rootfs, "", AT_EMPTY_PATH | AT_RECURSIVE);
	if (tree < 0)
		fail(in, STEP_OPEN_TREE, errno, path);
	if (tree_attach(in, tree, rootfs, path) < 0)
		fail_noted(in);
	close(tree);
	in->null_fd = open_null(in);
}

static void enter_root(struct init *in)
{
	if (fchdir(path_root(in)) < 0)
		fail(in, STEP_CHDIR, errno, in->rootfs_path);
}

/* Whether the root that we have now is the container's. */
static bool at_root(struct init *in)
{
	struct fd_facts here, wanted;

	close(open_slash(in, &here));
	if (fd_facts(path_root(in), &wanted) < 0)
		fail(in, STEP_FSTAT, errno, in->rootfs_path);
	return same_place(&here, &wanted);
}

/* The old root is on top of the new one, with everything that was mounted over it. */
static void unmount_old_roots(struct init *in)
{
	go_to_namespace_root(in);
	for (int i = 0; i < MOUNTS_STACKED_MAX; i++) {
		if (at_root(in))
			return;
		unmount_top(in);
	}
	fail(in, STEP_ROOT_OUTSIDE, 0, in->rootfs_path);
}

static int pivot_from_here(struct init *in)
{
	enter_root(in);
	/* the old root goes on top of the new one, so no directory is needed for it */
	return (int)syscall(SYS_pivot_root, ".", ".");
}

/*
 * It replaces the root of the caller: were that not the namespace's, the host's would stay what chroot(2) with a step
 * up, setns(2) on the own namespace and every exec lead to.
 */
static void pivot(struct init *in)
{
	struct fd_facts ignored;
	int ours = open_slash(in, &ignored), result;

	go_to_namespace_root(in);
	result = pivot_from_here(in);
	if (result < 0 && (errno == EBUSY || (errno == EINVAL && in->chrooted))) {
		/* the rootfs is "/" itself and lies on top of it, or is not below what was mounted over "/": that goes
		 * with the root that we had */
		change_root(in, ours);
		result = pivot_from_here(in);
	}
	if (result < 0)
		fail(in, STEP_PIVOT_ROOT, errno, in->rootfs_path);
	close(ours);
	unmount_old_roots(in);
}

/* " /a\040b " of mountinfo in place; returns what follows it */
static char *unescape(char *field)
{
	char *to = field;

	for (; *field != '\0' && *field != ' '; field++) {
		if (field[0] == '\\' && field[1] >= '0' && field[1] <= '3' && field[2] != '\0' && field[3] != '\0') {
			*to++ = (char)((field[1] - '0') * 64 + (field[2] - '0') * 8 + (field[3] - '0'));
			field += 3;
		} else {
			*to++ = *field;
		}
	}
	if (*field == ' ')
		field++;
	*to = '\0';
	return field;
}

/* "36 35 0:4 / /proc rw,... - proc proc rw": the mount point when it is a whole proc or sysfs outside the rootfs. */
static char *exposed_mount(char *line, const char *rootfs)
{
	char *at = line, *root, *point, *type;
	size_t size = strlen(rootfs);

	for (int i = 0; i < 3; i++) {
		at = strchr(at, ' ');
		if (at == NULL)
			return NULL;
		at++;
	}
	root = at;
	if (root[0] != '/' || root[1] != ' ')
		return NULL;
	point = root + 2;
	type = strstr(point, " - ");
	if (type == NULL || (strncmp(type, " - proc ", 8) != 0 && strncmp(type, " - sysfs ", 9) != 0))
		return NULL;
	unescape(point);
	if (strncmp(point, rootfs, size) == 0 && (point[size] == '/' || point[size] == '\0'))
		return NULL;
	return point;
}

static void hide_mount(struct init *in, const char *point)
{
	/* slave first: unmounting must not reach the host */
	syscall(SYS_mount, NULL, point, NULL, (unsigned long)(MS_SLAVE | MS_REC), NULL);
	if (syscall(SYS_umount2, point, INIT_MNT_DETACH | INIT_UMOUNT_NOFOLLOW) == 0)
		return;
	/* locked in a user namespace: cover it */
	if (syscall(SYS_mount, "tmpfs", point, "tmpfs", 0ul, NULL) < 0)
		fail(in, STEP_MOUNT, errno, point);
}

/*
 * Without pivot_root the host's mounts stay in the mount namespace below the new root. A whole proc or sysfs among them
 * would let the container mount fresh ones from a user namespace of its own, unmasked.
 */
static void hide_host_mounts(struct init *in)
{
	char line[INIT_PATH_MAX * 2], rootfs[INIT_PATH_MAX], name[40] = "self/fd/", digits[24];
	int fd = openat(in->proc_fd, "self/mountinfo", O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t n;

	strcat(name, number_text(digits, (uint64_t)in->root_fd));
	n = readlinkat(in->proc_fd, name, rootfs, sizeof(rootfs) - 1);
	if (fd < 0 || n <= 0)
		fail(in, STEP_READ, errno, "mountinfo");
	rootfs[n] = '\0';
	while ((n = read(fd, line + used, sizeof(line) - 1 - used)) > 0) {
		char *start = line, *end;

		used += (size_t)n;
		line[used] = '\0';
		while ((end = strchr(start, '\n')) != NULL) {
			char *point;

			*end = '\0';
			point = exposed_mount(start, rootfs);
			if (point != NULL)
				hide_mount(in, point);
			start = end + 1;
		}
		used -= (size_t)(start - line);
		memmove(line, start, used);
		if (used == sizeof(line) - 1)
			fail(in, STEP_READ, EOVERFLOW, "mountinfo");
	}
	close(fd);
}

static void enter_by_chroot(struct init *in)
{
	if (syscall(SYS_chroot, ".") < 0)
		fail(in, STEP_CHROOT, errno, in->rootfs_path);
}

static void move_root(struct init *in)
{
	hide_host_mounts(in);
	go_to_namespace_root(in);
	/* mountinfo has what is below the root of who reads it */
	if (in->chrooted)
		hide_host_mounts(in);
	enter_root(in);
	if (syscall(SYS_move_mount, in->root_fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		fail(in, STEP_MOVE_MOUNT, errno, "/");
	enter_by_chroot(in);
	go_to_namespace_root(in);
	if (!at_root(in))
		fail(in, STEP_ROOT_OUTSIDE, 0, in->rootfs_path);
}

void op_pivot(struct init *in, struct cursor *fields)
{
	uint32_t mode = take_u32(fields);

	if (in->rootfs_path == NULL || mode > PIVOT_CHROOT)
		fail(in, STEP_PLAN, 0, "PIVOT needs ROOTFS before it and a known mode");
	if (mode == PIVOT_ROOT) {
		pivot(in);
	} else if (mode == PIVOT_MOVE) {
		move_root(in);
	} else {
		enter_root(in);
		enter_by_chroot(in);
	}
	if (chdir("/") < 0)
		fail(in, STEP_CHDIR, errno, "/");
	close(in->root_fd);
	in->root_fd = -1;
	proc_prepare_wait(in);
}

void op_root_propagation(struct init *in, struct cursor *fields)
{
	if (mount_propagation(in, path_root(in), take_u32(fields), "/") < 0)
		fail_noted(in);
}

/* One tree can be attached once; the next is cloned from where the first now is. */
static void attach_shared(struct init *in, int *tree, bool *attached, int target, const char *path)
{
	int copy = *tree;

	if (*attached) {
		copy = tree_clone(*tree, "", AT_EMPTY_PATH);
		if (copy < 0)
			fail(in, STEP_OPEN_TREE, errno, path);
	}
	if (tree_attach(in, copy, target, path) < 0)
		fail_noted(in);
	if (*attached)
		close(copy);
	*attached = true;
}

static void mask_directory(struct init *in, int target, const char *path, const char *label)
{
	char size[] = "size=4096", inodes[] = "nr_inodes=2", mode[] = "mode=0755";
	char *items[4] = {size, inodes, mode, NULL};
	struct list params = {.items = items, .count = 3};
	bool attached = in->mask_fd >= 0;

	if (!attached) {
		if (label[0] != '\0') {
			items[3] = arena_take(in, sizeof("context=") + strlen(label));
			strcat(strcpy(items[3], "context="), label);
			params.count++;
		}
		in->mask_fd = filesystem(in, "tmpfs", "tmpfs", &params,
					 MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
		if (in->mask_fd < 0)
			fail_noted(in);
	}
	attach_shared(in, &in->mask_fd, &attached, target, path);
}

/* config-linux.md: "maskedPaths ... will mask over the provided paths inside the container so that they cannot be read" */
void op_masked_path(struct init *in, struct cursor *fields)
{
	const char *path = take_string(fields), *label = take_string(fields);
	int target = path_open(in, path, O_PATH, 0);
	struct stat st;

	if (target < 0 && (errno == ENOENT || errno == ENOTDIR))
		return;
	if (target < 0)
		fail(in, STEP_OPENAT2, errno, path);
	if (fstat(target, &st) < 0)
		fail(in, STEP_FSTAT, errno, path);
	if (S_ISDIR(st.st_mode)) {
		mask_directory(in, target, path, label);
	} else {
		if (in->null_fd < 0 && (in->null_fd = open_null(in)) < 0)
			fail(in, STEP_OPEN_TREE, errno, "/dev/null");
		attach_shared(in, &in->null_fd, &in->null_attached, target, path);
	}
	close(target);
}

static bool is_root_mount(struct init *in, int target, const char *path)
{
	struct fd_facts its, root;

	if (fd_facts(target, &its) < 0 || fd_facts(path_root(in), &root) < 0)
		fail(in, STEP_FSTAT, errno, path);
	return its.mount_root && same_place(&its, &root);
}

void op_readonly_path(struct init *in, struct cursor *fields)
{
	const char *path = take_string(fields);
	int target = path_open(in, path, O_PATH, 0), tree;

	if (target < 0 && (errno == ENOENT || errno == ENOTDIR))
		return;
	if (target < 0)
		fail(in, STEP_OPENAT2, errno, path);
	if (is_root_mount(in, target, path)) {
		/* a mount on it would be above the root of all processes */
		if (mount_attributes(in, target, MOUNT_ATTR_RDONLY, 0, false, path) < 0)
			fail_noted(in);
		close(target);
		return;
	}
	tree = tree_clone(target, "", AT_EMPTY_PATH | AT_RECURSIVE);
	if (tree < 0)
		fail(in, STEP_OPEN_TREE, errno, path);
	/* set, nothing cleared: nosuid, nodev and noexec of what was there stay */
	if (mount_attributes(in, tree, MOUNT_ATTR_RDONLY, 0, true, path) < 0 || tree_attach(in, tree, target, path) < 0)
		fail_noted(in);
	close(tree);
	close(target);
}

void op_mkdir(struct init *in, struct cursor *fields)
{
	const char *path = take_string(fields);
	int fd = path_make(in, path, PATH_DIRECTORY, take_u32(fields) & 07777, 0);

	if (fd < 0)
		fail_noted(in);
	close(fd);
}
