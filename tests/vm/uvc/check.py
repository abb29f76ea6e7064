"""Checks what the program said of a USB camera. Usage: check.py LOG"""

import sys

from told import all_of, change, has, judge, moved, streamed

SIZE = (320, 240)
COLOUR = (200, 60, 40)
NAME = "Virtual USB camera"


def listing(case):
    devices = [device for device in case.listing or [] if device["formats"]]
    if len(devices) != 1:
        return f"devices: {case.listing}"
    formats = {entry["fourcc"]: entry for entry in devices[0]["formats"]}
    rates = [size["fps"] for entry in formats.values() for size in entry["sizes"]]
    return all_of(
        None if set(formats) == {"MJPG", "YUYV"} else f"formats: {formats}",
        None if all(len(fps) == 3 and max(fps) > 29 for fps in rates) else f"rates: {rates}",
        has("uvcvideo", devices[0]["driver"]),
        has(NAME, devices[0]["card"]),
    )


def pictures(pixel_format, count):
    def check(case):
        colours = [frame["mean_rgb"] for frame in case.frames]
        wrong = [c for c in colours if any(abs(got - want) > 5 for got, want in zip(c, COLOUR))]
        return all_of(
            streamed(case, count, SIZE, pixel_format),
            f"colours {wrong}" if wrong else None,
            None if case.status["damaged"] == 0 else f"{case.status['damaged']} damaged",
        )

    return check


def undisturbed(counter):
    """A second of bad frames is counted and changes nothing else."""

    def check(case):
        wrong = [c for c in (f["mean_rgb"] for f in case.frames) if abs(c[0] - COLOUR[0]) > 5]
        return all_of(
            streamed(case, 30, SIZE),
            moved(case, "opening", "live"),
            None if case.status[counter] > 3 else f"{case.status[counter]} {counter}",
            f"shown although damaged: {wrong}" if wrong else None,
        )

    return check


CHECKS = {
    "listing": listing,
    "mjpeg": pictures("Mjpeg", 20),
    "yuyv": pictures("Yuyv", 20),
    "slow": lambda case: all_of(streamed(case, 5), has("at 10 fps", case.status["source"])),
    "damaged-MJPG": undisturbed("damaged"),
    "damaged-YUYV": undisturbed("damaged"),
    "short-MJPG": undisturbed("damaged"),
    "short-YUYV": undisturbed("damaged"),
    "dropped": undisturbed("lost"),
    "stalled": lambda case: all_of(
        streamed(case, 30, SIZE),
        moved(case, "opening", "live", "stalled", "opening", "live"),
        has("no frame for 2 s", change(case, "stalled")),
    ),
    "renumbered": lambda case: all_of(
        streamed(case, 30, SIZE),
        moved(case, "opening", "live", "gone", "opening", "live"),
        has("/dev/video0: the device was unplugged", change(case, "gone")),
        "the same number" if "/dev/video0" in case.status["source"] else None,
        has(NAME, case.status["source"]),
    ),
    "replaced": lambda case: all_of(
        streamed(case, 30, SIZE),
        # Gone twice: the camera, and then its place.
        moved(case, "opening", "absent", "opening", "live", "gone", "gone", "opening", "live"),
        has("no such device", change(case, "absent")),
        has(f"another camera now ({NAME}", case.reasons()),
    ),
    "machine": lambda case: None,
}

if __name__ == "__main__":
    sys.exit(judge(CHECKS, "camera cases passed on the uvcvideo driver"))
