/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init with plans that are plans: ops in any order with any fields, made from the bytes up to an op number of 255; the
 * rest are the kernel's answers.
 */
#include <string.h>

#include "plan.h"
#include "kernel.h"

#define SYNC_FD 200
#define PLAN_FD 201
#define STAMPS_FD 202
#define PLAN_BYTES (64u << 10)
/* a record's fields are cut off here: long strings are what it is for */
#define RECORD_BYTES (12u << 10)

int init_main(int argc, char **argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
	uint16_t op;
	const char *payload;
} ops[] = {
#define X(number, name, function, payload) {number, payload},
	PLAN_OPS(X)
#undef X
};

/* What paths, types and parameters look like; the last is longer than any path may be. */
static const char *const words[] = {
	"",
	"/",
	"/proc",
	"/dev/null",
	"/dev/pts",
	"/a/../b",
	"a/b/./c//d/",
	"..",
	"tmpfs",
	"mode=0755",
	"context=\"a,b\"",
	"context=u:r:t:s0:c1,c2",
	"HOME=/root",
	"HOME=",
	"PATH=/bin:/usr/bin",
	"/bin:::/usr/bin",
	"/proc/self/fd",
	"self/fd/7",
	"ro",
	"overlay",
};

static uint8_t plan[PLAN_BYTES];
static uint32_t used, count;
static uint32_t close_from;
/* the plan's child is seen by others: FORK has pipes, and no op before it keeps what it opens on purpose */
static bool leaves;
static int32_t pipes[2];

static void put(const void *data, size_t size, uint32_t end)
{
	if (used + size > end) /* the record has no room for it: it becomes a broken one */
		return;
	memcpy(plan + used, data, size);
	used += (uint32_t)size;
}

static uint64_t number(struct bytes *input, bool wide)
{
	uint8_t choice = bytes_u8(input);
	uint64_t value;

	if (choice < 0x80)
		return choice;
	if (choice < 0xc0)
		return 1ull << (choice & 63);
	if (choice < 0xe0)
		return UINT64_MAX - (choice & 31);
	value = bytes_u32(input);
	return wide ? value | (uint64_t)bytes_u32(input) << 32 : value;
}

static void put_number(uint64_t value, bool wide, uint32_t end)
{
	uint32_t narrow = (uint32_t)value;

	if (wide)
		put(&value, sizeof(value), end);
	else
		put(&narrow, sizeof(narrow), end);
}

static void put_long(uint32_t size, uint32_t end)
{
	put(&size, sizeof(size), end);
	for (uint32_t i = 0; i < size; i++)
		put(i % 255 == 254 ? "/" : "x", 1, end);
	put("", 1, end);
}

static void put_string(struct bytes *input, uint32_t end)
{
	uint8_t choice = bytes_u8(input);
	struct bytes text;
	uint32_t size;

	if (choice >= 0xf0) {
		put_long(choice < 0xf8 ? 32u << (choice & 7) : 4080u + (choice & 7) * 5u, end);
		return;
	}
	if (choice >= 0xd0) {
		const char *word = words[(choice - 0xd0u) % (sizeof(words) / sizeof(words[0]))];

		text = (struct bytes){(const uint8_t *)word, (const uint8_t *)word + strlen(word)};
	} else {
		text = bytes_take(input, choice);
	}
	size = (uint32_t)(text.end - text.at);
	put(&size, sizeof(size), end);
	for (; text.at < text.end; text.at++)
		put(*text.at ? (const void *)text.at : "/", 1, end);
	put("", 1, end);
}

static void put_blob(struct bytes *input, uint32_t end)
{
	struct bytes taken = bytes_take(input, bytes_u8(input));
	uint32_t size = (uint32_t)(taken.end - taken.at);

	put(&size, sizeof(size), end);
	put(taken.at, size, end);
}

/* -1, or one of those that are there: nobody's business is what a wrong number does, the plan fuzzer has those */
static void put_fd(struct bytes *input, uint32_t end)
{
	int32_t fd = bytes_u8(input) % 9;

	fd = fd == 8 ? -1 : 100 + fd;
	put(&fd, sizeof(fd), end);
}

