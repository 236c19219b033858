"""The border for a torch module: NumPy float64 in and out, one forward, and autograd for the backwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.torch.layout import CHANNEL, Layout
from vq_reference.testing.adapters.torch.stateful_layer import state_of
from vq_reference.testing.adapters.torch.tensors import array_of, overwrite
from vq_reference.testing.interface.implementation import Answer, Call, Cotangent, Form, Gradients


class Returned(NamedTuple):
    """What a quantizer's forward gives, each as it lies there."""

    output: Tensor
    indices: Tensor | None
    loss: Tensor | None


@dataclass(frozen=True)
class Layouts:
    """Where tokens, outputs and indices lie, and the shape of the loss; None for one number of any rank."""

    x: Layout
    output: Layout
    indices: Layout
    loss: tuple[int, ...] | None = ()

    @classmethod
    def of(
        cls, x: str, output: str | None = None, indices: str | None = None, loss: tuple[int, ...] | None = None
    ) -> Layouts:
        """Read layouts from text. Outputs lie as the tokens do unless said otherwise, indices too, without D."""
        tokens = Layout.of(x)
        return cls(
            tokens,
            tokens if output is None else Layout.of(output),
            tokens.without_channel() if indices is None else Layout.of(indices),
            loss,
        )

    def leading_of_indices(self, count: int) -> tuple[int, ...] | None:
        """Return the leading dimensions of so many indices to decode: one row, where they are flattened."""
        flattened = any(len(axis) > 1 for axis in self.indices.axes)
        return (*[1] * (len(self.x.leading) - 1), count) if flattened and not self.x.any_rank else None


CHANNEL_LAST = Layouts.of("... D", loss=())


