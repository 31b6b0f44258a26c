/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Lines of a console log.  The emulated host writes everything by printk, so
 * a line is "[  SECONDS] TEXT"; lab/image/init.c says what TEXT can be.
 */
#ifndef LAB_RUN_LOG_H
#define LAB_RUN_LOG_H

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#define LOG_SAID	"lab: "		/* init's report */
#define LOG_OUTPUT	"lab| "		/* a line that a program wrote */

/* TEXT of @line: what follows the time stamp, the line itself without one. */
static inline const char *log_text(const char *line)
{
	const char *at = line;

	if (*at++ != '[')
		return line;
	while (*at == ' ')
		at++;
	if (!isdigit((unsigned char)*at))
		return line;
	while (isdigit((unsigned char)*at) || *at == '.')
		at++;
	if (at[0] != ']' || at[1] != ' ')
		return line;
	return at + 2;
}

/* What follows @prefix in @text, NULL if @text does not start with it. */
static inline const char *log_after(const char *text, const char *prefix)
{
	size_t length = strlen(prefix);

	return strncmp(text, prefix, length) ? NULL : text + length;
}

#endif
