/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of the plan: working directory, finding the program, and becoming it.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_HOME "/"
/* the passwd file comes from the image: read no more than this */
#define PASSWD_MAX (1 << 20)

/*
 * CVE-2024-21626: a working directory that leads out (by a leaked descriptor, /proc/self/fd/7) shows as unreachable.
 * The raw call: libc's would search its way up.
 */
static void verify_inside(struct init *in, const char *path)
{
	char where[INIT_PATH_MAX];

	if (syscall(SYS_getcwd, where, sizeof(where)) < 0)
		fail(in, errno == ENOENT ? STEP_CWD_OUTSIDE : STEP_GETCWD, errno, path);
	if (where[0] != '/')
		fail(in, STEP_CWD_OUTSIDE, 0, path);
}

void op_chdir(struct init *in, struct cursor *fields)
{
	const char *path = take_string(fields);
	uint32_t flags = take_u32(fields);
	int fd;

	if (in->cwd_done) {
		/* verified before the filter was loaded, which may forbid getcwd */
		if ((flags & CHDIR_FILTERED) == 0)
			verify_inside(in, path);
		return;
	}
	/* magic links are not refused but lead to EXDEV, as everything that leaves the root does */
	fd = path_open(in, path, O_PATH | O_DIRECTORY, 0);
	if (fd < 0 || fchdir(fd) < 0) {
		if (errno == EACCES && (flags & CHDIR_TRY) != 0)
			return;
		fail(in, errno == EXDEV || errno == ELOOP ? STEP_CWD_OUTSIDE : STEP_CHDIR, errno, path);
	}
	close(fd);
	verify_inside(in, path);
	in->cwd_done = (flags & CHDIR_TRY) != 0;
}

static int look_at(const char *path, struct stat *st)
{
#ifdef __x86_64__
	/* musl has the older call, which runc never makes: a profile made for runc may not allow it behind the filter */
	return (int)syscall(SYS_newfstatat, AT_FDCWD, path, st, 0);
#else
	return stat(path, st);
#endif
}

/* 0 if our present user can execute `path`. */
static int executable(const char *path)
{
	struct stat st;

	if (look_at(path, &st) < 0)
		return errno;
	if (S_ISDIR(st.st_mode))
		return EISDIR;
	if (syscall(SYS_faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS) == 0)
		return 0;
	/* an old kernel, or a filter that refuses the call: execve will report an error */
	if (errno == ENOSYS || errno == EPERM)
		return (st.st_mode & 0111) != 0 ? 0 : EACCES;
	return errno;
}

/* "next" of "next:rest" and `name` joined; the rest, or NULL behind the last element. */
static const char *join(char out[INIT_PATH_MAX], const char *search, const char *name)
{
	size_t size = strcspn(search, ":");

	out[0] = '\0';
	if (size + strlen(name) + 3 <= INIT_PATH_MAX) {
		memcpy(out, search, size);
		/* an empty element is the working directory */
		strcpy(out + size, size == 0 ? "./" : "/");
		strcat(out, name);
	}
	return search[size] == ':' ? search + size + 1 : NULL;
}

/* Before FORK "self" in the container's /proc does not exist: only execve can tell whether the file does. */
static bool in_own_proc(const char *name)
{
	return strncmp(name, "/proc/", 6) == 0 || strncmp(name, "/dev/fd/", 8) == 0;
}

static void find_program(struct init *in, const char *name, const char *search)
{
	int error = ENOENT;

	if (strchr(name, '/') != NULL) {
		error = strlen(name) < INIT_PATH_MAX ? executable(name) : ENAMETOOLONG;
		if (error != 0 && !(in->leaves && in_own_proc(name)))
			fail(in, STEP_LOOKUP, error, name);
		strcpy(in->program, name);
		return;
	}
	/* without a PATH there is no directory to search; the working directory is not one */
	if (search[0] == '\0' || name[0] == '\0')
		search = NULL;
	while (search != NULL) {
		int one;

		search = join(in->program, search, name);
		one = executable(in->program);
		if (one == 0)
			return;
		/* as execvp: EACCES for an existing file is more informative than "not found" */
		if (one == EACCES)
			error = EACCES;
	}
	fail(in, STEP_LOOKUP, error, name);
}

/* "name:password:UID:gid:comment:HOME:shell", of any length, as it comes. */
struct passwd_line {
	char uid[12];
	size_t uid_size, home_size, field;
	bool comment, begun;
};

enum { UID_FIELD = 2, HOME_FIELD = 5 };

/* what in->home holds behind its name */
#define HOME_MAX (INIT_PATH_MAX - 5)

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* As others read it: blanks, a sign and zeros may stand before it. */
static bool is_uid(const struct passwd_line *line, uint32_t uid)
{
	const char *at = line->uid, *end = line->uid + line->uid_size;
	uint64_t value = 0;

	while (at < end && is_blank(*at))
		at++;
	at += at < end && *at == '+';
	if (at == end)
		return false;
	for (; at < end; at++) {
		if (*at < '0' || *at > '9')
			return false;
		value = value * 10 + (uint64_t)(*at - '0');
	}
	return value == uid;
}

