/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdnoreturn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/mounts.h"
#include "shared/system_calls.h"

/* of linux/mount.h, with which older versions of sys/mount.h clash */
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1u
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#define MOVE_MOUNT_F_EMPTY_PATH 4u
#define MOVE_MOUNT_T_EMPTY_PATH 64u
#endif
/*
 * The system call stands in this frame, not in a libc wrapper's: the child shares our stack until it execs, and a
 * wrapper's return address would be overwritten by the time the parent goes on.
 */
#if defined(__x86_64__)
#define SHARES_MEMORY CLONE_VM
#define CLONE3(result, args, size)                                                                                     \
	__asm__ volatile("syscall"                                                                                     \
			 : "=a"(result)                                                                                \
			 : "0"((long)SYS_clone3), "D"(args), "S"(size)                                                 \
			 : "rcx", "r11", "memory")
#elif defined(__aarch64__)
#define SHARES_MEMORY CLONE_VM
#define CLONE3(result, args, size)                                                                                     \
	do {                                                                                                           \
		register long x8 __asm__("x8") = SYS_clone3;                                                           \
		register long x0 __asm__("x0") = (long)(args);                                                         \
		register long x1 __asm__("x1") = (long)(size);                                                         \
		__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1) : "memory");                                    \
		(result) = x0;                                                                                         \
	} while (0)
#else
#define SHARES_MEMORY 0
#define CLONE3(result, args, size)                                                                                     \
	do {                                                                                                           \
		(result) = syscall(SYS_clone3, (args), (size));                                                        \
		if ((result) < 0)                                                                                      \
			(result) = -errno;                                                                             \
	} while (0)
#endif

struct child {
	const struct shim_spawn *spawn;
	volatile int error;
	volatile int step;
};

static int place_stdio(const int wanted[3])
{
	int fds[3];

	/* Moved first: the wanted descriptors may themselves be 0, 1 or 2 in another order. */
	for (int i = 0; i < 3; i++) {
		fds[i] = wanted[i] < 0 ? -1 : fcntl(wanted[i], F_DUPFD_CLOEXEC, 3);
		if (wanted[i] >= 0 && fds[i] < 0)
			return -1;
	}
	for (int i = 0; i < 3; i++)
		if (fds[i] >= 0 && dup2(fds[i], i) < 0)
			return -1;
	return 0;
}

static int same_as_slash(int fd)
{
	struct statx slash, other;

	if (statx(AT_FDCWD, "/", 0, STATX_MNT_ID | STATX_INO, &slash) < 0 ||
	    statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_INO, &other) < 0)
		return -1;
	return slash.stx_mnt_id == other.stx_mnt_id && slash.stx_ino == other.stx_ino;
}

