#!/usr/bin/env python3
"""Copies the part of the reference set that the tests need.

    python3 reduce.py FULL_SET TARGET

The target has the layout of the full set; its indexes name exactly the entries that are there.
"""

import json
import shutil
import sys
from pathlib import Path

PICTURE_CASES = ["cat", "astronaut", "gradient"]
ALL_CASES = [*PICTURE_CASES, "text_only", "image_two_turns"]

# Checkpoint -> cases of goldens/index.json.
CHECKPOINTS = {
    "v1-tiny": ALL_CASES,
    "v2-gqa": ALL_CASES,
    "v1-hd80": ["cat", "text_only", "image_two_turns"],
    "v2-k256": ["cat", "astronaut"],
}

# Entry of goldens/gguf_index.json -> its cases; None where the entry refers to a checkpoint's.
GGUF = {
    "v1-tiny/q4_0": PICTURE_CASES,
    "v1-tiny/q8_0": ["cat"],
    "v2-gqa/bf16": None,
    "v2-gqa/q8_0": ["astronaut"],
    "v2-k256/q4_k_m": ["cat", "astronaut"],
}

# Pictures whose normalized planes are kept as well.
PLANES = ["astronaut"]

TOWER = "checkpoints/openai/clip-vit-large-patch14-336"
FILES = [
    f"{TOWER}/config.json",
    f"{TOWER}/preprocessor_config.json",
    f"{TOWER}/pytorch_model.bin",
    "checkpoints/v1-tiny/model.safetensors",
    "checkpoints/v1-tiny/pytorch_model.bin",
    "checkpoints/v2-gqa/pytorch_model-00001-of-00002.bin",
    "checkpoints/v2-gqa/pytorch_model-00002-of-00002.bin",
    "checkpoints/v2-gqa/pytorch_model.bin.index.json",
    "checkpoints/v1-hd80/model-00001-of-00002.safetensors",
    "checkpoints/v1-hd80/model-00002-of-00002.safetensors",
    "checkpoints/v1-hd80/model.safetensors.index.json",
    "gguf/v1-tiny/mmproj-f16.gguf",
    "gguf/v2-gqa/mmproj-f16.gguf",
    "gguf/v2-k256/mmproj-f16.gguf",
    "tokenizer/full/tokenizer.model",
    "tokenizer/mini/tokenizer.json",
    "tokenizer/mini/tokenizer.model",
    "goldens/quant_blocks.json",
    "goldens/quant_blocks.safetensors",
    "goldens/tokenizer_cases.json",
    "images/index.json",
]
SMALL = ["config.json", "generation_config.json", "special_tokens_map.json", "tokenizer.model", "tokenizer_config.json"]
TOKENIZER_SMALL = ["special_tokens_map.json", "tokenizer_config.json"]


def keep_cases(entry, cases, files):
    entry["cases"] = {name: entry["cases"][name] for name in cases}
    files += [case["file"] for case in entry["cases"].values()]
    return entry


def reduce_index(index, files):
    checkpoints = {}
    for name, cases in CHECKPOINTS.items():
        entry = keep_cases(index["checkpoints"][name], cases, files)
        entry.pop("debug", None)
        checkpoints[name] = entry
        files += [f"checkpoints/{name}/{file}" for file in SMALL]
    for name, picture in index["pixels"].items():
        files += [picture["file"], picture["resized_u8"]]
        if name in PLANES:
            files.append(picture["pixel_values"])
        else:
            picture.pop("pixel_values", None)
            picture.pop("tensors", None)
    return {"pixels": index["pixels"], "checkpoints": checkpoints}


def reduce_gguf_index(index, files):
    entries = {}
    for name, cases in GGUF.items():
        entry = index[name]
        entries[name] = entry if cases is None else keep_cases(entry, cases, files)
        files.append(entry["file"])
    return entries


def main():
    full, target = Path(sys.argv[1]), Path(sys.argv[2])
    files = list(FILES)
    files += [f"tokenizer/{name}/{file}" for name in ["full", "mini"] for file in TOKENIZER_SMALL]
    reducers = {"goldens/index.json": reduce_index, "goldens/gguf_index.json": reduce_gguf_index}
    for path, reducer in reducers.items():
        reduced = reducer(json.loads((full / path).read_text()), files)
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text(json.dumps(reduced, indent=1) + "\n")
    for file in sorted(set(files)):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(full / file, target / file)


if __name__ == "__main__":
    main()
