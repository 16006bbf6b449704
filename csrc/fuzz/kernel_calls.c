/* SPDX-License-Identifier: Apache-2.0 */
/* The calls that give more than a number, as libc has them and as syscall(2) has them. kernel_plain.c has the others. */
#include "kernel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "kernel_impl.h"
#include "shared/system_calls.h"

/* Declared here, since nobody includes a header for them. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wstrict-prototypes"

#define PROC_MAGIC 0x9fa0
#define DEVPTS_MAGIC 0x1cd1
#define CGROUP1_MAGIC 0x27e0eb
#define CGROUP2_MAGIC 0x63677270
#define SYNC_GO_BYTES "\x67\x6f\0\0"
#define STATX_BYTES 256
/* of syscall(2): no more than there are registers, since most callers give fewer */
#define ARGUMENTS 5

/* --- Ends and beginnings --- */

_Noreturn void fuzz__exit(int status)
{
	kernel_leave(ENDING_EXIT, status);
}

_Noreturn void fuzz_exit(int status)
{
	kernel_leave(ENDING_EXIT, status);
}

int fuzz_execve(const char *path, char *const argv[], char *const env[])
{
	kernel_path(path);
	for (; *argv; argv++)
		kernel_look_text(*argv);
	for (; env && *env; env++)
		kernel_look_text(*env);
	if (kernel_answer(0) < 0)
		return -1;
	kernel_executed();
	kernel_leave(ENDING_EXEC, 0);
}

int fuzz_execv(const char *path, char *const argv[])
{
	return fuzz_execve(path, argv, NULL);
}

/* The parent's way, the child's, or none. */
int fuzz_fork(void)
{
	uint8_t which = bytes_u8(kernel_answers());

	if (which & 2) {
		errno = EAGAIN;
		return -1;
	}
	return which & 1 ? 0 : 4242;
}

int fuzz_kill(int pid, int signal)
{
	(void)signal;
	kernel_signalled(pid);
	return (int)kernel_answer(0);
}

int fuzz_waitpid(int pid, int *status, int options)
{
	long got = kernel_answer(pid > 0 ? pid : 4242);

	(void)options;
	if (got > 0 && status)
		*status = bytes_u8(kernel_answers()) << 8 | (bytes_u8(kernel_answers()) & 0x7f);
	return (int)got;
}

int fuzz_waitid(int type, unsigned int id, siginfo_t *info, int options)
{
	(void)type;
	(void)options;
	memset(info, 0, sizeof(*info));
	info->si_pid = (pid_t)(bytes_u8(kernel_answers()) ? id : 0);
	info->si_code = CLD_EXITED + bytes_u8(kernel_answers()) % 3;
	return (int)kernel_answer(0);
}

/* --- Descriptors --- */

static int opened(const char *path, int flags)
{
	int fd;

	kernel_path(path);
	fd = kernel_new(0, (flags & O_CLOEXEC) != 0);
	if (fd >= 0)
		kernel_found(fd, path);
	return fd;
}

int fuzz_open(const char *path, int flags, ...)
{
	return opened(path, flags);
}

int fuzz_openat(int dir, const char *path, int flags, ...)
{
	(void)dir;
	return opened(path, flags);
}

int fuzz_close(int fd)
{
	struct kernel_file *file = kernel_file(fd);

	/* gone, whatever close(2) says */
	if (!file)
		return -1;
	file->open = false;
	return (int)kernel_answer(0);
}

static int duplicate(int from, int lowest, bool close_on_exec)
{
	struct kernel_file *file = kernel_file(from);
	int fd = file ? kernel_new(lowest, close_on_exec) : -1;

	if (fd >= 0) {
		struct kernel_file *copy = kernel_file(fd);

		copy->original = file->original;
		copy->known = file->known;
		copy->data = file->data;
		copy->size = file->size;
	}
	return fd;
}

int fuzz_dup(int from)
{
	return duplicate(from, 0, false);
}

int fuzz_dup3(int from, int to, int flags)
{
	struct kernel_file *file = kernel_file(from), *there;

	if (!file || to < 0 || to >= KERNEL_FDS || kernel_answer(0) < 0)
		return -1;
	kernel_close_range((uint32_t)to, (uint32_t)to, false);
	if (kernel_lowest(to) != to)
		return -1;
	kernel_open(to, (struct bytes){NULL, NULL}, (flags & O_CLOEXEC) != 0);
	there = kernel_file(to);
	there->original = file->original;
	there->known = file->known;
	there->data = file->data;
	there->size = file->size;
	return to;
}

