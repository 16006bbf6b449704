/* SPDX-License-Identifier: Apache-2.0 */
/* The light verbs, answered exactly as Python does: pyrunc/cli/main.py and log.py are the originals. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "environment.h"

/* As in log.py: a fifo may have no reader, or one that does not read within a second. Links are left to Python. */
#define LOG_FLAGS (O_WRONLY | O_CREAT | O_APPEND | O_SYNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW)
#define READER_MS 1000

/* Text that needs no escapes in JSON and in the log's text format. */
static bool is_plain(const char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~' || *text == '"' || *text == '\\')
			return false;
	return true;
}

static void write_all(int fd, const char *text, size_t size)
{
	while (size > 0) {
		ssize_t put = write(fd, text, size);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			_exit(errno == EPIPE ? 128 + 13 : 1);
		text += put;
		size -= (size_t)put;
	}
}

/* 0, or errno. */
static int put_in_log(int fd, const char *text, size_t size)
{
	int64_t deadline = now_ns() / 1000000 + READER_MS;

	signal(SIGPIPE, SIG_IGN);
	while (size > 0) {
		struct pollfd room = {.fd = fd, .events = POLLOUT};
		int64_t left = deadline - now_ns() / 1000000;
		ssize_t put = write(fd, text, size);
		if (put < 0 && errno == EAGAIN && (left <= 0 || poll(&room, 1, (int)left) == 0))
			return EAGAIN;
		if (put < 0 && errno != EINTR && errno != EAGAIN)
			return errno;
		text += put > 0 ? put : 0;
		size -= put > 0 ? (size_t)put : 0;
	}
	return 0;
}

/* RFC 3339 with the local offset. */
static void format_time(char text[40])
{
	char date[24], zone[8];
	struct tm now;
	time_t seconds = time(NULL);

	environment_settle();
	tzset();
	localtime_r(&seconds, &now);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &now);
	strftime(zone, sizeof(zone), "%z", &now);
	if (strcmp(zone, "+0000") == 0 || strlen(zone) != 5)
		snprintf(text, 40, "%sZ", date);
	else
		snprintf(text, 40, "%s%.3s:%.2s", date, zone, zone + 3);
}

static void log_error(const struct call *call, const struct container_error *error)
{
	char now[40], line[sizeof(error->text) + sizeof(error->hint) + 128];
	int size;

	format_time(now);
	if (call->json && error->hint[0])
		size = snprintf(line, sizeof(line),
				"{\"hint\":\"%s\",\"level\":\"error\",\"msg\":\"%s\",\"time\":\"%s\"}\n", error->hint,
				error->text, now);
	else if (call->json)
		size = snprintf(line, sizeof(line), "{\"level\":\"error\",\"msg\":\"%s\",\"time\":\"%s\"}\n",
				error->text, now);
	else
		size = snprintf(line, sizeof(line), "time=\"%s\" level=error msg=\"%s\"%s%s%s\n", now, error->text,
				error->hint[0] ? " hint=\"" : "", error->hint, error->hint[0] ? "\"" : "");
	if (call->log_fd == 2) {
		write_all(call->log_fd, line, (size_t)size);
		return;
	}
	int problem = put_in_log(call->log_fd, line, (size_t)size);
	const char *words = container_errno_text(problem);
	if (problem)
		dprintf(2, "pyrunc: write the log: %s\n", words ? words : strerror(problem));
}

/* As cli/main.py, _report(). */
static int report(const struct call *call, const struct container_error *error)
{
	char text[sizeof(error->text) + sizeof(error->hint) + 64];
	bool logged = call->log || call->json;

	if (logged)
		log_error(call, error);
	if (logged && !call->log)
		return 1;
	const char *verb = call->argv[call->verb];
	int size = snprintf(text, sizeof(text), "%s%s%s%s\n%s%s%s", logged ? "" : "pyrunc: ", logged ? "" : verb,
			    logged ? "" : ": ", error->text, error->hint[0] ? "hint: " : "", error->hint,
			    error->hint[0] ? "\n" : "");
	write_all(2, text, (size_t)size);
	return 1;
}

/* Pass init's message to Python in memory that it inherits. false: that failed. */
static bool hand_on(struct call *call, const struct container_error *error)
{
	int fd = memfd_create("start", 0);

	if (fd < 0)
		return false;
	if (write(fd, error->record, sizeof(error->record)) != (ssize_t)sizeof(error->record)) {
		close(fd);
		return false;
	}
	call->record_fd = fd;
	return true;
}

/* The exit status, or -1 for Python. */
static int finish(struct call *call, int result, const struct container_error *error)
{
	if (result == CONTAINER_OK)
		return 0;
	if (result == CONTAINER_NEEDS_PYTHON || (result == CONTAINER_START_FAILED && hand_on(call, error)))
		return -1;
	/* A longer text would be cut here, but not in Python. */
	if (!error->text[0] || !is_plain(error->text) || !is_plain(error->hint) ||
	    strlen(error->text) == sizeof(error->text) - 1)
		return -1;
	return report(call, error);
}

static int answer_state(struct call *call, const char *id)
{
	struct container_view view;
	struct container_error error;
	int result = container_state(call->root, id, &view, &error);

	if (result == CONTAINER_OK)
		write_all(1, view.document, view.document_size);
	return finish(call, result, &error);
}

/* kill [-a|--all] ID [SIGNAL] */
static int answer_kill(struct call *call, char **words, int count)
{
	static const char *const all[] = {"-a", "--a", "-all", "--all", NULL};
	struct container_error error;
	int flags = 0;

	while (count > 0 && is_one_of(words[0], all)) {
		flags = CONTAINER_ALL;
		words++;
		count--;
	}
	if (count < 1 || count > 2 || words[0][0] == '-' || !words[0][0])
		return -1;
	int signal = container_signal_number(count == 2 ? words[1] : "TERM");
	if (signal < 0)
		return -1;
	return finish(call, container_kill(call->root, words[0], signal, flags, &error), &error);
}

/* delete [-f|--force] ID */
static int answer_delete(struct call *call, char **words, int count)
{
	static const char *const force[] = {"-f", "--f", "-force", "--force", NULL};
	struct container_error error;
	int flags = 0;

	while (count > 0 && is_one_of(words[0], force)) {
		flags = CONTAINER_FORCE;
		words++;
		count--;
	}
	if (count != 1 || words[0][0] == '-')
		return -1;
	return finish(call, container_delete(call->root, words[0], flags, &error), &error);
}

/* Open the log, as Python does at this point. false: Python reports why that fails. */
static bool open_log(struct call *call)
{
	call->log_fd = 2;
	if (call->log && !call->log[0])
		call->log = NULL;
	if (call->log)
		call->log_fd = open(call->log, LOG_FLAGS, 0644);
	return call->log_fd >= 0;
}

int answer(struct call *call)
{
	const char *verb = call->argv[call->verb];
	char **words = call->argv + call->verb + 1;
	int count = call->argc - call->verb - 1;
	bool state = strcmp(verb, "state") == 0, start = strcmp(verb, "start") == 0;
	bool kill = strcmp(verb, "kill") == 0, delete = strcmp(verb, "delete") == 0;

	if (call->python || !(state || start || kill || delete) || !find_root(call))
		return -1;
	if ((state || start) && (count != 1 || words[0][0] == '-'))
		return -1;
	if (!open_log(call))
		return -1;
	if (state)
		return answer_state(call, words[0]);
	if (kill)
		return answer_kill(call, words, count);
	if (delete)
		return answer_delete(call, words, count);
	struct container_error error;
	return finish(call, container_start(call->root, words[0], 0, &error), &error);
}
