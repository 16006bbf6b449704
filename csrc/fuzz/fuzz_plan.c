/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init with any bytes as its plan. The first byte says what is put right before: 1 the header, 2 a file for the time
 * of each op; then two bytes with the size of the plan, the plan, and the kernel's answers.
 */
#include <string.h>

#include "plan.h"
#include "kernel.h"

#define SYNC_FD 200
#define PLAN_FD 201
#define STAMPS_FD 202
#define PLAN_BYTES 65536

int init_main(int argc, char **argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t plan[PLAN_BYTES + sizeof(struct plan_header)];

static size_t take_plan(struct bytes *input, bool header)
{
	struct plan_header head = {.magic = PLAN_MAGIC, .format = PLAN_FORMAT, .header_size = sizeof(head)};
	size_t wanted = bytes_u8(input), used = header ? sizeof(head) : 0;
	struct bytes taken;

	wanted |= (size_t)bytes_u8(input) << 8;
	taken = bytes_take(input, wanted);
	memcpy(plan + used, taken.at, (size_t)(taken.end - taken.at));
	used += (size_t)(taken.end - taken.at);
	if (header) {
		memcpy(head.package_version, PYRUNC_VERSION, sizeof(PYRUNC_VERSION));
		head.total_size = (uint32_t)used;
		/* as many records as there are: their own sizes say where the next begins */
		for (size_t at = sizeof(head); at + sizeof(struct plan_record) <= used; head.op_count++) {
			struct plan_record record;

			memcpy(&record, plan + at, sizeof(record));
			if (record.size < sizeof(record) || record.size > used - at)
				break;
			at += record.size;
		}
		memcpy(plan, &head, sizeof(head));
	}
	return used;
}

static int call(void *argument)
{
	char *argv[] = {(char *)"init", (char *)"200", (char *)"201", (char *)"202", NULL};
	bool stamps = *(bool *)argument;

	argv[stamps ? 4 : 3] = NULL;
	return init_main(stamps ? 4 : 3, argv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t times[4096];
	struct bytes input = {data, data + size};
	uint8_t how = bytes_u8(&input);
	size_t used = take_plan(&input, (how & 1) != 0);
	bool stamps = (how & 2) != 0;

	kernel_begin(input);
	kernel_open(SYNC_FD, (struct bytes){NULL, NULL}, false);
	kernel_open(PLAN_FD, (struct bytes){plan, plan + used}, false);
	kernel_open(STAMPS_FD, (struct bytes){times, times + sizeof(times)}, false);
	for (int fd = 100; fd < 108; fd++)
		kernel_open(fd, (struct bytes){NULL, NULL}, false);
	if (kernel_run(call, &stamps) == ENDING_RETURN)
		kernel_finding("init", "came back from main");
	return 0;
}
