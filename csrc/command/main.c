/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `pyrunc` command. `state`, `start`, `kill` and `delete` are answered here, from container/, when nothing needs
 * Python; everything else becomes `python3 -I -S <package>/boot.py ARGUMENT...`. What is not plainly right, be it an
 * option or an errno without words, goes to Python as well: here is only accepted, there it is explained.
 * Both give exactly the same answers; a test compares them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "command.h"

/* Whether `create`, `run` or `exec` may have been given --timings: an argument of the program is as good. */
static bool wants_timings(const struct call *call)
{
	static const char *const words[] = {"-timings", "--timings", NULL};

	for (int i = call->verb + 1; i < call->argc; i++)
		if (is_one_of(call->argv[i], words))
			return true;
	return false;
}

/* If 0, 1 or 2 were closed, a descriptor of ours would take that number and become the container's. */
static void fill_stdio(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			_exit(1);
}

int main(int argc, char **argv)
{
	static const char *const primed[] = {"create", "run", "exec", NULL};
	struct call call = {.argc = argc, .argv = argv};
	int child = 0;
	bool hot = false;

	fill_stdio();
	/* Ignored by our caller, the kernel would keep our children's status from us; an exec does not reset that. */
	signal(SIGCHLD, SIG_DFL);
	if (parse_globals(&call)) {
		int status = answer(&call);
		if (status >= 0)
			return status;
		hot = is_one_of(argv[call.verb], primed);
		if (hot) {
			if (!call.began && wants_timings(&call))
				call.began = now_ns();
			child = prime();
		}
	}
	become_python(&call, child, hot);
}
