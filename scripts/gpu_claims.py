#!/usr/bin/env python3
"""Writes the README's figures of GPUs from perf/results/result.json, which scripts/gpu.sh makes.

A claim whose entries are not there, or did not pass, says that it was not run. --check: nothing is written; exit code 1
where the README says something else.
"""
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- from perf/results/result.json by scripts/gpu_claims.py -->", "<!-- end -->"
NOT_RUN = "Compiled and emulated, not yet run on a GPU"


def best(variants, deterministic):
    return max((v for v in variants if v["deterministic"] == deterministic and "refused" not in v), key=lambda v: v["tokens_per_s"])


def speed(ours, torch, deterministic=True):
    mine = ours["measured"][0]["deterministic" if deterministic else "in_any_order"]
    peer = best(torch["measured"], deterministic)
    return (f"{mine['tokens_per_s']:.0f} tokens/s, {mine['tokens_per_s'] / peer['tokens_per_s']:.2f} of PyTorch's "
            f"{peer['tokens_per_s']:.0f} ({peer['attention']}, vocabulary {peer['vocabulary']}); MFU {100 * mine['mfu']:.1f} %")


def peak(ours, torch):
    mine, peer = ours["measured"][0]["deterministic"], best(torch["measured"], True)
    return f"{mine['measured_peak_bytes'] / 2**30:.2f} GiB, {mine['measured_peak_bytes'] / peer['max_memory_allocated']:.2f} of PyTorch's"


def ops(entry):
    return f"{len(entry['ops'])} rows of ops and types; kernels launched: {entry['kernels']['launched']} of {entry['kernels']['of']}"


def sanitized(memcheck, racecheck):
    return "; ".join(f"{name}: {e['kernels']['launched']} of {e['kernels']['of']} kernels" for name, e in
                     (("memcheck", memcheck), ("racecheck", racecheck)))


def adamw(entry):
    rows = {r["name"]: r for r in entry["measured"][0]["results"]}
    return f"{100 * rows['adamw f32']['of_copy']:.0f} % of a copy's rate (f32), {100 * rows['adamw f32 with bf16 parameters']['of_copy']:.0f} % (with bf16 parameters)"


def xl(entry):
    e = entry["measured"][0]
    return f"{e['measured_peak_bytes'] / 2**30:.2f} GiB, as predicted; {e['median_seconds']:.2f} s per step"


CLAIMS = [
    ("every op against the CPU, random data", ["ops"], ops),
    ("compute-sanitizer finds nothing", ["sanitize.memcheck", "sanitize.racecheck"], sanitized),
    ("same loss bits at stages 0 to 3, 2 and 4 ranks on one GPU; peak as predicted", ["stages"],
     lambda e: f"{len(e['measured'][0]['runs'])} runs"),
    ("GPT-2 124M, bf16, 16 × 1024, both deterministic", ["ours", "torch"], speed),
    ("the same, sums in any order in both", ["ours", "torch"], lambda ours, torch: speed(ours, torch, False)),
    ("its peak memory", ["ours", "torch"], peak),
    ("AdamW, 10⁹ parameters", ["ours.adamw"], adamw),
    ("GPT-2 1.5B, 8 × 1024, within 80 GB", ["xl"], xl),
]


def section(entries):
    rows, missing = [], []
    for claim, names, text in CLAIMS:
        found = [entries[n] for n in names if n in entries and entries[n]["pass"] and entries[n]["device"]]
        if len(found) == len(names):
            rows.append(f"| {claim} | {text(*found)} ({found[0]['device']}, {found[0]['commit']}) |")
        else:
            missing.append(claim)
    parts = ["\n".join(["| on a GPU | |", "|---|---|", *rows])] if rows else []
    return "\n\n".join(parts + ([f"{NOT_RUN}: {'; '.join(missing)}."] if missing else []))


def main():
    results = ROOT / "perf/results/result.json"
    entries = {e["name"]: e for e in json.loads(results.read_text())} if results.exists() else {}
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        sys.exit(f"README.md: there is no part from {BEGIN} to {END}")
    new = f"{before}{BEGIN}\n{section(entries)}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        return "README.md: figures of GPUs are not those of perf/results/result.json; run scripts/gpu_claims.py" if new != text else 0
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
