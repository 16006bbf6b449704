/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the process is: namespaces, limits, ids, capabilities, scheduling. One system call or two per op; the order is
 * the plan's.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#define PR_CAP_AMBIENT_RAISE 2
#define PR_CAP_AMBIENT_CLEAR_ALL 4
#endif
#define KEYCTL_JOIN 1
#define KEYCTL_SETPERM 5
/* what a new session keyring grants its possessor and its user, plus search for the user */
#define KEYRING_PERMISSIONS 0x3f1b0000u
#define IOPRIO_WHO_PROCESS 1
#define CAPABILITY_MAX 63
#define EVERY_CPU 8192 /* the most that a kernel supports */
/* where the plain numbers are calls with 16 bit ids */
#ifdef SYS_setuid32
#define SETGID_CALL SYS_setgid32
#define SETUID_CALL SYS_setuid32
#else
#define SETGID_CALL SYS_setgid
#define SETUID_CALL SYS_setuid
#endif

/* the kernel's struct; libc has another rlim_t on 32 bits */
struct limit {
	uint64_t soft, hard;
};

void op_rlimit(struct init *in, struct cursor *fields)
{
	uint32_t type = take_u32(fields);
	struct limit limit = {.soft = take_u64(fields)};
	char digits[24];

	limit.hard = take_u64(fields);
	if (syscall(SYS_prlimit64, 0ul, (unsigned long)type, &limit, NULL, 0ul, (unsigned long)in->own_call) < 0)
		fail(in, STEP_SETRLIMIT, errno, number_text(digits, type));
}

/* Descriptors that were resolved in the namespaces we leave. */
static void forget_old_view(struct init *in, uint32_t types)
{
	proc_forget(in);
	if ((types & CLONE_NEWNS) != 0 && in->root_fd >= 0) {
		close(in->root_fd);
		in->root_fd = -1;
	}
}

void op_setns(struct init *in, struct cursor *fields)
{
	int fd = take_fd(fields);
	uint32_t type = take_u32(fields);

	/* the type makes the kernel refuse a namespace of another kind: config-linux.md: "MUST generate an error" */
	if (setns(fd, (int)type) < 0)
		fail(in, STEP_SETNS, errno, "");
	forget_old_view(in, type);
	close(fd);
}

void op_pidns(struct init *in, struct cursor *fields)
{
	int fd = take_fd(fields);

	/* as setns(2) does it for the others */
	if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWPID)
		fail(in, STEP_SETNS, EINVAL, "");
	/* a copy: a SETNS may close the original */
	in->pidns_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (in->pidns_fd < 0)
		fail(in, STEP_DUP3, errno, "");
}

void op_unshare(struct init *in, struct cursor *fields)
{
	uint32_t types = take_u32(fields);

	if (unshare((int)types) < 0)
		fail(in, STEP_UNSHARE, errno, "");
	forget_old_view(in, types);
}

static long clone_child(const struct init *in)
{
	const unsigned long flags = CLONE_PARENT | SIGCHLD;

#if defined(__s390__) || defined(__cris__)
	return syscall(SYS_clone, 0ul, flags, NULL, NULL, 0ul, (unsigned long)in->own_call);
#else
	return syscall(SYS_clone, flags, 0ul, NULL, NULL, 0ul, (unsigned long)in->own_call);
#endif
}

/*
 * Only the children of a process that has entered a pid namespace are in it, so a child has to continue; CLONE_PARENT:
 * as a child of the runtime, like its predecessor.
 *
 * Where others are in that namespace already, one with CAP_SYS_PTRACE may stop the child at its first instruction and take
 * what it has. So it has no more rights than the program will have, and of the host nothing: not even the socket, as
 * SO_PEERPIDFD and SCM_PIDFD would lead from there to the runtime, and pidfd_getfd(2) to all that is open in it.
 */
