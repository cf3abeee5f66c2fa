"""The few types that everything else is written in, and the letters that shapes are written with.

Shape letters, the same in every docstring:

    T time      B batch      D input features      H hidden units      O outputs
    N parameters      G gates      L layers      K lanes of a sweep

Arrays are time-major: `[T, ..., D]`, batch dimensions between, none included.
Arguments come in scan order: params, carry, input.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax

from rnnjax.plots import Plot

Array: TypeAlias = jax.Array
Params = dict[str, Array]
Weights = Any  # what `Cell.weights` makes of the params: those themselves, or a pytree of arrays
Carry = Any  # a pytree: one array, or a NamedTuple with the paper's letters, such as LSTMCarry(c, h)
Activation = Callable[[Array], Array]


class Gates(NamedTuple):
    """The parts of a cell whose recurrence is one linear map of the carried state, then elementwise.

        s_t = affine(state(h_{t-1}), z_t)           pre-activations, H units a gate; z_t = project(x_t)
        h_t = update(h_{t-1}, activation(s_t))      each unit by itself

    The engine may use these parts to train faster; everything else needs only `Cell.step`. Of the gates, those in
    `of_state` see h_{t-1}; the affine map is linear in it.
    """

    affine: Callable[..., dict[str, Array]]  # (weights, h, z) -> {gate: s [..., H]}
    activations: Mapping[str, Activation]  # gate name -> its nonlinearity
    update: Callable[..., Carry]  # (weights, carry, **gates) -> carry
    state: Callable[[Carry], Array]  # carry -> [..., S], what the affine map sees of it, such as h or [y, z]
    of_state: tuple[str, ...]  # the gates that see h

    def __hash__(self):  # a dict has none; with it a cell can be a static argument of `jax.jit`
        return hash((self.affine, frozenset(self.activations.items()), self.update, self.state, self.of_state))


class Linear(NamedTuple):
    """A recurrence that is linear in the carry.

        h_t = a_t h_{t-1} + b_t,    a_t, b_t = coefficients(w, z_t)        elementwise

    Both are pytrees like the carry, of arrays that broadcast against its parts: `a` may be one vector for all steps, or
    one number for many units. Such a recurrence can be run for all steps at once.
    """

    coefficients: Callable[[Weights, Any], tuple[Carry, Carry]]  # (weights, z) -> (a, b)


class Parts(NamedTuple):
    """What one step does to a memory, and what it asks of it; see `Memory`. Several writes a step stand in order.

    Of a step that writes W times, k, v, log_a, p and q have a dimension W before H. What is None is not there: nothing
    is forgotten without log_a, and no row is changed by another without p and q. Logarithms are finite.
    """

    r: Array  # [..., H, K], the query, read after the last write
    k: Array  # [..., H, K], the key
    v: Array  # [..., H, V], the value
    log_a: Array | None = (
        None  # [..., H, K], or [..., H, 1] for all rows alike: the logarithm of what is kept, 0 or less
    )
    p: Array | None = None  # [..., H, K]
    q: Array | None = None  # [..., H, K]
    log_b: Array | None = None  # [..., H], the logarithm of how strongly k and v are written; with one write a step
    fresh: Array | None = None  # [...], whether the memory is as at the start again, before this step


class Memory(NamedTuple):
    """A recurrence whose state is a matrix for each of H heads, of K rows (keys) and V columns (values).

        S_t = (Diag(a_t) + p_t q_t^T) S_{t-1} + b_t k_t v_t^T       of parts(w, z_t)
        o_t = S_t^T r_t
        y_t = show(w, z_t, o_t, m_t)

    All parts are of weights and z alone. Such a recurrence can be run many steps at once, by products of matrices.
    Where b is given, S is kept as S exp(-m), with m_t = max(log a_t + m_{t-1}, log b_t) a number a head, so that no
    exponential grows; o_t is then of what is kept, and a_t is the same for all rows. Elsewhere b is 1, and m None.
    """

    parts: Callable[[Weights, Any], Parts]  # (weights, z) -> Parts
    show: Callable[[Weights, Any, Array, Array | None], Array]  # (weights, z, o [..., H, V], m [..., H]) -> y
    matrix: Callable[[Carry], tuple[Array, Array | None]]  # carry -> (S [..., H, K, V], m)
    carry: Callable[[Array, Array | None], Carry]  # its inverse


def _identity_projection(weights: Weights, x: Array, key: Array | None = None) -> Array:
    """z_t = x_t: the cell multiplies its input inside `step`."""
    return x


def _params_themselves(params: Params) -> Weights:
    """Nothing is made of the parameters before they are used."""
    return params


def _visible(weights: Weights, carry: Carry, z: Any) -> Array:
    """The part of the carry that a cell shows: `carry.h` where there is one, else the carry itself."""
    return getattr(carry, "h", carry)


class Cell(NamedTuple):
    """A recurrent cell as pure functions.

        w   = weights(params)             what is made of the parameters once a call, such as W = expm(A - A^T)
        h_0 = initial_carry(w, batch)     the state before the first step
        z_t = project(w, x_t)             all that depends on the input alone
        h_t = step(w, h_{t-1}, z_t)       the recurrence, the only sequential part
        y_t = output(w, h_t, z_t)         what the next layer sees

    `params` is a flat dict in the paper's names; `weights` are those themselves by default. `carry` is any pytree of
    arrays `[..., H]`. Every function takes any batch shape, none included, and acts on each batch element by itself.
    `project` of a cell that draws noise has a third argument, `key=None`, and draws nothing without one; with one it is
    called once, for all steps `[T, ..., D]`. Cells are equal if their functions are the same objects; those that
    `rnnjax.cells` makes are, wherever their settings are equal, and wrapped ones where they are one object.
    """

    init: Callable[[Array, int], Params]  # (key, input_size) -> params
    initial_carry: Callable[[Weights, tuple[int, ...]], Carry]  # (weights, batch shape) -> carry, zeros or learned
    step: Callable[[Weights, Carry, Any], Carry]
    project: Callable[..., Any] = _identity_projection  # (weights, x, key=None) -> z
    output: Callable[[Weights, Carry, Any], Any] = _visible
    weights: Callable[[Params], Weights] = _params_themselves
    # What may be known of `step` beyond calling it: `cells.gated`, `cells.linear` and `cells.memory` make cells that
    # have a form.
    form: Gates | Linear | Memory | None = None


def prepared(cell: Cell, params: Params) -> tuple[Cell, Weights]:
    """(the cell for which weights stand in the place of its parameters, those weights).

    So that they are made once, however often the cell is then run.
    """
    return cell._replace(weights=_params_themselves), cell.weights(params)


def gates_of(cell: Cell) -> Gates:
    """The form of a cell that is made of gates. Raises TypeError for another one."""
    if not isinstance(cell.form, Gates):
        raise TypeError(f"the cell's form is {type(cell.form).__name__}; allowed: Gates")
    return cell.form


class Batch(NamedTuple):
    """One minibatch of a task. Time-major."""

    inputs: Array  # [T, B, D] floats, or [T, B] integer tokens
    targets: Array  # what the task's loss compares with: [T, B, ...] where each step has an output, else [B, ...]
    lengths: Array | None  # [B] valid steps of each sequence; None where all have T
    weights: Array  # [T, B], or [B] where a sequence has one output: which outputs count, or how much


class Task(NamedTuple):
    """A task as pure functions: batches are drawn on the device from a key, so there is nothing to checkpoint."""

    # (key, batch_size, *, split="train", seq_len=None, longest=None) -> Batch. `split` is train, validation or test;
    # with a `seq_len` all sequences have that length, such as a longer one than a network was trained on; `longest`, an
    # array `[]`, bounds the lengths that are drawn, and changes no shape. A task with `data` takes them as `data`, by
    # default its own.
    sample: Callable[..., Batch]
    loss: Callable[[Array, Batch], Array]  # (outputs, batch) -> scalar, the mean over sequences, each weighing the same
    metrics: Callable[[Array, Batch], dict[str, Array]]  # (outputs, batch) -> such means by name; `score` names one
    input_size: int  # D, or the vocabulary where `tokens`
    output_size: int  # O
    tokens: bool  # inputs are integers, to be embedded
    readout: str  # "last", "every" or "mean": which steps the outputs are read from
    score: str  # the metric that says how well it went
    baseline: float  # that metric for the best predictor without memory
    solved: float  # the task counts as solved at or below (above, if `higher_is_better`) this score
    higher_is_better: bool = False
    # Whether targets lie in inputs that come later, as in predicting the next character: then an output may see nothing
    # after its own step (`tasks.check_causal`). None, not said: taken for True where every step is read.
    causal: bool | None = None
    # () -> scores worth knowing by name, the best without memory first: lines of a learning curve. None: `baseline` and
    # `solved` under their own names.
    references: Callable[[], dict[str, float]] | None = None
    # (model, params, key) -> Report of a trained model, `model(params)` being a `Model`; None: the score says it all.
    report: Callable[[Callable[[Any], "Model"], Any, Array], "Report"] | None = None
    # A pytree of the arrays that `sample` draws from, if any. Compiled programs take them as an argument: one that
    # closes over an array has it written out inside.
    data: Any = None
    # How to read on from batch to batch, so that a state can be carried over; None: each batch stands alone.
    stream: "Stream | None" = None
    # What the integers of a task with tokens stand for, so that a model can be asked to write on; None: no text.
    codec: "Codec | None" = None
    # (model, params, steps, path=None) -> Forecast of the steps after the end of the task's own data, or of the file
    # `path`; None: the task forecasts nothing.
    forecast: Callable[..., "Forecast"] | None = None


class Stream(NamedTuple):
    """Data that are read window by window, each sequence of a batch from where it stopped the last time.

    A *place* is a pytree of arrays `[B, ...]` that says where each sequence reads next.
    """

    begin: Callable[..., Any]  # (key, batch_size, *, split="train", data) -> place
    # (place, *, split="train", seq_len=None, data) -> (Batch, fresh `[B]`, the next place). Where `fresh` is true, the
    # window begins a document, and the state is to start anew. A window ends with its document, see `Batch.lengths`.
    read: Callable[..., tuple[Batch, Array, Any]]


class Codec(NamedTuple):
    """Text as integers, and back."""

    encode: Callable[[str], Any]  # text -> integers [T]; what is not known becomes `unknown`
    decode: Callable[[Any], str]  # integers [T] -> text
    unknown: int | None = None  # the integer that stands for all that is not known, and is never to be written
    pieces: Callable[[str], list[str]] = list  # text -> what each integer of `encode` stands for, by default characters
    start: str = ""  # what a model writes on from where it is given nothing


class Forecast(NamedTuple):
    """What a model expects of the S steps after the end of a series."""

    times: list[str]  # [S], as the data write them; the number of the step where they have no times
    values: dict[str, Any]  # name of what is forecast, or of a quantile of it such as "sales 0.9" -> [S]
    past_times: list[str]  # the last steps that are known, for a figure
    past: dict[str, Any]  # name -> their values


class Report(NamedTuple):
    """What a task says of a trained model beside its score."""

    summary: str  # one line, to be printed
    numbers: dict[str, float | str]  # for result.json, such as a score on the test split
    files: dict[str, str]  # name -> text, called sample* or report*; .txt is printed
    # Called forecast*, error* or report*: what is drawn into NAME.png.
    plots: dict[str, Plot] = {}  # noqa: RUF012


class Model(Protocol):
    """What a task's report may ask of a trained model; `rnnjax.nn.SequenceModel` is one."""

    steps_read: str  # "last", "every" or "mean"
    output_size: int
    reads_ahead: bool  # whether an output depends on later inputs

    def __call__(self, inputs: Array, *, initial_carry: Any = None, return_carry: bool = False) -> Any:
        """Outputs `[T, B, O]` of inputs `[T, B, ...]`; (carry, outputs) if `return_carry`."""

    def initial_carry(self, batch_shape: tuple[int, ...] = (), steps: int | None = None) -> Any:
        """What a call starts from by default; of a model that attends, with room for `steps` past steps."""
