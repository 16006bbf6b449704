/* SPDX-License-Identifier: Apache-2.0 */
/* The probe's commands that say what a process sees. */
#define _GNU_SOURCE
#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#define PR_CAP_AMBIENT_IS_SET 1
#endif

extern char **environ;

/* Line breaks and backslashes as octal, so that one fact stays one line. */
static void say_text(const char *key, const char *text, size_t size)
{
	printf("%s ", key);
	for (size_t i = 0; i < size; i++) {
		unsigned char byte = (unsigned char)text[i];
		if (byte < ' ' || byte == '\\')
			printf("\\%03o", byte);
		else
			putchar(byte);
	}
	say("%s", "");
}

static int copy_lines(const char *path)
{
	char buffer[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t size;
	char last = '\n';
	fflush(stdout);
	while ((size = read(fd, buffer, sizeof(buffer))) > 0) {
		fwrite(buffer, 1, (size_t)size, stdout);
		last = buffer[size - 1];
	}
	int error = size < 0 ? -errno : 0;
	close(fd);
	if (last != '\n')
		putchar('\n');
	fflush(stdout);
	return error;
}

/* --- Who am I --------------------------------------------------------------------------------------------------------- */

static int run_ids(int argc UNUSED, char **argv UNUSED)
{
	uid_t uid[3];
	gid_t gid[3];
	gid_t groups[64];
	if (getresuid(&uid[0], &uid[1], &uid[2]) < 0 || getresgid(&gid[0], &gid[1], &gid[2]) < 0)
		return -errno;
	int count = getgroups(64, groups);
	if (count < 0)
		return -errno;
	say("uid %u %u %u", uid[0], uid[1], uid[2]);
	say("gid %u %u %u", gid[0], gid[1], gid[2]);
	printf("groups");
	for (int i = 0; i < count; i++)
		printf(" %u", groups[i]);
	say("%s", "");
	return 0;
}

static int run_caps(int argc UNUSED, char **argv UNUSED)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};
	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	uint64_t bounding = 0;
	uint64_t ambient = 0;
	for (unsigned long cap = 0; cap < 64; cap++) {
		if (prctl(PR_CAPBSET_READ, cap) == 1)
			bounding |= 1ULL << cap;
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
			ambient |= 1ULL << cap;
	}
	say("effective %016llx", (unsigned long long)data[1].effective << 32 | data[0].effective);
	say("permitted %016llx", (unsigned long long)data[1].permitted << 32 | data[0].permitted);
	say("inheritable %016llx", (unsigned long long)data[1].inheritable << 32 | data[0].inheritable);
	say("bounding %016llx", (unsigned long long)bounding);
	say("ambient %016llx", (unsigned long long)ambient);
	return 0;
}

