/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a seccomp filter: the container's, and that of a hook's process. */
#include "init.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <unistd.h>

/* Explains an error of seccomp(2). */
long filter_load(struct blob filter, uint32_t flags)
{
	struct sock_fprog program = {
		.filter = (struct sock_filter *)(void *)(uintptr_t)filter.data,
		.len = (unsigned short)(filter.size / sizeof(struct sock_filter)),
	};

	if (filter.size % sizeof(struct sock_filter) != 0 || filter.size / sizeof(struct sock_filter) > UINT16_MAX) {
		errno = EINVAL;
		return -1;
	}
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}