/* `root`, ours before we went to the namespace's, replaces that. */
static int replace_root(int root)
{
	int tree = (int)syscall(SYS_open_tree, root, "",
				AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	int same = 0;

	if (tree < 0 || syscall(SYS_move_mount, tree, "", root, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
		return -1;
	if (fchdir(tree) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return -1;
	for (int i = 0; i < MOUNTS_STACKED_MAX && same == 0; i++) {
		if (mounts_go_to_namespace_root() < 0)
			return -1;
		same = same_as_slash(tree);
		if (same == 0 && umount2("/", MNT_DETACH) < 0)
			return -1;
	}
	(void)close(tree);
	if (same == 0)
		errno = EXDEV;
	return same > 0 ? 0 : -1;
}

/*
 * In a mount namespace of our own: what is mounted in it from here on does not propagate. The program may
 * pivot_root, as CRIU does for a container, for which the root of a caller in a chroot must be the namespace's.
 */
static int bind_in_private(const char *source, const char *target)
{
	int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), same;

	if (root < 0 || mounts_go_to_namespace_root() < 0 || mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
		return -1;
	same = same_as_slash(root);
	if (same < 0 || (same == 0 && replace_root(root) < 0))
		return -1;
	(void)close(root);
	return mount(source, target, NULL, MS_BIND | MS_REC, NULL);
}

static int run_child(struct child *child)
{
	const struct shim_spawn *spawn = child->spawn;
	struct sigaction plain = {.sa_handler = SIG_DFL};
	sigset_t none;

	/* Python ignores SIGPIPE and SIGXFSZ, and an ignored signal survives exec. */
	for (int signal_number = 1; signal_number < 65; signal_number++)
		(void)sigaction(signal_number, &plain, NULL);
	if (spawn->new_session)
		(void)setsid();
	child->step = 4;
	if (spawn->bound && bind_in_private(spawn->bound, spawn->bound_on) < 0)
		return errno;
	child->step = 1;
	if (spawn->cwd && chdir(spawn->cwd) < 0)
		return errno;
	child->step = 2;
	if (place_stdio(spawn->stdio) < 0)
		return errno;
	for (size_t i = 0; i < spawn->keep_count; i++)
		if (fcntl(spawn->keep[i], F_SETFD, 0) < 0)
			return errno;
	child->step = 3;
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (spawn->exe_fd >= 0)
		(void)syscall(SYS_execveat, spawn->exe_fd, "", spawn->argv, spawn->envp, AT_EMPTY_PATH);
	else
		(void)execve(spawn->path, spawn->argv, spawn->envp);
	return errno;
}

static noreturn __attribute__((noinline)) void child_main(void *data)
{
	struct child *child = data;

	child->error = run_child(child);
	_exit(127);
}

/* The pid of a child that runs `run`, or -errno; the caller is suspended until it has exec'd or ended. */
static long clone_child(struct clone_args *args, void (*run)(void *data), void *data)
{
	sigset_t all, old;
	long pid;

	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, &old);
	CLONE3(pid, args, sizeof(*args));
	if (pid == 0) {
		run(data);
		_exit(127);
	}
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	return pid;
}

int shim_spawn(struct shim_spawn *spawn)
{
	struct child *child;
	int pidfd = -1;
	struct clone_args args = {
		.flags = spawn->clone_flags | CLONE_VFORK | CLONE_PIDFD | SHARES_MEMORY,
		.pidfd = (uint64_t)(uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
	};
	long pid;
	int error;

	if (spawn->cgroup_fd >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)spawn->cgroup_fd;
	}
	child = mmap(NULL, sizeof(*child), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (child == MAP_FAILED)
		return -errno;
	child->spawn = spawn;
	pid = clone_child(&args, child_main, child);
	error = pid < 0 ? (int)-pid : child->error;
	spawn->failed_step = pid < 0 ? 0 : child->step;
	(void)munmap(child, sizeof(*child));
	if (error) {
		if (pid > 0) {
			(void)waitpid((pid_t)pid, NULL, 0);
			(void)close(pidfd);
		}
		return -error;
	}
	spawn->pidfd = pidfd;
	return (int)pid;
}

struct visitor {
	int netns_fd;
	volatile int answer;
};

static noreturn __attribute__((noinline)) void visitor_main(void *data)
{
	struct visitor *visitor = data;

	if (setns(visitor->netns_fd, CLONE_NEWNET) == 0)
		visitor->answer = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (visitor->answer < 0)
		visitor->answer = -errno;
	_exit(0);
}

int shim_netlink_in(int netns_fd)
{
	struct visitor *visitor;
	/* CLONE_FILES: the socket it opens is ours. We never leave our own namespace, whatever goes wrong. */
	struct clone_args args = {.flags = CLONE_FILES | CLONE_VFORK | SHARES_MEMORY, .exit_signal = SIGCHLD};
	long pid;
	int answer;

	visitor = mmap(NULL, sizeof(*visitor), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (visitor == MAP_FAILED)
		return -errno;
	visitor->netns_fd = netns_fd;
	visitor->answer = -1;
	pid = clone_child(&args, visitor_main, visitor);
	if (pid > 0)
		(void)waitpid((pid_t)pid, NULL, 0);
	answer = pid < 0 ? (int)pid : visitor->answer;
	(void)munmap(visitor, sizeof(*visitor));
	return answer;
}
