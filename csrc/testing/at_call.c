/* SPDX-License-Identifier: Apache-2.0 */
/*
 * at_call REPORT list -- COMMAND [ARG...]
 * at_call REPORT kill N -- COMMAND [ARG...]
 * at_call REPORT fail N ERRNO -- COMMAND [ARG...]
 *
 * Runs COMMAND under ptrace(2) and counts those of its system calls that change something outside of it, over all its
 * execs but without its children. The process is killed right behind the N-th (0: before the first), or the N-th is
 * not made and answers ERRNO (a number). Tests use it to stop or fail a runtime at every step.
 *
 * REPORT gets a line "name detail" for each counted call, the detail being its path or descriptor.
 * Exit status: COMMAND's, or 128 + the signal that ended it; 125 when something is wrong here.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_WRONG 125
#define GET_SYSCALL_INFO 0x420e
#define SYSCALL_STOP (SIGTRAP | 0x80)

/* What PTRACE_GET_SYSCALL_INFO fills in; musl has no name for it. ptrace(2). */
struct call_info {
	uint8_t op; /* 1: entry, 2: exit */
	uint8_t padding[3];
	uint32_t arch;
	uint64_t instruction_pointer;
	uint64_t stack_pointer;
	uint64_t number;
	uint64_t args[6];
};

/* What the argument `shown` is. */
enum kind { PATH, NUMBER, OPEN, WRITE };

struct call {
	long number;
	const char *name;
	enum kind kind;
	int shown;
};

/* clang-format off */
static const struct call calls[] = {
#define X(name, kind, shown) {SYS_##name, #name, kind, shown},
#ifdef SYS_mkdir
	X(mkdir, PATH, 0) X(rmdir, PATH, 0) X(rename, PATH, 0) X(unlink, PATH, 0) X(open, OPEN, 0) X(chmod, PATH, 0)
	X(mknod, PATH, 0) X(chown, PATH, 0)
#endif
	X(mkdirat, PATH, 1) X(renameat, PATH, 1) X(renameat2, PATH, 1) X(unlinkat, PATH, 1) X(openat, OPEN, 1)
	X(mknodat, PATH, 1) X(fchmodat, PATH, 1) X(fchownat, PATH, 1) X(fchmod, NUMBER, 0) X(fchown, NUMBER, 0)
	X(ftruncate, NUMBER, 0) X(write, WRITE, 0) X(writev, WRITE, 0) X(pwrite64, WRITE, 0) X(sendto, NUMBER, 0)
	X(sendmsg, NUMBER, 0) X(recvmsg, NUMBER, 0) X(flock, NUMBER, 1) X(clone, NUMBER, 0) X(clone3, NUMBER, 1)
	X(kill, NUMBER, 0) X(pidfd_send_signal, NUMBER, 1) X(pidfd_open, NUMBER, 0) X(memfd_create, PATH, 0)
	X(socketpair, NUMBER, 0) X(open_tree, PATH, 1) X(move_mount, PATH, 1) X(mount, PATH, 1) X(umount2, PATH, 0)
	X(mount_setattr, PATH, 1) X(setns, NUMBER, 0) X(unshare, NUMBER, 0) X(bpf, NUMBER, 0) X(connect, NUMBER, 0)
#undef X
};
/* clang-format on */

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "at_call: %s: %s\n", what, strerror(errno));
	exit(EXIT_WRONG);
}

static _Noreturn void usage(void)
{
	fputs("usage: at_call REPORT list | kill N | fail N ERRNO -- COMMAND [ARG...]\n", stderr);
	exit(EXIT_WRONG);
}

static long parse_number(const char *text)
{
	char *end;

	errno = 0;
	long value = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || value < 0)
		usage();
	return value;
}

static void read_text(pid_t pid, uint64_t address, char text[PATH_MAX])
{
	struct iovec here = {text, PATH_MAX - 1};
	struct iovec there = {(void *)(uintptr_t)address, PATH_MAX - 1};
	ssize_t size;

	text[0] = '\0';
	do {
		size = process_vm_readv(pid, &here, 1, &there, 1, 0);
		/* The text may stand at the end of what is mapped. */
		there.iov_len /= 2;
	} while (size < 0 && errno == EFAULT && there.iov_len > 0);
	text[size < 0 ? 0 : size] = '\0';
	for (char *at = text; *at != '\0'; at++)
		if (*at == '\n')
			*at = ' ';
}

static const struct call *find_call(const struct call_info *info)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		const struct call *call = &calls[i];
		if ((uint64_t)call->number != info->number)
			continue;
		if (call->kind == OPEN && (info->args[call->shown + 1] & (O_ACCMODE | O_CREAT)) == O_RDONLY)
			return NULL;
		/* Words for the user change nothing. */
		if (call->kind == WRITE && info->args[0] <= STDERR_FILENO)
			return NULL;
		return call;
	}
	return NULL;
}

