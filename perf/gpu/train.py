#!/usr/bin/env python3
"""Runs train_gpt on a GPU for one claim, and prints what its metrics say as one line of JSON.

stages: stages 0 to 3 on 2 and 4 ranks that share the GPU: equal loss bits, predicted peak == measured, also at 16 x 1024.
ours:   GPT-2 124M, bf16, 16 x 1024, clip 1: tokens per second by the median of 50 steps, MFU, peak.
xl:     GPT-2 1.5B, 8 x 1024, recomputation within a budget of 80 GB: peak, and what `ashlar report` predicts.
Exit code 1 when a claim does not hold.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

WARM_UP = 10


def train(a, *flags):
    """The step lines and the summary of one run."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = pathlib.Path(folder, "metrics.jsonl")
        command = [a.train_gpt, "--device", a.device, "--synthetic", "--quiet", "--clip", "1", "--metrics", metrics, *flags]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(str(c) for c in command[1:])}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [line for line in lines if "step" in line], lines[-1]["summary"]


def shape(a):
    return ["--model", a.model, "--precision", "bf16", "--seq", str(a.seq)]


def peaks(steps, summary):
    return {"predicted_peak_bytes": summary["planned_peak_bytes"]["total"], "measured_peak_bytes": steps[-1]["peak_bytes"]["total"]}


def stages(a):
    runs = []
    for ranks, batch in ((2, 1), (4, 1), (2, a.batch // 2), (4, a.batch // 4)):
        for stage in range(4):
            steps, summary = train(a, *shape(a), "--ranks", str(ranks), "--stage", str(stage), "--batch", str(batch), "--steps", "3")
            runs.append({"ranks": ranks, "stage": stage, "sequences": ranks * batch,
                         "loss_bits": [s["loss_bits"] for s in steps], **peaks(steps, summary)})
    same = all(len({tuple(r["loss_bits"]) for r in runs if (r["ranks"], r["sequences"]) == key}) == 1
               for key in {(r["ranks"], r["sequences"]) for r in runs})
    exact = all(r["predicted_peak_bytes"] == r["measured_peak_bytes"] for r in runs)
    return same and exact, {"same_loss_bits": same, "peak_as_predicted": exact, "runs": runs}


def ours(a):
    result = {}
    for deterministic in ("on", "off") if a.device == "cuda" else ("on",):
        steps, summary = train(a, *shape(a), "--batch", str(a.batch), "--stage", "0", "--steps", str(WARM_UP + a.steps),
                               *(["--deterministic", deterministic] if a.device == "cuda" else []))
        seconds = [s["seconds"]["total"] for s in steps[WARM_UP:]]
        median = statistics.median(seconds)
        run = {"tokens_per_s": a.batch * a.seq / median, "median_seconds": median, "seconds": seconds,
               "flops_per_step": steps[-1]["flops"], "loss": steps[-1]["loss"], "driver_bytes": summary.get("driver_bytes"),
               **peaks(steps, summary)}
        if a.peak_tflops:
            run["mfu"] = 6 * summary["parameters"] * a.batch * a.seq / median / (1e12 * a.peak_tflops)
        result["deterministic" if deterministic == "on" else "in_any_order"] = run
    return all(r["predicted_peak_bytes"] == r["measured_peak_bytes"] for r in result.values()), result


def xl(a):
    flags = [*shape(a), "--batch", str(a.batch // 2), "--stage", "0", "--recompute", "budget", "--memory-budget", str(a.budget)]
    steps, summary = train(a, *flags, "--steps", "3")
    result = {"median_seconds": statistics.median(s["seconds"]["total"] for s in steps), "loss": [s["loss"] for s in steps],
              "budget": a.budget, **peaks(steps, summary)}
    return result["predicted_peak_bytes"] == result["measured_peak_bytes"] <= a.budget, result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", choices=["stages", "ours", "xl"])
    parser.add_argument("--train_gpt", required=True, help="the program")
    parser.add_argument("--device", default="cuda", help="cpu: to try this script")
    parser.add_argument("--model", help="gpt2, or gpt2-xl for xl")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--budget", type=int, default=80_000_000_000)
    parser.add_argument("--peak_tflops", type=float, help="of the device in bf16, dense: prints MFU by 6 P operations a token")
    a = parser.parse_args()
    a.model = a.model or ("gpt2-xl" if a.claim == "xl" else "gpt2")
    try:
        holds, result = {"stages": stages, "ours": ours, "xl": xl}[a.claim](a)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"claim": a.claim, "model": a.model, "batch": a.batch, "seq": a.seq, "holds": holds, **result}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
