"""Right implementations that look like nobody else's: no must-law may break on any of them.

`test_no_false_alarm.py` runs a part of the laws on each. All of them, on ten times the default number of examples and
with three seeds, from the root of a clone:

    for s in 1 2 3; do vq-check run $(python tests/support/unusual_targets.py) --profile thorough --seed $s; done
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vq_reference.nn.estimators import rotate
from vq_reference.testing.adapters.declare.estimator import torch_estimator
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.interface.implementation import Implementation


def by_difference(x: Tensor, codes: Tensor) -> Tensor:
    return (x[..., None, :] - codes).square().sum(dim=-1).argmin(dim=-1)


def bracketed(x: Tensor, q: Tensor) -> Tensor:
    return q.detach() - (x.detach() - x)


def two_halves(x: Tensor, q: Tensor, w: float, beta: float) -> Tensor:
    return w * (functional.mse_loss(q, x.detach()) + beta * functional.mse_loss(x, q.detach()))


class Quantizer(nn.Module):
    """A learnt codebook; the parts that the targets below say differently are given."""

    def __init__(self, wanted, choose=by_difference, estimate=bracketed, loss=two_halves, look_up=None) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.empty(wanted.codebook_size, wanted.dim))
        self.choose, self.estimate, self.loss = choose, estimate, loss
        self.look_up = look_up or (lambda codes, indices: codes[indices])
        self.weights = (wanted.commitment_weight, wanted.beta)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            indices = self.choose(x, self.codes)
        q = self.look_up(self.codes, indices)
        return self.estimate(x, q), indices, self.loss(x, q, *self.weights)


def described(name: str, declared=None, **parts) -> Implementation:
    return torch_quantizer(lambda wanted: Quantizer(wanted, **parts), "codes", name=name, **(declared or {}))


def plain_sum():
    return described("plain sum", estimate=lambda x, q: x + (q - x).detach())


def added_bracket():
    return described("added bracket", estimate=lambda x, q: q.detach() + (x - x.detach()))


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, q):
        return q.clone()

    @staticmethod
    def backward(ctx, g):
        return g, None


def custom_function():
    return described("custom function", estimate=lambda x, q: _StraightThrough.apply(x, q.detach()))


def sum_from_the_left():
    return described("sum from the left", estimate=lambda x, q: (q.detach() + x) - x.detach())


def bare_sum_from_the_left():
    return torch_estimator(lambda x, q: (q + x) - x.detach(), "straight_through", name="bare sum from the left")


def sixteen_bits():
    def choose(x, codes):
        return (codes.square().sum(dim=-1) - 2 * x @ codes.T).argmin(dim=-1)

    def loss(x, q, w, beta):
        return two_halves(x.float(), q.float(), w, beta)

    return described("sixteen bits", {"dtype": "bfloat16"}, choose=choose, loss=loss)


class _TrainsBothEnds(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, q):
        return q.clone()

    @staticmethod
    def backward(ctx, g):
        return g, g


def output_trains_the_codes():
    return described("output trains the codes", {"sync_nu": 1.0}, estimate=_TrainsBothEnds.apply)


def synchronous_update():
    def estimate(x, q):
        return bracketed(x, q) + 0.25 * (q - q.detach())

    return described("synchronous update", {"sync_nu": 0.25}, estimate=estimate)


def synchronous_rotation():
    def estimate(x, q):
        return rotate(x, q.detach()) + 0.5 * (q - q.detach())

    return described("synchronous rotation", {"sync_nu": 0.5, "estimator": "rotation"}, estimate=estimate)


def no_estimator():
    return described("no estimator", {"estimator": "none"}, estimate=lambda x, q: q)


def rotation():
    return described("rotation", {"estimator": "rotation"}, estimate=lambda x, q: rotate(x, q.detach()))


def expanded_square():
    def choose(x, codes):
        return (codes.square().sum(dim=-1) - 2 * x @ codes.T).argmin(dim=-1)

    return described("expanded square", choose=choose)


def one_token_at_a_time():
    def choose(x, codes):
        tokens = x.reshape(-1, x.shape[-1])
        chosen = [by_difference(token, codes) for token in tokens]
        return torch.stack(chosen).reshape(x.shape[:-1]) if chosen else torch.empty(x.shape[:-1], dtype=torch.int64)

    return described("one token at a time", choose=choose)


def one_hot_product():
    def look_up(codes, indices):
        return functional.one_hot(indices, len(codes)).to(codes.dtype) @ codes

    return described("one-hot product", look_up=look_up)


def indices_of_32_bits():
    return described("indices of 32 bits", choose=lambda x, codes: by_difference(x, codes).to(torch.int32))


def beta_on_the_codebook_half():
    def loss(x, q, w, beta):
        return w * (beta * functional.mse_loss(q, x.detach()) + functional.mse_loss(x, q.detach()))

    declared = {"loss_weights": lambda wanted: (wanted.commitment_weight * wanted.beta, wanted.commitment_weight)}
    return described("β on the codebook half", declared, loss=loss)


def summed_loss():
    def loss(x, q, w, beta):
        return w * ((q - x.detach()).square().sum() + beta * (x - q.detach()).square().sum())

    return described("summed loss", {"loss_reduction": "sum"}, loss=loss)


def one_square_for_both():
    declared = {
        "loss_weights": lambda wanted: (wanted.commitment_weight, wanted.commitment_weight),
        "loss_value": lambda wanted: wanted.commitment_weight,
    }
    return described("one square for both", declared, loss=lambda x, q, w, beta: w * functional.mse_loss(x, q))


def no_codebook_half():
    def loss(x, q, w, beta):
        return w * beta * functional.mse_loss(x, q.detach())

    declared = {"loss_weights": lambda wanted: (0.0, wanted.commitment_weight * wanted.beta)}
    return described("no codebook half", declared, loss=loss)


def double_precision():
    return described("double precision", {"dtype": "float64"})


def without_a_loss():
    return described("without a loss", {"loss_at": None}, loss=lambda x, q, w, beta: None)


class _ChannelFirst(Quantizer):
    def forward(self, x):
        output, indices, loss = super().forward(x.movedim(1, -1))
        return output.movedim(-1, 1), indices, loss


def sequence_of_channels():
    return torch_quantizer(_ChannelFirst, "codes", name="sequence of channels", x="B D T")


class _Image(_ChannelFirst):
    def forward(self, x):
        output, indices, loss = super().forward(x)
        return {"z": output, "extra": {"loss": loss[None], "codes": indices.flatten()}}


def image_in_a_dictionary():
    places = {"output_at": "z", "indices_at": ("extra", "codes"), "loss_at": ("extra", "loss"), "loss_shape": (1,)}
    return torch_quantizer(_Image, "codes", name="image", x="B D H W", indices="(B H W)", **places)


class _Transposed(nn.Module):
    def __init__(self, wanted) -> None:
        super().__init__()
        self.columns = nn.Parameter(torch.empty(wanted.dim, wanted.codebook_size))
        self.weights = (wanted.commitment_weight, wanted.beta)

    def forward(self, x):
        indices = by_difference(x.detach(), self.columns.detach().T)
        q = self.columns.T[indices]
        return bracketed(x, q), indices, two_halves(x, q, *self.weights)


def codes_as_columns():
    return torch_quantizer(_Transposed, "columns.T", name="codes as columns")


def bare_function():
    return torch_estimator(lambda x, q: x + (q - x).detach(), "straight_through", name="bare function", x="B D T")


TARGETS = {
    make.__name__: make
    for make in (
        *(plain_sum, added_bracket, custom_function, rotation, expanded_square, one_token_at_a_time, one_hot_product),
        *(
            indices_of_32_bits,
            beta_on_the_codebook_half,
            summed_loss,
            one_square_for_both,
            no_codebook_half,
            double_precision,
        ),
        *(sum_from_the_left, bare_sum_from_the_left, sixteen_bits),
        *(output_trains_the_codes, synchronous_update, synchronous_rotation, no_estimator),
        *(without_a_loss, sequence_of_channels, image_in_a_dictionary, codes_as_columns, bare_function),
    )
}

if __name__ == "__main__":
    print(*(f"{__file__}:{name}" for name in TARGETS))
