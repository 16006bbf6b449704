/* SPDX-License-Identifier: Apache-2.0 */
/* What container*.c share and nobody else sees. */
#ifndef PYRUNC_CONTAINER_IMPL_H
#define PYRUNC_CONTAINER_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "container.h"

#define LOCK_MS 10000
#define DEATH_MS 10000

/* A state directory held open, and what its state file says. Start from container_none. */
struct container {
	const char *root, *id;
	int root_fd, fd;
	bool locked;
	bool creating; /* read from state.creating */
	bool broken;   /* error->text says where; what could be understood is there nevertheless */
	char *text;    /* the file, its header cut into strings */
	char *header;  /* the header as it was */
	size_t header_size;
	char *document;
	size_t document_size;
	size_t pid_line, status_line; /* offsets of the two placeholders' lines in the document */
	int pid;
	uint64_t start_time;
	const char *needs;
	bool shared_pidns;
	const char **cgroups, **made;
	size_t cgroup_count, made_count;
};

extern const struct container container_none;

int64_t container_now_ms(void);
void container_sleep_us(long microseconds);

/* Fill *error and hand `result` back. */
int container_fail(struct container_error *error, int result, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int container_fail_call(struct container_error *error, const char *call, const char *arg);
void container_hint(struct container_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Open the directory. The caller closes, also after a failure. */
int container_open(struct container *container, const char *root, const char *id, struct container_error *error);
void container_close(struct container *container);

/* Wait for the lock; opens anew when the directory was replaced meanwhile. CONTAINER_BAD_STATE after timeout_ms. */
int container_lock(struct container *container, int timeout_ms, struct container_error *error);

/* Read and cut the state file. CONTAINER_BROKEN leaves what could be understood. */
int container_load(struct container *container, struct container_error *error);

/* A pidfd of init if it lives, else -1. Zombies do not live. */
int container_init(const struct container *container);

enum container_status container_derive(const struct container *container);

/* Empty the directory and remove it, `state` last. The caller holds the lock. */
int container_erase(struct container *container, struct container_error *error);

#endif
