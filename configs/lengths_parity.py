r"""Parity beyond the lengths of training: has a network found the rule, or learned its training lengths by heart?

python experiments/sweep.py --config=configs/lengths_parity.py --grid=cell=rnn,lstm,gru,transformer \
    --grid=seed=0:3 --workdir=runs/lengths_parity
python experiments/report.py --runs=runs/lengths_parity --out=runs/lengths_parity/report

trains on 2 to 40 digits, the longest growing over the first half of the steps, and scores up to 640. The twelve runs
took 11 minutes on two cores that other jobs kept busy. RNN, LSTM and GRU make no mistake at any length; the Transformer
guesses from 160 on: see docs/lengths.md.
"""

from rnnjax import Config


def get_config() -> Config:
    return Config(
        task="parity",
        seq_len=40,
        min_seq_len=2,
        curriculum=0.5,
        eval_lengths=(10, 20, 40, 80, 160, 320, 640),
        cell="lstm",
        hidden_size=64,
        optimizer="adam",
        lr=3e-3,
        clip=1.0,
        batch_size=64,
        steps=2000,
        eval_every=250,
    )
