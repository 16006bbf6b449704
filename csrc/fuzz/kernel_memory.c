/* SPDX-License-Identifier: Apache-2.0 */
/* Memory is the heap's, so that the sanitizer knows where each piece ends. */
#include "kernel.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "kernel_impl.h"

/* Declared by nobody: their names are made by stub.py. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

void *fuzz_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
	void *memory;

	(void)prot;
	/* at a place of the caller's choice there is nothing that could be given */
	if (kernel_answer(0) < 0 || (flags & (MAP_FIXED | 0x100000)) != 0 || size > 256u << 20) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	(void)at;
	memory = kernel_allocate(size);
	if (memory && fd >= 0 && kernel_file(fd) && kernel_file(fd)->known && kernel_file(fd)->data &&
	    (size_t)offset < kernel_file(fd)->size) {
		size_t left = kernel_file(fd)->size - (size_t)offset;

		memcpy(memory, kernel_file(fd)->data + offset, left < size ? left : size);
	}
	return memory ? memory : MAP_FAILED;
}

void *fuzz_mremap(void *at)
{
	(void)at;
	errno = ENOMEM;
	return MAP_FAILED;
}

int fuzz_madvise(void *at, size_t size, int advice)
{
	if (kernel_answer(0) < 0)
		return -1;
	/* what is given back reads as zeros: who still wanted it will notice */
	if (advice == MADV_DONTNEED)
		memset(at, 0, size);
	return 0;
}

void *fuzz_malloc(size_t size)
{
	return kernel_answer(0) < 0 ? NULL : kernel_allocate(size);
}

void *fuzz_calloc(size_t count, size_t size)
{
	return fuzz_malloc(count * size);
}

void *fuzz_realloc(void *at, size_t size)
{
	void *fresh = fuzz_malloc(size);

	if (fresh && at) {
		size_t was = kernel_size(at);

		memcpy(fresh, at, was < size ? was : size);
		kernel_free(at);
	}
	return fresh;
}

void *fuzz_reallocarray(void *at, size_t count, size_t size)
{
	return fuzz_realloc(at, count * size);
}

char *fuzz_strdup(const char *text)
{
	size_t size = kernel_look_text(text) + 1;
	char *copy = fuzz_malloc(size);

	return copy ? memcpy(copy, text, size) : NULL;
}

void fuzz_free(void *at)
{
	kernel_free(at);
}

/* fuzz_environ is the fuzzer's */
char *fuzz_getenv(const char *name)
{
	kernel_look_text(name);
	return kernel_variable(name);
}

unsigned long fuzz_getauxval(unsigned long type)
{
	(void)type;
	return 4096;
}