static int run_process(int argc UNUSED, char **argv UNUSED)
{
	int death = 0;
	prctl(PR_GET_PDEATHSIG, &death);
	say("pid %d", getpid());
	say("ppid %d", getppid());
	say("sid %d", getsid(0));
	say("pgid %d", getpgrp());
	say("no_new_privs %d", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	say("seccomp %d", prctl(PR_GET_SECCOMP));
	say("dumpable %d", prctl(PR_GET_DUMPABLE));
	say("keepcaps %d", prctl(PR_GET_KEEPCAPS));
	say("securebits %d", prctl(PR_GET_SECUREBITS));
	say("pdeathsig %d", death);
	return 0;
}

static int run_signals(int argc UNUSED, char **argv UNUSED)
{
	sigset_t blocked;
	sigprocmask(SIG_BLOCK, NULL, &blocked);
	for (int sig = 1; sig <= SIGRTMAX; sig++) {
		struct sigaction action;
		if (sigismember(&blocked, sig) == 1)
			say("blocked %d", sig);
		if (sigaction(sig, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
			say("ignored %d", sig);
	}
	say("signals done");
	return 0;
}

static int run_args(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		say_text("arg", argv[i], strlen(argv[i]));
	return 0;
}

static int run_env(int argc UNUSED, char **argv UNUSED)
{
	for (char **entry = environ; *entry != NULL; entry++)
		say_text("env", *entry, strlen(*entry));
	return 0;
}

static int run_umask(int argc UNUSED, char **argv UNUSED)
{
	mode_t mask = umask(0);
	umask(mask);
	say("umask %04o", mask);
	return 0;
}

static int run_cwd(int argc UNUSED, char **argv UNUSED)
{
	char path[PATH_MAX];
	/* The raw call says "(unreachable)/..." where a libc would fail. */
	if (syscall(SYS_getcwd, path, sizeof(path)) < 0)
		return -errno;
	say("cwd %s", path);
	return 0;
}

static int run_rlimits(int argc UNUSED, char **argv UNUSED)
{
	static const char *const names[] = {"CPU",      "FSIZE",  "DATA",    "STACK", "CORE",  "RSS",
					    "NPROC",    "NOFILE", "MEMLOCK", "AS",    "LOCKS", "SIGPENDING",
					    "MSGQUEUE", "NICE",   "RTPRIO",  "RTTIME"};
	for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++) {
		struct rlimit limit;
		if (getrlimit(i, &limit) < 0)
			return -errno;
		say("RLIMIT_%s %llu %llu", names[i], (unsigned long long)limit.rlim_cur,
		    (unsigned long long)limit.rlim_max);
	}
	return 0;
}

static int run_sched(int argc UNUSED, char **argv UNUSED)
{
	struct sched_param param;
	unsigned char mask[128] = {0};
	/* The raw calls: musl's wrappers always answer ENOSYS. */
	if (syscall(SYS_sched_getparam, 0, &param) < 0)
		return -errno;
	say("policy %ld", syscall(SYS_sched_getscheduler, 0));
	say("priority %d", param.sched_priority);
	say("nice %d", getpriority(PRIO_PROCESS, 0));
	say("ioprio %ld", syscall(SYS_ioprio_get, 1, 0));
	long size = syscall(SYS_sched_getaffinity, 0, sizeof(mask), mask);
	if (size < 0)
		return -errno;
	printf("cpus");
	for (long cpu = 0; cpu < size * 8; cpu++)
		if (mask[cpu / 8] & (1u << (cpu % 8)))
			printf(" %ld", cpu);
	say("%s", "");
	return 0;
}

static int run_personality(int argc UNUSED, char **argv UNUSED)
{
	struct utsname names;
	if (uname(&names) < 0)
		return -errno;
	say("personality %08x", (unsigned int)personality(0xffffffff));
	say("machine %s", names.machine);
	return 0;
}

static int run_uname(int argc UNUSED, char **argv UNUSED)
{
	struct utsname names;
	if (uname(&names) < 0)
		return -errno;
	say("hostname %s", names.nodename);
	say("domainname %s", names.domainname);
	return 0;
}

static int run_keyring(int argc UNUSED, char **argv UNUSED)
{
	char text[256];
	long size = syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, text, sizeof(text) - 1);
	if (size < 0)
		return -errno;
	say("keyring %s", text);
	size = syscall(SYS_keyctl, KEYCTL_GET_SECURITY, KEY_SPEC_SESSION_KEYRING, text, sizeof(text) - 1);
	/* empty without SELinux */
	if (size > 1)
		say("keyring_label %s", text);
	return 0;
}

/* --- What is around me ------------------------------------------------------------------------------------------------ */

static int run_ns(int argc UNUSED, char **argv UNUSED)
{
	static const char *const names[] = {
		"mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time", "pid_for_children"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[64];
		struct stat info;
		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		if (stat(path, &info) == 0)
			say("%s %lu", names[i], (unsigned long)info.st_ino);
		else
			say("%s -", names[i]);
	}
	return 0;
}

static int run_fds(int argc UNUSED, char **argv UNUSED)
{
	/* By number, not by /proc: a container without /proc can be asked too, and no directory fd of ours shows up. */
	for (int fd = 0; fd < 4096; fd++) {
		char link[64];
		char target[PATH_MAX];
		int flags = fcntl(fd, F_GETFD);
		if (flags < 0)
			continue;
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		ssize_t size = readlink(link, target, sizeof(target) - 1);
		target[size < 0 ? 0 : size] = '\0';
		say("fd %d %s%s", fd, size < 0 ? "?" : target, flags & FD_CLOEXEC ? " (cloexec)" : "");
	}
	return 0;
}

static int run_mounts(int argc UNUSED, char **argv UNUSED)
{
	return copy_lines("/proc/self/mountinfo");
}

static int run_cgroup(int argc UNUSED, char **argv UNUSED)
{
	return copy_lines("/proc/self/cgroup");
}

static int run_time(int argc UNUSED, char **argv UNUSED)
{
	struct timespec now;
	if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
		return -errno;
	say("monotonic %lld", (long long)now.tv_sec);
	if (clock_gettime(CLOCK_BOOTTIME, &now) < 0)
		return -errno;
	say("boottime %lld", (long long)now.tv_sec);
	return 0;
}

static int run_net(int argc UNUSED, char **argv UNUSED)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* a host that has seen many devices come and go counts far */
	for (int index = 1; index < 8192; index++) {
		struct ifreq request = {.ifr_ifindex = index};
		if (ioctl(fd, SIOCGIFNAME, &request) < 0)
			continue;
		if (ioctl(fd, SIOCGIFFLAGS, &request) == 0)
			say("net %s %s", request.ifr_name, request.ifr_flags & IFF_UP ? "up" : "down");
	}
	close(fd);
	return 0;
}

