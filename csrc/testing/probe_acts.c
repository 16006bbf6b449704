/* SPDX-License-Identifier: Apache-2.0 */
/* The probe's commands that try something and say what the kernel answered, or that behave in a certain way. */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* --- Attempts: what happens when I try -------------------------------------------------------------------------------- */

static int attempt(const char *what, long result)
{
	say("%s %ld", what, result < 0 ? (long)-errno : result);
	return 0;
}

static int run_mkdir(int argc UNUSED, char **argv)
{
	return attempt("mkdir", mkdir(argv[0], 0755));
}

static int run_chown(int argc UNUSED, char **argv)
{
	return attempt("chown", lchown(argv[2], (uid_t)number(argv[0]), (gid_t)number(argv[1])));
}

static int run_mknod(int argc UNUSED, char **argv)
{
	dev_t device = makedev((unsigned int)number(argv[1]), (unsigned int)number(argv[2]));
	return attempt("mknod", mknod(argv[0], S_IFCHR | 0666, device));
}

static int run_mount(int argc UNUSED, char **argv)
{
	return attempt("mount", mount("probe", argv[1], argv[0], 0, NULL));
}

static int run_umount(int argc UNUSED, char **argv)
{
	return attempt("umount", umount2(argv[0], 0));
}

static int run_sethostname(int argc UNUSED, char **argv)
{
	return attempt("sethostname", sethostname(argv[0], strlen(argv[0])));
}

static int run_unshare(int argc UNUSED, char **argv)
{
	return attempt("unshare", unshare((int)number(argv[0])));
}

static int run_setuid(int argc UNUSED, char **argv)
{
	return attempt("setuid", setuid((uid_t)number(argv[0])));
}

static int run_syscall(int argc, char **argv)
{
	long values[6] = {0};
	for (int i = 1; i < argc && i <= 6; i++)
		values[i - 1] = number(argv[i]);
	errno = 0;
	long result = syscall(number(argv[0]), values[0], values[1], values[2], values[3], values[4], values[5]);
	say("syscall %s %ld", argv[0], result < 0 ? (long)-errno : result);
	return 0;
}

static int run_connect(int argc UNUSED, char **argv)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(argv[0]) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, argv[0]);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	attempt("connect", connect(fd, (struct sockaddr *)&address, sizeof(address)));
	close(fd);
	return 0;
}

static int run_notify(int argc UNUSED, char **argv)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (path == NULL || strlen(path) >= sizeof(address.sun_path))
		return -ENOENT;
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	ssize_t size = sendto(fd, argv[0], strlen(argv[0]), 0, (struct sockaddr *)&address, (socklen_t)sizeof(address));
	int error = size < 0 ? -errno : 0;
	close(fd);
	return error;
}

static int run_listen(int argc UNUSED, char **argv UNUSED)
{
	const char *count = getenv("LISTEN_FDS");
	const char *pid = getenv("LISTEN_PID");
	say("LISTEN_FDS %s", count == NULL ? "-" : count);
	say("LISTEN_PID %s", pid == NULL ? "-" : pid);
	say("pid %d", getpid());
	for (int fd = 3; fd < 3 + (count == NULL ? 0 : (int)number(count)); fd++) {
		struct stat info;
		if (fstat(fd, &info) < 0)
			say("fd %d closed", fd);
		else
			say("fd %d type %06o", fd, info.st_mode & S_IFMT);
	}
	return 0;
}

/* --- Behaviour -------------------------------------------------------------------------------------------------------- */

static int run_echo(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		printf("%s%s", i == 0 ? "" : " ", argv[i]);
	say("%s", "");
	return 0;
}

static int run_stderr(int argc UNUSED, char **argv)
{
	dprintf(2, "%s\n", argv[0]);
	return 0;
}

static int run_stdin(int argc UNUSED, char **argv UNUSED)
{
	char buffer[4096];
	ssize_t size;
	while ((size = read(0, buffer, sizeof(buffer))) > 0) {
		fwrite(buffer, 1, (size_t)size, stdout);
		fflush(stdout);
	}
	return size < 0 ? -errno : 0;
}

static int run_exit(int argc UNUSED, char **argv)
{
	exit((int)number(argv[0]));
}

struct signal_name {
	const char *name;
	int number;
};

static const struct signal_name signal_names[] = {
	{"HUP", SIGHUP},   {"INT", SIGINT},   {"QUIT", SIGQUIT}, {"ABRT", SIGABRT},
	{"KILL", SIGKILL}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"TERM", SIGTERM},
	{"CONT", SIGCONT}, {"STOP", SIGSTOP}, {"SEGV", SIGSEGV}, {"WINCH", SIGWINCH},
};

static int signal_number(const char *name)
{
	for (size_t i = 0; i < sizeof(signal_names) / sizeof(signal_names[0]); i++)
		if (strcmp(signal_names[i].name, name) == 0)
			return signal_names[i].number;
	return (int)number(name);
}