static void passwd_character(struct passwd_line *line, char *home, char c)
{
	if (!line->begun && !is_blank(c)) {
		line->begun = true;
		line->comment = c == '#';
	}
	if (c == ':') {
		line->field++;
	} else if (line->field == UID_FIELD) {
		if (line->uid_size < sizeof(line->uid))
			line->uid[line->uid_size++] = c;
		else
			line->comment = true; /* no number of ours is so long */
	} else if (line->field == HOME_FIELD && line->home_size < HOME_MAX) {
		home[line->home_size++] = c;
	}
}

/* Whether the line is that of `uid`: it is the first one, and has the home, or a default. */
static bool passwd_end(const struct passwd_line *line, char *home, uint32_t uid)
{
	size_t size = line->home_size;

	if (line->comment || line->field < UID_FIELD || !is_uid(line, uid))
		return false;
	/* where the home comes last: a file with the line ends of other systems */
	while (line->field == HOME_FIELD && size > 0 && is_blank(home[size - 1]))
		size--;
	if (size == 0 || size == HOME_MAX || home[0] == '\0')
		strcpy(home, DEFAULT_HOME);
	else
		home[size] = '\0';
	return true;
}

/* `home` has room for HOME_MAX bytes. */
static bool scan_passwd(int fd, uint32_t uid, char *home)
{
	struct passwd_line line = {.field = 0};
	char buffer[4096];
	size_t total = 0;
	ssize_t n;

	while (total < PASSWD_MAX && (n = read(fd, buffer, sizeof(buffer))) > 0) {
		total += (size_t)n;
		for (ssize_t i = 0; i < n; i++) {
			if (buffer[i] != '\n') {
				passwd_character(&line, home, buffer[i]);
			} else {
				if (passwd_end(&line, home, uid))
					return true;
				line = (struct passwd_line){.field = 0};
			}
		}
	}
	return total < PASSWD_MAX && passwd_end(&line, home, uid);
}

/* The container's file is parsed here: NSS would load the container's libraries. */
static void find_home(struct init *in, uint32_t uid)
{
	int fd = open("/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	bool found = false;
	struct stat st;

	strcpy(in->home, "HOME=");
	/* a fifo would block us */
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		found = scan_passwd(fd, uid, in->home + 5);
	if (!found)
		strcpy(in->home + 5, DEFAULT_HOME);
	if (fd >= 0)
		close(fd);
}

static bool lacks_home(const struct list *env)
{
	for (uint32_t i = 0; i < env->count; i++)
		if (strncmp(env->items[i], "HOME=", 5) == 0 && env->items[i][5] != '\0')
			return false;
	return true;
}

/* Now, as a seccomp filter may later forbid reading files. */
static void prepare_home(struct init *in)
{
	struct cursor fields = {.in = in, .at = in->exec_record + sizeof(struct plan_record)};
	uint32_t size, uid;
	struct list env;

	memcpy(&size, in->exec_record + offsetof(struct plan_record, size), sizeof(size));
	fields.end = in->exec_record + size;
	(void)take_list(&fields);
	env = take_list(&fields);
	uid = take_u32(&fields);
	if (uid != PLAN_NO_PATH && lacks_home(&env))
		find_home(in, uid);
}

void op_lookup(struct init *in, struct cursor *fields)
{
	const char *name = take_string(fields), *search = take_string(fields);

	proc_drop_hosts(in);
	find_program(in, name, search);
	if (in->exec_record != NULL)
		prepare_home(in);
}

/* The numbers below are the program's already (see open_gaps): only what is ours has to close on exec. */
void op_close_from(struct init *in, struct cursor *fields)
{
	uint32_t first = take_u32(fields);

	if (syscall(SYS_close_range, first, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		fail(in, STEP_CLOSE_RANGE, errno, "");
	if (!in->waits)
		proc_drop(in);
	if (in->leaves) {
		proc_settle_wait(in);
		plan_forget_behind(in, fields->end);
	}
}

static void add_home(struct init *in, struct list *env)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < env->count; i++)
		if (strncmp(env->items[i], "HOME=", 5) != 0)
			env->items[kept++] = env->items[i];
	env->items[kept] = in->home;
	env->items[kept + 1] = NULL;
}

void op_exec(struct init *in, struct cursor *fields)
{
	struct list argv = take_list(fields), env = take_list(fields);
	uint32_t uid = take_u32(fields);
	const char *path = in->program;

	if (argv.count == 0)
		fail(in, STEP_PLAN, 0, "EXEC has no argv[0]");
	if (path[0] == '\0')
		path = argv.items[0];
	if (uid != PLAN_NO_PATH && lacks_home(&env)) {
		if (in->home[0] == '\0')
			find_home(in, uid);
		add_home(in, &env);
	}
	if (!in->umask_set)
		umask((mode_t)in->old_umask);
	keep_place(in, WORDS_EXECVE);
	execve(path, argv.items, env.items);
	fail(in, STEP_EXECVE, errno, path);
}

void op_done(struct init *in, struct cursor *fields)
{
	(void)in;
	(void)fields;
	leave(0);
}
