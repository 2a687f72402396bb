"""Torch takes the pluggable allocator: loads the library given, finds its functions, makes it the current one. With a GPU it
computes on it too. Exit code 77: no torch with CUDA here."""

import ctypes
import sys

try:
    import torch

    torch.cuda.memory.CUDAPluggableAllocator
    torch._C._cuda_customAllocator
except (ImportError, AttributeError):
    print("skipped: no torch that was built with CUDA")
    sys.exit(77)


def load(path):
    allocator = torch.cuda.memory.CUDAPluggableAllocator(path, "ashlar_torch_alloc", "ashlar_torch_free")
    library = ctypes.CDLL(path)
    address = lambda function: ctypes.cast(function, ctypes.c_void_p).value
    allocator.allocator().set_record_stream_fn(address(library.ashlar_torch_record_stream))
    allocator.allocator().set_reset_fn(address(library.ashlar_torch_empty_cache))
    torch.cuda.memory.change_current_allocator(allocator)
    assert torch.cuda.memory.get_allocator_backend() == "pluggable"


def compute():
    side = torch.cuda.Stream()
    for size in (1, 1000, 3_000_000):
        x = torch.arange(size, dtype=torch.float64, device="cuda")
        assert float(x.sum()) == size * (size - 1) / 2
        with torch.cuda.stream(side):
            side.wait_stream(torch.cuda.current_stream("cuda"))
            y = x * 2
            x.record_stream(side)
        del x
        torch.cuda.synchronize()
        assert float(y[-1]) == 2 * (size - 1)
    try:
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
        raise AssertionError("a pebibyte was allocated")
    except RuntimeError as error:
        assert str(error).startswith("out of memory: "), error
    del y
    torch.cuda.empty_cache()


load(sys.argv[1])
if torch.cuda.is_available():
    compute()
    print("torch computes with it")
else:
    print("torch has loaded it; no GPU here to compute on")
