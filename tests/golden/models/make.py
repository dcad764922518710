#!/usr/bin/env python3
"""Makes small random models in the formats that runtime/models reads, and the logits that PyTorch gives them.

  make.py                 the folders and files beside this script, and logits.json
  make.py --smollm2 FILE  smollm2.json, of SmolLM2-135M-Instruct.Q4_1.gguf (examples/data, see tools/data)

Hugging Face's transformers builds the models and computes; gguf's own functions encode the blocks of llama.gguf and
gpt2.gguf, and transformers' own reader of GGUF must agree about llama.gguf.
Needs `pip install torch transformers accelerate gguf`.
"""
import json
import pathlib
import sys

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
TOKENIZER = HERE.parent / "tokenizer" / "smollm.json"
Q = gguf.GGMLQuantizationType
PROMPTS = ["The capital of France is", "In the beginning God created the heaven and the earth.",
           "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"]


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if "norm" in name or "ln_" in name and "bias" not in name else 0.25 * noise)
    return model.eval()


def logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].double().tolist()


def golden(model, tokens, every=3):
    """Of each token every so manyth logit."""
    return {"tokens": tokens, "every": every,
            "logits": [[round(x, 6) for x in row[::every]] for row in logits(model, tokens)]}


def tokens_for(vocabulary, count):
    return [(7 * i * i + 3 * i + 1) % vocabulary for i in range(count)]


def save(model, folder, dtype, shards, leave_out=()):
    """As save_pretrained does, with small files for which it would make one, and tensors in `dtype`."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    state = {n: t.to(dtype).contiguous().clone() for n, t in model.state_dict().items() if n not in leave_out}
    model.load_state_dict({n: t.float() for n, t in state.items()}, strict=False)  # what the file says
    model.config.to_json_file(folder / "config.json", use_diff=False)
    config = json.loads((folder / "config.json").read_text())
    keep = {k: v for k, v in config.items() if k in KEYS}
    (folder / "config.json").write_text(json.dumps(keep, indent=1) + "\n")
    names = sorted(state)
    if shards == 1:
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        return
    index = {"metadata": {"total_size": sum(t.nbytes for t in state.values())}, "weight_map": {}}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {n: state[n] for n in names[shard::shards]}
        save_file(part, folder / file, {"format": "pt"})
        index["weight_map"].update({n: file for n in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


# What of a config.json says what the model is.
KEYS = {"model_type", "architectures", "n_layer", "n_embd", "n_head", "n_inner", "n_positions", "vocab_size", "activation_function",
        "layer_norm_epsilon", "tie_word_embeddings", "scale_attn_weights", "scale_attn_by_inverse_layer_idx",
        "reorder_and_upcast_attn", "add_cross_attention", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps", "max_position_embeddings",
        "rope_parameters", "rope_theta", "rope_scaling", "attention_bias", "mlp_bias", "eos_token_id", "bos_token_id", "dtype"}

GPT2 = dict(n_layer=2, n_embd=8, n_head=2, n_positions=32, vocab_size=40, bos_token_id=3, eos_token_id=3)
LLAMA = dict(num_hidden_layers=2, hidden_size=8, intermediate_size=20, num_attention_heads=4, num_key_value_heads=2,
             head_dim=4, vocab_size=40, max_position_embeddings=64, bos_token_id=1, eos_token_id=[2, 5])


def folders(out):
    gpt2 = randomize(GPT2LMHeadModel(GPT2Config(**GPT2)), 1)
    save(gpt2, HERE / "gpt2", torch.float32, 1, {"lm_head.weight"})
    out["gpt2"] = golden(gpt2, tokens_for(40, 20))

    llama = randomize(LlamaForCausalLM(LlamaConfig(**LLAMA, rope_parameters={"rope_type": "default", "rope_theta": 500.0})), 2)
    save(llama, HERE / "llama", torch.bfloat16, 2)
    out["llama"] = golden(llama, tokens_for(40, 33))

    scaled = randomize(LlamaForCausalLM(LlamaConfig(
        **LLAMA, tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
        rope_parameters={"rope_type": "llama3", "rope_theta": 50.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 16})), 3)
    save(scaled, HERE / "llama3", torch.float16, 1, {"lm_head.weight"})
    out["llama3"] = golden(scaled, tokens_for(40, 48))


def encoded(tensor, kind):
    """The bytes of a tensor in an encoding, and what they mean."""
    data = gguf.quants.quantize(tensor.numpy(), kind)
    return data, torch.from_numpy(gguf.quants.dequantize(data, kind).reshape(tensor.shape).astype(np.float32))


def permuted(weight, heads):
    """llama.cpp's order of the rows of Q and K."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


