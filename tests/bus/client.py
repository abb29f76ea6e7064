"""A robot's node in Python: subscribes, asks, is answered, and is refused with a reason.

    client.py ENDPOINT DEVICE CAMERA

Ends with status 0 if the daemon at ENDPOINT keeps every promise of the bus.
"""

import base64
import json
import queue
import struct
import sys

import zenoh
import zenoh.ext

ENDPOINT, DEVICE, CAMERA = sys.argv[1:]
ROOT = f"mobilevlm/{DEVICE}"
ASK = f"{ROOT}/camera/{CAMERA}/ask"
POSTCARD = "application/postcard;question@1"
PATIENCE = 60.0


def open_session():
    config = zenoh.Config()
    config.insert_json5("mode", '"client"')
    config.insert_json5("connect/endpoints", json.dumps([ENDPOINT]))
    config.insert_json5("scouting/multicast/enabled", "false")
    return zenoh.open(config)


def ask(session, payload, encoding=None, key=ASK, stream=True):
    """All replies to a question: (samples, errors)."""
    consolidation = zenoh.ConsolidationMode.NONE if stream else zenoh.ConsolidationMode.AUTO
    replies = list(
        session.get(key, payload=payload, encoding=encoding, consolidation=consolidation, timeout=PATIENCE)
    )
    return [r.ok for r in replies if r.ok is not None], [r.err for r in replies if r.err is not None]


def refusal(session, payload, encoding, key=ASK):
    """The one error a question gets, and nothing else."""
    samples, errors = ask(session, payload, encoding, key)
    assert samples == [] and len(errors) == 1, (samples, errors)
    payload, written = errors[0].payload, str(errors[0].encoding)
    if encoding == "application/json":
        assert written == "application/json", written
        (kind,) = json.loads(payload.to_string())
        return kind
    if encoding == POSTCARD:
        assert written == "application/postcard;ask_error@1", written
        kinds = "unknown_camera no_frame too_long overloaded deadline cancelled constraint bad_request internal"
        return kinds.split()[payload.to_bytes()[0]]
    assert written == "text/plain", written
    return payload.to_string().split(":")[0]


def captions_come(session):
    """Captions, their JSON twins and the pieces of them."""
    seen = {}
    for key in ["caption", "caption/json", "caption/partial/json"]:
        seen[key] = queue.Queue()
    subscribers = [
        session.declare_subscriber(f"{ROOT}/camera/{CAMERA}/{key}", seen[key].put) for key in seen
    ]
    binary = seen["caption"].get(timeout=PATIENCE)
    assert str(binary.encoding) == "application/postcard;caption@1", binary.encoding
    twin = seen["caption/json"].get(timeout=PATIENCE)
    assert str(twin.encoding) == "application/json", twin.encoding
    caption = json.loads(twin.payload.to_string())
    assert caption["frame"]["camera"] == CAMERA and caption["frame"]["captured_at"] > 10**18, caption
    assert caption["age_ms"] > 0 and caption["model_id"] and caption["prompt_id"], caption
    assert set(caption["timings"]) == {"queue_ms", "preprocess_ms", "encode_ms", "prefill_ms", "decode_ms"}
    piece = json.loads(seen["caption/partial/json"].get(timeout=PATIENCE).payload.to_string())
    assert piece["frame"]["camera"] == CAMERA and isinstance(piece["text"], str), piece
    for subscriber in subscribers:
        subscriber.undeclare()


def late_subscribers_get_what_was_said_last(session):
    """The state of a camera is published when it changes, so only what is kept can come."""
    for key in [f"{ROOT}/camera/*/state/json", f"{ROOT}/camera/{CAMERA}/caption/json"]:
        got = queue.Queue()
        history = zenoh.ext.HistoryConfig(max_samples=1, detect_late_publishers=True)
        subscriber = zenoh.ext.declare_advanced_subscriber(session, key, got.put, history=history)
        json.loads(got.get(timeout=PATIENCE).payload.to_string())
        subscriber.undeclare()


