/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program inside test containers: it says what it sees. Static, no NSS, no locale, works without /proc.
 *
 *     probe COMMAND [ARG...] [-- COMMAND [ARG...]]...
 *
 * Every command prints lines of "key value"; the first that fails prints "error NAME: text" and ends with status 1.
 * tests/support/support.py reads the output.
 */
#include "probe.h"

#include <stdio.h>
#include <string.h>

static const struct command *find_command(const char *name)
{
	for (const struct command *command = probe_facts; command->name != NULL; command++)
		if (strcmp(command->name, name) == 0)
			return command;
	for (const struct command *command = probe_acts; command->name != NULL; command++)
		if (strcmp(command->name, name) == 0)
			return command;
	return NULL;
}

static int usage(void)
{
	fputs("usage: probe COMMAND [ARG...] [-- COMMAND [ARG...]]...\n", stderr);
	for (const struct command *command = probe_facts; command->name != NULL; command++)
		fprintf(stderr, "  %-12s %s\n", command->name, command->help);
	for (const struct command *command = probe_acts; command->name != NULL; command++)
		fprintf(stderr, "  %-12s %s\n", command->name, command->help);
	return 2;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return usage();
	for (int at = 1; at < argc;) {
		int end = at;
		while (end < argc && strcmp(argv[end], "--") != 0)
			end++;
		const struct command *command = at < end ? find_command(argv[at]) : NULL;
		if (command == NULL || end - at - 1 < command->min_args)
			return usage();
		argv[end] = NULL;
		int error = command->run(end - at - 1, argv + at + 1);
		if (error < 0) {
			say("error %s: %s", command->name, strerror(-error));
			return 1;
		}
		at = end + 1;
	}
	return 0;
}
