#!/usr/bin/env python3
"""A model trained by Ashlar beside PyTorch FSDP2 on the same work: CPU, 2 ranks, turn by turn. Prints JSON.

    beside_fsdp2.py --peer fsdp2_gpt.py --python venv/bin/python --model 30m    # examples/wrap_torch, a libtorch module
    beside_fsdp2.py --peer fsdp2_gpt.py --python venv/bin/python --model gpt2   # examples/train_gpt, a traced model

The peer is a script that trains the same model through `fully_shard` over gloo and prints one JSON object; it clips the
gradients' norm at 1, and so do we. Each figure is the median over the rounds; a round's step time is the median of its
steps after the first two, on the slowest rank, and its bytes are the rank's peak resident set above what it was before
the model was built.
"""
import argparse, json, os, pathlib, platform, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
WARM_UP = 2


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def common(args, precision):
    return ["--model", args.model, "--batch", args.batch, "--seq", args.seq, "--steps", args.steps,
            "--threads", args.threads, "--precision", precision]


def peer_round(args, precision):
    words = [args.python, args.peer, "--mode", "fsdp2", "--ranks", args.ranks, *common(args, precision)]
    row = json.loads(run(words).splitlines()[-1])
    return {"name": row["peer"], "parameters": row["parameters"], "seconds": row["seconds_per_step"],
            "bytes": row["peak_bytes_per_rank_in_steps"], "loss": row["first_loss"]}


def our_round(args, precision):
    program = args.build / "examples" / ("train_gpt" if args.model == "gpt2" else "wrap_torch")
    with tempfile.TemporaryDirectory() as folder:
        metrics = pathlib.Path(folder) / "metrics.jsonl"
        run(["mpiexec", "-n", args.ranks, program, *common(args, precision), "--synthetic", "--stage", 3,
             "--clip", 1, "--metrics", metrics])
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps, summary = lines[:-1], lines[-1]["summary"]
    state = summary["model_state_bytes"]
    return {"name": program.name, "parameters": summary["parameters"], "loss": steps[0]["loss"],
            "seconds": statistics.median(step["seconds"]["total"] for step in steps[WARM_UP:]),
            "bytes": summary["peak_resident_bytes"], "model_state_bytes": state,
            "model_state_bytes_per_parameter": sum(state.values()) / summary["parameters"]}


def summarise(rounds, tokens):
    seconds = [r["seconds"] for r in rounds]
    last = {key: rounds[-1][key] for key in rounds[-1] if key not in ("seconds", "bytes", "loss")}
    return {**last, "seconds_per_step": statistics.median(seconds), "seconds_of_rounds": seconds,
            "tokens_per_second": tokens / statistics.median(seconds), "first_loss": rounds[-1]["loss"],
            "peak_resident_bytes": int(statistics.median(r["bytes"] for r in rounds))}


def measure(args, precision):
    ours, peers, load = [], [], []
    for _ in range(args.rounds):
        load.append(os.getloadavg()[0])
        ours.append(our_round(args, precision))
        time.sleep(args.pause)
        peers.append(peer_round(args, precision))
        time.sleep(args.pause)
    tokens = args.ranks * args.batch * args.seq
    a, b = summarise(ours, tokens), summarise(peers, tokens)
    return {"ashlar": a, "fsdp2": b, "load_before_rounds": load,
            "step_time_ratio": a["seconds_per_step"] / b["seconds_per_step"],
            "peak_bytes_ratio": a["peak_resident_bytes"] / b["peak_resident_bytes"]}


def hardware():
    cpu = platform.processor()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peer", type=pathlib.Path, required=True, help="the script that trains with FSDP2")
    p.add_argument("--python", default=sys.executable, help="that has torch")
    p.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    p.add_argument("--model", default="30m", choices=["30m", "gpt2"])
    p.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    p.add_argument("--batch", type=int, default=4, help="sequences per rank")
    p.add_argument("--seq", type=int, default=256)
    p.add_argument("--steps", type=int, default=7)
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--threads", type=int, default=1, help="per rank")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--pause", type=float, default=1, help="seconds between runs")
    args = p.parse_args()
    if args.steps <= WARM_UP:
        p.error(f"--steps {args.steps}: the first {WARM_UP} are not counted")
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    result = {"benchmark": "beside_fsdp2", "model": args.model, "ranks": args.ranks, "threads": args.threads,
              "batch": args.batch, "seq": args.seq, "steps": args.steps, "clip": 1.0, "commit": commit,
              "hardware": hardware(),
              "environment": {k: v for k, v in os.environ.items() if k.startswith(("OPENBLAS_", "OMP_", "MALLOC_"))}}
    for precision in args.precisions:
        result[precision] = measure(args, precision)
        print(precision, json.dumps(result[precision]), file=sys.stderr)
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
