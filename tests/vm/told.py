"""What programs said inside an emulated machine, read from its log, and judgements that kinds of machines share."""

import json
import re
import sys

LIMIT_AGE_MS = 5000  # An emulated machine is slow; the point is that ages are neither negative nor clock offsets.


class Case:
    """What one run of the program said."""

    def __init__(self):
        self.ended = False
        self.text = []
        self.listing = None
        self.states = []
        self.frames = []
        self.status = None
        self.objects = []

    def add(self, line):
        try:
            told = json.loads(line)
        except ValueError:
            self.ended |= line == "end"
            self.text.append(line)
            return
        if isinstance(told, list):
            self.listing = told
            return
        self.objects.append(told)
        if "state" in told:
            self.states.append((told["state"]["phase"], told["state"]["reason"]))
        elif "frame" in told:
            self.frames.append(told["frame"])
        elif "status" in told:
            self.status = told["status"]

    def having(self, key):
        """The JSON objects that have a key."""
        return [told for told in self.objects if key in told]

    def phases(self):
        return [phase for phase, _ in self.states]

    def reasons(self):
        return " | ".join(reason for _, reason in self.states)


def read(path):
    cases = {}
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:
            found = re.match(r"@(\S+) (.*)", line.strip())
            if found:
                cases.setdefault(found[1], Case()).add(found[2])
    return cases


def streamed(case, count, size=None, pixel_format=None):
    """Problem with the frames of a case that should have streamed undisturbed."""
    if len(case.frames) < count:
        return f"{len(case.frames)} frames, not {count}; {case.reasons()} {case.text}"
    sequences = [frame["sequence"] for frame in case.frames]
    stamps = [frame["captured_at"] for frame in case.frames]
    if sequences != sorted(set(sequences)) or stamps != sorted(set(stamps)):
        return f"out of order: {sequences}, {stamps}"
    for frame in case.frames:
        if not 0 <= frame["age_ms"] <= LIMIT_AGE_MS:
            return f"{frame['age_ms']} ms old"
        if size and (frame["width"], frame["height"]) != size:
            return f"{frame['width']}x{frame['height']}, not {size}"
        if pixel_format and frame["format"] != pixel_format:
            return f"{frame['format']}, not {pixel_format}"
    return None


def moved(case, *phases):
    """Problem with the phases a camera went through, each told once."""
    return None if case.phases() == list(phases) else f"states {case.states}"


def change(case, phase):
    """The reason of the first change to a phase."""
    return next(reason for told, reason in case.states if told == phase)


def all_of(*problems):
    return next((problem for problem in problems if problem), None)


def has(what, text):
    return None if what in text else f'"{what}" is not in: {text}'


def judge(checks, what):
    """Reads the log named on the command line and puts every case to its check, which returns the problem or None."""
    cases = read(sys.argv[1])
    failures = 0
    for name, check in checks.items():
        case = cases.get(name)
        if case is None or not case.ended:
            problem = f"did not end: {case.text if case else 'never began'}"
        else:
            try:
                problem = check(case)
            except (KeyError, TypeError, IndexError, StopIteration) as error:
                problem = f"incomplete ({error!r}): {case.states} {case.text}"
        failures += problem is not None
        print(f"{'ok  ' if problem is None else 'FAIL'} {name}{'' if problem is None else ': ' + problem}")
    print(f"{len(checks) - failures} of {len(checks)} {what}")
    return 1 if failures else 0
