"""llama.cpp's part in a comparison: does a stage for each line that names one, and says how long it took.

usage: llama.py MODEL MMPROJ THREADS     needs llama-cpp-python; tests/peer/run brings it along
"""

import ctypes
import json
import math
import os
import sys
import time

import llama_cpp as lib
import llama_cpp.mtmd_cpp as mtmd

# What the daemon's bench does in these stages.
PROMPT = 164
ANSWER = 64
DEPTH = {"decode": 0, "decode192": 192}

# Of messages.
ERROR = 4

# Positions of a sequence: what the longest stage needs, rounded up as llama.cpp does.
CONTEXT = 512

SIDE = 336
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def picture():
    """The picture of the daemon's bench, rounded to bytes."""
    values = bytearray()
    for y in range(SIDE):
        for x in range(SIDE):
            for channel in range(3):
                value = math.sin(x * 0.05 + channel) + 0.5 * math.cos(y * 0.31)
                byte = round((value * STD[channel] + MEAN[channel]) * 255)
                values.append(max(0, min(byte, 255)))
    return values


def need(value, what):
    if not value:
        sys.exit(f"llama.py: llama.cpp cannot {what}")
    return value


@lib.llama_log_callback
def log(level, text, _):
    if level == ERROR:
        print(text.decode(errors="replace"), end="", file=sys.stderr, flush=True)


class Peer:
    """A loaded model. The vision part is loaded when a picture comes."""

    def __init__(self, model, mmproj, threads):
        self.mmproj, self.threads = mmproj, threads
        lib.llama_backend_init()
        loaded = lib.llama_model_load_from_file(model.encode(), lib.llama_model_default_params())
        self.model = need(loaded, f"load {model}")
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
        params.n_threads = params.n_threads_batch = threads
        self.context = need(lib.llama_init_from_model(self.model, params), "make a context")
        self.vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.vision = None

    def tokens(self, position, count):
        """Appends tokens and takes the logits of the last."""
        places = range(position, position + count)
        ids = (lib.llama_token * count)(*(place * 7919 % self.vocabulary for place in places))
        if lib.llama_decode(self.context, lib.llama_batch_get_one(ids, count)):
            sys.exit("llama.py: llama.cpp cannot take these tokens")
        return lib.llama_get_logits_ith(self.context, -1)

    def forget(self):
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)

    def language(self, stage):
        """Does a stage of the language model; returns its seconds."""
        depth = DEPTH.get(stage, 0)
        if depth:
            self.tokens(0, depth)
        start = time.perf_counter()
        if stage == "prefill":
            self.tokens(0, PROMPT)
        else:
            for position in range(depth, depth + ANSWER):
                self.tokens(position, 1)
        seconds = time.perf_counter() - start
        self.forget()
        return seconds

    def look(self):
        """Loads the vision part and prepares the picture: resizing and scaling are not measured."""
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = False
        params.n_threads = self.threads
        params.print_timings = False
        self.vision = need(mtmd.mtmd_init_from_file(self.mmproj.encode(), self.model, params), f"load {self.mmproj}")
        data = (ctypes.c_uint8 * (3 * SIDE * SIDE)).from_buffer(picture())
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(need(mtmd.mtmd_bitmap_init(SIDE, SIDE, data), "take the picture"))
        marker = mtmd.mtmd_default_marker()
        text = mtmd.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=False)
        self.chunks = mtmd.mtmd_input_chunks_init()
        need(mtmd.mtmd_tokenize(self.vision, self.chunks, ctypes.byref(text), bitmaps, 1) == 0, "take the picture")
        count = mtmd.mtmd_input_chunks_size(self.chunks)
        chunks = [mtmd.mtmd_input_chunks_get(self.chunks, index) for index in range(count)]
        kinds = [mtmd.mtmd_input_chunk_get_type(chunk) for chunk in chunks]
        self.chunk = chunks[kinds.index(mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE)]

    def encode(self):
        """Encodes the picture; returns the seconds."""
        if not self.vision:
            self.look()
        start = time.perf_counter()
        need(mtmd.mtmd_encode_chunk(self.vision, self.chunk) == 0, "encode the picture")
        return time.perf_counter() - start

    def rows(self):
        self.encode()
        count = mtmd.mtmd_input_chunk_get_n_tokens(self.chunk) * lib.llama_model_n_embd(self.model)
        return mtmd.mtmd_get_output_embd(self.vision)[:count]

    def logits(self):
        values = self.tokens(0, PROMPT)[: self.vocabulary]
        self.forget()
        return values


def version():
    """Of the package, and of what it was made from."""
    base = ctypes.CDLL(os.path.join(os.path.dirname(lib.__file__), "lib", "libggml-base.so"))
    base.ggml_version.restype = base.ggml_commit.restype = ctypes.c_char_p
    return f"llama-cpp-python {lib.__version__}, ggml {base.ggml_version().decode()}"


def features():
    """Instruction sets that are used, and how threads are made."""
    words = [word.strip() for word in lib.llama_print_system_info().decode().split("|")]
    used = [word.removeprefix("CPU : ").removesuffix(" = 1") for word in words if word.endswith(" = 1")]
    return " ".join(used)


def main():
    model, mmproj, threads = sys.argv[1:]
    # Answers alone go to standard output, whatever the library prints.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lib.llama_log_set(log, None)
    mtmd.mtmd_log_set(log, None)
    peer = Peer(model, mmproj, int(threads))

    def answer(**facts):
        print(json.dumps(facts), file=answers, flush=True)

    answer(stages=["encode", "prefill", *DEPTH], version=version(), features=features())
    for line in sys.stdin:
        word = line.strip()
        if word in ("rows", "logits"):
            answer(values=getattr(peer, word)())
        elif word == "encode":
            answer(stage=word, ms=peer.encode() * 1e3)
        elif word == "prefill" or word in DEPTH:
            answer(stage=word, ms=peer.language(word) * 1e3)
        else:
            sys.exit(f'llama.py: no stage "{word}" here')


if __name__ == "__main__":
    main()
