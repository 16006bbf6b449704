/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fail_syscall CALL ERRNO [when INDEX==VALUE] [CALL ERRNO ...] -- COMMAND [ARG...]
 *
 * Runs COMMAND under a seccomp filter in which CALL (a name or a number) fails with ERRNO (a name or a number), always
 * or when its argument INDEX (0 to 5) is VALUE. The call is not made. Tests use it to see what happens on a kernel that
 * lacks a call or refuses it.
 *
 * Exit status: 125 for a wrong command line or a filter that does not load, 127 when COMMAND cannot be run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXIT_USAGE 125
#define EXIT_NO_COMMAND 127
#define MAX_INSTRUCTIONS 256

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define NATIVE_ARCH AUDIT_ARCH_RISCV64
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NATIVE_ARCH AUDIT_ARCH_PPC64LE
#elif defined(__s390x__)
#define NATIVE_ARCH AUDIT_ARCH_S390X
#else
#error "add the AUDIT_ARCH_* of this architecture"
#endif

struct name {
	const char *text;
	long number;
};

/* clang-format off */
static const struct name calls[] = {
#define X(name) {#name, SYS_##name},
	X(capset) X(chdir) X(chroot) X(clone) X(clone3) X(close_range) X(dup3) X(execve) X(execveat) X(faccessat) X(fchdir) X(fchmod)
	X(fchmodat) X(fchown) X(fchownat) X(fcntl) X(flock) X(fsconfig) X(fsmount) X(fsopen) X(fspick) X(fstatfs) X(getcwd)
	X(getdents64) X(ioctl) X(ioprio_set) X(keyctl) X(kill) X(linkat) X(memfd_create) X(mkdirat) X(mknodat) X(mount)
	X(mount_setattr) X(move_mount) X(open_tree) X(openat) X(openat2) X(personality) X(pidfd_open)
	X(pidfd_send_signal) X(pivot_root) X(prctl) X(prlimit64) X(read) X(readlinkat) X(recvmsg) X(renameat2)
	X(sched_setaffinity) X(sched_setattr) X(seccomp) X(sendmsg) X(set_mempolicy) X(setgroups) X(sethostname)
	X(setdomainname) X(setns) X(setgid) X(setuid) X(setsid) X(socket) X(statx) X(symlinkat) X(umount2)
	X(unlinkat) X(unshare) X(waitid) X(write)
#undef X
};

static const struct name errors[] = {
#define X(name) {#name, name},
	X(E2BIG) X(EACCES) X(EAGAIN) X(EBADF) X(EBUSY) X(ECHILD) X(EDQUOT) X(EEXIST) X(EFAULT) X(EINTR) X(EINVAL) X(EIO)
	X(EISDIR) X(ELOOP) X(EMFILE) X(ENAMETOOLONG) X(ENFILE) X(ENODEV) X(ENOENT) X(ENOEXEC) X(ENOMEM) X(ENOSPC)
	X(ENOSYS) X(ENOTDIR) X(ENXIO) X(EOPNOTSUPP) X(EOVERFLOW) X(EPERM) X(EROFS) X(ESRCH) X(ETXTBSY) X(EUSERS) X(EXDEV)
#undef X
};
/* clang-format on */

static struct sock_filter program[MAX_INSTRUCTIONS];
static unsigned short length;

_Noreturn static void usage(const char *problem, const char *what)
{
	fprintf(stderr, "fail_syscall: %s '%s'\n", problem, what);
	fprintf(stderr, "usage: fail_syscall CALL ERRNO [when INDEX==VALUE] [CALL ERRNO ...] -- COMMAND [ARG...]\n");
	exit(EXIT_USAGE);
}

static uint64_t parse_number(const char *text, uint64_t most, const char *problem)
{
	char *end;

	errno = 0;
	unsigned long long value = strtoull(text, &end, 0);
	if (end == text || *end != '\0' || *text == '-' || errno != 0 || value > most)
		usage(problem, text);
	return value;
}

static uint32_t look_up(const char *text, const struct name *names, size_t count, uint64_t most, const char *problem)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(names[i].text, text) == 0)
			return (uint32_t)names[i].number;
	return (uint32_t)parse_number(text, most, problem);
}

static void emit(uint16_t code, uint32_t k, uint8_t if_true, uint8_t if_false)
{
	if (length == MAX_INSTRUCTIONS)
		usage("too many calls, no room for", "another");
	program[length++] = (struct sock_filter){code, if_true, if_false, k};
}

static void emit_load(size_t offset)
{
	emit(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* The two halves of a 64 bit argument in memory order. */
static void emit_argument_check(unsigned int index, uint64_t value)
{
	size_t offset = offsetof(struct seccomp_data, args) + index * sizeof(uint64_t);
	uint32_t halves[2];

	memcpy(halves, &value, sizeof(value));
	emit_load(offset);
	emit(BPF_JMP | BPF_JEQ | BPF_K, halves[0], 0, 3);
	emit_load(offset + sizeof(uint32_t));
	emit(BPF_JMP | BPF_JEQ | BPF_K, halves[1], 0, 1);
}

/* Parse one rule, emit its instructions, return what follows it. */
static char **emit_rule(char **words)
{
	if (words[0] == NULL || words[1] == NULL)
		usage("incomplete", words[0] == NULL ? "" : words[0]);
	uint32_t call = look_up(words[0], calls, sizeof(calls) / sizeof(calls[0]), INT32_MAX, "unknown system call");
	uint32_t error = look_up(words[1], errors, sizeof(errors) / sizeof(errors[0]), 4095, "unknown errno");
	char *condition = NULL;
	if (words[2] != NULL && strcmp(words[2], "when") == 0) {
		condition = words[3];
		if (condition == NULL)
			usage("incomplete", words[2]);
	}
	emit_load(offsetof(struct seccomp_data, nr));
	emit(BPF_JMP | BPF_JEQ | BPF_K, call, 0, condition == NULL ? 1 : 5);
	if (condition != NULL) {
		char *equals = strstr(condition, "==");
		if (equals == NULL)
			usage("INDEX==VALUE is wanted, not", condition);
		*equals = '\0';
		unsigned int index = (unsigned int)parse_number(condition, 5, "not an argument's index");
		emit_argument_check(index, parse_number(equals + 2, UINT64_MAX, "not a value"));
	}
	emit(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error, 0, 0);
	return words + (condition == NULL ? 2 : 4);
}

static void load(void)
{
	struct sock_fprog filter = {.len = length, .filter = program};

	/* The flag changes what execve does with set-user-ID programs, so it is set only for those who need it. */
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0)
		return;
	if (errno == EACCES && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0)
		return;
	perror("fail_syscall: prctl PR_SET_SECCOMP");
	exit(EXIT_USAGE);
}

int main(int argc, char **argv)
{
	char **words = argv + 1;

	if (argc < 2)
		usage("incomplete", "");
	emit_load(offsetof(struct seccomp_data, arch));
	emit(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0);
	emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	do
		words = emit_rule(words);
	while (*words != NULL && strcmp(*words, "--") != 0);
	emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	if (*words == NULL || words[1] == NULL)
		usage("no command after", "--");
	load();
	execvp(words[1], words + 1);
	fprintf(stderr, "fail_syscall: execve '%s': %s\n", words[1], strerror(errno));
	return EXIT_NO_COMMAND;
}
