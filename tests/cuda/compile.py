"""Compiles the CUDA kernels as the daemon does, by NVRTC, for Orin and for Hopper, without a GPU. Fails on any warning.
Prints what each kernel takes of a multiprocessor of Orin: the table of tests/cuda/README.md.

usage: target/venv/bin/python tests/cuda/compile.py [--check]
With --check it also fails if the table in tests/cuda/README.md is another one.
"""

import concurrent.futures
import ctypes
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
KERNELS = ROOT / "kernels/src/cuda"

# Orin's multiprocessor: registers, warps, blocks, bytes of shared memory.
REGISTERS, WARPS, BLOCKS, SHARED = 65536, 48, 16, 164 << 10

# Shared memory that each block takes besides its own.
RESERVED = 1 << 10


def source_and_options():
    """What kernels/src/cuda/program.rs says is compiled, and how."""
    program = (KERNELS / "program.rs").read_text()
    files = ["machine.cu", *(name for name in re.findall(r'include_str!\("(\w+\.cu)"\)', program) if name != "machine.cu")]
    options = re.findall(r'"(--?[\w-]+(?:=[\w+]+)?)"', program[program.index("pub const OPTIONS"):].split(";")[1])
    return "".join((KERNELS / name).read_text() for name in files), options


def nvrtc():
    for folder in map(pathlib.Path, sys.path):
        for library in folder.glob("nvidia/cuda_nvrtc/lib/libnvrtc.so.*"):
            return ctypes.CDLL(str(library))
    sys.exit("compile.py: no NVRTC: run .ci/setup, then this with target/venv/bin/python")


def compile_for(architecture):
    """The log of the compiler and of the assembler; ends the program if either refuses."""
    library, (source, options) = nvrtc(), source_and_options()
    options = [*options, f"--gpu-architecture={architecture}", "--ptxas-options=-v"]
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    code = library.nvrtcCompileProgram(program, len(options), arguments)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    return code, log.value.decode()


def threads_of(kernel):
    """Threads of a block, as kernels/src/cuda launches it."""
    if re.match(r"(one_row|four_rows|eight_rows|exact)_|quantize|layer_norm|rms_norm|kv_append|attention", kernel):
        return 128
    return 256


def occupancy(registers, shared, threads):
    """The share of Orin's warps that can be resident."""
    warps = threads // 32
    by_registers = REGISTERS // (-(-registers * 32 // 256) * 256) // 4 * 4 // warps
    by_shared = SHARED // (shared + RESERVED)
    return min(by_registers, by_shared, WARPS // warps, BLOCKS) * warps / WARPS


def table(log):
    lines = ["| kernel | threads | registers | shared bytes | stack | spilled | occupancy |", "| --- | --- | --- | --- | --- | --- | --- |"]
    rows = []
    for part in log.split("Compiling entry function '")[1:]:
        number = lambda pattern: int((re.search(pattern, part) or [0, 0])[1])
        kernel, registers, shared = part.split("'")[0], number(r"Used (\d+) registers"), number(r"(\d+) bytes smem")
        stack, spilled, threads = number(r"(\d+) bytes stack"), number(r"(\d+) bytes spill stores"), threads_of(kernel)
        share = occupancy(registers, shared, threads)
        rows.append(f"| `{kernel}` | {threads} | {registers} | {shared} | {stack} | {spilled} | {share:.0%} |")
    return "\n".join(lines + sorted(rows))


def main():
    architectures = ["sm_87", "sm_90"]
    with concurrent.futures.ProcessPoolExecutor() as pool:
        results = dict(zip(architectures, pool.map(compile_for, architectures)))
    for architecture, (code, log) in results.items():
        told = [line for line in log.splitlines() if "warning" in line or "error" in line]
        if code != 0 or told:
            sys.exit(f"compile.py: {architecture}: code {code}\n" + "\n".join(told))
    made = table(results["sm_87"][1])
    print(made)
    if "--check" in sys.argv[1:] and made not in (ROOT / "tests/cuda/README.md").read_text():
        sys.exit("compile.py: tests/cuda/README.md has another table: put the one above there")


if __name__ == "__main__":
    main()
