/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a verb needs from the state directory `<root>/<id>/`: read it, is it alive, start, kill, delete. One
 * implementation for the `pyrunc` command (command/) and, through the cffi module, for the Python API.
 * Nothing here prints; every function answers an enum container_result and words a failure in *error. All waits end.
 * tools/cffi_source.py hands the declarations below to cffi: keep them free of macros and attributes.
 *
 * The directory (mode 0700) holds `config.json`, `exec.fifo` while the program waits for start, perhaps `exec.words`,
 * where init keeps what it may be unable to write into the fifo (plan.h, struct last_words), and `state`, or
 * `state.creating` until the container is created. The lock is flock(2) on the directory itself: after
 * taking it, check that the directory is still the one of that name. create holds it from mkdir to its end, so a
 * `state.creating` whose lock is free was left behind by a create that was killed.
 *
 * `state` is text: lines "key value" up to an empty line, then the JSON document as `pyrunc state` shows it.
 *     version 1
 *     sum 0123456789abcdef container_sum() of all lines below; may be missing
 *     pid 1234             of init, as the creator of the container sees it; 0: none yet
 *     starttime 56789      field 22 of /proc/PID/stat, as the initial time namespace sees it; the two together name a
 *                          process for good
 *     pidnsid 4026531836   inode of that creator's pid namespace; may be missing. What is not found elsewhere is not gone
 *     needs poststop,...   why a verb needs Python; may be empty. See verbs.c for which word concerns which
 *     pidns private        or shared: SIGKILL of init does not end the others, so the whole cgroup is killed
 *     keyring new          or caller: what exec does with the session keyring; only Python asks
 *     cgroup memory:/...   repeated; the controller is empty for cgroup v2
 *     cgmade /...          repeated: every directory that create made, parents first
 *     unit system NAME     or user: the systemd unit it is in, and whose manager has it; only Python asks
 *     rdt group:/...       repeated: its places in resctrl, see host/resctrl.py; only Python asks
 * Unknown keys are skipped: a change that an older reader must not miss raises the version.
 * Two lines of the document stand for what only the reader knows: `  "pid": 0,` and `  "status": "stopped",`.
 */
#ifndef PYRUNC_CONTAINER_H
#define PYRUNC_CONTAINER_H

#include <stddef.h>
#include <stdint.h>

/* The largest state file that can be read; create never makes a larger one. */
enum { CONTAINER_STATE_MAX = 16777216 };

/* How long everybody waits for the lock of a container. */
enum { CONTAINER_LOCK_MS = 10000 };

enum container_result {
	CONTAINER_OK = 0,
	CONTAINER_NOT_FOUND = 1,
	CONTAINER_BAD_STATE = 2,    /* the container's state does not allow the verb, or the id is invalid */
	CONTAINER_BROKEN = 3,       /* the state file cannot be understood */
	CONTAINER_KERNEL = 4,       /* call, arg and error say which call failed */
	CONTAINER_NEEDS_PYTHON = 5, /* nothing was done; text is the word in the `needs` line */
	CONTAINER_START_FAILED = 6, /* record holds init's struct sync_message (plan.h) */
};

enum container_status {
	CONTAINER_CREATING = 0,
	CONTAINER_CREATED = 1,
	CONTAINER_RUNNING = 2,
	CONTAINER_PAUSED = 3,
	CONTAINER_STOPPED = 4,
};

enum container_flag {
	CONTAINER_FORCE = 1,         /* delete: kill it first; a missing container is not an error */
	CONTAINER_ALL = 2,           /* kill: every process of the cgroup; a stopped container is not an error */
	CONTAINER_NEEDS_HANDLED = 4, /* the caller does what the `needs` line names */
	CONTAINER_KEEP = 8,          /* delete: all but the state directory, which the caller removes */
};

struct container_error {
	int error;     /* errno with CONTAINER_KERNEL */
	char call[32]; /* the system call with CONTAINER_KERNEL */
	char arg[768];
	char text[1024]; /* the whole message; "" if only Python knows the errno's text */
	char hint[512];
	uint8_t record[512];
};

/* The state of a container at one moment. It owns the memory: container_view_free(). */
struct container_view {
	int status; /* enum container_status */
	int pid;    /* 0 when stopped */
	uint64_t start_time;
	char *header; /* the state file up to its empty line, NUL terminated */
	char *document;
	size_t document_size;
};

