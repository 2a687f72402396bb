#!/usr/bin/env python3
"""Small Llama models made by transformers with random weights: logits, gradients and five AdamW steps.

    pip install torch numpy transformers safetensors
    python tests/oracle/llama_models.py     # rewrites tests/oracle/data/llama_{tied,untied}/

Each folder is what save_pretrained writes (config.json and model.safetensors) plus logits.safetensors: `tokens` i32
[B, T] and `logits` f32 [B, T, V], computed from the same weights in float64 but for what transformers always does in
float32: the sums of RMSNorm and the rotary angles. tied: the head is the token embedding, and
config.json has the keys of transformers 4. untied: heads wider than hidden_size / heads, another base of the angles, and
steps.safetensors, computed in the same way and rounded once:

    tokens, targets             i32 [B, T]
    gradient.NAME               f32, d loss / d weight, loss = mean cross-entropy over all B*T tokens
    step5.NAME                  f32, after five AdamW steps on the same batch, gradients clipped to a norm of `clip`

and steps.json: `clip` and per step `loss` and `grad_norm`, both before the update.
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

DATA = pathlib.Path(__file__).parent / "data"
SIZES = dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=32, intermediate_size=44,
             max_position_embeddings=16, vocab_size=61)
VARIANTS = {"tied": dict(tie_word_embeddings=True, rms_norm_eps=1e-5),
            "untied": dict(head_dim=12, rope_parameters={"rope_type": "default", "rope_theta": 500.0})}
BATCH, STEPS, DECAY, CLIP = 3, 5, 0.1, 1.0
ADAMW = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8)


def make(options, generator):
    model = LlamaForCausalLM(LlamaConfig(**(SIZES | options))).eval()
    with torch.no_grad():  # large enough that every path carries a signal
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


def tokens_like(size, generator):
    return torch.randint(SIZES["vocab_size"], size, generator=generator)


def write_older_config(path):
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["rope_scaling"] = None
    config["torch_dtype"] = config.pop("dtype")
    config.pop("head_dim")
    path.write_text(json.dumps(config, indent=2) + "\n")


def write_logits(model, path, generator):
    tokens = tokens_like((2, 12), generator)
    with torch.no_grad():
        logits = model(tokens).logits
    save_file({"tokens": tokens.int(), "logits": logits.float().contiguous()}, path)


def write_steps(model, folder, generator):
    size = (BATCH, SIZES["max_position_embeddings"])
    tokens, targets = tokens_like(size, generator), tokens_like(size, generator)
    weights = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [w for w in weights.values() if w.dim() >= 2], "weight_decay": DECAY},
         {"params": [w for w in weights.values() if w.dim() < 2], "weight_decay": 0.0}], **ADAMW)
    tensors, log = {"tokens": tokens.int(), "targets": targets.int()}, []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens).logits.flatten(0, 1), targets.flatten())
        loss.backward()
        if step == 0:
            tensors |= {"gradient." + name: w.grad.float() for name, w in weights.items()}
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), CLIP)
        assert step or norm > 1.2 * CLIP, "the first step must clip"
        optimizer.step()
        log.append(dict(loss=loss.item(), grad_norm=norm.item()))
    tensors |= {"step5." + name: w.detach().float() for name, w in weights.items()}
    save_file(tensors, folder / "steps.safetensors")
    (folder / "steps.json").write_text(json.dumps(dict(clip=CLIP, steps=log), indent=1) + "\n")
    print(log)


def write(name, options, seed):
    folder = DATA / f"llama_{name}"
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = make(options, generator)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name == "tied":
        write_older_config(folder / "config.json")
    model = model.double()
    write_logits(model, folder / "logits.safetensors", generator)
    if name == "untied":
        write_steps(model, folder, generator)
    for file in folder.iterdir():
        file.chmod(0o644)
    print(name, sum(p.numel() for p in model.parameters()), sorted(f.name for f in folder.iterdir()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed, (name, options) in enumerate(VARIANTS.items()):
        write(name, options, seed)
