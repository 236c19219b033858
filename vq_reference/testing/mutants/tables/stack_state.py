"""What goes wrong with the state of residual stacks, though each of their layers is right."""

from vq_reference.testing.laws.verdict import Verdict
from vq_reference.testing.mutants.mutant import Mutant

STACK = "vq_reference.nn.residual"
LAYERS = "self.layers = nn.ModuleList(members)"
EACH = "output, chosen, loss = layer(residual, mask=valid)"

MUTANTS = (
    Mutant(
        "layers-in-a-plain-list",
        STACK,
        replace=LAYERS,
        by="self.layers = members",
        why="no state_dict holds the layers, and no .to() and no .eval() reaches them",
        killed_by="state.loaded",
    ),
    Mutant(
        "last-layer-not-saved",
        STACK,
        replace=LAYERS,
        by="self.layers = nn.ModuleList(members); members[-1].state_dict = lambda *args, **kept: {}",
        why="the state_dict of the stack leaves out its last layer",
        killed_by="state.loaded",
        verdict=Verdict.CRASHED,
    ),
    Mutant(
        "table-of-all-codes-kept",
        STACK,
        replace="q = output.detach()\n",
        by="""q = output.detach()
            if not self.training:
                q = self.__dict__.setdefault(f"codes_of_{len(indices)}", layer.codes.detach().clone())[0][chosen]
""",
        why="eval mode looks codes up in tables that it makes once: a state loaded later is not looked at",
        killed_by="state.loaded_over",
    ),
    Mutant(
        "layers-in-a-generator",
        STACK,
        replace=LAYERS,
        by="self.layers = nn.ModuleList(members); self.in_order = (layer for layer in members)",
        why="an attribute that can be neither copied nor pickled",
        killed_by="state.copied",
        verdict=Verdict.CRASHED,
    ),
    Mutant(
        "layers-bound-to-the-original",
        STACK,
        replace=EACH,
        by="""bound = (lambda its: lambda *given, **named: its(*given, **named))(layer)
            output, chosen, loss = self.__dict__.setdefault(f"layer_{len(indices)}", bound)(residual, mask=valid)""",
        why="closures over the layers, kept from the first call: a deep copy of the stack trains its original",
        killed_by="state.copied_apart",
    ),
    Mutant(
        "later-layers-stay-in-training",
        STACK,
        replace=EACH,
        by="output, chosen, loss = layer.train(self.training or bool(indices))(residual, mask=valid)",
        why="from the second layer on, codes follow validation data",
        killed_by="state.eval",
    ),
    Mutant(
        "gradients-switched-on",
        STACK,
        replace=EACH,
        by="""with torch.enable_grad():
                output, chosen, loss = layer(residual, mask=valid)""",
        why="the layers never see that gradients are off, and take a step under no_grad",
        killed_by="state.no_grad",
    ),
    Mutant(
        "one-layer-more-at-each-call",
        STACK,
        replace="            return count\n",
        by="""            self.layers_in_use = min(getattr(self, "layers_in_use", 0) + 1, count)
            return self.layers_in_use
""",
        why="a warm-up that adds a layer at each call counts calls in eval mode",
        killed_by="state.history",
    ),
    Mutant(
        "first-layer-alone-follows",
        STACK,
        replace=EACH,
        by="output, chosen, loss = layer.train(self.training and not indices)(residual, mask=valid)",
        why="from the second layer on, codes stay where they were placed",
        killed_by="ema.statistics",
    ),
)
