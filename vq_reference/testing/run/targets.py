"""From what a command line names to an implementation: a ready adapter, an object of a module, or of a file."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from vq_reference.testing.interface.errors import DeclarationContradicted
from vq_reference.testing.interface.implementation import Implementation
from vq_reference.testing.recording.foreign_code import theirs


@dataclass(frozen=True)
class Ready:
    """An adapter that comes with this package. It is imported when it is asked for: the names alone need no torch.

    place: "module:function" that makes it, with these arguments. distribution: that it is about, if not ours.
    """

    place: str
    distribution: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def function(self) -> Callable[..., Implementation]:
        """Import it."""
        module, _, name = self.place.partition(":")
        return partial(getattr(importlib.import_module(module), name), **self.arguments)


def _ready(place: str, distribution: str | None = None, **arguments: Any) -> Ready:
    return Ready(f"vq_reference.testing.adapters.ready.{place}", distribution, arguments)


UPSTREAM = "vector-quantize-pytorch"
MODES = ("learnable", "synchronous", "cosine", "channel_first", "image", "heads", "separate_heads", "projections")
READY: dict[str, Ready] = {
    "reference.oracle": _ready("oracle:oracle"),
    "reference.SimVQ": _ready("simvq:reference_module"),
    "reference.SimVQ[channel_first]": _ready("simvq:reference_module", channel_first=True),
    "reference.VectorQuantize": _ready("vector_quantize:vector_quantize"),
    "reference.ResidualQuantizer": _ready("vector_quantize:residual_quantizer"),
    "reference.VectorQuantize[compiled]": _ready("vector_quantize:vector_quantize", compiles=True),
    "reference.VectorQuantize[ranks]": _ready("vector_quantize:shared_by_ranks"),
    "lucidrains.SimVQ": _ready("simvq:lucidrains", UPSTREAM),
    "lucidrains.SimVQ[channel_first]": _ready("simvq:lucidrains", UPSTREAM, channel_first=True),
    "lucidrains.VectorQuantize": _ready("lucidrains:vector_quantize", UPSTREAM),
    **{
        f"lucidrains.VectorQuantize[{mode}]": _ready("lucidrains:vector_quantize", UPSTREAM, mode=mode)
        for mode in MODES
    },
    "lucidrains.VectorQuantize[ranks]": _ready("lucidrains:shared_by_ranks", UPSTREAM),
    "lucidrains.ResidualVQ[1]": _ready("lucidrains:residual_vq", UPSTREAM),
    "lucidrains.ResidualVQ[2]": _ready("lucidrains:residual_vq", UPSTREAM, layers=2),
    "lucidrains.ResidualSimVQ[1]": _ready("lucidrains:residual_sim_vq", UPSTREAM),
    "diffusers.VectorQuantizer": _ready("other_packages:diffusers_vq", "diffusers"),
    "diffusers.VectorQuantizer[not_legacy]": _ready("other_packages:diffusers_vq", "diffusers", legacy=False),
    "encodec.VectorQuantization": _ready("other_packages:encodec_vq", "encodec"),
    "encodec.ResidualVectorQuantization": _ready("other_packages:encodec_residual_vq", "encodec"),
    "snac.VectorQuantize": _ready("other_packages:snac_vq", "snac"),
}


class TargetUnavailable(Exception):
    """A target that is not known, or that cannot be imported or made. The message says what to do about it."""


def expand(target: str) -> list[str]:
    """Return the targets that a name stands for: itself, or for a prefix such as "lucidrains" all of that family.

    >>> expand("my_codec.py:quantizer")
    ['my_codec.py:quantizer']
    """
    family = [name for name in READY if name.startswith(f"{target}.")]
    return [target] if target in READY or not family else family


def ready(target: str) -> Ready:
    """Return the adapter of that name. Raises TargetUnavailable that lists the names there are."""
    if target not in READY:
        near = difflib.get_close_matches(target, READY, n=3)
        hint = f": did you mean {' or '.join(near)}?" if near else f": expected one of {', '.join(READY)}"
        raise TargetUnavailable(
            f"target {target!r} is not known{hint} An object of your own is package.module:object or file.py:object"
        )
    return READY[target]


def implementation_of(
    target: str, dtype: str | None = None, device: str | None = None, called: str | None = None
) -> Implementation:
    """Return the implementation that a target names. Executes the code that it names.

    target: a ready adapter's name, `package.module:object` or `path/file.py:object`. The object is an Implementation, a
    function that returns one (with `dtype` and `device` handed on where it takes them), or a module or module class,
    which is then described by measurement. dtype, device: None for the target's own. called: what such an object is
    called in reports; its target, if empty. Raises TargetUnavailable.

    >>> implementation_of("reference.oracle").precision.name
    'float64'
    """
    asked = {key: value for key, value in (("dtype", dtype), ("device", device)) if value is not None}
    if ":" in target:
        called = called or target
        made = replace(described(called, object_of(target, called), asked), name=called)
        return _made_again(made, target, dtype, device, called)
    adapter = ready(target)
    try:
        with theirs():
            made = _called(target, adapter.function(), asked)
        return _made_again(made, target, dtype, device)
    except TargetUnavailable:
        raise
    except Exception as error:
        remedy = f": install {adapter.distribution}, or name a release with --with" if adapter.distribution else ""
        raise _unavailable(target, "imported", error, remedy) from error


def _made_again(made: Implementation, target: str, *given: str | None) -> Implementation:
    """Return the implementation, whose layers that last know how another process makes it."""
    if made.lasting is None or made.lasting.again is not None:
        return made
    return replace(made, lasting=replace(made.lasting, again=partial(implementation_of, target, *given)))


def object_of(target: str, called: str | None = None) -> Any:
    """Return the object that `package.module:object` or `path/file.py:object` names. Raises TargetUnavailable.

    Modules are looked for in the current folder first, as by `python -m`. called: the target as messages name it.
    """
    source, _, path = target.rpartition(":")
    called = called or target
    if not source or not path:
        raise TargetUnavailable(f"target {called!r}: expected package.module:object or path/file.py:object")
    try:
        with warnings.catch_warnings(), theirs():
            warnings.simplefilter("ignore")  # what an import warns of is its author's business
            found: Any = _file(Path(source), called) if source.endswith(".py") else _module(source, called)
    except TargetUnavailable:
        raise
    except Exception as error:
        raise _unavailable(called, "imported", error) from error
    for step in path.split("."):
        if not hasattr(found, step):
            there = [name for name in dir(found) if not name.startswith("__")]
            near = difflib.get_close_matches(step, there, n=3)
            hint = f": did you mean {' or '.join(near)}?" if near else f": there are {', '.join(there) or 'no names'}"
            raise TargetUnavailable(f"target {called}: there is no {step} in {source.rpartition('/')[2]}{hint}")
        found = getattr(found, step)
    return found


def require_file(path: Path, called: str) -> None:
    """Raise TargetUnavailable for a file that is not there. Executes nothing."""
    if not path.is_file():
        there = sorted(str(path.with_name(each.name)) for each in path.parent.glob("*.py"))
        near = difflib.get_close_matches(str(path), there, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "give its path from the current folder"
        raise TargetUnavailable(f"target {called}: there is no file {path}: {hint}")


def _module(name: str, called: str) -> Any:
    """Import a module, the current folder first on the path."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # it is there, and imports another one that is not
        raise TargetUnavailable(
            f"target {called}: there is no module {error.name}: install it, or run this in the folder where it lies"
        ) from error


