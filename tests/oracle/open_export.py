#!/usr/bin/env python3
"""Opens an exported folder with transformers and compares it with the folder it came from, bit for bit.

    python tests/oracle/open_export.py EXPORTED [ORIGINAL]

Prints one line and exits 0 when AutoModelForCausalLM.from_pretrained loads every weight of EXPORTED (none missing, none
left over) and, with ORIGINAL, when all weights have the same bits and the same tokens give the same logits; exits 1 and
says what differs otherwise.
"""
import sys

import torch
from transformers import AutoModelForCausalLM


def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            sys.exit(f"{folder}: {kind}: {sorted(info[kind])}")
    return model.eval()


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)


def main():
    model = load(sys.argv[1])
    if len(sys.argv) > 2:
        original = load(sys.argv[2])
        ours, theirs = model.state_dict(), original.state_dict()
        if ours.keys() != theirs.keys():
            sys.exit(f"different tensors: {sorted(ours.keys() ^ theirs.keys())}")
        for name, tensor in ours.items():
            if tensor.dtype != theirs[name].dtype or not torch.equal(bits(tensor), bits(theirs[name])):
                sys.exit(f"{name} differs")
        tokens = torch.arange(model.config.max_position_embeddings)[None] % model.config.vocab_size
        with torch.no_grad():
            if not torch.equal(model(tokens).logits, original(tokens).logits):
                sys.exit("the logits differ")
    print(f"{sys.argv[1]}: {sum(p.numel() for p in model.parameters())} parameters"
          + (", equal bits" if len(sys.argv) > 2 else ""))


if __name__ == "__main__":
    main()
