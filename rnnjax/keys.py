"""Keys folded apart by purpose, so that what one part draws never lies in the stream of another."""

import enum

import jax

from rnnjax.types import Array


class Purpose(enum.IntEnum):
    """What draws. The numbers are crc32 of the names: far from 0, 1, 2 ..., which `split(key(seed))`, the initial
    weights and the data of a training run, is made of (JAX folds a key's number i in for its i-th split)."""

    EVALUATION = 0x18BCB84A  # validation sequences while training, the same for every seed
    TESTING = 0xD7B6A41C  # sequences that a trained model is evaluated on
    DIAGNOSIS = 0x3A1311D2  # validation sequences that diagnostics measure on
    PROBES = 0x309A9F34  # random directions and signs of diagnostics
    WRITING = 0xD2DD0381  # the characters of a text that a model writes


def purpose_key(purpose: Purpose, seed: int | Array = 0) -> Array:
    """The key `[]` of this purpose and seed."""
    return jax.random.fold_in(jax.random.key(seed), int(purpose))
