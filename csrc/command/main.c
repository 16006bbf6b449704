/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `pyrunc` command. `state`, `start`, `kill` and `delete` are answered here, from container/, when nothing needs
 * Python; everything else becomes `python3 -I -S <package>/boot.py ARGUMENT...`. What is not plainly right, be it an
 * option or an errno without words, goes to Python as well: here is only accepted, there it is explained.
 * Both doors answer alike to the byte (pyrunc/cli/ and log.py are the originals); a test compares them.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "container/container.h"
#include "container/trust.h"
#include "environment.h"
#include "snapshot.h"

#define EXIT_NO_PYTHON 127
/* As log.py: a fifo may have no reader, or one that does not read; that one has a second. Of links Python knows more. */
#define LOG_FLAGS (O_WRONLY | O_CREAT | O_APPEND | O_SYNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW)
#define READER_MS 1000
/* Strings that startup/entry.py can be told: three words with a value each. */
#define TOLD 6
/* Who may not write three of them will not write the fourth. */
#define PRIME_TRIES 3

struct call {
	int argc;
	char **argv;
	bool python; /* a global option that only Python knows what to do with */
	const char *root;
	const char *log;
	bool json;
	int log_fd;
	int verb;        /* index in argv */
	long long began; /* for timing/trace.py: CLOCK_MONOTONIC in ns, 0 when nobody asked */
};

/* What init said, on its way to Python's words. */
static char failure_hex[2 * sizeof(((struct container_error *)0)->record) + 1];

static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* --- Where Python is --- */

static bool is_file(const char *path)
{
	return access(path, R_OK) == 0;
}

