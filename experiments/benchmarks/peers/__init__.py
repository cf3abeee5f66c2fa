"""The contenders: one file a library, each used as its own users would at their best.

A peer's file says its `PACKAGES`, whose versions are reported, and the `CELLS` it has, each with the cell of rnnjax
whose loss and gradient it must have. Its functions take a `Case` and return a `Contender`: the same layer with the same
weights, and the ways to run it. They import their library themselves, so that a process imports only what it times.
"""

import importlib
import importlib.metadata
from typing import NamedTuple

from benchmarks.case import Case, Contender


class Peer(NamedTuple):
    """Where a contender is made."""

    process: str  # the kind of worker process that it runs in
    file: str  # of this package
    function: str = "layer"

    def module(self):
        """The peer's file, imported."""
        return importlib.import_module(f"benchmarks.peers.{self.file}")


LAYERS = {
    "rnnjax": Peer("jax", "ours"),
    "rnnjax sharded": Peer("jax-sharded", "ours"),
    "flax.nnx": Peer("jax", "flax_nnx"),
    "flax.linen": Peer("jax", "flax_linen"),
    "haiku": Peer("jax", "haiku"),
    "equinox": Peer("jax", "equinox"),
    "keras": Peer("jax", "keras"),
    "jax cudnn": Peer("jax", "jax_cudnn"),
    "torch": Peer("torch", "torch"),
}
DIAGNOSTICS = {
    "rnnjax": Peer("jax", "ours"),
    "rnnjax sharded": Peer("jax-sharded", "ours"),
    "rnnjax norms": Peer("jax", "ours", "norms"),
    "rnnjax norms sharded": Peer("jax-sharded", "ours", "norms"),
    "torch": Peer("torch", "torch"),
    "torch norms": Peer("torch", "torch", "norms"),
}
SWEEP = {"rnnjax": Peer("jax-sharded", "ours", "sweep"), "torch": Peer("torch-1", "torch", "sweep")}
TRANSFORMER = {
    "rnnjax": Peer("jax", "transformers", "ours"),
    "flax.nnx": Peer("jax", "transformers", "flax_nnx"),
}
SUITES = {"layers": LAYERS, "diagnostics": DIAGNOSTICS, "sweep": SWEEP, "transformer": TRANSFORMER}


def build(suite: str, name: str, case: Case, **options) -> Contender:
    """The contender of a suite, ready to run.

    Raises NotImplementedError where the library has no such cell, ImportError where it is not installed.
    """
    peer = SUITES[suite][name]
    if case.cell not in peer.module().CELLS:
        raise NotImplementedError(f"{name} has no {case.cell}")
    return getattr(peer.module(), peer.function)(case, **options)


def same_as(suite: str, name: str, cell: str) -> str:
    """The cell of rnnjax that a contender's must equal, which is a variant where the library has another form."""
    return SUITES[suite][name].module().CELLS[cell]


def versions() -> dict[str, str]:
    """Of every peer's packages, and what they stand on."""
    packages = ["rnnjax", "jax", "jaxlib"]
    packages += [package for peer in LAYERS.values() for package in peer.module().PACKAGES]
    return {package: _version(package) for package in dict.fromkeys([*packages, "numpy"])}


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
