/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the plan. It is copied into private memory first, so that it cannot change between a check and a use,
 * and every record is checked before the first op runs: a broken plan has no effect at all.
 */
#include "init.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The arena's fixed part: LOOKUP's path, then "HOME=". It outlives the op that filled it. */
#define ARENA_FIXED (2 * INIT_PATH_MAX)
/* the worst record is a list of one-letter cgroup controllers: a pointer and a copy for each byte */
#define ARENA_FACTOR 10
#define ARENA_SLACK 256

#define OP_LIMIT 64
/* mount trees mostly; finding the next takes a walk through the plan */
#define NAMED_MAX 4096

static const char *const payloads[OP_LIMIT] = {
#define X(number, name, function, payload) [number] = payload,
	PLAN_OPS(X)
#undef X
};

static _Noreturn void broken(struct init *in, const char *text)
{
	fail(in, STEP_PLAN, 0, text);
}

static const uint8_t *take(struct cursor *c, size_t size)
{
	const uint8_t *at = c->at;

	if ((size_t)(c->end - c->at) < size)
		broken(c->in, "a field runs past its record");
	c->at += size;
	return at;
}

uint32_t take_u32(struct cursor *c)
{
	uint32_t value;

	memcpy(&value, take(c, sizeof(value)), sizeof(value));
	return value;
}

uint64_t take_u64(struct cursor *c)
{
	uint64_t value;

	memcpy(&value, take(c, sizeof(value)), sizeof(value));
	return value;
}

int take_fd(struct cursor *c)
{
	int32_t value;

	memcpy(&value, take(c, sizeof(value)), sizeof(value));
	/* a descriptor of ours there would be passed to the program */
	if (value < -1 || (value >= 0 && (uint32_t)value < c->in->close_from) || value == c->in->sync_fd)
		broken(c->in, "a file descriptor of the plan is not one of its own");
	return value;
}

const char *take_string(struct cursor *c)
{
	uint32_t size = take_u32(c);
	const char *text = (const char *)take(c, size);

	if (*take(c, 1) != 0 || memchr(text, 0, size) != NULL)
		broken(c->in, "a string is not NUL-terminated");
	return text;
}

struct blob take_blob(struct cursor *c)
{
	struct blob blob;

	blob.size = take_u32(c);
	blob.data = take(c, blob.size);
	return blob;
}

/* The same, copied to where the kernel's structures may lie, and padded with zeros to a multiple of 8 bytes. */
struct blob take_aligned(struct cursor *c)
{
	struct blob blob = take_blob(c);
	uint8_t *copy = arena_take(c->in, (blob.size + 7u) & ~7u);

	memset(copy, 0, (blob.size + 7u) & ~7u);
	memcpy(copy, blob.data, blob.size);
	blob.data = copy;
	return blob;
}

struct list take_list(struct cursor *c)
{
	struct list list = {.count = take_u32(c)};

	/* an item has 5 bytes at least: refuse a count that the record cannot hold before using it as a size */
	if (list.count > (size_t)(c->end - c->at) / 5)
		broken(c->in, "a list is longer than its record");
	list.items = arena_take(c->in, (list.count + 2u) * sizeof(char *));
	for (uint32_t i = 0; i < list.count; i++)
		list.items[i] = (char *)(uintptr_t)take_string(c);
	list.items[list.count] = NULL;
	return list;
}

struct numbers take_numbers(struct cursor *c)
{
	struct numbers numbers = {.count = take_u32(c)};

	if (numbers.count > (size_t)(c->end - c->at) / sizeof(uint32_t))
		broken(c->in, "a list is longer than its record");
	numbers.values = arena_take(c->in, numbers.count * sizeof(uint32_t));
	for (uint32_t i = 0; i < numbers.count; i++)
		numbers.values[i] = take_u32(c);
	return numbers;
}

void *arena_take(struct init *in, size_t size)
{
	uint8_t *at = in->arena + in->arena_used;

	size = (size + 15) & ~(size_t)15;
	if (size > in->arena_size - in->arena_used)
		broken(in, "a record needs more memory than its size allows");
	in->arena_used += size;
	return at;
}