int fuzz_dup2(int from, int to)
{
	return from == to ? (kernel_file(from) ? to : -1) : fuzz_dup3(from, to, 0);
}

int fuzz_pipe2(int ends[2], int flags)
{
	int one = kernel_new(0, (flags & O_CLOEXEC) != 0), two = one < 0 ? -1 : kernel_new(0, (flags & O_CLOEXEC) != 0);

	if (two < 0) {
		if (one >= 0)
			kernel_file(one)->open = false;
		return -1;
	}
	ends[0] = one;
	ends[1] = two;
	return 0;
}

int fuzz_socketpair(int family, int type, int protocol, int ends[2])
{
	(void)family;
	(void)protocol;
	return fuzz_pipe2(ends, type & SOCK_CLOEXEC);
}

int fuzz_socket(int family, int type, int protocol)
{
	(void)family;
	(void)protocol;
	return kernel_new(0, (type & SOCK_CLOEXEC) != 0);
}

int fuzz_memfd_create(const char *name, unsigned int flags)
{
	kernel_look_text(name);
	return kernel_new(0, (flags & 1) != 0);
}

int fuzz_eventfd(unsigned int value, int flags)
{
	(void)value;
	return kernel_new(0, (flags & O_CLOEXEC) != 0);
}

int fuzz_fcntl(int fd, int command, ...)
{
	struct kernel_file *file = kernel_file(fd);
	va_list rest;
	int value;

	va_start(rest, command);
	value = va_arg(rest, int);
	va_end(rest);
	if (!file)
		return -1;
	if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
		return duplicate(fd, value, command == F_DUPFD_CLOEXEC);
	if (command == F_GETFD)
		return file->close_on_exec;
	if (command == F_SETFD) {
		if (kernel_answer(0) < 0)
			return -1;
		file->close_on_exec = (value & FD_CLOEXEC) != 0;
		return 0;
	}
	return (int)kernel_answer(command == F_GETFL ? bytes_u8(kernel_answers()) & O_ACCMODE : 0);
}

int fuzz_ioctl(int fd, unsigned long request, void *argument)
{
	(void)fd;
	if (request == _IO('T', 0x41)) /* TIOCGPTPEER */
		return kernel_new(0, ((uintptr_t)argument & O_CLOEXEC) != 0);
	return (int)kernel_answer(0);
}

/* --- Files --- */

static void facts(struct stat *st)
{
	static const unsigned int kinds[] = {S_IFDIR, S_IFREG, S_IFLNK, S_IFCHR, S_IFIFO, S_IFBLK, S_IFSOCK, 0};
	struct bytes *from = kernel_answers();
	uint8_t kind = bytes_u8(from);

	memset(st, 0, sizeof(*st));
	st->st_mode = kinds[kind & 7] | (kind & 8 ? 07777 : 0755);
	if ((kind & 7) == 3)
		st->st_rdev = kind & 16 ? makedev(136 + (kind >> 5), 0) : makedev(1, 3 + (kind >> 5));
	st->st_dev = kind & 32;
	st->st_ino = kind & 64 ? 1 : bytes_u8(from);
	st->st_uid = kind & 128 ? bytes_u8(from) : 0;
}

int fuzz_fstat(int fd, struct stat *st)
{
	struct kernel_file *file = kernel_file(fd);

	if (!file || kernel_answer(0) < 0)
		return -1;
	facts(st);
	if (file->known) {
		st->st_mode = S_IFREG | 0600;
		st->st_size = (off_t)file->size;
	}
	return 0;
}

int fuzz_fstatat(int dir, const char *path, struct stat *st, int flags)
{
	(void)dir;
	(void)flags;
	kernel_path(path);
	if (kernel_answer(0) < 0)
		return -1;
	facts(st);
	return 0;
}

int fuzz_stat(const char *path, struct stat *st)
{
	return fuzz_fstatat(AT_FDCWD, path, st, 0);
}

int fuzz_lstat(const char *path, struct stat *st)
{
	return fuzz_fstatat(AT_FDCWD, path, st, 0);
}

static int kind(struct statfs *fs)
{
	static const long kinds[] = {PROC_MAGIC, DEVPTS_MAGIC, CGROUP1_MAGIC, CGROUP2_MAGIC};

	if (kernel_answer(0) < 0)
		return -1;
	memset(fs, 0, sizeof(*fs));
	fs->f_type = kinds[(bytes_u8(kernel_answers()) + (kernel_has_cgroups() ? 3 : 0)) & 3];
	return 0;
}

