/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of init share. init is single-threaded, static, and allocates nothing after the plan is read: one
 * private mapping holds the plan, another the scratch arena for pointer arrays.
 *
 * Two ways to fail. An op that cannot go on calls fail(). A helper whose caller may still have a fallback calls note()
 * and returns -1; the caller goes on or calls fail_noted().
 */
#ifndef PYRUNC_INIT_H
#define PYRUNC_INIT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "plan.h"

/* Numbers that are the same on every architecture; the oldest headers and musl lack some. */
#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#define SYS_fspick 433
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4u
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif
#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
/* not in the kernel's exported headers, and sys/mount.h clashes with linux/mount.h */
#define INIT_MNT_DETACH 2
#define INIT_UMOUNT_NOFOLLOW 8

#define INIT_PATH_MAX 4096
#define INIT_NAME_MAX 256
/* system calls that say EINTR are made so often */
#define INTERRUPTED_MAX 64

enum init_exit { INIT_EXIT_FAILED = 1, INIT_EXIT_USAGE = 2 };

struct init {
	int sync_fd;   /* where answers come from: the sync socket, after a FORK with pipes one of them */
	int report_fd; /* where messages go: the same, or the other pipe; after START_WAIT the fifo */
	bool report_is_fifo;

	const uint8_t *plan;
	size_t plan_size;
	uint32_t op_count;
	uint32_t op_index; /* of the op that runs, PLAN_NO_PATH before the first */
	uint32_t op_path;
	bool skip_next;

	uint8_t *arena;
	size_t arena_size;
	size_t arena_used;

	int proc_fd;   /* the runtime's /proc, kept from the start */
	int procfs_fd; /* our own instance, -1 until needed; may be a copy of proc_fd */
	int wait_fd;   /* the one that START_WAIT goes through, -1 none */
	int pidns_fd;  /* whose processes a new procfs shows, -1 = those of our own pid namespace */
	int root_fd;   /* the container's root, -1 = open "/" when needed */
	const char *rootfs_path;
	bool chrooted; /* the runtime's root is not that of its mount namespace */
	int null_fd;   /* tree that masks files, -1 none yet */
	bool null_attached;
	int mask_fd; /* tree that masks directories, -1 none yet */

	uint32_t close_from; /* descriptors 3 .. close_from-1 are the program's */
	unsigned int old_umask;
	bool umask_set;
	bool waits;     /* the plan has a START_WAIT */
	bool leaves;    /* the plan has a FORK with pipes */
	bool in_userns; /* one for the container: since USERNS_ROOT */
	bool cwd_done;  /* by a CHDIR that was allowed to fail */
	const uint8_t *exec_record;
	const uint8_t *filter_record; /* the last SECCOMP, NULL without one */
	uint64_t *stamps;             /* when each op began, NULL when nobody wants to know */
	char *program;                /* found by LOOKUP, in the arena's fixed part */
	char *home;                   /* "HOME=...", in the arena's fixed part; empty until looked up */

	bool adding;       /* since ADD_BEGIN */
	uint64_t own_call; /* the sixth argument of calls behind the filter, see SECCOMP */

	struct last_words *words; /* NULL without a filter */

	uint32_t why_flags;      /* go into every failure noted: which hook runs */
	struct sync_message why; /* the failure noted last */
};

struct cursor {
	struct init *in;
	const uint8_t *at;
	const uint8_t *end;
};

struct blob {
	const uint8_t *data;
	uint32_t size;
};

struct numbers {
	uint32_t *values;
	uint32_t count;
};

struct list {
	char **items; /* `count` strings, a NULL, room for one more and its NULL */
	uint32_t count;
};

typedef void op_function(struct init *in, struct cursor *fields);

