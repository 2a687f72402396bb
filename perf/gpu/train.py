#!/usr/bin/env python3
"""Runs train_gpt on a GPU for one claim; prints a line of JSON for each run as it ends, so that a stop loses none.

stages: stages 0 to 3 on 2 and 4 ranks that share the GPU, 16 x 1024 tokens in all: equal loss bits, predicted peak ==
        measured. A last line says whether the runs agree.
ours:   GPT-2 124M, bf16, 16 x 1024, clip 1, with and without recomputation, deterministic on and off: tokens per second by
        the median of 50 steps, MFU, peak.
xl:     GPT-2 1.5B, 8 x 1024, recomputation within a budget of 80 GB: peak, and what `ashlar report` predicts.

A run tells whether its steps were replayed from CUDA graphs and what served attention. Exit code 1 when a claim does not
hold: the line then has the reasons in `broken`.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

RECORDED = 2  # steps before the first that is replayed


def run(command):
    """Its output. ASHLAR_LIBRARIES, where set, is where programs find their libraries; Python needs none of them."""
    libraries = os.environ.get("ASHLAR_LIBRARIES")
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries} if libraries else None
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}")
    return done.stdout


def train(a, *flags):
    """The step lines and the summary of one run, and what a result tells of any."""
    flags = ["--model", a.model, "--precision", "bf16", "--seq", a.seq, "--clip", "1", *flags]
    with tempfile.TemporaryDirectory() as folder:
        metrics = pathlib.Path(folder, "metrics.jsonl")
        run([a.train_gpt, "--device", a.device, "--synthetic", "--quiet", "--metrics", metrics, *flags])
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps, summary = [line for line in lines if "step" in line], lines[-1]["summary"]
    result = {"claim": a.claim, "flags": " ".join(map(str, flags)),
              "predicted_peak_bytes": summary["planned_peak_bytes"]["total"],
              "measured_peak_bytes": steps[-1]["peak_bytes"]["total"],
              "captured": all(step["replayed"] for step in steps[RECORDED:]),
              "attention_engine": summary.get("attention_engine"), "broken": []}
    if result["predicted_peak_bytes"] != result["measured_peak_bytes"]:
        result["broken"].append("the peak is not as predicted")
    engine = result["attention_engine"]
    if a.device != "cpu" and not (engine and "forward" in engine and "backward" in engine):
        result["broken"].append(f"attention was served by {engine}, not by cuDNN in both passes")
    return steps, summary, result


def say(result):
    """@return whether the claim holds"""
    print(json.dumps(result), flush=True)
    for reason in result["broken"]:
        print(f"{result.get('flags', result['claim'])}: {reason}", file=sys.stderr)
    return not result["broken"]


def timed(a, result, steps, warm_up):
    result["seconds"] = [step["seconds"]["total"] for step in steps[warm_up:]]
    result["median_seconds"] = statistics.median(result["seconds"])
    result["loss"] = steps[-1]["loss"]
    if a.device != "cpu" and not result["captured"]:
        result["broken"].append("steps were not replayed from CUDA graphs")


def attempt(a, one, *arguments):
    """One run of several, which go on without one that failed. @return whether it holds"""
    try:
        return one(a, *arguments)
    except RuntimeError as error:
        return say({"claim": a.claim, "broken": [str(error)]})


def stage_of(a, ranks, stage, bits):
    steps, _, result = train(a, "--ranks", ranks, "--stage", stage, "--batch", a.batch // ranks, "--steps", 3)
    result |= {"ranks": ranks, "stage": stage, "loss_bits": [step["loss_bits"] for step in steps]}
    bits.setdefault(ranks, set()).add(tuple(result["loss_bits"]))
    return say(result)


def stages(a):
    bits = {}
    holds = all([attempt(a, stage_of, ranks, stage, bits) for ranks in (2, 4) for stage in range(4)])
    same = all(len(of_ranks) == 1 for of_ranks in bits.values())
    holds &= say({"claim": "stages", "same_loss_bits": same, "broken": [] if same else ["stages differ in bits"]})
    return holds


def speed_of(a, recompute, deterministic):
    choice = ["--deterministic", deterministic] if a.device != "cpu" else []
    steps, summary, result = train(a, "--batch", a.batch, "--stage", "0", "--recompute", recompute,
                                   "--steps", a.warm_up + a.steps, *choice)
    timed(a, result, steps, a.warm_up)
    result |= {"deterministic": deterministic == "on", "recompute": recompute,
               "tokens_per_s": a.batch * a.seq / result["median_seconds"], "flops_per_step": steps[-1]["flops"],
               "driver_bytes": summary.get("driver_bytes")}
    if a.peak_tflops:
        result["mfu"] = 6e-12 * summary["parameters"] * result["tokens_per_s"] / a.peak_tflops
    return say(result)


def ours(a):
    modes = ("on", "off") if a.device != "cpu" else ("on",)
    return all([attempt(a, speed_of, recompute, mode) for recompute in ("none", "cheap") for mode in modes])


def xl(a):
    flags = ["--batch", a.batch // 2, "--stage", "0", "--recompute", "budget", "--memory-budget", a.budget]
    backend = ["--backend", a.backend] if a.device != "cpu" else ["--threads", "1"]
    reported = json.loads(run([a.ashlar, "report", "--json", "--model", a.model, "--precision", "bf16", "--seq", a.seq,
                               "--clip", "1", *backend, *flags]))
    steps, _, result = train(a, *flags, "--steps", a.steps, *(["--threads", "1"] if a.device == "cpu" else []))
    timed(a, result, steps, 3)
    result |= {"budget": a.budget, "reported_peak_bytes": reported["peak_bytes"]["total"]}
    if result["reported_peak_bytes"] != result["measured_peak_bytes"]:
        result["broken"].append("`ashlar report` predicts another peak")
    if result["measured_peak_bytes"] > a.budget:
        result["broken"].append("the peak is above the budget")
    return say(result)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", choices=["stages", "ours", "xl"])
    parser.add_argument("--train_gpt", required=True, help="the program")
    parser.add_argument("--ashlar", help="the program, for xl")
    parser.add_argument("--device", default="cuda", help="cpu: to try this script")
    parser.add_argument("--backend", default="sm_90", help="what `ashlar report` is asked about")
    parser.add_argument("--model", help="gpt2, or gpt2-xl for xl")
    parser.add_argument("--batch", type=int, default=16, help="sequences in all; xl takes half")
    parser.add_argument("--seq", type=int, default=1024)
    parser.add_argument("--warm_up", type=int, default=10, help="steps of ours that do not count")
    parser.add_argument("--steps", type=int, help="that count: 50; of xl 9, the first 3 of which do not")
    parser.add_argument("--budget", type=int, default=80_000_000_000)
    parser.add_argument("--peak-tflops", type=float, help="of the device in bf16, dense: prints MFU by 6 P operations a token")
    a = parser.parse_args()
    a.model = a.model or ("gpt2-xl" if a.claim == "xl" else "gpt2")
    a.steps = a.steps or (9 if a.claim == "xl" else 50)
    try:
        return 0 if {"stages": stages, "ours": ours, "xl": xl}[a.claim](a) else 1
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
