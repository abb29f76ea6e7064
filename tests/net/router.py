"""zenoh's router on a configuration file, until it is killed: `router.py FILE`."""

import sys
import threading

import zenoh

with zenoh.open(zenoh.Config.from_file(sys.argv[1])):
    print("listening", flush=True)
    threading.Event().wait()
