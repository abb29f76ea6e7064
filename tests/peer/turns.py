"""Programs that take turns: a line asks one of them for a stage, a line of JSON answers, and then it sleeps."""

import json
import os
import pathlib
import subprocess
import sys
import time

# How long a program's threads may go on after its answer, and how long they must then stand still, in seconds.
PATIENCE = 10
PAUSE = 0.02

# CPU time within a pause that is none: the kernel's own bookkeeping.
REST_MS = 0.5


class Lost(Exception):
    """A program that ended, or never rests."""


class Side:
    """A program that is asked for stages."""

    def __init__(self, name, command, threads):
        self.name = name
        # What kept a core from others while they had their turn, in milliseconds.
        self.awake = 0
        # candle has no other way to be told.
        env = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)
        try:
            self.ready = self.answer()
        except Lost:
            self.end()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end()

    def end(self):
        """Ends the program: a program without lines to come ends by itself."""
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Lost(f"{self.name} ended with {self.process.wait()}; its last words stand above")
        return json.loads(line)

    def ask(self, line):
        """Has a line answered, and waits until the program rests again."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.rest()
        return answer

    def cpu_ms(self):
        """CPU time of all threads that it has."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")
        total = 0
        for task in tasks.glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except OSError:
                continue  # A thread that has just ended.
        return total / 1e6

    def rest(self):
        """Waits until no thread runs: they may look out for work for a while after the last."""
        end = time.monotonic() + PATIENCE
        before = self.cpu_ms()
        while True:
            time.sleep(PAUSE)
            now = self.cpu_ms()
            # Threads that have ended make it less.
            if now - before < REST_MS:
                return
            if time.monotonic() > end:
                raise Lost(f"{self.name} keeps a core busy between turns")
            before = now


def take(ours, theirs, stage, count, say=lambda line: print(line, file=sys.stderr)):
    """Lets programs do a stage in turn; returns the rounds, and what ours says of the stage.

    A round is the time of each in milliseconds, and what the machine did before, between and after them. Whoever was
    first is the last in the next round.
    """
    sides = [ours, *theirs]
    # The first time is not counted: pages are touched, clocks go up.
    answers = [side.ask(stage) for side in sides]
    facts = answers[0]
    probe = f"probe {facts['limit']}"
    rounds = []
    for index in range(count):
        turn = index % len(sides)
        times, probes = {}, []
        for side in sides[turn:] + sides[:turn]:
            probes.append(ours.ask(probe)["rate"])
            others = [(other, other.cpu_ms()) for other in sides if other is not side]
            times[side.name] = side.ask(stage)["ms"]
            for other, before in others:
                other.awake = max(other.awake, other.cpu_ms() - before)
        probes.append(ours.ask(probe)["rate"])
        rounds.append((times, probes))
        say(f"{facts['stage']} {index + 1}/{count}: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in times.items()))
    return rounds, facts