def plain_questions_stream(session):
    samples, errors = ask(session, "What is ahead?")
    assert errors == [], [e.payload.to_string() for e in errors]
    assert {str(s.encoding) for s in samples} == {"text/plain"}
    finals = [s for s in samples if s.attachment is not None]
    assert len(finals) == 1 and finals[0] is samples[-1], "one final reply, the last"
    text = finals[0].payload.to_string()
    pieces = [s.payload.to_string() for s in samples[:-1]]
    assert pieces and "".join(pieces) == text, (pieces, text)
    answer = json.loads(finals[0].attachment.to_string())
    assert answer["text"] == text and answer["frame"]["camera"] == CAMERA, answer

    # Without streaming only the whole answer arrives.
    samples, errors = ask(session, "What is ahead?", stream=False)
    assert errors == [] and len(samples) == 1 and samples[0].attachment is not None


def json_questions_stream(session, jpeg):
    picture = base64.b64encode(jpeg).decode()
    for frame in ["latest", "fresh", {"picture": picture}]:
        question = json.dumps({"text": "What is ahead?", "frame": frame, "max_tokens": 8})
        samples, errors = ask(session, question, "application/json")
        assert errors == [], [e.payload.to_string() for e in errors]
        pieces = [json.loads(s.payload.to_string()) for s in samples]
        assert [list(p) for p in pieces] == [["text"]] * (len(pieces) - 1) + [["final"]], pieces
        assert [p["text"]["index"] for p in pieces[:-1]] == list(range(len(pieces) - 1))
        assert "".join(p["text"]["text"] for p in pieces[:-1]) == pieces[-1]["final"]["text"]


def postcard_question(text):
    """Text, frame latest, three zeros, sampling; no stop texts, session or constraint."""
    assert len(text) < 128
    return bytes([len(text)]) + text.encode() + bytes([0, 0, 0, 0]) + struct.pack("<ff", 0, 0) + bytes(4)


def postcard_questions_stream(session):
    samples, errors = ask(session, postcard_question("What is ahead?"), POSTCARD)
    assert errors == [], errors
    assert {str(s.encoding) for s in samples} == {"application/postcard;answer_piece@1"}
    variants = [s.payload.to_bytes()[0] for s in samples]
    assert variants == [0] * (len(variants) - 1) + [1], variants


def errors_are_typed(session):
    attic = f"{ROOT}/camera/attic/ask"
    question = json.dumps({"text": "What is ahead?"})
    for payload, encoding in [
        ("What is ahead?", None),
        (question, "application/json"),
        (postcard_question("What is ahead?"), POSTCARD),
    ]:
        assert refusal(session, payload, encoding, attic) == "unknown_camera"
    for payload, encoding in [
        ("", None),
        (" \n", "text/plain"),
        ('{"text": ""}', "application/json"),
        (postcard_question(""), POSTCARD),
    ]:
        assert refusal(session, payload, encoding) == "bad_request"
    huge = "x" * 10_000_000
    for payload, encoding in [
        (huge, None),
        (json.dumps({"text": huge}), "application/json"),
        (b"\x80\xad\xe2\x04" + huge.encode() + bytes(14), POSTCARD),
        ("x" * 5000, None),
    ]:
        assert refusal(session, payload, encoding) == "too_long"
    whole = postcard_question("What is ahead?")
    for malformed in [b"", whole[:-1], whole + b"\0", b"\xff" * 40]:
        assert refusal(session, malformed, POSTCARD) == "bad_request"
    for malformed in ["", "{", '{"text": 1}', '{"txet": "a"}', '{"text": "a", "frame": "newest"}', "[" * 100_000]:
        assert refusal(session, malformed, "application/json") == "bad_request"
    for picture in ["%%%", base64.b64encode(b"no picture").decode(), base64.b64encode(b"\xff\xd8\xff\xe0").decode()]:
        payload = json.dumps({"text": "What is this?", "frame": {"picture": picture}})
        assert refusal(session, payload, "application/json") == "bad_request", picture
    assert refusal(session, b"\xff\xfe", None) == "bad_request"
    assert refusal(session, whole, "application/postcard;question@999") == "bad_request"


