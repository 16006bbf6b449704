/* SPDX-License-Identifier: Apache-2.0 */
/* start, kill and delete, on top of container.c and container_cgroup.c. The contract is in container.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container_impl.h"

/* Why a verb needs Python: hooks of the runtime namespace, words for a failure, another driver. */
enum verb { VERB_START = 1, VERB_KILL = 2, VERB_DELETE = 4 };

static const struct {
	const char *word;
	unsigned int verbs;
} needs_table[] = {
	{"prestart", VERB_START}, {"startContainer", VERB_START}, {"poststart", VERB_START}, {"process", VERB_START},
	{"notify", VERB_START},   {"poststop", VERB_DELETE},      {"intelRdt", VERB_DELETE}, {"systemd", VERB_DELETE},
};

/* CONTAINER_NEEDS_PYTHON if a word concerns the verb; an unknown one concerns all. */
static int check_needs(const struct container *container, enum verb verb, int flags, struct container_error *error)
{
	const char *at = container->needs;

	if (flags & CONTAINER_NEEDS_HANDLED)
		return CONTAINER_OK;
	while (*at) {
		size_t length = strcspn(at, ",");
		unsigned int verbs = length ? VERB_START | VERB_KILL | VERB_DELETE : 0;
		for (size_t i = 0; i < sizeof(needs_table) / sizeof(needs_table[0]); i++)
			if (strlen(needs_table[i].word) == length && memcmp(needs_table[i].word, at, length) == 0)
				verbs = needs_table[i].verbs;
		if (verbs & (unsigned int)verb)
			return container_fail(error, CONTAINER_NEEDS_PYTHON, "%.*s", (int)length, at);
		at += length + (at[length] == ',');
	}
	return CONTAINER_OK;
}

int container_strict(void)
{
	const char *value = getenv("PYRUNC_STRICT");

	return value && strcmp(value, "1") == 0;
}

/* Wait for a pidfd's process to end. */
static bool wait_death(int pidfd, int timeout_ms)
{
	int64_t deadline = container_now_ms() + timeout_ms;

	for (;;) {
		int64_t left = deadline - container_now_ms();
		struct pollfd gone = {.fd = pidfd, .events = POLLIN};
		int ready = poll(&gone, 1, left > 0 ? (int)left : 0);
		if (ready > 0)
			return true;
		if (ready == 0 && left <= 0)
			return false;
	}
}

static int send_signal(int pidfd, int signal)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0u);
}

/* start */

static int start_refusal(const struct container *container, struct container_error *error)
{
	switch (container_derive(container)) {
	case CONTAINER_CREATED:
		break;
	case CONTAINER_STOPPED:
		return container_fail(error, CONTAINER_BAD_STATE, "cannot start a container that has stopped");
	case CONTAINER_CREATING:
		return container_fail(error, CONTAINER_BAD_STATE, "cannot start a container in the creating state");
	case CONTAINER_RUNNING:
	case CONTAINER_PAUSED:
		return container_fail(error, CONTAINER_BAD_STATE, "cannot start an already running container");
	}
	if (cgroup_frozen(container->cgroups, container->cgroup_count)) {
		container_fail(error, CONTAINER_BAD_STATE, "cannot start a container in the paused state");
		container_hint(error, "resume it with: pyrunc resume %s", container->id);
		return CONTAINER_BAD_STATE;
	}
	return CONTAINER_OK;
}

static int read_record(int fifo, int pidfd, struct container_error *error)
{
	size_t used = 0;

	while (used < sizeof(error->record)) {
		ssize_t got = read(fifo, error->record + used, sizeof(error->record) - used);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		used += (size_t)got;
	}
	/* It said its last word: whoever asks next is to see it stopped. */
	wait_death(pidfd, DEATH_MS);
	if (used != sizeof(error->record))
		return container_fail(error, CONTAINER_BROKEN, "init's report is cut short: %zu of %zu bytes", used,
				      sizeof(error->record));
	return container_fail(error, CONTAINER_START_FAILED, "the program could not be started");
}

