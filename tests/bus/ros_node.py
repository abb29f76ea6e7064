"""A node of ROS 2 in Python, that uses nothing but zenoh: finds the daemon, listens and asks.

    ros_node.py ENDPOINT LAYOUT DEVICE CAMERA

LAYOUT is jazzy or humble (as with rmw_zenoh, domain 7) or bridge (as behind zenoh-bridge-ros2dds, Jazzy).
"""

import json
import queue
import struct
import sys
import time

import zenoh
import zenoh.ext

from ros_messages import Classification, DiagnosticArray, String, Time, type_hash

ENDPOINT, LAYOUT, DEVICE, CAMERA = sys.argv[1:]
PATIENCE = 60.0
NAMESPACE = DEVICE.replace("-", "_")
RULE = "door-open"
TYPES = {
    "caption": "std_msgs/msg/String",
    "caption_stamped": "diagnostic_msgs/msg/DiagnosticArray",
    "ask": "std_msgs/msg/String",
    "answer": "std_msgs/msg/String",
    "answer_partial": "std_msgs/msg/String",
    "alert": "vision_msgs/msg/Classification",
}


def hash_of(kind):
    return "TypeHashNotSupported" if LAYOUT == "humble" else type_hash(kind)


def dds_name(kind):
    package, _, name = kind.split("/")
    return f"{package}::msg::dds_::{name}_"


def key(topic, kind):
    if LAYOUT == "bridge":
        return topic
    return f"7/{topic}/{dds_name(kind)}/{hash_of(kind)}"


def camera_key(what):
    return key(f"{NAMESPACE}/camera/{CAMERA}/{what}", TYPES[what])


def expected_token(zid, role, topic, kind, is_kept):
    """Without the number of the endpoint."""
    if LAYOUT == "bridge":
        name, topic = kind.replace("/", "\u00a7"), topic.replace("/", "\u00a7")
        qos = ":1:1:0,1" if is_kept else ":1:0:0,10"
        return f"@/{zid}/@ros2_lv/{role}/{topic}/{name}/{qos}:typehash={type_hash(kind)};"
    topic = "%" + topic.replace("/", "%")
    qos = ":1:,1:,:,:,," if is_kept else "::,10:,:,:,,"
    names = f"%/%{NAMESPACE}/mobilevlmd/{topic}"
    return f"@ros2_lv/7/{zid}/0/ID/{role}/{names}/{dds_name(kind)}/{hash_of(kind)}/{qos}"


def without_number(token, numbers):
    """Tokens of endpoints with rmw_zenoh hold a number of their own."""
    parts = token.split("/")
    if parts[0] == "@" or parts[5] == "NN":
        return token
    numbers.append(int(parts[4]))
    return "/".join(parts[:4] + ["ID"] + parts[5:])


def tokens(session):
    selector = "@/*/@ros2_lv/**" if LAYOUT == "bridge" else "@ros2_lv/**"
    return [str(reply.ok.key_expr) for reply in session.liveliness().get(selector, timeout=PATIENCE)]


def the_node_is_known(session):
    zids = {str(zid) for zid in session.info.peers_zid() + session.info.routers_zid()}
    (zid,) = {token.split("/")[1 if LAYOUT == "bridge" else 2] for token in tokens(session)}
    assert zid in zids, (zid, zids)
    expected = set()
    if LAYOUT != "bridge":
        expected.add(f"@ros2_lv/7/{zid}/0/0/NN/%/%{NAMESPACE}/mobilevlmd")
    for camera in [CAMERA, "dark"]:
        for what in ["caption", "caption_stamped", "ask", "answer", "answer_partial"]:
            role, is_kept = ("MS" if what == "ask" else "MP"), what.startswith("caption")
            topic = f"{NAMESPACE}/camera/{camera}/{what}"
            expected.add(expected_token(zid, role, topic, TYPES[what], is_kept))
    deadline = time.monotonic() + PATIENCE
    while True:
        numbers = []
        seen = {without_number(token, numbers) for token in tokens(session)}
        if seen == expected:
            break
        assert time.monotonic() < deadline, (sorted(seen), sorted(expected))
        time.sleep(0.05)
    assert len(set(numbers)) == len(numbers) and all(number > 0 for number in numbers), numbers


class Attachments:
    """What rmw_zenoh reads beside each message of one topic."""

    def __init__(self):
        self.last, self.gid = 0, None

    def check(self, sample):
        if LAYOUT == "bridge":
            assert sample.attachment is None
            return
        attachment = sample.attachment.to_bytes()
        assert len(attachment) == 33, attachment
        sequence, sent_at, length, gid = struct.unpack("<qqB16s", attachment)
        assert length == 16 and any(gid) and self.gid in (None, gid), attachment
        assert sequence > self.last and abs(sent_at - time.time_ns()) < 600 * 10**9, (sequence, sent_at)
        self.last, self.gid = sequence, gid