static int run_signal(int argc UNUSED, char **argv)
{
	int sig = signal_number(argv[0]);
	signal(sig, SIG_DFL);
	/* As PID 1 of a namespace a signal with default action does nothing; the caller then sees status 1. */
	if (raise(sig) != 0)
		return -errno;
	return -ENOTRECOVERABLE;
}

/* Print "ready", then every signal that comes, and end with status 0 at SIGTERM. */
static int wait_signals(bool only_term)
{
	sigset_t set;
	if (only_term) {
		sigemptyset(&set);
		sigaddset(&set, SIGTERM);
	} else {
		sigfillset(&set);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	say("ready");
	for (;;) {
		siginfo_t info;
		int sig = sigwaitinfo(&set, &info);
		if (sig < 0 && errno == EINTR)
			continue;
		if (sig < 0)
			return -errno;
		if (sig == SIGCHLD)
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
		if (!only_term)
			say("signal %d", sig);
		if (sig == SIGTERM)
			exit(0);
	}
}

static int run_pause(int argc UNUSED, char **argv UNUSED)
{
	return wait_signals(true);
}

static int run_sigwait(int argc UNUSED, char **argv UNUSED)
{
	return wait_signals(false);
}

/* Go on with the next command when the signal has come. */
static int run_sigonce(int argc UNUSED, char **argv)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, signal_number(argv[0]));
	sigprocmask(SIG_BLOCK, &set, NULL);
	say("waiting");
	return sigwaitinfo(&set, NULL) < 0 ? -errno : 0;
}

static int run_oom(int argc UNUSED, char **argv)
{
	size_t step = 1 << 20;
	for (long done = 0; done < number(argv[0]); done++) {
		char *block = mmap(NULL, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (block == MAP_FAILED)
			return -errno;
		memset(block, 1, step);
	}
	say("allocated %s", argv[0]);
	return 0;
}

/* Children that sleep until they are killed; how many could be made. */
static int run_forks(int argc UNUSED, char **argv)
{
	int made = 0;
	int error = 0;
	for (; made < number(argv[0]); made++) {
		pid_t child = fork();
		if (child < 0) {
			error = errno;
			break;
		}
		if (child == 0)
			for (;;)
				pause();
	}
	say("forks %d error %d", made, error);
	return 0;
}

/* A child in its own session, as a daemon makes one: killing init's group does not reach it. */
static int run_daemon(int argc UNUSED, char **argv UNUSED)
{
	pid_t child = fork();
	if (child < 0)
		return -errno;
	if (child == 0) {
		setsid();
		for (;;)
			pause();
	}
	say("daemon %d", child);
	return 0;
}

static int run_touch_mlock(int argc UNUSED, char **argv UNUSED)
{
	return attempt("mlock", mlockall(MCL_CURRENT));
}

static int run_busy(int argc UNUSED, char **argv)
{
	struct timespec start;
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &start);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < number(argv[0]));
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	say("cpu_ms %lld", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
	return 0;
}

static int run_exec(int argc UNUSED, char **argv)
{
	execv(argv[0], argv);
	return -errno;
}

const struct command probe_acts[] = {
	{"busy", 1, run_busy, "MS: burn time, then say how much processor time that gave"},
	{"chown", 3, run_chown, "UID GID PATH"},
	{"connect", 1, run_connect, "PATH: connect to a unix socket"},
	{"daemon", 0, run_daemon, "leave a child in a session of its own"},
	{"echo", 0, run_echo, "TEXT..."},
	{"exec", 1, run_exec, "PATH ARG..."},
	{"exit", 1, run_exit, "STATUS"},
	{"forks", 1, run_forks, "N: children that stay"},
	{"listen", 0, run_listen, "socket activation: LISTEN_FDS and its descriptors"},
	{"mkdir", 1, run_mkdir, "PATH"},
	{"mknod", 3, run_mknod, "PATH MAJOR MINOR: a character device"},
	{"mlock", 0, run_touch_mlock, "lock all memory"},
	{"mount", 2, run_mount, "TYPE TARGET"},
	{"notify", 1, run_notify, "TEXT: tell the service manager, sd_notify(3)"},
	{"oom", 1, run_oom, "MB: take and touch so much memory"},
	{"pause", 0, run_pause, "say ready, end well at SIGTERM"},
	{"seccomp", 1, run_syscall, "NR [ARG...]: do the system call, say what it answers"},
	{"sethostname", 1, run_sethostname, "NAME"},
	{"setuid", 1, run_setuid, "UID"},
	{"signal", 1, run_signal, "NAME: die by it"},
	{"sigonce", 1, run_sigonce, "NAME: say waiting, go on when it has come"},
	{"sigwait", 0, run_sigwait, "say ready and every signal, end well at SIGTERM"},
	{"stderr", 1, run_stderr, "TEXT"},
	{"stdin", 0, run_stdin, "copy standard input to standard output"},
	{"umount", 1, run_umount, "PATH"},
	{"unshare", 1, run_unshare, "FLAGS"},
	{NULL, 0, NULL, NULL},
};
