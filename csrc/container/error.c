/* SPDX-License-Identifier: Apache-2.0 */
/* Error messages, and the clock: used by all files of this folder, and using none of them. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "impl.h"

int64_t container_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void container_sleep_us(long microseconds)
{
	struct timespec pause = {.tv_sec = microseconds / 1000000, .tv_nsec = microseconds % 1000000 * 1000};

	nanosleep(&pause, NULL);
}

static const struct {
	int error;
	const char *text;
} errno_texts[] = {
	{EPERM, "operation not permitted"},
	{ENOENT, "no such file or directory"},
	{ESRCH, "no such process"},
	{EINTR, "interrupted system call"},
	{EIO, "input/output error"},
	{ENXIO, "no such device or address"},
	{EBADF, "bad file descriptor"},
	{EAGAIN, "resource temporarily unavailable"},
	{ENOMEM, "cannot allocate memory"},
	{EACCES, "permission denied"},
	{EBUSY, "device or resource busy"},
	{EEXIST, "file exists"},
	{EXDEV, "invalid cross-device link"},
	{ENODEV, "no such device"},
	{ENOTDIR, "not a directory"},
	{EISDIR, "is a directory"},
	{EINVAL, "invalid argument"},
	{ENFILE, "too many open files in system"},
	{EMFILE, "too many open files"},
	{ENOSPC, "no space left on device"},
	{EROFS, "read-only file system"},
	{EPIPE, "broken pipe"},
	{ENAMETOOLONG, "file name too long"},
	{ENOSYS, "function not implemented"},
	{ENOTEMPTY, "directory not empty"},
	{ELOOP, "too many levels of symbolic links"},
	{EOPNOTSUPP, "operation not supported"},
	{ETIMEDOUT, "connection timed out"},
};

const char *container_errno_text(int error)
{
	for (size_t i = 0; i < sizeof(errno_texts) / sizeof(errno_texts[0]); i++)
		if (errno_texts[i].error == error)
			return errno_texts[i].text;
	return NULL;
}

int container_fail(struct container_error *error, int result, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(error->text, sizeof(error->text), format, arguments);
	va_end(arguments);
	error->hint[0] = '\0';
	return result;
}

void container_hint(struct container_error *error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(error->hint, sizeof(error->hint), format, arguments);
	va_end(arguments);
}

int container_fail_call(struct container_error *error, const char *call, const char *arg)
{
	int number = errno;
	const char *words = container_errno_text(number);

	error->error = number;
	error->text[0] = '\0';
	error->hint[0] = '\0';
	snprintf(error->call, sizeof(error->call), "%s", call);
	/* A truncated argument would be wrong: then Python makes the message. */
	bool cut = snprintf(error->arg, sizeof(error->arg), "%s", arg) >= (int)sizeof(error->arg);
	if (words && !cut)
		snprintf(error->text, sizeof(error->text), "%s '%s': %s", call, arg, words);
	return CONTAINER_KERNEL;
}

int container_fail_here(const struct container *container, const char *call, struct container_error *error)
{
	int number = errno;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", container->root, container->id);
	errno = number;
	return container_fail_call(error, call, path);
}
