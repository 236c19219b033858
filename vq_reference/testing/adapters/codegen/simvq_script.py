"""The lines of plain torch that build and call a SimVQ, for a script that stands alone in somebody's bug report."""

from __future__ import annotations

from dataclasses import replace

from vq_reference.arguments import Array
from vq_reference.simvq import SimVQ
from vq_reference.testing.adapters.codegen.module_script import Script, called, decoding
from vq_reference.testing.adapters.codegen.source import NoScript, exactly
from vq_reference.testing.adapters.torch.layer import Arranged, Layouts
from vq_reference.testing.interface.implementation import Call
from vq_reference.testing.interface.torch_source import Written


def require_plain(how: Call) -> None:
    """Raise NoScript for a call that differs from an ordinary one in more than its mode."""
    if replace(how, training=True) != Call():
        raise NoScript("of this adapter, only ordinary calls can be written")


def sim_vq_script(module: str, layouts: Layouts, dtype: str, takes_transform: bool, decode: str) -> Script:
    """Return what writes the script of a class with the constructor of vector-quantize-pytorch's SimVQ.

    module: where the class is imported from. takes_transform: whether its constructor does; where not, the transform
    and the codes are put in place afterwards. decode: its method from indices to codes, "" where it has none.
    `parameters` are by the oracle's names. β is handed in under whichever of its names that release knows, so that one
    script runs on the faulty release and on the one that mended it.
    """
    channel_first = layouts.x.channel_axis > 0

    def script(reference: SimVQ, x: Array, how: Call) -> Written:
        size, width = reference.frozen_codebook.shape
        lines = ["import inspect", "", f"from {module} import SimVQ", "", "layers = []"]
        names = {}
        for i, layer in enumerate(reference.transform):
            leaving, entering = layer.weight.shape
            lines += ["layers.append(torch.nn.ReLU())"] if i else []
            names[f"{i}.weight"] = f"layers[{2 * i}].weight"
            lines += [f"layers.append(torch.nn.Linear({entering}, {leaving}, bias={layer.bias is not None}))"]
            lines += [f"layers[-1].weight.data = {exactly(layer.weight)}.to(torch.{dtype})"]
            if layer.bias is not None:
                names[f"{i}.bias"] = f"layers[{2 * i}].bias"
                lines += [f"layers[-1].bias.data = {exactly(layer.bias)}.to(torch.{dtype})"]
        lines += [
            "transform = layers[0] if len(layers) == 1 else torch.nn.Sequential(*layers)",
            "arguments = dict(",
            f"    dim={reference.transform[-1].weight.shape[0]}, codebook_size={size}, frozen_codebook_dim={width},",
            f"    rotation_trick={reference.estimator == 'rotation'},",
            f"    commitment_weight={reference.commitment_weight!r},",
            f"    input_to_quantize_commit_loss_weight={reference.beta!r},",
            f"    commit_loss_input_to_quantize_weight={reference.beta!r},  # as some releases call it",
            *([] if not channel_first else ["    channel_first=True,", "    accept_image_fmap=True,  # likewise"]),
            "    codebook_transform=transform,",
            ")",
            "known = inspect.signature(SimVQ).parameters",
            f"layer = SimVQ(**{{name: value for name, value in arguments.items() if name in known}}).to(torch.{dtype})",
            f"frozen = {exactly(reference.frozen_codebook)}.to(torch.{dtype})",
        ]
        if takes_transform:
            lines += ["layer.frozen_codebook.data = frozen", "frozen = layer.frozen_codebook"]
        else:
            lines += ["layer.codebook, layer.codebook_to_codes = frozen, transform"]
        lines += [
            "named = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}",
            "seen = [None]",
            "transform.register_forward_hook(lambda module, entering, leaving: seen.append(leaving))",
            "def at_codes(start):",
            "    return gradient(start, codes)",
            f"parameters = {{{', '.join(f'{name!r}: {where}' for name, where in names.items())}}}",
        ]
        # a release without an argument for the weight
        loss = "returned[2]" if takes_transform else f"(returned[2] * {reference.commitment_weight!r})"
        mode = ["layer.train()" if how.training else "layer.eval()"]
        arranged = Arranged.of(layouts, x.shape, how.leading)
        call, read = called(arranged, how, "layer(entering)", ("returned[0]", "returned[1]", loss))
        return Written(
            "\n".join(lines),
            "\n".join([*mode, *call]),
            "\n".join([*read, "codes = seen[-1]"]),
            decoding(f"layer.{decode}(entering)", layouts, x.shape[1]) if decode else None,
        )

    return script