/* Passes one field; the descriptor when it is one, else -1. */
static int pass_field(struct cursor *c, char letter)
{
	uint32_t count = 1;

	if (letter == 'f')
		return take_fd(c);
	if (letter == 'l' || letter == 'v')
		count = take_u32(c);
	for (; count > 0; count--) {
		if (letter == 'u' || letter == 'v')
			take_u32(c);
		else if (letter == 'q')
			take_u64(c);
		else if (letter == 'b')
			take_blob(c);
		else
			take_string(c);
	}
	return -1;
}

static void check_fields(struct cursor *c, const char *letters)
{
	for (; *letters != '\0'; letters++)
		pass_field(c, *letters);
	if (c->end - c->at > 7)
		broken(c->in, "a record has bytes behind its fields");
	while (c->at < c->end)
		if (*c->at++ != 0)
			broken(c->in, "a record has bytes behind its fields");
}

/* Reads one record's frame; `*at` moves to the next. False at the end of the plan. */
static bool frame(struct init *in, const uint8_t **at, struct plan_record *record, struct cursor *fields)
{
	size_t left = (size_t)(in->plan + in->plan_size - *at);

	if (left == 0)
		return false;
	if (left < sizeof(*record))
		broken(in, "the plan ends inside a record");
	memcpy(record, *at, sizeof(*record));
	if (record->op >= OP_LIMIT || payloads[record->op] == NULL || record->reserved != 0)
		broken(in, "an op number is not known");
	if (record->size < sizeof(*record) || record->size % 8 != 0 || record->size > left)
		broken(in, "a record's size does not fit the plan");
	fields->in = in;
	fields->at = *at + sizeof(*record);
	fields->end = *at + record->size;
	*at += record->size;
	return true;
}

struct cursor plan_fields(struct init *in, const uint8_t *at)
{
	struct plan_record record;
	struct cursor fields;

	if (!frame(in, &at, &record, &fields))
		broken(in, "a record is missing");
	return fields;
}

bool plan_next(struct init *in, const uint8_t **at, uint32_t *op, struct cursor *fields)
{
	struct plan_record record;

	if (!frame(in, at, &record, fields))
		return false;
	in->op_index++;
	in->op_path = record.path;
	in->arena_used = ARENA_FIXED;
	*op = record.op;
	return true;
}

/* CLOSE_FROM first: the check of every file descriptor needs it. */
static void find_landmarks(struct init *in)
{
	const uint8_t *at = in->plan + sizeof(struct plan_header), *start = at;
	struct plan_record record;
	struct cursor fields;

	while (frame(in, &at, &record, &fields)) {
		if (record.op == PLAN_OP_CLOSE_FROM)
			in->close_from = take_u32(&fields);
		if (record.op == PLAN_OP_UMASK)
			in->umask_set = true;
		if (record.op == PLAN_OP_START_WAIT)
			in->waits = true;
		if (record.op == PLAN_OP_EXEC)
			in->exec_record = start;
		if (record.op == PLAN_OP_SECCOMP)
			in->filter_record = start;
		/* take_fd() cannot be asked before close_from is known */
		if (record.op == PLAN_OP_FORK && (take_u32(&fields) >> 31) == 0)
			in->leaves = true;
		start = at;
	}
	if (in->close_from < 3 || (uint32_t)in->sync_fd < in->close_from)
		broken(in, "the program would be given one of init's own file descriptors");
}

static void check_records(struct init *in)
{
	const uint8_t *at = in->plan + sizeof(struct plan_header);
	struct plan_record record = {.op = 0};
	struct cursor fields;
	uint32_t index = 0, largest = 0;

	find_landmarks(in);
	for (; frame(in, &at, &record, &fields); index++) {
		in->op_index = index;
		in->op_path = record.path;
		check_fields(&fields, payloads[record.op]);
		if (record.size > largest)
			largest = record.size;
	}
	in->op_index = in->op_path = PLAN_NO_PATH;
	if (index != in->op_count)
		broken(in, "the number of records is not the number stated");
	/* START_WAIT: a container without a process, which is created but cannot be started */
	if (record.op != PLAN_OP_EXEC && record.op != PLAN_OP_DONE && record.op != PLAN_OP_START_WAIT)
		broken(in, "the plan has no end");
	in->arena_size = ARENA_FIXED + (size_t)largest * ARENA_FACTOR + ARENA_SLACK;
}

