/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "container/trust.h"
#include "shared/snapshot_file.h"

#if defined(__x86_64__)

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define ARCH_SET_FS 0x1002
/* Making one takes 0.1 s; a host that needs longer is better off without. */
#define MAKE_SECONDS 10
/* Exit status of a trial that did not begin: in one of a thousand cases the memory is occupied by something of ours. */
#define NO_ROOM 126
/* The files it was made from have changed. */
#define CHANGED 125
/* The longest tick of the file systems' clock. */
#define TICK_MS 50
/* How long not to try again after a failure. */
#define USELESS_SECONDS 600

static struct snapshot_head head;
static int files[SNAPSHOT_FILES];

/* A regular file that only we can write, in a directory that the caller has checked. */
static bool is_trusted(int fd, struct stat *status)
{
	return fstat(fd, status) == 0 && S_ISREG(status->st_mode) && trust_is_ours(status) &&
	       status->st_uid == geteuid() && (status->st_mode & 077) == 0;
}

static bool read_boot_id(char boot_id[BOOT_ID_SIZE])
{
	int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
	bool whole = fd >= 0 && read(fd, boot_id, BOOT_ID_SIZE) == BOOT_ID_SIZE;

	if (fd >= 0)
		close(fd);
	return whole;
}

static bool same_boot(void)
{
	char now[BOOT_ID_SIZE];

	return read_boot_id(now) && memcmp(now, head.boot_id, sizeof(now)) == 0;
}

/* The head of the snapshot in fd: valid for this program, this boot and this user. */
static bool read_head(int fd, struct stat *status)
{
	return is_trusted(fd, status) && pread(fd, &head, sizeof(head), 0) == sizeof(head) &&
	       strncmp(head.magic, SNAPSHOT_MAGIC, sizeof(head.magic)) == 0 && head.uid == geteuid() &&
	       head.size == (uint64_t)status->st_size && head.segment_count <= SNAPSHOT_SEGMENTS &&
	       head.file_count <= SNAPSHOT_FILES && head.kernel_part_count <= SNAPSHOT_KERNEL_PARTS &&
	       head.watched_size <= SNAPSHOT_WATCHED &&
	       (head.watched_size == 0 || head.watched[head.watched_size - 1] == '\0') && same_boot();
}

static bool is_unchanged(void)
{
	struct timespec newest = {0};

	return snapshot_stamp(head.watched, head.watched_size, &newest) == head.watched_stamp;
}

/* Whether a file is still the one that was mapped when the snapshot was made. */
static bool is_same(int fd, const struct snapshot_file *file)
{
	struct stat now;

	return fstat(fd, &now) == 0 && now.st_dev == file->device && now.st_ino == file->inode &&
	       (uint64_t)now.st_size == file->size && now.st_mtim.tv_sec == file->changed[0] &&
	       now.st_mtim.tv_nsec == file->changed[1] && now.st_ctim.tv_sec == file->changed[2] &&
	       now.st_ctim.tv_nsec == file->changed[3];
}

static bool open_files(void)
{
	for (uint32_t i = 0; i < head.file_count; i++) {
		files[i] = open(head.files[i].path, O_RDONLY | O_CLOEXEC);
		if (files[i] < 0 || !is_same(files[i], &head.files[i]))
			return false;
	}
	return true;
}

static void close_files(void)
{
	for (uint32_t i = 0; i < head.file_count; i++)
		if (files[i] > 0)
			close(files[i]);
}

static bool map_segment(const struct snapshot_segment *segment, int snapshot)
{
	int fd = segment->file == SNAPSHOT_ITSELF ? snapshot : segment->file >= 0 ? files[segment->file] : -1;
	int flags = MAP_PRIVATE | MAP_FIXED_NOREPLACE | (fd < 0 ? MAP_ANONYMOUS | MAP_NORESERVE : 0);
	void *place = (void *)segment->start;

	return mmap(place, segment->size, (int)segment->prot, flags, fd, (off_t)segment->offset) == place;
}

