# SPDX-License-Identifier: GPL-2.0
# Write a new "series" below the headings of the old one.
#   awk -f series-headings.awk OLD NEW series
# OLD and NEW list "path<tab>subject" in order. The lines above an entry of
# "series" (comments, empty lines) are its heading, which stays above the first
# commit of its group; that of a part ("# Part NAME: ...") stays above the first commit
# that is left of the part. What is behind a path stays with the commit. The first
# paragraph of the file is about the file.

BEGIN { FS = "\t" }

FILENAME == ARGV[1] { old[++olds] = $2; at[$2] = olds; next }
FILENAME == ARGV[2] { path[++news] = $1; subject[news] = $2; next }

# The old series: the text above each entry, and below the last one.
/^[[:space:]]*$/ && !entry && about == "" { about = text "\n"; text = ""; next }
/^[[:space:]]*(#|$)/ { text = text $0 "\n"; next }
{
	heading[++entry] = text
	text = ""
	if (match($0, /[[:space:]]*#.*/))
		mark[entry] = substr($0, RSTART)
}

# group of an old entry: the entry that bears its heading
function group(e) {
	while (e > 1 && heading[e] == "")
		e--
	return e
}

function complain(what) {
	if (what ~ /#/)
		printf "series: no commit is left below this heading, dropped:\n%s", what >"/dev/stderr"
}

# split_part E: "part" is what heading E says of a part, "rest" what follows.
function split_part(e,  end) {
	part = ""
	rest = heading[e]
	if (match(rest, /(^|\n)# Part /)) {
		end = index(substr(rest, RSTART + 1), "\n\n")
		part = end ? substr(rest, 1, RSTART + end) : rest
		rest = substr(rest, length(part) + 1)
	}
}

# dropped E: its group has no commit. If it began a part, the next one may do so.
function dropped(e) {
	split_part(e)
	if (part != "") {
		complain(waiting)
		waiting = part
	}
	complain(rest)
}

function show(e) {
	split_part(e)
	if (part != "")
		complain(waiting)
	else
		printf "%s", waiting
	waiting = ""
	printf "%s", heading[e]
}

END {
	# Which old entry is this commit? By subject first ...
	for (n = 1; n <= news; n++)
		is[n] = (subject[n] in at) ? at[subject[n]] : 0
	# ... then by place: after the one before, if that entry is free.
	for (n = 1; n <= news; n++)
		if (is[n]) {
			taken[is[n]] = 1
			its[n] = mark[is[n]]
		}
	for (n = 1; n <= news; n++)
		if (!is[n]) {
			next_old = (n > 1 ? is[n - 1] : 0) + 1
			if (next_old <= olds && !taken[next_old]) {
				is[n] = next_old
				taken[next_old] = 1
				its[n] = mark[next_old]
			} else {
				is[n] = n > 1 ? is[n - 1] : 0
			}
		}
	# A heading is printed once, at the first commit of its group.
	printf "%s", about
	if (!entry) {	# headings alone: commits go below them
		printf "%s", text
		text = ""
	}
	last = 0
	for (n = 1; n <= news; n++) {
		g = is[n] ? group(is[n]) : (olds ? 1 : 0)
		if (g > last) {
			for (e = last + 1; e < g; e++)
				dropped(e)
			show(g)
			last = g
		}
		print path[n] its[n]
	}
	for (e = last + 1; e <= olds; e++)
		dropped(e)
	complain(waiting)
	printf "%s", text
}
