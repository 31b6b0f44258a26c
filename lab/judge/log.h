/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Names that lab/run/report.c has for the words of console.h and for what reads them.
 */
#ifndef LAB_JUDGE_LOG_H
#define LAB_JUDGE_LOG_H

#include <ctype.h>
#include <string.h>

#include "console.h"

#define LOG_SAID	WORDS_SAID
#define LOG_OUTPUT	WORDS_OUTPUT

#define log_after	console_after
#define log_text(line)	(console_line(line).text)

#endif
