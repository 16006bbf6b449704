/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command with any arguments and any environment. Each is a string up to a byte 0; two bytes before them say how
 * many of each there are, what follows are the kernel's answers. It may answer, or become Python.
 */
#include <string.h>

#include "kernel.h"

#define STRINGS_MAX 24
#define TEXT_MAX 8192

int command_main(int argc, char **argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char text[TEXT_MAX];
static size_t used;

static int take_strings(struct bytes *input, char **to, uint32_t count)
{
	int taken = 0;

	for (; count > 0 && input->at < input->end && used + 1 < sizeof(text); count--) {
		const uint8_t *end = memchr(input->at, 0, (size_t)(input->end - input->at));
		struct bytes one = {input->at, end ? end : input->end};
		size_t size = (size_t)(one.end - one.at);

		if (size > sizeof(text) - used - 1)
			size = sizeof(text) - used - 1;
		memcpy(text + used, one.at, size);
		text[used + size] = '\0';
		to[taken++] = text + used;
		used += size + 1;
		input->at = end ? end + 1 : input->end;
	}
	to[taken] = NULL;
	return taken;
}

static char *arguments[STRINGS_MAX + 2];
static int argument_count;

static int call(void *argument)
{
	(void)argument;
	return command_main(argument_count, arguments);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char *environment[STRINGS_MAX + 1];
	static const char state[] = "version 1\npid 0\nstarttime 0\nneeds \npidns private\n\n{\n  \"pid\": 0,\n"
				    "  \"status\": \"stopped\",\n  \"id\": \"one\"\n}\n";
	struct bytes input = {data, data + size};
	uint32_t words = bytes_u8(&input) % STRINGS_MAX, variables = bytes_u8(&input) % STRINGS_MAX;

	used = 0;
	arguments[0] = (char *)"pyrunc";
	argument_count = 1 + take_strings(&input, arguments + 1, words);
	(void)take_strings(&input, environment, variables);
	fuzz_environ = environment;
	kernel_begin(input);
	kernel_rules((struct kernel_rules){.one_by_one = true});
	kernel_name("state", (struct bytes){(const uint8_t *)state, (const uint8_t *)state + sizeof(state) - 1});
	(void)kernel_run(call, NULL);
	return 0;
}
