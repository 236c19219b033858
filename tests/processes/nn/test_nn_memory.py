"""Memory of the torch SimVQ grows with tokens + codes and never with their product."""

from __future__ import annotations

import os
import subprocess
import sys

from vq_reference.nn.nearest import CHUNK

CHILD = '''
import re, resource, sys, torch
from vq_reference.nn import SimVQ
from vq_reference.nn.nearest import nearest

torch.set_num_threads(1)
torch.manual_seed(0)
kind, tokens, codes, width = sys.argv[1], *map(int, sys.argv[2:])

def peak():
    """Highest resident memory so far, in bytes. On Linux ru_maxrss would start at that of the parent."""
    if sys.platform == "linux":
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def run(kind, tokens, codes, width):
    if kind == "random":
        output, _, loss = SimVQ(width, codes)(torch.randn(tokens, width, requires_grad=True))
        (output.sum() + loss).backward()
    else:  # the origin and the corners of a cube: the product of matrices excludes no code
        cube = ((torch.arange(codes)[:, None] >> torch.arange(width)) & 1) * 2.0 - 1
        assert not nearest(torch.zeros(tokens, width), cube).any()

run(kind, 64, 64, width)  # pages of the libraries count as resident once they are used
start = peak()
run(kind, tokens, codes, width)
print(peak() - start)
'''


def growth(kind: str, tokens: int, codes: int, width: int) -> int:
    """Return by how many bytes the resident memory of a child grew at its peak."""
    arguments = [sys.executable, "-c", CHILD, kind, *map(str, (tokens, codes, width))]
    # else glibc keeps freed blocks of up to 32 MiB, as many as it happens to
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout)


def test_forward_and_backward_never_hold_a_number_for_each_token_and_code():
    """All distances would take 2 GiB.

    What is held: for each token and each code no more than 32 rows of their width at once (directions, mirrors,
    halves of the loss and their gradients), and the chunk: bounds, their copy by blocks, comparisons, indices.
    """
    tokens, codes, width = 2**16, 2**13, 8
    assert growth("random", tokens, codes, width) < 4 * (32 * (tokens + codes) * width + 8 * CHUNK)


def test_the_chunk_bounds_memory_even_where_every_code_must_be_compared():
    """The candidates of a chunk, CHUNK at most, each hold ten int64 or float64; a chunk of pairs eight more."""
    tokens, codes, width = 2**9, 2**13, 13
    assert growth("equidistant", tokens, codes, width) < 8 * (10 + 8) * CHUNK
