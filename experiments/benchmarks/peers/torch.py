"""PyTorch: its fused layers, and a loop over cells that keeps what they hide."""

import numpy as np

from benchmarks.case import LEARNING_RATE, Case, Contender, make_data, make_weights

PACKAGES = ("torch",)
CELLS = {"rnn": "rnn", "lstm": "lstm", "gru": "gru"}


def layer(case: Case, seed: int = 0) -> Contender:
    """The fused layer in a training loop, and under inference mode."""
    import torch

    from rnnjax.interop import to_torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[case.cell](case.I, case.H).to(device)
    _load(layer, to_torch(case.cell, make_weights(case, seed)))
    optimizer = torch.optim.SGD(layer.parameters(), LEARNING_RATE)
    xs, target = (torch.from_numpy(a).to(device) for a in make_data(case))

    def h_last(xs):
        h = layer(xs)[1]
        return (h[0] if case.cell == "lstm" else h)[0]

    def backward():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.mse_loss(h_last(xs), target)
        loss.backward()
        return loss

    def check():
        loss = backward().item()
        return loss, torch.sqrt(sum((p.grad**2).sum() for p in layer.parameters() if p.ndim == 2)).item()

    def forward(n):
        with torch.inference_mode():
            for _ in range(n):
                h = h_last(xs)
        _ = h[0, 0].item()

    def step(n):
        for _ in range(n):
            loss = backward()
            optimizer.step()
        _ = loss.item()
        if device == "cuda":
            torch.cuda.synchronize()

    return Contender(check, _ways(forward), _ways(step))


def norms(case: Case) -> Contender:
    """PyTorch's way to |dL/dh_t| for every t: `nn.LSTM` hides its states, so a loop over `LSTMCell` that keeps them."""
    import torch

    from rnnjax.interop import to_torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cell = {"rnn": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[case.cell](case.I, case.H)
    cell = cell.to(device)
    _load(cell, to_torch(case.cell, make_weights(case), suffix=""))
    optimizer = torch.optim.SGD(cell.parameters(), LEARNING_RATE)
    xs, target = (torch.from_numpy(a).to(device) for a in make_data(case))

    def norms():
        optimizer.zero_grad(set_to_none=True)
        state, hs = None, []
        for x in xs:
            state = cell(x, state)
            h = state[0] if case.cell == "lstm" else state
            h.retain_grad()
            hs.append(h)
        torch.nn.functional.mse_loss(h, target).backward()
        return torch.stack([h.grad for h in hs]).norm(dim=-1)

    def check():
        values = norms()
        return values[-1].norm().item(), values.norm().item()

    def step(n):
        for _ in range(n):
            values = norms()
            optimizer.step()
        _ = values[0, 0].item()
        if device == "cuda":
            torch.cuda.synchronize()

    return Contender(check, {}, _ways(step))


def sweep(case: Case, runs: int, first: int) -> Contender:
    """`runs` runs with the seeds from `first` on, one after another in this process."""
    lanes = [layer(case, seed) for seed in range(first, first + runs)]

    def check():
        losses, norms = zip(*(lane.check() for lane in lanes), strict=True)
        return sum(losses), sum(norms)

    def run(n):
        for lane in lanes:
            lane.step["call"](n)

    return Contender(check, {}, {"call": run})


def _ways(run):
    """With all the threads of the process, and with one: on small layers that may be faster."""
    import torch

    def with_threads(threads):
        def limited(n):
            torch.set_num_threads(threads)
            run(n)

        return limited

    threads = torch.get_num_threads()
    ways = {"call": with_threads(threads)}
    return ways | {"call, one thread": with_threads(1)} if threads > 1 else ways


def _load(module, arrays):
    import torch

    module.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()})
