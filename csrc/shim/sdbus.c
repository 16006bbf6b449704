/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sdbus.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The part of <systemd/sd-bus.h> that is used, so that building does not need it; the ABI of libsystemd.so.0 is stable. */
typedef struct sd_bus sd_bus;
typedef struct sd_bus_message sd_bus_message;
typedef struct {
	const char *name;
	const char *message;
	int need_free;
} sd_bus_error;

/* clang-format off */
#define LIBRARY_FUNCTIONS(X)                                                                                           \
	X(int, new, (sd_bus **))                                                                                       \
	X(int, set_address, (sd_bus *, const char *))                                                                  \
	X(int, set_bus_client, (sd_bus *, int))                                                                        \
	X(int, start, (sd_bus *))                                                                                      \
	X(int, is_ready, (sd_bus *))                                                                                   \
	X(int, process, (sd_bus *, sd_bus_message **))                                                                 \
	X(int, wait, (sd_bus *, uint64_t))                                                                             \
	X(int, call, (sd_bus *, sd_bus_message *, uint64_t, sd_bus_error *, sd_bus_message **))                        \
	X(int, send, (sd_bus *, sd_bus_message *, uint64_t *))                                                         \
	X(void, close, (sd_bus *))                                                                                     \
	X(sd_bus *, unref, (sd_bus *))                                                                                 \
	X(void, error_free, (sd_bus_error *))                                                                          \
	X(int, message_new_method_call, (sd_bus *, sd_bus_message **, const char *, const char *, const char *,        \
					 const char *))                                                                \
	X(int, message_set_expect_reply, (sd_bus_message *, int))                                                      \
	X(int, message_append_basic, (sd_bus_message *, char, const void *))                                           \
	X(int, message_open_container, (sd_bus_message *, char, const char *))                                         \
	X(int, message_close_container, (sd_bus_message *))                                                            \
	X(int, message_peek_type, (sd_bus_message *, char *, const char **))                                           \
	X(int, message_enter_container, (sd_bus_message *, char, const char *))                                        \
	X(int, message_read_basic, (sd_bus_message *, char, void *))                                                   \
	X(int, message_is_signal, (sd_bus_message *, const char *, const char *))                                      \
	X(sd_bus_message *, message_unref, (sd_bus_message *))
/* clang-format on */

static struct {
	int state; /* 0: not tried, 1: usable, or -errno */
#define X(result, name, arguments) result(*name) arguments;
	LIBRARY_FUNCTIONS(X)
#undef X
} sd;

