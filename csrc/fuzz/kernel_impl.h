/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the kernel share. */
#ifndef PYRUNC_FUZZ_KERNEL_IMPL_H
#define PYRUNC_FUZZ_KERNEL_IMPL_H

#include "kernel.h"

#define KERNEL_FDS 1024

struct kernel_file {
	bool open, close_on_exec;
	int original; /* the descriptor that it was first */
	bool known;   /* `data` is what it holds; others are read from the fuzzer's bytes */
	const uint8_t *data;
	size_t size, offset;
};

/* The answers, for one call more. */
struct bytes *kernel_answers(void);
/* NULL and EBADF. */
struct kernel_file *kernel_file(int fd);
int kernel_lowest(int lowest);
/* Where a path leads; looks at it. */
void kernel_found(int fd, const char *path);
size_t kernel_path(const char *path);
void kernel_signalled(int pid);
bool kernel_has_cgroups(void);
void kernel_close_range(uint32_t first, uint32_t last, bool only_mark);
void kernel_executed(void);
void kernel_cloned(void);
_Noreturn void kernel_leave(enum ending how, int with);
/* Of fuzz_environ, NULL when it is not there. */
char *kernel_variable(const char *name);
void *kernel_allocate(size_t size);
void kernel_free(void *at);
size_t kernel_size(const void *at);

/* sanitizer/asan_interface.h, which gcc and clang keep in different places */
void *__asan_region_is_poisoned(void *at, size_t size);

#endif
