/* SPDX-License-Identifier: Apache-2.0 */
/* The stub's own state: answers, descriptors, memory, and how a run ends. the other files have the calls. */
#include "kernel.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_impl.h"

/* Far more than any program of ours makes; who comes here goes round for ever. */
#define CALLS_MAX 2000000u
#define BLOCKS_MAX 4096
#define NAMES_MAX 8

static struct bytes answers;
static struct kernel_file table[KERNEL_FDS];
static struct kernel_rules rules;
static struct {
	const char *name;
	struct bytes data;
} names[NAMES_MAX];
static size_t name_count;
static uint32_t calls;
static jmp_buf way_out;
static enum ending ending;
static int status;
static struct block {
	void *at;
	size_t size;
} blocks[BLOCKS_MAX];
static size_t block_count;

/* stub.py puts the fuzzed variables here; the linker knows where that is. */
extern uint8_t __start_fuzzed_bss[] __attribute__((weak)), __stop_fuzzed_bss[] __attribute__((weak));
extern uint8_t __start_fuzzed_data[] __attribute__((weak)), __stop_fuzzed_data[] __attribute__((weak));

static const int errors[] = {
	EPERM,   ENOENT, EINTR,  EIO,    EBADF,  ENOMEM,     EACCES, EBUSY,     EEXIST, EXDEV,        ENODEV,
	ENOTDIR, EISDIR, EINVAL, EMFILE, ENOSPC, EPIPE,      EROFS,  ENOSYS,    ELOOP,  ENAMETOOLONG, ENOTEMPTY,
	EAGAIN,  ESRCH,  ENFILE, E2BIG,  ENXIO,  EOPNOTSUPP, EDQUOT, EOVERFLOW, ECHILD,
};

_Noreturn void kernel_finding(const char *what, const char *detail)
{
	fprintf(stderr, "FINDING: %s: %s\n", what, detail);
	abort();
}

uint8_t bytes_u8(struct bytes *bytes)
{
	return bytes->at < bytes->end ? *bytes->at++ : 0;
}

uint32_t bytes_u32(struct bytes *bytes)
{
	uint32_t value = 0;

	for (int i = 0; i < 4; i++)
		value |= (uint32_t)bytes_u8(bytes) << (8 * i);
	return value;
}

struct bytes bytes_take(struct bytes *bytes, size_t size)
{
	struct bytes taken = {bytes->at, bytes->end};

	if ((size_t)(taken.end - taken.at) > size)
		taken.end = taken.at + size;
	bytes->at = taken.end;
	return taken;
}

struct bytes *kernel_answers(void)
{
	if (++calls > CALLS_MAX)
		kernel_finding("it does not end", "too many system calls");
	return &answers;
}

long kernel_answer(long good)
{
	uint8_t choice = bytes_u8(kernel_answers());

	if (choice == 0 || choice > sizeof(errors) / sizeof(errors[0]))
		return good;
	errno = errors[choice - 1];
	return -1;
}

void kernel_look(const void *data, size_t size)
{
	const volatile uint8_t *bad = size == 0 ? NULL : __asan_region_is_poisoned((void *)(uintptr_t)data, size);

	if (bad)
		(void)*bad; /* the sanitizer has the words for it */
}

size_t kernel_look_text(const char *text)
{
	size_t size = strlen(text);

	kernel_look(text, size + 1);
	return size;
}

struct kernel_file *kernel_file(int fd)
{
	if (fd >= 0 && fd < KERNEL_FDS && table[fd].open)
		return &table[fd];
	errno = EBADF;
	return NULL;
}

int kernel_lowest(int lowest)
{
	for (int fd = lowest < 0 ? 0 : lowest; fd < KERNEL_FDS; fd++)
		if (!table[fd].open)
			return fd;
	errno = EMFILE;
	return -1;
}

int kernel_new(int lowest, bool close_on_exec)
{
	int fd = kernel_answer(0) < 0 ? -1 : kernel_lowest(lowest);

	if (fd >= 0)
		table[fd] = (struct kernel_file){.open = true, .close_on_exec = close_on_exec, .original = fd};
	return fd;
}

void kernel_open(int fd, struct bytes data, bool close_on_exec)
{
	table[fd] = (struct kernel_file){.open = true, .close_on_exec = close_on_exec, .known = true, .data = data.at};
	table[fd].original = fd;
	table[fd].size = (size_t)(data.end - data.at);
}

void kernel_close_range(uint32_t first, uint32_t last, bool only_mark)
{
	for (uint32_t fd = first; fd <= last && fd < KERNEL_FDS; fd++) {
		if (only_mark)
			table[fd].close_on_exec = true;
		else
			table[fd].open = false;
	}
}

void kernel_rules(struct kernel_rules these)
{
	rules = these;
}

void kernel_name(const char *name, struct bytes data)
{
	if (name_count == NAMES_MAX)
		abort();
	names[name_count].name = name;
	names[name_count++].data = data;
}

bool kernel_has_cgroups(void)
{
	return rules.cgroups;
}

static bool leads_up(const char *path)
{
	for (const char *at = path; (at = strstr(at, "..")); at++)
		if ((at == path || at[-1] == '/') && (at[2] == '\0' || at[2] == '/') && strcmp(path, "..") != 0)
			return true;
	return false;
}