int fuzz_fstatfs(int fd, struct statfs *fs)
{
	return kernel_file(fd) ? kind(fs) : -1;
}

int fuzz_statfs(const char *path, struct statfs *fs)
{
	kernel_path(path);
	return kind(fs);
}

/* Bytes that somebody hostile wrote: a file of the image, the output of a hook, names of a directory. */
static long filled(void *to, size_t size)
{
	struct bytes *from = kernel_answers();
	uint8_t how = bytes_u8(from);
	/* a little, much, or as much as was asked for, as long as there are bytes */
	size_t wanted = how < 0x80 ? how : how < 0xf0 ? (size_t)(how - 0x80) * 37 : size;
	struct bytes taken = bytes_take(from, wanted < size ? wanted : size);

	memcpy(to, taken.at, (size_t)(taken.end - taken.at));
	return taken.end - taken.at;
}

long fuzz_pread(int fd, void *to, size_t size, off_t offset)
{
	struct kernel_file *file = kernel_file(fd);
	size_t left;

	if (!file || kernel_answer(0) < 0)
		return -1;
	if (!file->known)
		return filled(to, size);
	left = (size_t)offset < file->size ? file->size - (size_t)offset : 0;
	if (left > size)
		left = size;
	if (left > 0)
		memcpy(to, file->data + offset, left);
	return (long)left;
}

/* What is read from the sync socket is nearly always this. */
static bool is_go(const struct kernel_file *file, size_t size)
{
	return file->known && !file->data && size == 4;
}

long fuzz_read(int fd, void *to, size_t size)
{
	struct kernel_file *file = kernel_file(fd);
	long got;

	if (!file || kernel_answer(0) < 0)
		return -1;
	if (is_go(file, size)) {
		memcpy(to, SYNC_GO_BYTES, size);
		return bytes_u8(kernel_answers()) == 0xff ? filled(to, size) : (long)size;
	}
	if (!file->known || !file->data)
		return filled(to, size);
	got = fuzz_pread(fd, to, size, (off_t)file->offset);
	file->offset += got > 0 ? (size_t)got : 0;
	return got;
}

long fuzz_recv(int fd, void *to, size_t size, int flags)
{
	(void)flags;
	return fuzz_read(fd, to, size);
}

long fuzz_write(int fd, const void *from, size_t size)
{
	kernel_look(from, size);
	if (!kernel_file(fd) || kernel_answer(0) < 0)
		return -1;
	/* a short write now and then */
	return size > 1 && bytes_u8(kernel_answers()) == 0xff ? (long)size / 2 : (long)size;
}

long fuzz_pwrite(int fd, const void *from, size_t size)
{
	return fuzz_write(fd, from, size);
}

long fuzz_send(int fd, const void *from, size_t size, int flags)
{
	(void)flags;
	return fuzz_write(fd, from, size);
}

long fuzz_sendmsg(int fd, const struct msghdr *message, int flags)
{
	size_t size = 0;

	(void)flags;
	for (size_t i = 0; i < message->msg_iovlen; i++) {
		kernel_look(message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
		size += message->msg_iov[i].iov_len;
	}
	kernel_look(message->msg_control, message->msg_controllen);
	return kernel_file(fd) && kernel_answer(0) == 0 ? (long)size : -1;
}

long fuzz_recvmsg(int fd, struct msghdr *message, int flags)
{
	(void)flags;
	message->msg_controllen = 0;
	message->msg_flags = bytes_u8(kernel_answers());
	return message->msg_iovlen ? fuzz_read(fd, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len) : 0;
}

long fuzz_sendfile(int to, int from, off_t *offset, size_t size)
{
	(void)offset;
	if (!kernel_file(to) || !kernel_file(from) || kernel_answer(0) < 0)
		return -1;
	return bytes_u8(kernel_answers()) & 1 ? (long)(size / 2) : 0;
}

long fuzz_readlinkat(int dir, const char *path, char *to, size_t size)
{
	(void)dir;
	kernel_path(path);
	return kernel_answer(0) < 0 ? -1 : filled(to, size);
}

long fuzz_readlink(const char *path, char *to, size_t size)
{
	return fuzz_readlinkat(AT_FDCWD, path, to, size);
}

/* A name that is clean, or what the fuzzer has for one. */
char *fuzz_realpath(const char *path, char *to)
{
	long got;

	kernel_path(path);
	got = kernel_answer(0) < 0 ? -1 : filled(to, 255);
	if (got < 0)
		return NULL;
	to[got] = '\0';
	to[0] = '/';
	return to;
}

int fuzz_poll(struct pollfd *fds, nfds_t count, int timeout)
{
	struct bytes *from = kernel_answers();
	int ready = 0;

	/* with nothing left to say, everybody is ready, and everything ends */
	for (nfds_t i = 0; i < count; i++) {
		uint8_t choice = bytes_u8(from);

		fds[i].revents = fds[i].fd < 0 || choice & 1 ? 0 : fds[i].events | (choice & 2 ? POLLHUP : 0);
		ready += fds[i].revents != 0;
	}
	if (ready == 0 && timeout < 0) {
		for (nfds_t i = 0; i < count; i++)
			fds[i].revents = fds[i].fd < 0 ? 0 : fds[i].events;
	}
	return (int)kernel_answer(ready);
}

int fuzz_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	(void)mask;
	return fuzz_poll(fds, count, timeout ? 0 : -1);
}