/* Move what the kernel maps into every process to its address in the snapshot's libc. */
static bool move_kernel_parts(void)
{
	uint64_t here = getauxval(AT_SYSINFO_EHDR);

	if (!here || here == head.vdso)
		return here == head.vdso;
	for (uint32_t i = 0; i < head.kernel_part_count; i++) {
		const struct snapshot_kernel_part *part = &head.kernel_parts[i];
		void *to = (void *)(head.vdso + (uint64_t)part->offset);
		void *from = (void *)(here + (uint64_t)part->offset);
		if (mmap(to, part->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != to)
			return false;
		if (mremap(from, part->size, part->size, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
			return false;
	}
	return true;
}

/* The thread pointer becomes that of the snapshot: no libc function, and no return, after that. */
static _Noreturn void jump(const struct snapshot_registers *registers)
{
	register const struct snapshot_registers *to __asm__("r8") = registers;

	__asm__ volatile("movq 64(%%r8), %%rsi\n\t"
			 "movl %[set_fs], %%edi\n\t"
			 "movl %[arch_prctl], %%eax\n\t"
			 "syscall\n\t"
			 "testq %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "movq 0(%%r8), %%rbx\n\t"
			 "movq 8(%%r8), %%rbp\n\t"
			 "movq 16(%%r8), %%r12\n\t"
			 "movq 24(%%r8), %%r13\n\t"
			 "movq 32(%%r8), %%r14\n\t"
			 "movq 40(%%r8), %%r15\n\t"
			 "movq 48(%%r8), %%rsp\n\t"
			 "movl $1, %%eax\n\t"
			 "jmpq *56(%%r8)\n"
			 "1:\tud2"
			 :
			 : "r"(to), [set_fs] "i"(ARCH_SET_FS), [arch_prctl] "i"(SYS_arch_prctl)
			 : "rax", "rdi", "rsi", "rcx", "r11", "memory");
	__builtin_unreachable();
}

static void enter(int fd, const struct snapshot_arrival *arrival)
{
	bool mapped = is_unchanged() && open_files();

	for (uint32_t i = 0; mapped && i < head.segment_count; i++)
		mapped = map_segment(&head.segments[i], fd);
	close_files();
	if (!mapped || !move_kernel_parts())
		return;
	close(fd);
	memcpy((void *)head.arrival, arrival, sizeof(*arrival));
	jump(&head.registers);
}

enum snapshot_result snapshot_enter(const char *path, const struct snapshot_arrival *arrival)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct stat status;

	if (fd < 0)
		return SNAPSHOT_STALE;
	bool valid = read_head(fd, &status);
	if (valid && head.segment_count > 0)
		enter(fd, arrival);
	close(fd);
	/* The reason may have been temporary. */
	bool useless = valid && head.segment_count == 0 && time(NULL) - status.st_mtime < USELESS_SECONDS;
	return useless ? SNAPSHOT_USELESS : SNAPSHOT_STALE;
}

/* The exit status of a child, -1 if it was killed or never began. */
static int exit_status(pid_t pid)
{
	int status = -1;

	while (pid > 0 && waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* In a child: of the caller's descriptors only fd stays open, as 3; the child has a time limit. */
static void withdraw(int fd)
{
	int null = open("/dev/null", O_RDWR);

	for (int i = 0; i < 3; i++)
		dup2(null, i);
	if (fd == 3)
		fcntl(fd, F_SETFD, 0);
	else
		dup2(fd, 3);
	syscall(SYS_close_range, 4u, ~0u, 0u);
	alarm(MAKE_SECONDS);
}

static int write_snapshot(int fd, const char *python, const char *boot)
{
	/* rseq(2) stays out of it: the kernel would not know of the area that libc then reads. */
	char *environment[] = {(char *)"GLIBC_TUNABLES=glibc.pthread.rseq=0", NULL};
	/* -B: files that it writes itself would count as changed. */
	char *argv[] = {(char *)python,       (char *)"-I", (char *)"-S", (char *)"-B", (char *)boot,
			(char *)"--snapshot", (char *)"3",  (char *)"--", NULL};
	pid_t pid = fork();

	if (pid == 0) {
		withdraw(fd);
		execve(python, argv, environment);
		_exit(127);
	}
	return exit_status(pid);
}

static bool is_before(struct timespec one, struct timespec other)
{
	return one.tv_sec < other.tv_sec || (one.tv_sec == other.tv_sec && one.tv_nsec < other.tv_nsec);
}

/* Now, once the clock of file systems, which ticks, has passed it: a later change gets a later time. */
static struct timespec pass_tick(void)
{
	struct timespec now, coarse, pause = {.tv_nsec = 1000000};

	clock_gettime(CLOCK_REALTIME, &now);
	for (int i = 0; i < TICK_MS; i++) {
		clock_gettime(CLOCK_REALTIME_COARSE, &coarse);
		if (is_before(now, coarse))
			break;
		nanosleep(&pause, NULL);
	}
	return now;
}

/*
 * 0: nothing has changed since `began`, so that what was loaded is what was there when it was looked at. CHANGED: the
 * next command may try. Anything else: it has a time to come, as the clock was set back, and will have for a while.
 */
static int check_age(int fd, struct timespec began)
{
	struct timespec newest = {0}, now;

	if (pread(fd, &head, sizeof(head), 0) != sizeof(head) || head.file_count > SNAPSHOT_FILES ||
	    head.watched_size > SNAPSHOT_WATCHED)
		return 1;
	if (snapshot_stamp(head.watched, head.watched_size, &newest) != head.watched_stamp)
		return CHANGED;
	for (uint32_t i = 0; i < head.file_count; i++) {
		struct timespec changed = {head.files[i].changed[2], head.files[i].changed[3]};
		newest = is_before(newest, changed) ? changed : newest;
	}
	if (is_before(newest, began))
		return 0;
	clock_gettime(CLOCK_REALTIME, &now);
	return is_before(newest, now) ? CHANGED : 1;
}

/* A snapshot that does not start must not be used. */
static int try_snapshot(int fd, const char *path)
{
	char *argv[] = {(char *)"pyrunc", NULL}, *environment[] = {NULL};
	char *told[] = {(char *)"--try", (char *)"1", NULL};
	struct snapshot_arrival arrival = {1, argv, environment, environment, told, 2};
	pid_t pid = fork();

	if (pid == 0) {
		withdraw(fd);
		snapshot_enter(path, &arrival);
		_exit(NO_ROOM);
	}
	return exit_status(pid);
}

static void write_useless(int fd, const char boot_id[BOOT_ID_SIZE])
{
	memset(&head, 0, sizeof(head));
	strcpy(head.magic, SNAPSHOT_MAGIC);
	memcpy(head.boot_id, boot_id, BOOT_ID_SIZE);
	head.uid = geteuid();
	head.size = sizeof(head);
	bool written = ftruncate(fd, 0) == 0 && pwrite(fd, &head, sizeof(head), 0) == sizeof(head);
	(void)written; /* then the next command tries again */
}

/* Whether path still names the file of fd: another process that had the lock may have renamed it. */
static bool is_at(int fd, const char *path)
{
	struct stat status, there;

	return is_trusted(fd, &status) && stat(path, &there) == 0 && status.st_dev == there.st_dev &&
	       status.st_ino == there.st_ino;
}

bool snapshot_make(const char *path, const char *python, const char *boot)
{
	char fresh[PATH_MAX], boot_id[BOOT_ID_SIZE];
	bool made = false;

	/* Without it no snapshot could ever be used. */
	if (!read_boot_id(boot_id))
		return false;
	if (snprintf(fresh, sizeof(fresh), "%s.new", path) >= (int)sizeof(fresh))
		return false;
	int fd = open(fresh, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	/* Of many creates at once only one makes the snapshot, and the others do not wait for it. */
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && is_at(fd, fresh) && ftruncate(fd, 0) == 0) {
		struct timespec began = pass_tick();
		int status = write_snapshot(fd, python, boot);
		if (status == 0)
			status = check_age(fd, began);
		if (status == 0)
			status = try_snapshot(fd, fresh);
		bool again = status == NO_ROOM || status == CHANGED;
		if (status != 0 && !again)
			write_useless(fd, boot_id);
		if ((again ? unlink(fresh) : rename(fresh, path)) == 0)
			made = status == 0;
	}
	if (fd >= 0)
		close(fd);
	return made;
}

#else

enum snapshot_result snapshot_enter(const char *path, const struct snapshot_arrival *arrival)
{
	(void)path;
	(void)arrival;
	return SNAPSHOT_USELESS;
}

bool snapshot_make(const char *path, const char *python, const char *boot)
{
	(void)path;
	(void)python;
	(void)boot;
	return false;
}

#endif
