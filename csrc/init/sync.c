/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sync protocol's container side. Fixed messages go out, one number comes back for those that wait. There is no
 * deadline here, since the parent may be running hooks for as long as it likes; but without a parent there is nothing to
 * wait for.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shared/mounts.h"

static void set_text(struct sync_message *message, const char *text)
{
	size_t size = strlen(text);

	if (size >= sizeof(message->text))
		size = sizeof(message->text) - 1;
	memset(message->text, 0, sizeof(message->text));
	memcpy(message->text, text, size);
}

/* `text` may be in->why.text itself */
int note(struct init *in, enum plan_step step, const char *text)
{
	struct sync_message *why = &in->why;
	int error = errno;

	why->code = SYNC_ERROR;
	why->op = in->op_index;
	why->path = in->op_path;
	why->step = step;
	why->error = error;
	why->flags = in->why_flags;
	why->value = 0;
	if (text != why->text)
		set_text(why, text);
	errno = error;
	return -1;
}

/* Like note(), with the kernel's own message if the file system context has one. */
int note_fs(struct init *in, enum plan_step step, int fs_fd, const char *text)
{
	char line[sizeof(in->why.text)];

	note(in, step, text);
	if (mounts_kernel_error(fs_fd, line, sizeof(line))) {
		set_text(&in->why, line);
		in->why.flags |= SYNC_FLAG_KERNEL_TEXT;
	}
	return -1;
}

/*
 * Whether to make a call again. No signal has a handler in here: what says EINTR again and again is a filter, which is
 * asked no more then.
 */
bool interrupted(unsigned int *times)
{
	return errno == EINTR && ++*times < INTERRUPTED_MAX;
}

static int write_message(const struct init *in, const struct sync_message *message)
{
	unsigned int times = 0;
	ssize_t n;

	do {
		n = write(in->report_fd, message, sizeof(*message));
	} while (n < 0 && interrupted(&times));
	return n == (ssize_t)sizeof(*message) ? 0 : -1;
}

ssize_t send_with_fd(int socket_fd, const void *message, size_t size, int fd)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)message, .iov_len = size};
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr header = {.msg_iov = &iov,
				.msg_iovlen = 1,
				.msg_control = control.bytes,
				.msg_controllen = sizeof(control.bytes)};

	memset(&control, 0, sizeof(control));
	CMSG_FIRSTHDR(&header)->cmsg_level = SOL_SOCKET;
	CMSG_FIRSTHDR(&header)->cmsg_type = SCM_RIGHTS;
	CMSG_FIRSTHDR(&header)->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&header)), &fd, sizeof(int));
	return sendmsg(socket_fd, &header, MSG_NOSIGNAL);
}

static int send_message(struct init *in, const struct sync_message *message, int fd)
{
	unsigned int times = 0;
	ssize_t n;

	/* a filter that is loaded by now may not let us call anything that programs need less than write(2) */
	if (fd < 0)
		return write_message(in, message);
	do {
		n = send_with_fd(in->report_fd, message, sizeof(*message), fd);
	} while (n < 0 && interrupted(&times));
	return n == (ssize_t)sizeof(*message) ? 0 : -1;
}

/* Where a filter that is loaded by now cannot reach. */
void keep_words(struct init *in)
{
	if (in->words == NULL)
		return;
	in->words->message = in->why;
	keep_place(in, WORDS_MESSAGE);
}

void keep_place(struct init *in, enum words_said said)
{
	if (in->words != NULL)
		__atomic_store_n(&in->words->said, (uint32_t)said, __ATOMIC_RELEASE);
}

/* A filter may refuse every call that ends a process: it must still end, and not try forever. */
_Noreturn void leave(int status)
{
	syscall(SYS_exit_group, status);
	syscall(SYS_exit, status);
	for (;;)
		__builtin_trap();
}

/* Called before a failure is reported: the receiver may end us. */
static void undo_added(struct init *in)
{
	if (in->undo != NULL)
		in->undo(in);
}

_Noreturn void fail_noted(struct init *in)
{
	undo_added(in);
	keep_words(in);
	in->why.op -= in->start_op;
	send_message(in, &in->why, -1);
	leave(INIT_EXIT_FAILED);
}

_Noreturn void fail(struct init *in, enum plan_step step, int error, const char *text)
{
	errno = error;
	note(in, step, text);
	fail_noted(in);
}

void warn(struct init *in, enum plan_step step, int error, int64_t value, const char *text)
{
	if (in->report_is_fifo)
		return; /* any byte in it means that start failed */
	errno = error;
	note(in, step, text);
	in->why.code = SYNC_WARNING;
	in->why.value = value;
	send_message(in, &in->why, -1);
}

void sync_send(struct init *in, enum sync_code code, int64_t value, int fd)
{
	struct sync_message message = {.code = code, .op = in->op_index, .path = in->op_path, .value = value};

	if (in->report_is_fifo)
		fail(in, STEP_PLAN, 0, "a message to the parent after the start");
	if (send_message(in, &message, fd) < 0) {
		/* there is no reader any more, or a filter forbids it */
		note(in, STEP_WRITE, "the runtime's socket");
		undo_added(in);
		keep_words(in);
		leave(INIT_EXIT_FAILED);
	}
}

void sync_wait(struct init *in)
{
	unsigned int times = 0;
	uint32_t answer = 0;
	ssize_t n;

	do {
		n = read(in->sync_fd, &answer, sizeof(answer));
	} while (n < 0 && interrupted(&times));
	if (n == 0) {
		undo_added(in);
		leave(INIT_EXIT_FAILED);
	}
	if (n < 0)
		fail(in, STEP_RECVMSG, errno, "");
	if (n != sizeof(answer) || answer != SYNC_GO)
		fail(in, STEP_RECVMSG, EPROTO, "");
}

const char *number_text(char buffer[24], uint64_t value)
{
	char *at = buffer + 23;

	*at = '\0';
	do {
		*--at = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	return at;
}