int fuzz_clock_gettime(clockid_t clock, struct timespec *now)
{
	static long milliseconds;

	(void)clock;
	/* it goes on whatever happens, so that every deadline comes */
	milliseconds += 1 + bytes_u8(kernel_answers());
	now->tv_sec = 1000 + milliseconds / 1000;
	now->tv_nsec = milliseconds % 1000 * 1000000;
	return 0;
}

time_t fuzz_time(time_t *to)
{
	struct timespec now;

	fuzz_clock_gettime(CLOCK_REALTIME, &now);
	if (to)
		*to = now.tv_sec;
	return now.tv_sec;
}

/* --- Directories --- */

struct stream {
	int fd; /* closed with it */
	struct dirent entry;
};

void *fuzz_fdopendir(int fd)
{
	struct stream *stream = kernel_file(fd) && kernel_answer(0) == 0 ? kernel_allocate(sizeof(*stream)) : NULL;

	if (stream)
		stream->fd = fd;
	return stream;
}

void *fuzz_opendir(const char *path)
{
	int fd = opened(path, O_CLOEXEC);
	void *stream = fd < 0 ? NULL : fuzz_fdopendir(fd);

	if (fd >= 0 && !stream)
		kernel_file(fd)->open = false;
	return stream;
}

/* A name as the kernel may have it: no slash, no NUL, not empty. */
static size_t entry_name(char *to, size_t room)
{
	struct bytes *from = kernel_answers();
	struct bytes taken = bytes_take(from, bytes_u8(from));
	size_t size = 0;

	for (; taken.at < taken.end && size + 1 < room; taken.at++)
		if (*taken.at != 0 && *taken.at != '/')
			to[size++] = (char)*taken.at;
	to[size] = '\0';
	return size;
}

void *fuzz_readdir(struct stream *stream)
{
	struct dirent *entry = &stream->entry;

	memset(entry, 0, sizeof(*entry));
	entry->d_ino = bytes_u8(kernel_answers());
	entry->d_type = entry->d_ino & 1 ? DT_REG : DT_DIR;
	return entry_name(entry->d_name, sizeof(entry->d_name)) ? entry : NULL;
}

int fuzz_closedir(struct stream *stream)
{
	if (kernel_file(stream->fd))
		kernel_file(stream->fd)->open = false;
	kernel_free(stream);
	return 0;
}

static long directory_entries(void *to, size_t size)
{
	struct {
		uint64_t inode;
		int64_t offset;
		uint16_t size;
		uint8_t type;
	} __attribute__((packed)) head = {.inode = 2};
	uint8_t *at = to;

	while ((size_t)(at - (uint8_t *)to) + sizeof(head) + 264 < size) {
		size_t name = entry_name((char *)at + sizeof(head), 256);

		if (name == 0)
			break;
		head.size = (uint16_t)((sizeof(head) + name + 1 + 7) & ~7ul);
		memcpy(at, &head, sizeof(head));
		at += head.size;
	}
	return at - (uint8_t *)to;
}

/* --- syscall(2) --- */

static long file_facts(uint8_t *to)
{
	uint64_t mount, inode, attributes;
	struct bytes *from = kernel_answers();

	kernel_look(to, STATX_BYTES);
	memset(to, 0, STATX_BYTES);
	attributes = bytes_u8(from) & 1 ? 0 : 0x2000; /* STATX_ATTR_MOUNT_ROOT unless that is said */
	mount = bytes_u8(from);
	inode = bytes_u8(from);
	memcpy(to + 8, &attributes, sizeof(attributes));
	memcpy(to + 32, &inode, sizeof(inode));
	memcpy(to + 0x90, &mount, sizeof(mount));
	return 0;
}

