"""A sweep as a PyTorch user writes it: a loop over the trials, in as many processes as cores."""

import json
import sys


def train_trials(kind, trials, device, seq_len, hidden_size, batch_size, steps, eval_every, eval_batch) -> None:
    """In a process of its own: trains each trial on the adding problem, and prints [cell, lr, seed, mse] of each."""
    try:
        import torch
    except ImportError:
        sys.exit(3)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as XLA does: vanishing gradients would slow it down
    rows = []
    for cell, lr, seed in trials:
        torch.manual_seed(seed)
        net = _network(cell, hidden_size).to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr)
        for step in range(steps):
            xs, target = _draw_adding(batch_size, seq_len, device)
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.mse_loss(net(xs), target).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            if (step + 1) % eval_every == 0:
                with torch.inference_mode():
                    xs, target = _draw_adding(eval_batch, seq_len, device)
                    mse = torch.nn.functional.mse_loss(net(xs), target).item()
        rows.append([cell, lr, seed, mse])
    print(json.dumps(rows))


def _draw_adding(B, T, device):
    import torch

    value, half = torch.rand(T, B, device=device), T // 2
    first, second = torch.randint(half, (B,)), torch.randint(half, T, (B,))
    marker, column = torch.zeros(T, B, device=device), torch.arange(B)
    marker[first, column] = marker[second, column] = 1
    return torch.stack([value, marker], -1), (value * marker).sum(0)


def _network(cell, hidden_size):
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](2, hidden_size)
            self.layer, self.readout = layer, torch.nn.Linear(hidden_size, 1)
            torch.nn.init.orthogonal_(layer.weight_hh_l0)

        def forward(self, xs):
            return self.readout(self.layer(xs)[0][-1])[:, 0]

    return Network()
