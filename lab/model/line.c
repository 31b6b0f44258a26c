// SPDX-License-Identifier: GPL-2.0
/*
 * A line of the truth file in the making.
 */
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"

void line_add(struct line *line, const char *format, ...)
{
	size_t room = sizeof(line->text) - line->length;
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line->text + line->length, room, format, args);
	va_end(args);
	if (n < 0)
		return;
	line->length += (size_t)n < room ? (size_t)n : room - 1;
}
