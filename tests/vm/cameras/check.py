"""Checks what the program said of vivid's cameras. Usage: check.py LOG"""

import sys

from told import all_of, has, judge, streamed


def colour(case, want):
    """Problem with the mean colour of the frames."""
    for frame in case.frames:
        if any(abs(got - expected) > 4 for got, expected in zip(frame["mean_rgb"], want)):
            return f"mean colour {frame['mean_rgb']}, not {want}"
    return None


def listing(case):
    devices = case.listing or []
    if [device["path"] for device in devices] != ["/dev/video0", "/dev/video1"]:
        return f"devices: {devices}"
    single, multi = ({entry["fourcc"] for entry in device["formats"]} for device in devices)
    usable = {entry["fourcc"] for entry in devices[1]["formats"] if entry["usable"]}
    sizes = next(entry["sizes"] for entry in devices[0]["formats"] if entry["fourcc"] == "YUYV")
    return all_of(
        None if "YUYV" in single and "NM12" not in single else f"single-planar formats: {single}",
        None if {"NM12", "YM12", "YUYV"} <= usable and len(multi) > len(usable) else f"multi-planar formats: {multi}",
        None if any((s["width"], s["height"]) == (640, 360) and s["fps"] for s in sizes) else f"sizes: {sizes}",
        has("vivid", devices[0]["driver"]),
    )


RED, BLUE = (255, 0, 0), (0, 0, 255)
LAYOUTS = {
    "YUYV": "Yuyv", "UYVY": "Uyvy", "NV12": "Nv12", "NM12": "Nv12", "YU12": "Yu12", "YM12": "Yu12", "GREY": "Grey",
    "RGB3": "Rgb24", "BGR3": "Bgr24", "XR24": "Bgrx32", "AR24": "Bgrx32", "BGR4": "Bgrx32", "XB24": "Rgbx32",
    "AB24": "Rgbx32",
}  # fmt: skip


def format_check(fourcc, want):
    def check(case):
        grey = None if not case.frames else case.frames[0]["mean_rgb"]
        is_flat = fourcc == "GREY" and grey is not None and grey[0] == grey[1] == grey[2] and 50 < grey[0] < 90
        return all_of(
            streamed(case, 3, (640, 360), LAYOUTS[fourcc]),
            None if is_flat else colour(case, want),
            has(fourcc, case.status["source"]),
            None if case.status["damaged"] == 0 else "damaged frames",
        )

    return check


def came_back(case):
    """Problem of a camera that was lost and found. Its node may vanish a moment after its stream."""
    phases = case.phases()
    told = [phase for i, phase in enumerate(phases) if i == 0 or phase != phases[i - 1]]
    stamps = [frame["captured_at"] for frame in case.frames]
    return all_of(
        None if told == ["opening", "live", "gone", "opening", "live"] else f"phases {case.states}",
        has("/dev/video0: the device was unplugged", case.reasons()),
        None if stamps == sorted(set(stamps)) else "stamps out of order",
    )


CHECKS = {
    "listing": listing,
    "no-device": lambda case: has("/dev/video7: no such device", case.reasons()),
    "no-camera": lambda case: has("/dev/null: not a capture device", case.reasons()),
    "no-format": lambda case: all_of(has("not H264", case.reasons()), has("YUYV", case.reasons())),
    "chosen": lambda case: all_of(streamed(case, 3, (640, 480), "Yuyv"), has("at 25 fps", case.status["source"])),
    **{f"single-{fourcc}": format_check(fourcc, RED) for fourcc in LAYOUTS if fourcc not in ("NM12", "YM12")},
    **{f"multi-{fourcc}": format_check(fourcc, BLUE) for fourcc in ("YUYV", "NV12", "NM12", "YU12", "YM12", "RGB3")},
    "odd-size": lambda case: all_of(streamed(case, 3, (320, 180), "Yu12"), colour(case, BLUE)),
    "first": lambda case: streamed(case, 60, (320, 180)),
    "second": lambda case: has("busy: another program captures from it", case.reasons()),
    "lost": lambda case: all_of(streamed(case, 30), None if case.status["lost"] > 0 else "no frame was lost"),
    "damaged": lambda case: all_of(streamed(case, 50), None if case.status["damaged"] > 0 else "none was damaged"),
    "disconnected": came_back,
    "unplugged": came_back,
    "neighbour": lambda case: all_of(
        streamed(case, 20, (320, 180)),
        None if case.phases() == ["opening", "live"] else f"phases {case.phases()}",
    ),
    "machine": lambda case: None,
}


if __name__ == "__main__":
    sys.exit(judge(CHECKS, "camera cases passed on the vivid driver"))
