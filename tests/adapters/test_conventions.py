"""What right code does can be declared, and then holds; what contradicts its declaration is said before any law."""

import warnings

import pytest
import torch
from plain_quantizers import LAWS, Follows, Plain, broken, follows, nearest
from torch import nn
from torch.nn import functional
from torch.nn.utils import weight_norm

from vq_reference.testing.adapters.declare.declared_module import Asked
from vq_reference.testing.adapters.declare.moving_average import MovingAverage
from vq_reference.testing.adapters.declare.torch_quantizer import torch_quantizer
from vq_reference.testing.interface.errors import DeclarationContradicted


class OfDirections(Plain):
    """Tokens and codes are divided by their lengths before anything else, as in LlamaGen."""

    def forward(self, x):
        """Return output, indices and loss, all of directions."""
        x, codes = functional.normalize(x, dim=-1), functional.normalize(self.codes, dim=-1)
        indices = nearest(x, codes)
        q = codes[indices]
        return x + (q - x).detach(), indices, self.loss(x, q)


class HalfOfDirections(OfDirections):
    """Its loss forgets the encoder."""

    def loss(self, x, q):
        return super().loss(x.detach(), q)


def of_directions(module):
    return torch_quantizer(module, "codes", metric="cosine", unit_codes=True, unit_tokens=True)


def test_a_layer_of_directions_is_judged_with_its_loss_and_its_gradient():
    right = of_directions(OfDirections)
    assert not right.lacks(LAWS["heads.loss"].needs | LAWS["heads.gradient"].needs)
    assert not broken(right)
    assert "heads.gradient" in broken(of_directions(HalfOfDirections), "heads")


def test_a_loss_beside_unit_codes_is_not_dropped_in_silence():
    with pytest.raises(ValueError, match="expected unit_tokens=True"):
        torch_quantizer(OfDirections, "codes", metric="cosine", unit_codes=True, loss_weights=(1.0, 0.25))


class Projected(Plain):
    """Codes between two projections, of another width than the input."""

    into = out_of = True

    def __init__(self, asked):
        super().__init__(asked, asked.codebook_dim)
        self.before = nn.Linear(asked.dim, asked.codebook_dim)
        self.behind = nn.Linear(asked.codebook_dim, asked.dim)

    def forward(self, x):
        """Return what lies between the projections, projected back."""
        output, indices, loss = super().forward(self.before(x))
        return self.behind(output), indices, loss

    def decode(self, indices):
        """Return the outputs of indices."""
        return self.behind(self.codes[indices])


class Undecoded(Projected):
    """Its decode skips the projection, as far as shapes allow."""

    def decode(self, indices):
        return functional.pad(self.codes[indices], (0, self.asked.dim - self.codes.shape[1]))


class BeforeTheProjection(Projected):
    """Its loss is taken against a copy of the latent that no gradient leaves."""

    def loss(self, x, q):
        return super().loss(x.detach(), q)


def projected(module, **declared):
    return torch_quantizer(module, "codes", project_in="before", project_out="behind", decode="decode", **declared)


def test_projections_of_any_shape_are_placed_exactly():
    assert not broken(projected(Projected))
    assert "heads.decode" in broken(projected(Undecoded), "heads")
    assert "heads.gradient" in broken(projected(BeforeTheProjection), "heads")


def test_the_width_of_codes_is_asked_for():
    with pytest.raises(ValueError, match=r"hand wanted\.codebook_dim to the module's constructor"):
        projected(lambda asked: Projected(asked._replace(codebook_dim=asked.dim + 1)))


class FollowsBetween(Follows):
    """The same between projections."""

    def __init__(self, asked):
        super().__init__(asked)
        self.before, self.behind = nn.Linear(asked.dim, asked.codebook_dim), nn.Linear(asked.codebook_dim, asked.dim)


class FollowsTheInput(FollowsBetween):
    """Its averages leave out the bias of the projection in."""

    def follow(self, tokens, indices):
        return super().follow(tokens - self.before.bias, indices)


