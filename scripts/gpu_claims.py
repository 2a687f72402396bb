#!/usr/bin/env python3
"""Writes the README's figures of GPUs, and docs/gpu-kernels.md, from perf/results/result.json, which scripts/gpu.sh makes.

A claim whose entries are not there, did not pass or lack what it needs says so; one that misses its target says that too.
Runs of `ours` and `torch` stand each for itself: one that failed or was stopped leaves the others. --check: nothing is
written; exit code 1 where the README says something else.
"""
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- from perf/results/result.json by scripts/gpu_claims.py -->", "<!-- end -->"
NOT_RUN = "Compiled and emulated, not yet run on a GPU"
FAILED = "Run on a GPU without showing what was to be shown"
STAND_ALONE = ("ours", "torch")
TOKENS, PEAK, ADAMW, PAIR, RESERVED = 1.0, 0.7, 0.9, 200, 1.03  # targets


class Lacking(Exception):
    """An entry does not have what a claim is made of."""


def beside(target, holds):
    return f"target: {target}" if holds else f"target missed: {target}"


def peer(torch, deterministic):
    variants = [v for v in torch["measured"] if v["deterministic"] == deterministic and "refused" not in v]
    if not variants:
        raise Lacking
    return max(variants, key=lambda v: v["tokens_per_s"])


def own(ours, theirs, deterministic):
    """The quickest run of those whose peak is within the target, else of all: one run for speed and memory."""
    runs = [r for r in ours["measured"] if not r["broken"] and r["deterministic"] == deterministic]
    if not runs:
        raise Lacking
    small = [r for r in runs if r["measured_peak_bytes"] <= PEAK * theirs["max_memory_allocated"]]
    return max(small or runs, key=lambda r: r["tokens_per_s"])


def speed(ours, torch, deterministic=True):
    theirs = peer(torch, deterministic)
    mine = own(ours, theirs, deterministic)
    ratio = mine["tokens_per_s"] / theirs["tokens_per_s"]
    return (f"{mine['tokens_per_s']:.0f} tokens/s (`--recompute {mine['recompute']}`, replayed CUDA graphs), {ratio:.2f} of "
            f"PyTorch's {theirs['tokens_per_s']:.0f} ({theirs['attention']}, vocabulary {theirs['vocabulary']}), "
            f"{beside('1.0', ratio >= TOKENS)}; MFU {100 * mine['mfu']:.1f} %")


def peak(ours, torch):
    theirs = peer(torch, True)
    mine = own(ours, theirs, True)
    ratio = mine["measured_peak_bytes"] / theirs["max_memory_allocated"]
    return (f"{mine['measured_peak_bytes'] / 2**30:.2f} GiB in that run, as predicted, {ratio:.2f} of PyTorch's, "
            f"{beside('at most 0.7', ratio <= PEAK)}")


def stages(entry):
    return f"{sum('stage' in line for line in entry['measured'])} runs"


def ops(entry):
    return f"{len(entry['ops'])} rows of ops and types; kernels launched: {entry['kernels']['launched']} of {entry['kernels']['of']}"


def sanitized(entry):
    return f"{entry['kernels']['launched']} of {entry['kernels']['of']} kernels"


def adamw(entry):
    rows = {r["name"]: r for r in entry["measured"][0]["results"]}
    shares = [rows[name]["of_copy"] for name in ("adamw f32", "adamw f32 with bf16 parameters")]
    return (f"{100 * shares[0]:.0f} % of a copy's rate (f32), {100 * shares[1]:.0f} % (with bf16 parameters), "
            f"{beside('90 %', min(shares) >= ADAMW)}")


def pairs(entry):
    rows = [r for r in entry["measured"][0]["results"] if r["threads"] == 1]
    worst = max(rows, key=lambda r: r["caching_ns_per_pair"])
    return (f"{min(r['caching_ns_per_pair'] for r in rows):.0f} to {worst['caching_ns_per_pair']:.0f} ns ({worst['sizes']}), "
            f"{beside('under 200 ns', worst['caching_ns_per_pair'] < PAIR)}")


def reserved(entry):
    rows = [r for r in entry["measured"][0]["replays"] if r["order_streams"]]
    steps = [r for r in rows if r["trace"] != "random sizes"]
    worst, any_size = (max(r["reserved_over_live"] for r in part) for part in (steps, rows))
    return f"{worst:.3f} at most, {beside('1.03', worst <= RESERVED)}; with random sizes {any_size:.2f}"


def kernels(entry):
    table = entry["measured"][0]
    large = [r for r in table["results"] if r["median_seconds"] >= 0.02 * table["seconds_per_step"]]
    if not large:
        raise Lacking
    lowest = sorted(large, key=lambda r: r["of_ceiling"])[:3]
    rows = ", ".join(f"{r['op']} {r['output']} {100 * r['of_ceiling']:.0f} %" for r in lowest)
    return (f"{100 * table['of_ceiling']:.0f} % over the step ([each](docs/gpu-kernels.md)); the lowest of what takes 2 % of it or "
            f"more: {rows}")


