/* SPDX-License-Identifier: Apache-2.0 */
/* Where Python is, and how the command becomes it: out of a snapshot, or by starting it. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "environment.h"
#include "snapshot.h"

#define EXIT_NO_PYTHON 127
/* Arguments for startup/entry.py: three words with a value each. */
#define TOLD 6

static bool is_file(const char *path)
{
	return access(path, R_OK) == 0;
}

/* boot.py below one library directory: of a wheel, or of a Debian package. */
static bool find_boot(char boot[PATH_MAX], const char *library, const char *python)
{
	static const char *const places[] = {"/site-packages/pyrunc/boot.py", "/dist-packages/pyrunc/boot.py"};
	char directory[PATH_MAX];

	if (!join(directory, library, "/", python))
		return false;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (join(boot, directory, places[i], "") && is_file(boot))
			return true;
	return false;
}

/* The first lib/python3* that has it. python: its name, "python3.11". */
static bool search_boot(char boot[PATH_MAX], const char *library, char python[NAME_MAX + 1])
{
	DIR *directory = opendir(library);
	bool found = false;

	if (!directory)
		return false;
	for (struct dirent *entry; !found && (entry = readdir(directory));) {
		if (strncmp(entry->d_name, "python3", 7) != 0)
			continue;
		snprintf(python, NAME_MAX + 1, "%s", entry->d_name);
		found = find_boot(boot, library, python);
	}
	closedir(directory);
	return found;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/*
 * From the place of this program, never by PATH, which engines do not give: <prefix>/bin/pyrunc belongs to
 * <prefix>/bin/python3, whose real name has the version that names the library directory. Run by that real name it
 * does not look for a virtual environment either: boot.py knows where the packages are.
 */
static bool find_python(char python[PATH_MAX], char boot[PATH_MAX])
{
	static const char *const libraries[] = {"/lib", "/local/lib"};
	static const char *const programs[] = {"/usr/bin/", "/usr/local/bin/"};
	char prefix[PATH_MAX], path[PATH_MAX], library[PATH_MAX], name[NAME_MAX + 1];

	ssize_t length = readlink("/proc/self/exe", prefix, sizeof(prefix) - 1);
	if (length <= 0)
		return false;
	prefix[length] = '\0';
	for (int up = 0; up < 2; up++) {
		char *slash = strrchr(prefix, '/');
		if (!slash)
			return false;
		*slash = '\0';
	}
	bool own = join(path, prefix, "/bin/python3", "") && realpath(path, python);
	for (size_t i = 0; i < 2; i++) {
		if (!join(library, prefix, libraries[i], ""))
			return false;
		if (own && find_boot(boot, library, base_name(python)))
			return true;
		/* Debian's /usr/lib/python3 serves all versions. */
		if (own && find_boot(boot, library, "python3"))
			return true;
	}
	for (size_t i = 0; i < 2; i++) {
		if (!join(library, prefix, libraries[i], "") || !search_boot(boot, library, name))
			continue;
		if (join(path, prefix, "/bin/", name) && realpath(path, python))
			return true;
		for (size_t j = 0; j < 2; j++)
			if (join(path, programs[j], name, "") && realpath(path, python))
				return true;
	}
	return false;
}

/* [WORD VALUE]... for startup/entry.py; returns how many strings that are. */
static int tell(const struct call *call, int primed, char *told[TOLD])
{
	static char pid[16], record[16], clocks[64];
	int count = 0;

	if (primed > 0) {
		snprintf(pid, sizeof(pid), "%d", primed);
		told[count++] = (char *)"--primed";
		told[count++] = pid;
	}
	if (call->record_fd > 0) {
		snprintf(record, sizeof(record), "%d", call->record_fd);
		told[count++] = (char *)"--start-record";
		told[count++] = record;
	}
	if (call->began) {
		snprintf(clocks, sizeof(clocks), "%lld:%lld", call->began, now_ns());
		told[count++] = (char *)"--clock";
		told[count++] = clocks;
	}
	return count;
}

static _Noreturn void exec_python(const struct call *call, int primed, const char *python, const char *boot)
{
	char *told[TOLD];
	int told_count = tell(call, primed, told), count = 0;
	char **argv = calloc((size_t)(call->argc + told_count) + 8, sizeof(char *));
	char **environment = environment_to_pass();

	if (!argv || !environment)
		_exit(EXIT_NO_PYTHON);
	argv[count++] = (char *)python;
	argv[count++] = (char *)"-I";
	argv[count++] = (char *)"-S";
	argv[count++] = (char *)boot;
	for (int i = 0; i < told_count; i++)
		argv[count++] = told[i];
	argv[count++] = (char *)"--";
	for (int i = 1; i < call->argc; i++)
		argv[count++] = call->argv[i];
	execve(python, argv, environment);
	dprintf(2, "pyrunc: execve '%s': %s\n", python, strerror(errno));
	_exit(EXIT_NO_PYTHON);
}

/* The path of this installation's snapshot, for any --root. false: there is none. */
static bool find_snapshot(char path[PATH_MAX])
{
	char self[PATH_MAX], root[PATH_MAX];
	uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

	ssize_t length = readlink("/proc/self/exe", self, sizeof(self));
	if (length <= 0 || !default_root(root))
		return false;
	for (ssize_t i = 0; i < length; i++)
		hash = (hash ^ (unsigned char)self[i]) * 0x100000001b3u;
	return snprintf(path, PATH_MAX, "%s/@python-%016" PRIx64, root, hash) < PATH_MAX;
}

/* Become the Python that has already started, if possible: --debug needs line numbers, which hot.bin lacks. */
static bool wants_snapshot(const struct call *call)
{
	static const char *const debug[] = {"-debug", "--debug", NULL};
	const char *wish = getenv("PYRUNC_SNAPSHOT");

	for (int i = 1; i < call->argc; i++)
		if (is_one_of(call->argv[i], debug))
			return false;
	return !wish || strcmp(wish, "0") != 0;
}

/* Open the directory of a snapshot, which is code: only if others cannot change it. `make`: as the first create does. */
static bool is_trusted_place(const char *path, bool make)
{
	char directory[PATH_MAX];
	struct container_error error;

	snprintf(directory, sizeof(directory), "%.*s", (int)(base_name(path) - path) - 1, path);
	int result = container_check_root(directory, &error);
	if (result == CONTAINER_NOT_FOUND && make && (mkdir(directory, 0711) == 0 || errno == EEXIST))
		result = container_check_root(directory, &error);
	return result == CONTAINER_OK;
}

_Noreturn void become_python(struct call *call, int primed, bool hot)
{
	char python[PATH_MAX], boot[PATH_MAX], snapshot[PATH_MAX], *told[TOLD];
	struct snapshot_arrival arrival = {call->argc, call->argv, environ, environment_clean(), told, 0};
	bool wanted = wants_snapshot(call) && find_snapshot(snapshot);

	call->argv[0] = (char *)"pyrunc";
	arrival.told_count = tell(call, primed, told);
	if (wanted && is_trusted_place(snapshot, hot))
		hot &= snapshot_enter(snapshot, &arrival) == SNAPSHOT_STALE;
	else
		hot = false;
	if (!find_python(python, boot)) {
		dprintf(2, "pyrunc: cannot find lib/python3*/site-packages/pyrunc/boot.py and its python3 beside this "
			   "program\nhint: install pyrunc with pip; a copy of the program alone does not work\n");
		_exit(EXIT_NO_PYTHON);
	}
	if (hot && snapshot_make(snapshot, python, boot)) {
		arrival.told_count = tell(call, primed, told);
		(void)snapshot_enter(snapshot, &arrival);
	}
	exec_python(call, primed, python, boot);
}
