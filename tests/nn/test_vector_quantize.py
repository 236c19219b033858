"""The layer against its oracle, crossed over projections, heads, metric, layout and the ways that codes learn."""

import itertools

import numpy as np
import pytest
import torch

from vq_reference import vector_quantize
from vq_reference.codebook import Layer
from vq_reference.nn import VectorQuantize
from vq_reference.testing.laws.assertions import assert_within
from vq_reference.testing.laws.bounds import bounds_layer, bounds_state
from vq_reference.testing.laws.bounds.bounds import gamma, stable_rotation

U = 2.0**-53
HEADS, WIDTH, SIZE, BATCH, LENGTH = 2, 3, 5, 2, 4

FLAGS = ("projects", "separate", "unit", "trained")
CASES = [
    pytest.param(dict(zip(FLAGS, on, strict=True)), id="-".join(itertools.compress(FLAGS, on)) or "plain")
    for on in itertools.product([False, True], repeat=len(FLAGS))
]


def numpy(tensor):
    return tensor.detach().double().numpy().copy()  # a copy: the state that it came from moves on


def modules(projects=False, separate=False, unit=False, trained=False, **more):
    """Return a float64 module and the oracle with the same parameters."""
    torch.manual_seed(1)
    module = VectorQuantize(
        HEADS * WIDTH + projects,
        SIZE,
        heads=HEADS,
        codebook_dim=WIDTH,
        separate_codebooks=separate,
        codes_learn_by="gradient" if trained else "ema",
        metric="cosine" if unit else "euclidean",
        commitment_weight=3.0,
        **more,
    ).double()

    def layer(linear):
        return Layer(numpy(linear.weight), numpy(linear.bias)) if projects else None

    oracle = vector_quantize.VectorQuantize(
        numpy(module.codebooks.raw()),
        heads=HEADS,
        project_in=layer(module.projections.project_in),
        project_out=layer(module.projections.project_out),
        unit=unit,
        trained=trained,
        estimator=module.estimator,
        commitment_weight=3.0,
    )
    return module, oracle


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("flags", CASES)
def test_values_and_gradients_are_those_of_the_oracle(flags):
    module, oracle = modules(**flags)
    x = draw(BATCH, LENGTH, module.dim).requires_grad_()
    g_output, g_loss = draw(BATCH, LENGTH, module.dim).flip(0), 5.0
    output, indices, loss = module(x)
    codes = module.codebooks[0].codes
    asked = [x, codes] if flags["trained"] else [x]
    at = torch.autograd.grad([output, loss], asked, [g_output, torch.tensor(g_loss).double()])

    rows, g_rows = numpy(x).reshape(-1, module.dim), numpy(g_output).reshape(-1, module.dim)
    wanted, gradients = oracle.forward(rows), oracle.gradients(rows, g_rows, g_loss)
    error = bounds_layer.vector_quantize(oracle, rows, g_rows, g_loss, U)
    assert np.array_equal(indices.numpy().reshape(-1, HEADS), wanted.indices)
    # twice: the oracle computes in float64 as well
    assert_within("output", numpy(output).reshape(rows.shape), wanted.output, 2 * error.output)
    assert_within("loss", numpy(loss), wanted.loss, 2 * error.loss)
    assert_within("gradient at x", numpy(at[0]).reshape(rows.shape), gradients.x, 2 * error.x)
    if flags["trained"]:
        assert_within("gradient at codes", numpy(at[1]), gradients.codes[0], 2 * error.codes[0])


@pytest.mark.parametrize("flags", CASES)
def test_decode_gives_the_output_back(flags):
    module, _ = modules(**flags)
    for count in (LENGTH, 0):
        output, indices, _ = module.eval()(draw(BATCH, count, module.dim))
        assert torch.equal(module.decode(indices), output)


@pytest.mark.parametrize("flags", CASES)
def test_channels_first_is_the_same_layer_with_its_axes_moved(flags):
    last, _ = modules(**flags)
    first, _ = modules(**flags, channel_first=True)
    x = draw(BATCH, LENGTH, 3, last.dim)
    output, indices, loss = last(x)
    moved, moved_indices, moved_loss = first(x.movedim(-1, 1))
    assert torch.equal(moved.movedim(1, -1), output)
    assert torch.equal(moved_indices, indices)
    assert torch.equal(moved_loss, loss)
    assert moved.shape == (BATCH, last.dim, LENGTH, 3)
    assert torch.equal(first.eval().decode(indices).movedim(1, -1), last.eval().decode(indices))


@pytest.mark.parametrize("leading", [(6,), (2, 3), (1, 2, 3), (3, 1, 1, 2)])
def test_leading_axes_do_not_matter(leading):
    module, _ = modules(separate=True)
    x = draw(6, module.dim)
    output, indices, loss = module.eval()(x)
    shaped_output, shaped_indices, shaped_loss = module(x.reshape(*leading, module.dim))
    assert torch.equal(shaped_output.reshape(6, -1), output)
    assert shaped_indices.shape == (*leading, HEADS)
    assert torch.equal(shaped_indices.reshape(6, HEADS), indices)
    assert_within("loss", numpy(shaped_loss), numpy(loss), 2 * gamma(x.numel(), U) * numpy(loss))


@pytest.mark.parametrize("unit", [False, True])
def test_what_one_head_holds_changes_no_other_head(unit):
    module, _ = modules(separate=True, unit=unit)
    x = draw(BATCH, LENGTH, module.dim)
    other = x.clone()
    other[..., WIDTH:] = 100.0
    output, indices, _ = module.eval()(x)
    other_output, other_indices, _ = module(other)
    assert torch.equal(output[..., :WIDTH], other_output[..., :WIDTH])
    assert torch.equal(indices[..., 0], other_indices[..., 0])


