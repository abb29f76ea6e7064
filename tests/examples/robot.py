"""A robot's node in Python: hears captions and alerts, asks, and changes what is asked of the camera.

    robot.py [ENDPOINT]            needs: pip install eclipse-zenoh
"""

import json
import sys

import zenoh

ENDPOINT = sys.argv[1] if len(sys.argv) > 1 else "tcp/127.0.0.1:7447"

config = zenoh.Config()
config.insert_json5("mode", '"client"')
config.insert_json5("connect/endpoints", json.dumps([ENDPOINT]))

with zenoh.open(config) as session:
    # Who is there?
    (status,) = [json.loads(r.ok.payload.to_string()) for r in session.get("mobilevlm/*/status/json") if r.ok]
    root, camera = f"mobilevlm/{status['device']}", status["cameras"][0]["state"]["camera"]
    print(f"{status['device']} sees through {camera} with {status['model']['id']}")

    # Captions, as they come. The stamp is the time of capture.
    captions = session.declare_subscriber(f"{root}/camera/{camera}/caption/json")
    for _ in range(3):
        caption = json.loads(captions.recv().payload.to_string())
        print(f"{caption['frame']['captured_at']}: {caption['text']}")

    # A question, with the pieces of its answer as they are written. The last reply has an attachment.
    question = json.dumps({"text": "What do you see?", "max_tokens": 32, "deadline_ms": 20000})
    replies = session.get(
        f"{root}/camera/{camera}/ask",
        payload=question,
        encoding="application/json",
        consolidation=zenoh.ConsolidationMode.NONE,
        timeout=30,
    )
    for reply in replies:
        if reply.err is not None:
            sys.exit(f"no answer: {reply.err.payload.to_string()}")
        piece = json.loads(reply.ok.payload.to_string())
        if "text" in piece:
            print(piece["text"]["text"], end="", flush=True)
        else:
            print(f"\n(frame {piece['final']['frame']['sequence']}, {piece['final']['tokens']['generated']} tokens)")

    # Alerts: watch for something until it happens. At this threshold it happens at once.
    alerts = session.declare_subscriber(f"{root}/alert/example/json")
    rule = {"name": "example", "question": "Is there anything?", "threshold": 1e-30, "release_threshold": 0}
    for change in [{"add": rule}, {"remove": "example"}]:
        for reply in session.get(f"{root}/control/rules", payload=json.dumps(change), encoding="application/json"):
            if reply.err is not None:
                sys.exit(f"not changed: {reply.err.payload.to_string()}")
        alert = json.loads(alerts.recv().payload.to_string())
        print(f"alert {alert['rule']}: {alert['event']}, yes: {alert['p_yes']:.0%}")
