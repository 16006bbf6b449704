/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts. Every mount is built detached (fsopen, open_tree), gets its attributes, and only then appears, in one step, on
 * a target that is a file descriptor. No mount(2) on a path that someone could still change.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "shared/mounts.h"

/* mount(2) takes a page of all parameters together */
#define MOUNT_DATA_MAX 4095
#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif
#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

struct new_mount {
	const char *target;
	const char *type;
	const char *source;
	struct list params;
	uint64_t attributes;
	struct numbers propagation;
	uint32_t flags;
};

static bool too_long_for_fsconfig(const struct new_mount *m)
{
	if (strlen(m->source) > MOUNTS_TEXT_MAX)
		return true;
	for (uint32_t i = 0; i < m->params.count; i++) {
		const char *equals = strchr(m->params.items[i], '=');

		if (equals != NULL && strlen(equals + 1) > MOUNTS_TEXT_MAX)
			return true;
	}
	return false;
}

static unsigned long classic_flags(uint64_t attributes)
{
	static const struct {
		uint64_t attribute;
		unsigned long flag;
	} map[] = {
		{MOUNT_ATTR_RDONLY, MS_RDONLY},         {MOUNT_ATTR_NOSUID, MS_NOSUID},
		{MOUNT_ATTR_NODEV, MS_NODEV},           {MOUNT_ATTR_NOEXEC, MS_NOEXEC},
		{MOUNT_ATTR_NODIRATIME, MS_NODIRATIME}, {MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW},
		{MOUNT_ATTR_NOATIME, MS_NOATIME},       {MOUNT_ATTR_STRICTATIME, MS_STRICTATIME},
	};
	unsigned long flags = 0;

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if ((attributes & map[i].attribute) != 0)
			flags |= map[i].flag;
	return flags;
}

/* A label with a comma ("s0:c1,c2") is one value of mount(2) in quotes only. */
static bool wants_quotes(const char *param)
{
	const char *equals = strchr(param, '=');

	return equals != NULL && equals - param >= 7 && strncmp(equals - 7, "context", 7) == 0 &&
	       strchr(equals, ',') != NULL;
}

/* Append to mount(2)'s data, which the caller knows to have room for four bytes more than `param`. */
static size_t add_data(char *data, size_t used, const char *param)
{
	size_t key = wants_quotes(param) ? (size_t)(strchr(param, '=') - param) + 1 : 0;

	if (used > 0)
		data[used++] = ',';
	if (key > 0) {
		memcpy(data + used, param, key);
		used += key;
		data[used++] = '"';
	}
	memcpy(data + used, param + key, strlen(param + key));
	used += strlen(param + key);
	if (key > 0)
		data[used++] = '"';
	return used;
}

