"""Asks torch.cuda._memory_viz about a snapshot of the caching allocator.

check_snapshot.py TEST_MEMORY: runs the test that writes one, loads it and lets every reader of
_memory_viz work on it. Exits 77 without torch.
"""
import os
import pickle
import subprocess
import sys
import tempfile

try:
    from torch.cuda import _memory_viz
except ImportError:
    print("torch is not installed: skipped")
    sys.exit(77)

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "snapshot.pickle")
    subprocess.run(
        [sys.argv[1], "-tc=snapshot: every live block*"],
        env={**os.environ, "ASHLAR_SNAPSHOT": path},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with open(path, "rb") as file:
        snapshot = pickle.load(file)
    with open(path + ".totals") as file:
        reserved, live = map(int, file.read().split())

blocks = [b for s in snapshot["segments"] for b in s["blocks"]]
assert sum(s["total_size"] for s in snapshot["segments"]) == reserved
assert sum(b["requested_size"] for b in blocks) == live
for segment in snapshot["segments"]:
    at = segment["address"]
    for block in segment["blocks"]:
        assert block["address"] == at
        at += block["size"]
    assert at == segment["address"] + segment["total_size"]
summary = _memory_viz.segsum(snapshot)
assert f"segments: {len(snapshot['segments'])}" in summary, summary
trace = _memory_viz.trace(snapshot)
assert "del " in trace and " = seg_" in trace, trace
assert "<script" in _memory_viz.trace_plot(snapshot)
assert "<script" in _memory_viz.segment_plot(snapshot)
print(f"torch reads {len(snapshot['segments'])} segments, {len(blocks)} blocks, "
      f"{len(snapshot['device_traces'][0])} trace entries")