static int run_tty(int argc UNUSED, char **argv UNUSED)
{
	for (int fd = 0; fd < 3; fd++) {
		struct stat info;
		if (fstat(fd, &info) < 0)
			say("tty %d closed", fd);
		else if (isatty(fd))
			say("tty %d yes %u:%u uid %u gid %u", fd, major(info.st_rdev), minor(info.st_rdev), info.st_uid,
			    info.st_gid);
		else
			say("tty %d no", fd);
	}
	int fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
	say("controlling %s", fd >= 0 ? "yes" : "no");
	if (fd >= 0)
		close(fd);
	return 0;
}

static int say_winsize(void)
{
	struct winsize size;
	if (ioctl(0, TIOCGWINSZ, &size) < 0)
		return -errno;
	say("winsize %u %u", size.ws_row, size.ws_col);
	return 0;
}

static int run_winsize(int argc, char **argv UNUSED)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	/* Blocked before the first answer, or a change right after it would be missed. */
	sigprocmask(SIG_BLOCK, &set, NULL);
	int error = say_winsize();
	if (error < 0 || argc == 0)
		return error;
	if (sigwaitinfo(&set, NULL) < 0)
		return -errno;
	return say_winsize();
}

/* --- Files ------------------------------------------------------------------------------------------------------------ */

static int run_cat(int argc UNUSED, char **argv)
{
	return copy_lines(argv[0]);
}

static int run_sysctl(int argc UNUSED, char **argv)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "/proc/sys/%s", argv[0]);
	for (char *at = path + strlen("/proc/sys/"); *at != '\0'; at++)
		if (*at == '.')
			*at = '/';
	return copy_lines(path);
}

