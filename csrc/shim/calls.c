/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "calls.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef PYRUNC_VERSION
#error "PYRUNC_VERSION is given by the build"
#endif

const char *shim_version(void)
{
	return PYRUNC_VERSION;
}

int shim_signal_fd(uint64_t signals)
{
	sigset_t set;
	int fd;

	(void)sigemptyset(&set);
	for (int number = 1; number < 65; number++)
		if (signals >> (number - 1) & 1)
			(void)sigaddset(&set, number);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

int64_t shim_fs_type(const char *path)
{
	struct statfs answer;

	return statfs(path, &answer) < 0 ? -errno : (int64_t)(uint32_t)answer.f_type;
}

int shim_sched_setattr(int pid, const uint8_t *attributes)
{
	return syscall(SYS_sched_setattr, pid, attributes, 0) < 0 ? -errno : 0;
}
