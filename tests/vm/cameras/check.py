"""Checks what the program said of vivid's cameras. Usage: check.py LOG"""

import sys

from told import all_of, has, judge, streamed


# vivid's "CSC Colorbar": white, yellow, cyan, green, magenta, red, blue and black of 191 and 50, each an eighth of the
# picture (tpg_colors and bars in drivers/media/common/v4l2-tpg of Linux).
BARS = [
    (191, 191, 191), (191, 191, 50), (50, 191, 191), (50, 191, 50),
    (191, 50, 191), (191, 50, 50), (50, 50, 191), (50, 50, 50),
]  # fmt: skip
# Its grey is the luminance of Rec. 709 in these 65536ths.
GREY_BARS = [((13879 * r + 46688 * g + 4713 * b) / 65536,) * 3 for r, g, b in BARS]
SIZES = [(320, 180), (640, 360), (1280, 720)]

# Each format by what the program calls it.
CHROMA = {
    "YUYV": "Yuyv", "UYVY": "Uyvy", "YVYU": "Yvyu", "VYUY": "Vyuy", "NV12": "Nv12", "NV21": "Nv21", "NV16": "Nv16",
    "NV61": "Nv61", "YU12": "Yu12", "YV12": "Yv12", "422P": "Yuv422p",
}  # fmt: skip
SEPARATE = {
    "NM12": "Nv12", "NM21": "Nv21", "NM16": "Nv16", "NM61": "Nv61", "YM12": "Yu12", "YM21": "Yv12", "YM16": "Yuv422p",
}  # fmt: skip
RGB = {
    "RGB3": "Rgb24", "BGR3": "Bgr24", "XR24": "Bgrx32", "AR24": "Bgrx32", "BGR4": "Bgrx32", "XB24": "Rgbx32",
    "AB24": "Rgbx32", "BX24": "Xrgb32", "BA24": "Xrgb32", "RGB4": "Xrgb32", "RX24": "Xbgr32", "RA24": "Xbgr32",
}  # fmt: skip
GREY = {"GREY": "Grey", "Y10": "Grey10", "Y12": "Grey12", "Y16": "Grey16"}
BAYER = {
    name: f"Bayer({order}, Bits{bits})"
    for bits, names in (
        (8, "RGGB GRBG GBRG BA81"), (10, "RG10 BA10 GB10 BG10"), (12, "RG12 BA12 GB12 BG12"), (16, "RG16 GR16 GB16 BYR2"),
    )
    for name, order in zip(names.split(), ("Rggb", "Grbg", "Gbrg", "Bggr"))
}  # fmt: skip
# How far a bar may be off: YUV is rounded twice, the filter of a mosaic and white balance round once more.
TOLERANCES = [(RGB, 1), (GREY, 2), (CHROMA, 3), (SEPARATE, 3), (BAYER, 4)]


def bars(case, want, tolerance):
    """Problem with the bars of the frames."""
    for frame in case.frames:
        for got, expected in zip(frame["bars_rgb"], want):
            if any(abs(a - b) > tolerance for a, b in zip(got, expected)):
                return f"bars {frame['bars_rgb']}, not {want}"
    return None


def colour(case, want):
    """Problem with the last frame, which should have one colour."""
    got = case.frames[-1]["mean_rgb"]
    return None if all(abs(a - b) <= 4 for a, b in zip(got, want)) else f"mean colour {got}, not {want}"


def format_check(fourcc, size):
    layouts, tolerance = next((layouts, limit) for layouts, limit in TOLERANCES if fourcc in layouts)

    def check(case):
        return all_of(
            streamed(case, 1, size, layouts[fourcc]),
            bars(case, GREY_BARS if fourcc in GREY else BARS, tolerance),
            has(f"{fourcc} {size[0]}x{size[1]}", case.status["source"]),
            None if case.status["damaged"] == 0 else "damaged frames",
        )

    return check


def format_checks(device, *kinds):
    names = [(fourcc, size) for kind in kinds for fourcc in kind for size in SIZES]
    return {f"{device}-{fourcc}-{size[0]}x{size[1]}": format_check(fourcc, size) for fourcc, size in names}


def listing(case):
    devices = case.listing or []
    if [device["path"] for device in devices] != ["/dev/video0", "/dev/video1"]:
        return f"devices: {devices}"
    every = set().union(CHROMA, RGB, GREY, BAYER)
    for device, tried in zip(devices, (every, every.union(SEPARATE))):
        usable = {entry["fourcc"] for entry in device["formats"] if entry["usable"]}
        if usable != tried:
            return f"{device['path']}: {sorted(usable - tried)} are claimed and not tried, {sorted(tried - usable)} missing"
        if len(device["formats"]) == len(usable):
            return f"{device['path']}: nothing is left out"
    sizes = next(entry["sizes"] for entry in devices[0]["formats"] if entry["fourcc"] == "YUYV")
    brightness = next(control for control in devices[0]["controls"] if control["name"] == "brightness")
    return all_of(
        None if any((s["width"], s["height"]) == (640, 360) and s["fps"] for s in sizes) else f"sizes: {sizes}",
        None if (brightness["range"], brightness["value"]) == ("0 to 255", 128) else f"{brightness}",
        has("vivid", devices[0]["driver"]),
    )


def controls_after(case):
    gain = next(control for control in case.listing[0]["controls"] if control["name"] == "gain")
    return None if (gain["value"], gain["active"]) == (77, True) else f"{gain}"


def exported(pixel_format):
    return lambda case: all_of(
        streamed(case, 5, (640, 360), pixel_format), bars(case, BARS, 3), has("through DMABUF", case.status["source"])
    )


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
    "chosen": lambda case: all_of(streamed(case, 3, (640, 480), "Yuyv"), has("at 25 fps", case.status["source"]), has("the size the model needs; the cheapest of", case.status["source"])),
    **format_checks("single", CHROMA, RGB, GREY, BAYER),
    **format_checks("multi", CHROMA, RGB, GREY, BAYER, SEPARATE),
    **{
        f"meaning-{name}": lambda case: all_of(streamed(case, 1, (320, 180), "Yuyv"), bars(case, BARS, 3))
        for name in ("rec601-full", "rec709-limited", "rec709-full", "bt2020", "smpte240m-full")
    },
    "exported-single": exported("Yuyv"),
    "exported-multi": exported("Nv12"),
    "controls": lambda case: all_of(streamed(case, 3), colour(case, (0, 255, 0))),
    "controls-after": controls_after,
    "control-unknown": lambda case: all_of(
        has("control brigthness = 99: no such control, the device has", case.reasons()),
        has("brightness", case.reasons()),
    ),
    "control-range": lambda case: has("control brightness = 256: not accepted, expected 0 to 255", case.reasons()),
    "control-item": lambda case: has('control test_pattern = "Polka Dots": not accepted', case.reasons()),
    "first": lambda case: streamed(case, 60, (320, 180)),
    "second": lambda case: has("busy: another program captures from it", case.reasons()),
    "lost": lambda case: all_of(streamed(case, 30), None if case.status["lost"] > 0 else "no frame was lost"),
    "damaged": lambda case: all_of(streamed(case, 50), None if case.status["damaged"] > 0 else "none was damaged"),
    "disconnected": came_back,
    "unplugged": lambda case: all_of(came_back(case), colour(case, (0, 0, 255))),
    "neighbour": lambda case: all_of(
        streamed(case, 20, (320, 180)),
        None if case.phases() == ["opening", "live"] else f"phases {case.phases()}",
    ),
    "machine": lambda case: None,
}


if __name__ == "__main__":
    sys.exit(judge(CHECKS, "camera cases passed on the vivid driver"))