static int run_write(int argc, char **argv)
{
	int fd = open(argv[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	const char *text = argc > 1 ? argv[1] : "";
	ssize_t size = write(fd, text, strlen(text));
	int error = size < 0 ? -errno : 0;
	close(fd);
	if (error == 0)
		say("wrote %zd", size);
	return error;
}

static int run_open(int argc, char **argv)
{
	int flags = argc > 1 && strcmp(argv[1], "rw") == 0 ? O_RDWR : O_RDONLY;
	int fd = open(argv[0], flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	say("open %s %d", argv[0], fd < 0 ? -errno : 0);
	if (fd >= 0)
		close(fd);
	return 0;
}

static int run_read(int argc, char **argv)
{
	char buffer[4096];
	long want = argc > 1 ? number(argv[1]) : 16;
	int fd = open(argv[0], O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t size = read(fd, buffer, (size_t)want < sizeof(buffer) ? (size_t)want : sizeof(buffer));
	int error = size < 0 ? -errno : 0;
	close(fd);
	if (error == 0)
		say("read %zd", size);
	return error;
}

static int run_stat(int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		struct stat info;
		if (lstat(argv[i], &info) < 0)
			say("stat %s error %d", argv[i], errno);
		else
			say("stat %s mode %06o uid %u gid %u size %lld dev %u:%u rdev %u:%u", argv[i], info.st_mode,
			    info.st_uid, info.st_gid, (long long)info.st_size, major(info.st_dev), minor(info.st_dev),
			    major(info.st_rdev), minor(info.st_rdev));
	}
	return 0;
}

static int run_statfs(int argc UNUSED, char **argv)
{
	struct statfs info;
	if (statfs(argv[0], &info) < 0)
		return -errno;
	say("statfs %s type %lx flags %lx", argv[0], (unsigned long)info.f_type, (unsigned long)info.f_flags);
	return 0;
}

static int run_readlink(int argc UNUSED, char **argv)
{
	char target[PATH_MAX];
	ssize_t size = readlink(argv[0], target, sizeof(target));
	if (size < 0)
		return -errno;
	say_text("readlink", target, (size_t)size);
	return 0;
}

static int run_ls(int argc UNUSED, char **argv)
{
	DIR *directory = opendir(argv[0]);
	if (directory == NULL)
		return -errno;
	for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			say_text("entry", entry->d_name, strlen(entry->d_name));
	closedir(directory);
	return 0;
}

const struct command probe_facts[] = {
	{"args", 0, run_args, "the arguments given to it"},
	{"caps", 0, run_caps, "the five capability sets"},
	{"cat", 1, run_cat, "FILE"},
	{"cgroup", 0, run_cgroup, "/proc/self/cgroup"},
	{"cwd", 0, run_cwd, "the working directory"},
	{"devread", 1, run_read, "PATH [BYTES]"},
	{"env", 0, run_env, "the environment"},
	{"fds", 0, run_fds, "open file descriptors"},
	{"ids", 0, run_ids, "user, group, supplementary groups"},
	{"keyring", 0, run_keyring, "the session keyring"},
	{"ls", 1, run_ls, "DIR"},
	{"mounts", 0, run_mounts, "/proc/self/mountinfo"},
	{"net", 0, run_net, "network interfaces"},
	{"ns", 0, run_ns, "inode numbers of the namespaces"},
	{"open", 1, run_open, "PATH [rw]"},
	{"personality", 0, run_personality, "execution domain and machine"},
	{"process", 0, run_process, "pid, session, no_new_privs, seccomp, dumpable ..."},
	{"readlink", 1, run_readlink, "PATH"},
	{"rlimits", 0, run_rlimits, "resource limits"},
	{"sched", 0, run_sched, "policy, nice, ioprio, cpus"},
	{"signals", 0, run_signals, "blocked and ignored signals"},
	{"stat", 1, run_stat, "PATH..."},
	{"statfs", 1, run_statfs, "PATH"},
	{"sysctl", 1, run_sysctl, "NAME"},
	{"time", 0, run_time, "clocks that a time namespace moves"},
	{"tty", 0, run_tty, "which of 0, 1, 2 are terminals"},
	{"umask", 0, run_umask, "the file mode mask"},
	{"uname", 0, run_uname, "host and domain name"},
	{"winsize", 0, run_winsize, "[wait]: the terminal's size, and once more when it changes"},
	{"write", 2, run_write, "FILE TEXT"},
	{NULL, 0, NULL, NULL},
};
