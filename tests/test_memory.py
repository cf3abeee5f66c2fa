"""The planner against what XLA says that the compiled gradient takes."""

import jax
import jax.numpy as jnp
import pytest

from rnnjax.cells import CELLS
from rnnjax.engine import memory
from rnnjax.engine.memory import plan_segments
from rnnjax.engine.unroll import unroll


def compiled_bytes(cell, T, B, D, segments):
    params = cell.init(jax.random.key(0), D)

    def loss(params, xs):
        return jnp.sum(unroll(cell, params, xs, outputs="last", segments=segments)[1] ** 2)

    xs = jax.ShapeDtypeStruct((T, B, D), jnp.float32)
    stats = jax.jit(jax.grad(loss)).lower(params, xs).compile().memory_analysis()
    return stats.temp_size_in_bytes + T * B * D * 4


@pytest.mark.parametrize(
    "name, segments",
    [
        pytest.param("lstm", 1, marks=pytest.mark.slow),
        ("lstm", 20),
        ("gru", 1),
        ("gru_cho", 1),
        pytest.param("rnn", 10, marks=pytest.mark.slow),
        ("gla", 1),
    ],
)
def test_predicted_peak_is_what_the_compiler_reserves(name, segments):
    cell, T, B, D = CELLS[name](32), 400, 4, 3
    found = compiled_bytes(cell, T, B, D, segments)
    budget = 1e12
    if segments > 1:  # a budget that just makes that many necessary
        low, high = 1.0, 1e9
        for _ in range(60):
            budget = (low + high) / 2
            try:
                low, high = (
                    (low, budget) if plan_segments(cell, T, (B,), D, budget).segments <= segments else (budget, high)
                )
            except ValueError:
                low = budget
        budget = high
    plan = plan_segments(cell, T, (B,), D, budget)
    assert plan.segments == segments
    # What the compiler saves of a free-form step is its own choice: there the plan is an upper bound.
    assert 0.6 < plan.peak_bytes / found < (1.7 if cell.form else 3.0)


def test_a_smaller_budget_takes_more_segments_until_none_fits():
    cell = CELLS["lstm"](64)
    plans = [plan_segments(cell, 10_000, (1,), 2, budget) for budget in (1e9, 1e7, 2e6)]
    assert plans[0].segments == 1 < plans[1].segments < plans[2].segments
    assert all(plan.peak_bytes <= budget for plan, budget in zip(plans, (1e9, 1e7, 2e6), strict=True))
    with pytest.raises(ValueError, match=r"budget_bytes is 1e\+04"):
        plan_segments(cell, 10_000, (1,), 2, 1e4)


def test_the_memory_asked_for_is_that_of_a_device_of_this_process(monkeypatch):
    """JAX lists the devices of all processes, and only its own tell a process what they have."""

    class Device:
        def __init__(self, own):
            self.own = own

        def memory_stats(self):
            if not self.own:
                raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: MemoryStats is only supported for addressable")
            return {"bytes_limit": 12345}

    monkeypatch.setattr(jax, "devices", lambda *args: [Device(False), Device(True)])
    monkeypatch.setattr(jax, "local_devices", lambda *args: [Device(True)])
    assert memory.device_bytes() == 12345


def test_auto_cuts_time_where_the_gradient_would_not_fit(monkeypatch):
    cell = CELLS["lstm"](64)
    xs, params = jax.ShapeDtypeStruct((5_000, 4), jnp.float32), cell.init(jax.random.key(0), 4)

    def scans(bytes_there):  # how many loops the gradient has: one a pass, or loops in loops
        monkeypatch.setattr(memory, "device_bytes", lambda: bytes_there)
        loss = jax.grad(lambda p, xs: jnp.sum(unroll(cell, p, xs, segments="auto", outputs="last")[1]))
        return str(jax.make_jaxpr(loss)(params, xs)).count("scan[")

    assert memory.device_bytes() > 1e8
    assert scans(1e12) == 2 < scans(4e6)
    with pytest.raises(ValueError, match=r"budget_bytes is 2.5e\+03"):
        scans(1e4)


@pytest.mark.slow
def test_a_hundred_thousand_steps_in_segments_have_the_gradient_of_a_plain_scan():
    cell, T = CELLS["lstm"](64), 100_000
    params = cell.init(jax.random.key(0), 2)
    xs = jax.random.normal(jax.random.key(1), (T, 1, 2))

    def gradient(**options):
        return jax.jit(jax.grad(lambda p: jnp.sum(unroll(cell, p, xs, outputs="last", **options)[1])))(params)

    segments = plan_segments(cell, T, (1,), 2, 30e6).segments
    assert segments > 1
    for found, plain in zip(
        jax.tree.leaves(gradient(segments=segments)), jax.tree.leaves(gradient(method="scan")), strict=True
    ):
        assert jnp.max(jnp.abs(found - plain)) < 1e-4 * jnp.max(jnp.abs(plain))
