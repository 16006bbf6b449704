/* SPDX-License-Identifier: Apache-2.0 */
/* The file of a snapshot (command/snapshot.h): its head, which the shim writes and the command reads. */
#ifndef PYRUNC_SNAPSHOT_FILE_H
#define PYRUNC_SNAPSHOT_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define SNAPSHOT_MAGIC "pyrunc " PYRUNC_VERSION " 2"
#define SNAPSHOT_SEGMENTS 640
#define SNAPSHOT_FILES 40
#define SNAPSHOT_PATH 256
#define SNAPSHOT_WATCHED (32ul << 10)
#define SNAPSHOT_KERNEL_PARTS 6
#define SNAPSHOT_SIGNALS 65
#define SNAPSHOT_PAGE 4096ul
#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_SIZE 36

/* Indices below 0 of snapshot_segment.file. */
enum {
	SNAPSHOT_ZERO = -1,
	SNAPSHOT_ITSELF = -2,
};

struct snapshot_segment {
	uint64_t start;
	uint64_t size;
	uint64_t offset;
	uint32_t prot;
	int32_t file;
};

struct snapshot_file {
	uint64_t device;
	uint64_t inode;
	uint64_t size;
	int64_t changed[4]; /* mtime and ctime, seconds and nanoseconds */
	char path[SNAPSHOT_PATH];
};

/* What the kernel maps into every process: vdso and what belongs to it, in relation to AT_SYSINFO_EHDR. */
struct snapshot_kernel_part {
	int64_t offset;
	uint64_t size;
};

struct snapshot_registers {
	uint64_t kept[6]; /* callee-saved */
	uint64_t stack;
	uint64_t resume;
	uint64_t thread; /* what the thread pointer register holds */
};

struct snapshot_head {
	char magic[32];
	char boot_id[BOOT_ID_SIZE + 4];
	uint32_t uid;
	uint32_t segment_count;
	uint32_t file_count;
	uint32_t kernel_part_count;
	uint64_t vdso;
	uint64_t arrival;
	uint64_t size; /* of the whole snapshot */
	struct snapshot_registers registers;
	struct snapshot_kernel_part kernel_parts[SNAPSHOT_KERNEL_PARTS];
	struct snapshot_file files[SNAPSHOT_FILES];
	struct snapshot_segment segments[SNAPSHOT_SEGMENTS];
	/* Paths of files that must not change, each with its NUL, and their snapshot_stamp(). */
	uint64_t watched_stamp;
	uint64_t watched_size;
	char watched[SNAPSHOT_WATCHED];
};

/* A checksum of stat(2) for all these paths. *newest: the last change of any, if it is later. */
uint64_t snapshot_stamp(const char *paths, size_t size, struct timespec *newest);

#endif
