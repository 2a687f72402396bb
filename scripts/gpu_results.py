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

MEASURING = ("ops.table", "stages", "ours", "ours.adamw", "ours.allocator", "ours.kernels", "torch", "torch.adamw", "xl")


def objects_in(path):
    """JSON objects that begin with a line, over one or several, beside other output; not the part of one that a program
    which was stopped may have left."""
    text, found, at = path.read_text(errors="replace") if path.exists() else "", [], 0
    while at < len(text):
        end = text.find("\n", at)
        if text[at] == "{":
            try:
                value, end = json.JSONDecoder().raw_decode(text, at)
                found.append(value)
            except json.JSONDecodeError:
                pass
        at = (text.find("\n", end) if end >= 0 else -1) + 1 or len(text)
    return found


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


def kernels_in(path):
    """How many of a program's kernels it has launched, as it goes; nothing where it has told of none."""
    lines = objects_in(path)
    all_of_them = {name for line in lines for name in line.get("kernels", [])}
    launched = {line["launched"] for line in lines if "launched" in line}
    return {"launched": len(launched), "of": len(all_of_them),
            "not_launched": sorted(all_of_them - launched)} if launched else {}


def what_came(name, work, exit_code):
    """The raw numbers of a command, as keys of its entry, and its last lines where it failed or has none."""
    found = {}
    if measured := objects_in(work / "output"):
        found = {"describe": measured[0]} if name == "smoke.describe" else {"measured": measured}
    if exit_code or not measured:
        lines = (work / "output").read_text(errors="replace").strip().splitlines()
        found["output"] = [line[:500] for line in lines if not line.startswith("{")][-12:]
    if comparisons := objects_in(work / "ops"):
        found["ops"] = by_op(comparisons)
    if kernels := kernels_in(work / "kernels"):
        found["kernels"] = kernels
    return found


def summary(entry, exit_code, limit):
    parts = ["ok" if entry["pass"] else "FAILED"]
    output = entry.get("output", [])
    if exit_code == 77:
        parts.append(output[-1] if output else "skipped")
    elif exit_code in (124, 137):
        parts.append(f"it took longer than {limit} seconds")
    elif exit_code in (126, 127):
        parts.append(f"{entry['command'].split()[0]} could not be started")
    elif exit_code:
        parts.append(f"exit code {exit_code}; the last lines:\n" + "\n".join(output))
    if ops := entry.get("ops"):
        wrong = [f"{r['op']} {r['dtype']}" for r in ops
                 if r["largest_error"] is None or r["largest_error"] > r["tolerance"] or not r["same_bits"]]
        parts.append(f"{len(ops)} rows of ops and types" + (f", wrong: {', '.join(wrong)}" if wrong else ""))
    if kernels := entry.get("kernels"):
        parts.append(f"kernels launched: {kernels['launched']} of {kernels['of']}")
    if measured := entry.get("measured"):
        parts.append(f"{len(measured)} result(s)")
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
             "pass": a.exit_code == 0, "exit_code": a.exit_code, "seconds": a.seconds, **what_came(a.name, a.work, a.exit_code)}
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
