"""Checks captions around faults, and what the churn said. Usage: check.py LOG"""

import sys

from told import all_of, judge

SECOND = 1_000_000_000
OUTAGES = ("inject_vidioc_qbuf_error", "inject_fatal_streaming_error", "disconnect", "bind")


def captions(case):
    moments = {told["at"]: told["status"] for told in case.having("at")}
    published = case.having("text")
    fronts = [caption for caption in published if caption["frame"]["camera"] == "front"]
    rears = [caption for caption in published if caption["frame"]["camera"] == "rear"]
    if not fronts or not rears or set(moments) != {"start", "unbind", *OUTAGES}:
        return f"{len(fronts)} and {len(rears)} captions, {set(moments)}: {case.text[-3:]}"

    def state(moment, camera):
        cameras = moments[moment]["cameras"]
        return next(told["state"] for told in cameras if told["state"]["camera"] == camera)

    problems = []
    before = state("start", "front")
    for outage in OUTAGES:
        after = state(outage, "front")
        if after["phase"] != "live" or after["since"] <= before["since"]:
            problems.append(f"{outage}: {before} became {after}")
        # From the fault to the first good frame there is nothing that could be described.
        captured = [caption["frame"]["captured_at"] for caption in fronts]
        if not any(at >= after["since"] - SECOND // 2 for at in captured):
            problems.append(f"{outage}: no caption of a frame captured after the recovery")
        before = after
    gone = [state("unbind", camera) for camera in ("front", "rear")]
    back = [state("bind", camera) for camera in ("front", "rear")]
    for lost, found in zip(gone, back):
        described = [c for c in published if lost["since"] < c["frame"]["captured_at"] < found["since"] - SECOND // 2]
        if lost["phase"] != "gone" or found["phase"] != "live" or described:
            problems.append(f"{lost} became {found}, described in between: {described}")
    if state("disconnect", "rear")["since"] != state("start", "rear")["since"]:
        problems.append("the other camera's state changed")
    stamps = [(c["frame"]["camera"], c["frame"]["captured_at"]) for c in published]
    if any(stamps.count(stamp) > 1 for stamp in stamps):
        problems.append("a frame was described twice")
    return "; ".join(problems) or None


def journal(case):
    text = "\n".join(case.text)
    wanted = ["camera is live", "camera is failing", "camera is gone", "the device was unplugged"]
    return all_of(*(None if want in text else f'"{want}" is not in the journal: {text[-600:]}' for want in wanted))


def churn(case):
    ends = case.having("end")
    problems = [told["problem"] for told in case.having("problem")]
    if not ends or problems:
        return f"{problems or case.text[-3:]}"
    end = ends[0]["end"]
    quiet = case.having("quiet")[0]["quiet"]["longest_interval_ms"]
    faults = [told["fault"] for told in case.having("fault")]
    for fault in faults:
        taken = fault["taken"]
        mean = taken["recovery_ms"] / taken["times"]
        print(
            f"     {fault['fault']:<14} {taken['times']:>4} times, live again after {mean:.0f} ms, "
            f"at most {taken['longest_recovery_ms']} ms; others at most {taken['longest_interval_of_others_ms']} ms"
        )
    states = ", ".join(f"{told['states']['times']} {told['states']['phase'].lower()}" for told in case.having("states"))
    print(f"     without faults at most {quiet} ms between frames; states told and published: {states}")
    print(f"     {end['cycles']} cycles, {end['seconds']} s; before {end['before']}, after {end['after']}")
    before, after = end["before"], end["after"]
    others = max(fault["taken"]["longest_interval_of_others_ms"] for fault in faults)
    return all_of(
        None if end["problems"] == 0 else f"{end['problems']} problems",
        None if len(faults) >= 12 else f"only {len(faults)} kinds of faults",
        None if all(before[k] == after[k] for k in ("descriptors", "buffers", "threads")) else f"{before} -> {after}",
        None if after["resident_kib"] <= before["resident_kib"] * 1.01 else f"{before} -> {after}",
        # A stall is two seconds.
        None if others < 1000 else f"another camera was without frames for {others} ms",
    )


if __name__ == "__main__":
    sys.exit(judge({"captions": captions, "journal": journal, "churn": churn, "machine": lambda case: None}, "cases passed"))
