"""Where tokens, channels and indices lie in a tensor, written as axes: "B D H W", "B T D", "(B H W)", "B ... D"."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from torch import Tensor

CHANNEL = "D"
ANY = "..."
ALL = "*"  # any number of leading dimensions, together on one axis


@dataclass(frozen=True)
class Layout:
    """Axes in order; several names on one axis where it is flattened, no name where it has size 1.

    D is the channel axis, every other name a leading dimension, "..." any number of those.
    """

    axes: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, text: str) -> Layout:
        """Read a layout. Raises ValueError for a name that occurs twice.

        >>> Layout.of("(B T) D").axes
        (('B', 'T'), ('D',))
        >>> Layout.of("1 B T").axes
        ((), ('B',), ('T',))
        """
        words = re.findall(r"\([^()]*\)|[^\s()]+", text)
        flat = [word.replace(ANY, ALL) if word.startswith("(") else word for word in words]
        axes = tuple(tuple(name for name in word.strip("()").split() if name != "1") for word in flat)
        names = list(chain.from_iterable(axes))
        if len(set(names)) < len(names) or not axes:
            raise ValueError(f"layout is {text!r}: expected each axis once, such as 'B D H W' or '(B T)'")
        return cls(axes)

    @property
    def leading(self) -> tuple[str, ...]:
        """The names of the leading dimensions, in the order in which they lie."""
        return tuple(name for name in chain.from_iterable(self.axes) if name != CHANNEL)

    @property
    def channel_axis(self) -> int:
        """The axis on which the channels lie, counted from the end where "..." is before it."""
        i = self.axes.index((CHANNEL,))
        return i - len(self.axes) if (ANY,) in self.axes[:i] else i

    @property
    def any_rank(self) -> bool:
        """Whether it fits any number of leading dimensions."""
        return ANY in self.leading or ALL in self.leading

    def without_channel(self) -> Layout:
        """Return where indices lie if they lie as the tokens do."""
        return Layout(tuple(axis for axis in self.axes if axis != (CHANNEL,)))

    def spelled(self, rank: int) -> Layout:
        """Return the layout with "..." replaced, so that there are `rank` leading dimensions. Raises ValueError."""
        missing = rank - sum(name not in (ANY, ALL) for name in self.leading)
        if not self.any_rank:
            if missing:
                raise ValueError(f"{rank} leading dimensions do not fit the layout {self}")
            return self
        if missing < 0:
            raise ValueError(f"{rank} leading dimensions are too few for the layout {self}")
        filled: list[tuple[str, ...]] = []
        inserted = tuple(f"_{i}" for i in range(missing))
        for axis in self.axes:
            if axis == (ANY,):
                filled.extend((name,) for name in inserted)
            else:
                filled.append(tuple(chain.from_iterable(inserted if name == ALL else (name,) for name in axis)))
        return Layout(tuple(filled))

    def natural(self, count: int) -> tuple[int, ...]:
        """Return leading dimensions for `count` tokens, none of size 1 where it can be helped: swapped axes then show.

        Squares and cubes of 2 and 3 have them all of one size.

        >>> Layout.of("B D H W").natural(12)
        (2, 2, 3)
        """
        rank = 2 if self.any_rank else len(self.leading)
        sizes = [1] * rank
        left = count
        for i in range(rank - 1):
            sizes[i] = next((f for f in range(2, math.isqrt(max(left, 0)) + 1) if left % f == 0), 1)
            left //= sizes[i]
        sizes[-1] = left
        return tuple(sizes)

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape for these sizes of the names."""
        return tuple(math.prod(sizes[name] for name in axis) for axis in self.axes)

    def arrange(self, tensor: Tensor, order: Sequence[str]) -> Tensor:
        """Return `tensor`, whose axes are `order`, laid out as this layout says."""
        sizes = dict(zip(order, tensor.shape, strict=True))
        wanted = list(chain.from_iterable(self.axes))
        return tensor.permute([list(order).index(name) for name in wanted]).reshape(self.shape(sizes))

    def restore(self, tensor: Tensor, order: Sequence[str], sizes: Mapping[str, int]) -> Tensor:
        """Return `tensor`, which lies as this layout says, with its axes in `order`."""
        lying = list(chain.from_iterable(self.axes))
        whole = tensor.reshape([sizes[name] for name in lying])
        return whole.permute([lying.index(name) for name in order])

    def __str__(self) -> str:
        words = []
        for axis in self.axes:
            joined = " ".join(axis).replace(ALL, ANY) or "1"
            words.append(f"({joined})" if len(axis) > 1 or axis == (ALL,) else joined)
        return " ".join(words)
