"""Targets that go wrong on purpose; a pytest plugin, so that the child processes of a run know them (PYTEST_PLUGINS).

All are the oracle with one fault. Those that strike during a law do so for layers with a straight-through gradient
alone, so that a law about the rotation shows what is left.
"""

import os
import time
from dataclasses import replace

import numpy as np

from vq_reference.testing.adapters.ready.oracle import OracleLayer, oracle
from vq_reference.testing.run.targets import READY, Ready

MEGABYTE = 2**20


def with_straight_through(name, strike):
    def build(reference):
        if reference.estimator == "straight_through":
            strike()
        return OracleLayer(reference)

    return lambda: replace(oracle(), name=name, build=build)


def raises():
    raise RuntimeError("no gradient on this machine")


def leaves():
    raise SystemExit(0)


def forbids():
    np.seterr(all="raise")


def cannot_be_imported():
    raise ImportError("No module named 'faulty'")


hangs = with_straight_through("faulty.hangs", lambda: time.sleep(3600))
kills = with_straight_through("faulty.kills", lambda: os._exit(7))
raising = with_straight_through("faulty.raises", raises)
prints = with_straight_through("faulty.prints", lambda: print("x" * MEGABYTE))


leaving = with_straight_through("faulty.leaves", leaves)
forbidding = with_straight_through("faulty.forbids", forbids)


def exits():
    os._exit(9)


FAULTY = {
    "faulty.hangs": Ready("faulty_targets:hangs"),
    "faulty.kills": Ready("faulty_targets:kills"),
    "faulty.raises": Ready("faulty_targets:raising"),
    "faulty.prints": Ready("faulty_targets:prints"),
    "faulty.import": Ready("faulty_targets:cannot_be_imported"),
    "faulty.leaves": Ready("faulty_targets:leaving"),
    "faulty.forbids": Ready("faulty_targets:forbidding"),
    "faulty.exits": Ready("faulty_targets:exits"),
}
READY.update(FAULTY)