def kernel_page(entry):
    """Each kernel of the step in a table."""
    table = entry["measured"][0]
    lines = ["# The kernels of a step beside what the GPU could do", "",
             f"{table['model']}, {table['precision']}, {table['batch']} × {table['seq']} tokens on one {entry['device']} at commit "
             f"{entry['commit']}: `{entry['command']}`. Written by `scripts/gpu_claims.py`.",
             f"The ceiling is what takes longer: the bytes that an op must read and write at a copy's "
             f"{table['copy_bytes_per_s'] / 1e9:.0f} GB/s, or its operations at {table['peak_tflops']:.0f} TFLOP/s; "
             f"more than that is read from a cache, or lies where it belongs already. "
             f"Attention: {table['attention_engine']}.", "",
             "| op | first output | calls | ms | GB/s | TFLOP/s | of the ceiling |", "|---|---|--:|--:|--:|--:|--:|"]
    for r in table["results"]:
        share = "more" if r["of_ceiling"] > 1 else f"{100 * r['of_ceiling']:.0f} %"
        lines.append(f"| {r['op']} | {r['output']} | {r['calls']} | {1e3 * r['median_seconds']:.3f} | {r['bytes_per_s'] / 1e9:.0f} | "
                     f"{r['operations_per_s'] / 1e12:.1f} | "
                     f"{share} |")
    return "\n".join(lines) + "\n"


def xl(entry):
    e = entry["measured"][0]
    return f"{e['measured_peak_bytes'] / 2**30:.2f} GiB, as `ashlar report` says; {e['median_seconds']:.2f} s per step"


CLAIMS = [
    ("every op against the CPU, random data", ["ops"], ops),
    ("compute-sanitizer's memcheck finds nothing", ["sanitize.memcheck"], sanitized),
    ("its racecheck finds nothing", ["sanitize.racecheck"], sanitized),
    ("same loss bits at stages 0 to 3, 2 and 4 ranks on one GPU; peak as predicted", ["stages"], stages),
    ("GPT-2 124M, bf16, 16 × 1024, both deterministic", ["ours", "torch"], speed),
    ("the same, sums in any order in both", ["ours", "torch"], lambda ours, torch: speed(ours, torch, False)),
    ("its peak memory", ["ours", "torch"], peak),
    ("its kernels beside their ceilings", ["ours.kernels"], kernels),
    ("AdamW, 10⁹ parameters", ["ours.adamw"], adamw),
    ("a pair of the caching allocator, host time", ["ours.allocator"], pairs),
    ("what it reserves over live bytes, replaying steps", ["ours.allocator"], reserved),
    ("GPT-2 1.5B, 8 × 1024, within 80 GB", ["xl"], xl),
]


def usable(entry):
    return entry["pass"] or entry["name"] in STAND_ALONE and "measured" in entry


def section(entries):
    rows, not_run, failed = [], [], []
    for claim, names, text in CLAIMS:
        found = [entries[n] for n in names if n in entries]
        try:
            if len(found) < len(names):
                not_run.append(claim)
            elif not all(usable(e) for e in found):
                failed.append(claim)
            else:
                commits = ", ".join(sorted({e["commit"] for e in found}))
                rows.append(f"| {claim} | {text(*found)} ({found[0]['device']}, {commits}) |")
        except Lacking:
            failed.append(claim)
    parts = ["\n".join(["| on a GPU | |", "|---|---|", *rows])] if rows else []
    parts += [f"{words}: {'; '.join(claims)}." for words, claims in ((FAILED, failed), (NOT_RUN, not_run)) if claims]
    return "\n\n".join(parts)


def pages(entries):
    """What is to stand where."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        sys.exit(f"README.md: there is no part from {BEGIN} to {END}")
    texts = {readme: f"{before}{BEGIN}\n{section(entries)}\n{END}{after}"}
    table = entries.get("ours.kernels")
    if table and table["pass"]:
        texts[ROOT / "docs/gpu-kernels.md"] = kernel_page(table)
    return texts


def main():
    results = ROOT / "perf/results/result.json"
    entries = json.loads(results.read_text()) if results.exists() else []
    for page, text in pages({e["name"]: e for e in entries if e["device"]}).items():
        if "--check" not in sys.argv[1:]:
            page.write_text(text)
        elif not page.exists() or page.read_text() != text:
            return f"{page.relative_to(ROOT)}: figures of GPUs are not those of {results.relative_to(ROOT)}; run scripts/gpu_claims.py"
    return 0


if __name__ == "__main__":
    sys.exit(main())