void op_fork(struct init *in, struct cursor *fields)
{
	int report = take_fd(fields), answers = take_fd(fields);
	long pid;

	if ((report < 0) != (answers < 0))
		fail(in, STEP_PLAN, 0, "FORK has one pipe");
	if (report >= 0) {
		proc_leave(in);
		/* a filter may forbid it, or fake success */
		if (close(in->sync_fd) < 0 || fcntl(in->sync_fd, F_GETFD) >= 0)
			fail(in, STEP_CLOSE_RANGE, EPERM, "the runtime's socket");
		in->report_fd = report;
		in->sync_fd = answers;
	}
	pid = clone_child(in);
	if (pid < 0)
		fail(in, STEP_CLONE, errno, "");
	if (pid > 0) {
		keep_place(in, WORDS_LEFT);
		sync_send(in, SYNC_FORKED, pid, -1);
		leave(0);
	}
	proc_forget(in);
	in->words = NULL; /* the child does not have that memory */
	/* The parent must know the child before it gets a message from it. */
	sync_wait(in);
}

static void set_groups(struct init *in, const struct numbers *groups)
{
	if (syscall(SYS_setgroups, (size_t)groups->count, groups->values) == 0)
		return;
	/* EPERM in a user namespace: its setgroups file has "deny" */
	fail(in, errno == EPERM ? STEP_SETGROUPS_DENIED : STEP_SETGROUPS, errno, "");
}

static void set_ids(struct init *in, uint32_t uid, uint32_t gid)
{
	char digits[24];

	/* raw calls: a libc wrapper would tell threads that do not exist. Not the setres ones: a filter that is loaded
	 * by now allows what runc needs, and profiles are made for that; for the privileged both set all three. */
	if (syscall(SETGID_CALL, gid) < 0)
		fail(in, STEP_SETGID, errno, number_text(digits, gid));
	if (syscall(SETUID_CALL, uid) < 0)
		fail(in, STEP_SETUID, errno, number_text(digits, uid));
}

void op_userns_root(struct init *in, struct cursor *fields)
{
	const struct numbers none = {.count = 0};
	uint32_t uid = take_u32(fields), gid = take_u32(fields);

	in->in_userns = true;
	if (take_u32(fields) == 1)
		set_groups(in, &none);
	set_ids(in, uid, gid);
}

void op_user(struct init *in, struct cursor *fields)
{
	uint32_t uid = take_u32(fields), gid = take_u32(fields);
	struct numbers groups = take_numbers(fields);

	/* or leaving uid 0 would empty the permitted set before CAPSET can choose from it */
	if (prctl(PR_SET_KEEPCAPS, 1ul, 0ul, 0ul, 0ul) < 0)
		fail(in, STEP_PRCTL, errno, "PR_SET_KEEPCAPS");
	if (take_u32(fields) == 1)
		set_groups(in, &groups);
	set_ids(in, uid, gid);
}

void op_dumpable(struct init *in, struct cursor *fields)
{
	if (prctl(PR_SET_DUMPABLE, (unsigned long)take_u32(fields), 0ul, 0ul, 0ul) < 0)
		fail(in, STEP_PRCTL, errno, "PR_SET_DUMPABLE");
}

void op_keyring(struct init *in, struct cursor *fields)
{
	const char *name = take_string(fields);
	long keyring = syscall(SYS_keyctl, KEYCTL_JOIN, name[0] == '\0' ? NULL : name);

	if (keyring >= 0) {
		syscall(SYS_keyctl, KEYCTL_SETPERM, keyring, KEYRING_PERMISSIONS);
		return;
	}
	/* no keyrings in this kernel, forbidden by an outer runtime's filter, or the user has too many */
	if (errno != ENOSYS && errno != EACCES && errno != EPERM && errno != EDQUOT)
		fail(in, STEP_KEYCTL, errno, name);
}

void op_loopback_up(struct init *in, struct cursor *fields)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request;

	(void)fields;
	if (fd < 0)
		fail(in, STEP_SOCKET, errno, "lo");
	memset(&request, 0, sizeof(request));
	strcpy(request.ifr_name, "lo");
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		fail(in, STEP_IOCTL, errno, "lo");
	request.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		fail(in, STEP_IOCTL, errno, "lo");
	close(fd);
}

