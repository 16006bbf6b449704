/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ops that send messages to the runtime and wait for its answers.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void op_sync(struct init *in, struct cursor *fields)
{
	uint32_t code = take_u32(fields);

	sync_send(in, (enum sync_code)code, getpid(), -1);
	if (code != SYNC_ERROR && code != SYNC_FORKED && code != SYNC_WARNING)
		sync_wait(in);
}

void op_last_words(struct init *in, struct cursor *fields)
{
	int fd = take_fd(fields);
	struct stat facts;
	void *memory;

	if (fd < 0 || fstat(fd, &facts) < 0 || (uint64_t)facts.st_size < sizeof(struct last_words))
		fail(in, STEP_PLAN, 0, "LAST_WORDS has no memory");
	memory = mmap(NULL, sizeof(struct last_words), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		fail(in, STEP_MEMORY, errno, "");
	close(fd);
	/* the process that FORK leaves, and hooks, are visible to others */
	if (madvise(memory, sizeof(struct last_words), MADV_DONTFORK) < 0)
		fail(in, STEP_MEMORY, errno, "");
	in->words = memory;
}

void op_start_wait(struct init *in, struct cursor *fields)
{
	char name[40] = "self/fd/", digits[24];
	int inherited = take_fd(fields), fifo;

	if (inherited < 0)
		fail(in, STEP_PLAN, 0, "START_WAIT has no fifo");
	proc_drop_hosts(in);
	strcat(name, number_text(digits, (uint64_t)inherited));
	/* while a failure can still be reported; a seccomp filter may forbid the call, which proves nothing */
	if (syscall(SYS_faccessat2, in->proc_fd, name, W_OK, AT_EACCESS) < 0 && (errno == EACCES || errno == ENOENT))
		fail(in, STEP_OPENAT, errno, "exec.fifo");
	/* our parent takes the end of the messages as "created"; from now on it may be gone */
	if (in->report_fd != in->sync_fd)
		close(in->report_fd);
	close(in->sync_fd);
	in->sync_fd = in->report_fd = -1;
	plan_drop_behind(in, fields->end);
	fifo = openat(in->proc_fd, name, O_WRONLY | O_CLOEXEC);
	/* a filter may answer with success: then it is the number of a standard stream */
	if (fifo <= STDERR_FILENO) {
		/* run still exists, and reads this */
		note(in, STEP_OPENAT, "exec.fifo");
		keep_words(in);
		leave(INIT_EXIT_FAILED);
	}
	in->report_fd = fifo;
	in->report_is_fifo = true;
	in->start_op = in->op_index + 1;
	close(inherited);
	proc_drop(in);
}
