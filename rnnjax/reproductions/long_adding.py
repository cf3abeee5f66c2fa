"""The adding problem over long times, by the cells that were published with it."""

import dataclasses
from typing import Any

from rnnjax.reproductions.table import Place, Table
from rnnjax.training.config import Config

STEPS = {100: 10_000, 200: 10_000, 400: 5000, 1000: 3000}  # by T: as many as two hours allow
ADDING = Config(
    task="adding",
    task_options={"variant": "arjovsky"},
    hidden_size=64,
    batch_size=32,
    optimizer="adam",
    lr=1e-3,
    clip=1.0,
    eval_every=100,
    eval_batch=256,
    gradient_flow=False,
)
PUBLISHED = {
    "irnn": {100: "14,000", 200: "22,000", 400: "30,000", 1000: "not in 60,000"},
    "lem": {1000: "1,800 at T = 2000"},
    "indrnn": {100: "solved", 1000: "solved"},
}


def long_adding() -> Table:
    """Steps until the mean squared error of adding is 0.05, for T = 100 to 1000."""
    places = [
        Place(name, f"T = {T}", config(T), PUBLISHED.get(name, {}).get(T, ""), seeds=3 if T == 100 else 1)
        for name, config in ROWS.items()
        for T in STEPS
    ]
    return Table(
        title="Training steps until the adding problem is solved, a mean squared error of 0.05",
        source="Le et al. (2015), Li et al. (2018), Rusch & Mishra (2021), Rusch et al. (2022), Keller et al. (2024)",
        protocol="Learning rates and time steps are the authors' where they say them; 64 units (irnn 100, indrnn two "
        "layers), 32 sequences a step, Adam, norm clipped at 1, an evaluation every 100 steps, and no more than "
        "10,000 steps (5000 at T = 400, 3000 at T = 1000; irnn three times as many). Published runs have 128 units "
        "(irnn 100), 50 sequences and up to 60,000 steps. Three seeds for T = 100, one above.",
        places=tuple(places),
        duration="2 hours",
    )


def _adding(T, times=1, **settings):
    return dataclasses.replace(ADDING, seq_len=T, steps=times * STEPS[T], **settings)


ROWS = {
    "lstm": lambda T: _adding(T, cell="lstm"),
    "lstm, chrono": lambda T: _adding(T, cell="lstm", cell_options={"chrono_t_max": float(T)}),
    "irnn": lambda T: _adding(T, times=3, cell="irnn", hidden_size=100),
    "indrnn": lambda T: _adding(
        T, cell="indrnn", cell_options={"t_max": float(T), "long_memory": True}, num_layers=2, lr=2e-4
    ),
    "exprnn": lambda T: _adding(T, cell="exprnn"),
    "cornn": lambda T: _adding(T, cell="cornn", cell_options={"dt": 0.06, "gamma": 66.0, "epsilon": 15.0}, lr=0.02),
    "unicornn": lambda T: _adding(T, cell="unicornn", cell_options={"dt": 0.1, "alpha": 1.0}, num_layers=2),
    "lem": lambda T: _adding(T, cell="lem", cell_options={"dt": 0.0242}, lr=0.0026),
}


def chrono() -> Table:
    """What chrono initialisation does for the LSTM on adding and copy."""
    rmsprop: dict[str, Any] = {"optimizer": "rmsprop", "momentum": 0.9, "lr": 1e-3, "clip": 0.0}
    copy = dataclasses.replace(ADDING, task="copy", task_options={}, seq_len=200, steps=5000, **rmsprop)
    adding = dataclasses.replace(ADDING, seq_len=750, steps=5000, **rmsprop)
    places = []
    for name, task, t_max, published in (
        ("adding, T = 750", adding, 750.0, "7 times faster"),
        ("copy, T = 200", copy, 300.0, "leaves the plateau at T = 500"),
    ):
        for row, options in (("b_f = 1", {"forget_bias": 1.0}), ("chrono", {"chrono_t_max": t_max})):
            config = dataclasses.replace(task, cell="lstm", cell_options=options)
            places.append(Place(row, name, config, published if row == "chrono" else "", seeds=1))
    return Table(
        title="Training steps until an LSTM solves its task, by the bias of its forget gate",
        source="Tallec & Ollivier (2018), Can recurrent neural networks warp time?",
        protocol="RMSprop at 0.001 (0.9), no clipping, as published; 64 units for 128, 32 sequences a step for 50, one "
        "seed, up to 5000 steps.",
        places=tuple(places),
        duration="10 minutes",
        rows_are="forget gate",
    )
