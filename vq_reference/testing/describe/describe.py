"""Describe a torch quantizer by measurement, and write the adapter that says the same."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from vq_reference.estimators import ESTIMATORS
from vq_reference.testing.adapters.declare.declared_module import Asked
from vq_reference.testing.adapters.torch.codebooks import BetweenProjections
from vq_reference.testing.adapters.torch.layer import Layouts
from vq_reference.testing.adapters.torch.places import Path
from vq_reference.testing.describe import conventions
from vq_reference.testing.describe.construct import CannotDescribe, Constructor
from vq_reference.testing.describe.search import Found, search
from vq_reference.testing.interface.implementation import Implementation

__all__ = ["CannotDescribe", "Description", "describe"]

DECODES = (
    *("indices_to_codes", "get_output_from_indices", "get_codes_from_indices", "decode", "decode_indices"),
    *("decode_code", "embed_code", "dequantize", "lookup", "get_codebook_entry"),
)


@dataclass
class Description:
    """What was found. facts: what → how it is. unknown: what could not be found out, and why. notes: what to look at.

    origin: "module:name" that the target is imported from, or "". make: the first argument of `torch_quantizer`;
    arguments: those that are not its defaults; imports: what they need of `vq_reference.testing`; all as source text.
    """

    target: Any
    origin: str
    make: str
    facts: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)

    def adapter(self) -> str:
        """Return a module to paste: a function that returns the Implementation."""
        module, _, name = self.origin.rpartition(":")
        header = f"from {module} import {name}" if module else f"# {self.make}: the instance that was described"
        return f"{header}\n\n{self._body()}"

    def _body(self) -> str:
        imports = ", ".join(sorted([*self.imports, "torch_quantizer"]))
        given = "".join(f"        {name}={value},\n" for name, value in self.arguments.items())
        return (
            f"from vq_reference.testing import {imports}\n\n\n"
            'def adapter(dtype="float32", device="cpu"):\n    return torch_quantizer(\n'
            f"        {self.make},\n{given}        dtype=dtype,\n        device=device,\n    )\n"
        )

    def implementation(self, dtype: str = "float32", device: str = "cpu") -> Implementation:
        """Return what `adapter()` says, made from the target itself."""
        is_class = inspect.isclass(self.target)
        names: dict[str, Any] = {self.target.__name__ if is_class else self.make: self.target}
        exec(self._body(), names)
        made: Implementation = names["adapter"](dtype, device)
        return replace(made, name=self.target.__name__ if is_class else type(self.target).__name__)

    def __str__(self) -> str:
        width = max(map(len, self.facts), default=0)
        lines = [f"{what:<{width}}  {how}" for what, how in self.facts.items()]
        lines += ["", "could not be found out:", *(f"  - {what}" for what in self.unknown)] if self.unknown else []
        lines += ["", *(f"note: {note}" for note in self.notes)] if self.notes else []
        return "\n".join([*lines, "", self.adapter()])


def describe(target: nn.Module | type[nn.Module], origin: str = "") -> Description:
    """Describe a module, or a class whose constructor has the usual names. Leaves an instance as it is.

    origin: where it is imported from, "module:name", for the text of the adapter. Raises CannotDescribe.

    >>> from vq_reference.nn import SimVQ
    >>> describe(SimVQ).facts["estimator in training"]
    'rotation'
    """
    if not isinstance(target, nn.Module) and not (inspect.isclass(target) and issubclass(target, nn.Module)):
        raise CannotDescribe(f"it is a {type(target).__name__}: expected a torch module or its class")
    if inspect.isclass(target):
        constructor = Constructor.of(target)
        constructor.require_any_size()
        origin = origin or f"{target.__module__}:{target.__name__}"
        description = Description(target, origin, constructor.source(), notes=_of_stacks(constructor))
        wanted = Asked(4, 5, "straight_through", 0.25, 1.0, codebook_dim=4)
        found = search(lambda: constructor.make(wanted), 4, 5)
        beta = constructor.beta
    else:
        found = _of_instance(target)
        description, beta = Description(target, origin, origin.rpartition(":")[2] or "quantizer"), None
    _places(description, found)
    _loss(description, found, beta)
    made = description.implementation()
    _conventions(description, made)
    _decode(description)
    _dtypes(description)
    return description


def _of_stacks(constructor: Constructor) -> list[str]:
    """Say that a stack is described as one layer, and how it is declared as a stack."""
    one = [f"{name}=1" for name, value in constructor.arguments.items() if value == "1" and name != "heads"]
    if not one:
        return []
    return [
        f"it is described with {', '.join(one)}. If that is the number of layers of a residual stack, the laws of "
        "stacks want wanted.layers there, and stack=True: see docs/verify-your-own.md"
    ]


def _of_instance(target: nn.Module) -> Found:
    said = []
    shapes = {tuple(t.shape[-2:]) for t in [*target.parameters(), *target.buffers()] if t.ndim > 1}
    for first, second in sorted(shapes):
        for dim, codebook_size in ((second, first), (first, second)):
            try:
                return search(lambda: copy.deepcopy(target).to("cpu", torch.float32), dim, codebook_size)
            except CannotDescribe as error:
                said.append(f"D = {dim}, K = {codebook_size}: {error}")
    raise CannotDescribe("\n".join(said) or "the module has no parameter or buffer that could hold codes")


def _places(description: Description, found: Found) -> None:
    facts, arguments = description.facts, description.arguments
    arguments["codebook"] = repr(found.codebook)
    if isinstance(found.codebook, BetweenProjections) and not isinstance(description.target, nn.Module):
        arguments["codebook"] = repr(found.codebook.codes)
        arguments.update(project_in=repr(found.codebook.entering), project_out=repr(found.codebook.leaving))
    elif not isinstance(found.codebook, str):
        description.imports.append(type(found.codebook).__name__)
        if isinstance(description.target, nn.Module):
            arguments["sizes"] = repr(found.sizes)
    arguments["x"] = repr(found.x)
    facts["layout of x"] = f"{found.x} (works: {', '.join(found.layouts)})"
    facts["codebook"] = f"{found.codebook}, {'(D, K)' if str(found.codebook).endswith('.T') else '(K, D)'}"
    facts["output"] = f"{_shown(found.output_at)}, layout {found.output}"
    if found.output != found.x:
        arguments["output"] = repr(found.output)
    if found.output_at != (0,):
        arguments["output_at"] = _shown(found.output_at)
    facts["output holds"] = "codes divided by their length" if found.unit_codes else "codes as they are"
    if found.unit_codes:
        arguments["unit_codes"] = "True"
    facts["indices"] = (
        "not found" if found.indices_at is None else f"{_shown(found.indices_at)}, layout {found.indices}"
    )
    if found.indices_at is None:
        arguments["indices_at"] = "None"
        description.unknown.append("the loss and the estimator: both are measured against the chosen codes")
        at = "".join(f"[{step!r}]" for step in found.output_at)
        description.unknown.append(
            "the indices: nothing that came back names the codes of the output. Most laws need them: where the module "
            f"keeps them to itself, give output_at=0, indices_at=1 and call=lambda module, x: (out := module(x){at}, "
            "torch.cdist(out, codes).argmin(-1)), with the module's codes"
        )
    elif found.indices_at != (1,):
        arguments["indices_at"] = _shown(found.indices_at)
    usual = Layouts.of(found.x).indices
    if found.indices is not None and found.indices != str(usual):
        arguments["indices"] = repr(found.indices)
    if found.freeze is not None:
        facts["codes in training"] = f"changed by every forward; frozen by eval mode of {found.freeze}"
        # the path may go through a ModuleList
        arguments["freeze"] = f"lambda module: module.get_submodule({found.freeze!r}).eval()"
        description.notes.append(
            "the codes move in training, and are judged here as they stand. For the laws of codes that are moving "
            "averages give average=MovingAverage(…) too: see docs/verify-your-own.md"
        )
    else:
        facts["codes in training"] = "left as they are by a forward"


def _shown(path: Path) -> str:
    return repr(path[0]) if len(path) == 1 else repr(path)


def _loss(description: Description, found: Found, beta: str | None) -> None:
    """Find the scalar that trains something, the weights of its halves, and how it is reduced."""
    arguments = description.arguments
    if found.unit_codes:
        arguments["loss_at"] = "None"
        description.facts["loss"] = "not measured"
        description.unknown.append(
            "the loss: of codes of length 1. Where tokens are divided by their lengths first, give unit_tokens=True, "
            "loss_at and loss_weights"
        )
        return
    measured = []
    for path in found.scalars:
        arguments.update(loss_at=_shown(path), loss_weights="(1.0, 1.0)")
        if found.indices_at is None:
            break
        made = description.implementation()
        numbers = conventions.routing(made, conventions.probe(made))
        if numbers and (numbers.codebook or numbers.encoder):
            measured.append((path, numbers))
    for key in ("loss_at", "loss_weights"):
        arguments.pop(key, None)
    if not measured:
        arguments["loss_at"] = "None"
        description.facts["loss"] = "not found"
        tried = (
            f"no gradient from {', '.join(map(_shown, found.scalars))}"
            if found.scalars
            else "no single number came back"
        )
        description.unknown.append(
            f"the loss: {tried}. Most laws of the loss are left out. Where there is one, or several to add up, give "
            "loss_at and loss_weights, and call= to return it"
        )
        return
    path, _ = max(measured, key=lambda each: abs(each[1].codebook or 0) + abs(each[1].encoder or 0))
    if path != (2,):
        arguments["loss_at"] = _shown(path)
    _weigh(description, path, beta)


def _weigh(description: Description, path: Path, beta: str | None) -> None:
    arguments, facts = description.arguments, description.facts
    arguments["loss_weights"] = "(1.0, 1.0)"
    made = description.implementation()
    u = made.precision.unit_roundoff
    case = conventions.probe(made)
    numbers = conventions.routing(made, case)
    longer = conventions.routing(made, conventions.probe(made, tokens=2 * conventions.TOKENS))
    assert numbers is not None
    assert longer is not None
    reduction = 1.0
    if conventions.same(longer.value, 2 * numbers.value, u):
        reduction = float(case.x.size)
        arguments["loss_reduction"] = "'sum'"
    elif not conventions.same(longer.value, numbers.value, u):
        description.unknown.append("how the loss is reduced: neither a mean over tokens nor a sum")
    facts["loss"] = f"{_shown(path)}, {'a sum over all entries' if reduction > 1 else 'a mean over tokens'}"
    other = None
    if beta is not None:
        reference = replace(case.reference, beta=2 * case.reference.beta)
        other = conventions.routing(made, replace(case, reference=reference))
    wider = None
    if made.sizes is None:
        wide = replace(made, sizes=(6, 5))
        wider = conventions.routing(made, conventions.probe(wide))

    def text(name: str) -> str:
        value = getattr(numbers, name)
        if value is None:
            return "0.0"
        if value != value:
            description.unknown.append(f"the gradient of the loss at the {name}: no multiple of 2(x − q)/(N·D)")
            return "nan"
        factors, left = "", value / reduction
        if wider is not None and reduction == 1 and conventions.same(getattr(wider, name), 1.5 * value, u) and value:
            factors, left = " * wanted.codebook.shape[1]", left / case.x.shape[1]
        if other is not None and value and conventions.same(getattr(other, name), 2 * value, u):
            factors, left = factors + " * wanted.beta", left / case.reference.beta
        nice = float(f"{left:.4g}")
        number = nice if conventions.same(nice, left, u) else left
        return factors.removeprefix(" * ") if factors and number == 1 else f"{number!r}{factors}"

    def of_value() -> str:
        """Return the weight of the value: a number, a multiple of β, or both where one half alone has it."""
        if other is None or conventions.same(other.value, numbers.value, u):
            return text("value")
        slope = (other.value - numbers.value) / case.reference.beta
        left = numbers.value - slope * case.reference.beta
        if conventions.same(1.0 + left, 1.0, u) or reduction > 1:
            return text("value")
        return f"{float(f'{left:.4g}')!r} + {float(f'{slope:.4g}')!r} * wanted.beta"

    a, b, c = text("codebook"), text("encoder"), of_value()
    depends = "wanted" in a + b
    arguments["loss_weights"] = f"lambda wanted: ({a}, {b})" if depends else f"({a}, {b})"
    facts["loss weights"] = f"codebook half {a}, encoder half {b}, value {c}"
    description.notes += list(_remarks(numbers, a, b, "codebook_gradient" in made.capabilities))
    total = (numbers.codebook or 0.0) + (numbers.encoder or 0.0)
    if not conventions.same(total, numbers.value, u):
        arguments["loss_value"] = f"lambda wanted: {c}"


def _remarks(numbers: conventions.Routing, at_codebook: str, at_encoder: str, trained: bool) -> Iterator[str]:
    """Yield what a reader should know of weights that are declared as they were measured, and so break no law."""
    halves = f"codebook half {at_codebook}, encoder half {at_encoder}"
    at_x, at_codes = numbers.encoder or 0.0, numbers.codebook or 0.0
    by_argument = "beta" in at_codebook and "beta" not in at_encoder
    if by_argument or ("beta" not in at_encoder and 0 < at_codes < at_x):
        yield (
            f"β stands on the codebook half ({halves}), the reverse of the common convention: van den Oord et al. "
            "put it on the encoder half, old checkpoints of taming-transformers and what follows them the other way. "
            "It is declared below as measured, and breaks no law. If it is not meant, exchange the two loss_weights"
        )
    if not at_x:
        yield (
            f"the loss does not train the encoder ({halves}), and nothing holds x to its code. It is declared below "
            "as measured, and breaks no law. If it is not meant, declare the loss_weights that are"
        )
    if not at_codes and trained:
        yield (
            f"the codebook is a parameter and the loss does not train it ({halves}). It is declared below as "
            "measured, and breaks no law. If it is not meant, declare the loss_weights that are"
        )


def _conventions(description: Description, made: Implementation) -> None:
    facts, arguments = description.facts, description.arguments
    case = conventions.probe(made)
    if "indices" in made.capabilities:
        name = conventions.estimator(made, case)
        facts["estimator in training"] = name
        facts["estimator in eval"] = conventions.estimator(made, case, training=False)
        if facts["estimator in eval"] != name and facts["estimator in eval"] in ESTIMATORS:
            arguments["eval_estimator"] = repr(facts["estimator in eval"])
        if name in ("rotation", "none"):
            arguments["estimator"] = repr(name)
        elif name != "straight_through":
            description.unknown.append(f"the estimator: its Jacobian is {name}, and no law knows that")
        if "codebook_gradient" in made.capabilities and name != "none":
            _synchronous(description, conventions.sync_nu(made, case))
        metric = conventions.metric(made, case)
        facts["metric"] = metric or "neither Euclidean nor cosine"
        if metric == "cosine":
            arguments["metric"] = "'cosine'"
        elif metric is None:
            description.unknown.append("the metric: the chosen codes are the nearest by neither distance nor angle")
    training, evaluating = conventions.in_eval(made, case)
    alike, zero = conventions.eval_as_training(made, case), conventions.no_loss(training, evaluating)
    facts["eval"] = "another output or choice than in training"
    if alike:
        facts["eval"] = f"loss {evaluating.loss} (training: {training.loss})" if zero else "as training"
    if not alike:
        arguments["eval_as_training"] = "False"
    if zero:
        arguments["eval_loss"] = "'zero'"
    changed = conventions.changed_state(made, case)
    facts["state changed by a forward"] = ", ".join(changed) or "none"
    facts["state changed in eval"] = ", ".join(conventions.changed_state(made, case, training=False)) or "none"
    if changed:
        arguments["state_changes"] = repr(changed)


def _synchronous(description: Description, nu: float | None) -> None:
    """Say what of the output's gradient reaches the codes."""
    if nu is None:
        description.unknown.append("what the output's gradient does at the codes: no multiple of it arrives there")
    elif nu:
        description.arguments["sync_nu"] = f"{nu:.4g}"
        description.facts["output's gradient at the codes"] = f"{nu:.4g} times"
        description.notes.append(
            f"the output's gradient reaches the chosen codes, {nu:.4g} times: the synchronous update of Huh et al., or "
            "a stop-gradient that is missing. It is declared below as measured, and breaks no law. If it is not "
            "meant, take sync_nu out"
        )


def _decode(description: Description) -> None:
    """Try every method that is named like a decode."""
    for name in DECODES:
        description.arguments["decode"] = repr(name)
        try:
            made = description.implementation()
            case = conventions.probe(made)
            indices = np.arange(conventions.TOKENS) % len(case.codes)
            if conventions.same(
                made.build(case.reference).decode(indices), case.codes[indices], made.precision.unit_roundoff
            ):
                description.facts["decode"] = name
                return
        except Exception:  # it may be named so and be something else
            continue
    del description.arguments["decode"]
    description.unknown.append("a decode from indices to outputs")


def _dtypes(description: Description) -> None:
    """Say in which dtypes it works, and what it returns there."""
    said = []
    for dtype in ("float64", "float16", "bfloat16"):
        try:
            implementation = description.implementation(dtype)
            case = conventions.probe(implementation)
            form = implementation.build(case.reference)(case.x).form
            said.append(f"{dtype} → {form.output_dtype if form else 'unknown'}")
        except Exception as error:  # whatever a module does with a dtype that it does not take
            said.append(f"{dtype} raises {type(error).__name__}")
    description.facts["dtypes"] = ", ".join(said)
