/* SPDX-License-Identifier: Apache-2.0 */
/* Built with sanitizers by test_container_c.py: `container_driver state|start|kill|delete ROOT ID...`, results as lines. */
#include <stdio.h>
#include <string.h>

#include "container/container.h"

static int look(const char *root, const char *id, struct container_error *error)
{
	struct container_view view;
	int result = container_state(root, id, &view, error);

	/* Touch every byte that is handed out. */
	if (result == CONTAINER_OK && memchr(view.document, 0, view.document_size) && strlen(view.header) > 0)
		puts("NUL in the document");
	container_view_free(&view);
	return result;
}

int main(int argc, char **argv)
{
	for (int i = 3; i < argc; i++) {
		struct container_error error;
		int result = -1;
		if (strcmp(argv[1], "state") == 0)
			result = look(argv[2], argv[i], &error);
		else if (strcmp(argv[1], "start") == 0)
			result = container_start(argv[2], argv[i], 0, &error);
		else if (strcmp(argv[1], "kill") == 0)
			result = container_kill(argv[2], argv[i], 0, CONTAINER_ALL, &error);
		else if (strcmp(argv[1], "delete") == 0)
			result = container_delete(argv[2], argv[i], CONTAINER_FORCE, &error);
		printf("%s %d\n", argv[i], result);
	}
	return 0;
}