def _file(path: Path, called: str) -> Any:
    """Import a file under its own name, its folder first on the path as for a script."""
    require_file(path, called)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and pickle look their module up by name
    spec.loader.exec_module(module)
    return module


def described(target: str, found: Any, asked: dict[str, str]) -> Implementation:
    """Return the implementation that an object is, or makes, or is described as. Raises TargetUnavailable.

    target: what the object is called in messages. asked: dtype and device, where they are asked for.
    """
    if isinstance(found, Implementation):
        if asked:
            raise TargetUnavailable(f"target {target} is made already: name a function that takes {', '.join(asked)}")
        return found
    if _is_module(found) or (inspect.isclass(found) and issubclass(found, _modules())):
        from vq_reference.testing.describe.describe import CannotDescribe, describe

        try:
            return describe(found).implementation(**asked)
        except CannotDescribe as error:
            raise TargetUnavailable(f"target {target}: {error}") from error
    if not callable(found):
        raise TargetUnavailable(
            f"target {target} is a {type(found).__name__}: expected an Implementation, a function that returns one, "
            "or a torch module or its class"
        )
    try:
        with theirs():
            made: Any = _called(target, found, asked)
    except TargetUnavailable:
        raise
    except Exception as error:
        raise _unavailable(target, "made", error) from error
    if _is_module(made):
        return described(target, made, asked)
    if not isinstance(made, Implementation):
        raise TargetUnavailable(f"target {target} returned a {type(made).__name__}: expected an Implementation")
    return made


def _called(target: str, make: Callable[..., Any], asked: dict[str, str]) -> Implementation:
    known = inspect.signature(make).parameters
    required = [p.name for p in known.values() if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD,)]
    refused = [key for key in asked if key not in known]
    if required:
        raise TargetUnavailable(f"target {target} needs {', '.join(required)}: expected a function without arguments")
    if refused:
        raise TargetUnavailable(f"target {target} takes no {' and no '.join(refused)}: it has a fixed one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that are imported here
        made: Implementation = make(**asked)
    return made


def _is_module(found: Any) -> bool:
    return isinstance(found, _modules())


def _modules() -> tuple[type, ...]:
    """Return the class of torch modules: none, where nothing has imported torch yet."""
    return (sys.modules["torch"].nn.Module,) if "torch" in sys.modules else ()


def _unavailable(target: str, done: str, error: Exception, remedy: str = "") -> TargetUnavailable:
    """Return the error that says why a target cannot be `done`; of a wrong declaration, what that says itself."""
    if isinstance(error, DeclarationContradicted):
        return TargetUnavailable(f"target {target}: {error}")
    return TargetUnavailable(f"target {target} cannot be {done} ({type(error).__name__}: {error}){remedy}")