@dataclass
class TorchLayer:
    """A module, its codes set, called as the laws call.

    call: x as the module takes it → what its forward returns. read: that → Returned.
    codes: the effective codebook, as a leaf; or the submodule whose forward returns it; or None.
    codes_transposed: they lie as (D, K). codes_turned: P, (D, D), where it is E P' that lies there for codes E.
    parameters: the transform's, by the oracle's names. frozen: the codes that must not be trained, or None.
    decode_indices: indices as they lie → outputs as they lie.
    freeze: called once the mode is set, so that no forward changes the state.
    changed: what is trained, in place, to the codes of a reference of the same sizes and frozen codes.
    put_back: whether buffers are as before once a forward in training has ended, for codes that follow their tokens.
    """

    module: nn.Module
    call: Callable[[Tensor], Any]
    dtype: torch.dtype
    device: torch.device
    read: Callable[[Any], Returned] = lambda returned: Returned(*returned)
    codes: Tensor | nn.Module | None = None
    codes_transposed: bool = False
    codes_turned: Tensor | None = None
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    frozen: Tensor | None = None
    layouts: Layouts = CHANNEL_LAST
    decode_indices: Callable[[Tensor], Tensor] | None = None
    freeze: Callable[[Any], object] | None = None
    changed: Callable[[SimVQ], object] | None = None
    put_back: bool = False
    _last: Any = None

    def __call__(self, x: Array, cotangents: Sequence[Cotangent] = (), how: Call = Call()) -> Answer:
        """Forward once, backward once for each cotangent. An output of another shape than declared comes as it is."""
        arranged = Arranged.of(self.layouts, x.shape, how.leading)
        self.module.train(how.training)
        if self.freeze:
            self.freeze(self.module)
        entering = self._entering(x, arranged, how)
        moves = self.put_back and how.training  # what moves in eval is a fault, and stays for the laws to see
        before = {name: each.clone() for name, each in self.module.named_buffers()} if moves else {}
        with torch.set_grad_enabled(how.gradient != "no_grad"), self._watched() as codes:
            self._last = self.call(entering)
            returned = self.read(self._last)
        with torch.no_grad():
            for name, each in self.module.named_buffers():
                if name in before:
                    each.copy_(before[name])
        gradients = tuple(self._backward(arranged, entering, codes, returned, c) for c in cotangents)
        return Answer(
            output=arranged.tokens(returned.output),
            indices=None if returned.indices is None else arranged.chosen(returned.indices),
            loss=None if returned.loss is None else float(returned.loss.detach().sum()),
            gradients=gradients,
            form=self._form(arranged, entering, returned),
            input=arranged.as_tokens(entering),
        )

    def decode(self, indices: Array) -> Array:
        """Return the outputs, (N, D), for indices of (N,)."""
        if self.decode_indices is None:
            raise TypeError("this layer has no decode: declare one, or leave out the capability")
        leading = self.layouts.leading_of_indices(len(indices))
        arranged = Arranged.of(self.layouts, (len(indices), 0), leading)
        order = arranged.order[:-1]
        grid = torch.as_tensor(np.array(indices, np.int64), device=self.device)
        lying = arranged.layouts.indices.arrange(grid.reshape([arranged.sizes[name] for name in order]), order)
        outputs = self.decode_indices(lying)
        dim = outputs.numel() // max(len(indices), 1)
        return Arranged.of(self.layouts, (len(indices), dim), leading).tokens(outputs)

    def state(self) -> Mapping[str, Array]:
        """Return a copy of every parameter and buffer, by name; that of one that no state_dict holds says so."""
        return state_of(self.module)

    def overwrite_returned(self) -> None:
        """Overwrite, in place, every tensor that the last call returned."""
        overwrite(self._last)

    def step(self, reference: SimVQ) -> None:
        """Change what is trained, in place, to the codes of `reference`."""
        if self.changed is None:
            raise TypeError("this layer has no way to change its codes: declare one, or leave out the capability")
        self.changed(reference)

    def _entering(self, x: Array, arranged: Arranged, how: Call) -> Tensor:
        """Return x as the module takes it: a leaf of the wanted memory layout, asking for its gradient or not."""
        lying = arranged.arrange(self._tensor(x)).contiguous()
        if how.memory == "strided":
            doubled = lying.new_zeros([2 * size for size in lying.shape])
            view = doubled[tuple(slice(None, None, 2) for _ in lying.shape)]
            lying = view.copy_(lying)
        elif how.memory == "expanded":
            if len(x) and np.any(x != x[0]):
                raise ValueError("memory is 'expanded' and the tokens of x differ: expected all of them equal")
            one = arranged.arrange_one(self._tensor(x[:1]))
            lying = one.expand(lying.shape) if len(x) else lying
        return lying.detach().requires_grad_(how.gradient == "asked")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[list[Tensor]]:
        """Yield a list that holds, after the forward, the effective codebook with its graph, if there is one."""
        seen: list[Tensor] = [self.codes] if isinstance(self.codes, Tensor) else []
        if not isinstance(self.codes, nn.Module):
            yield seen
            return
        hook = self.codes.register_forward_hook(lambda *of_forward: seen.append(of_forward[2]))
        try:
            yield seen
        finally:
            hook.remove()

    def _backward(
        self, arranged: Arranged, entering: Tensor, codes: list[Tensor], returned: Returned, cotangent: Cotangent
    ) -> Gradients:
        ends: list[tuple[Tensor, Tensor]] = []
        # a constant has no backward: whatever should have led through it is reported as None below
        if returned.output.requires_grad:
            g = arranged.at_output(self._tensor(cotangent.output))
            ends.append((returned.output, g.reshape(returned.output.shape).to(returned.output.dtype)))
        if returned.loss is not None and returned.loss.requires_grad:
            ends.append((returned.loss, torch.full_like(returned.loss, cotangent.loss)))
        at_codes = codes[-1] if codes else None
        wanted = [entering, at_codes, self.frozen, *self.parameters.values()]
        found: dict[int, Tensor | None] = {}
        asking = [t for t in wanted if t is not None and t.requires_grad]
        if ends and asking:
            values, starts = zip(*ends, strict=True)
            grads = torch.autograd.grad(values, asking, starts, retain_graph=True, allow_unused=True)
            found = {id(t): g for t, g in zip(asking, grads, strict=True)}

        def arrived(tensor: Tensor | None) -> Array | None:
            gradient = found.get(id(tensor))
            return None if gradient is None else array_of(gradient)

        at_x, codebook = found.get(id(entering)), arrived(at_codes)
        if codebook is not None:
            # a codebook for each head, or an axis of size 1 before it: what they are set to is one and the same
            codebook = codebook.reshape(-1, *codebook.shape[-2:]).sum(axis=0)
            codebook = codebook.T if self.codes_transposed else codebook
            codebook = codebook if self.codes_turned is None else codebook @ array_of(self.codes_turned)
        return Gradients(
            x=None if at_x is None else arranged.as_tokens(at_x),
            codebook=codebook,
            parameters={name: arrived(tensor) for name, tensor in self.parameters.items()},
            frozen=arrived(self.frozen),
        )

    def _form(self, arranged: Arranged, entering: Tensor, returned: Returned) -> Form:
        given = [tensor for tensor in returned if tensor is not None]
        indices, loss = returned.indices, returned.loss
        return Form(
            output_shape=tuple(returned.output.shape),
            output_expected=arranged.layouts.output.shape(arranged.sizes),
            output_dtype=_name(returned.output),
            indices_shape=() if indices is None else tuple(indices.shape),
            indices_expected=() if indices is None else arranged.layouts.indices.shape(arranged.sizes),
            indices_dtype="" if indices is None else _name(indices),
            loss_shape=() if loss is None else tuple(loss.shape),
            loss_expected=self._loss_expected(loss),
            loss_dtype="" if loss is None else _name(loss),
            same_device=all(tensor.device == entering.device for tensor in given),
        )

    def _loss_expected(self, loss: Tensor | None) -> tuple[int, ...]:
        if loss is None or (self.layouts.loss is None and loss.numel() != 1):
            return ()
        return tuple(loss.shape) if self.layouts.loss is None else self.layouts.loss

    def _tensor(self, array: Array) -> Tensor:
        return torch.as_tensor(np.array(array)).to(self.device, self.dtype)


