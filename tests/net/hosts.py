"""Builds the hosts, links and programs of `run`, cuts links, and watches what becomes of it.

    hosts.py PROGRAM FOLDER
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PROGRAM, FOLDER = (Path(path).resolve() for path in sys.argv[1:])
HERE = Path(__file__).resolve().parent
FLEET = HERE.parent.parent / "systemd" / "fleet"
HOSTS = {"camera": 1, "model": 2, "viewer": 3}

# Anything that comes later does not come.
PATIENCE = 60.0

# zenoh gives a silent link up after 10 s.
LONGER_THAN_THE_LEASE = 14.0

CAMERA_NODE = """
device_name = "scout"
log = "warn"
[[camera]]
name = "front"
source = "test:"
fps = 10
describe = false
publish_fps = 10
"""

MODEL_NODE = """
device_name = "base"
log = "warn"
[caption]
change_threshold = 0.0
period_s = 0.1
[[camera]]
name = "far"
source = "zenoh:mobilevlm/scout/camera/front/frame"
"""


STARTED = []


def call(*command):
    subprocess.run([str(word) for word in command], check=True)


def start(*command, **options):
    """Starts a process that ends with this one, whatever happens."""
    process = subprocess.Popen([str(word) for word in command], **options)
    STARTED.append(process)
    return process


class Host:
    """A network namespace, held by a process that sleeps in it."""

    def __init__(self):
        self.holder = start("unshare", "--net", "sleep", 1000)
        own = os.stat("/proc/self/ns/net").st_ino
        while os.stat(f"/proc/{self.holder.pid}/ns/net").st_ino == own:
            time.sleep(0.01)
        self.run("ip", "link", "set", "lo", "up")

    def inside(self, *command):
        return ["nsenter", "--net", "--target", self.holder.pid, *command]

    def run(self, *command):
        call(*self.inside(*command))

    def start(self, *command, **options):
        return start(*self.inside(*command), **options)


def link(router, name, host, number):
    """A cable from a host to the router; packets to others than these two go nowhere."""
    pair = ["ip", "link", "add", name, "netns", router.holder.pid, "type", "veth"]
    call(*pair, "peer", "name", "eth0", "netns", host.holder.pid)
    for end, device, last in [(router, name, 1), (host, "eth0", 2)]:
        end.run("ip", "address", "add", f"10.77.{number}.{last}/24", "dev", device)
        end.run("ip", "link", "set", device, "up")


def bus_file(role, host=None):
    """The fleet's sample, with this test's folder and addresses."""
    text = (FLEET / f"{role}.json5").read_text().replace("/etc/mobilevlmd/fleet", str(FOLDER))
    if host is None:
        text = text.replace("tls/[::]:7447", "tls/0.0.0.0:7447")
    else:
        text = text.replace("tls/localhost:7447", f"tls/10.77.{HOSTS[host]}.1:7447")
        # Samples say when they were published: what the bus takes is counted from there.
        text = text.replace('mode: "client",', 'mode: "client",\n  timestamping: { enabled: { client: true } },')
    path = FOLDER / f"{host or role}.json5"
    path.write_text(text)
    return path


class Viewer:
    """What `viewer.py` tells, as it comes."""

    def __init__(self, host):
        command = host.start(
            sys.executable, HERE / "viewer.py", bus_file("viewer", "viewer"), stdout=subprocess.PIPE, text=True
        )
        self.told = queue.Queue()
        threading.Thread(target=self.read, args=[command.stdout], daemon=True).start()

    def read(self, lines):
        for line in lines:
            self.told.put(json.loads(line))

    def wait(self, what, is_wanted):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            ended = [process.args for process in STARTED if process.poll() is not None]
            assert not ended, f"it ended: {ended}"
            try:
                told = self.told.get(timeout=1.0)
            except queue.Empty:
                continue
            if is_wanted(told):
                return told
        raise SystemExit(f"tests/net: {what} did not come within {PATIENCE} s")

    def collect(self, seconds):
        deadline = time.monotonic() + seconds
        told = []
        while (left := deadline - time.monotonic()) > 0:
            try:
                told.append(self.told.get(timeout=left))
            except queue.Empty:
                break
        return told


def is_caption(told):
    return told["kind"] == "caption"


def say(line):
    print(f"tests/net: {line}", flush=True)


def latency(told, kind):
    times = sorted(one["bus_ms"] for one in told if one["kind"] == kind)
    assert times, f"no {kind} came"
    middle, late = times[len(times) // 2], times[len(times) * 99 // 100]
    return f"median {middle:.2f} ms, 99 % within {late:.2f} ms ({len(times)} of them)"


def cut(router, viewer, name, seconds):
    """Cuts a link. Returns what the viewer heard meanwhile."""
    router.run("ip", "link", "set", name, "down")
    viewer.collect(1.0)
    heard = viewer.collect(seconds)
    router.run("ip", "link", "set", name, "up")
    return heard


def main():
    shutil.copy(FLEET / "users.txt", FOLDER)
    call("sh", FLEET / "certificates", FOLDER, *(f"10.77.{number}.1" for number in HOSTS.values()))
    router = Host()
    hosts = {name: Host() for name in HOSTS}
    for name, number in HOSTS.items():
        link(router, name, hosts[name], number)

    middle = router.start(sys.executable, HERE / "router.py", bus_file("router"), stdout=subprocess.PIPE, text=True)
    assert middle.stdout.readline() == "listening\n"
    programs = [middle]
    for name, text in [("camera", CAMERA_NODE), ("model", MODEL_NODE)]:
        config = FOLDER / f"{name}.toml"
        config.write_text(f'{text.lstrip()}\n[bus]\nzenoh_config = "{bus_file("daemon", name)}"\n')
        programs.append(hosts[name].start(PROGRAM, "run", "--config", config))
    viewer = Viewer(hosts["viewer"])

    start = time.monotonic()
    viewer.wait("a caption", is_caption)
    say(f"captions of the camera node's frames reach the viewer, the first after {time.monotonic() - start:.1f} s")
    told = viewer.collect(10.0)
    size = sorted(one["bytes"] for one in told if one["kind"] == "frame")
    say(f"from publication over TLS, router and TLS: captions {latency(told, 'caption')}")
    say(f"frames of {size[len(size) // 2] // 1024} KiB: {latency(told, 'frame')}")
    for device in ["scout", "base"]:
        resident = max(one["resident_mib"] for one in told if one["kind"] == "status" and one["device"] == device)
        say(f"resident memory of {device}: {resident:.0f} MiB")
    ages = sorted(one["age_ms"] for one in told if is_caption(one))
    say(f"captions are published {ages[len(ages) // 2]:.0f} ms after the capture on the other host (median)")

    router.run("ip", "link", "set", "camera", "down")
    lost = viewer.wait("the loss", lambda told: told["kind"] == "state" and told["phase"] != "live")
    say(f"camera node cut off: its camera is {lost['phase']}, {lost['reason']}")
    viewer.collect(1.0)
    assert not any(map(is_caption, viewer.collect(3.0))), "nothing is described that is not seen"
    router.run("ip", "link", "set", "camera", "up")
    start = time.monotonic()
    viewer.wait("the camera", lambda told: told["kind"] == "state" and told["phase"] == "live")
    viewer.wait("a caption", is_caption)
    say(f"link restored: captions again after {time.monotonic() - start:.1f} s")

    for name, seconds in [("model", 3.0), ("viewer", LONGER_THAN_THE_LEASE)]:
        heard = cut(router, viewer, name, seconds)
        assert not any(map(is_caption, heard)), f"the link of {name} is cut"
        start = time.monotonic()
        viewer.wait("a caption", is_caption)
        say(f"{name} cut off for {seconds:.0f} s: captions again after {time.monotonic() - start:.1f} s")

    for program in programs[1:]:
        assert program.poll() is None, "the daemons still run"
        program.terminate()
    for program in programs[1:]:
        assert program.wait(timeout=PATIENCE) == 0, "the daemons end well"
    say("all fine")


signal.signal(signal.SIGTERM, lambda *_: sys.exit("tests/net: told to stop"))
try:
    main()
finally:
    for process in STARTED:
        process.kill()
