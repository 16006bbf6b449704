/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "mounts.h"

#include <errno.h>
#include <linux/mount.h>
#include <string.h>
#include <unistd.h>

#include "system_calls.h"

int mounts_set_parameter(int fs, const char *parameter)
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

int mounts_go_to_namespace_root(void)
{
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0), result;

	if (self < 0)
		return -1;
	result = setns(self, CLONE_NEWNS);
	(void)close(self);
	return result;
}
