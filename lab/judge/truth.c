// SPDX-License-Identifier: GPL-2.0
/*
 * The reader of the ground truth, see truth.h.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdlib.h>
#include <string.h>

#include "truth.h"

static const char *const types[NR_TRUTH_TYPES] = {
	[TRUTH_MACHINE] = "machine",
	[TRUTH_MARK] = "mark",
	[TRUTH_SNAPSHOT] = "snapshot",
	[TRUTH_ACCESSES] = "accesses",
	[TRUTH_TOTAL] = "total",
	[TRUTH_SECTION] = "section",
	[TRUTH_LEAK] = "leak",
	[TRUTH_LOST] = "lost",
	[TRUTH_PMI] = "pmi",
	[TRUTH_AUDIT] = "audit",
};

/**
 * truth_try() - open a ground truth of which nothing is known
 * @truth: to be read by truth_next(), and closed by truth_close()
 * @dir: the run's directory
 *
 * Lines that are not JSON are read as TRUTH_GARBLED.
 *
 * Return: false if there is none
 */
bool truth_try(struct truth *truth, const char *dir)
{
	memset(truth, 0, sizeof(*truth));
	truth->trying = true;
	snprintf(truth->path, sizeof(truth->path), "%s/truth.jsonl", dir);
	truth->file = fopen(truth->path, "r");
	return truth->file;
}

/**
 * truth_open() - open a ground truth, or end this program
 * @truth: to be read by truth_next(), and closed by truth_close()
 * @dir: the run's directory
 *
 * A line that is not JSON ends this program, too.
 */
void truth_open(struct truth *truth, const char *dir)
{
	if (!truth_try(truth, dir))
		err(2, "cannot read %s", truth->path);
	truth->trying = false;
}

/* A mark can have any number, also one that is none for jansson: it is nobody's here. */
static json_t *parse(const char *text, size_t length)
{
	json_error_t error;
	json_t *line = json_loadb(text, length, 0, &error);

	if (!line && json_error_code(&error) == json_error_numeric_overflow)
		line = json_loadb(text, length, JSON_DECODE_INT_AS_REAL, NULL);
	if (json_is_object(line))
		return line;
	json_decref(line);
	return NULL;
}

/**
 * truth_next() - read a line
 * @truth: of which to read
 *
 * Return: false at the end
 */
bool truth_next(struct truth *truth)
{
	ssize_t length;

	json_decref(truth->line);
	truth->line = NULL;
	if (!truth->file)
		return false;
	length = getline(&truth->text, &truth->size, truth->file);
	if (length <= 0)
		return false;
	truth->number++;
	truth->cut = truth->text[length - 1] != '\n';
	if (!truth->cut)
		truth->text[--length] = '\0';
	truth->line = parse(truth->text, length);
	if (!truth->line && truth->cut)
		return false;
	if (!truth->line && !truth->trying)
		errx(2, "%s:%lu: not an object of JSON", truth->path, truth->number);
	truth->type = TRUTH_GARBLED;
	if (truth->line && !truth_type_of(truth_string(truth, "type"), &truth->type))
		truth->type = TRUTH_OTHER;
	truth->id = truth_number(truth, "id");
	truth->owner = truth_string(truth, "owner");
	return true;
}

/**
 * truth_close() - end reading
 * @truth: to be closed
 */
void truth_close(struct truth *truth)
{
	json_decref(truth->line);
	free(truth->text);
	if (truth->file)
		fclose(truth->file);
	memset(truth, 0, sizeof(*truth));
}

/* The value of a member, or with "." between their names of a member of a member. */
static json_t *member(const json_t *object, const char *path)
{
	const char *dot;
	char name[64];

	while ((dot = strchr(path, '.'))) {
		snprintf(name, sizeof(name), "%.*s", (int)(dot - path), path);
		object = json_object_get(object, name);
		path = dot + 1;
	}
	return json_object_get(object, path);
}

/**
 * truth_find() - a number of the line
 * @truth: that was read
 * @path: its name, as "wrmsr.0x329" if it is a member of "wrmsr"
 * @number: the number
 *
 * Return: false if there is none
 */