def one(session, key):
    (reply,) = list(session.get(key, timeout=PATIENCE))
    assert reply.ok is not None, reply.err.payload.to_string()
    return reply.ok


def the_daemon_shows_itself(session):
    (token,) = list(session.liveliness().get("mobilevlm/*/alive", timeout=PATIENCE))
    assert str(token.ok.key_expr) == f"{ROOT}/alive"

    status = json.loads(one(session, f"{ROOT}/status/json").payload.to_string())
    assert status["device"] == DEVICE and status["version"], status
    assert CAMERA in [camera["state"]["camera"] for camera in status["cameras"]], status
    published = queue.Queue()
    subscriber = session.declare_subscriber(f"{ROOT}/status/json", published.put)
    assert set(json.loads(published.get(timeout=PATIENCE).payload.to_string())) == set(status)
    subscriber.undeclare()

    state = json.loads(one(session, f"{ROOT}/camera/{CAMERA}/state/json").payload.to_string())
    assert state["camera"] == CAMERA and state["phase"] == "live", state


def frames_are_pictures(session):
    frame = one(session, f"{ROOT}/camera/{CAMERA}/frame")
    jpeg = frame.payload.to_bytes()
    assert str(frame.encoding) == "image/jpeg" and jpeg[:2] == b"\xff\xd8" and jpeg[-2:] == b"\xff\xd9"
    stamp = json.loads(frame.attachment.to_string())
    assert stamp["camera"] == CAMERA and stamp["captured_at"] > 10**18, stamp
    for selector, kind in [
        (f"{CAMERA}/frame?sequence=99999999", "no_frame"),
        (f"{CAMERA}/frame?sequence=first", "bad_request"),
        ("attic/frame", "unknown_camera"),
        ("attic/state", "unknown_camera"),
    ]:
        (reply,) = list(session.get(f"{ROOT}/camera/{selector}", timeout=PATIENCE))
        assert list(json.loads(reply.err.payload.to_string())) == [kind], reply.err.payload.to_string()
    return jpeg


def control(session, name, change):
    """What there is after a change, or the kind of its error."""
    payload = None if change is None else json.dumps(change)
    key = f"{ROOT}/control/{name}"
    (reply,) = list(session.get(key, payload=payload, encoding="application/json", timeout=PATIENCE))
    if reply.err is not None:
        assert str(reply.err.encoding) == "application/json", reply.err.encoding
        (kind,) = json.loads(reply.err.payload.to_string())
        return kind
    assert str(reply.ok.encoding) == "application/json", reply.ok.encoding
    return json.loads(reply.ok.payload.to_string())


def rules(session, change):
    """The rules after a change, or the kind of its error."""
    state = control(session, "rules", change)
    return state if isinstance(state, str) else state["rules"]


