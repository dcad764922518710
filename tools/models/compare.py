#!/usr/bin/env python3
"""Opens a folder that Sluice wrote with Hugging Face's transformers, and says the loss of a text as `sluice evaluate` does.

  compare.py FOLDER TEXT [--reference MODEL] [--sequence 256]

MODEL is what the folder was made from, another folder or a GGUF file: then the largest difference of a logit is printed too,
and must be below 1e-3. Without a tokenizer in the folder, bytes are tokens. Needs `pip install torch transformers accelerate gguf`.
"""
import argparse
import math
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(path):
    path = pathlib.Path(path)
    where = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    return AutoModelForCausalLM.from_pretrained(where[0], dtype=torch.float32, **where[1]).eval()


def tokens_of(folder, text):
    if (pathlib.Path(folder) / "tokenizer.json").exists():
        return AutoTokenizer.from_pretrained(folder)(text.decode(errors="surrogateescape")).input_ids
    return list(text)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder")
    arguments.add_argument("text")
    arguments.add_argument("--reference")
    arguments.add_argument("--sequence", type=int, default=256)
    given = arguments.parse_args()
    model, text = load(given.folder), pathlib.Path(given.text).read_bytes()
    tokens = tokens_of(given.folder, text)
    reference = load(given.reference) if given.reference else None
    nats, count, difference = 0.0, 0, 0.0
    with torch.no_grad():
        for begin in range(0, len(tokens) - 1, given.sequence):
            window = torch.tensor([tokens[begin:begin + given.sequence + 1]])
            logits = model(window[:, :-1]).logits[0]
            nats += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
            count += window.shape[1] - 1
            if reference is not None:
                difference = max(difference, (logits - reference(window[:, :-1]).logits[0]).abs().max().item())
    print(f"loss {nats / count:.5f} nats a token, perplexity {math.exp(nats / count):.3f}, "
          f"{nats / math.log(2) / len(text):.4f} bits per byte")
    if reference is not None:
        print(f"largest difference of a logit: {difference:.2g}")
        sys.exit(difference >= 1e-3)


if __name__ == "__main__":
    main()
