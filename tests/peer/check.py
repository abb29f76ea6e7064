"""The comparison without llama.cpp: programs that answer what they are told to, and tables of known rounds."""

import itertools
import json
import math
import sys
import unittest

import table
import turns

# Says it is ready, then answers each line with what its argument holds for the line, again and again.
FAKE = """
import json, sys
answers = json.loads(sys.argv[1])
print("{}", flush=True)
for line in sys.stdin:
    said = answers[line.strip()]
    said.append(said.pop(0))
    print(json.dumps(said[-1]), flush=True)
"""

FACTS = {"stage": "prefill_q4_0", "tokens": 164, "limit": "int8", "work": 200}


def fake(name, **answers):
    named = {line.replace("_", " "): said for line, said in answers.items()}
    return turns.Side(name, [sys.executable, "-c", FAKE, json.dumps(named)], 1)


def rounds(*times, probe=1000.0):
    return [({"ours": ours, "llama.cpp": theirs}, [probe] * 3) for ours, theirs in times]


class Turns(unittest.TestCase):
    def test_all_have_their_turn_in_each_round_and_the_first_time_does_not_count(self):
        ours = fake(
            "ours",
            prefill=[{**FACTS, "ms": ms} for ms in (9e9, 400, 500, 600)],
            probe_int8=[{"rate": rate} for rate in range(1, 10)],
        )
        theirs = [fake(name, prefill=[{"ms": ms} for ms in (9e9, 1000, 2000, 3000)]) for name in ("a", "b")]
        with ours, theirs[0], theirs[1]:
            taken, facts = turns.take(ours, theirs, "prefill", 2, lambda line: None)
        self.assertEqual(facts["stage"], "prefill_q4_0")
        first, second = {"ours": 400, "a": 1000, "b": 1000}, {"ours": 500, "a": 2000, "b": 2000}
        self.assertEqual([times for times, _ in taken], [first, second])
        self.assertEqual([probes for _, probes in taken], [[1, 2, 3, 4], [5, 6, 7, 8]])
        self.assertEqual([next(iter(times)) for times, _ in taken], ["ours", "a"])

    def test_a_program_that_ends_is_named(self):
        with self.assertRaisesRegex(turns.Lost, "nobody ended with 3"):
            turns.Side("nobody", [sys.executable, "-c", "raise SystemExit(3)"], 1)

    def test_a_program_that_does_not_rest_is_named(self):
        patience, turns.PATIENCE = turns.PATIENCE, 0.2
        try:
            with fake("restless", prefill=[{"ms": 1}]) as side:
                side.cpu_ms = itertools.count(step=20).__next__
                with self.assertRaisesRegex(turns.Lost, "restless keeps a core busy"):
                    side.ask("prefill")
        finally:
            turns.PATIENCE = patience

    def test_cpu_time_is_that_of_all_threads(self):
        with fake("idle", prefill=[{"ms": 1}]) as side:
            before = side.cpu_ms()
            self.assertGreater(before, 0)
            self.assertGreaterEqual(side.cpu_ms(), before)


class Table(unittest.TestCase):
    def test_the_ratio_is_the_median_of_the_rounds(self):
        row = table.row(FACTS, rounds((100, 200), (100, 900), (300, 900)), "llama.cpp")
        self.assertEqual(row.ratio, 3)

    def test_rounds_beside_a_disturbed_probe_do_not_count(self):
        taken = rounds((100, 200), (100, 250)) + rounds((100, 900), probe=800.0)
        row = table.row(FACTS, taken, "llama.cpp")
        self.assertEqual((row.theirs, row.rounds, row.rate), ([200, 250], (2, 3), 1000.0))
        row = table.row(FACTS, rounds((1, 2), probe=1.0) + rounds((1, 3), probe=9.0), "llama.cpp")
        self.assertEqual((row.theirs, row.rounds), ([2, 3], (0, 2)))

    def test_a_line_says_what_was_measured(self):
        row = table.row(FACTS, rounds((400, 1640), (410, 1640), (410, 1722)), "llama.cpp")
        self.assertEqual(
            table.line(row),
            "| prefill_q4_0 | llama.cpp | 100.0 tok/s (5 %) | 400.0 tok/s (2 %) | 4.10 | "
            "12 / 49 % of 1000 GMAC/s (int8) | 3 of 3 |",
        )
        picture = table.row({**FACTS, "stage": "encode_v2"}, [({"ours": 400, "candle": 1640}, [1000.0])], "candle")
        self.assertIn("| candle | 1640 ms (0 %) | 400 ms (0 %) | 4.10 | 50 % of", table.line(picture))

    def test_nothing_beats_the_machine(self):
        for ms, beats in [(400, False), (190, False), (170, True)]:
            row = table.row(FACTS, rounds((ms, 1000)), "llama.cpp")
            self.assertEqual(row.beats_limit(), beats)

    def test_cosines_leave_means_out(self):
        self.assertAlmostEqual(table.cosine([1, 2, 3], [11, 12, 13]), 1)
        self.assertAlmostEqual(table.cosine([1, 2, 3], [3, 2, 1]), -1)
        one = [0, 5, 1, 6, 2, 8]
        far = [value + (100, -3)[index % 2] for index, value in enumerate(one)]
        self.assertAlmostEqual(table.cosine_of_rows(one, far, 3), 1)
        self.assertLess(table.cosine_of_rows(one, one[::-1], 3), 0)

    def test_the_report_holds_every_row(self):
        facts = dict.fromkeys(["processor", "threads", "date", "commit", "rustc", "device"], "x")
        facts |= dict.fromkeys(["peer", "compiler", "features", "candle", "dims"], "y")
        facts |= {"logits": {"q4_0": 0.99987}, "rows": math.pi / 10, "awake": 0.04}
        row = table.row(FACTS, rounds((400, 1640)), "llama.cpp")
        text = table.markdown(facts, [row])
        for line in (table.line(row), "tokens to ours: 0.314.", "q4_0 0.9999.", "0.0 ms of CPU time"):
            self.assertIn(line, text)
        self.assertNotIn("QMatMul", text)


if __name__ == "__main__":
    unittest.main()
