"""What `jax.shard_map` asks of a loop: that its carry, and a gradient, vary over the mesh as what they belong to."""

from typing import Any

import jax
from jax import lax


def all_varying(*trees: Any) -> Any:
    """All trees, varying over the mesh axes that any of them varies over.

    Inside `jax.shard_map` a loop's carry must begin as it ends, and a gradient be as its argument is. Elsewhere this
    does nothing.
    """

    def axes_of(a):
        found = getattr(jax.typeof(a), "manual_axis_type", None)  # a young name of JAX's
        return frozenset() if found is None else found.varying

    axes = frozenset().union(*map(axes_of, jax.tree.leaves(trees)))

    def vary(a):
        missing = tuple(axes - axes_of(a))
        return lax.pcast(a, missing, to="varying") if missing else a

    return jax.tree.map(vary, trees)
