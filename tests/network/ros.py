"""Images of ROS 2 as an independent CDR writer makes them.

    ros.py print                    one JSON object a line: a message's bytes and what it shows
    ros.py publish ENDPOINT KEY     the first of them, as rmw_zenoh would, ten times a second until nobody listens
"""

import json
import struct
import sys
import time
from pathlib import Path

import zenoh
from pycdr2 import Endianness

sys.path.append(str(Path(__file__).parents[1] / "bus"))
from ros_messages import Header, Image, Time  # noqa: E402

WIDTH, HEIGHT = 6, 4

# One grey for a whole mosaic: whatever is done to its colours, it stays.
FLAT = 120


def header(nanos=1_700_000_000_000_000_123):
    return Header(Time(nanos // 10**9, nanos % 10**9), "front_optical")


def pixel(x, y):
    return 10 + 30 * x, 200 - 40 * y, 7 * x + 5 * y


def grey(x, y):
    return 60 + 20 * y + 2 * x


def rows(bytes_of, padding=0):
    return b"".join(b"".join(bytes_of(x, y) for x in range(WIDTH)) + bytes(padding) for y in range(HEIGHT))


def luma(x, y):
    """Of a range from 16 to 235, the same for a pair of pixels and a square of them."""
    return 16 + round(grey(x // 2 * 2, y // 2 * 2) * 219 / 255)


def yuv(order):
    """Packed 4:2:2 without colour."""
    parts = {"y": luma, "u": lambda x, y: 128, "v": lambda x, y: 128}
    pair = lambda x, y: bytes(parts[c](x, y) for c in order)
    return b"".join(b"".join(pair(x, y) for x in range(0, WIDTH, 2)) for y in range(HEIGHT))


# Encoding, bytes of a row, pixels, what they show: colours, brightness of pixels or of squares, one grey.
LAYOUTS = [
    ("rgb8", 3 * WIDTH, rows(lambda x, y: bytes(pixel(x, y))), "colour"),
    ("rgb8", 3 * WIDTH + 5, rows(lambda x, y: bytes(pixel(x, y)), 5), "colour"),
    ("bgr8", 3 * WIDTH, rows(lambda x, y: bytes(reversed(pixel(x, y)))), "colour"),
    ("rgba8", 4 * WIDTH, rows(lambda x, y: bytes([*pixel(x, y), 9])), "colour"),
    ("bgra8", 4 * WIDTH, rows(lambda x, y: bytes([*reversed(pixel(x, y)), 9])), "colour"),
    ("mono8", WIDTH, rows(lambda x, y: bytes([grey(x, y)])), "grey"),
    ("mono16", 2 * WIDTH + 2, rows(lambda x, y: struct.pack("<H", grey(x, y) << 8 | 0x21), 2), "grey"),
    ("yuv422", 2 * WIDTH, yuv("uyvy"), "squares"),
    ("yuv422_yuy2", 2 * WIDTH, yuv("yuyv"), "squares"),
    ("nv12", WIDTH, rows(lambda x, y: bytes([luma(x, y)])) + bytes([128]) * (WIDTH * HEIGHT // 2), "squares"),
    ("nv21", WIDTH, rows(lambda x, y: bytes([luma(x, y)])) + bytes([128]) * (WIDTH * HEIGHT // 2), "squares"),
    ("bayer_rggb8", WIDTH + 3, rows(lambda x, y: bytes([FLAT]), 3), "flat"),
    ("bayer_gbrg16", 2 * WIDTH, rows(lambda x, y: struct.pack("<H", FLAT << 8 | 0x43)), "flat"),
]


def shown(kind):
    """R, G, B of every pixel."""
    show = {
        "colour": pixel,
        "grey": lambda x, y: [grey(x, y)] * 3,
        "flat": lambda x, y: [FLAT] * 3,
        "squares": lambda x, y: [grey(x // 2 * 2, y // 2 * 2)] * 3,
    }[kind]
    return [level for y in range(HEIGHT) for x in range(WIDTH) for level in show(x, y)]


def image(encoding, step, data, nanos=None):
    return Image(header(nanos) if nanos else header(), HEIGHT, WIDTH, encoding, 0, step, data)


def print_all():
    for encoding, step, data, kind in LAYOUTS:
        for order in [Endianness.Little, Endianness.Big]:
            payload = image(encoding, step, data).serialize(endianness=order)
            print(json.dumps({"name": encoding, "payload": list(payload), "rgb": shown(kind)}))


def publish(endpoint, key):
    config = zenoh.Config()
    config.insert_json5("mode", '"client"')
    config.insert_json5("connect/endpoints", json.dumps([endpoint]))
    config.insert_json5("scouting/multicast/enabled", "false")
    encoding, step, data, _ = LAYOUTS[0]
    with zenoh.open(config) as session:
        publisher = session.declare_publisher(key)
        number = 0
        while number == 0 or publisher.matching_status.matching:
            number += 1
            nanos = time.time_ns()
            attachment = struct.pack("<qqB16s", number, nanos, 16, b"an id of 16 byte")
            payload = image(encoding, step, data, nanos - 50_000_000).serialize()
            publisher.put(payload, attachment=attachment)
            time.sleep(0.1)


if __name__ != "__main__":
    pass
elif sys.argv[1] == "print":
    print_all()
else:
    publish(*sys.argv[2:])
