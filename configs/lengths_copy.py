r"""Copy beyond the delays of training: how far back does a memory reach that was trained on short delays?

python experiments/sweep.py --config=configs/lengths_copy.py --grid=cell=rnn,lstm,gru,transformer \
    --grid=seed=0:3 --workdir=runs/lengths_copy
python experiments/report.py --runs=runs/lengths_copy --out=runs/lengths_copy/report

trains on delays of 1 to 40 blanks, the longest growing over the first half of the steps, and scores up to 320. The
twelve runs took 31 minutes on two cores that other jobs kept busy. At a delay of 160 the GRU has a cross-entropy of
0.007 and the LSTM of 0.23, where a guess has 2.08, and the Transformer 8.3: see docs/lengths.md.
"""

from rnnjax import Config


def get_config() -> Config:
    return Config(
        task="copy",
        task_options={"variant": "recall", "copy_length": 5},
        seq_len=40,
        min_seq_len=1,
        curriculum=0.5,
        eval_lengths=(10, 20, 40, 80, 160, 320),
        cell="lstm",
        hidden_size=64,
        optimizer="adam",
        lr=3e-3,
        clip=1.0,
        batch_size=64,
        steps=3000,
        eval_every=250,
    )
