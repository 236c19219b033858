"""The lines of plain torch that build and call a layer, for a script that stands alone in somebody's bug report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.implementation import Call
from vq_reference.testing.adapters.source import NoScript, exactly


def require_plain(how: Call) -> None:
    """Raise NoScript for a call that differs from an ordinary one in more than its mode."""
    if replace(how, training=True) != Call():
        raise NoScript("of this adapter, only ordinary calls can be written")


def sim_vq_script(module: str, takes_transform: bool = True) -> Callable[[SimVQ, Array, Call], str]:
    """Return what writes the script of a class with the constructor of vector-quantize-pytorch's SimVQ.

    module: where the class is imported from. takes_transform: whether its constructor does; where not, the transform
    and the codes are put in place afterwards. The lines take `x`, (N, D), and define `output`, (N, D), `indices`, (N,),
    `loss`, `codes`, (K, D), and `parameters` by the oracle's names. β is handed in under whichever of its names that
    release knows, so that one script runs on the faulty release and on the one that mended it.
    """

    def script(reference: SimVQ, x: Array, how: Call) -> str:
        require_plain(how)
        size, width = reference.frozen_codebook.shape
        lines = ["import inspect", "", f"from {module} import SimVQ", "", "layers = []"]
        names = {}
        for i, layer in enumerate(reference.transform):
            leaving, entering = layer.weight.shape
            lines += ["layers.append(torch.nn.ReLU())"] if i else []
            names[f"{i}.weight"] = f"layers[{2 * i}].weight"
            lines += [f"layers.append(torch.nn.Linear({entering}, {leaving}, bias={layer.bias is not None}))"]
            lines += [f"layers[-1].weight.data = {exactly(layer.weight)}.to(x.dtype)"]
            if layer.bias is not None:
                names[f"{i}.bias"] = f"layers[{2 * i}].bias"
                lines += [f"layers[-1].bias.data = {exactly(layer.bias)}.to(x.dtype)"]
        lines += [
            "transform = layers[0] if len(layers) == 1 else torch.nn.Sequential(*layers)",
            f"frozen = {exactly(reference.frozen_codebook)}.to(x.dtype)",
            "arguments = dict(",
            f"    dim={reference.transform[-1].weight.shape[0]}, codebook_size={size}, frozen_codebook_dim={width},",
            f"    rotation_trick={reference.estimator == 'rotation'},",
            f"    commitment_weight={reference.commitment_weight!r},",
            f"    input_to_quantize_commit_loss_weight={reference.beta!r},",
            f"    commit_loss_input_to_quantize_weight={reference.beta!r},  # as some releases call it",
            "    codebook_transform=transform,",
            ")",
            "known = inspect.signature(SimVQ).parameters",
            "layer = SimVQ(**{name: value for name, value in arguments.items() if name in known}).to(x.dtype)",
        ]
        if takes_transform:
            lines += ["layer.frozen_codebook = frozen"]
        else:
            lines += ["layer.codebook, layer.codebook_to_codes = frozen, transform"]
        lines += [
            "layer.train()" if how.training else "layer.eval()",
            "seen = []",
            "transform.register_forward_hook(lambda module, entering, leaving: seen.append(leaving))",
            "output, indices, loss = layer(x.unsqueeze(0))",
            "output, indices, codes = output.reshape(x.shape), indices.reshape(-1), seen[-1]",
        ]
        if not takes_transform:
            lines += [f"loss = loss * {reference.commitment_weight!r}  # this release has no argument for it"]
        lines += ["def at_codes(start):", "    return gradient(start, codes)"]
        lines += [f"parameters = {{{', '.join(f'{name!r}: {where}' for name, where in names.items())}}}"]
        return "\n".join(lines)

    return script
