#!/usr/bin/env python3
"""Loss, gradients and five AdamW steps of a two-layer GPT, computed by PyTorch in float64.

    pip install torch numpy safetensors
    python tests/oracle/gpt_steps.py        # rewrites tests/oracle/data/gpt_steps{,_bf16}.safetensors and gpt_steps.json

The model is GPT-2 written out by hand: Hugging Face names without `transformer.`, weights of products [in, out] (y = x W + b),
gelu in the tanh form, layer norm with epsilon 1e-5, the head tied to the token embedding, loss = mean cross-entropy over
all B*T tokens. gpt_steps.safetensors holds

    tokens, targets             i32 [B, T]
    initial.NAME                f32, the weights before step 1 (float32 numbers; everything below starts from them)
    gradient.NAME               f32, d loss / d initial, computed in float64 and rounded once
    gradient_of_bf16.NAME       bf16, what it should be in bfloat16: float64 arithmetic on weights rounded to bfloat16,
                                rounded once
    step5.NAME                  f32, after five AdamW steps on the same batch, from float64
    step5_clipped.NAME          the same with gradients clipped to a global norm of `clip`

gpt_steps_bf16.safetensors, five AdamW steps of mixed precision on the same batch: parameters are the float32 masters
rounded to bfloat16, the arithmetic between them and the gradients is float64, gradients are rounded once to bfloat16,
AdamW updates the masters in float32:

    change.NAME                 bf16, master after step 5 minus initial
    change_clipped.NAME         the same with clipping

and gpt_steps.json the configuration, `loss`, `loss_of_bf16`, and per variant ("adamw", "adamw_clipped", "adamw_bf16", "adamw_bf16_clipped") a list of five
{loss (before the update), grad_norm (before clipping), norm: {NAME: 2-norm of the weights after the update},
change: {NAME: 2-norm of their difference to the initial ones}}; `float32_error` is the largest relative difference in
norm between PyTorch's own float32 and float64, a floor for any tolerance (`bf16_error` the same of PyTorch's own
bfloat16 over all gradients together, against float64 and against gradient_of_bf16, the stricter oracle: it has no rounding
of its own but the last).

Softmax does not see the keys' bias: elements [C, 2C) of attn.c_attn.bias have gradient 0 but for rounding, which AdamW
turns into steps of arbitrary sign and size. They are left out of float32_error, and a comparison of weights after
updates has to leave them out too.
"""
import json
import math
import pathlib

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

CONFIG = dict(n_layer=2, n_head=4, n_embd=32, n_positions=16, vocab_size=96, layer_norm_epsilon=1e-5)
BATCH, STEPS, SEED = 3, 5, 1234
ADAMW = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
DECAY, CLIP = 0.1, 1.0
DATA = pathlib.Path(__file__).parent / "data"


def initial_weights(generator):
    C, V, T = CONFIG["n_embd"], CONFIG["vocab_size"], CONFIG["n_positions"]
    shapes = {"wte.weight": (V, C), "wpe.weight": (T, C)}
    for i in range(CONFIG["n_layer"]):
        h = f"h.{i}."
        shapes |= {h + "ln_1.weight": (C,), h + "ln_1.bias": (C,),
                   h + "attn.c_attn.weight": (C, 3 * C), h + "attn.c_attn.bias": (3 * C,),
                   h + "attn.c_proj.weight": (C, C), h + "attn.c_proj.bias": (C,),
                   h + "ln_2.weight": (C,), h + "ln_2.bias": (C,),
                   h + "mlp.c_fc.weight": (C, 4 * C), h + "mlp.c_fc.bias": (4 * C,),
                   h + "mlp.c_proj.weight": (4 * C, C), h + "mlp.c_proj.bias": (C,)}
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    weights = {}
    for name, shape in shapes.items():  # large enough that every path carries a signal
        weights[name] = 0.1 * torch.randn(shape, generator=generator)
        if ".ln_" in "." + name and name.endswith("weight"):
            weights[name] += 1
    return weights


