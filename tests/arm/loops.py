"""Counts the instructions and cycles of matmul kernels: ours and ggml's, the same way.

A kernel runs once in the emulator, which writes down each instruction executed. The list, which is what a processor
would see however loops are nested, goes through llvm-mca. Prints a table in Markdown.

usage: loops.py OURS PEER OBJDUMP MCA FOLDER     the programs; a folder for traces
"""

import pathlib
import re
import subprocess
import sys

OURS, PEER, OBJDUMP, MCA, FOLDER = sys.argv[1:]
INPUTS = 2048
OUTPUTS = 16
ROWS = 16
PROCESSORS = ["cortex-a76", "cortex-a78", "neoverse-n1"]

# Type, and ggml's kernels: one output and one row; 16 outputs and one row; 16 outputs and 16 rows.
TYPES = [
    ("q4_0", "ggml_vec_dot_q4_0_q8_0", "ggml_gemv_q4_0_4x4_q8_0", "ggml_gemm_q4_0_4x4_q8_0"),
    ("q4_k", "ggml_vec_dot_q4_K_q8_K", "ggml_gemv_q4_K_8x4_q8_K", "ggml_gemm_q4_K_8x4_q8_K"),
    ("q8_0", "ggml_vec_dot_q8_0_q8_0", "ggml_gemv_q8_0_4x4_q8_0", "ggml_gemm_q8_0_4x4_q8_0"),
]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def instructions(program):
    """What each address of a program holds, without the names that llvm-mca does not know."""
    found = {}
    for line in output(OBJDUMP, "-d", "--no-show-raw-insn", program).splitlines():
        match = re.match(r"\s*([0-9a-f]+):\s+(.*?)\s*(//.*)?$", line)
        if match:
            text = re.sub(r"\s*<[^>]*>", "", match[2])
            # Where a branch goes does not matter; how far it can go would.
            text = re.sub(r"^((?:b\S*|cbn?z|tbn?z|adrp?)\s.*?)0x[0-9a-f]+$", r"\g<1>#4096", text)
            found[int(match[1], 16)] = text
    return found


def functions(program, pattern):
    """Addresses and sizes of the functions whose names hold a pattern."""
    lines = output("aarch64-linux-gnu-nm", "-S", "-C", program).splitlines()
    rows = [line.split(maxsplit=3) for line in lines]
    return [(int(row[0], 16), int(row[1], 16)) for row in rows if len(row) == 4 and re.search(pattern, row[3])]


def executed(program, ranges, *arguments):
    """Addresses of the instructions executed within functions, in order."""
    low, high = min(start for start, _ in ranges), max(start + size for start, size in ranges)
    log = pathlib.Path(FOLDER) / "trace"
    output("qemu-aarch64-static", "-cpu", "cortex-a76", "-singlestep", "-d", "exec,nochain", "-dfilter",
           f"{low:#x}..{high:#x}", "-D", str(log), program, *arguments)
    addresses = [int(address, 16) for address in re.findall(r"\[[0-9a-f]+/([0-9a-f]+)/", log.read_text())]
    log.unlink()
    return [at for at in addresses if any(start <= at < start + size for start, size in ranges)]


def cycles(texts, processor):
    source = pathlib.Path(FOLDER) / "trace.s"
    source.write_text("\n".join(text for text in texts if text != "ret") + "\n")
    report = output(MCA, "-mtriple=aarch64", f"-mcpu={processor}", "-iterations=1", "-instruction-info=false",
                    "-resource-pressure=false", str(source))
    return int(re.search(r"Total Cycles:\s+(\d+)", report)[1])


def measure(program, known, pattern, rows, outputs, arguments):
    """Instructions and cycles for each thousand products."""
    addresses = executed(program, functions(program, pattern), *arguments)
    if not addresses:
        sys.exit(f"{program}: nothing ran in {pattern}")
    texts = [known[at] for at in addresses]
    thousands = rows * outputs * INPUTS / 1000
    return [len(texts) / thousands] + [cycles(texts, processor) / thousands for processor in PROCESSORS]


def main():
    ours, peer = instructions(OURS), instructions(PEER)
    print("| type, rows | kernel | instructions | " + " | ".join(f"cycles, {name}" for name in PROCESSORS) + " |")
    print("| --- | --- |" + " --- |" * (len(PROCESSORS) + 1))
    worse = []
    for dtype, dot, gemv, gemm in TYPES:
        for rows in [1, ROWS]:
            kernels = [(OURS, ours, r"aarch64.*blocks_of_\d", "ours", OUTPUTS, [dtype, "dotprod", str(rows)])]
            if rows == 1:
                kernels.append((PEER, peer, f"^{dot}$", dot, 1, [dot, "1"]))
            name = gemv if rows == 1 else gemm
            kernels.append((PEER, peer, f"^{name}$", name, OUTPUTS, [name, str(rows)]))
            measured = []
            for program, known, pattern, label, outputs, arguments in kernels:
                numbers = measure(program, known, pattern, rows, outputs, [*arguments, str(INPUTS)])
                measured.append(numbers)
                print(f"| {dtype}, {rows} | {label} | " + " | ".join(f"{x:.1f}" for x in numbers) + " |", flush=True)
            best = [min(column) for column in zip(*measured[1:])]
            if any(x > y for x, y in zip(measured[0], best)):
                worse.append(f"{dtype}, {rows}")
    print(f"\nOurs is behind in a column: {'; '.join(worse) or 'nowhere'}.")


main()
