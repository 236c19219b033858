"""Processes that train one codebook: the same state on every rank, and that of one process with the whole batch."""

import faulthandler
import os
import sys
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from vq_reference.nn import ResidualQuantizer, VectorQuantize

DIM, COUNT, STEPS, RANKS = 4, 12, 4, 2
# until both have imported torch, which a busy machine may read from a disk; and from then on
START_S, BOUND_S = 300, 60
MODULES = {
    "ema": lambda: VectorQuantize(DIM, 6, decay=0.5),
    "from data": lambda: VectorQuantize(DIM, 6, decay=0.5, initialise_from_data=True, replace_below=1.0),
    "heads": lambda: VectorQuantize(DIM, 6, heads=2, separate_codebooks=True, initialise_from_data=True),
    "residual": lambda: ResidualQuantizer([VectorQuantize(DIM, 6, decay=0.5) for _ in range(3)], layer_dropout=True),
}

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo backend"
)


def batches():
    """Yield x and mask of each step, for all ranks, in numbers so short that sums of them do not round.

    The first step has tokens on the last rank only, and another has none at all.
    """
    generator = torch.Generator().manual_seed(3)
    for step in range(STEPS):
        x = torch.randint(-64, 65, (RANKS, COUNT, DIM), generator=generator) / 32
        mask = torch.rand(RANKS, COUNT, generator=generator) > 0.3
        mask[0] &= step != 0
        mask &= step != 2
        yield x, mask


def build(name, seed):
    torch.manual_seed(7)  # the parameters agree, as after a broadcast by the data-parallel wrapper
    module = MODULES[name]()
    for layer in getattr(module, "layers", [module]):
        for codebook in layer.codebooks:
            codebook.place((codebook.codes * 8).round() / 8)
    torch.manual_seed(seed)
    return module


def states(name, seed, select):
    """Return the state after every step. select: x of all ranks → x of this process."""
    module, seen = build(name, seed), []
    for x, mask in batches():
        module(select(x).requires_grad_(), mask=select(mask))[2].sum().backward()
        seen.append({key: value.clone() for key, value in module.state_dict().items()})
    return seen


def on_rank(rank, folder):
    torch.set_num_threads(1)
    stack = (folder / f"{rank}.stack").open("w", encoding="utf-8")
    faulthandler.dump_traceback_later(BOUND_S, file=stack)
    (folder / f"{rank}.started").touch()
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # a machine's own name need not resolve
    meet = (folder / "meet").as_uri()  # a file, since a free port need not stay free
    dist.init_process_group("gloo", meet, timeout=timedelta(seconds=START_S), rank=rank, world_size=RANKS)
    # each rank has random numbers of its own, as it must for its data; rank 0's decide
    found = {name: states(name, seed=rank, select=lambda x: x[rank]) for name in MODULES}
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()  # so that no rank leaves while the other still reads from it
    # and not destroy_process_group, in which gloo of torch 2.4 was seen to wait for ever
    os._exit(0)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Return what every rank ended with; fail with the place where each stands when that takes longer than BOUND_S."""
    folder = tmp_path_factory.mktemp("ranks")
    workers = torch.multiprocessing.spawn(on_rank, (folder,), nprocs=RANKS, join=False)
    begun, started = time.monotonic(), None
    while not workers.join(timeout=1):
        if started is None and len(list(folder.glob("*.started"))) == RANKS:
            started = time.monotonic()
        if time.monotonic() > (begun + START_S if started is None else started + BOUND_S + 10):
            for process in workers.processes:
                process.kill()
            stacks = "\n\n".join(file.read_text("utf-8") for file in sorted(folder.glob("*.stack")))
            pytest.fail(f"{RANKS} processes do not end{', or not begin' if started is None else ''}. {stacks}")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", MODULES)
def test_every_rank_holds_the_same_state_after_every_step(ranks, name):
    for first, second in zip(ranks[0][name], ranks[1][name], strict=True):
        assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("name", MODULES)
def test_two_ranks_are_one_process_with_the_whole_batch(ranks, name):
    """Bit for bit: sums of short numbers do not round, and codes are drawn from the tokens of all ranks in a row.

    After its first step a stack's residuals are short no more, and only the ranks agree bit for bit.
    """
    together = states(name, seed=0, select=lambda x: x.flatten(0, 1))
    exact = slice(1) if name == "residual" else slice(None)
    for apart, one in zip(ranks[0][name][exact], together[exact], strict=True):
        assert all(torch.equal(value, one[key]) for key, value in apart.items())