def test_averages_may_lie_between_projections_and_under_a_mask():
    between = {"project_in": "before", "project_out": "behind"}
    right = follows(FollowsBetween, **between)
    assert {"ema", "projections", "mask"} <= right.capabilities
    assert not broken(right, "ema", "mask", "state", "heads")
    assert "ema.statistics" in broken(follows(FollowsTheInput, **between), "ema")


class WithoutBias(Follows):
    """Averages rid of the bias of their start, by a count of steps."""

    def __init__(self, asked):
        super().__init__(asked)
        self.steps = 0

    def follow(self, tokens, indices):
        self.steps += 1
        super().follow(tokens, indices)
        rid = 1 - self.decay**self.steps
        self.codes = (self.sums / rid) / (self.counts / rid)[:, None]


def test_a_count_of_steps_can_be_named():
    counted = MovingAverage("counts", "sums", "decay", bias_counter="steps")
    assert not broken(follows(WithoutBias, average=counted), "ema")


def test_codes_that_move_are_one_error_that_names_both_ways_out():
    with pytest.raises(DeclarationContradicted, match=r"moves \(average= .* freeze="):
        torch_quantizer(Follows, "codes", loss_weights=(0.0, 1.0))


class Grid(Plain):
    """Rounds to whole numbers, whatever its table of codes says."""

    def forward(self, x):
        q = x.round()
        return x + (q - x).detach(), q[..., 0].long(), self.loss(x, q)


def test_codes_that_are_not_used_are_one_error():
    with pytest.raises(DeclarationContradicted, match="is it FSQ, LFQ"):
        torch_quantizer(Grid, "codes")


class Noisy(Plain):
    """Gumbel noise on its distances in training."""

    def forward(self, x):
        distances = torch.cdist(x, self.codes, compute_mode="donot_use_mm_for_euclid_dist")
        noise = -torch.log(-torch.log(torch.rand_like(distances).clamp(1e-6, 1 - 1e-6)))
        indices = (distances - 100 * noise if self.training else distances).argmin(dim=-1)
        q = self.codes[indices]
        return q.detach() + (x - x.detach()), indices, self.loss(x, q)


def test_what_draws_at_random_in_training_is_judged_in_eval_where_that_is_declared():
    with pytest.raises(DeclarationContradicted, match="random_in_training is declared as False"):
        torch_quantizer(Noisy, "codes")
    assert not broken(torch_quantizer(Noisy, "codes", random_in_training=True))


class Listed(Plain):
    """Its loss comes as a list of one."""

    def forward(self, x):
        output, indices, loss = super().forward(x)
        return output, indices, [loss]


class Silent(Listed):
    """Its loss is not there."""

    def loss(self, x, q):
        return None

    def forward(self, x):
        return Plain.forward(self, x)


def test_a_loss_may_come_as_a_list_and_one_that_does_not_come_is_one_error():
    assert not broken(torch_quantizer(Listed, "codes", loss_shape=(1,)), "loss", "form", "eval")
    with pytest.raises(DeclarationContradicted, match="loss_at is declared as 2, found: None in training"):
        torch_quantizer(Silent, "codes")


def test_a_module_that_only_encodes_and_decodes_is_judged_by_the_laws_of_state():
    made = torch_quantizer(Silent, "codes", loss_at=None, decode=lambda module, indices: module.codes[indices])
    assert len([law for law in LAWS.values() if law.id.startswith("state.") and not made.lacks(law.needs)]) >= 8
    assert not broken(made)


class Summed(nn.Module):
    """A stack whose layers each have an estimator, which add up."""

    def __init__(self, asked):
        super().__init__()
        self.asked, self.codes = asked, nn.Parameter(torch.randn(asked.layers, asked.codebook_size, asked.dim))

    def forward(self, x):
        total, left, chosen, losses = torch.zeros_like(x), x, [], []
        for codes in self.codes:
            indices = nearest(left, codes)
            q = codes[indices]
            halves = (left.detach() - q).square() + self.asked.beta * (left - q.detach()).square()
            losses.append(self.asked.commitment_weight * halves.mean())
            total, left = total + left + (q - left).detach(), left - q.detach()
            chosen.append(indices)
        return total, torch.stack(chosen, dim=-1), losses


