/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "environment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ZONE_MAX 256
#define CLEAN_MAX 2

static bool starts_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

/* Names of the zone database and POSIX rules such as CET-1CEST,M3.5.0,M10.5.0/3; no file elsewhere. tzset(3) */
static bool is_plain_zone(const char *zone)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-_/:.,<>";

	if (strlen(zone) > ZONE_MAX || zone[strspn(zone, allowed)] || strstr(zone, ".."))
		return false;
	zone += zone[0] == ':';
	return zone[0] != '/' || starts_with(zone, "/usr/share/zoneinfo/") || strcmp(zone, "/etc/localtime") == 0;
}

static char *find(const char *start)
{
	for (char **entry = environ; entry && *entry; entry++)
		if (starts_with(*entry, start))
			return *entry;
	return NULL;
}

static char *find_zone(void)
{
	char *entry = find("TZ=");

	return entry && is_plain_zone(entry + 3) ? entry : NULL;
}

char **environment_clean(void)
{
	static char *clean[CLEAN_MAX + 1];
	char *found[CLEAN_MAX] = {find_zone(), find("PYRUNC_STRICT=")};
	int count = 0;

	for (int i = 0; i < CLEAN_MAX; i++)
		if (found[i])
			clean[count++] = found[i];
	clean[count] = NULL;
	return clean;
}

char **environment_to_pass(void)
{
	size_t count = 0, size = 0;

	for (char **entry = environ; entry && *entry; entry++, count++)
		size += strlen(*entry) + 2;
	char **pass = calloc(count + CLEAN_MAX + 1, sizeof(char *)), *text = malloc(size + 1);
	if (!pass || !text)
		return NULL;
	char **to = pass;
	for (char **entry = environment_clean(); *entry; entry++)
		*to++ = *entry;
	for (char **entry = environ; entry && *entry; entry++) {
		*to++ = text;
		*text++ = ENVIRONMENT_MARK;
		text = stpcpy(text, *entry) + 1;
	}
	return pass;
}

void environment_settle(void)
{
	if (!find_zone())
		unsetenv("TZ");
	unsetenv("TZDIR");
}
