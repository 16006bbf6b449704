/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init: the static program that runs inside the container's namespaces, does what its plan says, and becomes the
 * container's process.
 *
 *     init SYNC_FD PLAN_FD [TRACE_FD]
 *
 * The runtime starts it from a sealed memfd (CVE-2019-5736) with an empty environment; the two descriptors and those
 * that the plan names were inherited, stdio is the container's. Exit codes: 1 the failure was reported on the sync
 * socket (or the parent is gone), 2 wrong arguments. It never writes to its stdio.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SIGNAL_MAX 64

static op_function *const ops[] = {
#define X(number, name, function, payload) [number] = op_##function,
	PLAN_OPS(X)
#undef X
};

/* A descriptor number from argv; -1 for anything else. */
static int parse_fd(const char *text)
{
	int value = 0;

	if (*text == '\0' || strlen(text) > 9)
		return -1;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return -1;
		value = value * 10 + (*text - '0');
	}
	return value;
}

/* Ignored signals and the signal mask survive exec, and our callers (Python, an engine) may have both. */
static void reset_signals(void)
{
	struct sigaction plain = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int number = 1; number <= SIGNAL_MAX; number++)
		sigaction(number, &plain, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * The program's descriptors 3 .. close_from-1 lose close-on-exec here, as long as no number among them can be one of
 * ours; an unused number is filled, so that none of ours will get it.
 */
static void open_gaps(struct init *in)
{
	for (uint32_t fd = 3; fd < in->close_from; fd++) {
		int flags = fcntl((int)fd, F_GETFD);

		if (flags >= 0 && fcntl((int)fd, F_SETFD, flags & ~FD_CLOEXEC) == 0)
			continue;
		/* not with the socket: a child that others can see must not have a copy of it (op_fork) */
		if (fcntl(0, F_DUPFD_CLOEXEC, (int)fd) != (int)fd)
			fail(in, STEP_PLAN, errno, "CLOSE_FROM leaves no room for init's own file descriptors");
	}
}

/* A file of one uint64 for each op, shared with the runtime. It is closed with all others that the plan does not name. */
static void map_stamps(struct init *in, int fd)
{
	size_t size = in->op_count * sizeof(*in->stamps);
	struct stat facts;
	void *memory;

	if (fstat(fd, &facts) < 0 || (uint64_t)facts.st_size < size)
		fail(in, STEP_PLAN, 0, "no room for the time of each op");
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		fail(in, STEP_MEMORY, errno, "");
	in->stamps = memory;
}

/*
 * CLOCK_REALTIME: the others are shifted in a time namespace. Not behind a filter, since on some machines asking is a
 * system call, for which it may kill; nor where others may see us, as the memory is the runtime's.
 */
static void stamp(struct init *in, uint32_t op)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	in->stamps[in->op_index] = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	if (op != PLAN_OP_SECCOMP && !(op == PLAN_OP_FORK && in->leaves))
		return;
	munmap(in->stamps, in->op_count * sizeof(*in->stamps));
	in->stamps = NULL;
}

static void start(struct init *in, int argc, char **argv)
{
	int plan_fd, trace_fd = -1;

	if ((argc != 3 && argc != 4) || (in->sync_fd = parse_fd(argv[1])) < 0 || (plan_fd = parse_fd(argv[2])) < 0)
		_exit(INIT_EXIT_USAGE);
	if (argc == 4 && (trace_fd = parse_fd(argv[3])) < 0)
		_exit(INIT_EXIT_USAGE);
	in->report_fd = in->sync_fd;
	in->op_index = in->op_path = PLAN_NO_PATH;
	in->root_fd = in->procfs_fd = in->wait_fd = in->null_fd = in->mask_fd = in->pidns_fd = -1;
	in->close_from = 3;
	reset_signals();
	/* by which start distinguishes it from the program */
	prctl(PR_SET_NAME, INIT_NAME, 0ul, 0ul, 0ul);
	/* engines let the runtime die with them; the container must not inherit that */
	prctl(PR_SET_PDEATHSIG, 0ul, 0ul, 0ul, 0ul);
	if (syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		fail(in, STEP_CLOSE_RANGE, errno, "");
	/* modes are given exactly; UMASK, or the end, sets the program's */
	in->old_umask = umask(0);
	plan_load(in, plan_fd);
	if (trace_fd >= 0)
		map_stamps(in, trace_fd);
	open_gaps(in);
	plan_close_others(in);
	/* before anything is joined or mounted: later /proc may be another one */
	proc_open_host(in);
}

int main(int argc, char **argv)
{
	struct init in = {0};
	struct cursor fields;
	const uint8_t *at;
	uint32_t op;

	start(&in, argc, argv);
	at = in.plan + sizeof(struct plan_header);
	while (plan_next(&in, &at, &op, &fields)) {
		if (in.skip_next)
			in.skip_next = false;
		else {
			if (in.words)
				in.words->op = in.op_index;
			if (in.stamps)
				stamp(&in, op);
			ops[op](&in, &fields);
		}
	}
	fail(&in, STEP_PLAN, 0, "the plan has no end");
}