void op_hostname(struct init *in, struct cursor *fields)
{
	const char *name = take_string(fields);

	if (sethostname(name, strlen(name)) < 0)
		fail(in, STEP_SETHOSTNAME, errno, name);
}

void op_domainname(struct init *in, struct cursor *fields)
{
	const char *name = take_string(fields);

	if (setdomainname(name, strlen(name)) < 0)
		fail(in, STEP_SETDOMAINNAME, errno, name);
}

void op_personality(struct init *in, struct cursor *fields)
{
	if (personality(take_u32(fields)) < 0)
		fail(in, STEP_PERSONALITY, errno, "");
}

void op_scheduler(struct init *in, struct cursor *fields)
{
	struct blob attr = take_aligned(fields);

	if (attr.size < sizeof(uint32_t))
		fail(in, STEP_PLAN, 0, "SCHEDULER has no struct sched_attr");
	memcpy((void *)(uintptr_t)attr.data, &attr.size, sizeof(attr.size)); /* sched_attr.size */
	if (syscall(SYS_sched_setattr, 0, attr.data, 0) < 0)
		fail(in, STEP_SCHED_SETATTR, errno, "");
}

void op_ioprio(struct init *in, struct cursor *fields)
{
	if (syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, take_u32(fields)) < 0)
		fail(in, STEP_IOPRIO_SET, errno, "");
}

void op_mempolicy(struct init *in, struct cursor *fields)
{
	uint32_t mode = take_u32(fields);
	struct blob nodes = take_aligned(fields);
	/* the kernel uses one bit less than the given size */
	unsigned long bits = nodes.size == 0 ? 0 : nodes.size * 8ul + 1;

	if (syscall(SYS_set_mempolicy, mode, nodes.size == 0 ? NULL : nodes.data, bits) < 0)
		fail(in, STEP_SET_MEMPOLICY, errno, "");
}

void op_affinity(struct init *in, struct cursor *fields)
{
	struct blob mask = take_aligned(fields);
	uint8_t every[EVERY_CPU / 8];

	if (mask.size == 0) {
		memset(every, 0xff, sizeof(every));
		if (syscall(SYS_sched_setaffinity, 0, sizeof(every), every) < 0)
			warn(in, STEP_SCHED_SETAFFINITY, errno, 0, "");
		return;
	}
	if (syscall(SYS_sched_setaffinity, 0, (size_t)((mask.size + 7u) & ~7u), mask.data) < 0)
		fail(in, STEP_SCHED_SETAFFINITY, errno, "");
}

void op_umask(struct init *in, struct cursor *fields)
{
	(void)in;
	umask((mode_t)take_u32(fields) & 0777);
}

void op_setsid(struct init *in, struct cursor *fields)
{
	(void)fields;
	if (syscall(SYS_setsid, 0ul, 0ul, 0ul, 0ul, 0ul, (unsigned long)in->own_call) < 0 && getsid(0) != getpid())
		fail(in, STEP_SETSID, errno, "");
}

void op_ctty(struct init *in, struct cursor *fields)
{
	op_setsid(in, fields);
	if (syscall(SYS_ioctl, 0ul, (unsigned long)TIOCSCTTY, 0ul, 0ul, 0ul, (unsigned long)in->own_call) < 0)
		fail(in, STEP_IOCTL, errno, "TIOCSCTTY");
}

void op_no_new_privs(struct init *in, struct cursor *fields)
{
	(void)fields;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1ul, 0ul, 0ul, 0ul) < 0)
		fail(in, STEP_PRCTL, errno, "PR_SET_NO_NEW_PRIVS");
}

