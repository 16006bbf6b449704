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
#include <sys/types.h>

#include "plan.h"
#include "shared/system_calls.h"

/* not in the kernel's exported headers, and sys/mount.h clashes with linux/mount.h */
#define INIT_MNT_DETACH 2
#define INIT_UMOUNT_NOFOLLOW 8

#define INIT_PATH_MAX 4096
#define INIT_NAME_MAX 256
/* how often a system call that fails with EINTR is made again */
#define INTERRUPTED_MAX 64

enum init_exit { INIT_EXIT_FAILED = 1, INIT_EXIT_USAGE = 2 };

struct init {
	int sync_fd;   /* where answers come from: the sync socket, after a FORK with pipes one of them */
	int report_fd; /* where messages go: the same, or the other pipe; after START_WAIT the fifo */
	bool report_is_fifo;
	uint32_t start_op; /* the first after START_WAIT, once that is over; the reader of the fifo knows no others */

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
	uint64_t *stamps;             /* when each op began, NULL unless it is measured */
	char *program;                /* found by LOOKUP, in the arena's fixed part */
	char *home;                   /* "HOME=...", in the arena's fixed part; empty until looked up */

	void (*undo)(struct init *in); /* since ADD_BEGIN: undoes what has been added; NULL otherwise */
	uint64_t own_call;             /* the sixth argument of calls behind the filter, see SECCOMP */

	struct last_words *words; /* NULL without a filter */

	uint32_t why_flags;      /* go into every failure noted: which hook runs */
	struct sync_message why; /* the last failure noted */
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
/* sendmsg(2) with one descriptor (SCM_RIGHTS). unix(7) */
ssize_t send_with_fd(int socket_fd, const void *message, size_t size, int fd);
void sync_send(struct init *in, enum sync_code code, int64_t value, int fd);
void sync_wait(struct init *in);
bool interrupted(unsigned int *times);
void keep_words(struct init *in);
void keep_place(struct init *in, enum words_said said);
_Noreturn void leave(int status);
const char *number_text(char buffer[24], uint64_t value);

/* journal.c: what `mounts add` has done so far, so that it can be undone; trees that wait for their mount */
#define ADDED_MAX 256
extern struct added {
	uint32_t mount_count, target_count;
	struct {
		int tree;
		bool rdonly_later;
	} mounts[ADDED_MAX];
	struct {
		int dir;
		char name[INIT_NAME_MAX];
	} targets[ADDED_MAX];
} added; /* not in the arena: its pages are only made when a plan begins to add */
int added_mount(struct init *in, int tree, const char *name);
int added_target(struct init *in, int dir, const char *name);
void added_rdonly_later(struct init *in);
void keep_tree(struct init *in, int tree);
int kept_tree(struct init *in, uint32_t number);

/* path.c: paths inside the rootfs, and what a descriptor is */
enum path_kind { PATH_DIRECTORY, PATH_FILE };
struct fd_facts {
	uint64_t mount;
	uint64_t inode;
	bool mount_root;
};
int path_root(struct init *in);
int path_open(struct init *in, const char *path, int flags, uint64_t resolve);
int path_make(struct init *in, const char *path, enum path_kind kind, uint32_t mode, uint64_t resolve);
int path_parent(struct init *in, const char *path, char name[INIT_NAME_MAX]);
int make_symlink(struct init *in, const char *text, const char *path, bool same);
void close_quietly(int fd);
int open_beneath(int dir, const char *path, int flags, uint64_t resolve);
int fd_facts(int fd, struct fd_facts *facts);
bool is_proc(int fd);

/* mount_api.c */
int tree_clone(int dir, const char *path, unsigned int flags);
int tree_attach(struct init *in, int tree, int target, const char *name);
int device_clone(struct init *in, int dir, const char *path, unsigned int flags);
int mount_attributes(struct init *in, int fd, uint64_t set, uint64_t clear, bool recursive, const char *text);
int mount_propagation(struct init *in, int fd, uint32_t flags, const char *text);
int mount_propagate(struct init *in, int fd, const struct numbers *steps, const char *text);
int filesystem(struct init *in, const char *type, const char *source, const struct list *params, uint64_t attributes);
int filesystem_of(struct init *in, int fs, const char *type, const char *source, const struct list *params,
		  uint64_t attributes);
int filesystem_reconfigure(struct init *in, int target, const struct list *params, const char *name);

/* copy_up.c */
int copy_up(struct init *in, int from, int to, uint32_t flags, const char *text);

/* proc_pidns.c */
int proc_filesystem(struct init *in, const char *source, const struct list *params, uint64_t attributes);

/* proc.c */
void proc_open_host(struct init *in);
int proc_own(struct init *in);
void proc_forget(struct init *in);
void proc_prepare_wait(struct init *in);
void proc_drop(struct init *in);
void proc_leave(struct init *in);
void proc_settle_wait(struct init *in);
void proc_drop_hosts(struct init *in);
int proc_chmod(struct init *in, int fd, uint32_t mode);
int proc_enter_fds(struct init *in);

/* filter.c */
long filter_load(struct blob filter, uint32_t flags);

/* op_*.c: a function for each op of plan.h, and nothing else that others call */
#define X(number, name, function, payload) op_function op_##function;
PLAN_OPS(X)
#undef X

#endif
