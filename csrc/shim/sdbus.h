/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Talking to a service manager: libsystemd's sd-bus, opened on first use, so the shim is built and loads without it.
 * Every function ends within the time it is given. tools/cffi_source.py hands the declarations below to cffi: keep them free
 * of macros.
 *
 * The body of a call is a description, numbers in the machine's byte order, strings with their NUL:
 *
 *     '(' type contents     open a container: type 'a', 'r', 'e' or 'v', contents as in sd_bus_message_open_container(3)
 *     ')'                   close it
 *     any other character   a basic type (y b n q i u x t d s o g) and its value in the size the type has; b has 4 bytes
 */
#ifndef PYRUNC_SDBUS_H
#define PYRUNC_SDBUS_H

#include <stddef.h>
#include <stdint.h>

struct shim_bus;

struct shim_bus_call {
	const char *destination; /* NULL on a connection without a bus in between */
	const char *path;
	const char *interface;
	const char *member;
	const uint8_t *body;
	size_t size;
	uint64_t timeout_us; /* 0: send it and wait for no answer */
};

struct shim_bus_answer {
	char error[128]; /* the D-Bus name of an error that the other side answered with, else "" */
	char text[512];  /* its words */
	char value[512]; /* the answer's first value when that is a string or path, also inside a variant */
};

/*
 * Connect, authenticate and, on a bus, say hello. 0, or -errno: -ELIBACC (cannot be opened) and -ELIBBAD (lacks a
 * function) concern the library, -ETIMEDOUT is silence. sd_bus_start(3).
 */
int shim_bus_open(const char *address, int is_bus, uint64_t timeout_us, struct shim_bus **bus);
void shim_bus_close(struct shim_bus *bus);

/* 0, or -errno; -EBADMSG: a malformed body. sd_bus_call(3). */
int shim_bus_call(struct shim_bus *bus, const struct shim_bus_call *call, struct shim_bus_answer *answer);

/* Wait for org.freedesktop.systemd1.Manager.JobRemoved of this job; result gets its "done", "failed", ... */
int shim_bus_job(struct shim_bus *bus, const char *job, uint64_t timeout_us, char *result, size_t size);

#endif
