/* SPDX-License-Identifier: Apache-2.0 */
/* Declarations that only the files of this folder share. */
#ifndef PYRUNC_CONTAINER_IMPL_H
#define PYRUNC_CONTAINER_IMPL_H

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/statfs.h>
#include <sys/types.h>

#include "container.h"

#define DEATH_MS 10000

/* A state directory held open, and what its state file says. Start with container_open(). */
struct container {
	const char *root, *id;
	int root_fd, fd;
	bool locked;
	bool creating; /* read from state.creating */
	bool broken;   /* error->text has the place; what could be parsed is still there */
	bool whole;    /* all lines of the header were understood: what is broken is the document */
	char *text;    /* the file, its header cut into strings */
	char *header;  /* the header as it was */
	size_t header_size;
	char *document;
	size_t document_size;
	size_t pid_line, status_line; /* offsets of the two placeholders' lines in the document */
	int pid;
	uint64_t start_time;
	uint64_t pid_namespace; /* 0: not recorded */
	bool elsewhere;         /* container_init() found that the pid means nothing in our pid namespace */
	const char *needs;
	bool shared_pidns;
	const char **cgroups, **made;
	size_t cgroup_count, made_count;
};

int64_t container_now_ms(void);
void container_sleep_us(long microseconds);

/* Fill *error and return `result`. */
int container_fail(struct container_error *error, int result, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int container_fail_call(struct container_error *error, const char *call, const char *arg);
void container_hint(struct container_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The call failed on the state directory. */
int container_fail_here(const struct container *container, const char *call, struct container_error *error);

/* Open the directory. The caller closes, also after a failure. */
int container_open(struct container *container, const char *root, const char *id, struct container_error *error);
void container_close(struct container *container);
/* Close the descriptors, which releases the lock; what was read stays until container_close(). */
void container_let_go(struct container *container);

/* Wait for the lock; opens anew when the directory was replaced meanwhile. CONTAINER_BAD_STATE after timeout_ms. */
int container_lock(struct container *container, int timeout_ms, struct container_error *error);

/* Read and cut the state file. CONTAINER_BROKEN leaves what could be understood. */
int container_load(struct container *container, struct container_error *error);

/* *pidfd: of init if it lives, else -1, also after a failure. */
int container_init(struct container *container, int *pidfd, struct container_error *error);

/* *status: an enum container_status. */
int container_derive(struct container *container, int *status, struct container_error *error);

/* Empty the directory and remove it, `state` last. The caller holds the lock. */
int container_erase(struct container *container, struct container_error *error);

/* One of a container's cgroups. */
const char *cgroup_directory(const char *cgroup);
const char *cgroup_find(const char *const *cgroups, size_t count, const char *controller);

/* -1: errno, EINVAL if it is not a cgroup or is the root of the mount, which has all other processes, too. */
int cgroup_open(const char *path);
/* Whether an errno means that a cgroup or a file of it does not exist (any more) or is not ours. */
bool cgroup_is_gone(int number);
/* The text is NUL terminated in any case. -1: errno. */
ssize_t cgroup_read(int directory, const char *name, char *text, size_t size);
int cgroup_write(int directory, const char *name, const char *text);

bool cgroup_is_type(const struct statfs *fs);
/* The names of a directory, of which those are cgroups below it. NULL: errno, 0 if it is gone, or has none. */
DIR *cgroup_list(int directory);
bool cgroup_is_below(const struct dirent *entry);

/* The longest walk: the kernel is slow with very many cgroups. */
#define WALK_MS 30000

/*
 * Visit the directory and all below it, parents first, whatever their number, names and depth are: the container may
 * have made them. -1: errno, the visit's or ETIME.
 */
typedef int cgroup_visit(int directory, size_t depth, void *data);
int cgroup_walk(int base, int64_t deadline, cgroup_visit *visit, void *data);

struct freezer {
	int fd; /* -1: there is none, or errno */
	bool v1;
};

/* *path: NULL if there is none. */
struct freezer freezer_open(const char *const *cgroups, size_t count, const char **path);
int freezer_wants_frozen(struct freezer freezer); /* -1: errno */
int freezer_set(struct freezer freezer, bool wanted);
/* 1: it is so. 0: not in time. -1: errno. */
int freezer_change(struct freezer freezer, bool wanted, int timeout_ms);
/* Thaw it and, on v1, all below it. *held: it was frozen, there is something below, or more than WALK_MS lets us see. */
int freezer_release(struct freezer freezer, bool *held);

#endif