/* Whether the root of a mount is on `target`: its path may lead elsewhere by now. */
static bool lies_on(int fd, int target)
{
	int one = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int other = openat(target, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct fd_facts its, below, up, there;
	bool yes = one >= 0 && other >= 0 && fd_facts(fd, &its) == 0 && fd_facts(target, &below) == 0 &&
		   fd_facts(one, &up) == 0 && fd_facts(other, &there) == 0;

	close(one);
	close(other);
	return yes && its.mount_root && its.mount != below.mount && up.mount == there.mount && up.inode == there.inode;
}

/*
 * The mount on `target`, by the name that this has in its directory: what leads there may have been exchanged, and undoing
 * must not reach another mount. -1 with errno.
 */
static int open_on(struct init *in, int target, const char *path)
{
	char link[40] = "self/fd/", digits[24], text[INIT_PATH_MAX];
	ssize_t size =
		readlinkat(in->proc_fd, strcat(link, number_text(digits, (uint64_t)target)), text, sizeof(text) - 1);
	const char *name;
	int up, fd;

	if (size < 0)
		return -1;
	text[size] = '\0';
	name = strrchr(text, '/');
	if (name == NULL || name[1] == '\0')
		return path_open(in, path, O_PATH | O_DIRECTORY, 0);
	up = openat(target, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (up < 0)
		return -1;
	fd = openat(up, name + 1, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	close_quietly(up);
	return fd;
}

/*
 * Long parameters (an overlay's lowerdir) fit mount(2) only. "." after fchdir is as good as a descriptor: no name is
 * looked up. Returns the new mount's root, which is what the target now resolves to.
 */
static int mount_classic(struct init *in, const struct new_mount *m, int target)
{
	char data[MOUNT_DATA_MAX + 1];
	size_t used = 0;
	int back, fd = -1;

	for (uint32_t i = 0; i < m->params.count; i++) {
		if (used + strlen(m->params.items[i]) + 4 > sizeof(data)) {
			errno = E2BIG;
			return note(in, STEP_MOUNT, m->target);
		}
		used = add_data(data, used, m->params.items[i]);
	}
	data[used] = '\0';
	back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (back < 0 || fchdir(target) < 0)
		return note(in, STEP_CHDIR, m->target);
	if (syscall(SYS_mount, m->source, ".", m->type, classic_flags(m->attributes), data) < 0)
		note(in, STEP_MOUNT, m->target);
	else if ((fd = open_on(in, target, m->target)) < 0)
		note(in, STEP_OPENAT2, m->target);
	else if (!lies_on(fd, target)) {
		errno = ESTALE;
		note(in, STEP_OPENAT2, m->target);
		close_quietly(fd);
		fd = -1;
	} else if (in->undo != NULL && added_mount(in, fd, m->target) < 0)
		fd = -1;
	if (fchdir(back) < 0)
		fail(in, STEP_CHDIR, errno, ".");
	close_quietly(back);
	return fd;
}

/* Errors for which there is a fallback op: the kernel does not allow it or does not have it. */
static bool tolerable(int error)
{
	return error == EPERM || error == EINVAL || error == EBUSY || error == ENODEV;
}

static void settle(struct init *in, bool done, uint32_t flags)
{
	if (!done && ((flags & MOUNT_FLAG_OPTIONAL) == 0 || !tolerable(in->why.error)))
		fail_noted(in);
	in->skip_next = done && (flags & MOUNT_FLAG_DONE_SKIP) != 0;
}

static int nofollow_target(struct init *in, const char *path, enum path_kind kind)
{
	char name[INIT_NAME_MAX];
	int dir = path_parent(in, path, name), fd;

	if (dir < 0)
		return -1;
	fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		if ((kind == PATH_DIRECTORY ? mkdirat(dir, name, 0755) == 0
					    : mknodat(dir, name, S_IFREG | 0644, 0) == 0) &&
		    added_target(in, dir, name) == 0)
			fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	}
	close_quietly(dir);
	return fd < 0 ? note(in, STEP_OPENAT, path) : fd;
}

/*
 * CVE-2019-16884: config/rules/ goes by the target's name, but a link of the image may lead any name into /proc. What
 * the kernel says there must be what programs read.
 */
static void refuse_in_proc(struct init *in, int target, const char *path)
{
	struct stat here, there;
	int proc;

	if (!is_proc(target))
		return;
	proc = path_open(in, "/proc", O_PATH, 0);
	if (proc < 0)
		return;
	if (fstat(target, &here) < 0 || fstat(proc, &there) < 0)
		fail(in, STEP_FSTAT, errno, path);
	close(proc);
	if (here.st_dev == there.st_dev)
		fail(in, STEP_INSIDE_PROC, 0, path);
}

static int target_open(struct init *in, const char *path, enum path_kind kind, uint32_t flags)
{
	uint64_t resolve = (flags & MOUNT_FLAG_ORDINARY_DIR) != 0 ? RESOLVE_NO_SYMLINKS : 0;
	int fd;

	if ((flags & MOUNT_FLAG_TARGET_NOFOLLOW) != 0)
		fd = nofollow_target(in, path, kind);
	else
		fd = path_make(in, path, kind, kind == PATH_DIRECTORY ? 0755 : 0644, resolve);
	/* CVE-2019-19921, CVE-2023-27561: a symlink would put proc elsewhere and leave a fake /proc in place */
	if (fd < 0 && resolve != 0 && (in->why.error == ELOOP || in->why.error == ENOTDIR))
		fail(in, STEP_NOT_ORDINARY_DIR, in->why.error, path);
	if (fd < 0)
		fail_noted(in);
	if ((flags & MOUNT_FLAG_IN_PROC) == 0)
		refuse_in_proc(in, fd, path);
	return fd;
}

/* mqueue takes no context= parameter: label its root afterwards */
static int label_root(struct init *in, int mount, const char *param, const char *target)
{
	const char *label = strchr(param, '=') == NULL ? param : strchr(param, '=') + 1;
	int fd = openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return note(in, STEP_OPENAT, target);
	if (fsetxattr(fd, "security.selinux", label, strlen(label), 0) < 0) {
		note(in, STEP_FSETXATTR, target);
		close_quietly(fd);
		return -1;
	}
	return close(fd);
}

/* it must be writable to be filled or labelled */
static bool changes(const struct new_mount *m)
{
	return (m->flags & (MOUNT_FLAG_COPY_UP | MOUNT_FLAG_MQUEUE_LABEL)) != 0;
}

static int fill_and_attach(struct init *in, const struct new_mount *m, int mount, int target, const char *label)
{
	if ((m->flags & MOUNT_FLAG_COPY_UP) != 0 && copy_up(in, target, mount, m->flags, m->target) < 0)
		return -1;
	if (label != NULL && label_root(in, mount, label, m->target) < 0)
		return -1;
	if (changes(m) && mount_attributes(in, mount, m->attributes & MOUNT_ATTR_RDONLY, 0, false, m->target) < 0)
		return -1;
	return tree_attach(in, mount, target, m->target);
}

static void drop_param(struct list *params, const char *param)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < params->count; i++)
		if (strcmp(params->items[i], param) != 0)
			params->items[kept++] = params->items[i];
	params->count = kept;
}

