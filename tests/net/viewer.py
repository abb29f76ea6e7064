"""Tells what it hears of the camera node and the model node, a JSON object a line: `viewer.py FILE`."""

import json
import sys
import threading
import time

import zenoh
import zenoh.ext

CAMERA = "mobilevlm/base/camera/far"
FRAME = "mobilevlm/scout/camera/front/frame"
LINES = threading.Lock()


def tell(**told):
    # Callbacks come from several threads, and a line is written as a whole.
    with LINES:
        print(json.dumps(told), flush=True)


def bus_ms(sample):
    """From publication to here; all hosts have one clock."""
    return (time.time() - sample.timestamp.get_time().timestamp()) * 1e3


def caption(sample):
    late = bus_ms(sample)
    tell(kind="caption", bus_ms=late, age_ms=json.loads(sample.payload.to_string())["age_ms"])


def state(sample):
    state = json.loads(sample.payload.to_string())
    tell(kind="state", phase=state["phase"], reason=state["reason"])


def frame(sample):
    tell(kind="frame", bus_ms=bus_ms(sample), bytes=len(sample.payload))


def status(sample):
    status = json.loads(sample.payload.to_string())
    tell(kind="status", device=status["device"], resident_mib=status["resident_bytes"] / 2**20)


with zenoh.open(zenoh.Config.from_file(sys.argv[1])) as session:
    history = zenoh.ext.HistoryConfig(max_samples=1, detect_late_publishers=True)
    captions = session.declare_subscriber(f"{CAMERA}/caption/json", caption)
    statuses = session.declare_subscriber("mobilevlm/*/status/json", status)
    frames = session.declare_subscriber(FRAME, frame)
    states = zenoh.ext.declare_advanced_subscriber(session, f"{CAMERA}/state/json", state, history=history)
    threading.Event().wait()
