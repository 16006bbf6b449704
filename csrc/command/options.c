/* SPDX-License-Identifier: Apache-2.0 */
/* The options before the verb, as far as C needs them; pyrunc/cli/options.py is the original. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "container/trust.h"

/* An absolute path that os.path.abspath would leave as it is, and not "/". */
static bool is_clean(const char *path)
{
	if (path[0] != '/' || !path[1])
		return false;
	for (const char *at = path; *at; at++) {
		if (*at != '/')
			continue;
		if (at[1] == '/' || at[1] == '\0')
			return false;
		size_t length = strcspn(at + 1, "/");
		if (at[1] == '.' && (length == 1 || (length == 2 && at[2] == '.')))
			return false;
	}
	return true;
}

/* A log that is not a plain path: left to log.py. */
static bool is_service(const char *log)
{
	return strncmp(log, "file:", 5) == 0 || strncmp(log, "journald:", 9) == 0 || strncmp(log, "syslog:", 7) == 0;
}

/* Store the value of a global option. false: leave it to Python. */
static bool take(struct call *call, const char *name, const char *value)
{
	static const char *const bools[] = {"auto", "true", "false", "1", "0", NULL};

	if (strcmp(name, "trace") == 0)
		call->began = now_ns(); /* and Python answers, which has phases to measure */
	if (strcmp(name, "log") == 0 && is_service(value))
		return false;
	if (strcmp(name, "root") == 0)
		call->root = value;
	else if (strcmp(name, "log") == 0)
		call->log = value;
	else if (strcmp(name, "log-format") == 0 && (strcmp(value, "json") == 0 || strcmp(value, "text") == 0))
		call->json = value[0] == 'j';
	else
		return strcmp(name, "rootless") == 0 && is_one_of(value, bools);
	return true;
}

/* The options before the verb. Go's rules: one dash or two, `--x v` or `--x=v`. false: not even the verb is known. */
bool parse_globals(struct call *call)
{
	static const char *const switches[] = {"systemd-cgroup", "debug", NULL};
	static const char *const values[] = {"root",           "log",   "log-format", "log-level", "rootless",
					     "cgroup-manager", "trace", NULL};
	char name[32];

	for (int i = 1; i < call->argc; i++) {
		const char *word = call->argv[i];
		if (word[0] != '-') {
			call->verb = i;
			return true;
		}
		word += word[1] == '-' ? 2 : 1;
		size_t length = strcspn(word, "=");
		if (length == 0 || length >= sizeof(name))
			return false;
		memcpy(name, word, length);
		name[length] = '\0';
		if (is_one_of(name, switches)) {
			/* The driver of a container is in its state; --debug logs more than C does. */
			call->python |= word[length] == '=' || strcmp(name, "debug") == 0;
			continue;
		}
		if (!is_one_of(name, values))
			return false;
		const char *value = word[length] ? word + length + 1 : ++i < call->argc ? call->argv[i] : NULL;
		if (!value)
			return false;
		call->python |= !take(call, name, value);
	}
	return false;
}

/* As cli/options.py, default_root(). false: leave it to Python. */
bool default_root(char root[PATH_MAX])
{
	const char *directory = getenv("XDG_RUNTIME_DIR"), *user = getenv("USER");

	if (directory && *directory &&
	    (geteuid() != 0 || ((!user || strcmp(user, "root") != 0) && trust_in_user_namespace())))
		return join(root, directory, "/pyrunc", "");
	return join(root, "/run/pyrunc", "", "");
}

bool find_root(struct call *call)
{
	static char root[PATH_MAX];

	if (!call->root) {
		if (!default_root(root))
			return false;
		call->root = root;
	}
	return is_clean(call->root);
}
