"""Tensors inside nested values: found and named, as a reader would write them down."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

_CLOSED = (type, ModuleType, FunctionType, nn.Module)


def named_tensors(value: Any, name: str, within: frozenset[int] = frozenset()) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) for each tensor in nested mappings, sequences, named tuples and dataclasses.

    Of other objects, such as a ``torch.distributions.Normal``, the attributes are looked into. within: the identities
    of the objects around.

    >>> import torch
    >>> [name for name, _ in named_tensors({"out": torch.ones(2), "losses": [torch.ones(()), 3]}, "output")]
    ["output['out']", "output['losses'][0]"]
    """
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_tensors(item, f"{name}[{key!r}]", within)
    elif isinstance(value, (list, tuple)):
        fields = getattr(value, "_fields", None)
        for k, item in enumerate(value):
            yield from named_tensors(item, f"{name}.{fields[k]}" if fields else f"{name}[{k}]", within)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from named_tensors(getattr(value, field.name), f"{name}.{field.name}", within)
    elif hasattr(value, "__dict__") and not isinstance(value, _CLOSED) and id(value) not in within:
        for key, item in vars(value).items():
            yield from named_tensors(item, f"{name}.{key}", within | {id(value)})
