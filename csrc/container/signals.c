/* SPDX-License-Identifier: Apache-2.0 */
/* Names of signals. The contract is in container.h. */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <strings.h>

#include "impl.h"

static const struct {
	const char *name;
	int number;
} signals[] = {
	{"HUP", SIGHUP},       {"INT", SIGINT},       {"QUIT", SIGQUIT}, {"ILL", SIGILL},     {"TRAP", SIGTRAP},
	{"ABRT", SIGABRT},     {"IOT", SIGABRT},      {"BUS", SIGBUS},   {"FPE", SIGFPE},     {"KILL", SIGKILL},
	{"USR1", SIGUSR1},     {"SEGV", SIGSEGV},     {"USR2", SIGUSR2}, {"PIPE", SIGPIPE},   {"ALRM", SIGALRM},
	{"TERM", SIGTERM},     {"CHLD", SIGCHLD},     {"CLD", SIGCHLD},  {"CONT", SIGCONT},   {"STOP", SIGSTOP},
	{"TSTP", SIGTSTP},     {"TTIN", SIGTTIN},     {"TTOU", SIGTTOU}, {"URG", SIGURG},     {"XCPU", SIGXCPU},
	{"XFSZ", SIGXFSZ},     {"VTALRM", SIGVTALRM}, {"PROF", SIGPROF}, {"WINCH", SIGWINCH}, {"IO", SIGIO},
	{"POLL", SIGIO},       {"PWR", SIGPWR},       {"SYS", SIGSYS},
#ifdef SIGSTKFLT
	{"STKFLT", SIGSTKFLT},
#endif
};

/* SIGRTMIN and SIGRTMAX as in the C libraries; glibc reserves the first two for itself (musl: three). */
enum { RT_MIN = 34, RT_MAX = 64 };

/* "" or digits behind the sign: 0..most, or -1. */
static int small_number(const char *text, int most)
{
	int value = 0;

	if (!*text || strlen(text) > 3)
		return -1;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -1;
		value = value * 10 + (*text - '0');
	}
	return value <= most ? value : -1;
}

int container_signal_number(const char *text)
{
	int number = small_number(text, RT_MAX);

	if (number >= 0)
		return number;
	if (strncasecmp(text, "SIG", 3) == 0)
		text += 3;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (strcasecmp(text, signals[i].name) == 0)
			return signals[i].number;
	bool low = strncasecmp(text, "RTMIN", 5) == 0;
	if (!low && strncasecmp(text, "RTMAX", 5) != 0)
		return -1;
	if (!text[5])
		return low ? RT_MIN : RT_MAX;
	if (text[5] != (low ? '+' : '-'))
		return -1;
	number = small_number(text + 6, RT_MAX - RT_MIN);
	if (number < 0 || strlen(text + 6) > 2)
		return -1;
	return low ? RT_MIN + number : RT_MAX - number;
}