def captions_come(session):
    """To plain subscribers, and to those that ask for what was said before."""
    text, stamped = queue.Queue(), queue.Queue()
    plain = session.declare_subscriber(camera_key("caption"), text.put)
    history = zenoh.ext.HistoryConfig(max_samples=1, detect_late_publishers=True)
    kept = zenoh.ext.declare_advanced_subscriber(
        session, camera_key("caption_stamped"), stamped.put, history=history
    )
    attachments = Attachments()
    for _ in range(3):
        sample = text.get(timeout=PATIENCE)
        attachments.check(sample)
        assert str(sample.encoding) == "application/cdr", sample.encoding
        assert String.deserialize(sample.payload.to_bytes()) == String("A red box moves.")
    caption = DiagnosticArray.deserialize(stamped.get(timeout=PATIENCE).payload.to_bytes())
    assert caption.header.stamp == Time(1_700_000_000, 0), caption
    assert caption.header.frame_id == f"{CAMERA}_optical", caption
    (status,) = caption.status
    assert (status.name, status.message, status.hardware_id) == (CAMERA, "A red box moves.", DEVICE)
    values = {pair.key: pair.value for pair in status.values}
    assert values["model_id"] == "made-up" and values["sequence"] == "7", values
    assert float(values["age_ms"]) > 0 and values["truncated"] == "false", values
    plain.undeclare()
    kept.undeclare()


def control(session, change):
    payload = json.dumps(change)
    replies = session.get(
        f"mobilevlm/{DEVICE}/control/rules", payload=payload, encoding="application/json", timeout=PATIENCE
    )
    (reply,) = list(replies)
    assert reply.err is None, reply.err.payload.to_string()


def alerts_begin_and_end(session):
    control(session, {"add": {"name": RULE, "question": "Is the door open?"}})
    alerts = queue.Queue()
    history = zenoh.ext.HistoryConfig(max_samples=1, detect_late_publishers=True)
    alert_key = key(f"{NAMESPACE}/alert/door_open", TYPES["alert"])
    subscriber = zenoh.ext.declare_advanced_subscriber(session, alert_key, alerts.put, history=history)
    sample = alerts.get(timeout=PATIENCE)
    Attachments().check(sample)
    began = Classification.deserialize(sample.payload.to_bytes())
    assert began.header.frame_id == f"{CAMERA}_optical" and began.header.stamp.sec == 1_700_000_000
    assert [(result.class_id, result.score) for result in began.results] == [(RULE, 0.75)], began
    control(session, {"remove": RULE})
    sample = alerts.get(timeout=PATIENCE)
    # What is kept comes like everything else, what is new goes before it.
    assert sample.priority == zenoh.Priority.INTERACTIVE_HIGH, sample.priority
    ended = Classification.deserialize(sample.payload.to_bytes())
    assert ended.results == [] and ended.header == began.header, ended
    subscriber.undeclare()


class Asker:
    """Listens to answers and publishes questions."""

    def __init__(self, session):
        self.session, self.pieces, self.ends = session, queue.Queue(), queue.Queue()
        self.attachments = Attachments()
        self.subscribers = [
            session.declare_subscriber(camera_key("answer_partial"), self.pieces.put),
            session.declare_subscriber(camera_key("answer"), self.ends.put),
        ]

    def ask(self, text):
        self.send(String(text).serialize())

    def send(self, payload):
        self.session.put(
            camera_key("ask"),
            payload,
            encoding="application/cdr",
            congestion_control=zenoh.CongestionControl.BLOCK,
        )

    def end(self):
        sample = self.ends.get(timeout=PATIENCE)
        self.attachments.check(sample)
        return String.deserialize(sample.payload.to_bytes()).data

    def piece(self):
        return String.deserialize(self.pieces.get(timeout=PATIENCE).payload.to_bytes()).data


def questions_end_once(session):
    asker = Asker(session)
    asker.ask("#7 one two three")
    assert asker.end() == "#7 one two three"
    assert [asker.piece() for _ in range(3)] == ["#7 one ", "#7 two ", "#7 three"]
    asker.ask("four")
    assert (asker.piece(), asker.end()) == ("four", "four")

    asker.ask(" ")
    assert asker.end() == "error: bad_request: the question is empty"
    asker.ask("#8 " + "x" * 4097)
    assert asker.end().startswith("#8 error: too_long: ")
    for foreign in [b"", b"What is ahead?", b"\0\1\0\0\xff\xff\xff\xff", String("a").serialize() + bytes(9)]:
        asker.send(foreign)
        assert asker.end().startswith("error: bad_request: std_msgs/msg/String: "), foreign
    asker.send(bytes(100_000))
    assert asker.end().startswith("error: too_long: ")

    marks = [f"#{number}" for number in range(60)]
    for mark in marks:
        asker.ask(f"{mark} a b")
    ends = [asker.end() for _ in marks]
    assert sorted(end.split(" ")[0] for end in ends) == sorted(marks)
    overloaded = [end for end in ends if " error: overloaded: " in end]
    assert len(overloaded) + sum(end.endswith(" a b") for end in ends) == len(marks), ends
    asker.ask("the last")
    assert asker.end() == "the last" and asker.ends.empty()


config = zenoh.Config()
config.insert_json5("mode", '"client"')
config.insert_json5("connect/endpoints", json.dumps([ENDPOINT]))
config.insert_json5("scouting/multicast/enabled", "false")
with zenoh.open(config) as session:
    the_node_is_known(session)
    captions_come(session)
    alerts_begin_and_end(session)
    questions_end_once(session)
