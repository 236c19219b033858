"""A trace as lines of plain torch that do the same to modules, and what its steps gave, as expressions of them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from vq_reference.arguments import Array
from vq_reference.testing.adapters.codegen import source
from vq_reference.testing.adapters.codegen.constructor import constructed
from vq_reference.testing.adapters.codegen.run_script import run
from vq_reference.testing.adapters.codegen.source import NoScript, exactly
from vq_reference.testing.adapters.torch import plain, stateful_layer
from vq_reference.testing.adapters.torch.stateful_layer import LastingTorch, leading_of
from vq_reference.testing.interface.stateful import Lasting, LastingLayer, Reply, WantedStack, bare
from vq_reference.testing.laws.expected.nearest_per_head import codes_of, heads_of
from vq_reference.testing.recording.trace import Step, Trace

# how a state is carried on, as a function of the modules
CARRIED: dict[Any, Callable[..., Any]] = {
    stateful_layer.load_state: plain.load_state,
    stateful_layer.deepcopied: plain.deepcopied,
    stateful_layer.pickled: plain.pickled,
}


# what the functions of `plain` import
LIBRARY = (
    *("import contextlib", "import copy", "import io", "import zlib", "from typing import Any"),
    "from torch.utils.checkpoint import checkpoint",
)
BEYOND = "what exceeds codes and tokens"
IMPORTS = ("import ", "from ", "sys.path.")


class Value(NamedTuple):
    """What a step gave: its kind, the expression that a script computes it by, and what it was.

    array: None for what the script works out by itself.
    """

    kind: str
    text: str
    array: Array | None


class Replay:
    """The lines that repeat a trace with the layers of `lasting`, `lines`, and what its steps gave, `values`.

    Raises NoScript where the adapter does to a module what no script can.
    """

    def __init__(self, trace: Trace, lasting: Lasting) -> None:
        self.lasting = lasting
        self.values: list[Value] = []
        self.replies: list[str] = []  # their names, in order
        self._definitions: list[str] = []
        self._makers: dict[str, str] = {}  # the body of a function → its name
        self._numbers: dict[str, str] = {}  # numbers as source text → their name
        self._steps: list[str] = []
        self._layers: dict[int, LastingTorch] = {}
        self._wanted: Any = None
        self._codes: tuple[str, Array] | None = None  # those that were read last
        self._x = ""  # the tokens of the last call
        self.tokens = ""  # those of them that are no padding
        for i, step in enumerate(trace.steps):
            take = {"call": self._call, "decode": self._decode}.get(step.did)
            if take:
                take(i, step)
            elif step.did in ("codes", "statistics", "state"):
                self._read(i, step)
            else:
                self._make(step)

    def lines(self, end: str) -> str:
        """Return the script's lines, of numbers and of our functions those that they and `end` use."""
        steps = "\n".join(_folded(self._steps))
        makers = [f"def {name}():\n{body}\n\n" for body, name in self._makers.items()]
        used = f"{steps}\n{end}"
        numbers = [f"{name} = {text}" for text, name in self._numbers.items() if re.search(rf"\b{name}\b", used)]
        definitions = dict.fromkeys(self._definitions)
        imports = [each for each in definitions if each.startswith(IMPORTS)]
        written = [f"{each}\n\n" for each in definitions if not each.startswith(IMPORTS)]
        ours = list(_ours("\n".join([*written, used])))
        library = [each for each in LIBRARY if re.search(rf"\b{each.split()[-1]}\b", "\n".join(ours))]
        return "\n".join([*library, *imports, "\n", *ours, *written, *makers, *numbers, "", steps, end])

    @property
    def far(self) -> float:
        """Where the last code was placed, which no token is near to."""
        return float(self._wanted.layer.codes[0, -1].min())

    def use(self, function: Callable[..., Any] | None) -> str:
        """Define or import a function, and return the expression that names it."""
        if function is None:
            raise NoScript("the adapter has no function for a step of this law")
        lines, name = source.function(function)
        if name in vars(plain):  # one of ours has that name
            *lines, imported = lines
            lines, name = [*lines, f"{imported} as their_{name}"], f"their_{name}"
        self._definitions += lines
        return name

    def number(self, values: Any, prefix: str) -> str:
        """Return the name that these numbers have in the script."""
        held = np.asarray(values)
        text = exactly(held) if held.dtype.kind == "f" else f"torch.tensor({held.tolist()!r})"
        return self._numbers.setdefault(text, f"{prefix}_{len(self._numbers)}")

    def _make(self, step: Step) -> None:
        name = f"layer_{step.made}"
        others = [f"layer_{number}" for number in step.layers]
        carried = CARRIED.get(self.lasting.carry.get(step.did))
        if step.did in ("build", "build_stack"):
            build, self._wanted = getattr(self.lasting, step.did), self._wanted or step.given["wanted"]
            made, line = build(step.given["wanted"]), f"{name} = {self.maker(build, step.given['wanted'])}()"
        elif step.did == "cast" and self.lasting.cast is stateful_layer.cast_to:
            kind = step.given["kind"]
            made = stateful_layer.cast_to(self._layers[step.layers[0]], kind)
            line = f"{name} = {others[0]}" + ("" if kind == "autocast" else f".to(torch.{kind})")
        elif step.did == "compiled" and self.lasting.compiled is stateful_layer.compiled:
            made = stateful_layer.compiled(self._layers[step.layers[0]])
            line = f"{name}, compiled_{name} = {others[0]}, compiled({others[0]})"
        elif carried:
            made, line = self._layers[step.layers[0]], f"{name} = {carried.__name__}({', '.join(others)})"
        else:
            raise NoScript(f"the adapter has its own way for {step.did!r}, which takes no plain module")
        self._steps.append(line)
        if step.made is not None:
            self._layers[step.made] = as_torch(made)

    def maker(self, build: Callable[[Any], LastingLayer], wanted: Any) -> str:
        """Return the name of the function that makes such a module; one for all that are made of the same."""
        *imports, line = constructed(lambda: as_torch(build(wanted)).module)
        self._definitions += imports
        layer = as_torch(build(wanted))
        with torch.random.fork_rng(devices=()):
            fresh: Any = run("\n".join(["import sys", *imports, line])).names.get("layer")
        later = source.differing(layer.module, fresh)
        made = [line, *source.converted(layer.module, fresh, layer.dtype)]
        if getattr(wanted, "placed", True):
            made += source.state(layer.module, source.empty_caches(layer.module, fresh), fresh)
        else:  # the constructor is what the law is about, and nothing is placed over what it draws
            made = [f"torch.manual_seed({stateful_layer.SEED})", *made]
        held = [*made, *later, "return layer"]
        body = "\n".join(f"    {each}" for each in held)
        return self._makers.setdefault(body, f"make_{len(self._makers)}")

    def _call(self, i: int, step: Step) -> None:
        (number,), given = step.layers, step.given
        layer, x, use = self._layers[number], given["x"], given["use"]
        name, self._x = f"reply_{i}", self.number(x, "x")
        arguments = [
            f"layer_{number}",
            self.use(layer.access.call),
            self._x,
            repr(leading_of(x, use)),
            str(layer.dtype),
        ]
        if given["start"] is not None:
            g, losses = given["start"]
            arguments.append(f"start=({self.number(g, 'g')}, {list(map(float, losses))!r})")
        arguments += [] if use.training else ["training=False"]
        arguments += [] if use.with_grad else ["with_grad=False"]
        arguments += [f"{key}={self.number(given[key], key)}" for key in ("mask", "lengths") if given[key] is not None]
        arguments += ["checkpointed=True"] if use.checkpointed else []
        arguments += [] if use.asks else ["asks=False"]
        arguments += ["autocast=True"] if layer.autocast else []
        arguments += [f"compiled=compiled_layer_{number}"] if layer.compiled is not None else []
        self._steps.append(f"{name} = called({', '.join(arguments)})")
        self.tokens = self._x if given["mask"] is None else f"{self._x}[{self.number(given['mask'], 'mask')}]"
        if step.gave is not None:
            self.replies.append(name)
            self.values += _of_reply(name, step.gave, x)
            with contextlib.suppress(IndexError, ValueError):  # indices that name no code, or too few
                self.values += self._of_choice(name, step.gave, x)

    def _of_choice(self, name: str, reply: Reply, x: Array) -> Iterator[Value]:
        """Yield what laws make of the indices: the codes that they name, and how much farther those are."""
        if isinstance(self._wanted, WantedStack):
            stack = self._wanted.stack.codes
            tables = [self.number(each, "codes") for each in stack]
            for i, table in enumerate(tables):
                left = f"{self.number(x, 'x')} - summed([{', '.join(tables[:i])}], {name}['indices'][:, :{i}])"
                text = f"excess({left}, {table}, {name}['indices'][:, {i}])"
                yield Value(f"excess of layer {i}", text, None)
            whole = plain.summed([torch.tensor(each) for each in stack], reply.indices).numpy()
            for kind in ("output", "decoded"):
                yield Value(kind, f"summed([{', '.join(tables)}], {name}['indices']).numpy()", whole)
            return
        layer = self._wanted.layer
        groups = np.arange(layer.heads) % len(layer.codes)
        codes, held = self._codes or (f"{self.number(layer.codes, 'codes')}.numpy()", layer.codes)
        yield Value("selected code", f"{codes}[{groups.tolist()}, {name}['indices']]", held[groups, reply.indices])
        for head in range(layer.heads):
            tokens, table = self.number(heads_of(layer, x)[:, head], "t"), self.number(codes_of(layer, head), "codes")
            text = f"excess({tokens}, {table}, {name}['indices'][:, {head}])"
            yield Value(f"excess of head {head}", text, None)

    def _decode(self, i: int, step: Step) -> None:
        (number,) = step.layers
        decode, indices = self.use(self._layers[number].access.decode), self.number(step.given["indices"], "indices")
        self._steps.append(f"decoded_{i} = decoded(layer_{number}, {decode}, {indices})")
        if step.gave is not None:
            self.values.append(Value("decoded", f"decoded_{i}", step.gave))

    def _read(self, i: int, step: Step) -> None:
        """Read codes, statistics or the whole state."""
        (number,), gave = step.layers, step.gave
        access, name = self._layers[number].access, f"{step.did}_at_{i}"
        if step.did == "codes":
            self._steps.append(f"{name} = array({self.use(access.codes)}(layer_{number}))")
            if gave is not None:
                if self._codes is not None and self._x:
                    self.values.append(Value(BEYOND, f"beyond({name}, {self._codes[0]}, {self._x})", None))
                self._codes = name, gave
                self.values.append(Value("codes", name, gave))
        elif step.did == "statistics":
            pairs = f"{self.use(access.statistics)}(layer_{number})"
            self._steps.append(f"{name} = [(array(counts), array(sums)) for counts, sums in {pairs}]")
            for group, each in enumerate(gave or ()):
                self.values.append(Value("counts", f"{name}[{group}][0]", each.counts))
                self.values.append(Value("sums", f"{name}[{group}][1]", each.sums))
        else:
            self._steps.append(f"{name} = state(layer_{number})")
            self.values += [Value(key, f"{name}[{bare(key)!r}]", array_) for key, array_ in (gave or {}).items()]


