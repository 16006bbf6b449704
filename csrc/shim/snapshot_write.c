/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "snapshot_write.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/snapshot_file.h"

#if defined(__x86_64__)

/* How far into a thread's descriptor its tid is looked for. */
#define DESCRIPTOR_WORDS 512
/* Room for the stack to grow: what RLIMIT_STACK usually gives. */
#define STACK_ROOM (8ul << 20)
/* As many pages of zeros in a row are worth a mapping of their own. */
#define ZERO_RUN 8

/* Below what malloc would map instead, and enough of them for any heap that has just begun. */
#define HEAP_PIECE (96ul << 10)
#define HEAP_PIECES 64

extern char **environ;

/* What changes while memory is written: a mapping of its own, which stays out of the snapshot. */
struct work {
	struct snapshot_head head;
	char maps[1 << 17];
	char page[SNAPSHOT_PAGE];
};

static struct work *work;
static struct sigaction actions[SNAPSHOT_SIGNALS];
static int *tid_place;

/*
 * Returns 0 when the registers are saved, and once more, with 1, in the process that the snapshot becomes: it loads
 * `kept` and `stack` and jumps to `resume`. No libc function does that across processes: setjmp mangles.
 */
__attribute__((naked, noinline, returns_twice)) static int save_registers(struct snapshot_registers *registers)
{
	(void)registers;
	__asm__("movq %rbx, 0(%rdi)\n\t"
		"movq %rbp, 8(%rdi)\n\t"
		"movq %r12, 16(%rdi)\n\t"
		"movq %r13, 24(%rdi)\n\t"
		"movq %r14, 32(%rdi)\n\t"
		"movq %r15, 40(%rdi)\n\t"
		"leaq 8(%rsp), %rax\n\t"
		"movq %rax, 48(%rdi)\n\t"
		"movq (%rsp), %rax\n\t"
		"movq %rax, 56(%rdi)\n\t"
		"movq %fs:0, %rax\n\t"
		"movq %rax, 64(%rdi)\n\t"
		"xorl %eax, %eax\n\t"
		"ret");
}

/* The words of the thread's descriptor that hold its tid; libc reads it there instead of asking. */
static void mark_tid(bool holds[DESCRIPTOR_WORDS], bool first)
{
	const int *words = (const int *)work->head.registers.thread;
	int tid = (int)syscall(SYS_gettid);

	for (int i = 0; i < DESCRIPTOR_WORDS; i++)
		holds[i] = (first || holds[i]) && words[i] == tid;
}

