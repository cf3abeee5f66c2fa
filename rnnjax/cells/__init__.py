"""Recurrent cells. A new one is a function that returns a `Cell`, and its name in the table."""

from collections.abc import Callable

from rnnjax.cells.continuous import antisymmetric, antisymmetric_gated, lem, lipschitz
from rnnjax.cells.decay_gates import gateloop, hgrn, rglru
from rnnjax.cells.decayed_memories import LinearAttentionCarry, gla, hgrn2, linear_attention, retnet
from rnnjax.cells.deep_steps import SCRNCarry, mut1, mut2, mut3, rhn, scrn
from rnnjax.cells.delta_memories import deltanet, deltaproduct, fast_weights, gated_deltanet
from rnnjax.cells.elementwise import qrnn, sru, sru_v1
from rnnjax.cells.gated import gated
from rnnjax.cells.goru import goru
from rnnjax.cells.gru import gru, gru_cho, mgu
from rnnjax.cells.light_gates import fastgrnn, fastrnn, indrnn, light_ru, ligru, star
from rnnjax.cells.linear import linear
from rnnjax.cells.liquid import cfc, ltc
from rnnjax.cells.lru import lru
from rnnjax.cells.lstm import LSTMCarry, lstm
from rnnjax.cells.lstm_maps import lstm_projected, mlstm_mul, nested_lstm
from rnnjax.cells.lstm_variants import janet, lstm_1997, mi_lstm, ur_lstm
from rnnjax.cells.memories import legs, lmu
from rnnjax.cells.memory import memory
from rnnjax.cells.min_gates import GILRLSTMCarry, gilr, gilr_lstm, mingru, minlstm
from rnnjax.cells.mlstm import MLSTMCarry, mlstm
from rnnjax.cells.multiplicative import mi_gru, mi_rnn
from rnnjax.cells.neuroscience import dend_plrnn, esn, leaky_rnn, low_rank, plrnn
from rnnjax.cells.orthogonal import exprnn, householder, nnrnn, scornn
from rnnjax.cells.oscillators import cornn, unicornn, wrnn
from rnnjax.cells.phased import phased_lstm
from rnnjax.cells.rnn import irnn, rnn
from rnnjax.cells.rwkv import rwkv7
from rnnjax.cells.selective import s6
from rnnjax.cells.slstm import slstm
from rnnjax.cells.state_space import s4d, s5
from rnnjax.cells.twin_gates import RANCarry, atr, brc, cfn, nbrc, ran
from rnnjax.cells.typed import TGRUCarry, TLSTMCarry, t_gru, t_lstm, t_rnn
from rnnjax.cells.unitary import ComplexState, eunn, urnn
from rnnjax.types import Cell

FAMILIES: dict[str, tuple[Callable[..., Cell], ...]] = {
    "Classical": (rnn, irnn, lstm, gru, gru_cho, mgu),
    "Relatives of the LSTM": (lstm_1997, lstm_projected, janet, ur_lstm, slstm, mi_lstm, mlstm_mul, nested_lstm,
                              phased_lstm),
    "Few gates": (indrnn, fastrnn, fastgrnn, ligru, light_ru, star, ran, cfn, atr, brc, nbrc),
    "Several maps a step": (rhn, mut1, mut2, mut3, mi_rnn, mi_gru, scrn),
    "Orthogonal, unitary, and near to it": (exprnn, scornn, householder, nnrnn, urnn, eunn, goru),
    "Equations in continuous time": (lem, cornn, unicornn, antisymmetric, antisymmetric_gated, lipschitz, wrnn, cfc,
                                     ltc),
    "Memories of the past": (lmu, legs),
    "State spaces": (lru, s4d, s5, s6),
    "Linear in the state, or nearly": (sru_v1, sru, qrnn, t_rnn, t_gru, t_lstm, gilr, gilr_lstm, mingru, minlstm, rglru,
                                       hgrn, gateloop),
    "Matrix memories": (linear_attention, fast_weights, retnet, gla, hgrn2, mlstm, deltanet, gated_deltanet,
                        deltaproduct, rwkv7),
    "Neuroscience": (leaky_rnn, low_rank, plrnn, dend_plrnn, esn),
}  # fmt: skip
CELLS: dict[str, Callable[..., Cell]] = {make.__name__: make for family in FAMILIES.values() for make in family}

__all__ = [
    "CELLS",
    "FAMILIES",
    "ComplexState",
    "GILRLSTMCarry",
    "LSTMCarry",
    "LinearAttentionCarry",
    "MLSTMCarry",
    "RANCarry",
    "SCRNCarry",
    "TGRUCarry",
    "TLSTMCarry",
    "antisymmetric",
    "antisymmetric_gated",
    "atr",
    "brc",
    "cfc",
    "cfn",
    "cornn",
    "deltanet",
    "deltaproduct",
    "dend_plrnn",
    "esn",
    "eunn",
    "exprnn",
    "fast_weights",
    "fastgrnn",
    "fastrnn",
    "gated",
    "gated_deltanet",
    "gateloop",
    "gilr",
    "gilr_lstm",
    "gla",
    "goru",
    "gru",
    "gru_cho",
    "hgrn",
    "hgrn2",
    "householder",
    "indrnn",
    "irnn",
    "janet",
    "leaky_rnn",
    "legs",
    "lem",
    "light_ru",
    "ligru",
    "linear",
    "linear_attention",
    "lipschitz",
    "lmu",
    "low_rank",
    "lru",
    "lstm",
    "lstm_1997",
    "lstm_projected",
    "ltc",
    "memory",
    "mgu",
    "mi_gru",
    "mi_lstm",
    "mi_rnn",
    "mingru",
    "minlstm",
    "mlstm",
    "mlstm_mul",
    "mut1",
    "mut2",
    "mut3",
    "nbrc",
    "nested_lstm",
    "nnrnn",
    "phased_lstm",
    "plrnn",
    "qrnn",
    "ran",
    "retnet",
    "rglru",
    "rhn",
    "rnn",
    "rwkv7",
    "s4d",
    "s5",
    "s6",
    "scornn",
    "scrn",
    "slstm",
    "sru",
    "sru_v1",
    "star",
    "t_gru",
    "t_lstm",
    "t_rnn",
    "unicornn",
    "ur_lstm",
    "urnn",
    "wrnn",
]
