"""What an older torch lacks, and the release that brought it.

A test of something that this torch lacks is no skip: it has to fail, and says from which release on it does not. So an
entry that claims too much fails as well.
"""

from __future__ import annotations

import sys

import pytest
import torch
from packaging.version import Version

COMPILER = "2.4" if sys.version_info >= (3, 12) else "2.1" if sys.version_info >= (3, 11) else "2.0"
#: feature → the first torch that was seen to have it, and what older ones say
SINCE = {
    "float16": ("2.2", "matrix products and clamps of float16 on the CPU: \"not implemented for 'Half'\""),
    "compiler": (COMPILER, f"dynamo knows Python {'.'.join(map(str, sys.version_info[:2]))}"),
    "compiled": ("2.2", "a graph in which a dtype is computed: torch.promote_types is no operation of dynamo's"),
    "broken graph": (
        "2.8",
        "a buffer that changes on both sides of a break in the graph: a TypeError in functorch",
    ),
    "hooks on .grad": ("2.1", "Tensor has no register_post_accumulate_grad_hook"),
    "newest upstream": ("2.5", "torch-einops-utils, which the newest vector-quantize-pytorch imports, asks for it"),
}


def has(feature: str) -> bool:
    """Whether this torch has the feature.

    >>> has("float16") == (Version(torch.__version__) >= Version("2.2"))
    True
    """
    return Version(torch.__version__) >= Version(SINCE[feature][0])


def needs(feature: str) -> pytest.MarkDecorator:
    """Return a mark for tests that fail, and must fail, where torch lacks the feature."""
    version, what = SINCE[feature]
    return pytest.mark.xfail(not has(feature), strict=True, reason=f"since torch {version}: {what}")