static void put_field(struct bytes *input, char letter, uint32_t end)
{
	uint32_t items = letter == 'l' || letter == 'v' ? bytes_u8(input) % 12 : 1;

	if (letter == 'l' || letter == 'v')
		put(&items, sizeof(items), end);
	for (; items > 0; items--) {
		if (letter == 'f')
			put_fd(input, end);
		else if (letter == 'b')
			put_blob(input, end);
		else if (letter == 's' || letter == 'l')
			put_string(input, end);
		else
			put_number(number(input, letter == 'q'), letter == 'q', end);
	}
}

static bool put_record(struct bytes *input, uint8_t which)
{
	struct plan_record record = {.path = count};
	uint32_t start = used, end = start + RECORD_BYTES;
	const char *letter = ops[which].payload;

	if (end + 64 > sizeof(plan))
		return false;
	record.op = ops[which].op;
	used += sizeof(record);
	/* the kernel side has eight descriptors for the program: more is the plan fuzzer's business */
	if (record.op == PLAN_OP_CLOSE_FROM) {
		close_from = 3 + bytes_u8(input) % 20;
		put(&close_from, sizeof(close_from), end);
		letter++;
	}
	if (record.op == PLAN_OP_FORK) {
		uint8_t choice = bytes_u8(input);

		pipes[0] = choice & 1 ? 106 : -1;
		pipes[1] = choice & 1 ? 107 : -1;
		put(pipes, sizeof(pipes), end);
		letter += 2;
		leaves = leaves && (choice & 1) != 0;
	}
	if (record.op == PLAN_OP_TREE || record.op == PLAN_OP_ADD_BEGIN || record.op == PLAN_OP_START_WAIT)
		leaves = false;
	for (; *letter != '\0'; letter++)
		put_field(input, *letter, end);
	while (used % 8 != 0)
		plan[used++] = 0;
	record.size = used - start;
	memcpy(plan + start, &record, sizeof(record));
	count++;
	return record.op != PLAN_OP_EXEC && record.op != PLAN_OP_DONE;
}

static void make_plan(struct bytes *input)
{
	struct plan_header head = {.magic = PLAN_MAGIC, .format = PLAN_FORMAT, .header_size = sizeof(head)};
	struct bytes none = {NULL, NULL};
	bool ended = false;

	used = sizeof(head);
	count = close_from = 0;
	leaves = true;
	while (!ended && input->at < input->end) {
		uint8_t which = bytes_u8(input);

		if (which == 0xff)
			break;
		ended = !put_record(input, which % (sizeof(ops) / sizeof(ops[0])));
	}
	for (uint8_t which = 0; !ended && which < sizeof(ops) / sizeof(ops[0]); which++)
		if (ops[which].op == PLAN_OP_EXEC)
			ended = !put_record(&none, which);
	memcpy(head.package_version, PYRUNC_VERSION, sizeof(PYRUNC_VERSION));
	head.total_size = used;
	head.op_count = count;
	memcpy(plan, &head, sizeof(head));
}

/* What the plan names, and what the program is to have; but not the socket under another number. */
static bool child_may_have(int fd, int original)
{
	return original != SYNC_FD && ((fd >= 100 && fd < 108) || fd < (int)close_from);
}

static int call(void *argument)
{
	char *argv[] = {(char *)"init", (char *)"200", (char *)"201", (char *)"202", NULL};
	int argc = *(int *)argument;

	argv[argc] = NULL;
	return init_main(argc, argv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t times[sizeof(uint64_t) * 8192];
	struct bytes input = {data, data + size};
	uint8_t how = bytes_u8(&input);
	int argc = (how & 1) != 0 ? 4 : 3;

	make_plan(&input);
	kernel_begin(input);
	kernel_open(SYNC_FD, (struct bytes){NULL, NULL}, false);
	kernel_open(PLAN_FD, (struct bytes){plan, plan + used}, false);
	kernel_open(STAMPS_FD, (struct bytes){times, times + sizeof(times)}, false);
	/* some that the plan names, some that an engine leaked */
	for (int fd = 100; fd < 110; fd++)
		kernel_open(fd, (struct bytes){NULL, NULL}, false);
	for (int fd = 3; fd < 3 + (how >> 4); fd++)
		kernel_open(fd, (struct bytes){NULL, NULL}, (how & 2) != 0);
	kernel_rules((struct kernel_rules){
		.program_fds = close_from > 3 ? close_from : 3,
		.child_may_have = leaves ? child_may_have : NULL,
	});
	if (kernel_run(call, &argc) == ENDING_RETURN)
		kernel_finding("init", "came back from main");
	return 0;
}
