/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs that C answers, on any state file. The first byte says which verb, which of
 * the two files there is, and whether its process lives; two bytes of size, the file, the kernel's answers.
 */
#include "kernel.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "container/impl.h"

#define STATE_BYTES 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t verb;

static void check_line(const struct container_view *view, const char *line)
{
	size_t size = strlen(line);
	/* the line feed at the very end is left out */
	size_t left = view->document_size >= size - 1 ? view->document_size - (size - 1) : 0;

	if (memmem(view->document, view->document_size, line, size))
		return;
	if (view->document_size < size - 1 || memcmp(view->document + left, line, size - 1) != 0)
		kernel_finding("the document lacks", line);
}

/* What the reader gives out: text that ends, and a document with the two lines that it was to have. */
static void check_view(const struct container_view *view)
{
	char line[64];

	if (view->header)
		kernel_look_text(view->header);
	kernel_look(view->document, view->document_size);
	snprintf(line, sizeof(line), "\n  \"pid\": %d,\n", view->pid);
	check_line(view, line);
	snprintf(line, sizeof(line), "\n  \"status\": \"%s\",\n", container_status_name(view->status));
	check_line(view, line);
}

static int act(void *argument)
{
	struct container_view view;
	struct container_error error;
	const char *root = "/run/pyrunc", *id = "one";
	int result;

	(void)argument;
	switch (verb & 7) {
	case 0:
	case 1:
		result = container_state(root, id, &view, &error);
		if (result == CONTAINER_OK)
			check_view(&view);
		container_view_free(&view);
		break;
	case 2:
		result = container_kill(root, id, SIGTERM, 0, &error);
		break;
	case 3:
		result = container_kill(root, id, SIGKILL, CONTAINER_ALL | CONTAINER_NEEDS_HANDLED, &error);
		break;
	case 4:
		result = container_start(root, id, CONTAINER_NEEDS_HANDLED, &error);
		break;
	case 5:
		result = container_delete(root, id, 0, &error);
		break;
	default:
		result = container_delete(root, id, CONTAINER_FORCE | CONTAINER_NEEDS_HANDLED, &error);
		break;
	}
	if (result != CONTAINER_OK) {
		kernel_look_text(error.text);
		kernel_look_text(error.hint);
		kernel_look_text(error.arg);
		kernel_look_text(error.call);
	}
	return result;
}

/* The first two lines, with the sum that the others have: what is behind it would hardly ever be read otherwise. */
static struct bytes with_sum(struct bytes file)
{
	static uint8_t whole[STATE_BYTES + 64];
	const char *text = (const char *)file.at, *end;
	size_t size = (size_t)(file.end - file.at), summed = size;
	int front;

	if (size > 0 && text[0] == '\n')
		summed = 0;
	else if ((end = memmem(text, size, "\n\n", 2)) != NULL)
		summed = (size_t)(end - text) + 1;
	front = snprintf((char *)whole, 64, "version 1\nsum %016" PRIx64 "\n", container_sum(text, summed));
	memcpy(whole + front, file.at, size);
	return (struct bytes){whole, whole + front + size};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t nothing[1];
	/* of the process that the inputs speak of: without it every container is stopped */
	static const char stat[] = "4242 (a) b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 123456 0 0";
	struct bytes input = {data, data + size}, file;
	size_t wanted;

	verb = bytes_u8(&input);
	wanted = bytes_u8(&input);
	wanted |= (size_t)bytes_u8(&input) << 8;
	file = bytes_take(&input, wanted);
	if (file.at == file.end)
		file = (struct bytes){nothing, nothing};
	if (verb & 32)
		file = with_sum(file);
	kernel_begin(input);
	kernel_rules(
		(struct kernel_rules){.one_by_one = true, .never_up = true, .nothing_left = true, .cgroups = true});
	kernel_name(verb & 8 ? "state.creating" : "state", file);
	if ((verb & 16) == 0)
		kernel_name("stat", (struct bytes){(const uint8_t *)stat, (const uint8_t *)stat + sizeof(stat) - 1});
	if (kernel_run(act, NULL) != ENDING_RETURN)
		kernel_finding("a function of the library", "ended the process");
	return 0;
}
