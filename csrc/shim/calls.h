/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls that Python lacks, one function each, no policy. Every function answers >= 0 or -errno.
 * tools/cffi_source.py hands the declarations below to cffi: keep them free of macros.
 */
#ifndef PYRUNC_CALLS_H
#define PYRUNC_CALLS_H

#include <stdint.h>

/* A close-on-exec, non-blocking signalfd(2) of the signals whose bits (number - 1) are set; who calls blocks them. */
int shim_signal_fd(uint64_t signals);

/* f_type of statfs(2), or -errno. */
int64_t shim_fs_type(const char *path);

const char *shim_version(void);

/* 0 or -errno. `attributes` is a struct sched_attr with its size. sched_setattr(2). */
int shim_sched_setattr(int pid, const uint8_t *attributes);

#endif
