/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The words of the lines that process 1 of a host or guest (lab/image/init.c) writes to
 * the console, and of those that pass them on. lab/judge/console.c reads them all.
 */
#ifndef HOST_WORDS_H
#define HOST_WORDS_H

#define WORDS_SAID	"lab: "		/* a report of process 1: one of those below */
#define WORDS_OUTPUT	"lab| "		/* a line that a program wrote */

#define WORDS_FACT	"fact "		/* KEY=VALUE: what the host is */
#define WORDS_PLAN	"plan "		/* N: programs to come */
#define WORDS_BEGIN	"begin "	/* NAME */
#define WORDS_END	"end "		/* NAME, and one of the three below with a number */
#define WORDS_ALIVE	"alive"		/* nothing else was said for a while */
#define WORDS_ERROR	"error "	/* TEXT: the image is at fault, not the program */
#define WORDS_DONE	"done"		/* all of the plan ran */

#define WORDS_STATUS	"status="
#define WORDS_SIGNAL	"signal="
#define WORDS_TIMEOUT	"timeout="	/* seconds */

/* Before a line of a guest's console, by topdown-vm; of the bare host, by topdown-check. */
#define WORDS_GUEST	"guest%u| "
#define WORDS_HOST	"host| "

/* By topdown-mark: the base of its marks. By all programs here: what the host lacks. */
#define WORDS_MARK	"topdown-mark: mark="
#define WORDS_MISSING	"missing: "

#endif