def _of_reply(name: str, reply: Reply, x: Array) -> Iterator[Value]:
    for key in ("output", "indices", "losses"):
        yield Value(key, f"{name}[{key!r}]", getattr(reply, key))
    if reply.reached is not None:
        for parameter, gradient in {"x": reply.reached.x, **reply.reached.parameters}.items():
            like = x if parameter == "x" else gradient
            key = f"gradient at {parameter}"
            if like is not None:
                text = f"arrived({name}[{key!r}], {like.shape})"
                yield Value(key, text, np.zeros(like.shape) if gradient is None else gradient)


def _ours(text: str) -> Iterator[str]:
    """Yield the source of each function of `plain` that this text calls, and of those that these call."""
    functions = _plain()
    needed: set[str] = set()
    while more := {name for name in functions if re.search(rf"(?<![\w.]){name}\(", text)} - needed:
        needed |= more
        text = "\n".join(functions[name] for name in more)
    yield from (f"{functions[name]}\n" for name in functions if name in needed)


@functools.cache
def _plain() -> dict[str, str]:
    own = {name: each for name, each in vars(plain).items() if getattr(each, "__module__", "") == plain.__name__}
    return {name: inspect.getsource(each) for name, each in own.items()}


def _folded(steps: list[str]) -> Iterator[str]:
    """Yield the steps, calls that are alike as a loop."""
    waiting: list[str] = []
    for step in [*steps, ""]:
        if waiting and not (step.startswith("reply_") and step.split(" = ")[1] == waiting[-1].split(" = ")[1]):
            yield from waiting if len(waiting) == 1 else (f"for _ in range({len(waiting)}):", f"    {waiting[-1]}")
            waiting = []
        waiting.append(step)


def as_torch(layer: LastingLayer) -> LastingTorch:
    """Return the layer, which is one of a torch module. Raises NoScript."""
    if not isinstance(layer, LastingTorch):
        raise NoScript("the layer is no torch module that a script could call")
    return layer
