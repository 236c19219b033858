"""What laws do to a torch module whose state lasts, in torch and NumPy alone.

The border of lasting layers is made of these functions, and a script that stands alone holds their text: so what it
does to a module is what the law did. None of them uses anything of ours but the others here.
"""

from __future__ import annotations

import contextlib
import copy
import io
import zlib
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint


def called(
    module: Any,
    call: Any,
    x: Any,
    leading: tuple[int, ...],
    dtype: torch.dtype,
    start: Any = None,
    training: bool = True,
    with_grad: bool = True,
    mask: Any = None,
    lengths: Any = None,
    autocast: bool = False,
    compiled: Any = None,
    salt: int = 0,
    checkpointed: bool = False,
    asks: bool = True,
) -> dict[str, Any]:
    """Call a module once, and go backward once from the gradients (at the output, at each loss); return all by name.

    The seed is made of the state and the salt: layers of one state draw alike, and a step later they draw anew.
    """
    module.train(training)
    entering = torch.as_tensor(x).to(dtype, copy=True).reshape(*leading, -1).requires_grad_(with_grad and asks)
    present = None if mask is None else torch.as_tensor(mask).reshape(leading)
    until = None if lengths is None else torch.as_tensor(lengths)
    low = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()
    with torch.random.fork_rng(devices=()), torch.set_grad_enabled(with_grad), low:
        caches = unsaved(module)
        held = b"".join(values.tobytes() for name, values in state(module).items() if name not in caches)
        # the CPU's alone: torch.manual_seed writes down the stack for each kind of accelerator, which takes longer
        torch.default_generator.manual_seed(salt + zlib.crc32(held))
        given = (module if compiled is None else compiled, entering, present, until)
        output, indices, losses = checkpoint(call, *given, use_reentrant=True) if checkpointed else call(*given)
    reply = {
        "output": array(output).reshape(x.shape),
        "indices": indices.detach().reshape(len(x), -1).numpy().copy(),
        "losses": array(losses).reshape(-1),
        "dtypes": tuple(str(each.dtype).removeprefix("torch.") for each in (output, indices, losses)),
        "shapes": tuple(tuple(each.shape) for each in (output, indices, losses)),
    }
    if start is None:
        return reply
    reply["gradient at x"] = None  # as it stays where x does not ask for one
    reached = {name: each for name, each in [("x", entering), *module.named_parameters()] if each.requires_grad}
    at_output = torch.as_tensor(start[0]).reshape(output.shape).to(output.dtype)
    at_losses = torch.as_tensor(start[1]).to(losses.dtype)
    ends = [end for end in ((output, at_output), (losses.reshape(-1), at_losses)) if end[0].requires_grad]
    gradients: Any = [None] * len(reached)
    if ends and checkpointed:  # a whole backward, the only one that it has
        values, starts = zip(*ends, strict=True)
        torch.autograd.backward(values, starts)
        gradients = [each.grad for each in reached.values()]
        module.zero_grad(set_to_none=True)
    elif ends and reached:  # a loss may have a graph that leads nowhere
        values, starts = zip(*ends, strict=True)
        gradients = torch.autograd.grad(values, list(reached.values()), starts, allow_unused=True)
    for name, gradient in zip(reached, gradients, strict=True):
        shape = x.shape if name == "x" else reached[name].shape
        reply[f"gradient at {name}"] = None if gradient is None else array(gradient).reshape(shape)
    return reply


def decoded(module: Any, decode: Any, indices: Any) -> Any:
    """Return the outputs for indices (N, H), or (N, L) of a stack, as they are shaped: (N, dim) by right code."""
    chosen = torch.as_tensor(indices)
    lying = chosen.squeeze(-1) if chosen.shape[-1] == 1 and not hasattr(module, "layers") else chosen
    return array(decode(module, lying[None]))[0]


def array(tensor: Any) -> Any:
    """Return the values as float64."""
    return np.array(tensor.detach().to("cpu", torch.float64).numpy())


def state(module: Any) -> dict[str, Any]:
    """Return every parameter and buffer, whether a state_dict holds it or not."""
    return {name: array(each) for name, each in [*module.named_parameters(), *module.named_buffers()]}


def unsaved(module: Any) -> set[str]:
    """Return the names of buffers that no state_dict holds."""
    parts = [(f"{path}.".lstrip("."), part) for path, part in module.named_modules()]
    return {f"{prefix}{name}" for prefix, part in parts for name in part._non_persistent_buffers_set}


def load_state(module: Any, other: Any) -> Any:
    """Load the state of `module` into `other`."""
    other.load_state_dict(module.state_dict())
    return other


def deepcopied(module: Any, other: Any) -> Any:
    """Copy the module."""
    return copy.deepcopy(module)


def pickled(module: Any, other: Any) -> Any:
    """Send the module through `torch.save` as a whole."""
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    # the file was written a line above: nothing in it is foreign
    whole: Any = {"weights_only": False} if "weights_only" in torch.load.__code__.co_varnames else {}
    return torch.load(file, **whole)


def compiled(module: Any) -> Any:
    """Return the module compiled by a backend that needs no compiler, in as many graphs as it takes, state shared."""
    return torch.compile(module, backend="aot_eager")


def arrived(gradient: Any, shape: tuple[int, ...]) -> Any:
    """Return a gradient, and zeros where no path leads there."""
    return np.zeros(shape) if gradient is None else gradient


def excess(tokens: Any, codes: Any, chosen: Any) -> Any:
    """Return how much farther, squared, each token is from the code that it chose than from the nearest, (N,)."""
    squares = (torch.as_tensor(tokens)[:, None] - codes).square().sum(dim=2).numpy()
    return squares[np.arange(len(squares)), chosen] - squares.min(axis=1)


def beyond(codes: Any, before: Any, tokens: Any) -> Any:
    """Return by how much entries of codes, (G, K, D), exceed the largest of codes before and tokens, in size."""
    most = np.maximum(np.abs(before).max(axis=(0, 1)), np.abs(np.asarray(tokens)).max(axis=0))
    return np.maximum(np.abs(codes) - most, 0)


def replaced(reads: Any, below: float) -> Any:
    """Return the last code as it was read when it had first come below that, and as it was at the end if it never has.

    reads: codes, (G, K, D), after each step.
    """
    found = [codes[0, -1] for codes in reads]
    return next((code for code in found if (code < below).all()), found[-1])


def closest(tokens: Any, code: Any) -> Any:
    """Return the token that is nearest to a code."""
    held = np.asarray(tokens)
    return held[np.abs(held - code).max(axis=1).argmin()]


def summed(codes: Any, indices: Any) -> Any:
    """Return the sum of the codes that indices, (N, L), name in the tables of so many layers; index -1 adds nothing."""
    total: Any = 0.0
    for table, chosen in zip(codes, torch.as_tensor(indices).T, strict=False):
        total = total + torch.where(chosen[:, None] >= 0, table[chosen], 0.0)
    return total
