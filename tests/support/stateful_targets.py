"""vector-quantize-pytorch in modes that last, of whichever release is importable: targets whose scripts are run.

Only the targets themselves import the suite, and only when they are called: a script imports what is above them.
"""

import torch
from vector_quantize_pytorch import ResidualVQ, VectorQuantize


def called(module, x, mask, lengths):
    """Call a layer of moving averages."""
    return module(x, **({} if mask is None else {"mask": mask}))


def stack_called(module, x, mask, lengths):
    """Call a stack, whose codes stay as they are: the average moves in training only."""
    for layer in module.layers:
        layer._codebook.eval()
    output, indices, losses = module(x)
    return output, indices, losses.reshape(-1)


def codes(module):
    """Return the codes, (1, K, D)."""
    return module._codebook.embed


def statistics(module):
    """Return what the codes are made of."""
    book = module._codebook
    return list(zip(book.cluster_size, book.embed_avg, strict=True))


def placed(layer, wanted, count=None):
    """Set the codes, the sums that they are made of, and their counts unless they stay as they are constructed."""
    with torch.no_grad():
        given = torch.as_tensor(wanted).reshape(layer._codebook.embed.shape)
        layer._codebook.embed.copy_(given)
        layer._codebook.embed_avg.copy_(given)
        if count is not None:
            layer._codebook.cluster_size.fill_(count)
    return layer


def described(capabilities, **lasting):
    from vq_reference.testing.adapters.declare.torch_quantizer import versions_of
    from vq_reference.testing.interface.implementation import Implementation
    from vq_reference.testing.interface.precision import PRECISIONS
    from vq_reference.testing.interface.stateful import Lasting

    return Implementation(
        name="vector-quantize-pytorch",
        build=lambda reference: None,
        precision=PRECISIONS["float32"],
        capabilities=frozenset(capabilities),
        versions=versions_of(["vector-quantize-pytorch", "torch"]),
        lasting=Lasting(**{"build": lambda wanted: None, **lasting}),
    )


def averages(count, *capabilities):
    from vq_reference.testing.adapters.torch.stateful_layer import Access, LastingTorch, constructing

    def build(wanted):
        layer, averaging = wanted.layer, wanted.averaging
        _, size, dim = layer.codes.shape
        weight = layer.commitment_weight * layer.beta
        with constructing(wanted):
            made = VectorQuantize(
                dim=dim, codebook_size=size, decay=averaging.decay, eps=averaging.epsilon, commitment_weight=weight
            )
        made = placed(made, layer.codes, count) if wanted.placed else made
        return LastingTorch(made, Access(called, codes, statistics=statistics))

    return described({"lasting", "ema", "smoothing", *capabilities}, build=build)


def with_masks():
    return averages(1.0, "mask")


def with_its_own_counts():
    return averages(None)


def stack():
    from vq_reference.testing.adapters.torch.stateful_layer import Access, LastingTorch

    def build_stack(wanted):
        made = wanted.stack
        size, dim = made.codes[0].shape
        weight = made.commitment_weight * made.beta
        module = ResidualVQ(dim=dim, num_quantizers=len(made.codes), codebook_size=size, commitment_weight=weight)
        for layer, each in zip(module.layers, made.codes, strict=True):
            placed(layer, each)
        return LastingTorch(module, Access(stack_called, codes))

    return described({"stack"}, build_stack=build_stack)