/* The lowest descriptor from `low` on that is init's or one of its plan's; INT32_MAX if there is none. */
static int next_named(struct init *in, int low)
{
	const uint8_t *at = in->plan + sizeof(struct plan_header);
	int found = in->sync_fd >= low ? in->sync_fd : INT32_MAX;
	struct plan_record record;
	struct cursor fields;

	while (frame(in, &at, &record, &fields)) {
		for (const char *letter = payloads[record.op]; *letter != '\0'; letter++) {
			int fd = pass_field(&fields, *letter);

			if (fd >= low && fd < found)
				found = fd;
		}
	}
	return found;
}

/*
 * Engines leak descriptors into their runtimes (a shim its control socket, a shell its pipes): closed now, not when the
 * program starts, since a waiting container would keep them open for its caller.
 */
void plan_close_others(struct init *in)
{
	int low = (int)in->close_from;

	for (int named = 0; named < NAMED_MAX; named++) {
		int next = next_named(in, low);
		unsigned int last = next == INT32_MAX ? ~0u : (unsigned int)next - 1;

		if (next > low && syscall(SYS_close_range, low, last, 0) < 0)
			fail(in, STEP_CLOSE_RANGE, errno, "");
		if (next == INT32_MAX)
			return;
		low = next + 1;
	}
	broken(in, "too many file descriptors");
}

static void *anonymous(struct init *in, size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		fail(in, STEP_MEMORY, errno, "");
	return memory;
}

static void read_bytes(struct init *in, int fd, uint8_t *to, size_t size, size_t offset)
{
	while (size > 0) {
		ssize_t n = pread(fd, to, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			fail(in, STEP_READ, errno, "the plan");
		if (n == 0)
			broken(in, "the plan is shorter than it states");
		to += n;
		offset += (size_t)n;
		size -= (size_t)n;
	}
}

void plan_load(struct init *in, int plan_fd)
{
	struct plan_header header;
	struct stat st;
	uint8_t *bytes;

	read_bytes(in, plan_fd, (uint8_t *)&header, sizeof(header), 0);
	if (header.magic != PLAN_MAGIC)
		broken(in, "this is not a plan");
	if (header.format != PLAN_FORMAT || header.header_size != sizeof(header))
		broken(in, "the plan has another format");
	if (strncmp(header.package_version, PYRUNC_VERSION, sizeof(header.package_version)) != 0)
		broken(in, "the plan is of another version of pyrunc than init (" PYRUNC_VERSION ")");
	if (fstat(plan_fd, &st) < 0)
		fail(in, STEP_FSTAT, errno, "the plan");
	if (header.total_size < sizeof(header) || header.total_size > PLAN_MAX_SIZE ||
	    (uint64_t)st.st_size != header.total_size)
		broken(in, "the plan's size is not the size it states");
	bytes = anonymous(in, header.total_size);
	read_bytes(in, plan_fd, bytes, header.total_size, 0);
	close(plan_fd);
	mprotect(bytes, header.total_size, PROT_READ);
	in->plan = bytes;
	in->plan_size = header.total_size;
	in->op_count = header.op_count;
	check_records(in);
	in->arena = anonymous(in, in->arena_size);
	in->arena_used = ARENA_FIXED;
	in->program = (char *)in->arena;
	in->home = (char *)in->arena + INIT_PATH_MAX;
}

/* Other processes may read our memory soon: they must not learn about the host from the plan. */
void plan_forget_behind(struct init *in, const uint8_t *needed)
{
	if (mprotect((void *)(uintptr_t)in->plan, in->plan_size, PROT_READ | PROT_WRITE) < 0)
		fail(in, STEP_MEMORY, errno, "");
	memset((void *)(uintptr_t)in->plan, 0, (size_t)(needed - in->plan));
	memset(in->arena + ARENA_FIXED, 0, in->arena_size - ARENA_FIXED);
	mprotect((void *)(uintptr_t)in->plan, in->plan_size, PROT_READ);
}

/* The container may wait for its start for days: free the part that has been executed. */
void plan_drop_behind(struct init *in, const uint8_t *needed)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	size_t done = (size_t)(needed - in->plan) & ~(size_t)(page - 1);

	if (done > 0)
		madvise((void *)(uintptr_t)in->plan, done, MADV_DONTNEED);
	madvise(in->arena + ARENA_FIXED, in->arena_size - ARENA_FIXED, MADV_DONTNEED);
}
