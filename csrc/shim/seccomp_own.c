/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What init itself has to call behind the container's filter: it can only be loaded with CAP_SYS_ADMIN, and what comes
 * after the fork into the container's pid namespace must not have that any more. A profile that forbids one of these
 * calls is still one under which a single program can run. So the filter gets a few instructions in front, which know
 * init's calls by a random number in the sixth argument. These calls take five at most. Who traces init may learn the
 * number, so it opens nothing but the very calls that init makes.
 */
#define _GNU_SOURCE
#include "seccomp_filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#elif defined(__i386__)
#define NATIVE AUDIT_ARCH_I386
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#elif defined(__arm__)
#define NATIVE AUDIT_ARCH_ARM
#elif defined(__s390x__)
#define NATIVE AUDIT_ARCH_S390X
#elif defined(__riscv) && __riscv_xlen == 64
#define NATIVE AUDIT_ARCH_RISCV64
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NATIVE AUDIT_ARCH_PPC64LE
#elif defined(__loongarch64)
#define NATIVE AUDIT_ARCH_LOONGARCH64
#else
#define NATIVE 0u /* every call gets the instructions in front, and none is known by them: as without them */
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LOW_HALF 0u
#else
#define LOW_HALF 4u
#endif

#define NUMBER offsetof(struct seccomp_data, nr)
#define ARCHITECTURE offsetof(struct seccomp_data, arch)
#define ARGUMENT(n) (offsetof(struct seccomp_data, args) + 8u * (n))
#define SIXTH 5u

#if defined(__s390__)
#define CLONE_ARGUMENTS                                                                                                \
	{                                                                                                              \
		0, CLONE_PARENT | SIGCHLD                                                                              \
	}
#else
#define CLONE_ARGUMENTS                                                                                                \
	{                                                                                                              \
		CLONE_PARENT | SIGCHLD                                                                                 \
	}
#endif

/* A call, and how many of its arguments must be these: who learns the number shall have no more than init needs. */
struct own_call {
	struct seccomp_data call;
	size_t arguments;
};

static const struct own_call own_calls[] = {
	{{.nr = SYS_clone, .arch = NATIVE, .args = CLONE_ARGUMENTS}, 2},
	{{.nr = SYS_setsid, .arch = NATIVE}, 0},
	{{.nr = SYS_ioctl, .arch = NATIVE, .args = {0, TIOCSCTTY, 0}}, 3},
	{{.nr = SYS_prlimit64, .arch = NATIVE, .args = {0, RLIMIT_NPROC}}, 2},
};

#define OWN_CALLS (sizeof(own_calls) / sizeof(own_calls[0]))
/* A load and a comparison for each half of an argument. */
#define PER_ARGUMENT 4u
#define MOST_INSTRUCTIONS (3u + OWN_CALLS * (2u + PER_ARGUMENT * 4u))

static bool taken(unsigned int operation, uint32_t a, uint32_t k)
{
	switch (operation) {
	case BPF_JEQ:
		return a == k;
	case BPF_JGT:
		return a > k;
	case BPF_JGE:
		return a >= k;
	default:
		return (a & k) != 0;
	}
}

/* What the filter answers; for anything that libseccomp does not write a refusal. */
static uint32_t answer(const struct sock_filter *filter, size_t count, const struct seccomp_data *call)
{
	uint32_t a = 0;

	for (size_t at = 0; at < count; at++) {
		const struct sock_filter *one = &filter[at];

		switch (one->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			if (one->k > sizeof(*call) - sizeof(a))
				return SECCOMP_RET_KILL_PROCESS;
			memcpy(&a, (const uint8_t *)call + one->k, sizeof(a));
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= one->k;
			break;
		case BPF_JMP | BPF_JA:
			at += one->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
		case BPF_JMP | BPF_JGT | BPF_K:
		case BPF_JMP | BPF_JGE | BPF_K:
		case BPF_JMP | BPF_JSET | BPF_K:
			at += taken(BPF_OP(one->code), a, one->k) ? one->jt : one->jf;
			break;
		case BPF_RET | BPF_K:
			return one->k;
		default:
			return SECCOMP_RET_KILL_PROCESS;
		}
	}
	return SECCOMP_RET_KILL_PROCESS;
}

