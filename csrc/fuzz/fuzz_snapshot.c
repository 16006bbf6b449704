/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot of Python whose owner and mode are right, and whose content is any: cut, exchanged or half written. The
 * head's magic, boot, owner and size are put right unless the first byte says not to.
 */
#include <stddef.h>
#include <string.h>

#include "command/snapshot.h"
#include "kernel.h"
#include "shared/snapshot_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char boot[] = "01234567-89ab-cdef-0123-456789abcdef";
static struct snapshot_head head;
static bool making;

static int enter(void *argument)
{
	static char *nothing[1];
	struct snapshot_arrival arrival = {.argv = nothing, .told = nothing};

	(void)argument;
	if (making)
		return snapshot_make("/run/pyrunc/@python", "/usr/bin/python3", "/boot.py");
	return (int)snapshot_enter("/run/pyrunc/@python", &arrival);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes input = {data, data + size}, taken;
	uint8_t how = bytes_u8(&input);
	size_t file_size;

	memset(&head, 0, sizeof(head));
	taken = bytes_take(&input, bytes_u8(&input) * 64ul);
	memcpy(&head.segment_count, taken.at, (size_t)(taken.end - taken.at));
	/* somewhere in the middle there is something, too */
	taken = bytes_take(&input, bytes_u8(&input));
	memcpy((uint8_t *)head.files + (size_t)bytes_u8(&input) * 40, taken.at, (size_t)(taken.end - taken.at));
	file_size = how & 1 ? sizeof(head) : bytes_u8(&input) * 128ul;
	if ((how & 2) == 0) {
		strcpy(head.magic, SNAPSHOT_MAGIC);
		memcpy(head.boot_id, boot, BOOT_ID_SIZE);
		head.uid = 0;
		head.size = file_size;
	}
	if (file_size > sizeof(head))
		file_size = sizeof(head);
	making = (how & 4) != 0;
	kernel_begin(input);
	kernel_rules((struct kernel_rules){.program_fds = 4, .nothing_left = true});
	kernel_name("@python", (struct bytes){(const uint8_t *)&head, (const uint8_t *)&head + file_size});
	kernel_name("boot_id", (struct bytes){(const uint8_t *)boot, (const uint8_t *)boot + sizeof(boot) - 1});
	(void)kernel_run(enter, NULL);
	return 0;
}