/*
 * Whether only root and our effective user can change what is below the directory at an absolute path: trust.h. Every
 * function below checks that first. CONTAINER_NOT_FOUND: there is no such directory yet.
 */
int container_check_root(const char *root, struct container_error *error);

/* 1: whether what `fd` is, out of a container's directory, is a regular file of ours alone. 0, or -errno. */
int container_is_our_file(int fd);

/* 1: whether others may write to what has this mode and belongs to this group. An ACL shows in the group's bits. */
int container_others_write(uint32_t mode, uint32_t group);

/* Read without taking the lock: a hook of create may ask, too. */
int container_state(const char *root, const char *id, struct container_view *view, struct container_error *error);
void container_view_free(struct container_view *view);

/* Let the waiting program run, and wait until it does. flags: CONTAINER_NEEDS_HANDLED. */
int container_start(const char *root, const char *id, int flags, struct container_error *error);

/* Send a signal to init, or to all. SIGKILL thaws. flags: CONTAINER_ALL, CONTAINER_NEEDS_HANDLED. */
int container_kill(const char *root, const char *id, int signal, int flags, struct container_error *error);

/* Remove what is left of a container, after ending it where that is asked for. flags: FORCE, NEEDS_HANDLED, KEEP. */
int container_delete(const char *root, const char *id, int flags, struct container_error *error);

/*
 * The same, but only if the container is still the one of that process; another one of its name counts as none. With
 * pid 0 whichever there is.
 */
int container_delete_own(const char *root, const char *id, int pid, uint64_t start_time, int flags,
			 struct container_error *error);

/* The checksum in the `sum` line of the lines after it: acting on a damaged line could kill or remove the wrong thing. */
uint64_t container_sum(const char *text, size_t size);

/*
 * *pidfd: of the process of that pid and start time if it lives, else -1. Zombies do not live. Whatever keeps us from
 * knowing is an error.
 */
int process_open(int pid, uint64_t start_time, int *pidfd, struct container_error *error);

/* Field 22 of /proc/PID/stat, which together with the pid names a process for good; 0: there is none. */
int process_start_time(int pid, uint64_t *start_time, struct container_error *error);

/*
 * 1 with PYRUNC_STRICT=1 in the environment. Where engines expect what the specification forbids, or forbade until it
 * gave in, its letter then counts:
 *     delete of a container that is created, not stopped, is an error (runtime.md, Delete)
 *     prestart hooks run in `start`, as config.md has it up to version 1.0.2 and the OCI test suite still
 *     an unknown capability is an error, likewise
 *     what has no effect is an error: options of a file system on a bind mount, mountLabel without SELinux (runtime.md,
 *     Create)
 */
int container_strict(void);

/* "creating", "created", "running", "paused", "stopped" */
const char *container_status_name(int status);

/* 0..64, or -1: a number, TERM, SIGTERM in any case, SIGRTMIN+1, SIGRTMAX-1. signal(7). */
int container_signal_number(const char *text);

/* errno's message as in glibc with a small first letter (musl's differ), or NULL if it is not in the table. */
const char *container_errno_text(int error);

/*
 * A container's cgroups, each "controller:/absolute/directory" as in the state file. The root of a hierarchy (as far
 * as we see it) is never signalled or removed.
 */

/* *frozen: 1 or 0. The v1 freezer counts when there is one, else v2. */
int cgroup_frozen(const char *const *cgroups, size_t count, int *frozen, struct container_error *error);

/* Freeze or thaw, and wait until it is done. */
int cgroup_freeze(const char *const *cgroups, size_t count, int timeout_ms, struct container_error *error);
int cgroup_thaw(const char *const *cgroups, size_t count, struct container_error *error);

/* Let SIGKILL reach every process: thaw it and, on v1, all below. *held: 1 if something was, or may again be, frozen. */
int cgroup_release(const char *const *cgroups, size_t count, int *held, struct container_error *error);

/* Signal every process, those of cgroups below included. *found: how many there were. SIGKILL thaws. */
int cgroup_signal(const char *const *cgroups, size_t count, int signal, size_t *found, struct container_error *error);

/*
 * Remove the directories. Those among `made` lose all below them and, when in the way, their processes; of the others
 * and of parents only what is empty goes.
 */
int cgroup_remove(const char *const *cgroups, size_t count, const char *const *made, size_t made_count, int timeout_ms,
		  struct container_error *error);

#endif
