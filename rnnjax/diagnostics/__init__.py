"""The gradient microscope: where gradients vanish or explode, for any `Cell`, each answer a NamedTuple of arrays.

    triage           what ails this network, where it begins, what to try: a verdict in one paragraph
                     (`evidence` gathers what it rests on, `verdict` judges that)
    gradient_flow    |dL/dh_t| of every step, and how far back it reaches
    sensitivity      |dh_T/dh_t|, what any loss at T can keep of step t
    jacobians        J_t, its singular values, and those of long products in log space
    lyapunov         rates at which perturbations grow
    newton_steps     whether the steps of time can be run all at once, and how many iterations that takes
    credit           |dL_t/dh_s| for every t and s
    paths            through which part of the cell the gradient goes
    units            gates, timescales, saturation, dead units
    recurrent_matrix spectrum and normality of W_h, Fisher memory
    horizon          how far back a trained network uses its input
    fixed_points     where the state rests under a constant input
    init_map         gradient growth over two hyperparameters

Other gradients, penalties and a clip inside the backward pass stand in `rnnjax.gradients`; two functions of it, that
compare or name gradients, are shown here too.

A function that has its file's name is imported from that file, such as `gradient_flow` from `gradient_flow`.
"""

from rnnjax.diagnostics.credit import credit_matrix
from rnnjax.diagnostics.gradient_flow import gradient_reach, state_sensitivity
from rnnjax.diagnostics.horizon import measured_horizon
from rnnjax.diagnostics.jacobians import (
    eigenvalue_moduli,
    jacobian_statistics,
    product_spectrum,
    product_spectrum_of,
    step_jacobians,
)
from rnnjax.diagnostics.lyapunov import lyapunov_spectrum
from rnnjax.diagnostics.paths import flow_by_path
from rnnjax.diagnostics.recurrent_matrix import fisher_memory
from rnnjax.diagnostics.sensitivity import exact_sensitivity, frobenius_sensitivity, spectral_sensitivity
from rnnjax.diagnostics.triage import diagnose
from rnnjax.diagnostics.units import record_units, summarise_units
from rnnjax.gradients.compare import compare_gradients
from rnnjax.gradients.methods import gradient_of

__all__ = [
    "compare_gradients",
    "credit_matrix",
    "diagnose",
    "eigenvalue_moduli",
    "exact_sensitivity",
    "fisher_memory",
    "flow_by_path",
    "frobenius_sensitivity",
    "gradient_of",
    "gradient_reach",
    "jacobian_statistics",
    "lyapunov_spectrum",
    "measured_horizon",
    "product_spectrum",
    "product_spectrum_of",
    "record_units",
    "spectral_sensitivity",
    "state_sensitivity",
    "step_jacobians",
    "summarise_units",
]
