"""Recurrent cells. A new one is a function that returns a `Cell`, and one line in the table."""

from collections.abc import Callable

from rnnjax.cells.continuous import antisymmetric, antisymmetric_gated, lem, lipschitz
from rnnjax.cells.deep_steps import SCRNCarry, mut1, mut2, mut3, rhn, scrn
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
from rnnjax.cells.multiplicative import mi_gru, mi_rnn
from rnnjax.cells.neuroscience import dend_plrnn, esn, leaky_rnn, low_rank, plrnn
from rnnjax.cells.orthogonal import exprnn, householder, nnrnn, scornn
from rnnjax.cells.oscillators import cornn, unicornn, wrnn
from rnnjax.cells.phased import phased_lstm
from rnnjax.cells.rnn import irnn, rnn
from rnnjax.cells.slstm import slstm
from rnnjax.cells.twin_gates import RANCarry, atr, brc, cfn, nbrc, ran
from rnnjax.cells.unitary import ComplexState, eunn, urnn
from rnnjax.types import Cell

CELLS: dict[str, Callable[..., Cell]] = {
    "rnn": rnn,
    "irnn": irnn,
    "lstm": lstm,
    "gru": gru,
    "gru_cho": gru_cho,
    "mgu": mgu,
    "lru": lru,
    "janet": janet,
    "ur_lstm": ur_lstm,
    "lstm_projected": lstm_projected,
    "lstm_1997": lstm_1997,
    "slstm": slstm,
    "sru": sru,
    "sru_v1": sru_v1,
    "qrnn": qrnn,
    "mlstm_mul": mlstm_mul,
    "mi_lstm": mi_lstm,
    "nested_lstm": nested_lstm,
    "phased_lstm": phased_lstm,
    "indrnn": indrnn,
    "fastrnn": fastrnn,
    "fastgrnn": fastgrnn,
    "ligru": ligru,
    "lem": lem,
    "cornn": cornn,
    "unicornn": unicornn,
    "wrnn": wrnn,
    "antisymmetric": antisymmetric,
    "antisymmetric_gated": antisymmetric_gated,
    "lipschitz": lipschitz,
    "cfc": cfc,
    "ltc": ltc,
    "brc": brc,
    "nbrc": nbrc,
    "star": star,
    "ran": ran,
    "cfn": cfn,
    "atr": atr,
    "rhn": rhn,
    "mut1": mut1,
    "mut2": mut2,
    "mut3": mut3,
    "mi_rnn": mi_rnn,
    "mi_gru": mi_gru,
    "light_ru": light_ru,
    "exprnn": exprnn,
    "scornn": scornn,
    "householder": householder,
    "nnrnn": nnrnn,
    "urnn": urnn,
    "eunn": eunn,
    "goru": goru,
    "scrn": scrn,
    "lmu": lmu,
    "legs": legs,
    "leaky_rnn": leaky_rnn,
    "low_rank": low_rank,
    "plrnn": plrnn,
    "dend_plrnn": dend_plrnn,
    "esn": esn,
}

__all__ = [
    "CELLS",
    "ComplexState",
    "LSTMCarry",
    "RANCarry",
    "SCRNCarry",
    "antisymmetric",
    "antisymmetric_gated",
    "atr",
    "brc",
    "cfc",
    "cfn",
    "cornn",
    "dend_plrnn",
    "esn",
    "eunn",
    "exprnn",
    "fastgrnn",
    "fastrnn",
    "gated",
    "goru",
    "gru",
    "gru_cho",
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
    "lipschitz",
    "lmu",
    "low_rank",
    "lru",
    "lstm",
    "lstm_1997",
    "lstm_projected",
    "ltc",
    "mgu",
    "mi_gru",
    "mi_lstm",
    "mi_rnn",
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
    "rhn",
    "rnn",
    "scornn",
    "scrn",
    "slstm",
    "sru",
    "sru_v1",
    "star",
    "unicornn",
    "ur_lstm",
    "urnn",
    "wrnn",
]