/* path = first + second + third; false when that does not fit. */
static bool join(char path[PATH_MAX], const char *first, const char *second, const char *third)
{
	return snprintf(path, PATH_MAX, "%s%s%s", first, second, third) < PATH_MAX;
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

/* --- Prime --- */

/* cgroup.procs of the caller's own v1 cgroup named by a line "4:freezer:/path" of /proc/self/cgroup, or -1. */
static int open_own_procs(const char *line, size_t length, bool freezer)
{
	char path[PATH_MAX];
	const char *names = memchr(line, ':', length);
	const char *directory = names ? memchr(names + 1, ':', length - (size_t)(names + 1 - line)) : NULL;

	if (!directory || directory == names + 1)
		return -1;
	names++;
	size_t size = (size_t)(directory - names), rest = length - (size_t)(directory + 1 - line);
	if ((size == 7 && memcmp(names, "freezer", 7) == 0) != freezer)
		return -1;
	if (size > 5 && memcmp(names, "name=", 5) == 0) {
		names += 5;
		size -= 5;
	}
	int printed = snprintf(path, sizeof(path), "/sys/fs/cgroup/%.*s%.*s/cgroup.procs", (int)size, names, (int)rest,
			       directory + 1);
	return printed < (int)sizeof(path) ? open(path, O_WRONLY | O_CLOEXEC) : -1;
}

/* The freezer's rather than that of a controller which has work to do when a task comes in. */
static int find_own_procs(void)
{
	char text[8192];
	int tries = 0, fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	ssize_t size = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[size > 0 ? size : 0] = '\0';
	for (int freezer = 1; freezer >= 0; freezer--) {
		const char *line = text;
		for (const char *end; tries < PRIME_TRIES && (end = strchr(line, '\n')); line = end + 1) {
			int procs = open_own_procs(line, (size_t)(end - line), freezer);
			if (procs >= 0)
				return procs;
			tries += !freezer;
		}
	}
	return -1;
}

/*
 * The first write to a cgroup.procs after a quiet while waits 8 to 18 ms for an RCU grace period; create and exec must
 * write one on v1. A child that writes itself into the cgroup it is in sets that off now, while Python starts. Its
 * end sends no signal to us; boot.py collects it. Returns its pid, or 0.
 */
static int prime(void)
{
	int procs = find_own_procs();

	if (procs < 0)
		return 0;
	long pid = syscall(SYS_clone, 0L, 0L, 0L, 0L, 0L);
	if (pid == 0) {
		/* Whoever reads our output to its end must not wait for this. */
		syscall(SYS_close_range, (unsigned int)procs + 1, ~0u, 0u);
		if (procs > 0)
			syscall(SYS_close_range, 0u, (unsigned int)procs - 1, 0u);
		ssize_t ignored = write(procs, "0", 1);
		(void)ignored;
		_exit(0);
	}
	close(procs);
	return pid > 0 ? (int)pid : 0;
}

/* --- Options --- */

/* An absolute path that os.path.abspath would leave as it is, and not "/". */
static bool is_clean(const char *path)
{
	if (path[0] != '/' || !path[1])
		return false;
	for (const char *at = path; *at; at++) {
		if (*at != '/')
			continue;
		if (at[1] == '/' || at[1] == '\0')
			return false;
		size_t length = strcspn(at + 1, "/");
		if (at[1] == '.' && (length == 1 || (length == 2 && at[2] == '.')))
			return false;
	}
	return true;
}

static bool is_one_of(const char *word, const char *const *words)
{
	for (; *words; words++)
		if (strcmp(word, *words) == 0)
			return true;
	return false;
}

/* A log that is no plain path: log.py knows how to reach it. */
static bool is_service(const char *log)
{
	return strncmp(log, "file:", 5) == 0 || strncmp(log, "journald:", 9) == 0 || strncmp(log, "syslog:", 7) == 0;
}

/* Keep the value of a global option. false: Python's business. */
static bool take(struct call *call, const char *name, const char *value)
{
	static const char *const bools[] = {"auto", "true", "false", "1", "0", NULL};

	if (strcmp(name, "trace") == 0)
		call->began = now_ns(); /* and Python answers, which has phases to tell of */
	if (strcmp(name, "log") == 0 && is_service(value))
		return false;
	if (strcmp(name, "root") == 0)
		call->root = value;
	else if (strcmp(name, "log") == 0)
		call->log = value;
	else if (strcmp(name, "log-format") == 0 && (strcmp(value, "json") == 0 || strcmp(value, "text") == 0))
		call->json = value[0] == 'j';
	else
		return strcmp(name, "rootless") == 0 && is_one_of(value, bools);
	return true;
}

/* The options before the verb. Go's rules: one dash or two, `--x v` or `--x=v`. false: not even the verb is known. */
static bool parse_globals(struct call *call)
{
	static const char *const switches[] = {"systemd-cgroup", "debug", NULL};
	static const char *const values[] = {"root",           "log",   "log-format", "log-level", "rootless",
					     "cgroup-manager", "trace", NULL};
	char name[32];

	for (int i = 1; i < call->argc; i++) {
		const char *word = call->argv[i];
		if (word[0] != '-') {
			call->verb = i;
			return true;
		}
		word += word[1] == '-' ? 2 : 1;
		size_t length = strcspn(word, "=");
		if (length == 0 || length >= sizeof(name))
			return false;
		memcpy(name, word, length);
		name[length] = '\0';
		if (is_one_of(name, switches)) {
			/* The driver of a container is in its state; --debug has more to say than is said here. */
			call->python |= word[length] == '=' || strcmp(name, "debug") == 0;
			continue;
		}
		if (!is_one_of(name, values))
			return false;
		const char *value = word[length] ? word + length + 1 : ++i < call->argc ? call->argv[i] : NULL;
		if (!value)
			return false;
		call->python |= !take(call, name, value);
	}
	return false;
}

/* As options.default_root(). false: only Python knows. */
static bool default_root(char root[PATH_MAX])
{
	const char *directory = getenv("XDG_RUNTIME_DIR"), *user = getenv("USER");

	if (directory && *directory &&
	    (geteuid() != 0 || ((!user || strcmp(user, "root") != 0) && trust_in_user_namespace())))
		return join(root, directory, "/pyrunc", "");
	return join(root, "/run/pyrunc", "", "");
}

static bool find_root(struct call *call)
{
	static char root[PATH_MAX];

	if (!call->root) {
		if (!default_root(root))
			return false;
		call->root = root;
	}
	return is_clean(call->root);
}

/* --- Python --- */

/* [WORD VALUE]... for startup/entry.py; returns how many strings that are. */
static int tell(const struct call *call, int primed, char *told[TOLD])
{
	static char pid[16], clocks[64];
	int count = 0;

	if (primed > 0) {
		snprintf(pid, sizeof(pid), "%d", primed);
		told[count++] = (char *)"--primed";
		told[count++] = pid;
	}
	if (failure_hex[0]) {
		told[count++] = (char *)"--start-failure";
		told[count++] = failure_hex;
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

/* Where the snapshot of this installation is kept, whichever --root is given. false: nowhere. */
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

/* As the Python that has already started, if we may: --debug wants line numbers, which hot.bin has not. */
static bool wants_snapshot(const struct call *call)
{
	static const char *const debug[] = {"-debug", "--debug", NULL};
	const char *wish = getenv("PYRUNC_SNAPSHOT");

	for (int i = 1; i < call->argc; i++)
		if (is_one_of(call->argv[i], debug))
			return false;
	return !wish || strcmp(wish, "0") != 0;
}

/* The directory of a snapshot, which is code: as nobody else could change it. `make`: as the first create does. */
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

/* `hot`: this verb will be called so often that making a snapshot is worth 0.1 s. */
static _Noreturn void become_python(struct call *call, int primed, bool hot)
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

/* --- Answers --- */

/* Text that stands in JSON, and in the log's text format, as it is. */
static bool is_plain(const char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~' || *text == '"' || *text == '\\')
			return false;
	return true;
}

static void write_all(int fd, const char *text, size_t size)
{
	while (size > 0) {
		ssize_t put = write(fd, text, size);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			_exit(errno == EPIPE ? 128 + 13 : 1);
		text += put;
		size -= (size_t)put;
	}
}

/* 0, or errno. */
static int put_in_log(int fd, const char *text, size_t size)
{
	int64_t deadline = now_ns() / 1000000 + READER_MS;

	signal(SIGPIPE, SIG_IGN);
	while (size > 0) {
		struct pollfd room = {.fd = fd, .events = POLLOUT};
		int64_t left = deadline - now_ns() / 1000000;
		ssize_t put = write(fd, text, size);
		if (put < 0 && errno == EAGAIN && (left <= 0 || poll(&room, 1, (int)left) == 0))
			return EAGAIN;
		if (put < 0 && errno != EINTR && errno != EAGAIN)
			return errno;
		text += put > 0 ? put : 0;
		size -= put > 0 ? (size_t)put : 0;
	}
	return 0;
}

/* RFC 3339 with the local offset. */
static void format_time(char text[40])
{
	char date[24], zone[8];
	struct tm now;
	time_t seconds = time(NULL);

	environment_settle();
	tzset();
	localtime_r(&seconds, &now);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &now);
	strftime(zone, sizeof(zone), "%z", &now);
	if (strcmp(zone, "+0000") == 0 || strlen(zone) != 5)
		snprintf(text, 40, "%sZ", date);
	else
		snprintf(text, 40, "%s%.3s:%.2s", date, zone, zone + 3);
}

static void log_error(const struct call *call, const struct container_error *error)
{
	char now[40], line[sizeof(error->text) + sizeof(error->hint) + 128];
	int size;

	format_time(now);
	if (call->json && error->hint[0])
		size = snprintf(line, sizeof(line),
				"{\"hint\":\"%s\",\"level\":\"error\",\"msg\":\"%s\",\"time\":\"%s\"}\n", error->hint,
				error->text, now);
	else if (call->json)
		size = snprintf(line, sizeof(line), "{\"level\":\"error\",\"msg\":\"%s\",\"time\":\"%s\"}\n",
				error->text, now);
	else
		size = snprintf(line, sizeof(line), "time=\"%s\" level=error msg=\"%s\"%s%s%s\n", now, error->text,
				error->hint[0] ? " hint=\"" : "", error->hint, error->hint[0] ? "\"" : "");
	if (call->log_fd == 2) {
		write_all(call->log_fd, line, (size_t)size);
		return;
	}
	int problem = put_in_log(call->log_fd, line, (size_t)size);
	const char *words = container_errno_text(problem);
	if (problem)
		dprintf(2, "pyrunc: write the log: %s\n", words ? words : strerror(problem));
}

/* As cli._report(). */
static int report(const struct call *call, const struct container_error *error)
{
	char text[sizeof(error->text) + sizeof(error->hint) + 64];
	bool logged = call->log || call->json;

	if (logged)
		log_error(call, error);
	if (logged && !call->log)
		return 1;
	const char *verb = call->argv[call->verb];
	int size = snprintf(text, sizeof(text), "%s%s%s%s\n%s%s%s", logged ? "" : "pyrunc: ", logged ? "" : verb,
			    logged ? "" : ": ", error->text, error->hint[0] ? "hint: " : "", error->hint,
			    error->hint[0] ? "\n" : "");
	write_all(2, text, (size_t)size);
	return 1;
}

static void remember_failure(const struct container_error *error)
{
	for (size_t i = 0; i < sizeof(error->record); i++)
		snprintf(failure_hex + 2 * i, 3, "%02x", error->record[i]);
}

/* The exit status, or -1 for Python. */
static int finish(const struct call *call, int result, const struct container_error *error)
{
	if (result == CONTAINER_OK)
		return 0;
	if (result == CONTAINER_START_FAILED)
		remember_failure(error);
	if (result == CONTAINER_NEEDS_PYTHON || result == CONTAINER_START_FAILED)
		return -1;
	/* Longer than what fits is cut here but not there. */
	if (!error->text[0] || !is_plain(error->text) || !is_plain(error->hint) ||
	    strlen(error->text) == sizeof(error->text) - 1)
		return -1;
	return report(call, error);
}

static int answer_state(const struct call *call, const char *id)
{
	struct container_view view;
	struct container_error error;
	int result = container_state(call->root, id, &view, &error);

	if (result == CONTAINER_OK)
		write_all(1, view.document, view.document_size);
	return finish(call, result, &error);
}

/* kill [-a|--all] ID [SIGNAL] */
static int answer_kill(const struct call *call, char **words, int count)
{
	static const char *const all[] = {"-a", "--a", "-all", "--all", NULL};
	struct container_error error;
	int flags = 0;

	while (count > 0 && is_one_of(words[0], all)) {
		flags = CONTAINER_ALL;
		words++;
		count--;
	}
	if (count < 1 || count > 2 || words[0][0] == '-' || !words[0][0])
		return -1;
	int signal = container_signal_number(count == 2 ? words[1] : "TERM");
	if (signal < 0)
		return -1;
	return finish(call, container_kill(call->root, words[0], signal, flags, &error), &error);
}

/* delete [-f|--force] ID */
static int answer_delete(const struct call *call, char **words, int count)
{
	static const char *const force[] = {"-f", "--f", "-force", "--force", NULL};
	struct container_error error;
	int flags = 0;

	while (count > 0 && is_one_of(words[0], force)) {
		flags = CONTAINER_FORCE;
		words++;
		count--;
	}
	if (count != 1 || words[0][0] == '-')
		return -1;
	return finish(call, container_delete(call->root, words[0], flags, &error), &error);
}

/* Open the log, as Python would at this point. false: it has words for why that fails. */
static bool open_log(struct call *call)
{
	call->log_fd = 2;
	if (call->log && !call->log[0])
		call->log = NULL;
	if (call->log)
		call->log_fd = open(call->log, LOG_FLAGS, 0644);
	return call->log_fd >= 0;
}

/* The exit status, or -1 for Python. */
static int answer(struct call *call)
{
	const char *verb = call->argv[call->verb];
	char **words = call->argv + call->verb + 1;
	int count = call->argc - call->verb - 1;
	bool state = strcmp(verb, "state") == 0, start = strcmp(verb, "start") == 0;
	bool kill = strcmp(verb, "kill") == 0, delete = strcmp(verb, "delete") == 0;

	if (call->python || !(state || start || kill || delete) || !find_root(call))
		return -1;
	if ((state || start) && (count != 1 || words[0][0] == '-'))
		return -1;
	if (!open_log(call))
		return -1;
	if (state)
		return answer_state(call, words[0]);
	if (kill)
		return answer_kill(call, words, count);
	if (delete)
		return answer_delete(call, words, count);
	struct container_error error;
	return finish(call, container_start(call->root, words[0], 0, &error), &error);
}

/* Whether `create`, `run` or `exec` may have been given --timings: an argument of the program is as good. */
static bool wants_timings(const struct call *call)
{
	static const char *const words[] = {"-timings", "--timings", NULL};

	for (int i = call->verb + 1; i < call->argc; i++)
		if (is_one_of(call->argv[i], words))
			return true;
	return false;
}

/* A descriptor of ours in the place of a closed 0, 1 or 2 would become the container's. */
static void fill_stdio(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			_exit(1);
}

int main(int argc, char **argv)
{
	static const char *const primed[] = {"create", "run", "exec", NULL};
	struct call call = {.argc = argc, .argv = argv};
	int child = 0;
	bool hot = false;

	fill_stdio();
	/* Ignored by our caller, the kernel would keep our children's status from us; an exec does not reset that. */
	signal(SIGCHLD, SIG_DFL);
	if (parse_globals(&call)) {
		int status = answer(&call);
		if (status >= 0)
			return status;
		hot = is_one_of(argv[call.verb], primed);
		if (hot) {
			if (!call.began && wants_timings(&call))
				call.began = now_ns();
			child = prime();
		}
	}
	become_python(&call, child, hot);
}
