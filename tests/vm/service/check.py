"""Checks what the cases said inside the emulated machine. Usage: check.py LOG"""

import json
import re
import sys

RESTART_S = 5.0  # From a kill to readiness, besides the start-up itself.
STOP_S = 2.0


def read(path):
    cases = {}
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:
            found = re.match(r"@(\S+) (.*)", line.strip())
            if found:
                cases.setdefault(found[1], []).append(found[2])
    return cases


class Case:
    """Lines of a case, and those of the form KEY=VALUE."""

    def __init__(self, lines):
        self.lines = lines
        self.facts = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))

    def number(self, name):
        return float(self.facts[name])

    def texts(self):
        return "\n".join(self.lines)


def expect(is_so, problem):
    return None if is_so else problem


def first(*problems):
    return next((problem for problem in problems if problem), None)


def is_running(case, restarts):
    state = case.facts["ActiveState"], case.facts["SubState"], int(case.facts["NRestarts"])
    return expect(state == ("active", "running", restarts), f"{state}, restarts expected: {restarts}")


def captions(camera, count, prompt_id=None):
    def check(case, _):
        told = [json.loads(line) for line in case.lines]
        frames = [caption["frame"] for caption in told]
        sequences = [frame["sequence"] for frame in frames]
        return first(
            expect(len(told) == count, f"{len(told)} captions, not {count}"),
            expect(all(frame["camera"] == camera for frame in frames), f"of {frames}"),
            expect(sequences == sorted(set(sequences)), f"out of order: {sequences}"),
            expect(all(caption["text"] for caption in told), "without words"),
            expect(prompt_id in (None, told[-1]["prompt_id"]), f"prompt {told[-1]['prompt_id']}, not {prompt_id}"),
        )

    return check


def ready(case, _):
    status = case.facts["StatusText"]
    return first(is_running(case, 0), expect("of 1 cameras live" in status, f"status: {status}"))


def journal(case, _):
    entries = [json.loads(line) for line in case.lines]
    phases = [entry.get("PHASE") for entry in entries]
    return first(
        expect("live" in phases, f"phases: {phases}"),
        expect(all(entry["CAMERA"] == "front" and entry["VERSION"] for entry in entries), f"{entries}"),
    )


def inside(case, _):
    wanted = [
        "open video0: allowed", "open null: allowed", "open kmsg: denied", "open ttyS0: denied",
        "write /usr: denied", "write /etc: denied", "write /var: denied", "write /home: denied",
        "write /var/lib/mobilevlmd: allowed", "write /var/cache/mobilevlmd: allowed", "write /run/mobilevlmd: allowed",
        "locked 524288",
    ]  # fmt: skip
    missing = [line for line in wanted if line not in case.lines]
    user = re.search(r"^user mobilevlmd groups .*\bvideo\b", case.texts(), re.MULTILINE)
    caps = re.search(r"CapEff:\s+0+$", case.texts(), re.MULTILINE)
    opened = [line for line in case.lines if re.match(r"open (mem|loop-control|fuse|input.*): allowed", line)]
    return first(
        expect(not missing, f"not so: {missing} in {case.lines}"),
        expect(not opened, f"{opened}"),
        expect(user and caps, f"user or capabilities: {case.lines}"),
    )


def reload(case, cases):
    pid = cases["ready"].facts["MainPID"]
    return first(
        is_running(case, 0),
        expect(case.facts["MainPID"] == pid, "it was restarted"),
        expect("2 of 2 cameras live" in case.facts["StatusText"], case.facts["StatusText"]),
    )


def refused(case, cases):
    return first(
        reload(case, cases),
        expect("model.threads" in case.facts["StatusText"], case.facts["StatusText"]),
    )


def killed(case, cases):
    starts = [start.number("ready") - start.number("started") for start in (cases["ready"], cases["again"])]
    start, took = max(starts), case.number("ready") - case.number("at")
    print(f"     start-ups undisturbed: {starts}, ready {took:.1f} s after the kill")
    return first(is_running(case, 1), expect(took <= RESTART_S + start, f"{took} s, start-up {start} s"))


def hung(case, _):
    seen, again = (case.number(name) - case.number("at") for name in ("seen", "uptime"))
    print(f"     the engine hung: seen after {seen:.1f} s, running again after {again:.1f} s")
    return is_running(case, 1)


def stopped(case, _):
    took = case.number("down") - case.number("going")
    print(f"     stopped in {took:.2f} s")
    state = case.facts["ActiveState"], case.facts["Result"], case.facts["ExecMainStatus"]
    return first(
        expect(state == ("inactive", "success", "0"), f"{state}"),
        expect(took <= STOP_S, f"it took {took} s"),
    )


def wrong(case, _):
    state = case.facts["ActiveState"], case.facts["Result"], case.facts["ExecMainStatus"], case.facts["NRestarts"]
    return expect(state == ("failed", "exit-code", "78", "0"), f"{state}")


def says(text):
    return lambda case, _: expect(re.search(text, case.texts()), f'"{text}" is not in {case.lines}')


CHECKS = {
    "ready": ready,
    "captions": captions("front", 3, "first"),
    "journal": journal,
    "udev": lambda case, _: expect(case.lines == ["active", "video 660"], f"{case.lines}"),
    "security": says("within the limit"),
    "inside": inside,
    "reload-rear": captions("rear", 2, "second"),
    "reload": reload,
    "reload-front": captions("front", 1, "second"),
    "refused": refused,
    "refused-front": captions("front", 1, "second"),
    "refused-journal": says(r"mobilevlmd\.toml:\d+: model\.threads"),
    "killed": killed,
    "killed-front": captions("front", 1),
    "again": lambda case, _: expect(case.facts["ActiveState"] == "active", case.lines),
    "hung": hung,
    "hung-journal": says("[Ww]atchdog timeout"),
    "hung-front": captions("front", 1),
    "stopped": stopped,
    "wrong": wrong,
    "wrong-journal": says(r"mobilevlmd\.toml:\d+: camera\[0\]\.source"),
    "machine": says("end"),
}


def main():
    cases = {name: Case(lines) for name, lines in read(sys.argv[1]).items()}
    failures = 0
    for name, check in CHECKS.items():
        try:
            problem = check(cases[name], cases)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            problem = f"incomplete ({error!r}): {cases[name].lines if name in cases else 'never began'}"
        failures += problem is not None
        print(f"{'ok  ' if problem is None else 'FAIL'} {name}{'' if problem is None else ': ' + problem}")
    print(f"{len(CHECKS) - failures} of {len(CHECKS)} cases of the service passed under systemd")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
