#!/usr/bin/env python3
"""PyTorch's side of the comparison on a GPU: training a GPT-2, compiled, in bf16 under autocast with f32 parameters.

Prints a line of JSON per variant: the attention of scaled_dot_product_attention (flash, cudnn), the vocabulary as it is
or padded to a multiple of 64, and deterministic algorithms off or on. Each has seconds of the timed steps (compilation and
warm-up left out), tokens per second by their median and max_memory_allocated of those steps. A variant that PyTorch
refuses has its reason instead. Each runs in a process of its own, so that none is charged for what another left, nor for
the workspaces of deterministic products without having them. Tokens are random, drawn on the host and copied from pinned
memory, as a loader does. Exit code 1 when no deterministic variant ran.
"""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "math": SDPBackend.MATH}
VARIANTS = [(attention, multiple, deterministic) for multiple in (64, 1) for attention in ("flash", "cudnn")
            for deterministic in (False, True)]


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, time_, width = x.shape
        heads = [t.view(batch, time_, self.heads, -1).transpose(1, 2) for t in self.qkv(self.ln_1(x)).split(width, 2)]
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, time_, width))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, layers, width, heads, positions, vocabulary):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.apply(self.initialize)
        self.head.weight = self.tokens.weight

    @staticmethod
    def initialize(module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)

    def forward(self, tokens, targets):
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.ln(x)).flatten(0, 1), targets.flatten())


def padded(size, multiple):
    return (size + multiple - 1) // multiple * multiple


def measure(a, attention, multiple, deterministic):
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # for debugging: it costs a pass over memory
    torch.manual_seed(1)
    cuda = a.device == "cuda"
    with torch.device(a.device):
        model = GPT(a.layers, a.width, a.heads, a.seq, padded(a.vocabulary, multiple))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  lr=3e-4, betas=(0.9, 0.95), fused=True)
    step_model = torch.compile(model)
    generator = torch.Generator().manual_seed(2)

    def step():
        drawn = torch.randint(a.vocabulary, (a.batch, a.seq + 1), generator=generator)
        drawn = (drawn.pin_memory() if cuda else drawn).to(a.device, non_blocking=True)
        with torch.autocast(a.device, torch.bfloat16):
            loss = step_model(drawn[:, :-1], drawn[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    synchronize = torch.cuda.synchronize if cuda else (lambda: None)
    seconds = []
    with sdpa_kernel(BACKENDS[attention]) if cuda else contextlib.nullcontext():
        for _ in range(a.warmup):
            step()
        synchronize()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(a.steps):
            begin = time.perf_counter()
            loss = step()
            synchronize()
            seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds)
    return {"tokens_per_s": a.batch * a.seq / median, "median_seconds": median, "seconds": seconds,
            "max_memory_allocated": torch.cuda.max_memory_allocated() if cuda else None, "loss": loss.item()}


def adamw(a):
    """One fused AdamW over parameters in one f32 tensor: bytes of f32 p, g, m, v read and p, m, v written."""
    weights = torch.zeros(a.adamw, device=a.device, requires_grad=True)
    weights.grad = torch.full_like(weights, 1e-3)
    optimizer = torch.optim.AdamW([weights], lr=3e-4, fused=True)
    seconds = []
    for k in range(25):
        begin = time.perf_counter()
        optimizer.step()
        torch.cuda.synchronize()
        if k >= 5:
            seconds.append(time.perf_counter() - begin)
    return {"median_seconds": statistics.median(seconds), "seconds": seconds,
            "bytes_per_s": 28 * a.adamw / statistics.median(seconds)}


def one_variant(a, common):
    """In this process. A refusal is a result."""
    attention, multiple, deterministic = VARIANTS[a.variant]
    entry = {**common, "layers": a.layers, "width": a.width, "batch": a.batch, "seq": a.seq, "attention": attention,
             "vocabulary": padded(a.vocabulary, multiple), "deterministic": deterministic}
    try:
        entry |= measure(a, attention, multiple, deterministic)
    except RuntimeError as error:
        entry["refused"] = (str(error) or repr(error)).splitlines()[0]
    print(json.dumps(entry), flush=True)


def all_variants(a):
    """One process each until the time is over. @return the exit code"""
    end, measured = time.monotonic() + a.seconds, []
    for number, variant in enumerate(VARIANTS):
        environment = dict(os.environ)
        if variant[2]:
            environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # before CUDA starts
        with tempfile.TemporaryFile("w+") as output:  # no pipe: processes that compile may hold it for longer
            try:
                code = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--variant", str(number)],
                                      env=environment, stdout=output, timeout=max(0, end - time.monotonic())).returncode
            except subprocess.TimeoutExpired:
                print(f"no time for {variant} and what comes after it", file=sys.stderr)
                break
            output.seek(0)
            lines = [line for line in output if line.startswith("{")]
        print("".join(lines), end="", flush=True)
        if code:
            print(f"{variant}: exit code {code}", file=sys.stderr)
        measured += [entry for entry in map(json.loads, lines) if "refused" not in entry]
    return 0 if any(entry["deterministic"] for entry in measured) else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in dict(layers=12, width=768, heads=12, vocabulary=50257, batch=16, seq=1024, steps=50, warmup=10).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: to try this script")
    parser.add_argument("--seconds", type=float, default=480, help="for all variants; those left then are left out")
    parser.add_argument("--variant", type=int, help="this one alone, by its number")
    parser.add_argument("--adamw", type=int, default=0, help="instead: the fused update of so many f32 parameters")
    a = parser.parse_args()
    if a.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device was found", file=sys.stderr)
        return 77
    if a.variant is None and not a.adamw:
        return all_variants(a)
    torch.set_float32_matmul_precision("high")
    common = {"peer": f"PyTorch {torch.__version__}",
              "device": torch.cuda.get_device_name() if a.device == "cuda" else "cpu"}
    if a.adamw:
        print(json.dumps({**common, "adamw_parameters": a.adamw, **adamw(a)}))
    else:
        one_variant(a, common)
    return 0


if __name__ == "__main__":
    sys.exit(main())
