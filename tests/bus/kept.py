"""Changes that outlast the daemon: `kept.py ENDPOINT DEVICE CAMERA change` makes some, `... see` finds them,
`... none` finds what the configuration says."""

import json
import sys

import zenoh

ENDPOINT, DEVICE, CAMERA, ACTION = sys.argv[1:]
PATIENCE = 60.0
RULE = {"name": "kept", "question": "Is the door blocked?", "min_duration_s": 3600}
NEW = {"prompt": "What do you see?", "prompt_id": "list", "period_s": 0.25}


def control(session, name, change):
    key = f"mobilevlm/{DEVICE}/control/{name}"
    payload = json.dumps(change)
    (reply,) = list(session.get(key, payload=payload, encoding="application/json", timeout=PATIENCE))
    assert reply.err is None, reply.err.payload.to_string()
    return json.loads(reply.ok.payload.to_string())


config = zenoh.Config()
config.insert_json5("mode", '"client"')
config.insert_json5("connect/endpoints", json.dumps([ENDPOINT]))
config.insert_json5("scouting/multicast/enabled", "false")
with zenoh.open(config) as session:
    if ACTION == "change":
        control(session, "rules", {"add": RULE})
        control(session, "captions", {"set": NEW})
        control(session, "captions", {"set": {"cameras": [CAMERA], "paused": True}})
        control(session, "captions", {"set": {"cameras": [CAMERA], "paused": False}})
    rules = control(session, "rules", "get")["rules"]
    (values,) = control(session, "captions", "get")["cameras"]
    is_new = all(values[key] == NEW[key] for key in NEW)
    assert values["camera"] == CAMERA and not values["paused"], values
    if ACTION == "none":
        assert rules == [] and not is_new, (rules, values)
    else:
        assert [rule["name"] for rule in rules] == ["kept"] and is_new, (rules, values)
        # A caption of the new prompt comes.
        captions = session.declare_subscriber(f"mobilevlm/{DEVICE}/camera/{CAMERA}/caption/json")
        while json.loads(captions.recv().payload.to_string())["prompt_id"] != "list":
            pass