/* One number may be equal by chance, so that a forked child, whose tid is another one, has to agree. */
static int find_tid(void)
{
	bool *holds = mmap(NULL, SNAPSHOT_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int found = 0, status = 0;

	if (holds == MAP_FAILED)
		return -errno;
	mark_tid(holds, true);
	pid_t pid = fork();
	if (pid == 0) {
		mark_tid(holds, false);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -errno;
	for (int i = 0; i < DESCRIPTOR_WORDS; i++) {
		if (holds[i]) {
			tid_place = (int *)work->head.registers.thread + i;
			found++;
		}
	}
	(void)munmap(holds, SNAPSHOT_PAGE);
	return found == 1 ? 0 : -EOPNOTSUPP;
}

static int read_file(const char *path, char *text, size_t size)
{
	size_t have = 0;
	ssize_t got;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	while (have < size - 1 && (got = read(fd, text + have, size - 1 - have)) > 0)
		have += (size_t)got;
	(void)close(fd);
	text[have] = '\0';
	return have < size - 1 ? (int)have : -EFBIG;
}

/* The index of a file in head.files, or -errno. */
static int note_file(const char *path)
{
	struct stat status;

	for (uint32_t i = 0; i < work->head.file_count; i++)
		if (strcmp(work->head.files[i].path, path) == 0)
			return (int)i;
	if (work->head.file_count == SNAPSHOT_FILES || strlen(path) >= SNAPSHOT_PATH)
		return -EOPNOTSUPP;
	if (stat(path, &status) < 0)
		return -errno;
	struct snapshot_file *file = &work->head.files[work->head.file_count];
	*file = (struct snapshot_file){
		.device = status.st_dev,
		.inode = status.st_ino,
		.size = (uint64_t)status.st_size,
		.changed = {status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec,
			    status.st_ctim.tv_nsec},
	};
	strcpy(file->path, path);
	return (int)work->head.file_count++;
}

static int add_segment(uint64_t start, uint64_t size, uint64_t offset, uint32_t prot, int file)
{
	if (size == 0)
		return 0;
	if (work->head.segment_count == SNAPSHOT_SEGMENTS)
		return -EOPNOTSUPP;
	work->head.segments[work->head.segment_count++] = (struct snapshot_segment){start, size, offset, prot, file};
	return 0;
}

/* Whether the memory equals its file at that place. */
static bool is_file_content(int fd, uint64_t start, uint64_t size, uint64_t offset)
{
	for (uint64_t at = 0; at < size; at += SNAPSHOT_PAGE) {
		ssize_t got = pread(fd, work->page, SNAPSHOT_PAGE, (off_t)(offset + at));
		if (got <= 0)
			return false;
		memset(work->page + got, 0, SNAPSHOT_PAGE - (size_t)got);
		if (memcmp((const char *)(start + at), work->page, SNAPSHOT_PAGE) != 0)
			return false;
	}
	return true;
}

static bool is_zero(uint64_t page)
{
	const uint64_t *words = (const uint64_t *)page;

	for (size_t i = 0; i < SNAPSHOT_PAGE / sizeof(*words); i++)
		if (words[i])
			return false;
	return true;
}

/* Memory that goes into the snapshot; long runs of zeros stay out of it. */
static int add_memory(uint64_t start, uint64_t end, uint32_t prot)
{
	uint64_t kept = start, at = start;
	int result = 0;

	while (at < end && result == 0) {
		uint64_t run = at;
		while (run < end && is_zero(run))
			run += SNAPSHOT_PAGE;
		if (run - at >= ZERO_RUN * SNAPSHOT_PAGE || (run == end && run > at)) {
			result = add_segment(kept, at - kept, 0, prot, SNAPSHOT_ITSELF);
			if (result == 0)
				result = add_segment(at, run - at, 0, prot, SNAPSHOT_ZERO);
			kept = run;
		}
		at = run > at ? run : at + SNAPSHOT_PAGE;
	}
	return result ? result : add_segment(kept, end - kept, 0, prot, SNAPSHOT_ITSELF);
}

struct mapping {
	uint64_t start, end, offset, inode;
	char access[5];
	const char *path;
};

static int add_file_mapping(const struct mapping *map, uint32_t prot)
{
	int file = note_file(map->path);

	if (file < 0)
		return file;
	int fd = open(map->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	bool same = is_file_content(fd, map->start, map->end - map->start, map->offset);
	(void)close(fd);
	if (same)
		return add_segment(map->start, map->end - map->start, map->offset, prot, file);
	/* Written to before it was protected: what the dynamic linker relocated. */
	return prot & PROT_EXEC ? -EOPNOTSUPP : add_memory(map->start, map->end, prot);
}

static int add_kernel_part(const struct mapping *map)
{
	if (work->head.kernel_part_count == SNAPSHOT_KERNEL_PARTS)
		return -EOPNOTSUPP;
	if (strcmp(map->path, "[vdso]") == 0)
		work->head.vdso = map->start;
	work->head.kernel_parts[work->head.kernel_part_count++] =
		(struct snapshot_kernel_part){(int64_t)map->start, map->end - map->start};
	return 0;
}

static int add_stack(const struct mapping *map, uint32_t prot)
{
	uint64_t used = work->head.registers.stack & ~(SNAPSHOT_PAGE - 1);
	int result = add_segment(map->end - STACK_ROOM, used - (map->end - STACK_ROOM), 0, prot, SNAPSHOT_ZERO);

	return result ? result : add_segment(used, map->end - used, 0, prot, SNAPSHOT_ITSELF);
}

static int add_mapping(const struct mapping *map)
{
	uint32_t prot = 0;

	if (map->start == (uint64_t)work || strcmp(map->path, "[vsyscall]") == 0)
		return 0;
	if (strncmp(map->path, "[v", 2) == 0)
		return add_kernel_part(map);
	prot |= map->access[0] == 'r' ? PROT_READ : 0;
	prot |= map->access[1] == 'w' ? PROT_WRITE : 0;
	prot |= map->access[2] == 'x' ? PROT_EXEC : 0;
	if (strcmp(map->path, "[stack]") == 0)
		return add_stack(map, prot);
	if (map->access[3] == 's' && prot & PROT_WRITE)
		return -EOPNOTSUPP;
	if (!(prot & PROT_READ))
		return add_segment(map->start, map->end - map->start, 0, prot, SNAPSHOT_ZERO);
	if (map->inode)
		return add_file_mapping(map, prot);
	return add_memory(map->start, map->end, prot);
}

static int add_mappings(void)
{
	int result = read_file("/proc/self/maps", work->maps, sizeof(work->maps));

	for (char *line = work->maps, *end; result >= 0 && (end = strchr(line, '\n')); line = end + 1) {
		struct mapping map;
		unsigned int major, minor;
		int path = 0;

		*end = '\0';
		if (sscanf(line, "%lx-%lx %4s %lx %x:%x %lu %n", &map.start, &map.end, map.access, &map.offset, &major,
			   &minor, &map.inode, &path) < 7)
			return -EOPNOTSUPP;
		map.path = path ? line + path : "";
		result = add_mapping(&map);
	}
	for (uint32_t i = 0; i < work->head.kernel_part_count; i++)
		work->head.kernel_parts[i].offset -= (int64_t)work->head.vdso;
	return result < 0 ? result : 0;
}

/* Where the pages of each segment lie in the snapshot, behind the head. */
static void lay_out(void)
{
	work->head.size = (sizeof(work->head) + SNAPSHOT_PAGE - 1) & ~(SNAPSHOT_PAGE - 1);
	for (uint32_t i = 0; i < work->head.segment_count; i++) {
		struct snapshot_segment *segment = &work->head.segments[i];
		if (segment->file != SNAPSHOT_ITSELF)
			continue;
		segment->offset = work->head.size;
		work->head.size += segment->size;
	}
}

static int write_at(int fd, const void *data, size_t size, uint64_t offset)
{
	const char *bytes = data;

	while (size > 0) {
		ssize_t put = pwrite(fd, bytes, size, (off_t)offset);
		if (put <= 0)
			return put < 0 ? -errno : -EIO;
		bytes += put;
		offset += (uint64_t)put;
		size -= (size_t)put;
	}
	return 0;
}

static int write_all(int fd)
{
	int result = 0;

	for (uint32_t i = 0; i < work->head.segment_count && result == 0; i++) {
		const struct snapshot_segment *segment = &work->head.segments[i];
		if (segment->file == SNAPSHOT_ITSELF)
			result = write_at(fd, (const void *)segment->start, segment->size, segment->offset);
	}
	return result ? result : write_at(fd, &work->head, sizeof(work->head), 0);
}

/*
 * malloc believes that its heap ends where the kernel's break is, which in the later process is somewhere else. Once an
 * extension has failed it believes that no more: let one fail, by something that is in the way.
 */
static int detach_heap(void)
{
	char *end = sbrk(0), *barrier = end + (-(uintptr_t)end & (SNAPSHOT_PAGE - 1));
	void *pieces[HEAP_PIECES];
	bool outside = false;
	int count = 0;

	if (mmap(barrier, SNAPSHOT_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !=
	    barrier)
		return -EOPNOTSUPP;
	while (!outside && count < HEAP_PIECES && (pieces[count] = malloc(HEAP_PIECE))) {
		outside = (char *)pieces[count] > barrier;
		count++;
	}
	while (count > 0)
		free(pieces[--count]);
	return outside ? 0 : -EOPNOTSUPP;
}

/* Adapt the kernel's and libc's knowledge of the written process to this one. */
static void arrive(struct snapshot_arrival *arrival)
{
	*tid_place = (int)syscall(SYS_gettid);
	(void)brk((void *)syscall(SYS_brk, 0));
	environ = arrival->clean;
	/* libc has read the maker's time zone, and reads it again only on request. */
	tzset();
	for (int number = 1; number < SNAPSHOT_SIGNALS; number++) {
		struct sigaction now;
		if (actions[number].sa_handler == SIG_DFL || sigaction(number, NULL, &now) < 0)
			continue;
		/* As Python itself does: its handler only if the caller does not ignore the signal. */
		if (actions[number].sa_handler == SIG_IGN || now.sa_handler != SIG_IGN)
			(void)sigaction(number, &actions[number], NULL);
	}
}

static int note_watched(const char *watched, size_t size)
{
	struct timespec newest = {0};

	if (size > SNAPSHOT_WATCHED)
		return -EOPNOTSUPP;
	memcpy(work->head.watched, watched, size);
	work->head.watched_size = size;
	work->head.watched_stamp = snapshot_stamp(watched, size, &newest);
	return 0;
}

int snapshot_write(int fd, const char *watched, size_t watched_size, struct snapshot_arrival *arrival)
{
	/* Shared, so that the kernel does not make one mapping of it and a neighbour. */
	work = mmap(NULL, sizeof(*work), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (work == MAP_FAILED)
		return -errno;
	strcpy(work->head.magic, SNAPSHOT_MAGIC);
	int result = read_file(BOOT_ID, work->head.boot_id, sizeof(work->head.boot_id));
	if (result < 0)
		return result;
	result = detach_heap();
	if (result < 0)
		return result;
	work->head.uid = geteuid();
	work->head.arrival = (uint64_t)arrival;
	for (int number = 1; number < SNAPSHOT_SIGNALS; number++)
		if (sigaction(number, NULL, &actions[number]) < 0)
			actions[number].sa_handler = SIG_DFL;
	if (save_registers(&work->head.registers)) {
		arrive(arrival);
		return 1;
	}
	result = find_tid();
	if (result == 0)
		result = note_watched(watched, watched_size);
	if (result >= 0)
		result = add_mappings();
	if (result < 0)
		return result;
	lay_out();
	return write_all(fd);
}

#else

int snapshot_write(int fd, const char *watched, size_t watched_size, struct snapshot_arrival *arrival)
{
	(void)fd;
	(void)watched;
	(void)watched_size;
	(void)arrival;
	return -EOPNOTSUPP;
}

#endif