size_t kernel_path(const char *path)
{
	size_t size = kernel_look_text(path);

	if (rules.never_up && leads_up(path))
		kernel_finding("a path leads up", path);
	return size;
}

void kernel_found(int fd, const char *path)
{
	const char *slash = strrchr(path, '/');

	for (size_t i = 0; i < name_count; i++) {
		if (strcmp(path, names[i].name) != 0 && (!slash || strcmp(slash + 1, names[i].name) != 0))
			continue;
		kernel_open(fd, names[i].data, table[fd].close_on_exec);
		return;
	}
}

void kernel_signalled(int pid)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", pid);
	if (rules.one_by_one && pid <= 1)
		kernel_finding("a signal for more than one process, or for 1", number);
}

/* No program gets what nobody meant it to have. */
void kernel_executed(void)
{
	char number[16];

	for (uint32_t fd = 3; rules.program_fds && fd < KERNEL_FDS; fd++) {
		if (!table[fd].open || table[fd].close_on_exec || fd < rules.program_fds)
			continue;
		snprintf(number, sizeof(number), "%u", fd);
		kernel_finding("a descriptor is left to the program", number);
	}
}

/* Others may see the child, and take what it has. */
void kernel_cloned(void)
{
	char number[16];

	for (int fd = 3; rules.child_may_have && fd < KERNEL_FDS; fd++) {
		if (!table[fd].open || rules.child_may_have(fd, table[fd].original))
			continue;
		snprintf(number, sizeof(number), "%d", fd);
		kernel_finding("a descriptor is open in the child", number);
	}
}

static void look_for_leftovers(void)
{
	char number[16];

	for (int fd = 3; fd < KERNEL_FDS; fd++) {
		if (!table[fd].open)
			continue;
		snprintf(number, sizeof(number), "%d", fd);
		kernel_finding("a descriptor is left open", number);
	}
	if (block_count > 0) {
		snprintf(number, sizeof(number), "%zu bytes", blocks[0].size);
		kernel_finding("memory is not freed", number);
	}
}

_Noreturn void kernel_leave(enum ending how, int with)
{
	ending = how;
	status = with;
	longjmp(way_out, 1);
}

void *kernel_allocate(size_t size)
{
	void *at = block_count < BLOCKS_MAX ? calloc(1, size ? size : 1) : NULL;

	if (!at) {
		errno = ENOMEM;
		return NULL;
	}
	blocks[block_count].at = at;
	blocks[block_count++].size = size;
	return at;
}

size_t kernel_size(const void *at)
{
	for (size_t i = block_count; i-- > 0;)
		if (blocks[i].at == at)
			return blocks[i].size;
	kernel_finding("asked for more", "of what was not allocated");
}

void kernel_free(void *at)
{
	if (!at)
		return;
	for (size_t i = block_count; i-- > 0;) {
		if (blocks[i].at != at)
			continue;
		blocks[i] = blocks[--block_count];
		free(at);
		return;
	}
	kernel_finding("freed", "what was not allocated");
}

/* The run's variables as they were before it. Red zones between them are no variables, and not for the sanitizer. */
__attribute__((no_sanitize("address", "undefined"))) static void copy(uint8_t *to, const uint8_t *from, size_t size)
{
	size_t i = 0;

	for (; i + sizeof(uint64_t) <= size; i += sizeof(uint64_t))
		*(uint64_t *)(void *)(to + i) = *(const uint64_t *)(const void *)(from + i);
	for (; i < size; i++)
		to[i] = from[i];
}

static void put_back(bool save)
{
	static uint8_t *bss, *data;
	size_t bss_size = (size_t)(__stop_fuzzed_bss - __start_fuzzed_bss);
	size_t data_size = (size_t)(__stop_fuzzed_data - __start_fuzzed_data);

	if (save && !bss) {
		bss = malloc(bss_size + 1);
		data = malloc(data_size + 1);
		if (!bss || !data)
			abort();
		copy(bss, __start_fuzzed_bss, bss_size);
		copy(data, __start_fuzzed_data, data_size);
	} else if (!save) {
		copy(__start_fuzzed_bss, bss, bss_size);
		copy(__start_fuzzed_data, data, data_size);
	}
}

void kernel_begin(struct bytes from)
{
	answers = from;
	calls = 0;
	rules = (struct kernel_rules){0};
	name_count = 0;
	memset(table, 0, sizeof(table));
	for (int fd = 0; fd < 3; fd++)
		table[fd].open = true;
}

enum ending kernel_run(int (*function)(void *), void *argument)
{
	put_back(true);
	if (setjmp(way_out) == 0) {
		status = function(argument);
		ending = ENDING_RETURN;
		if (rules.nothing_left)
			look_for_leftovers();
	}
	while (block_count > 0)
		free(blocks[--block_count].at);
	put_back(false);
	return ending;
}

int kernel_status(void)
{
	return status;
}

char **fuzz_environ;

char *kernel_variable(const char *name)
{
	size_t size = strlen(name);

	for (char **entry = fuzz_environ; entry && *entry; entry++)
		if (strncmp(*entry, name, size) == 0 && (*entry)[size] == '=')
			return *entry + size + 1;
	return NULL;
}
