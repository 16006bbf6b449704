/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of a profile: any description, or any filter that init's own calls are to pass. The first byte says
 * which. Neither has anything to do with the kernel, so this one keeps the real one.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shim/seccomp_filter.h"

#define PROGRAM_BYTES (64u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool true_here, const char *what)
{
	if (true_here)
		return;
	fprintf(stderr, "FINDING: %s\n", what);
	abort();
}

static void compile(const uint8_t *description, size_t size)
{
	static uint8_t program[PROGRAM_BYTES];
	struct shim_seccomp_result result;
	size_t sum = 0;
	int done = shim_seccomp_compile(description, size, program, sizeof(program), &result);

	if (done < 0)
		return;
	must((size_t)done <= sizeof(program), "more was written than there is room");
	must(result.part_count <= sizeof(result.parts) / sizeof(result.parts[0]), "more parts than there is room");
	for (uint32_t i = 0; i < result.part_count; i++)
		sum += result.parts[i].length;
	must(sum == (size_t)done, "the parts are not the whole");
}

static void own_calls(const uint8_t *filter, size_t size)
{
	static uint8_t front[4096];
	/* a copy of its own size: who reads beyond it is seen */
	uint8_t *copy = malloc(size + 1);
	int done;

	if (!copy)
		return;
	memcpy(copy, filter, size);
	done = shim_seccomp_own_calls(copy, size, 0x1234567890abcdefu, front, sizeof(front));
	must(done <= (int)sizeof(front), "more was written than there is room");
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] & 1)
		own_calls(data + 1, (size - 1) & ~7ul);
	else
		compile(data + 1, size - 1);
	return 0;
}