@dataclass(frozen=True)
class Arranged:
    """The layouts of one call: every name with its size, tokens as (N, D) on one side and as they lie on the other."""

    layouts: Layouts
    order: tuple[str, ...]
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, layouts: Layouts, shape: tuple[int, ...], leading: tuple[int, ...] | None) -> Arranged:
        """Arrange tokens of this shape, (N, D). Raises ValueError where `leading` holds another number of them."""
        count, dim = shape
        leading = layouts.x.natural(count) if leading is None else leading
        if int(np.prod(leading)) != count:
            raise ValueError(f"leading is {leading}: expected a product of {count}, the number of tokens")
        rank = len(leading)
        spelled = Layouts(
            layouts.x.spelled(rank), layouts.output.spelled(rank), layouts.indices.spelled(rank), layouts.loss
        )
        names = spelled.x.leading
        return cls(spelled, (*names, CHANNEL), {**dict(zip(names, leading, strict=True)), CHANNEL: dim})

    def arrange(self, x: Tensor) -> Tensor:
        """Return tokens, (N, D), as they lie."""
        return self.layouts.x.arrange(x.reshape([self.sizes[name] for name in self.order]), self.order)

    def arrange_one(self, token: Tensor) -> Tensor:
        """Return one token, (1, D), with size 1 on every leading axis."""
        return self.layouts.x.arrange(token.reshape([1] * (len(self.order) - 1) + [-1]), self.order)

    def at_output(self, g: Tensor) -> Tensor:
        """Return gradients, (N, D), as the output lies."""
        return self.layouts.output.arrange(g.reshape([self.sizes[name] for name in self.order]), self.order)

    def tokens(self, output: Tensor) -> Array:
        """Return an output as (N, D), and one of another shape than declared as it is."""
        if tuple(output.shape) != self.layouts.output.shape(self.sizes):
            return array_of(output)
        whole = self.layouts.output.restore(output, self.order, self.sizes)
        return array_of(whole.reshape(-1, self.sizes[CHANNEL]))

    def as_tokens(self, lying: Tensor) -> Array:
        """Return the input, or a gradient at it, as (N, D)."""
        whole = self.layouts.x.restore(lying, self.order, self.sizes)
        return array_of(whole.reshape(-1, self.sizes[CHANNEL]))

    def chosen(self, indices: Tensor) -> Array:
        """Return indices as (N,)."""
        lying = indices.detach().cpu()
        if tuple(lying.shape) == self.layouts.indices.shape(self.sizes):
            lying = self.layouts.indices.restore(lying, self.order[:-1], self.sizes)
        return np.array(lying.reshape(-1).numpy())


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
