# SPDX-License-Identifier: GPL-2.0
"""Reads runs, for make-page beside this file, which says what files a run has."""
import json
import os
import re

WHOLE = 10000           # hundredths of a percent
MAX_EXCERPT = 80        # lines
# The parts: four of level 1, then those of level 2 that are contained in them.
KEYS = ("retiring", "bad_spec", "fe_bound", "be_bound",
        "heavy_ops", "br_mispredict", "fetch_latency", "mem_bound")
LEVEL1, LEVEL2 = slice(0, 4), slice(4, 8)


def read_words():
    """What process 1 and those who pass lines on write to a console, by name."""
    path = os.path.join(os.path.dirname(__file__), "../../host/words.h")
    with open(path, encoding="ascii") as file:
        return dict(re.findall(r'^#define WORDS_(\w+)\s+"(.*)"', file.read(), re.MULTILINE))


WORDS = read_words()
SAID, OUTPUT = WORDS["SAID"], WORDS["OUTPUT"]
PLAN, FACT, BEGIN, END = (SAID + WORDS[name] for name in ("PLAN", "FACT", "BEGIN", "END"))
GUEST = re.compile(re.escape(WORDS["GUEST"].rstrip()).replace("%u", "([0-9]+)") + r"\s*", re.ASCII)


class Problem(Exception):
    """What is wrong, in one line."""


def read_lines(path):
    """Yields each line as where it is, its text, and whether its end is there.

    What is no UTF-8 becomes lone surrogates, which escape() knows.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                text = re.split(b"[\r\n]", line, maxsplit=1)[0]
                # No text has NUL, and no path can.
                yield (f"{path}:{number}",
                       text.replace(b"\0", b"\1").decode("utf-8", "surrogateescape"),
                       line.endswith(b"\n"))
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None


def read_text(path):
    return "".join(line + "\n" for _, line, _ in read_lines(path))


def no_duplicates(pairs):
    if len(dict(pairs)) != len(pairs):
        raise ValueError("duplicate object key")
    return dict(pairs)


def no_constant(name):
    raise ValueError(f"{name} is no number")


def parse(line, where):
    """The JSON object that LINE is."""
    try:
        line.encode()           # fails if it was no UTF-8
        value = json.loads(line, object_pairs_hook=no_duplicates, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise Problem(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Problem(f"{where}: not an object")
    return value


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class Row:
    """A measurement: a line of topdown.jsonl."""

    def __init__(self, fact, where, number):
        self.fact = fact
        self.where = where
        self.number = number                    # in its run, from 1
        self.who = self.get("who", int)         # 0 is the host
        self.shape = self.get("shape", str)
        self.workload = self.get("workload", str)
        self.good = self.get("good", bool)
        self.why = self.get("why", str)
        self.slots = self.get("slots", int, None)
        self.true_slots = self.get("true_slots", int, None)
        self.samples = self.get("samples", int, None)
        self.exits = self.get("exits", int, 0)
        self.writes = self.get("writes", int, 0)
        self.judged = self.get("judged", bool, True)    # its fractions, too
        if (self.slots is None) != (self.true_slots is None):
            self.fail("needs slots and true_slots, or none of them")
        self.scaled = self.shape == "multiplex"         # by perf, so not the true slots
        self.parts = self.true_parts = self.difference = None
        perf, truth = fact.get("parts"), fact.get("true_parts")
        if perf is not None or truth is not None:
            if self.slots is None:
                self.fail("parts, but no slots")
            keys = KEYS if isinstance(perf, dict) and KEYS[4] in perf else KEYS[LEVEL1]
            self.parts = [self.part(perf, key) for key in keys]
            self.true_parts = [self.part(truth, key) for key in keys]
            self.difference = self.part(fact, "difference")

    def fail(self, why):
        raise Problem(f"{self.where}: {why}")

    def get(self, key, kind, *default):
        """The value of KEY, which must be there if there is no default."""
        if key not in self.fact:
            return default[0] if default else self.fail(f"Object item not found: {key}")
        value = self.fact[key]
        if not isinstance(value, kind) or kind is int and not is_count(value):
            names = {int: "integer from 0 up", str: "string", bool: "true or false"}
            self.fail(f"Expected {names[kind]} as {key}")
        return value

    def part(self, fact, key):
        value = fact.get(key) if isinstance(fact, dict) else None
        if not is_count(value) or value > 100 * WHOLE:
            self.fail(f"{key} is not a number of hundredths of a percent")
        return value

    @property
    def group(self):
        """Where on the page it is."""
        if not self.parts:
            return "other"
        if not self.judged:
            return "rewritten"
        return "level2" if len(self.parts) > 4 else "main"

    @property
    def title(self):
        shape = "" if self.shape in ("stat", "level2") else self.shape + "/"
        who = {0: " (host)", 1: ""}.get(self.who, f" (guest {self.who})")
        return shape + self.workload + who


class Excerpt:
    """Lines of the console."""

    def __init__(self, title):
        self.title = title
        self.lines = []
        self.cut = False        # there were more
        self.open = False       # its end was not seen

    def keep(self, line):
        if len(self.lines) < MAX_EXCERPT:
            self.lines.append(line)
        else:
            self.cut = True


class Speaker:
    """The host or a guest: what its kernel says of itself while it boots."""

    def __init__(self, title):
        self.facts = Excerpt(title)
        self.in_events = self.after_dots = self.ready = False

    def is_events(self, line):
        """perf's lines of the boot: from "Performance Events:" to the last "... "."""
        if line.startswith("Performance Events:"):
            self.in_events, self.after_dots = True, False
        if line.startswith("... "):
            self.after_dots = True
        elif self.after_dots:
            self.in_events = False
        return self.in_events

    def take(self, line):
        # A guest may boot again, for another plan.
        if self.ready:
            return
        self.ready = line.startswith(PLAN)
        if self.is_events(line) or line.startswith(
                ("Linux version ", "smpboot: CPU0: ", "Hypervisor detected: ", FACT)):
            self.facts.keep(line)


