/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The caller's environment is data. In Python and in the libraries it loads, variables would be orders: LD_PRELOAD,
 * GCONV_PATH with a LC_ALL, LOCPATH, OPENSSL_CONF and others name files to load. So Python starts with a clean
 * environment, and is handed the caller's beside it (startup/entry.py makes os.environ of it).
 */
#ifndef PYRUNC_ENVIRONMENT_H
#define PYRUNC_ENVIRONMENT_H

/* No library looks for a name that begins with it. startup/entry.py removes it. */
#define ENVIRONMENT_MARK '-'

/* What C acts on: of the caller's, TZ if it is plain (libc), PYRUNC_STRICT (container/container.h). Ends with NULL; lives as long as the process. */
char **environment_clean(void);

/* The clean one, and every variable of the caller's with the mark before its name. NULL: no memory. */
char **environment_to_pass(void);

/* Before this process itself asks for the local time; afterwards its environment is not the caller's any more. */
void environment_settle(void);

#endif
