#!/usr/bin/env python3
"""Trains three small byte-level tokenizers with Hugging Face's `tokenizers` and writes what they make of hard strings.

  make.py TEXT     (any English text)

One tokenizer.json for each way of cutting text into pieces that Sluice supports, and hard_strings.jsonl, whose lines are
{"tokenizer", "text", "ids"}. Needs `pip install tokenizers`.
"""
import json
import pathlib
import sys

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")

HARD = [
    "", " ", "  ", "a", "Hello, world!", "  two  spaces   three ", "line\nline\n\nline\r\n\r\n  indented\n\ttab\t\ttabs",
    "I'm you're we'll they'd it's CAN'T I'M IT'S don''t '' 's", "1 12 123 1234 12345 3.14159 1,000,000 ½ ² Ⅷ ٣٤٥ 1a2b3c",
    "naïve café Ångström straße İstanbul ﬁne Ꮳherokee ǅ", "e\u0301 combining a\u0308\u0323 vs ä",
    "日本語のテキスト。中文，没有空格 한국어 문장", "Привет, мир! Γειά σου Κόσμε שלום עולם مرحبا بالعالم नमस्ते दुनिया",
    "😀 😀😀 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ✊🏽", "\u00a0nbsp\u2003em\u3000ideographic\u200bzero\u2028line\u2029para\u0085next",
    "tabs\t and \x0b vertical \x0c form \x1c\x1d\x1e\x1f separators \x00 nul \x7f del",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * 0x1fULL; } // comment\n#include <x.h>\n",
    "https://example.org/a?b=c&d=%20e#f user@host.tld ~/path/to/file.txt C:\\dir\\", "a" * 70, "ab" * 40 + " " * 33 + "!" * 19,
    "<|endoftext|>", "x<|endoftext|>y <|endoftext|>\n<|endoftext|><|endoftext|", "<|end", "And the LORD said unto Moses,",
    "trailing space ", "trailing newline\n", "\n", "\n\n\n ", " \n \n ", "a \n b", "a\n\n b", "!?\n\n!? \n", "_under_score__ $100 #1 @2 ^^",
    "\ufeffBOM", "\ufffd replacement \U0010ffff max \ue000 private", "ſ ’s ‘t “quotes” – — … • ™ ©", "x̧̛̠̥ͯ", "\u180e mongolian",
]


def train(name, pre_tokenizer, text, prefix):
    made = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    made.pre_tokenizer = pre_tokenizer
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False, special_tokens=["<|endoftext|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator([text], trainer)
    if prefix:
        made.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    else:
        made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made


def main():
    text = pathlib.Path(sys.argv[1]).read_text()[:400000] + "".join(HARD * 3)
    folder = pathlib.Path(__file__).parent
    byte_level = lambda regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    kinds = {
        "gpt2": byte_level(True),
        "llama3": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level(False)]),
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
    }
    lines = [json.dumps({"remake": "tests/golden/tokenizer/make.py TEXT",
                         "tokenizers": tokenizers.__version__})]
    for name, pre_tokenizer in kinds.items():
        made = train(name, pre_tokenizer, text, prefix=name == "llama3")
        (folder / f"{name}.json").write_text(json.dumps(json.loads(made.to_str()), ensure_ascii=True, separators=(",", ":")) + "\n")
        for hard in HARD:
            ids = made.encode(hard, add_special_tokens=False).ids
            lines.append(json.dumps({"tokenizer": name, "text": hard, "ids": ids}))
    (folder / "hard_strings.jsonl").write_text("\n".join(lines) + "\n")


main()