bool truth_find(const struct truth *truth, const char *path, uint64_t *number)
{
	const json_t *value = member(truth->line, path);

	if (json_is_integer(value))
		*number = json_integer_value(value);
	return json_is_integer(value);
}

/**
 * truth_number() - a number of the line that may be left out
 * @truth: that was read
 * @path: as for truth_find()
 *
 * Return: the number, 0 if there is none
 */
uint64_t truth_number(const struct truth *truth, const char *path)
{
	uint64_t number = 0;

	truth_find(truth, path, &number);
	return number;
}

/**
 * truth_string() - a string of the line
 * @truth: that was read
 * @path: as for truth_find()
 *
 * Return: the string, "" if there is none
 */
const char *truth_string(const struct truth *truth, const char *path)
{
	return json_string_value(member(truth->line, path)) ?: "";
}

/**
 * truth_flag() - what is true or false in the line
 * @truth: that was read
 * @path: as for truth_find()
 *
 * Return: true if it is there, and true
 */
bool truth_flag(const struct truth *truth, const char *path)
{
	return json_is_true(member(truth->line, path));
}

/**
 * truth_for_each() - all numbers of a member
 * @truth: that was read
 * @path: of the member, as for truth_find()
 * @take: is called for each of its members
 * @of: what @take gets
 */
void truth_for_each(const struct truth *truth, const char *path,
		    void (*take)(void *of, const char *key, uint64_t number), void *of)
{
	const char *key;
	json_t *value;

	json_object_foreach(member(truth->line, path), key, value)
		take(of, key, json_integer_value(value));
}

/**
 * truth_type_of() - the type of lines with a name
 * @name: as in their member "type"
 * @type: the type
 *
 * Return: false if there is none of that name
 */
bool truth_type_of(const char *name, enum truth_type *type)
{
	unsigned int i;

	for (i = 0; i < NR_TRUTH_TYPES; i++) {
		if (!types[i] || strcmp(types[i], name))
			continue;
		*type = i;
		return true;
	}
	return false;
}

/* @pattern as an object, NULL if it is words. */
static json_t *members_of(const char *pattern)
{
	json_t *members;
	char *text;

	if (asprintf(&text, "{%s}", pattern) < 0)
		err(2, "out of memory");
	members = json_loads(text, 0, NULL);
	free(text);
	return members;
}

/**
 * truth_pattern() - can this match anything?
 * @pattern: for truth_matches()
 *
 * Return: false if it is meant as members, and is none
 */
bool truth_pattern(const char *pattern)
{
	json_t *members = members_of(pattern);
	bool good = members || !strpbrk(pattern, "\"{}[]");

	json_decref(members);
	return good;
}

static bool has_element(const json_t *array, const json_t *element)
{
	json_t *value;
	size_t i;

	json_array_foreach(array, i, value)
		if (json_equal(value, element))
			return true;
	return false;
}

static bool has_members(const json_t *line, json_t *members)
{
	json_t *due, *element;
	const char *key;
	size_t i;

	json_object_foreach(members, key, due) {
		const json_t *value = json_object_get(line, key);

		if (!json_is_array(due) && !json_equal(value, due))
			return false;
		json_array_foreach(due, i, element)
			if (!has_element(value, element))
				return false;
	}
	return true;
}

static bool has_words(json_t *value, const char *words)
{
	const char *key;
	json_t *inner;
	size_t i;

	if (json_is_string(value))
		return strstr(json_string_value(value), words);
	json_object_foreach(value, key, inner)
		if (has_words(inner, words))
			return true;
	json_array_foreach(value, i, inner)
		if (has_words(inner, words))
			return true;
	return false;
}

/**
 * truth_matches() - does a line say that?
 * @truth: that was read
 * @pattern: members as they stand in the line, for example "reg":"FIXED_CTR3", which it must
 *	have all, of an array all elements; or words, which a string in it must have
 *
 * Return: true if so
 */
bool truth_matches(const struct truth *truth, const char *pattern)
{
	json_t *members = members_of(pattern);
	bool matches;

	matches = members ? has_members(truth->line, members) : has_words(truth->line, pattern);
	json_decref(members);
	return matches;
}