def rules_change_and_alerts_come(session):
    alerts = queue.Queue()
    subscriber = session.declare_subscriber(f"{ROOT}/alert/*/json", alerts.put)
    assert rules(session, None) == rules(session, "get") == []
    # Whatever the answer is, its probability is over this threshold.
    sure = {"name": "sure", "question": "Is there anything?", "threshold": 1e-30, "release_threshold": 0}
    (added,) = rules(session, {"add": {**sure, "cameras": [CAMERA]}})
    assert added["min_duration_s"] == 0 and added["cameras"] == [CAMERA], added
    began = alerts.get(timeout=PATIENCE)
    assert str(began.key_expr) == f"{ROOT}/alert/sure/json", began.key_expr
    began = json.loads(began.payload.to_string())
    assert began["event"] == "began" and began["frame"]["camera"] == CAMERA, began
    assert began["question"] == sure["question"] and 0 < began["p_yes"] <= 1 and began["model_id"], began
    for change, kind in [
        ({"add": sure}, "bad_request"),
        ({"add": {**sure, "name": "a/b"}}, "bad_request"),
        ({"add": {**sure, "name": "other", "threshold": 2}}, "bad_request"),
        ({"add": {**sure, "name": "other", "cameras": ["attic"]}}, "unknown_camera"),
        ({"set": [{**sure, "name": str(i)} for i in range(33)]}, "too_long"),
        ({"remove": "other"}, "unknown_rule"),
        ({"remove": 1}, "bad_request"),
        ("delete", "bad_request"),
        ({"add": {**sure, "question": "x" * 2_000_000}}, "too_long"),
    ]:
        assert rules(session, change) == kind, (change, kind)
    assert control(session, "doors", "get") == "bad_request"
    assert rules(session, {"remove": "sure"}) == []
    ended = json.loads(alerts.get(timeout=PATIENCE).payload.to_string())
    assert ended["event"] == {"ended": "rule_changed"} and ended["began"] == began["frame"], ended
    assert alerts.empty()
    subscriber.undeclare()


def captions_are_changed_in_one_order(session):
    """Two controllers: each sees the other's change, and whose came last."""
    states = {"captions": queue.Queue(), "rules": queue.Queue()}
    subscribers = [
        session.declare_subscriber(f"{ROOT}/control/{name}/json", states[name].put) for name in states
    ]
    before = control(session, "captions", None)
    own = {"cameras": [CAMERA], "prompt": "What is there?", "prompt_id": "list"}
    mine = control(session, "captions", {"set": own})
    with open_session() as other:
        theirs = control(other, "captions", {"set": {"cameras": [CAMERA], "period_s": 0.125}})
    assert before["revision"] < mine["revision"] < theirs["revision"], (before, mine, theirs)
    told = [json.loads(states["captions"].get(timeout=PATIENCE).payload.to_string()) for _ in range(2)]
    assert told == [mine, theirs], told
    (values,) = [values for values in theirs["cameras"] if values["camera"] == CAMERA]
    assert values["prompt"] == own["prompt"] and values["period_s"] == 0.125 and not values["paused"], values
    for change, kind in [
        ({"set": {"cameras": ["attic"], "paused": True}}, "unknown_camera"),
        ({"set": {"prompt": " "}}, "bad_request"),
        ({"set": {"period_s": -1}}, "bad_request"),
        ({"set": {"pause": True}}, "bad_request"),
        ({"set": {"prompt": "x" * 9000}}, "too_long"),
        ({"set": {"prompt": "x" * 70000}}, "too_long"),
        ({"forget": []}, "bad_request"),
    ]:
        assert control(session, "captions", change) == kind, (change, kind)
    after = control(session, "captions", {"reset": [CAMERA]})
    assert after["cameras"] == before["cameras"], (before, after)
    assert isinstance(control(session, "sessions", "get")["sessions"], list)
    assert control(session, "sessions", {"end": {"name": "tour"}}) == "bad_request"
    assert rules(session, "reset") == []
    rules_then = json.loads(states["rules"].get(timeout=PATIENCE).payload.to_string())
    assert rules_then["rules"] == [] and rules_then["revision"] > 0, rules_then
    for subscriber in subscribers:
        subscriber.undeclare()


with open_session() as session:
    the_daemon_shows_itself(session)
    captions_come(session)
    late_subscribers_get_what_was_said_last(session)
    jpeg = frames_are_pictures(session)
    plain_questions_stream(session)
    json_questions_stream(session, jpeg)
    postcard_questions_stream(session)
    errors_are_typed(session)
    rules_change_and_alerts_come(session)
    captions_are_changed_in_one_order(session)
    # After all that nonsense it still answers.
    plain_questions_stream(session)
