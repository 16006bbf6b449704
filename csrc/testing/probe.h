/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the test payload share: probe_facts.c says what it sees, probe_acts.c tries and does things. */
#ifndef PYRUNC_PROBE_H
#define PYRUNC_PROBE_H

#define UNUSED __attribute__((unused))

struct command {
	const char *name;
	int min_args;
	int (*run)(int argc, char **argv); /* argv without the command's name; 0 or -errno */
	const char *help;
};

/* Each ends with a NULL name. */
extern const struct command probe_facts[], probe_acts[];

/* A line on standard output, flushed: tests wait for single lines through a pipe. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The number in text, any base; ends the program when it is none. */
long number(const char *text);

#endif
