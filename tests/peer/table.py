"""What rounds say: medians, spreads, ratios and parts of the machine's limit, as a table in Markdown."""

import dataclasses
import math
import operator
import statistics

# By how much the machine may differ from its median beside a round that counts.
TOLERANCE = 0.1

UNITS = {"read": "GB/s", "int8": "GMAC/s", "f32": "GMAC/s"}


@dataclasses.dataclass
class Row:
    """A stage of ours and of one opponent."""

    stage: str
    opponent: str
    tokens: int
    # Milliseconds of each round that counts, in the order of the rounds.
    theirs: list
    ours: list
    rounds: int
    # What bounds the stage, what it asks of that in 10^9, and what the machine did of it in 10^9 per second.
    limit: str
    work: float
    rate: float

    @property
    def ratio(self):
        """How many times as long the opponent takes: the median of what single rounds say."""
        return statistics.median(theirs / ours for theirs, ours in zip(self.theirs, self.ours, strict=True))

    def of_limit(self, times):
        """Part of what the machine did at the same time."""
        return self.work / (statistics.median(times) / 1e3) / self.rate

    def beats_limit(self):
        return any(self.of_limit(times) > 1 + TOLERANCE for times in (self.theirs, self.ours) if times)


def steady(rounds):
    """Rounds beside which the machine was the same, and what it did then.

    A round counts unless a probe in it is off the median of all. If none would be left, all count.
    """
    rate = statistics.median(probe for _, probes in rounds for probe in probes)
    kept = [times for times, probes in rounds if all(abs(probe / rate - 1) <= TOLERANCE for probe in probes)]
    return kept or [times for times, _ in rounds], len(kept), rate


def row(facts, rounds, opponent):
    times, kept, rate = steady(rounds)
    return Row(
        stage=facts["stage"],
        opponent=opponent,
        tokens=facts["tokens"],
        theirs=[each[opponent] for each in times],
        ours=[each["ours"] for each in times],
        rounds=(kept, len(rounds)),
        limit=facts["limit"],
        work=facts["work"],
        rate=rate,
    )


def spread(times):
    """From the quickest to the slowest, 1 being the median."""
    return (max(times) - min(times)) / statistics.median(times)


def angle(one, other):
    """The cosine between two lists of numbers."""
    product = math.fsum(map(operator.mul, one, other))
    return product / math.hypot(*one) / math.hypot(*other)


def centred(values):
    mean = statistics.fmean(values)
    return [value - mean for value in values]


def cosine(one, other):
    """Of what is left of both without their means."""
    return angle(centred(one), centred(other))


def cosine_of_rows(one, other, count):
    """The median cosine of rows, each channel's mean over all rows taken off first."""
    width = len(one) // count

    def rows(values):
        channels = [centred(values[channel::width]) for channel in range(width)]
        return zip(*channels, strict=True)

    return statistics.median(map(angle, rows(one), rows(other)))


def timing(row, times):
    """Pictures in milliseconds, text in tokens per second."""
    median = statistics.median(times)
    text = f"{median:.0f} ms" if row.stage.startswith("encode") else f"{row.tokens / median * 1e3:.1f} tok/s"
    return f"{text} ({spread(times) * 100:.0f} %)"


def line(row):
    # candle multiplies, but does not attend: what the stage asks for is not what it does.
    theirs = "" if row.opponent == "candle" else f"{row.of_limit(row.theirs) * 100:.0f} / "
    limit = f"{theirs}{row.of_limit(row.ours) * 100:.0f} % of {row.rate:.0f} {UNITS[row.limit]} ({row.limit})"
    kept, rounds = row.rounds
    cells = [row.stage, row.opponent, timing(row, row.theirs), timing(row, row.ours), f"{row.ratio:.2f}", limit]
    return f"| {' | '.join([*cells, f'{kept} of {rounds}'])} |"


def markdown(facts, rows):
    """The whole report."""
    lines = [
        "# llama.cpp, candle and ours in turn",
        "",
        "What `tests/peer/run` printed: the same made-up files and the same number of threads, one program after the",
        "other in each round while the others sleep. Medians with their spread, from the quickest round to the slowest;",
        "how many times as fast ours is, is the median of the rounds' own ratios. Rounds with a probe of the machine that",
        "is more than a tenth off the median do not count, unless there is no other.",
        "",
        f"- {facts['processor']}, {facts['threads']} threads each, {facts['date']}; dimensions of MobileVLM {facts['dims']}",
        f"- ours: commit {facts['commit']}, {facts['rustc']}, {facts['device']}",
        f"- llama.cpp: {facts['peer']}, {facts['compiler']}, compiled for this processor: {facts['features']}",
        f"- candle: {facts['candle']}",
        "",
        "| stage | against | theirs | ours | times as fast | of the limit: theirs / ours | rounds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *map(line, rows),
        "",
    ]
    if any(row.opponent == "candle" for row in rows):
        lines += [
            "candle: the matrix products of a prefill alone, by `QMatMul`. Ours beside it is the whole prefill, with norms,",
            "rope, attention and logits. On x86-64 candle has packed kernels for Q4_K, Q6_K and Q8_0, none for Q4_0.",
            "",
        ]
    if "rows" in facts:
        lines += [
            "The same picture gives other numbers in llama.cpp: its graph puts the class token behind the patches and runs",
            "one block fewer than MobileVLM; its part of the limit is that of the whole work. Median cosine of its visual",
            f"tokens to ours: {facts['rows']:.3f}. Ours holds the tower in 8 bits, llama.cpp as the file does, in f16.",
            "",
        ]
    logits = ", ".join(f"{kind} {value:.4f}" for kind, value in facts["logits"].items())
    lines += [f"Cosine of its logits behind the prompt to ours: {logits}.", ""]
    lines += [f"A program that waited for its turn used {facts['awake']:.1f} ms of CPU time at most during another's."]
    return "\n".join(lines)
