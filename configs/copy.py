"""The copy problem: ten symbols, a delay of T blanks, and then the same ten symbols again.

python experiments/train.py --config=configs/copy.py --config.cell.chrono_t_max=100 --workdir=runs/copy

"""

from rnnjax import Config


def get_config() -> Config:
    return Config(
        task="copy",
        task_options={"variant": "arjovsky"},
        seq_len=100,
        cell="lstm",
        hidden_size=128,
        optimizer="rmsprop",
        lr=1e-3,
        clip=1.0,
        batch_size=64,
        steps=6000,
        eval_every=250,
    )