/* plan.c: the plan's bytes, every read checked */
void plan_load(struct init *in, int plan_fd);
void plan_close_others(struct init *in);
bool plan_next(struct init *in, const uint8_t **at, uint32_t *op, struct cursor *fields);
struct cursor plan_fields(struct init *in, const uint8_t *at);
void plan_drop_behind(struct init *in, const uint8_t *needed);
void plan_forget_behind(struct init *in, const uint8_t *needed);
uint32_t take_u32(struct cursor *c);
uint64_t take_u64(struct cursor *c);
int take_fd(struct cursor *c);
const char *take_string(struct cursor *c);
struct blob take_blob(struct cursor *c);
struct blob take_aligned(struct cursor *c);
struct list take_list(struct cursor *c);
struct numbers take_numbers(struct cursor *c);
void *arena_take(struct init *in, size_t size);

/* sync.c: messages to the parent */
int note(struct init *in, enum plan_step step, const char *text);
int note_fs(struct init *in, enum plan_step step, int fs_fd, const char *text);
_Noreturn void fail_noted(struct init *in);
_Noreturn void fail(struct init *in, enum plan_step step, int error, const char *text);
void warn(struct init *in, enum plan_step step, int error, int64_t value, const char *text);
void sync_send(struct init *in, enum sync_code code, int64_t value, int fd);
void sync_wait(struct init *in);
bool interrupted(unsigned int *times);
void keep_words(struct init *in);
_Noreturn void leave(int status);
const char *number_text(char buffer[24], uint64_t value);

/* path.c: paths inside the rootfs */
enum path_kind { PATH_DIRECTORY, PATH_FILE };
int path_root(struct init *in);
int path_open(struct init *in, const char *path, int flags, uint64_t resolve);
int path_make(struct init *in, const char *path, enum path_kind kind, uint32_t mode, uint64_t resolve);
int path_parent(struct init *in, const char *path, char name[INIT_NAME_MAX]);
void close_quietly(int fd);
int open_beneath(int dir, const char *path, int flags, uint64_t resolve);

/* op_mount.c */
int tree_clone(int dir, const char *path, unsigned int flags);
int tree_attach(struct init *in, int tree, int target, const char *name);
int mount_attributes(struct init *in, int fd, uint64_t set, uint64_t clear, bool recursive, const char *text);
int mount_propagation(struct init *in, int fd, uint32_t flags, const char *text);
int filesystem(struct init *in, const char *type, const char *source, const struct list *params, uint64_t attributes);
int fs_apply(struct init *in, int fs, const char *param);

/* copy_up.c */
int copy_up(struct init *in, int from, int to, const char *text);

/* op_change.c: what `mounts add` has done so far, so that it can be undone */
int added_mount(struct init *in, int tree, const char *name);
int added_target(struct init *in, int dir, const char *name);
void added_rdonly_later(struct init *in);
void added_undo(struct init *in);
int kept_tree(struct init *in, uint32_t number);

/* op_proc.c */
bool is_proc(int fd);
void proc_open_host(struct init *in);
void proc_forget(struct init *in);
void proc_prepare_wait(struct init *in);
void proc_drop(struct init *in);
void proc_leave(struct init *in);
void proc_settle_wait(struct init *in);
void proc_drop_hosts(struct init *in);
int proc_chmod(struct init *in, int fd, uint32_t mode);
int proc_enter_fds(struct init *in);

/* op_process.c */
long load_filter(struct blob filter, uint32_t flags);

/* op_pidns.c */
int pidns_context(struct init *in);
void pidns_check(struct init *in, int mount);

/* op_dev.c */
int device_clone(struct init *in, int dir, const char *path, unsigned int flags);
int make_symlink(struct init *in, const char *text, const char *path, bool same);

/* op_rootfs.c */
struct fd_facts {
	uint64_t mount;
	uint64_t inode;
	bool mount_root;
};
int fd_facts(int fd, struct fd_facts *facts);

/* op_*.c: a function for each op, see plan.h */
#define X(number, name, function, payload) op_function op_##function;
PLAN_OPS(X)
#undef X

#endif
