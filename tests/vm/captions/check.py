"""Checks captions around faults. Usage: check.py LOG"""

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


CHECKS = {"captions": captions, "journal": journal, "machine": lambda case: None}

if __name__ == "__main__":
    sys.exit(judge(CHECKS, "cases of captions passed"))
