"""How to make a module whose class is all that is given: which argument of its constructor is D, which K, which β."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn

from vq_reference.testing.adapters.declare.declared_module import Asked

# as the field calls them; the names of one row are alternatives
WIDTH = (
    *("dim", "dimension", "input_dim", "embedding_dim", "embed_dim", "vq_embed_dim", "e_dim", "code_dim"),
    *("codebook_dim", "latent_dim", "token_dim", "feature_dim", "hidden_dim", "channels", "in_channels", "width"),
    *("D", "d"),
)
SIZE = (
    *("codebook_size", "num_embeddings", "n_embeddings", "num_embed", "n_embed", "n_e", "num_codes", "n_codes"),
    *("vocab_size", "num_tokens", "codebook_len", "bins", "size", "K", "k"),
)
# of those in WIDTH, what the width of the codes between two projections is called
NARROW = ("codebook_dim", "code_dim", "latent_dim", "embed_dim", "e_dim")
# how many quantizers follow one another: one is described
LAYERS = ("num_quantizers", "n_quantizers", "n_codebooks", "num_codebooks", "n_q")
# may be something else, and is that where it has a default
ONE = (*LAYERS, "layers", "n_layers", "num_layers", "depth", "heads")
BETA = (
    *("input_to_quantize_commit_loss_weight", "beta", "commitment_cost", "commitment_beta", "commitment_weight"),
    *("commitment", "commit_weight", "commit_loss_weight", "commitment_loss_weight"),
)


class CannotDescribe(Exception):
    """What stood in the way, and what to say in an adapter of one's own instead."""


@dataclass(frozen=True)
class Constructor:
    """A class with its arguments, as source text in terms of `wanted`; β is an argument of it, or None."""

    module_class: type[nn.Module]
    arguments: dict[str, str]
    beta: str | None

    @classmethod
    def of(cls, module_class: type[nn.Module]) -> Constructor:
        """Read a constructor's signature. Raises CannotDescribe that names the argument it cannot guess."""
        arguments: dict[str, str] = {}
        known = inspect.signature(module_class).parameters
        required = {
            n for n, p in known.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }
        for what, names in (("wanted.dim", WIDTH), ("wanted.codebook_size", SIZE)):
            given = [name for name in known if name in names]
            asked = [name for name in given if name in required] or given[:1]
            if not asked:
                raise CannotDescribe(
                    f"{module_class.__name__}{inspect.signature(module_class)} has no argument that is known as "
                    f"{'the width D' if names is WIDTH else 'the number of codes K'}: describe an instance, or write "
                    "torch_quantizer(lambda wanted: …, …) with wanted.dim and wanted.codebook_size"
                )
            arguments.update(dict.fromkeys(asked, what))
            # a narrow space of a fixed width by default: codes of another width have no place in it
            fixed = [name for name in given if name in NARROW and isinstance(known[name].default, int)]
            arguments.update(dict.fromkeys(fixed, what))
        widths = [name for name, what in arguments.items() if what == "wanted.dim"]
        narrow = [name for name in widths if name in NARROW]
        if len(narrow) < len(widths):
            arguments.update(dict.fromkeys(narrow, "wanted.codebook_dim"))
        many = {n for n in LAYERS if n in known and type(known[n].default) is int and known[n].default > 1}
        arguments.update({n: "1" for n in known if n in many or (n in ONE and n in required)})
        if "kmeans_init" in known:
            arguments["kmeans_init"] = "False"  # else the first batch decides the codes
        beta = next((name for name in BETA if name in known), None)
        if beta:
            arguments[beta] = "wanted.beta"
        left = sorted(required - set(arguments))
        if left:
            raise CannotDescribe(
                f"{module_class.__name__} needs {', '.join(left)}, which is not known: describe an instance, or write "
                "torch_quantizer(lambda wanted: …, …)"
            )
        return cls(module_class, arguments, beta)

    def source(self) -> str:
        """Return `make` as text."""
        given = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"lambda wanted: {self.module_class.__name__}({given})"

    def require_any_size(self) -> None:
        """Raise CannotDescribe where no codes follow the wanted D and K, and an argument of a fixed size may be why."""
        for dim, codebook_size in ((4, 5), (6, 7)):
            module = self.make(Asked(dim, codebook_size, "straight_through", 0.25, 1.0, codebook_dim=dim))
            shapes = [sorted(t.shape[-2:]) for t in [*module.parameters(), *module.buffers()] if t.ndim > 1]
            known = inspect.signature(self.module_class).parameters
            fixed = [name for name, p in known.items() if name not in self.arguments and type(p.default) is int]
            if fixed and [dim, codebook_size] not in shapes:
                raise CannotDescribe(
                    f"{self.source()} makes no codes of (K, D) = {codebook_size, dim}: perhaps one of "
                    f"{', '.join(fixed)} is to be wanted.dim. Write torch_quantizer(lambda wanted: …, …) with it, or "
                    "describe an instance"
                )

    def make(self, wanted: Any) -> nn.Module:
        """Return a module of the wanted sizes. Raises CannotDescribe where its constructor takes them not."""
        given = {name: eval(value, {"wanted": wanted}) for name, value in self.arguments.items()}
        try:
            return self.module_class(**given)
        except Exception as error:
            raise CannotDescribe(
                f"{self.source()} raises {type(error).__name__}: {error}. Describe an instance, or write "
                "torch_quantizer(lambda wanted: …, …) yourself"
            ) from error
