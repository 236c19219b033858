"""`check_gradient` beside ``torch.autograd.gradcheck(fast_mode=True)``, on modules without stop-gradients.

Run with ``python benchmarks/derivatives.py``. Both get the same float64 module, inputs and parameters, both say whether
autograd's derivative is right; one thread, the two in turns, the median of several rounds. A ratio of at most 1 is the
goal; the first row shows what is fixed in `check_gradient`, about a millisecond, beside a module that takes none.
Passes: forward runs of the module, counted by a hook.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call

from vq_reference.testing.derivatives import check_gradient

# at least, and of small modules as many as take so many seconds: a median of few pairs is a few percent off
ROUNDS, SECONDS = 15, 3.0


def modules() -> dict[str, tuple[nn.Module, Tensor]]:
    """Return name -> (module, input), small to large."""
    torch.manual_seed(0)
    return {
        "linear 32 → 32, 32 tokens": (nn.Linear(32, 32), torch.randn(32, 32)),
        "MLP 64 → 256 → 64, 256 tokens": (
            nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)),
            torch.randn(256, 64),
        ),
        "autoencoder of 8 layers, 256 tokens": (
            nn.Sequential(*(layer for _ in range(8) for layer in (nn.Linear(64, 64), nn.Tanh()))),
            torch.randn(256, 64),
        ),
        "transformer layer, 4 × 32 tokens": (
            nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True),
            torch.randn(4, 32, 64),
        ),
    }


def by_gradcheck(module: nn.Module, x: Tensor) -> bool:
    """Check the module as a function of its input and all its parameters, which are what `check_gradient` takes."""
    names = list(dict(module.named_parameters()))

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    parameters = [p.detach().clone().requires_grad_() for p in module.parameters()]
    return torch.autograd.gradcheck(function, (x.clone().requires_grad_(), *parameters), fast_mode=True)


def by_replay(module: nn.Module, x: Tensor) -> bool:
    """Check the same with `check_gradient`."""
    return check_gradient(module, x).agrees


def measure(check: Callable[[nn.Module, Tensor], bool], module: nn.Module, x: Tensor) -> tuple[float, int]:
    """Return the seconds and the forward runs of one check, which must come out positive."""
    passes = []
    handle = module.register_forward_pre_hook(lambda *_: passes.append(None))
    start = time.perf_counter()
    verdict = check(module, x)
    seconds = time.perf_counter() - start
    handle.remove()
    if not verdict:
        raise RuntimeError(f"{check.__name__} says that {type(module).__name__} is wrong")
    return seconds, len(passes)


def main() -> None:
    """Measure and print the table."""
    torch.set_num_threads(1)
    table = Table("module", "parameters", "gradcheck, ms", "passes", "check_gradient, ms", "passes", "ratio")
    for name, (module, x) in modules().items():
        module, x = module.double(), x.double()
        ours, theirs = measure(by_replay, module, x), measure(by_gradcheck, module, x)
        count = max(ROUNDS, int(SECONDS / (ours[0] + theirs[0])))
        rounds = [(measure(by_gradcheck, module, x), measure(by_replay, module, x)) for _ in range(count)]
        times = [statistics.median(one[side][0] for one in rounds) for side in (0, 1)]
        # round by round, so that a machine that is busy for a while is busy for both
        ratio = statistics.median(mine / other for (other, _), (mine, _) in rounds)
        size = sum(p.numel() for p in module.parameters())
        table.add_row(
            name,
            str(size),
            f"{1e3 * times[0]:.1f}",
            str(theirs[1]),
            f"{1e3 * times[1]:.1f}",
            str(ours[1]),
            f"{ratio:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
