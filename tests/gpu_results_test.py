"""What scripts/gpu.sh keeps of programs that fail or are stopped, and what the README then says."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))
sys.dont_write_bytecode = True

import gpu_claims
import gpu_results


def entry(name, measured=None, passed=True, **more):
    found = {"measured": measured} if measured is not None else {}
    return {"name": name, "commit": "abc", "device": "H200", "pass": passed, **found, **more}


def own(tokens, peak, recompute="none", deterministic=True, broken=()):
    return {"deterministic": deterministic, "recompute": recompute, "tokens_per_s": tokens, "measured_peak_bytes": peak,
            "mfu": 0.4, "broken": list(broken)}


def theirs(tokens, peak, deterministic=True, **more):
    return {"deterministic": deterministic, "tokens_per_s": tokens, "max_memory_allocated": peak, "attention": "flash",
            "vocabulary": 50304, **more}


def section(*entries):
    return gpu_claims.section({e["name"]: e for e in entries})


class Results(unittest.TestCase):
    def run_step(self, output, exit_code=0, kernels="", name="ours", results=None, commit="abc"):
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            (work / "output").write_text(output)
            (work / "kernels").write_text(kernels)
            path = results or work / "result.json"
            done = subprocess.run([sys.executable, str(SCRIPTS / "gpu_results.py"), str(path), "--name", name, "--command", "run it",
                                   "--commit", commit, "--device", '{"name":"H200"}', "--exit-code", str(exit_code),
                                   "--seconds", "5", "--limit", "9", "--work", folder], capture_output=True, text=True)
            return json.loads(path.read_text()), done

    def test_results_are_found_beside_other_output(self):
        text = 'a warning\n{\n  "a": {\n    "b": 1\n  }\n}\n{"c": 2} trailing\nnoise {"d": 3}\n{"e": 4}\n{"cut": [1, 2'
        entries, done = self.run_step(text)
        self.assertEqual(entries[0]["measured"], [{"a": {"b": 1}}, {"c": 2}, {"e": 4}])
        self.assertTrue(entries[0]["pass"])
        self.assertNotIn("output", entries[0])

    def test_a_stopped_program_leaves_what_it_measured_and_said(self):
        entries, done = self.run_step('{"a": 1}\nit went on\n', exit_code=124)
        self.assertEqual((entries[0]["pass"], entries[0]["measured"], entries[0]["output"]), (False, [{"a": 1}], ["it went on"]))
        self.assertIn("longer than 9 seconds", done.stdout)

    def test_kernels_are_counted_as_far_as_it_came(self):
        kernels = '{"kernels":["x","y","z"]}\n{"launched":"y"}\n{"launched":"z"}\n{"laun'
        entries, _ = self.run_step("", exit_code=124, kernels=kernels, name="ops")
        self.assertEqual(entries[0]["kernels"], {"launched": 2, "of": 3, "not_launched": ["x"]})

    def test_what_measured_nothing_does_not_pass(self):
        entries, done = self.run_step("all is well\n")
        self.assertFalse(entries[0]["pass"])
        self.assertEqual(done.returncode, 1)

    def test_a_skipped_program_says_why(self):
        _, done = self.run_step("skipped: no attention by cuDNN\n", exit_code=77)
        self.assertIn("no attention by cuDNN", done.stdout)

    def test_calls_add_to_the_same_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "result.json")
            for name, commit in (("ours", "1"), ("xl", "1"), ("ours", "2")):
                entries, _ = self.run_step('{"a": 1}\n', name=name, results=path, commit=commit)
            self.assertEqual([(e["name"], e["commit"]) for e in entries], [("ours", "2"), ("xl", "1")])


class Claims(unittest.TestCase):
    def test_without_entries_nothing_is_claimed(self):
        self.assertNotIn("|", section())
        self.assertTrue(section().startswith(gpu_claims.NOT_RUN))

    def test_speed_and_memory_are_of_one_run(self):
        ours = entry("ours", [own(120, 60), own(150, 80), own(110, 50, "cheap")])
        text = section(ours, entry("torch", [theirs(100, 100), theirs(200, 100, refused="no")]))
        self.assertIn("120 tokens/s (`--recompute none`, replayed CUDA graphs), 1.20 of PyTorch's 100", text)
        self.assertIn("0.60 of PyTorch's, target: at most 0.7", text)

    def test_missed_targets_are_said(self):
        text = section(entry("ours", [own(90, 80)]), entry("torch", [theirs(100, 100)]))
        self.assertIn("0.90 of PyTorch's 100 (flash, vocabulary 50304), target missed: 1.0", text)
        self.assertIn("0.80 of PyTorch's, target missed: at most 0.7", text)
        adamw = entry("ours.adamw", [{"results": [{"name": "adamw f32", "of_copy": 0.95},
                                                  {"name": "adamw f32 with bf16 parameters", "of_copy": 0.85}]}])
        self.assertIn("target missed: 90 %", section(adamw))
        allocator = entry("ours.allocator", [{"results": [{"threads": 1, "sizes": "s", "caching_ns_per_pair": 250},
                                                          {"threads": 2, "sizes": "s", "caching_ns_per_pair": 900}],
                                              "replays": [{"trace": "fsdp", "order_streams": True, "reserved_over_live": 1.01},
                                                          {"trace": "random sizes", "order_streams": True, "reserved_over_live": 1.2}]}])
        self.assertIn("target missed: under 200 ns", section(allocator))
        self.assertIn("1.010 at most, target: 1.03; with random sizes 1.20", section(allocator))

    def test_a_peer_that_was_stopped_counts_as_far_as_it_came(self):
        ours = entry("ours", [own(120, 60), own(130, 60, deterministic=False)])
        both = entry("torch", [theirs(100, 100), theirs(110, 100, deterministic=False)], passed=False)
        self.assertIn("1.20 of PyTorch's", section(ours, both))
        fast = entry("torch", [theirs(110, 100, deterministic=False)], passed=False)
        text = section(ours, fast)
        self.assertIn("130 tokens/s", text)
        self.assertNotIn("120 tokens/s", text)
        self.assertIn(f"{gpu_claims.FAILED}: GPT-2 124M, bf16, 16 × 1024, both deterministic; its peak memory.", text)
        for nothing in (entry("torch", passed=False), entry("torch", [theirs(1, 1, refused="no")])):
            self.assertNotIn("tokens/s", section(ours, nothing))

    def test_a_run_that_broke_its_claim_is_not_quoted(self):
        failed = {"claim": "ours", "broken": ["train_gpt: exit code 1"]}
        ours = entry("ours", [failed, own(150, 60, broken=["attention was served by ours"]), own(120, 60, "cheap")], passed=False)
        text = section(ours, entry("torch", [theirs(100, 100)]))
        self.assertIn("120 tokens/s (`--recompute cheap`", text)
        self.assertNotIn("150", text)

    def test_what_failed_is_said(self):
        text = section(entry("xl", [{"measured_peak_bytes": 1, "median_seconds": 1}], passed=False))
        self.assertIn(f"{gpu_claims.FAILED}: GPT-2 1.5B", text)

    def test_kernels(self):
        rows = [{"op": op, "output": "f32 (8)", "of_ceiling": share, "median_seconds": seconds, "calls": 2, "bytes_per_s": 4e11,
                 "operations_per_s": 5e13} for op, share, seconds in (("gelu", 0.9, 0.9), ("sum", 0.2, 0.03), ("pack", 7, 0.01))]
        found = entry("ours.kernels", [{"results": rows, "seconds_per_step": 1, "of_ceiling": 0.8, "copy_bytes_per_s": 4e12,
                                        "peak_tflops": 989, "model": "gpt2", "precision": "bf16", "batch": 16, "seq": 1024,
                                        "attention_engine": "eng"}], command="run it")
        self.assertIn("80 % over the step", section(found))
        self.assertIn("more: sum f32 (8) 20 %, gelu f32 (8) 90 %", section(found))
        page = gpu_claims.kernel_page(found)
        self.assertIn("| sum | f32 (8) | 2 | 30.000 | 400 | 50.0 | 20 % |", page)
        self.assertIn("| pack | f32 (8) | 2 | 10.000 | 400 | 50.0 | more |", page)
        self.assertIn("4000 GB/s, or its operations at 989 TFLOP/s", page)
        written = {path.name for path in gpu_claims.pages({"ours.kernels": found})}
        self.assertEqual(written, {"README.md", "gpu-kernels.md"})
        self.assertEqual({path.name for path in gpu_claims.pages({})}, {"README.md"})


if __name__ == "__main__":
    unittest.main()
