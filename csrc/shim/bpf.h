/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device programs of cgroup v2, through bpf(2) alone. Every function answers >= 0 or -errno.
 * tools/cffi_source.py hands the declarations below to cffi: keep them free of macros.
 */
#ifndef PYRUNC_BPF_H
#define PYRUNC_BPF_H

#include <stddef.h>
#include <stdint.h>

/*
 * Load a program of type BPF_PROG_TYPE_CGROUP_DEVICE (size bytes of struct bpf_insn) and attach it to the cgroup v2
 * directory cgroup_fd in place of all that are attached there. At no moment is the cgroup without a program that it
 * had before. log, when not NULL, receives the verifier's words about a program it refuses (EINVAL, EACCES).
 */
int bpf_device_attach(int cgroup_fd, const void *program, size_t size, char *log, size_t log_size);

/* The number of device programs attached to cgroup_fd itself. */
int bpf_device_count(int cgroup_fd);

#endif
