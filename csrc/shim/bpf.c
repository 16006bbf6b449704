/* SPDX-License-Identifier: Apache-2.0 */
/* See bpf.h. Source: bpf(2), linux/bpf.h, kernel/bpf/cgroup.c. */
#define _GNU_SOURCE
#include "bpf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Kernel's limit of programs per cgroup and attach type (BPF_CGROUP_MAX_PROGS). */
#define MAX_PROGRAMS 64
/* The verifier gives up with EAGAIN when a signal arrives. */
#define LOAD_TRIES 16

/*
 * Always the whole union, never a shorter prefix: Linux 6.17 and later write the query's revision without looking at the
 * size that was passed.
 */
static int bpf_call(int command, union bpf_attr *attr)
{
	long answer = syscall(SYS_bpf, command, attr, sizeof(*attr));

	return answer < 0 ? -errno : (int)answer;
}

static uint64_t address(const void *pointer)
{
	return (uint64_t)(uintptr_t)pointer;
}

/* attach treats descriptor 0 as "none" in replace_bpf_fd. */
static int not_zero(int fd)
{
	int moved;

	if (fd != 0)
		return fd;
	moved = fcntl(fd, F_DUPFD_CLOEXEC, 1);
	if (moved < 0)
		moved = -errno;
	close(fd);
	return moved;
}

static int load_once(const void *program, size_t size, char *log, size_t log_size)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	attr.insns = address(program);
	attr.insn_cnt = (uint32_t)(size / sizeof(struct bpf_insn));
	attr.license = address("Apache-2.0");
	memcpy(attr.prog_name, "pyrunc_devices", sizeof("pyrunc_devices"));
	if (log) {
		attr.log_level = 1;
		attr.log_buf = address(log);
		attr.log_size = (uint32_t)log_size;
	}
	return not_zero(bpf_call(BPF_PROG_LOAD, &attr));
}

static int load(const void *program, size_t size, char *log, size_t log_size)
{
	int fd = -EAGAIN;

	for (int i = 0; i < LOAD_TRIES && fd == -EAGAIN; i++)
		fd = load_once(program, size, NULL, 0);
	/* The log is requested only for a refused program; it makes a load slower. */
	if ((fd == -EINVAL || fd == -EACCES) && log && log_size > 0) {
		int second = load_once(program, size, log, log_size);

		log[log_size - 1] = '\0';
		if (second >= 0)
			return second;
	}
	return fd;
}

static int query(int cgroup_fd, uint32_t *ids)
{
	union bpf_attr attr;
	int error;

	memset(&attr, 0, sizeof(attr));
	attr.query.target_fd = (uint32_t)cgroup_fd;
	attr.query.attach_type = BPF_CGROUP_DEVICE;
	attr.query.prog_ids = address(ids);
	attr.query.prog_cnt = MAX_PROGRAMS;
	error = bpf_call(BPF_PROG_QUERY, &attr);
	return error < 0 ? error : (int)attr.query.prog_cnt;
}

static int attach(int cgroup_fd, int program_fd, int replaced_fd)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.target_fd = (uint32_t)cgroup_fd;
	attr.attach_bpf_fd = (uint32_t)program_fd;
	attr.attach_type = BPF_CGROUP_DEVICE;
	attr.attach_flags = BPF_F_ALLOW_MULTI;
	if (replaced_fd >= 0) {
		attr.attach_flags |= BPF_F_REPLACE;
		attr.replace_bpf_fd = (uint32_t)replaced_fd;
	}
	return bpf_call(BPF_PROG_ATTACH, &attr);
}

static int detach(int cgroup_fd, int program_fd)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.target_fd = (uint32_t)cgroup_fd;
	attr.attach_bpf_fd = (uint32_t)program_fd;
	attr.attach_type = BPF_CGROUP_DEVICE;
	return bpf_call(BPF_PROG_DETACH, &attr);
}

static int open_program(uint32_t id)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_id = id;
	return not_zero(bpf_call(BPF_PROG_GET_FD_BY_ID, &attr));
}

/*
 * The descriptors of what is attached now. One that a security module hides from us is left alone: programs of one
 * cgroup can only forbid more, never allow more.
 */
static int open_attached(int cgroup_fd, int *fds)
{
	uint32_t ids[MAX_PROGRAMS];
	int count = query(cgroup_fd, ids);
	int opened = 0;

	for (int i = 0; i < count; i++) {
		int fd = open_program(ids[i]);

		if (fd >= 0)
			fds[opened++] = fd;
	}
	return count < 0 ? count : opened;
}

static int swap(int cgroup_fd, int program_fd, const int *old, int count)
{
	int error;

	if (count == 1) {
		error = attach(cgroup_fd, program_fd, old[0]);
		if (error != -EINVAL) /* BPF_F_REPLACE is there since Linux 5.5 */
			return error;
	}
	error = attach(cgroup_fd, program_fd, -1);
	for (int i = 0; i < count && error >= 0; i++)
		error = detach(cgroup_fd, old[i]);
	return error;
}

int bpf_device_attach(int cgroup_fd, const void *program, size_t size, char *log, size_t log_size)
{
	int old[MAX_PROGRAMS];
	int count, fd, error;

	if (log && log_size > 0)
		log[0] = '\0';
	count = open_attached(cgroup_fd, old);
	if (count < 0)
		return count;
	fd = load(program, size, log, log_size);
	error = fd < 0 ? fd : swap(cgroup_fd, fd, old, count);
	if (fd >= 0)
		close(fd);
	for (int i = 0; i < count; i++)
		close(old[i]);
	return error < 0 ? error : 0;
}

int bpf_device_count(int cgroup_fd)
{
	uint32_t ids[MAX_PROGRAMS];

	return query(cgroup_fd, ids);
}
