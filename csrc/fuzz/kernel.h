/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel for fuzzers. stub.py renames what the fuzzed objects call but do not define: open becomes fuzz_open, and
 * that is answered here, from the fuzzer's bytes. Nothing fuzzed ever makes a system call of its own. What such a
 * program may not do (hand a wrong descriptor to the next program, go on for ever) ends in abort(), a finding.
 */
#ifndef PYRUNC_FUZZ_KERNEL_H
#define PYRUNC_FUZZ_KERNEL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes to be eaten from the front; a reader of what is over gets zeros. */
struct bytes {
	const uint8_t *at, *end;
};

uint8_t bytes_u8(struct bytes *bytes);
uint32_t bytes_u32(struct bytes *bytes);
/* At most `size` of them. */
struct bytes bytes_take(struct bytes *bytes, size_t size);

enum ending {
	ENDING_RETURN, /* the function came back */
	ENDING_EXIT,   /* _exit; kernel_status() */
	ENDING_EXEC,   /* an execve that worked */
};

/* Start anew: no descriptors but 0, 1 and 2, and these answers. */
void kernel_begin(struct bytes answers);

/* A descriptor from before the program began; `data` may be NULL. It is close-on-exec only if that is said. */
void kernel_open(int fd, struct bytes data, bool close_on_exec);

/* What open(2) finds under a path, or under a name whatever directory is before it. The name must stay. */
void kernel_name(const char *name, struct bytes data);

/* What is looked at besides the sanitizers; all off after kernel_begin(). */
struct kernel_rules {
	/* whether a child that init clones may have this descriptor, which is a copy of `original`; NULL: any */
	bool (*child_may_have)(int fd, int original);
	uint32_t
		program_fds; /* what execve(2) may find without close-on-exec: 0, 1, 2 and what is below. 0: anything */
	bool one_by_one;     /* signals go to a single process that is not 1 */
	bool never_up;       /* no path has ".." in it */
	bool nothing_left;   /* who returns has closed and freed everything */
	bool cgroups;        /* where nothing else is said, a file system is cgroup2 rather than proc */
};
void kernel_rules(struct kernel_rules these);

/* The environment of what is fuzzed. */
extern char **fuzz_environ;

/* Call it until it ends in one way or another; what it allocated and its variables are as before after that. */
enum ending kernel_run(int (*function)(void *), void *argument);
int kernel_status(void);

/* The next answer in the kernel's way: `good`, or -1 and errno. */
long kernel_answer(long good);

/* A new descriptor, or -1 and errno. */
int kernel_new(int lowest, bool close_on_exec);

/* Read every byte of it, so that the sanitizer sees whether one may. */
void kernel_look(const void *data, size_t size);
size_t kernel_look_text(const char *text);

_Noreturn void kernel_finding(const char *what, const char *detail);

#endif
