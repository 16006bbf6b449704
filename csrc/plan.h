/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract between Python and C: what a plan looks like, the operations of init, and its messages.
 * Python has its numbers from here: tools/plan_numbers.py writes pyrunc/plan/numbers.py when pyrunc is built.
 *
 * A plan is one read-only mapping: a struct plan_header followed by op_count records. All numbers are in the byte
 * order of the machine, nothing is aligned beyond 8 bytes at the start of a record, and init reads every field through
 * a bounds-checked cursor because it treats its plan as hostile.
 *
 * Payload letters used by PLAN_OPS, in the order in which the fields stand in the record:
 *   u  uint32            q  uint64 (signed values in two's complement)
 *   f  int32, a file descriptor of init, -1 for none
 *   s  uint32 length, that many bytes without NUL among them, one NUL
 *   b  uint32 length, that many bytes
 *   l  uint32 count, that many s
 *   v  uint32 count, that many uint32
 */
#ifndef PYRUNC_PLAN_H
#define PYRUNC_PLAN_H

#include <stdint.h>

#define PLAN_MAGIC 0x43525950u /* "PYRC" */
#define PLAN_FORMAT 1
#define PLAN_MAX_SIZE (16u << 20)
#define PLAN_NO_PATH 0xffffffffu

struct plan_header {
	uint32_t magic;
	uint16_t format;
	uint16_t header_size;
	uint32_t total_size;
	uint32_t op_count;
	char package_version[32]; /* NUL padded; init refuses a plan of another version */
};

struct plan_record {
	uint16_t op;
	uint16_t reserved;
	uint32_t size; /* of the whole record, a multiple of 8 */
	uint32_t path; /* index of the JSON path this op comes from; only the parent knows the texts */
};

/*
 * number, name, function, payload; above it the meaning of the fields. The function is op_<function>() of init.
 */
/* clang-format off */
#define PLAN_OPS(X) \
	/* resource type, soft, hard. Twice in a plan: early to raise a hard limit (needs the runtime's user \
	 * namespace), late to set the exact values. */ \
	X(1, RLIMIT, rlimit, "uqq") \
	/* file name below /proc/self, data: oom_score_adj, timens_offsets, attr/... */ \
	X(2, PROC_SELF, proc_self, "ss") \
	/* namespace fd, CLONE_NEW* type */ \
	X(3, SETNS, setns, "fu") \
	/* CLONE_NEW* flags */ \
	X(4, UNSHARE, unshare, "u") \
	/* go on in a child that is the runtime's child too (CLONE_PARENT); the old process sends SYNC_FORKED. Pipes for \
	 * messages and for answers, when the child can be seen by others: it then has no socket and nothing of the host \
	 * any more; -1, -1: the socket stays */ \
	X(5, FORK, fork, "ff") \
	/* send this sync code, wait for the answer */ \
	X(6, SYNC, sync, "u") \
	/* become uid, gid inside the new user namespace; clear supplementary groups when the third is 1 */ \
	X(7, USERNS_ROOT, userns_root, "uuu") \
	/* PR_SET_DUMPABLE value */ \
	X(8, DUMPABLE, dumpable, "u") \
	/* session keyring name; failure with ENOSYS/EACCES/EDQUOT is not one */ \
	X(9, KEYRING, keyring, "s") \
	/* bring up lo in the network namespace */ \
	X(10, LOOPBACK_UP, loopback_up, "") \
	/* path of the root file system, MS_* propagation of "/", 1 = stay in the runtime's mount namespace */ \
	X(11, ROOTFS, rootfs, "suu") \
	/* target, fs type, source, "key=value" / "key" parameters, MOUNT_ATTR_* to set, MS_* propagation steps, \
	 * MOUNT_FLAG_* */ \
	X(12, MOUNT_NEW, mount_new, "ssslqvu") \
	/* target, source path ("" when fd given), tree fd, attributes to set / to clear on the top mount, to set / \
	 * to clear recursively, MS_* propagation steps, MOUNT_FLAG_* */ \
	X(13, MOUNT_BIND, mount_bind, "ssfqqqqvu") \
	/* target, attributes to set / clear, 1 = recursively, superblock parameters for fspick (may be empty), \
	 * MS_* propagation steps */ \
	X(14, REMOUNT, remount, "sqqulv") \
	/* path, directory mode */ \
	X(15, MKDIR, mkdir, "su") \
	/* text of the link, its path; 1 = only where the text resolves from the runtime's /proc (dev/fd ...) */ \
	X(16, SYMLINK, symlink, "ssu") \
	/* path, S_IFCHR/S_IFBLK/S_IFIFO | mode, major, minor, uid, gid, DEVICE_FLAG_* */ \
	X(17, DEVICE, device, "suuuuuu") \
	/* hook path, argv, env, bytes for stdin, timeout in ms (0 none), index among its kind, hook kind */ \
	X(18, HOOK, hook, "sllbquu") \
	/* PIVOT_* */ \
	X(19, PIVOT, pivot, "u") \
	/* MS_* propagation of the container's "/" */ \
	X(20, ROOT_PROPAGATION, root_propagation, "u") \
	/* rows, columns (0, 0 = leave), 1 = bind on /dev/console, uid, gid of the slave; CTTY makes a session of it */ \
	X(21, CONSOLE, console, "uuuuu") \
	X(22, HOSTNAME, hostname, "s") \
	X(23, DOMAINNAME, domainname, "s") \
	/* path below /proc/sys ("net/ipv4/ip_forward"), value */ \
	X(24, SYSCTL, sysctl, "ss") \
	X(25, READONLY_PATH, readonly_path, "s") \
	/* path, SELinux mount label for the tmpfs over a directory ("" none) */ \
	X(26, MASKED_PATH, masked_path, "ss") \
	X(27, PERSONALITY, personality, "u") \
	/* struct sched_attr */ \
	X(28, SCHEDULER, scheduler, "b") \
	/* ioprio value */ \
	X(29, IOPRIO, ioprio, "u") \
	/* mode with flags, node mask */ \
	X(30, MEMPOLICY, mempolicy, "ub") \
	/* cpu mask, empty for every CPU; only then is failure not one */ \
	X(31, AFFINITY, affinity, "b") \
	X(32, UMASK, umask, "u") \
	X(33, SETSID, setsid, "") \
	X(34, NO_NEW_PRIVS, no_new_privs, "") \
	/* struct sock_filter[], seccomp(2) flags, 1 = send the listener with SYNC_SECCOMP, the sixth argument by which \
	 * the filter knows the calls of init behind it (shim/seccomp_own.c) */ \
	X(35, SECCOMP, seccomp, "buuq") \
	/* capabilities to keep in the bounding set */ \
	X(36, CAPS_BOUNDING, caps_bounding, "q") \
	/* uid, gid, supplementary groups, 1 = call setgroups */ \
	X(37, USER, user, "uuvu") \
	/* directory, CHDIR_* */ \
	X(38, CHDIR, chdir, "su") \
	/* effective, permitted, inheritable, ambient */ \
	X(39, CAPSET, capset, "qqqq") \
	/* argv[0], value of PATH: find the program now, so that "not found" is an error of create */ \
	X(40, LOOKUP, lookup, "ss") \
	/* first file descriptor to close on exec; all below it are given to the program */ \
	X(41, CLOSE_FROM, close_from, "u") \
	/* fifo: send SYNC_READY's farewell, then block until start opens the other end */ \
	X(42, START_WAIT, start_wait, "f") \
	/* argv, env, uid whose home is looked up in /etc/passwd when env has no HOME (PLAN_NO_PATH = do not) */ \
	X(43, EXEC, exec, "llu") \
	/* uid: fchown pipes, sockets and writable files of stdio; the host's /dev/null gives way to ours */ \
	X(44, STDIO_OWNER, stdio_owner, "u") \
	/* the end of a plan that changes a container (mounts add, mounts remove) and of tests: exit 0 */ \
	X(45, DONE, done, "") \
	/* from here on what is attached is unmounted again, and targets made for it removed, when anything fails or the \
	 * runtime goes away */ \
	X(46, ADD_BEGIN, add_begin, "") \
	/* make those read-only that have MOUNT_FLAG_RDONLY_LATER */ \
	X(47, ADD_END, add_end, "") \
	/* source path, MOUNT_FLAG_*: clone it for a MOUNT_BIND with MOUNT_FLAG_KEPT_TREE; they are counted from 0 */ \
	X(48, TREE, tree, "su") \
	/* mount point, paths whose mounts must stay, 1 = only see whether it could be */ \
	X(49, UMOUNT, umount, "slu") \
	/* pid namespace that a new procfs shows from here on, though this process is in another */ \
	X(50, PIDNS, pidns, "f") \
	/* a session of its own, with the terminal that CONSOLE has made stdio */ \
	X(51, CTTY, ctty, "") \
	/* memory of a struct last_words, shared with the runtime: for what a seccomp filter may keep init from sending */ \
	X(52, LAST_WORDS, last_words, "f")
/* clang-format on */

enum plan_op {
#define X(number, name, function, payload) PLAN_OP_##name = number,
	PLAN_OPS(X)
#undef X
};

/* MOUNT_FLAG_*: how the target is treated and what happens after the mount. */
#define MOUNT_FLAG_ORDINARY_DIR 1u /* proc, sysfs: no component may be a symlink, the target must be a directory */
#define MOUNT_FLAG_COPY_UP 2u      /* tmpcopyup: fill the new tmpfs from the directory it covers */
#define MOUNT_FLAG_RECURSIVE 4u    /* rbind */
#define MOUNT_FLAG_OPTIONAL 16u    /* EPERM/EINVAL of the kernel is not an error: the next op is the fallback */
#define MOUNT_FLAG_DONE_SKIP 32u   /* when this mount succeeds, skip the next op (its fallback) */
#define MOUNT_FLAG_SOURCE_NOFOLLOW 64u
#define MOUNT_FLAG_TARGET_NOFOLLOW 128u
#define MOUNT_FLAG_MQUEUE_LABEL 256u
#define MOUNT_FLAG_TARGET_MODE 512u   /* a new tmpfs takes the mode of the directory it covers (no mode= was given) */
#define MOUNT_FLAG_COPY_SYMLINK 1024u /* when the source is a symlink, make one with its text and mount nothing */
#define MOUNT_FLAG_KEPT_TREE 2048u    /* the source was cloned by the TREE whose number is flags >> 16 */
#define MOUNT_FLAG_KEPT_SHIFT 16
#define MOUNT_FLAG_RDONLY_LATER 4096u /* read-only from ADD_END on: mount points are made in it until then */
#define MOUNT_FLAG_IN_PROC 8192u      /* the target may be in /proc */
#define MOUNT_FLAG_PROCFS 16384u      /* the source stands for /proc: it must be a procfs */
#define MOUNT_FLAG_OWN_UID 32768u     /* with COPY_UP: uid= was given, the owner of what is covered is not taken */
#define MOUNT_FLAG_OWN_GID 8u         /* the same for gid= */

#define DEVICE_FLAG_BIND 1u    /* bind from the runtime's /dev instead of mknod (user namespace) */
#define DEVICE_FLAG_DEFAULT 2u /* one of the spec's default devices: an existing matching file is fine */

#define CHDIR_TRY 2u      /* EACCES is left to the next CHDIR, which only verifies if this one succeeded */
#define CHDIR_FILTERED 4u /* after a seccomp filter was loaded, which may forbid getcwd(2), or kill for it */

enum pivot_mode { PIVOT_ROOT = 0, PIVOT_MOVE = 1, PIVOT_CHROOT = 2 };

enum hook_kind {
	HOOK_PRESTART = 0,
	HOOK_CREATE_RUNTIME = 1,
	HOOK_CREATE_CONTAINER = 2,
	HOOK_START_CONTAINER = 3,
	HOOK_POSTSTART = 4,
	HOOK_POSTSTOP = 5,
};

/*
 * The sync protocol: one SEQPACKET socket, fixed messages of struct sync_message from init, one uint32 (SYNC_GO) back
 * for every code that waits. The wait column says which do.
 */
/* clang-format off */
#define SYNC_CODES(X)                                                                                                  \
	X(1, ERROR)      /* no wait: {op, step, error, text}; init exits with 1 */                                          \
	X(2, FORKED)     /* value = pid of the process that goes on, which waits */                                         \
	X(3, MAPS)       /* waits: user namespace made, write uid_map/gid_map */                                            \
	X(4, CGROUP)     /* waits: must be in its cgroup before it goes on */                                               \
	X(5, ENV)        /* waits: environment ready: net devices, limits, prestart and createRuntime hooks */              \
	X(6, CONSOLE)    /* waits: SCM_RIGHTS carries the pty master */                                                     \
	X(7, SECCOMP)    /* waits: SCM_RIGHTS carries the notify listener */                                                \
	X(8, READY)      /* waits: everything is done, the program has not been executed */                                                       \
	X(9, WARNING)    /* no wait: {op, step, error, text} of a problem that did not stop it */
/* clang-format on */

enum sync_code {
#define X(number, name) SYNC_##name = number,
	SYNC_CODES(X)
#undef X
};

/* /proc/PID/comm of init up to its execve */
#define INIT_NAME "pyrunc:[init]"

#define SYNC_GO 0x6f67u

struct sync_message {
	uint32_t code;  /* SYNC_* */
	uint32_t op;    /* index of the record in the plan, in the fifo of START_WAIT counted from the one behind it;
			 * 0xffffffff before the plan is read */
	uint32_t path;  /* that record's path index */
	uint32_t step;  /* STEP_*: which call failed */
	int32_t error;  /* errno, 0 if text says it all */
	uint32_t flags; /* SYNC_FLAG_* */
	int64_t value;  /* of a hook its wait status, or -1: timed out */
	char text[480]; /* NUL terminated: the argument, the kernel's own words (fscontext log), a hook's output */
};

/* How far init has come, in the memory of LAST_WORDS. */
enum words_said {
	WORDS_NONE = 0,
	WORDS_MESSAGE = 1, /* it has failed */
	WORDS_EXECVE = 2,  /* the next call is the program's execve */
	WORDS_LEFT = 3,    /* a process without that memory continues */
};

/* In the memory of LAST_WORDS. A process of the container may write there, too, so the runtime does not trust it. */
struct last_words {
	uint32_t op;   /* that is being done */
	uint32_t said; /* enum words_said */
	struct sync_message message;
};

#define SYNC_FLAG_KERNEL_TEXT 1u /* text is the kernel's explanation, not an argument */
#define SYNC_FLAG_HOOK_SHIFT 16  /* of a hook op: flags >> 16 is its index among its kind */

/* Which call failed. The name is what the user reads: STEP_MOVE_MOUNT -> "move_mount". */
/* clang-format off */
#define PLAN_STEPS(X)                                                                                                  \
	X(0, NONE) X(1, PLAN) X(2, OPENAT2) X(3, OPEN_TREE) X(4, MOVE_MOUNT) X(5, FSOPEN) X(6, FSCONFIG)               \
	X(7, FSMOUNT) X(8, MOUNT_SETATTR) X(9, MOUNT) X(10, UMOUNT2) X(11, PIVOT_ROOT) X(12, CHROOT)                   \
	X(13, CHDIR) X(14, MKDIRAT) X(15, MKNODAT) X(16, SYMLINKAT) X(17, FCHOWNAT) X(18, FCHMODAT)                    \
	X(19, OPENAT) X(20, READ) X(21, WRITE) X(22, SETNS) X(23, UNSHARE) X(24, CLONE) X(25, SETHOSTNAME)             \
	X(26, SETDOMAINNAME) X(27, SETRLIMIT) X(28, PRCTL) X(29, CAPSET) X(30, SETGROUPS) X(31, SETGID)                \
	X(32, SETUID) X(33, SECCOMP) X(34, EXECVE) X(35, GETCWD) X(36, FSTAT) X(37, IOCTL) X(38, SETSID)               \
	X(39, DUP3) X(40, RECVMSG) X(41, PERSONALITY) X(42, SCHED_SETATTR) X(43, IOPRIO_SET)                           \
	X(44, SET_MEMPOLICY) X(45, SCHED_SETAFFINITY) X(46, KEYCTL) X(47, SOCKET) X(48, CLOSE_RANGE)                   \
	X(49, HOOK) X(50, HOOK_TIMEOUT) X(51, LOOKUP) X(52, CWD_OUTSIDE) X(53, NOT_ORDINARY_DIR)                       \
	X(54, WRONG_FS) X(55, DEVICE_MISMATCH) X(56, FSPICK) X(57, FCHOWN) X(58, READLINK) X(59, COPY_UP)              \
	X(60, SETGROUPS_DENIED) X(61, MEMORY) X(62, FSETXATTR) X(63, READLINKAT) X(64, LINK_EXISTS)                    \
	X(65, NOT_A_MOUNT) X(66, PROTECTED) X(67, INSIDE_PROC) X(68, ROOT_OUTSIDE)
/* clang-format on */

enum plan_step {
#define X(number, name) STEP_##name = number,
	PLAN_STEPS(X)
#undef X
};

#endif
