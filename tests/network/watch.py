"""A viewer in Python of the frames that a daemon publishes: `watch.py ENDPOINT DEVICE CAMERA`."""

import json
import queue
import sys

import zenoh
from ros import Image

ENDPOINT, DEVICE, CAMERA = sys.argv[1:]
KEY = f"mobilevlm/{DEVICE}/camera/{CAMERA}/frame"
PATIENCE = 60.0

config = zenoh.Config()
config.insert_json5("mode", '"client"')
config.insert_json5("connect/endpoints", json.dumps([ENDPOINT]))
config.insert_json5("scouting/multicast/enabled", "false")
with zenoh.open(config) as session:
    pictures, raw = queue.Queue(), queue.Queue()
    one = session.declare_subscriber(KEY, pictures.put)
    other = session.declare_subscriber(f"{KEY}/raw", raw.put)
    last = -1
    for _ in range(3):
        sample = pictures.get(timeout=PATIENCE)
        jpeg = sample.payload.to_bytes()
        assert str(sample.encoding) == "image/jpeg" and jpeg[:2] == b"\xff\xd8" and jpeg[-2:] == b"\xff\xd9"
        stamp = json.loads(sample.attachment.to_string())
        assert stamp["camera"] == CAMERA and stamp["sequence"] > last, stamp
        last = stamp["sequence"]
    for _ in range(3):
        sample = raw.get(timeout=PATIENCE)
        assert str(sample.encoding) == "application/cdr;sensor_msgs/msg/Image", sample.encoding
        assert sample.payload.as_shm() is not None, "frames as captured come through shared memory"
        stamp = json.loads(sample.attachment.to_string())
        image = Image.deserialize(sample.payload.to_bytes())
        assert (image.width, image.height, image.encoding) == (640, 480, "yuv422_yuy2"), image.encoding
        assert image.step == 2 * image.width and len(image.data) == image.step * image.height
        captured = image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
        assert captured == stamp["captured_at"] and image.header.frame_id == CAMERA
    # Readers who keep everything do not stop the daemon: what they hold is not sent again.
    held = []
    while len(held) < 200:
        try:
            held.append(raw.get(timeout=2.0))
        except queue.Empty:
            break
    assert held, "frames come until the memory is full"
    state = lambda: json.loads(
        list(session.get(f"mobilevlm/{DEVICE}/status/json", timeout=PATIENCE))[0].ok.payload.to_string()
    )
    while state()["cameras"][0]["unpublished"] == 0:
        pass
    held.clear()
    raw.get(timeout=PATIENCE)