static bool passes(const struct sock_filter *filter, size_t count, const struct seccomp_data *call)
{
	uint32_t action = answer(filter, count, call) & SECCOMP_RET_ACTION_FULL;

	return action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG;
}

static size_t put(struct sock_filter *program, size_t at, uint16_t code, uint8_t jump_false, size_t k)
{
	program[at] = (struct sock_filter){.code = code, .jf = jump_false, .k = (uint32_t)k};
	return at + 1;
}

static size_t put_argument(struct sock_filter *program, size_t at, size_t end, size_t argument, uint64_t value)
{
	const uint16_t load = BPF_LD | BPF_W | BPF_ABS, equal = BPF_JMP | BPF_JEQ | BPF_K;

	at = put(program, at, load, 0, ARGUMENT(argument) + LOW_HALF);
	at = put(program, at, equal, (uint8_t)(end - at - 1), (uint32_t)value);
	at = put(program, at, load, 0, ARGUMENT(argument) + (4u - LOW_HALF));
	return put(program, at, equal, (uint8_t)(end - at - 1), (uint32_t)(value >> 32));
}

/* How many instructions say that a call of this number is the one. */
static size_t length(const struct own_call *own)
{
	return PER_ARGUMENT * (1 + own->arguments) + 1;
}

/*
 * Behind the last instruction the filter itself begins, to which every "no" leads. Numbers first: the kernel remembers
 * what a filter allows without a look at arguments.
 */
static size_t write_front(struct sock_filter *program, const bool refused[OWN_CALLS], uint64_t own)
{
	const uint16_t load = BPF_LD | BPF_W | BPF_ABS, equal = BPF_JMP | BPF_JEQ | BPF_K;
	size_t at = 0, end = 3, body = 3, last = 0;

	for (size_t i = 0; i < OWN_CALLS; i++) {
		if (!refused[i])
			continue;
		body++;
		end += 1 + length(&own_calls[i]);
	}
	at = put(program, at, load, 0, ARCHITECTURE);
	at = put(program, at, equal, (uint8_t)(end - at - 1), NATIVE);
	at = put(program, at, load, 0, NUMBER);
	for (size_t i = 0; i < OWN_CALLS; i++) {
		if (!refused[i])
			continue;
		last = at;
		at = put(program, at, equal, 0, (size_t)own_calls[i].call.nr);
		program[last].jt = (uint8_t)(body - at);
		body += length(&own_calls[i]);
	}
	program[last].jf = (uint8_t)(end - at);
	for (size_t i = 0; i < OWN_CALLS; i++) {
		if (!refused[i])
			continue;
		at = put_argument(program, at, end, SIXTH, own);
		for (size_t n = 0; n < own_calls[i].arguments; n++)
			at = put_argument(program, at, end, n, own_calls[i].call.args[n]);
		at = put(program, at, BPF_RET | BPF_K, 0, SECCOMP_RET_ALLOW);
	}
	return at;
}

int shim_seccomp_own_calls(const uint8_t *filter, size_t size, uint64_t own, uint8_t *front, size_t capacity)
{
	struct sock_filter program[MOST_INSTRUCTIONS];
	const struct sock_filter *given = (const struct sock_filter *)(const void *)filter;
	bool refused[OWN_CALLS];
	size_t calls = 0, bytes;

	for (size_t i = 0; i < OWN_CALLS; i++) {
		refused[i] = !passes(given, size / sizeof(*given), &own_calls[i].call);
		calls += refused[i];
	}
	if (calls == 0)
		return 0;
	bytes = write_front(program, refused, own) * sizeof(program[0]);
	if (bytes > capacity)
		return -ENOSPC;
	memcpy(front, program, bytes);
	return (int)bytes;
}

uint32_t shim_seccomp_execve(const uint8_t *filter, size_t size)
{
	const struct seccomp_data call = {.nr = SYS_execve, .arch = NATIVE};
	const struct sock_filter *given = (const struct sock_filter *)(const void *)filter;

	/* For an architecture without numbers here the answer is unknown. */
	return NATIVE == 0 ? SECCOMP_RET_ALLOW : answer(given, size / sizeof(*given), &call);
}
