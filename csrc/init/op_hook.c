/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hooks that run in the container's namespaces: createContainer (before PIVOT, so its path is the runtime's) and
 * startContainer (after). config.md, "POSIX-platform Hooks": the state on stdin, listed order, a timeout, and a failure
 * stops everything.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT_MAX 400
#define PIPE_SIZE 65536
#define HOOK_UMASK 022
#define EXEC_FAILED 127
/* how long a killed hook may take to end */
#define KILLED_MS 1000

struct hook {
	const char *path;
	struct list argv;
	struct list env;
	struct blob input[3]; /* before the pid, the pid, behind it */
	char own_pid[12];
	unsigned int part; /* of input that is being written */
	int64_t deadline;  /* ms of CLOCK_MONOTONIC, -1 none */
	size_t written;
	char output[OUTPUT_MAX + 1];
	size_t output_size;
	pid_t pid;
	int to, from, failure; /* our ends: its stdin, its stdout and stderr, errno of its execve */
	int pidfd;
	struct blob filter; /* that init loads later, and the hook now; empty without one */
	uint32_t filter_flags;
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void make_pipe(struct init *in, int ends[2], int flags)
{
	if (pipe2(ends, O_CLOEXEC | flags) < 0)
		fail(in, STEP_HOOK, errno, "pipe2");
}

/* In the child. 3 is the pipe for the errno of execve; it closes on exec, all above is closed now. */
static _Noreturn void become_hook(const struct hook *hook, int input, int output, int failure)
{
	int error;

	setpgid(0, 0); /* so that a timeout kills its children, too */
	umask(HOOK_UMASK);
	/* moved first: the ends may have numbers below 4 */
	input = fcntl(input, F_DUPFD_CLOEXEC, 4);
	output = fcntl(output, F_DUPFD_CLOEXEC, 4);
	failure = fcntl(failure, F_DUPFD_CLOEXEC, 4);
	if (dup2(input, 0) >= 0 && dup2(output, 1) >= 0 && dup2(output, 2) >= 0 && dup3(failure, 3, O_CLOEXEC) >= 0 &&
	    syscall(SYS_close_range, 4, ~0u, 0) == 0 &&
	    (hook->filter.size == 0 || filter_load(hook->filter, hook->filter_flags) == 0))
		execve(hook->path, hook->argv.items, hook->env.items);
	error = errno;
	/* the parent gets the errno, or else only an exit status */
	if (write(3, &error, sizeof(error)) != sizeof(error))
		leave(EXEC_FAILED);
	leave(EXEC_FAILED);
}

static void start_hook(struct init *in, struct hook *hook)
{
	int input[2], output[2], failure[2];

	make_pipe(in, input, 0);
	make_pipe(in, output, 0);
	/* read after the hook has ended: nothing more comes from it, even if another process keeps an end open */
	make_pipe(in, failure, O_NONBLOCK);
	hook->pid = fork();
	if (hook->pid < 0)
		fail(in, STEP_CLONE, errno, hook->path);
	if (hook->pid == 0)
		become_hook(hook, input[0], output[1], failure[1]);
	setpgid(hook->pid, hook->pid);
	close(input[0]);
	close(output[1]);
	close(failure[1]);
	hook->to = input[1];
	hook->from = output[0];
	hook->failure = failure[0];
	hook->pidfd = (int)syscall(SYS_pidfd_open, hook->pid, 0);
	if (hook->pidfd < 0 || fcntl(hook->to, F_SETFL, O_NONBLOCK) < 0 || fcntl(hook->from, F_SETFL, O_NONBLOCK) < 0) {
		kill(hook->pid, SIGKILL);
		fail(in, STEP_HOOK, errno, hook->path);
	}
}

/*
 * With no_new_privs the filter is the last step before the program, so that it need not allow what init does. Hooks in
 * the container are as much in its hands as the program, and run under the filter, too.
 */
static void take_filter(struct init *in, struct hook *hook, const uint8_t *at)
{
	struct cursor fields;

	if (in->filter_record == NULL || in->filter_record < at)
		return;
	fields = plan_fields(in, in->filter_record);
	hook->filter = take_blob(&fields);
	hook->filter_flags = take_u32(&fields);
}

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/*
 * The plan is made before there is a pid: the byte 1, which JSON text cannot contain, stands for that of this process
 * as it sees itself.
 */
static void insert_pid(struct hook *hook, struct blob input)
{
	const uint8_t *mark = input.size > 0 ? memchr(input.data, 1, input.size) : NULL;
	char *digit = hook->own_pid + sizeof(hook->own_pid);

	hook->input[0] = input;
	if (!mark)
		return;
	for (pid_t pid = getpid(); pid > 0; pid /= 10)
		*--digit = (char)('0' + pid % 10);
	hook->input[0].size = (uint32_t)(mark - input.data);
	hook->input[1].data = (const uint8_t *)digit;
	hook->input[1].size = (uint32_t)(hook->own_pid + sizeof(hook->own_pid) - digit);
	hook->input[2].data = mark + 1;
	hook->input[2].size = input.size - hook->input[0].size - 1;
}

static void feed(struct hook *hook)
{
	const struct blob *input = &hook->input[hook->part];
	ssize_t n = write(hook->to, input->data + hook->written, input->size - hook->written);

	if (n > 0)
		hook->written += (size_t)n;
	/* a hook need not read its stdin: EPIPE is fine */
	if (n < 0 && errno != EAGAIN)
		close_end(&hook->to);
	while (hook->to >= 0 && hook->written == hook->input[hook->part].size) {
		hook->written = 0;
		if (++hook->part == 3)
			close_end(&hook->to);
	}
}

/*
 * Keeps the last OUTPUT_MAX bytes: the reason of a failure is at the end. Reads no more than a pipe holds, so that
 * continuous output cannot keep us from checking the time.
 */
static void collect(struct hook *hook)
{
	char chunk[PIPE_SIZE / 16];
	ssize_t n = 1;

	for (int i = 0; i < 16 && (n = read(hook->from, chunk, sizeof(chunk))) > 0; i++) {
		size_t fresh = (size_t)n < OUTPUT_MAX ? (size_t)n : OUTPUT_MAX, keep = OUTPUT_MAX - fresh;

		if (hook->output_size > keep) {
			memmove(hook->output, hook->output + hook->output_size - keep, keep);
			hook->output_size = keep;
		}
		memcpy(hook->output + hook->output_size, chunk + (size_t)n - fresh, fresh);
		hook->output_size += fresh;
	}
	if (n == 0 || (n < 0 && errno != EAGAIN))
		close_end(&hook->from);
}

/* Whether it has ended, or ends soon. */
static bool has_ended(const struct hook *hook)
{
	struct pollfd end = {.fd = hook->pidfd, .events = POLLIN};

	return poll(&end, 1, KILLED_MS) == 1;
}

/* A filter that is already loaded may forbid this, or fake success. */
static void end_hook(const struct hook *hook)
{
	kill(-hook->pid, SIGKILL);
	kill(hook->pid, SIGKILL);
	if (has_ended(hook))
		waitpid(hook->pid, NULL, WNOHANG);
}

/* Wait until it exits (its children may keep the pipes open forever). False on timeout. */
static bool attend(struct init *in, struct hook *hook)
{
	unsigned int times = 0;

	for (;;) {
		struct pollfd fds[3] = {
			{.fd = hook->pidfd, .events = POLLIN},
			{.fd = hook->from, .events = POLLIN},
			{.fd = hook->to, .events = POLLOUT},
		};
		int64_t left = hook->deadline < 0 ? -1 : hook->deadline - now_ms();

		if (hook->deadline >= 0 && left <= 0)
			return false;
		if (poll(fds, 3, left > INT32_MAX ? INT32_MAX : (int)left) < 0 && !interrupted(&times)) {
			int error = errno;

			end_hook(hook);
			fail(in, STEP_HOOK, error, "poll");
		}
		if (fds[2].revents != 0)
			feed(hook);
		if (fds[1].revents != 0)
			collect(hook);
		if (fds[0].revents != 0)
			return true;
	}
}

/* Of a hook that has ended: without its status we do not know whether it failed. */
static int reap(struct init *in, pid_t pid)
{
	unsigned int times = 0;
	int status = 0;
	pid_t found;

	do {
		found = waitpid(pid, &status, 0);
	} while (found < 0 && interrupted(&times));
	if (found != pid)
		fail(in, STEP_HOOK, found < 0 ? errno : ECHILD, "wait4");
	return status;
}

static void report(struct init *in, struct hook *hook, enum plan_step step, int64_t value)
{
	while (hook->output_size > 0 && hook->output[hook->output_size - 1] == '\n')
		hook->output_size--;
	for (size_t i = 0; i < hook->output_size; i++)
		if (hook->output[i] == '\0')
			hook->output[i] = ' ';
	hook->output[hook->output_size] = '\0';
	errno = 0;
	note(in, step, hook->output);
	in->why.value = value;
	fail_noted(in);
}

static void finish_hook(struct init *in, struct hook *hook, bool in_time)
{
	int error = 0, status = 0;

	if (in_time)
		status = reap(in, hook->pid);
	else
		end_hook(hook);
	if (hook->from >= 0)
		collect(hook);
	if (!in_time)
		report(in, hook, STEP_HOOK_TIMEOUT, -1);
	if (read(hook->failure, &error, sizeof(error)) == sizeof(error))
		fail(in, STEP_HOOK, error, hook->path);
	if (status != 0)
		report(in, hook, STEP_HOOK, status);
	close_end(&hook->to);
	close_end(&hook->from);
	close(hook->failure);
	close(hook->pidfd);
}

void op_hook(struct init *in, struct cursor *fields)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
	struct hook hook = {.path = take_string(fields), .argv = take_list(fields), .env = take_list(fields)};
	struct blob input = take_blob(fields);
	uint64_t timeout = take_u64(fields);
	bool in_time;

	in->why_flags = take_u32(fields) << SYNC_FLAG_HOOK_SHIFT;
	if (take_u32(fields) == HOOK_START_CONTAINER)
		take_filter(in, &hook, fields->at);
	insert_pid(&hook, input);
	hook.deadline = timeout == 0 || timeout > INT64_MAX / 2 ? -1 : now_ms() + (int64_t)timeout;
	start_hook(in, &hook);
	/* after the fork: it must not inherit this */
	sigaction(SIGPIPE, &ignore, &old);
	if (input.size == 0)
		close_end(&hook.to);
	in_time = attend(in, &hook);
	finish_hook(in, &hook, in_time);
	sigaction(SIGPIPE, &old, NULL);
	in->why_flags = 0;
}