void op_seccomp(struct init *in, struct cursor *fields)
{
	struct blob filter = take_aligned(fields);
	uint32_t flags = take_u32(fields);
	bool listener = take_u32(fields) == 1;
	long result;

	in->own_call = take_u64(fields);
	/* one that is not sent would stay open in a child that others can see */
	if (listener != ((flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) != 0))
		fail(in, STEP_PLAN, 0, "SECCOMP's flags and its listener differ");
	result = filter_load(filter, flags);
	if (result < 0)
		fail(in, STEP_SECCOMP, errno, "");
	if (result > 0 && !listener)
		fail(in, STEP_SECCOMP, ESRCH, ""); /* TSYNC returns a thread that could not be synchronized */
	if (!listener)
		return;
	sync_send(in, SYNC_SECCOMP, result, (int)result);
	sync_wait(in);
	close((int)result);
}

void op_caps_bounding(struct init *in, struct cursor *fields)
{
	uint64_t keep = take_u64(fields);
	char digits[24];

	for (unsigned long cap = 0; cap <= CAPABILITY_MAX; cap++) {
		int held = prctl(PR_CAPBSET_READ, cap, 0ul, 0ul, 0ul);

		if (held < 0)
			break; /* the last capability of this kernel was the one before */
		if (held == 1 && (keep >> cap & 1) == 0 && prctl(PR_CAPBSET_DROP, cap, 0ul, 0ul, 0ul) < 0)
			fail(in, STEP_PRCTL, errno, number_text(digits, cap));
	}
}

struct capabilities {
	uint64_t effective, permitted, inheritable;
};

static int capabilities_call(long number, struct capabilities *caps)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
		{(uint32_t)caps->effective, (uint32_t)caps->permitted, (uint32_t)caps->inheritable},
		{(uint32_t)(caps->effective >> 32), (uint32_t)(caps->permitted >> 32),
		 (uint32_t)(caps->inheritable >> 32)},
	};

	if (syscall(number, &header, data) < 0)
		return -1;
	caps->effective = data[0].effective | (uint64_t)data[1].effective << 32;
	caps->permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	caps->inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
	return 0;
}

static void raise_ambient(struct init *in, uint64_t ambient)
{
	if (prctl(PR_CAP_AMBIENT, (unsigned long)PR_CAP_AMBIENT_CLEAR_ALL, 0ul, 0ul, 0ul) < 0 && errno != EINVAL)
		fail(in, STEP_PRCTL, errno, "PR_CAP_AMBIENT_CLEAR_ALL");
	for (unsigned long cap = 0; cap <= CAPABILITY_MAX; cap++)
		if ((ambient >> cap & 1) != 0 &&
		    prctl(PR_CAP_AMBIENT, (unsigned long)PR_CAP_AMBIENT_RAISE, cap, 0ul, 0ul) < 0)
			warn(in, STEP_PRCTL, errno, (int64_t)cap, "PR_CAP_AMBIENT_RAISE");
}

/* config.md: capabilities that "cannot be granted ... SHOULD NOT" fail; what could not be is told as a warning. */
void op_capset(struct init *in, struct cursor *fields)
{
	struct capabilities wanted = {.effective = take_u64(fields), .permitted = take_u64(fields)};
	struct capabilities held = {0};
	uint64_t ambient, missing;

	wanted.inheritable = take_u64(fields);
	ambient = take_u64(fields);
	if (capabilities_call(SYS_capget, &held) < 0)
		fail(in, STEP_CAPSET, errno, "");
	missing = (wanted.permitted | wanted.effective) & ~held.permitted;
	wanted.permitted &= held.permitted;
	wanted.effective &= wanted.permitted;
	missing |= wanted.inheritable & ~(held.permitted | held.inheritable);
	wanted.inheritable &= held.permitted | held.inheritable;
	if (missing != 0)
		warn(in, STEP_CAPSET, EPERM, (int64_t)missing, "");
	if (capabilities_call(SYS_capset, &wanted) < 0)
		fail(in, STEP_CAPSET, errno, "");
	raise_ambient(in, ambient & wanted.permitted & wanted.inheritable);
}
