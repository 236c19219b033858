"""Tensors inside nested values: found and named, as a reader would write them down."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def named_tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) for each tensor in nested mappings, sequences, named tuples and dataclasses.

    >>> import torch
    >>> [name for name, _ in named_tensors({"out": torch.ones(2), "losses": [torch.ones(()), 3]}, "output")]
    ["output['out']", "output['losses'][0]"]
    """
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_tensors(item, f"{name}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        fields = getattr(value, "_fields", None)
        for k, item in enumerate(value):
            yield from named_tensors(item, f"{name}.{fields[k]}" if fields else f"{name}[{k}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from named_tensors(getattr(value, field.name), f"{name}.{field.name}")