static int load_library(void)
{
	if (sd.state != 0)
		return sd.state;
	void *handle = dlopen("libsystemd.so.0", RTLD_LAZY | RTLD_LOCAL);
	if (handle == NULL)
		return sd.state = -ELIBACC;
#define X(result, name, arguments)                                                                                     \
	*(void **)&sd.name = dlsym(handle, "sd_bus_" #name);                                                           \
	if (sd.name == NULL)                                                                                           \
		return sd.state = -ELIBBAD;
	LIBRARY_FUNCTIONS(X)
#undef X
	return sd.state = 1;
}

struct shim_bus {
	sd_bus *bus;
};

static uint64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Let the connection do one step, or wait until it can. *message: one that came and was not handled. */
static int step(sd_bus *bus, uint64_t deadline, sd_bus_message **message)
{
	int done = sd.process(bus, message);
	if (done != 0)
		return done < 0 ? done : 0;
	uint64_t now = now_us();
	if (now >= deadline)
		return -ETIMEDOUT;
	int ready = sd.wait(bus, deadline - now);
	return ready < 0 && ready != -EINTR ? ready : 0;
}

static int connect_until(sd_bus *bus, const char *address, int is_bus, uint64_t deadline)
{
	int answer = sd.set_address(bus, address);
	if (answer >= 0)
		answer = sd.set_bus_client(bus, is_bus);
	if (answer >= 0)
		answer = sd.start(bus);
	/* sd_bus_call would wait for this itself, but as long as it takes. */
	while (answer >= 0) {
		int ready = sd.is_ready(bus);
		if (ready != 0)
			return ready < 0 ? ready : 0;
		sd_bus_message *message = NULL;
		answer = step(bus, deadline, &message);
		sd.message_unref(message);
	}
	return answer;
}

int shim_bus_open(const char *address, int is_bus, uint64_t timeout_us, struct shim_bus **bus)
{
	int answer = load_library();
	if (answer < 0)
		return answer;
	struct shim_bus *made = calloc(1, sizeof(*made));
	if (made == NULL)
		return -ENOMEM;
	answer = sd.new(&made->bus);
	if (answer >= 0)
		answer = connect_until(made->bus, address, is_bus, now_us() + timeout_us);
	if (answer < 0) {
		shim_bus_close(made);
		return answer;
	}
	*bus = made;
	return 0;
}

void shim_bus_close(struct shim_bus *bus)
{
	if (bus->bus != NULL) {
		/* Without a flush: that has no time limit. */
		sd.close(bus->bus);
		sd.unref(bus->bus);
	}
	free(bus);
}

/* A cursor over the body. */
struct body {
	const uint8_t *next;
	size_t left;
};

static const char *take_string(struct body *from)
{
	const char *text = (const char *)from->next;
	size_t length = strnlen(text, from->left);
	if (length == from->left)
		return NULL;
	from->next += length + 1;
	from->left -= length + 1;
	return text;
}

static size_t size_of(char type)
{
	static const char types[] = "ybnqiuxtd";
	static const uint8_t sizes[] = {1, 4, 2, 2, 4, 4, 8, 8, 8};
	const char *found = type ? strchr(types, type) : NULL;
	return found ? sizes[found - types] : 0;
}

static int append_basic(sd_bus_message *message, char type, struct body *from)
{
	if (strchr("sog", type)) {
		const char *text = take_string(from);
		return text ? sd.message_append_basic(message, type, text) : -EBADMSG;
	}
	uint64_t value = 0;
	size_t size = size_of(type);
	if (size == 0 || size > from->left)
		return -EBADMSG;
	memcpy(&value, from->next, size);
	from->next += size;
	from->left -= size;
	return sd.message_append_basic(message, type, &value);
}

static int open_container(sd_bus_message *message, struct body *from)
{
	if (from->left == 0)
		return -EBADMSG;
	char type = (char)*from->next++;
	from->left--;
	const char *contents = take_string(from);
	if (contents == NULL || type == '\0' || !strchr("arev", type))
		return -EBADMSG;
	return sd.message_open_container(message, type, contents);
}

static int append_all(sd_bus_message *message, const uint8_t *bytes, size_t size)
{
	struct body from = {.next = bytes, .left = size};
	int answer = 0;

	while (answer >= 0 && from.left > 0) {
		char type = (char)*from.next++;
		from.left--;
		if (type == '(')
			answer = open_container(message, &from);
		else if (type == ')')
			answer = sd.message_close_container(message);
		else
			answer = type ? append_basic(message, type, &from) : -EBADMSG;
	}
	return answer;
}

static void read_value(sd_bus_message *reply, char *value, size_t size)
{
	char type = 0;
	const char *contents = NULL, *text = NULL;
	int got = sd.message_peek_type(reply, &type, &contents);

	if (got > 0 && type == 'v' && contents != NULL && sd.message_enter_container(reply, 'v', contents) > 0)
		got = sd.message_peek_type(reply, &type, &contents);
	if (got > 0 && (type == 's' || type == 'o') && sd.message_read_basic(reply, type, &text) > 0)
		snprintf(value, size, "%s", text);
}

static int exchange(sd_bus *bus, sd_bus_message *message, uint64_t timeout_us, struct shim_bus_answer *answer)
{
	sd_bus_error error = {0};
	sd_bus_message *reply = NULL;
	int result;

	if (timeout_us == 0) {
		result = sd.message_set_expect_reply(message, 0);
		return result < 0 ? result : sd.send(bus, message, NULL);
	}
	result = sd.call(bus, message, timeout_us, &error, &reply);
	if (result >= 0)
		read_value(reply, answer->value, sizeof(answer->value));
	/* Our own timeout and a lost connection have an error name, too; only a real answer of the other side counts. */
	else if (error.name != NULL && result != -ETIMEDOUT && result != -ECONNRESET && result != -ENOTCONN) {
		snprintf(answer->error, sizeof(answer->error), "%s", error.name);
		snprintf(answer->text, sizeof(answer->text), "%s", error.message ? error.message : error.name);
	}
	sd.error_free(&error);
	sd.message_unref(reply);
	return result < 0 ? result : 0;
}

int shim_bus_call(struct shim_bus *bus, const struct shim_bus_call *call, struct shim_bus_answer *answer)
{
	sd_bus_message *message = NULL;

	memset(answer, 0, sizeof(*answer));
	int result = sd.message_new_method_call(bus->bus, &message, call->destination, call->path, call->interface,
						call->member);
	if (result >= 0)
		result = append_all(message, call->body, call->size);
	if (result >= 0)
		result = exchange(bus->bus, message, call->timeout_us, answer);
	sd.message_unref(message);
	return result < 0 ? result : 0;
}

/* 1 if the message is about this job's end. */
static int is_end_of(sd_bus_message *message, const char *job, char *result, size_t size)
{
	uint32_t id;
	const char *path = NULL, *unit = NULL, *word = NULL;

	if (message == NULL || sd.message_is_signal(message, "org.freedesktop.systemd1.Manager", "JobRemoved") <= 0)
		return 0;
	if (sd.message_read_basic(message, 'u', &id) <= 0 || sd.message_read_basic(message, 'o', &path) <= 0 ||
	    sd.message_read_basic(message, 's', &unit) <= 0 || sd.message_read_basic(message, 's', &word) <= 0)
		return 0;
	if (strcmp(path, job) != 0)
		return 0;
	snprintf(result, size, "%s", word);
	return 1;
}

int shim_bus_job(struct shim_bus *bus, const char *job, uint64_t timeout_us, char *result, size_t size)
{
	uint64_t deadline = now_us() + timeout_us;

	for (;;) {
		sd_bus_message *message = NULL;
		int answer = step(bus->bus, deadline, &message);
		int ended = answer >= 0 && is_end_of(message, job, result, size);
		sd.message_unref(message);
		if (answer < 0 || ended)
			return answer < 0 ? answer : 0;
	}
}
