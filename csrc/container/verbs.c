/* SPDX-License-Identifier: Apache-2.0 */
/* start, kill and delete, on top of the other files here. The contract is in container.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "impl.h"
#include "plan.h"

/* The time for init to execute its program, without hooks; how often to check whether it was frozen meanwhile. */
#define EXEC_MS 120000
#define AWAKE_MS 2000
/* How soon a process is usually gone after SIGKILL. */
#define KILLED_MS 10
/* From exec's closing of descriptors to the new name, or to the end of who dies. */
#define NAME_MS 500
/* plan.h, struct last_words: what init could not write into the fifo. */
#define WORDS "exec.words"

/* Why a verb needs Python: hooks of the runtime namespace, an error message, another driver. */
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

static int start_refusal(struct container *container, struct container_error *error)
{
	int status, frozen = 0, result = container_derive(container, &status, error);

	if (result != CONTAINER_OK)
		return result;
	switch ((enum container_status)status) {
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
	result = cgroup_frozen(container->cgroups, container->cgroup_count, &frozen, error);
	if (result != CONTAINER_OK || !frozen)
		return result;
	container_fail(error, CONTAINER_BAD_STATE, "cannot start a container in the paused state");
	container_hint(error, "resume it with: pyrunc resume %s", container->id);
	return CONTAINER_BAD_STATE;
}

#ifndef PIDFD_INFO_EXIT
/* Newer than most headers, and the same on every architecture. */
struct pidfd_info {
	uint64_t mask;
	uint64_t cgroup;
	uint32_t ids[11];
	int32_t exit_code;
};
#define PIDFD_GET_INFO _IOWR(0xff, 11, struct pidfd_info)
#define PIDFD_INFO_EXIT 8u
#endif

/* What start opens before it lets init continue, so that it can always find out how init ended. */
struct start {
	int fifo;
	int pidfd;
	int stat;  /* its /proc/PID/stat */
	int words; /* its struct last_words; -1: it has none */
};

static int read_record(const struct start *start, struct container_error *error)
{
	size_t used = 0;

	while (used < sizeof(error->record)) {
		ssize_t got = read(start->fifo, error->record + used, sizeof(error->record) - used);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		used += (size_t)got;
	}
	/* It has reported its failure: the next `state` must show it stopped. */
	wait_death(start->pidfd, DEATH_MS);
	if (used != sizeof(error->record))
		return container_fail(error, CONTAINER_BROKEN, "init's report is cut short: %zu of %zu bytes", used,
				      sizeof(error->record));
	return container_fail(error, CONTAINER_START_FAILED, "the program could not be started");
}

/* It was paused since the status was read: waiting for its program would mean waiting for resume. */
static int check_awake(const struct container *container, int64_t began, struct container_error *error)
{
	int frozen = 0;
	int result = cgroup_frozen(container->cgroups, container->cgroup_count, &frozen, error);

	if (result != CONTAINER_OK)
		return result;
	if (frozen) {
		container_fail(error, CONTAINER_BAD_STATE, "the container was paused before its program ran");
		container_hint(error, "its program runs after: pyrunc resume %s", container->id);
		return CONTAINER_BAD_STATE;
	}
	/* Its hooks have their own time limits, or are meant to have none. */
	if (strstr(container->needs, "startContainer") || container_now_ms() - began < EXEC_MS)
		return CONTAINER_OK;
	container_fail(error, CONTAINER_BAD_STATE, "the program does not run %d s after init was let go",
		       EXEC_MS / 1000);
	container_hint(error, "process %d hangs in a file system, or was stopped by a signal", container->pid);
	return CONTAINER_BAD_STATE;
}

/* "12 (name) S 1 ... 0": its name, its state, and, where that is shown, its wait status. Of a missing end 0. proc(5) */
static bool still_init(char *line, char *state, int *status)
{
	char *name = strchr(line, '('), *behind = strrchr(line, ')'), *last;

	if (!name || !behind || strlen(behind) < 3)
		return false;
	*behind = '\0';
	*state = behind[2];
	last = strrchr(behind + 1, ' ');
	*status = last ? atoi(last) : 0;
	return strcmp(name + 1, INIT_NAME) == 0;
}

static int never_ran(int status, struct container_error *error)
{
	if (status & 0x7f)
		container_fail(error, CONTAINER_BAD_STATE,
			       "the program could not be started: init was killed by signal %d", status & 0x7f);
	else
		container_fail(error, CONTAINER_BAD_STATE,
			       "the program could not be started: init ended and could not say why");
	/* A filter does not end a process this way: another process did, such as kill or delete. */
	if ((status & 0x7f) != SIGKILL)
		container_hint(
			error,
			"the container's seccomp filter may forbid what init has to do; pyrunc run may say more");
	return CONTAINER_BAD_STATE;
}

/* The wait status of a process that another process has reaped; false before Linux 6.15. ioctl_pidfd(2) */
static bool collected_status(int pidfd, int *status)
{
	struct pidfd_info info = {.mask = PIDFD_INFO_EXIT};

	if (ioctl(pidfd, PIDFD_GET_INFO, &info) != 0 || !(info.mask & PIDFD_INFO_EXIT))
		return false;
	*status = info.exit_code;
	return true;
}

/* Reaped before we looked: only its message shows whether it was a short program. */
static int check_collected(const struct start *start, uint32_t said, struct container_error *error)
{
	int status;

	/* A kill in execve itself is not the container's filter: that would have failed in create. */
	if (start->words < 0 || said != WORDS_NONE)
		return CONTAINER_OK;
	if (collected_status(start->pidfd, &status))
		return never_ran(status, error);
	return container_fail(error, CONTAINER_BAD_STATE,
			      "the program could not be started: init ended and could not say why");
}

/*
 * The end of the fifo is also what an init leaves that dies in silence: it was killed, or its filter has forbidden to
 * write why execve has failed. A program has another name, but a moment after exec has closed the fifo.
 */
static int check_program(const struct start *start, struct container_error *error)
{
	int64_t deadline = container_now_ms() + NAME_MS;
	struct last_words words = {0};
	char line[1024], state;
	int status;

	if (start->words >= 0 && pread(start->words, &words, sizeof(words), 0) < 0)
		return container_fail_call(error, "read", WORDS);
	if (words.said == WORDS_MESSAGE) {
		wait_death(start->pidfd, DEATH_MS);
		memcpy(error->record, &words.message, sizeof(error->record));
		return container_fail(error, CONTAINER_START_FAILED, "the program could not be started");
	}
	for (;;) {
		ssize_t size = pread(start->stat, line, sizeof(line) - 1, 0);

		if (size < 0 && errno == ESRCH)
			return check_collected(start, words.said, error);
		if (size < 0)
			return container_fail_call(error, "read", "/proc/PID/stat");
		line[size] = '\0';
		if (!still_init(line, &state, &status))
			return CONTAINER_OK;
		if (state == 'Z' || state == 'X')
			return never_ran(status, error);
		if (container_now_ms() > deadline)
			return CONTAINER_OK;
		container_sleep_us(50);
	}
}

static int open_stat(const struct container *container, struct start *start, struct container_error *error)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", container->pid);
	start->stat = open(path, O_RDONLY | O_CLOEXEC);
	return start->stat < 0 ? container_fail_call(error, "open", path) : CONTAINER_OK;
}

