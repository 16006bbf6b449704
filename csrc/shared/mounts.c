/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "mounts.h"

#include <errno.h>
#include <linux/mount.h>
#include <string.h>
#include <unistd.h>

#include "system_calls.h"

#define LOG_LINE_MAX 256

static int set_parameter(int fs, const char *parameter)
{
	const char *equals = strchr(parameter, '=');
	size_t size = equals == NULL ? strlen(parameter) : (size_t)(equals - parameter);
	char key[MOUNTS_TEXT_MAX + 1];

	if (size >= sizeof(key)) {
		errno = E2BIG;
		return -1;
	}
	memcpy(key, parameter, size);
	key[size] = '\0';
	if (equals == NULL)
		return (int)syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, key, NULL, 0);
	return (int)syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, equals + 1, 0);
}

int mounts_configure(int fs, const char *source, const char *const *parameters, size_t count,
		     struct mounts_attempt *attempt)
{
	attempt->fsmount = false;
	attempt->text = source;
	if (source[0] != '\0' && syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", source, 0) < 0)
		return -1;
	for (size_t i = 0; i < count; i++) {
		attempt->text = parameters[i];
		if (set_parameter(fs, parameters[i]) < 0)
			return -1;
	}
	return 0;
}

int mounts_make(int fs, const char *type, const char *source, const char *const *parameters, size_t count,
		uint64_t attributes, struct mounts_attempt *attempt)
{
	if (mounts_configure(fs, source, parameters, count, attempt) < 0)
		return -1;
	attempt->text = source[0] != '\0' ? source : type;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	attempt->fsmount = true;
	attempt->text = type;
	return (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes);
}

bool mounts_kernel_error(int fs, char *text, size_t size)
{
	char line[LOG_LINE_MAX];
	int error = errno;
	bool found = false;
	ssize_t n;

	while (!found && (n = read(fs, line, sizeof(line) - 1)) > 0) {
		line[n] = '\0';
		if (line[n - 1] == '\n')
			line[n - 1] = '\0';
		/* "e " error, "w " warning, "i " information */
		found = line[0] == 'e' && line[1] == ' ';
	}
	if (found) {
		size_t length = strnlen(line + 2, size - 1);

		memcpy(text, line + 2, length);
		text[length] = '\0';
	}
	errno = error;
	return found;
}

int mounts_set_attributes(int fd, struct mount_attr *attributes, bool recursive)
{
	int flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);

	return (int)syscall(SYS_mount_setattr, fd, "", flags, attributes, sizeof(*attributes));
}

int mounts_go_to_namespace_root(void)
{
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0), result;

	if (self < 0)
		return -1;
	result = setns(self, CLONE_NEWNS);
	(void)close(self);
	return result;
}
