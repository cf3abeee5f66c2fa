"""What the page of a diagnosis says first: the verdict."""

import jax
import jax.numpy as jnp
from flax import nnx

from rnnjax.diagnostics.gradient_flow import gradient_flow
from rnnjax.diagnostics.triage import diagnose
from rnnjax.diagnostics.verdict import Diagnosis
from rnnjax.reports.diagnosis_subject import B, Subject, loss_of_taps


def triage(subject: Subject) -> Diagnosis:
    """The verdict on all layers; of a model without a recurrence its score and size, and whether all is finite."""
    taps = subject.model.make_taps(subject.batch.inputs.shape[0], (B,))
    return diagnose(loss_of_taps(subject), taps, subject.layers) if subject.layers else _of_attention(subject, taps)


def _of_attention(subject, taps):
    task, batch = subject.train.task, subject.batch

    @jax.jit
    def run(taps):
        outputs = subject.model(batch.inputs, lengths=batch.lengths)
        flow = gradient_flow(loss_of_taps(subject), taps)
        finite = [jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves((flow.loss, flow.gradient))]
        return jnp.all(jnp.stack(finite)), task.metrics(outputs, batch)[task.score]

    finite, score = run(taps)
    size = sum(a.size for a in jax.tree.leaves(nnx.state(subject.model, nnx.Param)))
    reasons = (f"{task.score} {float(score):.4g} on these sequences (without memory {task.baseline:.4g})",)
    reasons += (f"{size} parameters", "a transformer has no recurrence to judge")
    cure = "what the gradient by position says" if finite else "a smaller learning rate"
    return Diagnosis("no verdict" if finite else "NaN", None, None, reasons, cure, ())