@pytest.mark.parametrize(("gain", "expected"), [(lambda layers: 1.0, {"stack.gain"}), (float, set())])
def test_an_estimator_for_each_layer_can_be_declared(gain, expected):
    made = torch_quantizer(Summed, "codes", indices="... 1", loss_shape=(1,), stack=True, stack_gain=gain)
    assert broken(made, "stack") == expected


class UnderWeightNorm(Projected):
    """Its projections are convolutions under weight normalisation, as in DAC."""

    def __init__(self, asked):
        super().__init__(asked)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its successor in torch.nn.utils.parametrizations
            self.before = weight_norm(nn.Conv1d(asked.dim, asked.codebook_dim, 1))
            self.behind = weight_norm(nn.Conv1d(asked.codebook_dim, asked.dim, 1))

    def forward(self, x):
        """Return what lies between the projections, projected back: (B, D, T)."""
        output, indices, loss = Plain.forward(self, self.before(x).movedim(1, -1))
        return self.behind(output.movedim(-1, 1)), indices, loss

    def decode(self, indices):
        """Return the outputs of indices, (B, T)."""
        return self.behind(self.codes[indices].movedim(-1, 1))


def test_projections_under_weight_normalisation_are_placed():
    made = projected(UnderWeightNorm, x="B D T")
    assert "weight_norm" in made.capabilities
    assert not broken(made, "heads", "state", "loss")


class SummedOverWidth(Plain):
    """Its loss is a mean over tokens of sums over the width."""

    def loss(self, x, q):
        halves = (x.detach() - q).square() + self.asked.beta * (x - q.detach()).square()
        return self.asked.commitment_weight * halves.sum(dim=-1).mean()


def test_weights_may_depend_on_the_width():
    def weights(wanted):
        width = wanted.codebook.shape[1] * wanted.commitment_weight
        return width, width * wanted.beta

    assert not broken(torch_quantizer(SummedOverWidth, "codes", loss_weights=weights), "loss", "heads")


def test_weights_that_ask_for_what_is_not_there_are_one_error():
    with pytest.raises(ValueError, match="loss_weights raises AttributeError"):
        torch_quantizer(Plain, "codes", loss_weights=lambda wanted: (wanted.dim, 1.0))


class OfSamples(Plain):
    """A loss for each sample."""

    def loss(self, x, q):
        halves = (x.detach() - q).square() + self.asked.beta * (x - q.detach()).square()
        return self.asked.commitment_weight * halves.mean(dim=tuple(range(1, x.ndim)))


def test_a_loss_for_each_sample_is_one_error_with_its_remedy():
    with pytest.raises(DeclarationContradicted, match=r"a loss of shape .*mean\(\)"):
        torch_quantizer(OfSamples, "codes")
    assert not broken(torch_quantizer(OfSamples, "codes", loss_at=lambda returned: returned[2].mean()), "loss")


class FollowsInEval(Follows):
    """Its codes move in eval too."""

    def forward(self, x, mask=None):
        moves, self.training = self.training, True
        returned = super().forward(x, mask)
        self.training = moves
        return returned


def test_averages_are_put_back_where_nothing_freezes_them_and_in_training_alone():
    assert not broken(follows(Follows, freeze=None), "call", "loss", "tokens", "ema")
    assert {"call.state", "state.eval"} <= broken(follows(FollowsInEval, freeze=None), "call.state", "state.eval")


def test_a_large_codebook_is_looked_at_with_few_tokens():
    made = torch_quantizer(Plain(Asked(4, 2**14, "straight_through", 0.25, 1.0)), "codes", loss_weights=(1.0, 0.25))
    assert not broken(made, "heads.output")