def test_each_head_keeps_the_state_of_a_layer_of_its_own():
    stateful = {"initialise_from_data": True, "replace_below": 1.0, "decay": 0.5}
    module, _ = modules(separate=True, **stateful)
    alone = [VectorQuantize(WIDTH, SIZE, **stateful).double() for _ in range(HEADS)]
    x = draw(BATCH, LENGTH, module.dim)
    torch.manual_seed(0)
    module(x)
    torch.manual_seed(0)
    for head, layer in enumerate(alone):
        layer(x[..., head * WIDTH : (head + 1) * WIDTH])
    for layer, codebook in zip(alone, module.codebooks, strict=True):
        for name, value in layer.codebooks[0].state_dict().items():
            assert torch.equal(value, codebook.state_dict()[name])


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_a_rotation_turns_within_each_head(estimator):
    module, oracle = modules(separate=True, estimator=estimator, beta=0.0)
    x = draw(BATCH, LENGTH, module.dim).requires_grad_()
    g = draw(BATCH, LENGTH, module.dim).flip(0)
    at = torch.autograd.grad(module(x)[0], x, g)[0]
    rows = numpy(x).reshape(-1, module.dim)
    expected = oracle.gradients(rows, numpy(g).reshape(rows.shape), 0.0)
    heads = rows.reshape(-1, WIDTH)
    q = oracle.forward(rows).output.reshape(heads.shape)
    ratio = np.linalg.norm(q, axis=1) / np.linalg.norm(heads, axis=1)
    length = ratio * np.linalg.norm(numpy(g).reshape(heads.shape), axis=1)
    bound = 2 * stable_rotation(WIDTH, U) * length[:, None] if estimator == "rotation" else 0.0
    assert_within("gradient", numpy(at).reshape(heads.shape), expected.x.reshape(heads.shape), bound)


def test_codes_learn_by_what_was_said_and_by_nothing_else():
    for kind, moves, asks in (("ema", True, False), ("gradient", False, True), ("nothing", False, False)):
        torch.manual_seed(0)
        module = VectorQuantize(4, SIZE, codes_learn_by=kind)
        before = module.codes.detach().clone()
        _, _, loss = module(torch.randn(9, 4, requires_grad=True))
        loss.backward()
        assert torch.equal(module.codes, before) != moves
        assert bool(list(module.parameters())) == asks
        assert all(p.grad.any() for p in module.parameters())


def test_the_output_is_chosen_before_the_codes_move():
    torch.manual_seed(0)
    module = VectorQuantize(4, SIZE, decay=0.5)
    before = module.codes.clone()[0]
    output, indices, _ = module(torch.randn(9, 4))
    assert torch.equal(output, before[indices])
    assert not torch.equal(module.codes[0], before)


def test_cosine_codes_have_length_one_and_the_length_of_a_token_does_not_matter():
    torch.manual_seed(0)
    module = VectorQuantize(4, SIZE, metric="cosine").double()
    for _ in range(3):
        module(torch.randn(9, 4).double())
    length = numpy(module.codes.norm(dim=-1))
    assert_within("length", length, 1.0, bounds_state.unit(4, U) + gamma(5, U))
    x = torch.randn(9, 4).double()
    assert torch.equal(module.eval()(x)[0], module(1024 * x)[0])


@pytest.mark.parametrize("scale", [2.0**-140, 2.0**120])
def test_a_direction_is_that_of_the_shortest_and_of_the_longest_token(scale):
    torch.manual_seed(0)
    module, x = VectorQuantize(4, SIZE, metric="cosine").eval(), torch.randint(-64, 65, (9, 4)) / 64
    assert all(torch.equal(a, b) for a, b in zip(module(x * scale), module(x), strict=True))


@pytest.mark.parametrize("more", [{"replace_below": 9.0}, {}])
def test_a_token_that_is_not_finite_is_seen_and_touches_no_other(more):
    torch.manual_seed(0)
    x = torch.randn(9, 4)
    broken = x.clone()
    broken[3, 1] = torch.nan
    module = VectorQuantize(4, 9, decay=0.5, initialise_from_data=True, **more)
    output, indices, loss = module(broken)
    assert output[3].isnan().all()
    assert indices[3] == -1
    assert loss.isnan()
    others = torch.arange(9) != 3
    assert output[others].isfinite().all()
    assert all(value.isfinite().all() for value in module.state_dict().values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"heads": 3}, "dim is 4, heads is 3"),
        ({"codebook_dim": 0}, "codebook_dim is 0"),
        ({"metric": "l1"}, "metric is 'l1'"),
        ({"estimator": "none"}, "estimator is 'none'"),
        ({"codes_learn_by": "magic"}, "codes_learn_by is 'magic'"),
        ({"beta": -1.0}, "beta is -1.0"),
        ({"commitment_weight": float("inf")}, "commitment_weight is inf"),
    ],
)
def test_an_argument_out_of_range_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        VectorQuantize(**{"dim": 4, "codebook_size": 3, **arguments})


def test_input_that_cannot_be_used_is_named():
    module = VectorQuantize(4, SIZE, heads=2)
    with pytest.raises(ValueError, match=r"x has shape \(2, 4, 3\).*channel_first"):
        module(torch.zeros(2, 4, 3))
    with pytest.raises(TypeError, match=r"x has dtype torch.int64"):
        module(torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(TypeError, match="indices has dtype"):
        module.decode(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"indices has shape \(2, 3\)"):
        module.decode(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(IndexError):
        module.decode(torch.full((2, 2), SIZE))