static void report(FILE *stream, pid_t pid, const struct call *call, const struct call_info *info)
{
	char text[PATH_MAX];

	if (call->kind == PATH || call->kind == OPEN) {
		read_text(pid, info->args[call->shown], text);
	} else if (call->kind == WRITE) {
		char link[64];
		snprintf(link, sizeof(link), "/proc/%d/fd/%llu", pid, (unsigned long long)info->args[0]);
		ssize_t size = readlink(link, text, sizeof(text) - 1);
		text[size < 0 ? 0 : size] = '\0';
	} else {
		snprintf(text, sizeof(text), "%lld", (long long)info->args[call->shown]);
	}
	fprintf(stream, "%s %s\n", call->name, text);
	fflush(stream);
}

/* At the entry: no call at all. At the exit: this answer. */
static void change_call(pid_t pid, bool entry, int error)
{
#if defined(__x86_64__)
	size_t offset = entry ? offsetof(struct user, regs.orig_rax) : offsetof(struct user, regs.rax);
	if (ptrace(PTRACE_POKEUSER, pid, (void *)offset, (void *)(entry ? -1L : -(long)error)) < 0)
		die("PTRACE_POKEUSER");
#elif defined(__aarch64__)
	int none = -1;
	struct user_regs_struct regs;
	struct iovec call = {&none, sizeof(none)};
	struct iovec all = {&regs, sizeof(regs)};
	if (entry && ptrace(PTRACE_SETREGSET, pid, (void *)0x404L, &call) < 0)
		die("PTRACE_SETREGSET");
	if (!entry && ptrace(PTRACE_GETREGSET, pid, (void *)NT_PRSTATUS, &all) < 0)
		die("PTRACE_GETREGSET");
	regs.regs[0] = (unsigned long)-(long)error;
	if (!entry && ptrace(PTRACE_SETREGSET, pid, (void *)NT_PRSTATUS, &all) < 0)
		die("PTRACE_SETREGSET");
#else
	(void)pid, (void)entry, (void)error;
	errno = ENOSYS;
	die("fail is not written for this architecture");
#endif
}

struct plan {
	long number; /* of the call; -1: none */
	bool kill;
	int error;
};

/* Let the process go on until it ends. */
static int watch(pid_t pid, FILE *stream, const struct plan *plan)
{
	long count = 0;
	int status, deliver = 0;
	bool counted = false;

	for (;;) {
		if (plan->kill && count == plan->number && !counted)
			kill(pid, SIGKILL);
		if (ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(long)deliver) < 0 && errno != ESRCH)
			die("PTRACE_SYSCALL");
		if (waitpid(pid, &status, __WALL) < 0)
			die("waitpid");
		if (WIFEXITED(status))
			return WEXITSTATUS(status);
		if (WIFSIGNALED(status))
			return 128 + WTERMSIG(status);
		deliver = 0;
		if (WSTOPSIG(status) != SYSCALL_STOP) {
			if (status >> 16 == 0)
				deliver = WSTOPSIG(status);
			continue;
		}
		struct call_info info;
		if (ptrace((int)GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info) < 0) {
			if (errno == ESRCH)
				continue;
			die("PTRACE_GET_SYSCALL_INFO");
		}
		bool hit = !plan->kill && count == plan->number;
		if (info.op == 1) {
			const struct call *call = find_call(&info);
			counted = call != NULL;
			if (!counted)
				continue;
			count++;
			report(stream, pid, call, &info);
			if (!plan->kill && count == plan->number)
				change_call(pid, true, plan->error);
		} else if (info.op == 2) {
			if (counted && hit)
				change_call(pid, false, plan->error);
			counted = false;
		}
	}
}

static pid_t start(char **argv)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			_exit(EXIT_WRONG);
		raise(SIGSTOP);
		execvp(argv[0], argv);
		_exit(EXIT_WRONG);
	}
	int status;
	if (waitpid(pid, &status, __WALL) < 0 || !WIFSTOPPED(status))
		die("waitpid");
	long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
	if (ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)options) < 0)
		die("PTRACE_SETOPTIONS");
	return pid;
}

int main(int argc, char **argv)
{
	struct plan plan = {.number = -1};
	int at = 3;

	if (argc < 5)
		usage();
	FILE *stream = fopen(argv[1], "we");
	if (stream == NULL)
		die(argv[1]);
	if (strcmp(argv[2], "list") != 0) {
		plan.kill = strcmp(argv[2], "kill") == 0;
		if (!plan.kill && strcmp(argv[2], "fail") != 0)
			usage();
		plan.number = parse_number(argv[at++]);
		if (!plan.kill)
			plan.error = (int)parse_number(argv[at++]);
	}
	if (at + 1 >= argc || strcmp(argv[at], "--") != 0)
		usage();
	return watch(start(argv + at + 1), stream, &plan);
}
