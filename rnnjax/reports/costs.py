"""What a layer costs: parameters, floats of state and FLOPs a step, and what writing a text of some length takes."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rnnjax.diagnostics.costs import product_flops
from rnnjax.nn import SequenceModel, Stack
from rnnjax.sweeps.timing import read_clock
from rnnjax.training.config import Config, make_cell, make_parts
from rnnjax.types import Array, Cell

SYMBOLS = 64  # of the texts that are written
LEAST_SECONDS = 0.05  # of a reading


class Costs(NamedTuple):
    """What one layer of H units that reads H numbers a step is, and does, for one sequence."""

    parameters: int
    state: int  # numbers in its carry; a complex one is two, integers do not count
    flops: int  # of the matrix products in a step forwards, see `product_flops`


class Writing(NamedTuple):
    """What it takes to write a text of some length, one symbol after the other."""

    seconds: float  # in all, the median of a few readings
    state_bytes: int  # of the carry
    working_bytes: int | None  # of the compiled program, see `working_bytes`


def layer_costs(config: Config, past: int) -> Costs:
    """The costs of one layer of the config's cell, block and hidden size, for one sequence, after `past` steps.

    Of a recurrent cell state and FLOPs do not depend on `past`; of one that attends they grow with it.

    Raises ValueError for a cell, an option or a size that cannot be.
    """
    cell, block, width = make_cell(config), make_parts(config), config.hidden_size
    x = jax.ShapeDtypeStruct((width,), jnp.float32)
    method = "auto" if block is None else "scan"  # whose products are those of the cell's own functions
    layer = nnx.eval_shape(lambda: Stack([cell], width, block=block, method=method, rngs=nnx.Rngs(0)))
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

    def carry(params, rest):
        return nnx.merge(graphdef, params, rest).initial_carry((), steps=past)

    def step(params, rest, carry, x):
        return nnx.merge(graphdef, params, rest)(x[None], initial_carry=carry)

    shapes = jax.eval_shape(carry, params, rest)
    # Of a cell as its own functions say: the engine may write down products that it does not use.
    if isinstance(cell, Cell) and block is None:
        flops = _flops_of_cell(cell, x)
    else:
        flops = product_flops(step, params, rest, shapes, x)
    return Costs(
        sum(leaf.size for leaf in jax.tree.leaves(params)),
        sum(_numbers(leaf) for leaf in jax.tree.leaves(shapes)),
        flops,
    )


def time_writing(config: Config, lengths: Sequence[int]) -> list[Writing]:
    """What writing takes for each of the lengths: a model of one layer that reads what it wrote, `SYMBOLS` symbols.

    A model that attends has room for the whole text, and reads all of that room at each step.
    """
    model = SequenceModel([make_cell(config)], input_size=SYMBOLS, output_size=SYMBOLS, tokens=True, readout="every",
                          embedding_size=config.hidden_size, block=make_parts(config), rngs=nnx.Rngs(0))  # fmt: skip
    model.eval()
    graphdef, state = nnx.split(model)

    @jax.jit
    def write(state, carry, length):
        model = nnx.merge(graphdef, state)

        def step(_, both):
            carry, token = both
            carry, logits = model(token[None], initial_carry=carry, return_carry=True)
            return carry, jnp.argmax(logits[-1], axis=-1).astype(token.dtype)

        return jax.lax.fori_loop(0, length, step, (carry, jnp.zeros(1, jnp.int32)))

    programs: dict[str, Any] = {}  # one for each size of carry
    found = []
    for length in lengths:
        arguments = state, model.initial_carry((1,), steps=length), jnp.int32(length)
        shapes = str(jax.eval_shape(lambda carry: carry, arguments[1]))
        if shapes not in programs:
            programs[shapes] = write.lower(*arguments).compile()
        found.append(_time_one(programs[shapes], arguments))
    return found


def with_size(config: Config, size: int) -> Config:
    """The config with another hidden size."""
    return dataclasses.replace(config, hidden_size=size)


def _time_one(program: Any, arguments: tuple) -> Writing:
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(arguments[1]))
    return Writing(median_seconds(program, *arguments), size, working_bytes(program))


def median_seconds(program: Any, *arguments: Any) -> float:
    """Seconds a call of a compiled program: the median of a few readings, after a call that is not counted."""
    run = lambda: jax.block_until_ready(program(*arguments))  # noqa: E731
    run()
    return statistics.median(read_clock(run, LEAST_SECONDS))


def working_bytes(program: Any) -> int | None:
    """What a compiled program takes beside arguments and results; None where it does not say."""
    return getattr(program.memory_analysis(), "temp_size_in_bytes", None)


def _flops_of_cell(cell: Cell, x: jax.ShapeDtypeStruct) -> int:
    def step(weights, x):
        z = cell.project(weights, x)
        return cell.output(weights, cell.step(weights, cell.initial_carry(weights, ()), z), z)

    return product_flops(step, jax.eval_shape(lambda: cell.weights(cell.init(jax.random.key(0), x.size))), x)


def _numbers(leaf: Array) -> int:
    return leaf.size * (2 if jnp.iscomplexobj(leaf) else jnp.issubdtype(leaf.dtype, jnp.floating))
