/* SPDX-License-Identifier: Apache-2.0 */
/* The state directory: open, lock, read, show, remove. The contract is in container.h. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "impl.h"
#include "trust.h"

#define NAME_LIMIT 255
#define ERASE_DEPTH 16

static const char pid_line[] = "  \"pid\": 0,";
static const char status_line[] = "  \"status\": \"stopped\",";

static const struct container container_none = {.root_fd = -1, .fd = -1};

static int not_found(struct container_error *error)
{
	return container_fail(error, CONTAINER_NOT_FOUND, "container does not exist");
}

const char *container_status_name(int status)
{
	static const char *const names[] = {"creating", "created", "running", "paused", "stopped"};

	return status >= 0 && status <= CONTAINER_STOPPED ? names[status] : "unknown";
}

/* The directory */

static int check_id(const char *id, struct container_error *error)
{
	size_t length = strlen(id);
	bool good = length > 0 && strcmp(id, ".") != 0 && strcmp(id, "..") != 0;

	for (size_t i = 0; good && i < length; i++) {
		unsigned char c = (unsigned char)id[i];
		good = c < 128 && (isalnum(c) || strchr("_+.-", c));
	}
	if (!good) {
		container_fail(error, CONTAINER_BAD_STATE, "invalid container ID format: '%s'", id);
		container_hint(error, "use letters, digits and any of _ + . -");
		return CONTAINER_BAD_STATE;
	}
	if (length > NAME_LIMIT)
		return container_fail(error, CONTAINER_BAD_STATE,
				      "invalid container ID format: %zu characters, at most %d are allowed", length,
				      NAME_LIMIT);
	return CONTAINER_OK;
}