static long where(char *to, size_t size)
{
	if (kernel_answer(0) < 0)
		return -1;
	if (size == 0) {
		errno = ERANGE;
		return -1;
	}
	strcpy(to, "/");
	return filled(to, size - 1) < 0 ? -1 : 2;
}

static long described(long number, const long a[ARGUMENTS])
{
	switch (number) {
	case SYS_openat2:
		kernel_look_text((const char *)a[1]);
		kernel_look((const void *)a[2], (size_t)a[3]);
		return kernel_new(0, (*(const uint64_t *)a[2] & O_CLOEXEC) != 0);
	case SYS_open_tree:
		kernel_look_text((const char *)a[1]);
		return kernel_new(0, (a[2] & O_CLOEXEC) != 0);
	case SYS_fsopen:
		kernel_look_text((const char *)a[0]);
		return kernel_new(0, (a[1] & 1) != 0);
	case SYS_fspick:
		kernel_look_text((const char *)a[1]);
		return kernel_new(0, (a[2] & 1) != 0);
	case SYS_fsmount:
		return kernel_new(0, (a[1] & 1) != 0);
	case SYS_fsconfig:
		if (a[2])
			kernel_look_text((const char *)a[2]);
		if ((int)a[1] == 1 && a[3])
			kernel_look_text((const char *)a[3]);
		return kernel_answer(0);
	case SYS_pidfd_open:
		kernel_signalled((int)a[0]);
		return kernel_new(0, true);
	case SYS_pidfd_getfd:
		return kernel_new(0, true);
	default:
		return -2;
	}
}

static long handled(long number, const long a[ARGUMENTS])
{
	switch (number) {
	case SYS_close_range:
		if (kernel_answer(0) < 0)
			return -1;
		kernel_close_range((uint32_t)a[0], (uint32_t)a[1], (a[2] & 4) != 0);
		return 0;
	case SYS_statx:
		return kernel_answer(0) < 0 ? -1 : file_facts((uint8_t *)a[4]);
	case SYS_getdents64:
		return kernel_answer(0) < 0 ? -1 : directory_entries((void *)a[1], (size_t)a[2]);
	case SYS_getcwd:
		return where((char *)a[0], (size_t)a[1]);
	case SYS_clone:
	case SYS_clone3:
		kernel_cloned();
		return fuzz_fork();
	case SYS_execve:
		return fuzz_execve((const char *)a[0], (char *const *)a[1], (char *const *)a[2]);
	case SYS_execveat:
		return fuzz_execve((const char *)a[1], (char *const *)a[2], (char *const *)a[3]);
	case SYS_exit:
	case SYS_exit_group:
		kernel_leave(ENDING_EXIT, (int)a[0]);
	case SYS_seccomp:
		/* struct sock_fprog: how many, and where */
		if (a[2])
			kernel_look(*(void *const *)(a[2] + 8), 8ul * *(const uint16_t *)a[2]);
		return (a[1] & 8) != 0 ? kernel_new(0, true) : kernel_answer(bytes_u8(kernel_answers()) == 0xff);
	case SYS_setgroups:
		kernel_look((const void *)a[1], 4ul * (size_t)a[0]);
		return kernel_answer(0);
	case SYS_sched_setaffinity:
		kernel_look((const void *)a[2], (size_t)a[1]);
		return kernel_answer(0);
	case SYS_sched_setattr:
		kernel_look((const void *)a[1], *(const uint32_t *)a[1]);
		return kernel_answer(0);
	case SYS_set_mempolicy:
		kernel_look((const void *)a[1], a[1] ? ((size_t)a[2] - 1) / 8 : 0);
		return kernel_answer(0);
	default:
		return -2;
	}
}

#ifdef SYS_newfstatat
static long newfstatat(const long a[ARGUMENTS])
{
	return fuzz_fstatat((int)a[0], (const char *)a[1], (struct stat *)a[2], (int)a[3]);
}
#endif

long fuzz_syscall(long number, ...)
{
	long a[ARGUMENTS], result;
	va_list rest;

	va_start(rest, number);
	for (int i = 0; i < ARGUMENTS; i++)
		a[i] = va_arg(rest, long);
	va_end(rest);
#ifdef SYS_newfstatat
	if (number == SYS_newfstatat)
		return newfstatat(a);
#endif
	result = described(number, a);
	if (result == -2)
		result = handled(number, a);
	return result == -2 ? kernel_answer(0) : result;
}
