/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not named seccomp.h: that is the header of libseccomp.
 *
 * libseccomp for the parent: a description of a profile in, finished BPF out. The library is opened on first use, so
 * the shim loads without it. tools/cffi_source.py hands the declarations below to cffi: keep them free of macros.
 *
 * A description, all numbers uint32 in the machine's byte order unless said otherwise, strings with their NUL:
 *
 *     default action (SCMP_ACT_*), architectures, rules
 *     per architecture: its name as libseccomp spells it ("x86_64")
 *     per rule: action, condition sets, names
 *               per set: count, then per condition: argument, SCMP_CMP_*, uint64 datum a, uint64 datum b
 *               the names
 *
 * The native architecture is always part of the answer, the last one when the description does not list it.
 * A rule without a set matches whatever the arguments are; one with several matches when any set matches.
 */
#ifndef PYRUNC_SECCOMP_FILTER_H
#define PYRUNC_SECCOMP_FILTER_H

#include <stddef.h>
#include <stdint.h>

enum shim_seccomp_step {
	SHIM_SECCOMP_NONE = 0,
	SHIM_SECCOMP_DESCRIPTION = 1, /* -EBADMSG: malformed */
	SHIM_SECCOMP_LIBRARY = 2,     /* -ELIBACC: cannot be opened, -ELIBBAD: lacks a function */
	SHIM_SECCOMP_DEFAULT = 3,     /* -EINVAL: library or kernel refuse the default action */
	SHIM_SECCOMP_ARCH = 4,        /* -ENOENT: unknown to the library, -EDOM: other byte order */
	SHIM_SECCOMP_RULE = 5,        /* the library's own answer */
	SHIM_SECCOMP_EXPORT = 6,      /* -ENOSPC: larger than the buffer */
};

/* The program of one architecture; programs stand in the buffer one after the other. */
struct shim_seccomp_part {
	uint32_t arch;   /* SCMP_ARCH_* */
	int32_t last;    /* the largest system call number among all names, 0 if there is none */
	uint32_t length; /* bytes */
};

struct shim_seccomp_result {
	uint32_t part_count;
	struct shim_seccomp_part parts[32];
	uint32_t step; /* enum shim_seccomp_step: what failed */
	uint32_t arch; /* where: index of the architecture, the rule, the name in it */
	uint32_t rule;
	uint32_t name;
};

/* Bytes written to program, or -errno with step, arch, rule and name set. seccomp_rule_add(3), seccomp_export_bpf(3). */
int shim_seccomp_compile(const uint8_t *description, size_t size, uint8_t *program, size_t capacity,
			 struct shim_seccomp_result *result);

/* major << 16 | minor << 8 | micro, or -ELIBACC, -ELIBBAD. */
int shim_seccomp_version(void);

/* The file the library was loaded from: length without NUL, or -errno. dladdr(3). */
int shim_seccomp_library(char *buffer, size_t size);

/* 1 when the library knows the architecture, 0 if not, or -errno. */
int shim_seccomp_knows_arch(const char *name);

/* 1 when the kernel has the action (SECCOMP_RET_*), 0 when not. seccomp(2) SECCOMP_GET_ACTION_AVAIL. */
int shim_seccomp_has_action(uint32_t action);

/*
 * The instructions to put before a filter that does not let init's own calls behind it pass: bytes, 0 if it does, or
 * -ENOSPC. They know these calls by `own` in the sixth argument. seccomp_own.c.
 */
int shim_seccomp_own_calls(const uint8_t *filter, size_t size, uint64_t own, uint8_t *front, size_t capacity);

/* What a filter answers the execve of a program of our own architecture whose arguments are 0: SECCOMP_RET_*. */
uint32_t shim_seccomp_execve(const uint8_t *filter, size_t size);

/* 1 when the kernel takes these SECCOMP_FILTER_FLAG_* together, 0 if not. */
int shim_seccomp_has_flags(uint32_t flags);

#endif