LLAMA_NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
               "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
               "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "model.embed_tokens": "token_embd",
               "model.norm": "output_norm", "lm_head": "output"}
GPT2_NAMES = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up",
              "mlp.c_proj": "ffn_down", "transformer.wte": "token_embd", "transformer.wpe": "position_embd",
              "transformer.ln_f": "output_norm"}


def gguf_name(names, name):
    module, ending = name.rsplit(".", 1)
    if module in names:
        return f"{names[module]}.{ending}"
    parts = module.split(".")
    return f"blk.{parts[2]}.{names['.'.join(parts[3:])]}.{ending}"


def write_gguf_llama(out):
    tokenizer = json.loads(TOKENIZER.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    sizes = dict(num_hidden_layers=1, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                 vocab_size=len(vocabulary), max_position_embeddings=64, rms_norm_eps=1e-5)
    model = randomize(LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True,
                                                   rope_parameters={"rope_type": "default", "rope_theta": 1000.0})), 4)
    file = HERE / "llama.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(1000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    added = {t["id"] for t in tokenizer["added_tokens"]}
    ordered = sorted(vocabulary, key=vocabulary.get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(ordered)
    writer.add_token_types([3 if i in added else 1 for i in range(len(ordered))])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    kinds = {"q_proj": Q.Q4_1, "k_proj": Q.Q4_0, "v_proj": Q.F16, "o_proj": Q.Q8_0, "gate_proj": Q.BF16, "up_proj": Q.Q4_1,
             "down_proj": Q.Q4_0, "embed_tokens": Q.Q8_0}
    state = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        kind = kinds.get(name.split(".")[-2], Q.F32)
        heads = 4 if "q_proj" in name else 2 if "k_proj" in name else 0
        data, state[name] = encoded(permuted(tensor, heads).contiguous() if heads else tensor, kind)
        if heads:  # back to the order of transformers
            state[name] = state[name].reshape(heads, 4, 2, -1).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(gguf_name(LLAMA_NAMES, name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model.load_state_dict(state, strict=False)
    tokens = tokens_for(700, 40)
    again = AutoModelForCausalLM.from_pretrained(HERE, gguf_file="llama.gguf", dtype=torch.float32).eval()
    with torch.no_grad():
        difference = (model(torch.tensor([tokens])).logits - again(torch.tensor([tokens])).logits).abs().max().item()
    assert difference < 1e-5, difference
    out["llama.gguf"] = golden(model, tokens, every=31)


def write_gguf_gpt2(out):
    sizes = dict(n_layer=1, n_embd=32, n_head=2, n_positions=24, vocab_size=40, bos_token_id=3, eos_token_id=3)
    model = randomize(GPT2LMHeadModel(GPT2Config(**sizes)), 5)
    writer = gguf.GGUFWriter(HERE / "gpt2.gguf", "gpt2")
    writer.add_context_length(24)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(128)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-5)
    state = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        linear = name.split(".")[-2].startswith("c_") and name.endswith(".weight")
        data, kept = encoded(tensor.T.contiguous() if linear else tensor, Q.Q8_0 if linear else Q.F32)
        state[name] = kept.T if linear else kept
        writer.add_tensor(gguf_name(GPT2_NAMES, name), data, raw_dtype=Q.Q8_0 if linear else Q.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model.load_state_dict(state, strict=False)
    out["gpt2.gguf"] = golden(model, tokens_for(40, 24))


def write(name, made):
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in made.items()]
    (HERE / name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def smollm2(path):
    folder, file = str(path.parent), path.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    made = {"how": "tests/golden/models/make.py --smollm2 FILE"}
    for prompt in PROMPTS:
        tokens = tokenizer(prompt).input_ids
        # Of the last token every 100th logit, and of each token the likeliest next one.
        rows = logits(model, tokens)
        made[prompt] = {"tokens": tokens, "best": [row.index(max(row)) for row in rows],
                        "every": 100, "logits": [round(x, 4) for x in rows[-1][::100]]}
    write("smollm2.json", made)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--smollm2":
        smollm2(pathlib.Path(sys.argv[2]))
    else:
        made = {"how": "tests/golden/models/make.py"}
        folders(made)
        write_gguf_llama(made)
        write_gguf_gpt2(made)
        write("logits.json", made)