/*
 * init is opening the other end, or about to. End of file without a byte: exec closed it. The wait ends with init
 * at the latest; its hooks have their own time limits.
 */
static int await_exec(int fifo, int pidfd, struct container_error *error)
{
	for (;;) {
		struct pollfd fds[2] = {{.fd = fifo, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
		if (poll(fds, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return container_fail_call(error, "poll", "exec.fifo");
		}
		if (fds[1].revents && !fds[0].revents)
			poll(fds, 1, 0);
		if (fds[0].revents & POLLIN)
			return read_record(fifo, pidfd, error);
		if (fds[0].revents)
			return CONTAINER_OK;
		if (fds[1].revents)
			return container_fail(error, CONTAINER_BAD_STATE, "cannot start a container that has stopped");
	}
}

int container_start(const char *root, const char *id, int flags, struct container_error *error)
{
	struct container container;
	int fifo = -1, pidfd = -1;
	int result = container_open(&container, root, id, error);

	if (result == CONTAINER_OK)
		result = container_lock(&container, LOCK_MS, error);
	if (result == CONTAINER_OK)
		result = container_load(&container, error);
	if (result == CONTAINER_OK)
		result = start_refusal(&container, error);
	if (result == CONTAINER_OK)
		result = check_needs(&container, VERB_START, flags, error);
	if (result == CONTAINER_OK) {
		pidfd = container_init(&container);
		fifo = openat(container.fd, "exec.fifo", O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
		if (pidfd < 0)
			result =
				container_fail(error, CONTAINER_BAD_STATE, "cannot start a container that has stopped");
		else if (fifo < 0 || unlinkat(container.fd, "exec.fifo", 0) != 0)
			result = container_fail_call(error, "open", "exec.fifo");
	}
	/* Gone, and the lock with it: while hooks run, others may look and kill. */
	container_close(&container);
	if (result == CONTAINER_OK)
		result = await_exec(fifo, pidfd, error);
	if (fifo >= 0)
		close(fifo);
	if (pidfd >= 0)
		close(pidfd);
	return result;
}

/* kill */

static int not_running(struct container_error *error)
{
	return container_fail(error, CONTAINER_BAD_STATE, "container not running");
}

static void thaw(const struct container *container)
{
	struct container_error ignored;

	if (cgroup_frozen(container->cgroups, container->cgroup_count))
		cgroup_thaw(container->cgroups, container->cgroup_count, &ignored);
}

static int signal_init(const struct container *container, int pidfd, int signal, struct container_error *error)
{
	if (send_signal(pidfd, signal) != 0) {
		char pid[16];
		if (errno == ESRCH)
			return not_running(error);
		snprintf(pid, sizeof(pid), "%d", container->pid);
		return container_fail_call(error, "pidfd_send_signal", pid);
	}
	if (signal == SIGKILL)
		thaw(container);
	return CONTAINER_OK;
}

/* Everybody in the cgroup, locked so that it is not another container's by now. */
static int signal_all(struct container *container, int signal, int flags, struct container_error *error)
{
	size_t found = 0;
	int result = container_lock(container, LOCK_MS, error);

	if (result == CONTAINER_OK)
		result = container_load(container, error);
	if (result != CONTAINER_OK)
		return result;
	int pidfd = container_init(container);
	result = cgroup_signal(container->cgroups, container->cgroup_count, signal, &found, error);
	/* Rootless containers may have no cgroup; then init is all there is to reach. */
	if (result == CONTAINER_OK && found == 0) {
		if (pidfd >= 0)
			result = signal_init(container, pidfd, signal, error);
		else if (!(flags & CONTAINER_ALL))
			result = not_running(error);
	}
	if (pidfd >= 0)
		close(pidfd);
	return result;
}

static int kill_loaded(struct container *container, int signal, int flags, struct container_error *error)
{
	if (container->creating)
		return container_fail(error, CONTAINER_BAD_STATE, "container not running: it is being created");
	if (flags & CONTAINER_ALL || (signal == SIGKILL && container->shared_pidns))
		return signal_all(container, signal, flags, error);
	int pidfd = container_init(container);
	if (pidfd < 0)
		return not_running(error);
	int result = signal_init(container, pidfd, signal, error);
	close(pidfd);
	return result;
}

int container_kill(const char *root, const char *id, int signal, int flags, struct container_error *error)
{
	struct container container;
	int result = container_open(&container, root, id, error);

	if (result == CONTAINER_OK)
		result = container_load(&container, error);
	if (result == CONTAINER_OK)
		result = check_needs(&container, VERB_KILL, flags, error);
	if (result == CONTAINER_OK)
		result = kill_loaded(&container, signal, flags, error);
	container_close(&container);
	return result;
}

/* delete */

/*
 * A create that was killed may not have written down which process it started: it is in the cgroups it made, or it is
 * in none yet, waits for its runtime, and ends by itself.
 */
static void end_unknown(const struct container *container)
{
	struct container_error ignored;
	size_t found;

	for (size_t i = 0; i < container->cgroup_count; i++)
		for (size_t j = 0; j < container->made_count; j++)
			if (strcmp(strchr(container->cgroups[i], ':') + 1, container->made[j]) == 0)
				cgroup_signal(container->cgroups + i, 1, SIGKILL, &found, &ignored);
}

/* End init and, where its death does not end them, the others. */
static int end_processes(const struct container *container, struct container_error *error)
{
	size_t found;
	int pidfd = container_init(container), result = CONTAINER_OK;

	if (container->creating || container->broken)
		end_unknown(container);
	else if (container->shared_pidns)
		cgroup_signal(container->cgroups, container->cgroup_count, SIGKILL, &found, error);
	if (pidfd < 0)
		return CONTAINER_OK;
	if (send_signal(pidfd, SIGKILL) != 0 && errno != ESRCH)
		result = container_fail_call(error, "pidfd_send_signal", container->id);
	thaw(container);
	if (result == CONTAINER_OK && !wait_death(pidfd, DEATH_MS)) {
		container_fail(error, CONTAINER_BAD_STATE, "container init still running");
		container_hint(
			error,
			"process %d does not end %d s after SIGKILL: it hangs in a device or file system, or a process "
			"that was executed in its pid namespace is dead and its parent does not collect it",
			container->pid, DEATH_MS / 1000);
		result = CONTAINER_BAD_STATE;
	}
	close(pidfd);
	return result;
}

static int remove_loaded(struct container *container, int flags, struct container_error *error)
{
	int result = end_processes(container, error);

	if (result == CONTAINER_OK)
		result = cgroup_remove(container->cgroups, container->cgroup_count, container->made,
				       container->made_count, DEATH_MS, error);
	return result == CONTAINER_OK && !(flags & CONTAINER_KEEP) ? container_erase(container, error) : result;
}

static int delete_refusal(const struct container *container, struct container_error *error)
{
	enum container_status status = container_derive(container);

	/* Ours is the lock: one that is creating lost its creator. One that is created may go (containerd needs it). */
	if (status == CONTAINER_STOPPED || status == CONTAINER_CREATING ||
	    (status == CONTAINER_CREATED && !container_strict()))
		return CONTAINER_OK;
	container_fail(error, CONTAINER_BAD_STATE, "cannot delete container %s that is not stopped: %s", container->id,
		       container_status_name(status));
	container_hint(error, "stop it first, or use: pyrunc delete --force %s", container->id);
	return CONTAINER_BAD_STATE;
}

/* A create that hangs holds the lock: without its init it fails and cleans up. */
static int lock_by_force(struct container *container, struct container_error *error)
{
	struct container_error ignored;
	int result = container_lock(container, LOCK_MS, error);

	if (result != CONTAINER_BAD_STATE || container_load(container, &ignored) != CONTAINER_OK)
		return result;
	int pidfd = container_init(container);
	if (pidfd >= 0) {
		send_signal(pidfd, SIGKILL);
		thaw(container);
		close(pidfd);
	}
	return container_lock(container, 2000, error);
}

static int delete_opened(struct container *container, int flags, struct container_error *error)
{
	bool force = flags & CONTAINER_FORCE;
	int result = force ? lock_by_force(container, error) : container_lock(container, LOCK_MS, error);

	if (result != CONTAINER_OK)
		return result;
	result = container_load(container, error);
	if (force && result == CONTAINER_NOT_FOUND)
		return container_erase(container, error);
	if (force && result == CONTAINER_BROKEN)
		return remove_loaded(container, flags, error);
	if (result == CONTAINER_OK)
		result = check_needs(container, VERB_DELETE, flags, error);
	if (result == CONTAINER_OK && !force)
		result = delete_refusal(container, error);
	return result == CONTAINER_OK ? remove_loaded(container, flags, error) : result;
}

int container_delete(const char *root, const char *id, int flags, struct container_error *error)
{
	struct container container;
	int result = container_open(&container, root, id, error);

	if (result == CONTAINER_OK)
		result = delete_opened(&container, flags, error);
	container_close(&container);
	return result == CONTAINER_NOT_FOUND && flags & CONTAINER_FORCE ? CONTAINER_OK : result;
}

/* Signal names */

static const struct {
	const char *name;
	int number;
} signals[] = {
	{"HUP", SIGHUP},       {"INT", SIGINT},       {"QUIT", SIGQUIT}, {"ILL", SIGILL},     {"TRAP", SIGTRAP},
	{"ABRT", SIGABRT},     {"IOT", SIGABRT},      {"BUS", SIGBUS},   {"FPE", SIGFPE},     {"KILL", SIGKILL},
	{"USR1", SIGUSR1},     {"SEGV", SIGSEGV},     {"USR2", SIGUSR2}, {"PIPE", SIGPIPE},   {"ALRM", SIGALRM},
	{"TERM", SIGTERM},     {"CHLD", SIGCHLD},     {"CLD", SIGCHLD},  {"CONT", SIGCONT},   {"STOP", SIGSTOP},
	{"TSTP", SIGTSTP},     {"TTIN", SIGTTIN},     {"TTOU", SIGTTOU}, {"URG", SIGURG},     {"XCPU", SIGXCPU},
	{"XFSZ", SIGXFSZ},     {"VTALRM", SIGVTALRM}, {"PROF", SIGPROF}, {"WINCH", SIGWINCH}, {"IO", SIGIO},
	{"POLL", SIGIO},       {"PWR", SIGPWR},       {"SYS", SIGSYS},
#ifdef SIGSTKFLT
	{"STKFLT", SIGSTKFLT},
#endif
};

/* What users of either C library call SIGRTMIN and SIGRTMAX; both keep the first two for themselves (musl: three). */
enum { RT_MIN = 34, RT_MAX = 64 };

/* "" or digits behind the sign: 0..most, or -1. */
static int small_number(const char *text, int most)
{
	int value = 0;

	if (!*text || strlen(text) > 3)
		return -1;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -1;
		value = value * 10 + (*text - '0');
	}
	return value <= most ? value : -1;
}

int container_signal_number(const char *text)
{
	int number = small_number(text, RT_MAX);

	if (number >= 0)
		return number;
	if (strncasecmp(text, "SIG", 3) == 0)
		text += 3;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (strcasecmp(text, signals[i].name) == 0)
			return signals[i].number;
	bool low = strncasecmp(text, "RTMIN", 5) == 0;
	if (!low && strncasecmp(text, "RTMAX", 5) != 0)
		return -1;
	if (!text[5])
		return low ? RT_MIN : RT_MAX;
	if (text[5] != (low ? '+' : '-'))
		return -1;
	number = small_number(text + 6, RT_MAX - RT_MIN);
	if (number < 0 || strlen(text + 6) > 2)
		return -1;
	return low ? RT_MIN + number : RT_MAX - number;
}
