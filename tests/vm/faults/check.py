"""Checks what the churn said. Usage: check.py LOG"""

import sys

from told import all_of, judge

GROWTH_KIB = 256  # One percent of what the smallest daemon holds; a few frames more or less in reuse stay below it.


def churn(case):
    ends = case.having("end")
    problems = [told["problem"] for told in case.having("problem")]
    if not ends or problems:
        return f"{problems or case.text[-3:]}"
    end = ends[0]["end"]
    quiet = case.having("quiet")[0]["quiet"]["longest_interval_ms"]
    faults = [told["fault"] for told in case.having("fault")]
    for fault in faults:
        taken = fault["taken"]
        mean = taken["recovery_ms"] / taken["times"]
        print(
            f"     {fault['fault']:<14} {taken['times']:>4} times, live again after {mean:.0f} ms, "
            f"at most {taken['longest_recovery_ms']} ms; others at most {taken['longest_interval_of_others_ms']} ms"
        )
    states = ", ".join(f"{told['states']['times']} {told['states']['phase'].lower()}" for told in case.having("states"))
    print(f"     without faults at most {quiet} ms between frames; states told and published: {states}")
    print(f"     {end['cycles']} cycles, {end['seconds']} s; before {end['before']}, after {end['after']}")
    before, after = end["before"], end["after"]
    others = max(fault["taken"]["longest_interval_of_others_ms"] for fault in faults)
    return all_of(
        None if end["problems"] == 0 else f"{end['problems']} problems",
        None if len(faults) >= 12 else f"only {len(faults)} kinds of faults",
        None if all(before[k] == after[k] for k in ("descriptors", "buffers", "threads")) else f"{before} -> {after}",
        None if after["resident_kib"] <= before["resident_kib"] + GROWTH_KIB else f"{before} -> {after}",
        # A stall is two seconds.
        None if others < 1000 else f"another camera was without frames for {others} ms",
    )


if __name__ == "__main__":
    sys.exit(judge({"churn": churn, "machine": lambda case: None}, "cases passed"))
