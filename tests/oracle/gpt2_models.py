#!/usr/bin/env python3
"""Small GPT-2 models made by transformers with random weights, and their logits.

    pip install torch numpy transformers safetensors
    python tests/oracle/gpt2_models.py      # rewrites tests/oracle/data/gpt2_{tied,untied,sharded}/

Each folder is what save_pretrained writes (config.json and model.safetensors; `sharded` has an index and several
files) plus logits.safetensors: `tokens` i32 [B, T] and `logits` f32 [B, T, V], computed in float64 from the same weights.
tied: n_inner is not 4 n_embd. untied: lm_head.weight is a tensor of its own. sharded: names without `transformer.`.
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

DATA = pathlib.Path(__file__).parent / "data"
SIZES = dict(n_layer=2, n_head=4, n_embd=32, n_positions=16, vocab_size=64, bos_token_id=0, eos_token_id=0,
             attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
VARIANTS = {"tied": dict(n_inner=80), "untied": dict(tie_word_embeddings=False),
            "sharded": dict(n_layer=1, layer_norm_epsilon=1e-4)}
KEPT = ("config.json", "model.safetensors", "model.safetensors.index.json")


def write(name, options, seed):
    folder = DATA / f"gpt2_{name}"
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**(SIZES | options))).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(folder)
    if name == "sharded":
        split_by_hand(folder)
    for file in folder.iterdir():
        if file.name not in KEPT and not file.name.startswith("model-0"):
            file.unlink()
    tokens = torch.randint(SIZES["vocab_size"], (2, 12), generator=generator)
    with torch.no_grad():
        logits = model.double()(tokens).logits
    save_file({"tokens": tokens.int(), "logits": logits.float().contiguous()}, folder / "logits.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)
    print(name, sum(p.numel() for p in model.parameters()), sorted(f.name for f in folder.iterdir()))


def split_by_hand(folder):
    """Three parts and an index, names without `transformer.`, as older checkpoints on the Hub have them."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    index = {"metadata": {"total_size": sum(t.numel() * 4 for t in tensors.values())}, "weight_map": {}}
    for part in range(3):
        file = f"model-{part + 1:05}-of-00003.safetensors"
        chosen = {name.removeprefix("transformer."): tensors[name] for name in names[part::3]}
        save_file(chosen, folder / file, metadata={"format": "pt"})
        index["weight_map"] |= dict.fromkeys(chosen, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed, (name, options) in enumerate(VARIANTS.items()):
        write(name, options, seed)