def after(text, prefix):
    """What follows PREFIX in TEXT, None if TEXT does not start with it."""
    return text[len(prefix):] if text.startswith(prefix) else None


def without_time(line):
    """A line of the console without its time stamp, if it has one."""
    return re.sub(r"^\[ *[0-9][0-9.]*\] ", "", line)


class Run:
    """All that is known of the boot whose files are in PATH."""

    def __init__(self, path, number, top):
        self.path = path
        self.id = f"run{number}"
        self.read_result()
        self.read_console()
        self.read_truth()
        self.rows = [Row(parse(line, where), where, i) for i, (where, line, _)
                     in enumerate(read_lines(f"{path}/topdown.jsonl"), 1)]
        if not self.rows:
            raise Problem(f"{path}/topdown.jsonl: empty, no workload was measured:"
                          " did a guest run?")
        self.description = read_text(f"{top}/lab/machine/{self.machine}")
        self.summarize()

    def read_result(self):
        path = f"{self.path}/result"
        values = dict(line.partition("=")[::2] for _, line, _ in read_lines(path))
        for key in "run", "machine", "cpus", "kernel":
            if not values.get(key):
                raise Problem(f"{path}: no line {key}=..., the run has not begun")
        self.machine = values["machine"]
        self.cpus = values["cpus"]
        if "/" in self.machine:
            raise Problem(f"{path}: {self.machine} is no name of a machine")
        self.series = "kernel-base/" not in values["kernel"]

    def read_console(self):
        path = f"{self.path}/console.log"
        self.linux = self.qemu = self.perf = None
        self.host, self.guest = Speaker("The host"), Speaker("The guest")
        self.missing = Excerpt("What the host lacks")
        self.human = []
        for _, line, _ in read_lines(path):
            self.take_line(line)
        if not self.linux:
            raise Problem(f'{path}: no line "Linux version": did the host boot?')

    def take_line(self, line):
        said = without_time(line)
        output = after(said, OUTPUT)
        guest = GUEST.match(output or "")
        if guest:
            said = without_time(output[guest.end():])
            output = after(said, OUTPUT)
            if guest[1] == "1":
                self.guest.take(said)
                self.take_human(said, output)
        else:
            self.host.take(said)
            self.linux = self.linux or after(said, "Linux version ")
        if output is not None:
            self.qemu = self.qemu or after(output, "QEMU emulator version ")
            self.perf = self.perf or after(output, "perf version ")
            if ": " + WORDS["MISSING"] in output:
                self.missing.keep(output)

    def take_human(self, said, output):
        """What people see: the programs human/... of a plan."""
        last = self.human[-1] if self.human else None
        if last and last.open and output is not None:
            last.keep(output)
        if last and said.startswith(END):
            last.open = False
        title = after(said, BEGIN + "human/")
        if title is not None and len(self.human) < 4:
            self.human.append(Excerpt("perf stat --topdown in the guest: " + title))
            self.human[-1].open = True

    def read_truth(self):
        path = f"{self.path}/truth.jsonl"
        self.properties = None
        audits = []
        for where, line, whole in read_lines(path):
            try:
                fact = parse(line, where)
            except Problem:
                # The last line of an emulator that was killed may be cut.
                if whole:
                    raise
                continue
            if fact.get("type") == "machine" and self.properties is None:
                self.properties = fact
            if fact.get("type") == "audit":
                audits.append(fact)
        if self.properties is None:
            raise Problem(f'{path}: no line of type "machine": did the emulator start?')

        def total(key):
            return sum(audit[key] for audit in audits if is_count(audit.get(key)))
        self.audited = bool(audits)
        self.switches = total("world_switches")
        self.leaks = total("leaks")
        self.foreign_pmis = total("foreign_pmis")

    def summarize(self):
        """The comment at the head of the machine's description, after the license:
        "Ice Lake: perfmon 5, ..." has the name before the colon, what it is after it."""
        comment = re.match("(#.*\n)*", self.description)[0].split("\n")[:-1]
        summary = " ".join(line[1:].strip() for line in comment if "SPDX" not in line).strip()
        self.title = summary.partition(":")[0] if ":" in summary else self.machine
        summary = summary.partition(": ")[2] or summary
        self.summary = summary[:1].upper() + summary[1:]
        self.what = "with the series" if self.series else "without the series"
