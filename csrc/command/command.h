/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the command share: one call of it, and which part of the work each file does. */
#ifndef PYRUNC_COMMAND_H
#define PYRUNC_COMMAND_H

#include <limits.h>
#include <stdbool.h>

#include "container/container.h"

struct call {
	int argc;
	char **argv;
	bool python; /* a global option that only Python handles */
	const char *root;
	const char *log;
	bool json;
	int log_fd;
	int verb;        /* index in argv */
	int record_fd;   /* what init said when start failed, for Python to word; 0 none, which is a standard stream */
	long long began; /* for timing/trace.py: CLOCK_MONOTONIC in ns, 0 unless it is measured */
};

/* call.c */
long long now_ns(void);
/* path = first + second + third; false when that does not fit. */
bool join(char path[PATH_MAX], const char *first, const char *second, const char *third);
/* `words` ends with NULL. */
bool is_one_of(const char *word, const char *const *words);

/* options.c: the options before the verb. false: not even the verb is known. */
bool parse_globals(struct call *call);
/* The same choice as Python's. false: leave it to Python. */
bool default_root(char root[PATH_MAX]);
bool find_root(struct call *call);

/* answer.c: the exit status, or -1 for Python. */
int answer(struct call *call);

/* prime.c: the pid of a child that boot.py collects, or 0. */
int prime(void);

/* python.c. `hot`: this verb will be called so often that making a snapshot is worth 0.1 s. */
_Noreturn void become_python(struct call *call, int primed, bool hot);

#endif