static int open_words(const struct container *container, struct start *start, struct container_error *error)
{
	start->words = openat(container->fd, WORDS, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	if (start->words < 0)
		return errno == ENOENT ? CONTAINER_OK : container_fail_here(container, "open", error);
	if (container_is_our_file(start->words) == 1)
		return CONTAINER_OK;
	return container_fail(error, CONTAINER_BROKEN, "%s is no regular file of ours", WORDS);
}

/* Opening the fifo lets init continue; another start finds no fifo. */
static int take_fifo(const struct container *container, struct start *start, struct container_error *error)
{
	start->fifo = openat(container->fd, "exec.fifo", O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	if (start->pidfd < 0)
		return container_fail(error, CONTAINER_BAD_STATE, "cannot start a container that has stopped");
	if (start->fifo < 0 || unlinkat(container->fd, "exec.fifo", 0) != 0)
		return container_fail_call(error, "open", "exec.fifo");
	return CONTAINER_OK;
}

/* init is opening the other end, or about to. End of file without a byte: exec closed it. */
static int await_exec(const struct container *container, const struct start *start, struct container_error *error)
{
	int64_t began = container_now_ms();

	for (;;) {
		struct pollfd fds[2] = {{.fd = start->fifo, .events = POLLIN}, {.fd = start->pidfd, .events = POLLIN}};
		int ready = poll(fds, 2, AWAKE_MS);
		if (ready < 0) {
			if (errno == EINTR)
				continue;
			return container_fail_call(error, "poll", "exec.fifo");
		}
		int result = ready == 0 ? check_awake(container, began, error) : CONTAINER_OK;
		if (result != CONTAINER_OK)
			return result;
		if (fds[1].revents && !fds[0].revents)
			poll(fds, 1, 0);
		if (fds[0].revents & POLLIN)
			return read_record(start, error);
		if (fds[0].revents)
			return check_program(start, error);
		if (fds[1].revents)
			return container_fail(error, CONTAINER_BAD_STATE, "cannot start a container that has stopped");
	}
}

static void close_start(const struct start *start)
{
	const int held[] = {start->fifo, start->pidfd, start->stat, start->words};

	for (size_t i = 0; i < sizeof(held) / sizeof(held[0]); i++)
		if (held[i] >= 0)
			close(held[i]);
}

int container_start(const char *root, const char *id, int flags, struct container_error *error)
{
	struct container container;
	struct start start = {.fifo = -1, .pidfd = -1, .stat = -1, .words = -1};
	int result = container_open(&container, root, id, error);

	if (result == CONTAINER_OK)
		result = container_lock(&container, CONTAINER_LOCK_MS, error);
	if (result == CONTAINER_OK)
		result = container_load(&container, error);
	if (result == CONTAINER_OK)
		result = start_refusal(&container, error);
	if (result == CONTAINER_OK)
		result = check_needs(&container, VERB_START, flags, error);
	if (result == CONTAINER_OK)
		result = container_init(&container, &start.pidfd, error);
	if (result == CONTAINER_OK && start.pidfd >= 0)
		result = open_stat(&container, &start, error);
	if (result == CONTAINER_OK)
		result = open_words(&container, &start, error);
	if (result == CONTAINER_OK)
		result = take_fifo(&container, &start, error);
	/* Close, which releases the lock: while hooks run, state and kill must work. */
	container_let_go(&container);
	if (result == CONTAINER_OK)
		result = await_exec(&container, &start, error);
	container_close(&container);
	close_start(&start);
	return result;
}

/* kill */

static int not_running(struct container_error *error)
{
	return container_fail(error, CONTAINER_BAD_STATE, "container not running");
}

/*
 * Behind a SIGKILL for init: a v1 freezer may hold it. Who was frozen by a process of the container, which does not
 * die before init, may be frozen again at once; it is ended together with all others, everybody being frozen.
 */
static int release(const struct container *container, int pidfd, struct container_error *error)
{
	int held;
	size_t found;
	int result = cgroup_release(container->cgroups, container->cgroup_count, &held, error);

	if (result != CONTAINER_OK || !held || wait_death(pidfd, KILLED_MS))
		return result;
	return cgroup_signal(container->cgroups, container->cgroup_count, SIGKILL, &found, error);
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
	return signal == SIGKILL ? release(container, pidfd, error) : CONTAINER_OK;
}

/* Every process in the cgroup; locked, so that it is not another container's by now. */
static int signal_all(struct container *container, int signal, int flags, struct container_error *error)
{
	size_t found = 0;
	int result = container_lock(container, CONTAINER_LOCK_MS, error);

	if (result == CONTAINER_OK)
		result = container_load(container, error);
	int pidfd = -1;
	if (result == CONTAINER_OK)
		result = container_init(container, &pidfd, error);
	if (result == CONTAINER_OK)
		result = cgroup_signal(container->cgroups, container->cgroup_count, signal, &found, error);
	/* Rootless containers may have no cgroup; then only init can be signalled. */
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
	int pidfd, result = container_init(container, &pidfd, error);
	if (result != CONTAINER_OK)
		return result;
	if (pidfd < 0)
		return not_running(error);
	result = signal_init(container, pidfd, signal, error);
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

static bool is_below(const char *path, const char *parent)
{
	size_t length = strlen(parent);

	return strncmp(path, parent, length) == 0 && path[length] == '/';
}

/* The directory is one that create made for this container alone: not a parent of another that it made. */
static bool is_own(const struct container *container, const char *path)
{
	bool made = false;

	for (size_t i = 0; i < container->made_count; i++) {
		made |= strcmp(path, container->made[i]) == 0;
		if (is_below(container->made[i], path))
			return false;
	}
	return made;
}

/*
 * A create that was killed may not have written down which process it started: it is in the cgroups it made, or it is
 * in none yet, waits for its runtime, and ends by itself. Of a damaged state only what two lines agree on is believed.
 */
static int end_unknown(const struct container *container, struct container_error *error)
{
	size_t found;
	int result = CONTAINER_OK;

	for (size_t i = 0; result == CONTAINER_OK && i < container->cgroup_count; i++)
		if (is_own(container, cgroup_directory(container->cgroups[i])))
			result = cgroup_signal(container->cgroups + i, 1, SIGKILL, &found, error);
	return result;
}

/* Wait for the end of a process after SIGKILL; a dying process may still freeze the one that it waits for. */
static int await_death(const struct container *container, int pidfd, struct container_error *error)
{
	int64_t deadline = container_now_ms() + DEATH_MS;
	int wait = KILLED_MS, frozen = 0;

	do {
		int result = release(container, pidfd, error);
		if (result != CONTAINER_OK || wait_death(pidfd, wait))
			return result;
		wait = wait < 500 ? 2 * wait : wait;
	} while (container_now_ms() < deadline);
	(void)cgroup_frozen(container->cgroups, container->cgroup_count, &frozen, error);
	container_fail(error, CONTAINER_BAD_STATE, "container init still running");
	if (frozen)
		container_hint(error, "process %d does not end %d s after SIGKILL: a cgroup above its own is frozen",
			       container->pid, DEATH_MS / 1000);
	else
		container_hint(
			error,
			"process %d does not end %d s after SIGKILL: it hangs in a device or file system, or a process "
			"that was executed in its pid namespace is dead and its parent does not collect it",
			container->pid, DEATH_MS / 1000);
	return CONTAINER_BAD_STATE;
}

/* End init and, where its death does not end them, the others. */
static int end_processes(struct container *container, struct container_error *error)
{
	size_t found;
	int pidfd, result = container_init(container, &pidfd, error);

	if (container->elsewhere || (result == CONTAINER_OK && (container->creating || container->broken)))
		result = end_unknown(container, error);
	else if (result == CONTAINER_OK && container->shared_pidns)
		result = cgroup_signal(container->cgroups, container->cgroup_count, SIGKILL, &found, error);
	if (pidfd < 0)
		return result;
	if (result == CONTAINER_OK && send_signal(pidfd, SIGKILL) != 0 && errno != ESRCH)
		result = container_fail_call(error, "pidfd_send_signal", container->id);
	if (result == CONTAINER_OK)
		result = await_death(container, pidfd, error);
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

static int delete_refusal(struct container *container, struct container_error *error)
{
	int status, result = container_derive(container, &status, error);

	if (result != CONTAINER_OK)
		return result;
	/* We have the lock, so one that is creating has lost its creator. A created one may be deleted (containerd needs it). */
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
	int result = container_lock(container, CONTAINER_LOCK_MS, error);

	if (result != CONTAINER_BAD_STATE || container_load(container, &ignored) != CONTAINER_OK)
		return result;
	int pidfd;
	result = container_init(container, &pidfd, error);
	if (result != CONTAINER_OK)
		return result;
	if (pidfd >= 0) {
		send_signal(pidfd, SIGKILL);
		(void)await_death(container, pidfd, &ignored);
		close(pidfd);
	}
	return container_lock(container, 2000, error);
}

/*
 * What a damaged state still names is ended and removed. Where lines are lost, so is what they named: that is said,
 * and the directory stays unless init is known to be gone.
 */
static int remove_broken(struct container *container, int flags, struct container_error *error)
{
	struct container_error damage = *error;
	bool known = container->pid > 1 && container->start_time > 0;
	size_t own = 0;

	for (size_t i = 0; !container->whole && i < container->cgroup_count; i++)
		if (is_own(container, cgroup_directory(container->cgroups[i])))
			container->cgroups[own++] = container->cgroups[i];
	if (!container->whole)
		container->cgroup_count = own;
	int result = remove_loaded(container, container->whole || known ? flags : flags | CONTAINER_KEEP, error);

	if (result != CONTAINER_OK || container->whole)
		return result;
	*error = damage;
	if (known)
		container_hint(error,
			       "its process is gone, and so are the cgroups that it names; others may be left: "
			       "look for '%s' below /sys/fs/cgroup",
			       container->id);
	else
		container_hint(error,
			       "it does not say which process is the container's: look for '%s' below "
			       "/sys/fs/cgroup, end what is there, and remove '%s/%s'",
			       container->id, container->root, container->id);
	return CONTAINER_BROKEN;
}

static int delete_opened(struct container *container, int pid, uint64_t start_time, int flags,
			 struct container_error *error)
{
	bool force = flags & CONTAINER_FORCE;
	int result = force ? lock_by_force(container, error) : container_lock(container, CONTAINER_LOCK_MS, error);

	if (result != CONTAINER_OK)
		return result;
	result = container_load(container, error);
	if (pid && (container->pid != pid || container->start_time != start_time))
		return result == CONTAINER_OK ? container_fail(error, CONTAINER_NOT_FOUND, "container does not exist")
					      : result;
	if (force && result == CONTAINER_NOT_FOUND)
		return container_erase(container, error);
	if (force && result == CONTAINER_BROKEN)
		return remove_broken(container, flags, error);
	if (result == CONTAINER_OK)
		result = check_needs(container, VERB_DELETE, flags, error);
	if (result == CONTAINER_OK && !force)
		result = delete_refusal(container, error);
	return result == CONTAINER_OK ? remove_loaded(container, flags, error) : result;
}

int container_delete(const char *root, const char *id, int flags, struct container_error *error)
{
	return container_delete_own(root, id, 0, 0, flags, error);
}

int container_delete_own(const char *root, const char *id, int pid, uint64_t start_time, int flags,
			 struct container_error *error)
{
	struct container container;
	int result = container_open(&container, root, id, error);

	if (result == CONTAINER_OK)
		result = delete_opened(&container, pid, start_time, flags, error);
	container_close(&container);
	return result == CONTAINER_NOT_FOUND && flags & CONTAINER_FORCE ? CONTAINER_OK : result;
}