static int open_id(struct container *container, struct container_error *error)
{
	struct stat about;

	container->fd = openat(container->root_fd, container->id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (container->fd < 0)
		return errno == ENOENT ? not_found(error) : container_fail_here(container, "open", error);
	if (fstat(container->fd, &about) != 0)
		return container_fail_here(container, "fstat", error);
	if (trust_is_ours(&about))
		return CONTAINER_OK;
	container_fail(error, CONTAINER_BAD_STATE,
		       "the state of container '%s' cannot be trusted: others own '%s/%s' or may write to it",
		       container->id, container->root, container->id);
	container_hint(error, "find out who made it; it is none of pyrunc's as it is");
	return CONTAINER_BAD_STATE;
}

int container_open(struct container *container, const char *root, const char *id, struct container_error *error)
{
	memset(error, 0, sizeof(*error));
	*container = container_none;
	container->root = root;
	container->id = id;
	int result = check_id(id, error);
	if (result != CONTAINER_OK)
		return result;
	result = trust_open(root, &container->root_fd, error);
	return result == CONTAINER_OK ? open_id(container, error) : result;
}

int container_check_root(const char *root, struct container_error *error)
{
	int fd, result = trust_open(root, &fd, error);

	if (fd >= 0)
		close(fd);
	return result;
}

int container_is_our_file(int fd)
{
	struct stat about;

	return fstat(fd, &about) != 0 ? -errno : S_ISREG(about.st_mode) && trust_is_ours(&about);
}

static void forget(struct container *container)
{
	free(container->text);
	free(container->header);
	free((void *)container->cgroups);
	free((void *)container->made);
	container->text = container->header = NULL;
	container->cgroups = container->made = NULL;
	container->cgroup_count = container->made_count = 0;
}

void container_let_go(struct container *container)
{
	if (container->fd >= 0)
		close(container->fd);
	if (container->root_fd >= 0)
		close(container->root_fd);
	container->fd = container->root_fd = -1;
	container->locked = false;
}

void container_close(struct container *container)
{
	container_let_go(container);
	forget(container);
}

/* 1: still the directory of that name. 0: removed or replaced. -1: errno. */
static int is_current(const struct container *container)
{
	struct stat held, named;

	if (fstat(container->fd, &held) != 0)
		return -1;
	if (fstatat(container->root_fd, container->id, &named, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : -1;
	return held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

int container_lock(struct container *container, int timeout_ms, struct container_error *error)
{
	int64_t deadline = container_now_ms() + timeout_ms;
	long wait = 100;

	for (;;) {
		if (flock(container->fd, LOCK_EX | LOCK_NB) == 0) {
			int current = is_current(container);
			if (current < 0)
				return container_fail_here(container, "stat", error);
			container->locked = current;
			if (current)
				return CONTAINER_OK;
			close(container->fd);
			int result = open_id(container, error);
			if (result != CONTAINER_OK)
				return result;
			continue;
		}
		if (errno != EWOULDBLOCK && errno != EINTR)
			return container_fail_here(container, "flock", error);
		if (container_now_ms() >= deadline)
			return container_fail(error, CONTAINER_BAD_STATE,
					      "'%s/%s' is locked by another pyrunc for %d s", container->root,
					      container->id, timeout_ms / 1000);
		container_sleep_us(wait);
		wait = wait < 10000 ? wait * 2 : wait;
	}
}

/* The state file */

static int slurp(struct container *container, int fd, struct container_error *error)
{
	struct stat about;
	size_t used = 0;

	if (fstat(fd, &about) != 0)
		return container_fail_here(container, "fstat", error);
	if (!S_ISREG(about.st_mode))
		return container_fail(error, CONTAINER_BROKEN, "it is no plain file");
	if (!trust_is_ours(&about))
		return container_fail(error, CONTAINER_BROKEN, "it is a file that others own, name or may write to");
	bool fits = about.st_size <= CONTAINER_STATE_MAX;
	size_t size = fits ? (size_t)about.st_size : CONTAINER_STATE_MAX;
	container->text = malloc(size + 1);
	if (!container->text)
		return container_fail_here(container, "malloc", error);
	while (used < size) {
		ssize_t got = read(fd, container->text + used, size - used);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return container_fail_here(container, "read", error);
		if (got == 0)
			break;
		used += (size_t)got;
	}
	container->text[used] = '\0';
	container->document = container->text + used;
	container->document_size = 0;
	container->header_size = used;
	if (!fits)
		return container_fail(error, CONTAINER_BROKEN, "it is larger than %d MiB", CONTAINER_STATE_MAX >> 20);
	return CONTAINER_OK;
}

/* Find the file; "neither" is not an answer while one is being renamed to the other. */
static int read_file(struct container *container, struct container_error *error)
{
	for (int attempt = 0; attempt < 3; attempt++) {
		for (int creating = 0; creating < 2; creating++) {
			int fd = openat(container->fd, creating ? "state.creating" : "state",
					O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
			if (fd < 0 && errno == ENOENT)
				continue;
			if (fd < 0 && errno == ELOOP)
				return container_fail(error, CONTAINER_BROKEN, "it is a symbolic link");
			if (fd < 0)
				return container_fail_here(container, "open", error);
			container->creating = creating;
			int result = slurp(container, fd, error);
			close(fd);
			return result;
		}
	}
	return not_found(error);
}

static bool parse_number(const char *text, uint64_t most, uint64_t *number)
{
	uint64_t value = 0;

	if (!*text || strlen(text) > 19)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (uint64_t)(*text - '0');
	}
	*number = value;
	return value <= most;
}

static bool good_directory(const char *path)
{
	if (path[0] != '/' || strlen(path) >= PATH_MAX)
		return false;
	for (const char *at = path; (at = strstr(at, "/..")); at += 3)
		if (at[3] == '/' || at[3] == '\0')
			return false;
	return true;
}

enum seen { SEEN_PID = 1, SEEN_START = 2, SEEN_NEEDS = 4, SEEN_PIDNS = 8, SEEN_ALL = 15 };

uint64_t container_sum(const char *text, size_t size)
{
	uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
	return hash;
}

/* The lines from `at` to `end`: it stands in front of them, so that no damage behind it takes it away unseen. */
static const char *check_sum(const char *at, const char *end, const char *value)
{
	char expected[17];

	snprintf(expected, sizeof(expected), "%016" PRIx64, container_sum(at, (size_t)(end - at)));
	return strcmp(value, expected) == 0 ? NULL : "the lines below are not those that were written";
}

static bool once(unsigned int *seen, enum seen bit)
{
	bool first = !(*seen & (unsigned int)bit);

	*seen |= (unsigned int)bit;
	return first;
}

/* NULL, or what is wrong with the line. */
static const char *parse_line(struct container *container, const char *key, const char *value, unsigned int *seen)
{
	uint64_t number;

	if (strcmp(key, "pid") == 0) {
		if (!once(seen, SEEN_PID) || !parse_number(value, INT_MAX, &number))
			return "the pid is none";
		container->pid = (int)number;
	} else if (strcmp(key, "starttime") == 0) {
		if (!once(seen, SEEN_START) || !parse_number(value, UINT64_MAX, &number))
			return "the start time is none";
		container->start_time = number;
	} else if (strcmp(key, "pidnsid") == 0) {
		if (container->pid_namespace || !parse_number(value, UINT64_MAX, &container->pid_namespace))
			return "the pid namespace is none";
	} else if (strcmp(key, "needs") == 0) {
		if (!once(seen, SEEN_NEEDS))
			return "a second 'needs'";
		container->needs = value;
	} else if (strcmp(key, "pidns") == 0) {
		container->shared_pidns = strcmp(value, "shared") == 0;
		if (!once(seen, SEEN_PIDNS) || (!container->shared_pidns && strcmp(value, "private") != 0))
			return "pidns is neither private nor shared";
	} else if (strcmp(key, "cgroup") == 0) {
		const char *colon = strchr(value, ':');
		if (!colon || !good_directory(colon + 1))
			return "the cgroup is not 'controller:/directory'";
		container->cgroups[container->cgroup_count++] = value;
	} else if (strcmp(key, "cgmade") == 0) {
		if (!good_directory(value))
			return "the cgroup directory is not absolute";
		container->made[container->made_count++] = value;
	}
	return NULL;
}

static int broken(struct container *container, int line, const char *what, struct container_error *error)
{
	/* The first error is reported; parsing continues for what delete --force can use. */
	if (container->broken)
		return CONTAINER_BROKEN;
	container->broken = true;
	if (line)
		container_fail(error, CONTAINER_BROKEN, "the state of container '%s' is damaged: line %d: %s",
			       container->id, line, what);
	else
		container_fail(error, CONTAINER_BROKEN, "the state of container '%s' is damaged: %s", container->id,
			       what);
	container_hint(error, "remove it with: pyrunc delete --force %s", container->id);
	return CONTAINER_BROKEN;
}

/* A line of the header is damaged. */
static void lost(struct container *container, int line, const char *what, struct container_error *error)
{
	container->whole = false;
	broken(container, line, what, error);
}

/* Cut the header into lines; the number of the line behind it, 0 if it has no end. */
static int parse_header(struct container *container, size_t size, unsigned int *seen, struct container_error *error)
{
	const char *raw = container->header;
	char *at = container->text, *end = at + container->header_size;
	int line = 0;

	while (at < end) {
		char *stop = memchr(at, '\n', (size_t)(end - at));
		line++;
		if (!stop)
			break;
		*stop = '\0';
		if (stop == at) {
			container->document = stop + 1;
			container->document_size = (size_t)(end - stop - 1);
			container->header_size = (size_t)(at - container->text);
			return line + 1;
		}
		char *value = memchr(at, ' ', (size_t)(stop - at));
		const char *problem = NULL;
		if (strlen(at) != (size_t)(stop - at))
			problem = "a NUL byte";
		else if (line == 1 && strcmp(at, "version 1") != 0)
			problem = "not 'version 1'";
		else if (!value)
			problem = "not 'key value'";
		if (!problem) {
			*value = '\0';
			if (strcmp(at, "sum") != 0)
				problem = parse_line(container, at, value + 1, seen);
			else if (line != 2)
				problem = "the sum is not the second line";
			else
				problem = check_sum(raw + (stop + 1 - container->text), raw + size, value + 1);
		}
		if (problem)
			lost(container, line, problem, error);
		at = stop + 1;
	}
	lost(container, line, "the file ends here", error);
	return 0;
}

static bool find_line(const struct container *container, const char *line, size_t length, size_t *offset)
{
	const char *from = container->document, *end = from + container->document_size;

	while (from < end) {
		const char *found = memmem(from, (size_t)(end - from), line, length);
		if (!found)
			return false;
		/* Strings of JSON hold no line feed, so a whole line of two blanks' depth is the top level's. */
		if (found > container->document && found[-1] == '\n' && found + length < end && found[length] == '\n') {
			*offset = (size_t)(found - container->document);
			return true;
		}
		from = found + 1;
	}
	return false;
}

static int parse(struct container *container, struct container_error *error)
{
	unsigned int seen = 0;
	size_t lines = 1, size = container->header_size;
	const char *empty_line = memmem(container->text, size, "\n\n", 2);

	if (empty_line)
		size = (size_t)(empty_line - container->text) + 1;
	for (size_t i = 0; i < size; i++)
		lines += container->text[i] == '\n';
	container->cgroups = calloc(lines, sizeof(char *));
	container->made = calloc(lines, sizeof(char *));
	container->header = malloc(size + 1);
	if (!container->cgroups || !container->made || !container->header)
		return container_fail_here(container, "malloc", error);
	memcpy(container->header, container->text, size);
	container->whole = true;
	int line = parse_header(container, size, &seen, error);
	if (line) {
		container->header[container->header_size] = '\0';
		/* An empty line too early would hide the lines after it. */
		if (container->document_size > 0 && container->document[0] != '{')
			lost(container, line, "no document behind the empty line", error);
		if ((seen & SEEN_ALL) != SEEN_ALL)
			lost(container, line - 1, "pid, starttime, needs or pidns is missing above", error);
		if (!find_line(container, pid_line, sizeof(pid_line) - 1, &container->pid_line) ||
		    !find_line(container, status_line, sizeof(status_line) - 1, &container->status_line))
			broken(container, line, "the document below has no place for pid and status", error);
	}
	return container->broken ? CONTAINER_BROKEN : CONTAINER_OK;
}

int container_load(struct container *container, struct container_error *error)
{
	forget(container);
	container->pid = 0;
	container->start_time = container->pid_namespace = 0;
	container->needs = "";
	container->shared_pidns = container->broken = container->whole = container->elsewhere = false;
	int result = read_file(container, error);
	if (result == CONTAINER_BROKEN) {
		char what[128];
		snprintf(what, sizeof(what), "%.100s", error->text);
		broken(container, 0, what, error);
		/* The lines before a document that is too large are still valid. */
		return container->text ? parse(container, error) : CONTAINER_BROKEN;
	}
	return result == CONTAINER_OK ? parse(container, error) : result;
}

/* The document with the two placeholders' lines replaced. */
static int render(const struct container *container, struct container_view *view)
{
	char pid[32], status[48];
	const char *from = container->document;
	struct {
		size_t at, skip;
		const char *text;
	} edits[2] = {{container->pid_line, sizeof(pid_line) - 1, pid},
		      {container->status_line, sizeof(status_line) - 1, status}};

	snprintf(pid, sizeof(pid), "  \"pid\": %d,", view->pid);
	snprintf(status, sizeof(status), "  \"status\": \"%s\",", container_status_name(view->status));
	char *to = malloc(container->document_size + sizeof(pid) + sizeof(status));
	if (!to)
		return -1;
	view->document = to;
	int first = edits[0].at < edits[1].at ? 0 : 1;
	for (int i = 0; i < 2; i++) {
		size_t which = (size_t)(i ? 1 - first : first);
		size_t keep = (size_t)(container->document + edits[which].at - from);
		memcpy(to, from, keep);
		to = stpcpy(to + keep, edits[which].text);
		from += keep + edits[which].skip;
	}
	size_t rest = (size_t)(container->document + container->document_size - from);
	/* runc ends the document without a line feed, and so do we. */
	if (rest > 0 && from[rest - 1] == '\n')
		rest--;
	memcpy(to, from, rest);
	view->document_size = (size_t)(to + rest - view->document);
	return 0;
}

int container_state(const char *root, const char *id, struct container_view *view, struct container_error *error)
{
	struct container container;

	memset(view, 0, sizeof(*view));
	int result = container_open(&container, root, id, error);
	if (result == CONTAINER_OK)
		result = container_load(&container, error);
	if (result == CONTAINER_OK)
		result = container_derive(&container, &view->status, error);
	if (result == CONTAINER_OK) {
		view->pid = view->status == CONTAINER_STOPPED ? 0 : container.pid;
		view->start_time = container.start_time;
		if (render(&container, view) != 0)
			result = container_fail_here(&container, "malloc", error);
		view->header = container.header;
		container.header = NULL;
	}
	container_close(&container);
	return result;
}

void container_view_free(struct container_view *view)
{
	free(view->header);
	free(view->document);
	view->header = view->document = NULL;
}

/* Removal */

static int erase_entries(int fd, bool keep_state, int depth);

static int erase_entry(int fd, const char *name, int depth)
{
	if (unlinkat(fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR || depth >= ERASE_DEPTH)
		return -1;
	int below = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (below < 0)
		return -1;
	int result = erase_entries(below, false, depth + 1);
	int number = errno;
	close(below);
	errno = number;
	return result == 0 ? unlinkat(fd, name, AT_REMOVEDIR) : result;
}

static int erase_entries(int fd, bool keep_state, int depth)
{
	int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), number = 0;
	DIR *directory = again < 0 ? NULL : fdopendir(again);

	if (!directory) {
		if (again >= 0)
			close(again);
		return -1;
	}
	for (struct dirent *entry; errno = 0, (entry = readdir(directory));) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (keep_state && strcmp(entry->d_name, "state") == 0)
			continue;
		if (erase_entry(fd, entry->d_name, depth) != 0)
			number = errno;
	}
	if (errno)
		number = errno;
	closedir(directory);
	errno = number;
	return number ? -1 : 0;
}

int container_erase(struct container *container, struct container_error *error)
{
	/* A hook may be adding files: try again before giving up. */
	for (int attempt = 0;; attempt++) {
		/* `state` last: if we are killed in between, a later delete still knows the cgroups. */
		if (erase_entries(container->fd, true, 0) != 0 || erase_entry(container->fd, "state", 0) != 0)
			return container_fail_here(container, "unlink", error);
		if (unlinkat(container->root_fd, container->id, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return CONTAINER_OK;
		if (errno != ENOTEMPTY || attempt == 5)
			return container_fail_here(container, "rmdir", error);
	}
}