def forward(w, tokens, targets):
    C, H, eps = CONFIG["n_embd"], CONFIG["n_head"], CONFIG["layer_norm_epsilon"]
    B, T = tokens.shape
    x = w["wte.weight"][tokens] + w["wpe.weight"][:T]
    mask = torch.full((T, T), -math.inf, dtype=x.dtype).triu(1)
    for i in range(CONFIG["n_layer"]):
        p = lambda name: w[f"h.{i}.{name}"]
        y = F.layer_norm(x, (C,), p("ln_1.weight"), p("ln_1.bias"), eps)
        q, k, v = (t.view(B, T, H, C // H).transpose(1, 2)
                   for t in (y @ p("attn.c_attn.weight") + p("attn.c_attn.bias")).split(C, 2))
        scores = q @ k.transpose(2, 3) / math.sqrt(C // H) + mask
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C)
        x = x + y @ p("attn.c_proj.weight") + p("attn.c_proj.bias")
        y = F.layer_norm(x, (C,), p("ln_2.weight"), p("ln_2.bias"), eps)
        y = F.gelu(y @ p("mlp.c_fc.weight") + p("mlp.c_fc.bias"), approximate="tanh")
        x = x + y @ p("mlp.c_proj.weight") + p("mlp.c_proj.bias")
    x = F.layer_norm(x, (C,), w["ln_f.weight"], w["ln_f.bias"], eps)
    logits = x @ w["wte.weight"].T
    if logits.dtype == torch.bfloat16:
        logits = logits.float()
    return F.cross_entropy(logits.view(B * T, -1), targets.flatten())


def leaves(weights, dtype):
    return {name: value.to(dtype, copy=True).requires_grad_() for name, value in weights.items()}


def gradients(weights, tokens, targets, dtype):
    w = leaves(weights, dtype)
    loss = forward(w, tokens, targets)
    loss.backward()
    return loss.item(), {name: value.grad for name, value in w.items()}


def adamw(w):
    return torch.optim.AdamW(
        [{"params": [v for v in w.values() if v.dim() >= 2], "weight_decay": DECAY},
         {"params": [v for v in w.values() if v.dim() < 2], "weight_decay": 0.0}], **ADAMW)


def train(weights, tokens, targets, dtype, clip):
    w = leaves(weights, dtype)
    optimizer = adamw(w)
    log = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = forward(w, tokens, targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(w.values(), clip if clip else math.inf)
        optimizer.step()
        log.append(dict(loss=loss.item(), grad_norm=norm.item(),
                        norm={k: v.detach().norm().item() for k, v in w.items()},
                        change={k: (v.detach() - weights[k]).norm().item() for k, v in w.items()}))
    return log, {name: value.detach() for name, value in w.items()}


def train_bf16(weights, tokens, targets, clip):
    masters = leaves(weights, torch.float32)
    optimizer = adamw(masters)
    log = []
    for _ in range(STEPS):
        loss, gradient = gradients({k: v.detach().bfloat16() for k, v in masters.items()}, tokens, targets, torch.float64)
        for name, master in masters.items():
            master.grad = gradient[name].bfloat16().float()
        norm = torch.nn.utils.clip_grad_norm_(masters.values(), clip if clip else math.inf)
        optimizer.step()
        log.append(dict(loss=loss, grad_norm=norm.item()))
    return log, {k: v.detach() - weights[k] for k, v in masters.items()}


def conditioned(name, value):
    """Without the keys' bias."""
    C = CONFIG["n_embd"]
    value = value.double()
    return torch.cat([value[:C], value[2 * C:]]) if name.endswith("c_attn.bias") else value


def relative(a, b):
    return max(((conditioned(k, a[k]) - conditioned(k, b[k])).norm() / conditioned(k, b[k]).norm()).item() for k in b)


def relative_together(a, b):
    flat = lambda values: torch.cat([values[k].double().flatten() for k in b])
    return ((flat(a) - flat(b)).norm() / flat(b).norm()).item()


def main():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    weights = initial_weights(generator)
    size = (BATCH, CONFIG["n_positions"])
    tokens = torch.randint(CONFIG["vocab_size"], size, generator=generator)
    targets = torch.randint(CONFIG["vocab_size"], size, generator=generator)

    loss, gradient = gradients(weights, tokens, targets, torch.float64)
    _, gradient32 = gradients(weights, tokens, targets, torch.float32)
    _, gradient16 = gradients(weights, tokens, targets, torch.bfloat16)
    rounded = {name: value.bfloat16() for name, value in weights.items()}
    loss_of_bf16, gradient_of_bf16 = gradients(rounded, tokens, targets, torch.float64)
    plain, step5 = train(weights, tokens, targets, torch.float64, None)
    _, step5_32 = train(weights, tokens, targets, torch.float32, None)
    clipped, step5_clipped = train(weights, tokens, targets, torch.float64, CLIP)
    mixed, change = train_bf16(weights, tokens, targets, None)
    mixed_clipped, change_clipped = train_bf16(weights, tokens, targets, CLIP)
    assert plain[0]["grad_norm"] > 1.2 * CLIP, "the clipped variant must clip"

    tensors = {"tokens": tokens.int(), "targets": targets.int()}
    for prefix, values, dtype in (("initial", weights, torch.float32), ("gradient", gradient, torch.float32),
                                  ("gradient_of_bf16", gradient_of_bf16, torch.bfloat16),
                                  ("step5", step5, torch.float32), ("step5_clipped", step5_clipped, torch.float32)):
        tensors |= {f"{prefix}.{name}": value.to(dtype).contiguous() for name, value in values.items()}
    DATA.mkdir(exist_ok=True)
    save_file(tensors, DATA / "gpt_steps.safetensors")
    save_file({f"{prefix}.{name}": value.bfloat16().contiguous() for prefix, values in
               (("change", change), ("change_clipped", change_clipped)) for name, value in values.items()},
              DATA / "gpt_steps_bf16.safetensors")
    record = dict(config=CONFIG, batch=BATCH, adamw=dict(ADAMW, weight_decay=DECAY, clip=CLIP),
                  loss=loss, loss_of_bf16=loss_of_bf16, torch=torch.__version__,
                  float32_error=dict(gradient=relative(gradient32, gradient), step5=relative(step5_32, step5)),
                  bf16_error=dict(float64=relative_together(gradient16, gradient),
                                  of_bf16=relative_together(gradient16, gradient_of_bf16)), variants=dict(adamw=plain, adamw_clipped=clipped,
                                adamw_bf16=mixed, adamw_bf16_clipped=mixed_clipped))
    with open(DATA / "gpt_steps.json", "w") as file:
        json.dump(record, file, indent=1)
        file.write("\n")
    print(json.dumps({k: record[k] for k in ("loss", "loss_of_bf16", "float32_error", "bf16_error")}),
          [s["grad_norm"] for s in plain])


if __name__ == "__main__":
    main()
