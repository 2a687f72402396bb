"""Opens what train_gpt exports with transformers, a small GPT-2 and a small Llama.

check_export.py TRAIN_GPT: trains each for two steps, exports it, reads the export and exports it
again; open_export.py then compares the two folders. Exits 77 without torch or transformers.
"""
import importlib.util
import json
import os
import subprocess
import sys
import tempfile

for module in ("torch", "transformers"):
    if importlib.util.find_spec(module) is None:
        print(f"{module} is not installed: skipped")
        sys.exit(77)

GPT2 = dict(model_type="gpt2", n_layer=2, n_head=2, n_embd=32, n_inner=50, n_positions=32, vocab_size=96)
LLAMA = dict(model_type="llama", num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=32,
             intermediate_size=44, max_position_embeddings=32, vocab_size=96, tie_word_embeddings=False)
OPEN_EXPORT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "open_export.py")

for config in (GPT2, LLAMA):
    with tempfile.TemporaryDirectory() as folder:
        made, again, model = (os.path.join(folder, name) for name in ("made", "again", "config.json"))
        with open(model, "w") as file:
            json.dump(config, file)
        train = [sys.argv[1], "--synthetic", "--seq", "16", "--batch", "2", "--threads", "1", "--quiet"]
        subprocess.run([*train, "--model", model, "--steps", "2", "--export", made], check=True)
        subprocess.run([*train, "--init", made, "--steps", "0", "--export", again], check=True)
        subprocess.run([sys.executable, OPEN_EXPORT, again, made], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