static int mount_new(struct init *in, struct new_mount *m, int target)
{
	uint64_t attributes = m->attributes;
	const char *label = NULL;
	int mount;

	if (too_long_for_fsconfig(m)) {
		mount = mount_classic(in, m, target);
	} else {
		if (changes(m)) {
			attributes &= ~(uint64_t)MOUNT_ATTR_RDONLY;
			drop_param(&m->params, "ro");
		}
		if ((m->flags & MOUNT_FLAG_MQUEUE_LABEL) != 0 && m->params.count > 0)
			label = m->params.items[--m->params.count];
		mount = strcmp(m->type, "proc") == 0 ? proc_filesystem(in, m->source, &m->params, attributes)
						     : filesystem(in, m->type, m->source, &m->params, attributes);
		if (mount >= 0 && fill_and_attach(in, m, mount, target, label) < 0) {
			close_quietly(mount);
			return -1;
		}
	}
	if (mount < 0)
		return -1;
	if (mount_propagate(in, mount, &m->propagation, m->target) < 0)
		fail_noted(in); /* it is mounted: too late for a fallback */
	close(mount);
	return 0;
}

/* Of the directory that a tmpfs is going to cover: only one that is there already counts. -1 for none. */
static int covered_mode(struct init *in, const char *target, uint32_t flags)
{
	struct stat st;
	int fd = -1, mode = -1;

	if ((flags & MOUNT_FLAG_TARGET_MODE) != 0)
		fd = path_open(in, target, O_PATH | O_DIRECTORY, 0);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == 0)
		mode = (int)(st.st_mode & 07777);
	close(fd);
	return mode;
}

static void keep_mode(struct init *in, struct new_mount *m)
{
	char *text = arena_take(in, sizeof("mode=07777"));
	int mode = covered_mode(in, m->target, m->flags);

	if (mode < 0)
		return;
	strcpy(text, "mode=");
	for (int i = 0; i < 4; i++)
		text[5 + i] = (char)('0' + ((mode >> (9 - 3 * i)) & 7));
	text[9] = '\0';
	m->params.items[m->params.count++] = text;
}

void op_mount_new(struct init *in, struct cursor *fields)
{
	struct new_mount m = {
		.target = take_string(fields), .type = take_string(fields), .source = take_string(fields)};
	int target;

	m.params = take_list(fields);
	m.attributes = take_u64(fields);
	m.propagation = take_numbers(fields);
	m.flags = take_u32(fields);
	keep_mode(in, &m);
	target = target_open(in, m.target, PATH_DIRECTORY, m.flags);
	settle(in, mount_new(in, &m, target) == 0, m.flags);
	if ((m.flags & MOUNT_FLAG_RDONLY_LATER) != 0)
		added_rdonly_later(in);
	close(target);
}

struct bind_mount {
	const char *target;
	const char *source;
	int tree;
	uint64_t set, clear, rset, rclear;
	struct numbers propagation;
	uint32_t flags;
};

