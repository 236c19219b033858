"""What the laws of state, masks, heads and stacks draw: a layer of every kind that is offered, and tokens for it.

Numbers are multiples of 1/8 of at most six binary digits, which every dtype of at least eight holds exactly: a case is
the same one in bfloat16 and in float64. Heads, projections, metrics and ways to learn are drawn where the
implementation offers them (`strategies.offers`), so that they meet each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from hypothesis import assume, event
from hypothesis import strategies as st

from vq_reference.arguments import Array
from vq_reference.codebook import Layer
from vq_reference.residual import ResidualStack
from vq_reference.testing.interface.stateful import Averaging, Wanted, WantedStack
from vq_reference.testing.interface.subjects import NotApplicable, StackSubject, Subject, given_sizes, offers, precision
from vq_reference.testing.laws.expected.nearest_per_head import decided
from vq_reference.testing.laws.expected.residual_vq import sure
from vq_reference.testing.laws.strategies.simvq_cases import betas, meaning, sizes, weights
from vq_reference.vector_quantize import VectorQuantize

GRID = 8
MOST = 4  # the largest entry
MOST_CODES = 4


@st.composite
def grids(draw: st.DrawFn, *shape: int, most: int = MOST) -> Array:
    """Draw an array of multiples of 1/8 up to `most`, from a seeded generator: what matters is where tokens stand."""
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    return np.asarray(generator.integers(-most * GRID, most * GRID + 1, shape) / GRID)


def _offered(capability: str) -> st.SearchStrategy[bool]:
    return st.booleans() if capability in offers.get() else st.just(False)


@st.composite
def constellations(draw: st.DrawFn) -> Callable[[str], bool]:
    """Draw which of the offered parts a layer has: none, which it shrinks to, or each by chance.

    From a seeded generator: hypothesis, which climbs from the example that came nearest to a bound, would stay with
    the parts of that one, and hardly try those that are seldom.
    """
    seed = draw(st.integers(0, 2**16))
    generator = np.random.default_rng(seed)
    return lambda part: part in offers.get() and seed > 0 and bool(generator.integers(2))


@st.composite
def averagings(draw: st.DrawFn) -> Averaging:
    """Draw decays from a fast one to a slow one, and ε, where there is one, from none to a large one."""
    epsilons = [0.0, 2.0**-10, 0.125] if "smoothing" in offers.get() else [0.0]
    return Averaging(draw(st.sampled_from([0.5, 0.875, 0.25])), draw(st.sampled_from(epsilons)))


@st.composite
def constructed_averagings(draw: st.DrawFn) -> Averaging:
    """Draw a decay, and an ε > 0 where there is one: a code whose count begins at 0 is divided by it alone."""
    epsilon = draw(st.sampled_from([2.0**-20, 2.0**-10])) if "smoothing" in offers.get() else 0.0
    return Averaging(draw(st.sampled_from([0.5, 0.875])), epsilon)


@st.composite
def subjects(
    draw: st.DrawFn,
    learning: Literal["any", "ema", "trained"] = "any",
    metric: Literal["any", "euclidean", "cosine"] = "any",
    parts: Literal["any", "plain", "heads"] = "any",
    averaging: st.SearchStrategy[Averaging] | None = None,
    tokens: tuple[int, int] = (1, 12),
) -> Subject:
    """Draw a layer and tokens.

    parts: "plain" for neither heads nor projections, "heads" for at least two heads. averaging: for codes that are
    averages. Leaves out tokens whose nearest code rounding decides, and cases where none is left.
    """
    ways = [way for way in ("trained", "ema") if way in offers.get() and learning in ("any", way)]
    way = draw(st.sampled_from(ways)) if ways else "nothing"
    drawn = draw(constellations())
    heads = draw(st.sampled_from([2, 3])) if parts == "heads" else 1
    if parts == "any" and drawn("heads"):
        heads = 2
    instance = given_sizes.get()
    width = instance[0] if instance else draw(st.integers(2, 3))
    groups = heads if heads > 1 and drawn("separate_codebooks") else 1
    codes = draw(grids(groups, instance[1] if instance else draw(sizes(MOST_CODES)), width))
    codes = np.where(np.linalg.norm(codes, axis=2, keepdims=True) < 0.5, 1.0, codes)
    if codes.shape[1] > 1 and draw(st.integers(0, 3)) == 0:
        event("duplicated code")
        codes[:, -1] = codes[:, 0]
    project_in = project_out = None
    dim = heads * width
    if parts != "plain" and drawn("projections"):
        event("projected")
        dim = heads * width + draw(st.sampled_from([-1, 1, 2]))
        project_in, project_out = draw(projections(heads * width, dim)), draw(projections(dim, heads * width))
    by_direction = "euclidean" not in offers.get() and "cosine" not in offers.get()
    if by_direction and metric == "euclidean":
        raise NotApplicable("it chooses by direction, and the law is about Euclidean distances")
    unit = metric == "cosine" or (metric == "any" and drawn("cosine"))
    event("cosine" if unit or by_direction else "euclidean")
    wanted = VectorQuantize(
        codes, heads, project_in, project_out, unit, way == "trained", "straight_through", draw(betas), draw(weights)
    )
    layer = meaning.get()(wanted)
    x = draw(grids(draw(st.integers(*tokens)), dim))
    if project_in is None and draw(st.booleans()):
        event("token on a code")
        x[0] = codes[np.arange(heads) % groups, 0].reshape(-1)
    if project_in is None and codes.shape[1] > 1 and len(x) > 1:
        event("token beside a tie")
        midway = np.round((codes[:, 0] + codes[:, 1]) / 2 * GRID) / GRID
        x[1] = midway[np.arange(heads) % groups].reshape(-1)
    x = x[decided(layer, x, precision.get().unit_roundoff)]
    assume(len(x) >= tokens[0])
    average = draw(averagings() if averaging is None else averaging) if way == "ema" else None
    return Subject(Wanted(wanted, average, drawn("channel_first")), x, meaning.get())


@st.composite
def projections(draw: st.DrawFn, leaving: int, entering: int) -> Layer:
    """Draw an affine layer of multiples of 1/8.

    Under weight normalisation a row is placed as its length and its direction, which round nothing where it has a
    single entry, a power of two.
    """
    if "weight_norm" in offers.get():
        generator = np.random.default_rng(draw(st.integers(0, 2**16)))
        weight = np.zeros((leaving, entering))
        weight[np.arange(leaving), np.resize(generator.permutation(entering), leaving)] = 1.0
        weight *= generator.choice([-1.0, -0.5, 0.5, 1.0], (leaving, 1))
    else:
        weight = draw(grids(leaving, entering, most=1))
    return Layer(weight, draw(grids(leaving, most=1)) if "projection_bias" in offers.get() else None)


@st.composite
def modes(draw: st.DrawFn) -> bool:
    """Draw whether a layer is called in training: always, where its eval mode is not as training."""
    return draw(st.booleans()) if "eval" in offers.get() else True


@st.composite
def whole_subjects(draw: st.DrawFn) -> Subject:
    """Draw a plain layer of few or of some hundreds of codes, no two alike, and tokens, all of whole numbers up to 2.

    Codes are all that there are, in the order of a seeded generator, or the first of them; a token is on a code, or has
    one beside it or several, all at one distance.
    """
    if given_sizes.get():
        raise NotApplicable("it is an instance, and the law varies the sizes of the codebook")
    ways = [way for way in ("trained", "ema") if way in offers.get()]
    way = draw(st.sampled_from(ways)) if ways else "nothing"
    width = draw(st.integers(2, 4))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    whole = np.stack(np.meshgrid(*[np.arange(-2.0, 3.0)] * width), axis=-1).reshape(-1, width)
    size = draw(st.sampled_from([len(whole), 4, 8]))
    event(f"{2 ** (size.bit_length() - 1)} codes and more")
    layer = VectorQuantize(generator.permutation(whole)[None, :size], trained=way == "trained")
    average = draw(averagings()) if way == "ema" else None
    x = generator.permutation(whole)[: draw(sizes(16))]
    return Subject(Wanted(layer, average, draw(_offered("channel_first"))), x, meaning.get())


@st.composite
def masks(draw: st.DrawFn, count: int) -> Array:
    """Draw a mask, (count,), of at least one token; all of them, or all but one, as well."""
    mask = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
    mask[draw(st.integers(0, count - 1))] = True
    return mask


@st.composite
def stack_subjects(
    draw: st.DrawFn, layers: tuple[int, int] = (1, 3), layer_dropout: bool = False, moves: bool = False
) -> StackSubject:
    """Draw a stack of layers, each with shorter codes than the one before, and tokens.

    moves: whether its codes are moving averages that follow their tokens.
    """
    width, count = draw(st.integers(2, 4)), draw(st.integers(*layers))
    size = draw(st.integers(2, 4))
    codes = tuple(draw(grids(size, width)) / 2**i for i in range(count))
    trained = draw(_offered("stack:trained")) if "stack:frozen" in offers.get() else "stack:trained" in offers.get()
    stack = ResidualStack(codes, trained and not moves, "straight_through", draw(betas), draw(weights))
    x = draw(grids(draw(sizes(8)), width))
    x = x[sure(stack, x, precision.get().unit_roundoff)]
    assume(len(x))
    return StackSubject(WantedStack(stack, layer_dropout, draw(averagings()) if moves else None), x)


@st.composite
def projected_stacks(draw: st.DrawFn) -> StackSubject:
    """Draw a stack between projections, and tokens, (N, D + 1).

    The projection in is a signed permutation, blind to one more channel, and a bias: what comes to the layers has no
    rounding, and is decided as for a stack without.
    """
    subject = draw(stack_subjects())
    count, width = subject.x.shape
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    turn = np.eye(width)[generator.permutation(width)] * generator.choice([-1.0, 1.0], width)
    bias = draw(grids(width, most=1))
    project_in = Layer(np.hstack([turn, np.zeros((width, 1))]), bias)
    project_out = Layer(draw(grids(width + 1, width, most=1)), draw(grids(width + 1, most=1)))
    x = np.hstack([(subject.x - bias) @ turn, draw(grids(count, 1))])
    return StackSubject(replace(subject.wanted, project_in=project_in, project_out=project_out), x)


@st.composite
def kept(draw: st.DrawFn, learning: Literal["any", "ema"] = "any") -> Subject | StackSubject:
    """Draw a layer, or a stack of them, whichever is offered, and tokens."""
    offered = offers.get()
    layers = {"lasting"} | ({"ema"} if learning == "ema" else set()) <= offered
    stacks = ("stack:ema" if learning == "ema" else "stack") in offered
    if layers and not (stacks and draw(st.booleans())):
        return draw(subjects(learning))
    return draw(stack_subjects(moves=learning == "ema" or draw(_offered("stack:ema"))))
