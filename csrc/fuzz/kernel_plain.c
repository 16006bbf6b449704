/* SPDX-License-Identifier: Apache-2.0 */
/* Calls whose result is a number that nobody looks into: 0, or -1 and errno. What they are given is looked at. */
#include "kernel_impl.h"

/* Declared by nobody: their names are made by stub.py. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

/* clang-format off */
#define CALLS(X) \
	X(accept) X(alarm) X(bind) X(capget) X(capset) X(clock_nanosleep) X(close_range) X(closefrom) \
	X(connect) X(dprintf) X(epoll_ctl) X(epoll_wait) X(fallocate) X(fchdir) X(fchmod) X(fchown) \
	X(fdatasync) X(flock) X(fsync) X(ftruncate) X(futimens) X(getpgid) X(getpgrp) X(getrlimit) X(getsid) \
	X(getsockopt) X(isatty) X(listen) X(lseek) X(mlockall) X(mprotect) X(munmap) X(nanosleep) X(pause) \
	X(personality) X(posix_fadvise) X(prctl) X(prlimit) X(process_vm_readv) X(process_vm_writev) \
	X(pthread_sigmask) X(ptrace) X(raise) X(sched_setaffinity) X(sched_setattr) X(sched_setscheduler) \
	X(sched_yield) X(setegid) X(seteuid) X(setfsuid) X(setgid) X(setgroups) X(sethostid) X(setitimer) \
	X(setns) X(setpgid) X(setpgrp) X(setpriority) X(setresgid) X(setresuid) X(setrlimit) X(setsid) \
	X(setsockopt) X(setuid) X(shutdown) X(sigaction) X(sigaltstack) X(signal) X(signalfd) X(sigpending) \
	X(sigprocmask) X(sigsuspend) X(sleep) X(sync) X(tcgetattr) X(tcgetpgrp) X(tcsetattr) X(tcsetpgrp) \
	X(tgkill) X(timerfd_settime) X(tzset) X(umask) X(unshare) X(usleep) X(wait)
/* A path is the first argument. */
#define PATH_CALLS(X) \
	X(access) X(chdir) X(chmod) X(chown) X(chroot) X(lchown) X(mkdir) X(mkfifo) X(remove) X(rename) \
	X(rmdir) X(setenv) X(truncate) X(umount) X(umount2) X(unlink) X(unsetenv)
/* It is the second. */
#define AT_CALLS(X) \
	X(faccessat) X(fchmodat) X(fchownat) X(linkat) X(mkdirat) X(mkfifoat) X(mknodat) X(renameat) \
	X(unlinkat) X(utimensat)
/* clang-format on */

#define X(name)                                                                                                        \
	long fuzz_##name(void)                                                                                         \
	{                                                                                                              \
		return kernel_answer(0);                                                                               \
	}
CALLS(X)
#undef X

#define X(name)                                                                                                        \
	long fuzz_##name(const char *path)                                                                             \
	{                                                                                                              \
		kernel_path(path);                                                                                     \
		return kernel_answer(0);                                                                               \
	}
PATH_CALLS(X)
#undef X

#define X(name)                                                                                                        \
	long fuzz_##name(int dir, const char *path)                                                                    \
	{                                                                                                              \
		(void)dir;                                                                                             \
		kernel_path(path);                                                                                     \
		return kernel_answer(0);                                                                               \
	}
AT_CALLS(X)
#undef X

int fuzz_getpid(void)
{
	return 7;
}

int fuzz_getppid(void)
{
	return bytes_u8(kernel_answers());
}

unsigned int fuzz_geteuid(void)
{
	return 0;
}

unsigned int fuzz_getuid(void)
{
	return 0;
}

unsigned int fuzz_getegid(void)
{
	return 0;
}

int fuzz_mount(const char *source, const char *target)
{
	if (source)
		kernel_look_text(source);
	kernel_look_text(target);
	return (int)kernel_answer(0);
}

int fuzz_symlinkat(const char *text, int dir, const char *path)
{
	(void)dir;
	kernel_look_text(text);
	kernel_path(path);
	return (int)kernel_answer(0);
}

int fuzz_sethostname(const char *name, size_t size)
{
	kernel_look(name, size);
	return (int)kernel_answer(0);
}

int fuzz_setdomainname(const char *name, size_t size)
{
	return fuzz_sethostname(name, size);
}

int fuzz_fsetxattr(int fd, const char *name, const void *value, size_t size)
{
	(void)fd;
	kernel_look_text(name);
	kernel_look(value, size);
	return (int)kernel_answer(0);
}