static int bind_open(struct init *in, const struct bind_mount *m)
{
	unsigned int flags = 0;
	int tree;

	if (m->tree >= 0)
		return m->tree;
	if ((m->flags & MOUNT_FLAG_KEPT_TREE) != 0)
		return kept_tree(in, m->flags >> MOUNT_FLAG_KEPT_SHIFT);
	if ((m->flags & MOUNT_FLAG_RECURSIVE) != 0)
		flags |= AT_RECURSIVE;
	if ((m->flags & (MOUNT_FLAG_SOURCE_NOFOLLOW | MOUNT_FLAG_COPY_SYMLINK)) != 0)
		flags |= AT_SYMLINK_NOFOLLOW;
	tree = tree_clone(AT_FDCWD, m->source, flags);
	return tree < 0 ? note(in, STEP_OPEN_TREE, m->source) : tree;
}

static int copy_symlink(struct init *in, const struct bind_mount *m, int link)
{
	char text[INIT_PATH_MAX];
	ssize_t size = readlinkat(link, "", text, sizeof(text) - 1);

	if (size < 0)
		return note(in, STEP_READLINKAT, m->source);
	text[size] = '\0';
	return make_symlink(in, text, m->target, true);
}

/* What is done to the detached tree, and the attachment. `mode` is a new tmpfs's, -1 for none. */
static int bind_attach(struct init *in, const struct bind_mount *m, int tree, int target, int mode)
{
	if (mode >= 0 && proc_chmod(in, tree, (uint32_t)mode) < 0)
		return note(in, STEP_FCHMODAT, m->target);
	if ((m->flags & MOUNT_FLAG_COPY_UP) != 0 && copy_up(in, target, tree, m->flags, m->target) < 0)
		return -1;
	if (mount_attributes(in, tree, m->set, m->clear, false, m->target) < 0 ||
	    mount_attributes(in, tree, m->rset, m->rclear, true, m->target) < 0)
		return -1;
	return tree_attach(in, tree, target, m->target);
}

void op_mount_bind(struct init *in, struct cursor *fields)
{
	struct bind_mount m = {.target = take_string(fields), .source = take_string(fields), .tree = take_fd(fields)};
	struct stat st;
	int tree, target, mode;
	bool done;

	m.set = take_u64(fields);
	m.clear = take_u64(fields);
	m.rset = take_u64(fields);
	m.rclear = take_u64(fields);
	m.propagation = take_numbers(fields);
	m.flags = take_u32(fields);
	tree = bind_open(in, &m);
	if (tree < 0) {
		settle(in, false, m.flags);
		return;
	}
	if (fstat(tree, &st) < 0)
		fail(in, STEP_FSTAT, errno, m.source);
	if ((m.flags & MOUNT_FLAG_PROCFS) != 0 && !is_proc(tree))
		fail(in, STEP_WRONG_FS, 0, m.target);
	if (S_ISLNK(st.st_mode) && (m.flags & MOUNT_FLAG_COPY_SYMLINK) != 0) {
		settle(in, copy_symlink(in, &m, tree) == 0, m.flags);
		close(tree);
		return;
	}
	mode = covered_mode(in, m.target, m.flags);
	target = target_open(in, m.target, S_ISDIR(st.st_mode) ? PATH_DIRECTORY : PATH_FILE, m.flags);
	done = bind_attach(in, &m, tree, target, mode) == 0;
	settle(in, done, m.flags);
	if ((m.flags & MOUNT_FLAG_RDONLY_LATER) != 0)
		added_rdonly_later(in);
	if (done && mount_propagate(in, tree, &m.propagation, m.target) < 0)
		fail_noted(in);
	close(target);
	close(tree);
}

void op_remount(struct init *in, struct cursor *fields)
{
	const char *path = take_string(fields);
	uint64_t set = take_u64(fields), clear = take_u64(fields);
	bool recursive = take_u32(fields) != 0;
	struct list params = take_list(fields);
	struct numbers propagation = take_numbers(fields);
	int target = path_open(in, path, O_PATH, 0);

	if (target < 0)
		fail(in, STEP_OPENAT2, errno, path);
	if ((params.count > 0 && filesystem_reconfigure(in, target, &params, path) < 0) ||
	    mount_attributes(in, target, set, clear, recursive, path) < 0 ||
	    mount_propagate(in, target, &propagation, path) < 0)
		fail_noted(in);
	close(target);
}
