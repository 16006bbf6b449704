/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A procfs of a pid namespace that init is not in. Who mounts one has all privileges and the host's files; in the pid
 * namespace of others, one with CAP_SYS_PTRACE could take them. Since Linux 6.17 the namespace is a parameter. Before, it
 * is that of the caller of fsopen(2): a process that has nothing calls it and sends the context, the mount is made here.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HELPER_MS 10000
#define HELPER_END_MS 100

static int send_fd(int socket_fd, int fd)
{
	return send_with_fd(socket_fd, "", 1, fd) == 1 ? 0 : -1;
}

/* -1 with errno: the process at the other end may be stopped, or send anything. */
static int receive_fd(int socket_fd)
{
	char none;
	struct iovec iov = {.iov_base = &none, .iov_len = 1};
	union {
		struct cmsghdr header;
		char bytes[CMSG_LEN(sizeof(int))]; /* no room for a second */
	} control;
	struct msghdr header = {.msg_iov = &iov,
				.msg_iovlen = 1,
				.msg_control = control.bytes,
				.msg_controllen = sizeof(control.bytes)};
	struct pollfd ready = {.fd = socket_fd, .events = POLLIN};
	int fd;

	errno = ETIMEDOUT;
	if (poll(&ready, 1, HELPER_MS) != 1 || recvmsg(socket_fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0)
		return -1;
	errno = EPROTO;
	if (CMSG_FIRSTHDR(&header) == NULL || CMSG_FIRSTHDR(&header)->cmsg_type != SCM_RIGHTS ||
	    CMSG_FIRSTHDR(&header)->cmsg_len != CMSG_LEN(sizeof(int)))
		return -1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof(int));
	return fd;
}

/* An empty file system as root, and the privileges of an empty user namespace. -1 with errno. */
static int lose_power(struct init *in)
{
	const struct list none = {.count = 0};
	int tree;

	if (unshare(CLONE_NEWNS) < 0 ||
	    syscall(SYS_mount, NULL, "/", NULL, (unsigned long)(MS_REC | MS_PRIVATE), NULL) < 0)
		return -1;
	tree = filesystem(in, "tmpfs", "tmpfs", &none, MOUNT_ATTR_RDONLY);
	if (tree < 0 || syscall(SYS_move_mount, tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
	    fchdir(tree) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    syscall(SYS_umount2, ".", INIT_MNT_DETACH) < 0 || chdir("/") < 0)
		return -1;
	close(tree);
	return unshare(CLONE_NEWUSER | CLONE_NEWNS);
}

/*
 * In between. The second socket pair is its own and it is soon gone: those of init would lead to init. In a user
 * namespace no process can trace one that still runs this program, since that belongs to the runtime's.
 */
static _Noreturn void helper(struct init *in, int link)
{
	int pair[2], fs;
	long pid;

	/* not the caller's session either, nor its terminal and process group */
	if (setsid() < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 ||
	    send_fd(link, pair[0]) < 0 || setns(in->pidns_fd, CLONE_NEWPID) < 0 || dup2(pair[1], 0) < 0 ||
	    syscall(SYS_close_range, 1, ~0u, 0) < 0 || (!in->in_userns && lose_power(in) < 0))
		_exit(errno);
	plan_forget_behind(in, in->plan + in->plan_size);
#if defined(__s390__)
	pid = syscall(SYS_clone, 0ul, (unsigned long)(CLONE_PARENT | SIGCHLD), NULL, NULL, 0ul);
#else
	pid = syscall(SYS_clone, (unsigned long)(CLONE_PARENT | SIGCHLD), 0ul, NULL, NULL, 0ul);
#endif
	if (pid != 0)
		_exit(pid < 0 ? errno : 0);
	fs = (int)syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC);
	_exit(fs >= 0 ? send_fd(0, fs) : 0);
}

/* The last one has ended by itself; unless others in there keep it, which is then theirs and not waited for. */
static void collect(bool came)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	int error = errno;

	for (int turn = 0; came && turn < HELPER_END_MS && waitpid(-1, NULL, WNOHANG) == 0; turn++)
		nanosleep(&pause, NULL);
	errno = error;
}

static int context_of_helper(struct init *in)
{
	int pair[2], status = 0, end, fs = -1;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	pid = fork();
	if (pid == 0)
		helper(in, pair[1]);
	close(pair[1]);
	end = pid < 0 ? -1 : receive_fd(pair[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status == 0 && end >= 0)
		fs = receive_fd(end);
	else
		errno = WIFEXITED(status) ? WEXITSTATUS(status) : EPROTO;
	close(pair[0]);
	if (end >= 0)
		close_quietly(end);
	collect(fs >= 0);
	return fs;
}

/* The context of a procfs that shows the pid namespace of PIDNS; -1 with errno. */
static int pidns_context(struct init *in)
{
	int fs = (int)syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC);

	if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "pidns", NULL, in->pidns_fd) == 0)
		return fs;
	close_quietly(fs);
	return errno == EINVAL ? context_of_helper(in) : -1;
}

/* What came from the helper may have been exchanged: the first process in there must be that of the namespace. */
static void pidns_check(struct init *in, int mount)
{
	struct stat wanted, first = {0};

	if (!is_proc(mount) || fstat(in->pidns_fd, &wanted) < 0)
		fail(in, STEP_WRONG_FS, 0, "proc");
	/* without privileges over it this cannot be checked; the kernel did not allow one of the host then */
	if (fstatat(mount, "1/ns/pid", &first, 0) < 0 && errno == EACCES)
		return;
	if (first.st_dev != wanted.st_dev || first.st_ino != wanted.st_ino)
		fail(in, STEP_WRONG_FS, 0, "proc");
}

/* A detached procfs of the pid namespace of PIDNS, or else of ours; -1 if the failure is noted. */
int proc_filesystem(struct init *in, const char *source, const struct list *params, uint64_t attributes)
{
	int mount;

	if (in->pidns_fd < 0)
		return filesystem(in, "proc", source, params, attributes);
	mount = filesystem_of(in, pidns_context(in), "proc", source, params, attributes);
	if (mount >= 0)
		pidns_check(in, mount);
	return mount;
}
