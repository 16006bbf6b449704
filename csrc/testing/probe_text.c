/* SPDX-License-Identifier: Apache-2.0 */
#include "probe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void say(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

long number(const char *text)
{
	char *end;
	errno = 0;
	long value = strtol(text, &end, 0);
	if (errno != 0 || *end != '\0' || end == text) {
		fprintf(stderr, "probe: not a number: '%s'\n", text);
		exit(2);
	}
	return value;
}
