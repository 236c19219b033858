"""What goes wrong in residual stacks."""

from vq_reference.testing.mutants.mutant import Mutant

STACK = "vq_reference.nn.residual"

MUTANTS = (
    Mutant(
        "last-code-alone",
        STACK,
        replace="quantized = quantized + q\n",
        by="quantized = q\n",
        why="the output is the code of the last layer",
        killed_by="stack.sum",
    ),
    Mutant(
        "every-layer-sees-the-input",
        STACK,
        replace="layer(residual, mask=valid)",
        by="layer(tokens, mask=valid)",
        why="layers quantize the input and not what is left of it",
        killed_by="stack.nearest",
    ),
    Mutant(
        "later-losses-weigh-less",
        STACK,
        replace="losses.append(loss)",
        by="losses.append(loss / len(indices))",
        why="the loss of layer i is divided by i + 1",
        killed_by="stack.losses",
    ),
    Mutant(
        "an-estimator-for-each-layer",
        STACK,
        replace="ESTIMATORS[self.estimator](tokens, quantized)",
        by="quantized + len(self.layers) * (tokens - tokens.detach())",
        why="every layer passes the whole gradient on: L times I",
        killed_by="stack.gain",
    ),
    Mutant(
        "residual-with-the-codes-gradient",
        STACK,
        replace="q = output.detach()",
        by="q = output",
        why="the residual subtracts its own straight-through copy: only the first loss reaches the input",
        killed_by="stack.flow",
    ),
    Mutant(
        "later-losses-train-earlier-codes",
        STACK,
        replace="residual = residual - q\n",
        by="residual = residual - layer.decode(chosen).to(q.dtype)\n",
        why="the code is not stopped in the residual: the losses of later layers pull the codes of earlier ones",
        killed_by="stack.codes",
    ),
    Mutant(
        "decodes-layers-backwards",
        STACK,
        replace="zip(self.layers, indices.unbind(axis), strict=True)",
        by="zip(self.layers, indices.unbind(axis)[::-1], strict=True)",
        why="indices are looked up in the codebooks of other layers",
        killed_by="stack.decode",
    ),
    Mutant(
        "eval-leaves-out-a-layer",
        STACK,
        replace="            return count\n",
        by="            return count if self.training else max(1, count - 1)\n",
        why="eval mode stops one layer early",
        killed_by="stack.eval",
    ),
    Mutant(
        "dropped-layers-have-no-indices",
        STACK,
        replace="for _ in range(kept, len(self.layers)):",
        by="for _ in ():",
        why="indices and losses of dropped layers are left out, and shapes change from call to call",
        killed_by="stack.dropout",
    ),
    Mutant(
        "dropped-layers-have-the-first-code",
        STACK,
        replace="torch.full_like(indices[0], -1)",
        by="torch.zeros_like(indices[0])",
        why="a dropped layer reports code 0, which was not added",
        killed_by="stack.dropout",
    ),
)
