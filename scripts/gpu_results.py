#!/usr/bin/env python3
"""Merges what came of one command on a GPU machine into a JSON array; scripts/gpu.sh calls it.

An entry takes the place of the one with its name and device. The file is replaced in one step, so that it is whole at
any time. Prints one line about the entry; exits with 1 where the program did not say what it was run for.
"""
import argparse
import json
import os
import pathlib
import sys

MEASURING = ("ops.table", "stages", "ours", "ours.adamw", "ours.allocator", "torch", "torch.adamw", "xl")


def lines_of_json(path):
    """Whole lines alone: a program that was stopped may have left a part of one."""
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]


def by_op(comparisons):
    """The worst of each op and type; an error that is null is not a number."""
    table = {}
    for c in comparisons:
        row = table.setdefault((c["op"], c["dtype"]), {"op": c["op"], "dtype": c["dtype"], "comparisons": 0,
                                                       "largest_error": 0.0, "tolerance": c["tolerance"],
                                                       "same_bits": True})
        row["comparisons"] += 1
        row["same_bits"] &= c["same_bits"]
        worst = row["largest_error"]
        row["largest_error"] = None if worst is None or c["error"] is None else max(worst, c["error"])
    return [table[key] for key in sorted(table)]


def what_came(name, work):
    """The raw numbers of a command, as keys of its entry."""
    text = (work / "output").read_text(errors="replace")
    found = {"output": text.strip().splitlines()[-12:]}
    try:
        measured = [json.loads(text)]  # over several lines
    except json.JSONDecodeError:
        measured = lines_of_json(work / "output")
    if measured:
        found = {"describe": measured[0]} if name == "smoke.describe" else {"measured": measured}
    if comparisons := lines_of_json(work / "ops"):
        found["ops"] = by_op(comparisons)
    for k in lines_of_json(work / "kernels"):
        found["kernels"] = {"launched": len(k["launched"]), "of": len(k["kernels"]),
                            "not_launched": sorted(set(k["kernels"]) - set(k["launched"]))}
    return found


def summary(entry, exit_code, limit):
    parts = ["ok" if entry["pass"] else "FAILED"]
    if exit_code == 77:
        parts.append("there is no CUDA device here")
    elif exit_code in (124, 137):
        parts.append(f"it took longer than {limit} seconds")
    elif exit_code in (126, 127):
        parts.append(f"{entry['command'].split()[0]} could not be started")
    elif exit_code:
        parts.append(f"exit code {exit_code}; the last lines:\n" + "\n".join(entry.get("output", [])))
    if ops := entry.get("ops"):
        wrong = [f"{r['op']} {r['dtype']}" for r in ops
                 if r["largest_error"] is None or r["largest_error"] > r["tolerance"] or not r["same_bits"]]
        parts.append(f"{len(ops)} rows of ops and types" + (f", wrong: {', '.join(wrong)}" if wrong else ""))
    if kernels := entry.get("kernels"):
        parts.append(f"kernels launched: {kernels['launched']} of {kernels['of']}")
    return f"{entry['name']}: " + "; ".join(parts)


def merge(path, entry):
    entries = json.loads(path.read_text()) if path.exists() else []
    key = ("name", "device")
    entries = [e for e in entries if any(e[k] != entry[k] for k in key)] + [entry]
    entries.sort(key=lambda e: [str(e[k]) for k in key])
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(entries, indent=1) + "\n")
    os.replace(part, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=pathlib.Path)
    for text in ("--name", "--command", "--commit", "--device"):
        parser.add_argument(text, required=True)
    for number in ("--exit-code", "--seconds", "--limit"):
        parser.add_argument(number, type=int, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    a = parser.parse_args()

    device = json.loads(a.device) if a.device.startswith("{") else None
    entry = {"name": a.name, "command": a.command, "commit": a.commit, "device": device and device["name"],
             "pass": a.exit_code == 0, "exit_code": a.exit_code, "seconds": a.seconds, **what_came(a.name, a.work)}
    compares = a.name == "ops" or a.name.startswith("sanitize.")
    silent = entry["pass"] and (compares and not (entry.get("ops") and entry.get("kernels")) or
                                a.name in MEASURING and not entry.get("measured"))
    entry["pass"] &= not silent
    merge(a.results, entry)
    print(summary(entry, a.exit_code, a.limit), flush=True)
    if silent:
        sys.exit(f"{a.name}: the program measured nothing")


if __name__ == "__main__":
    main()
