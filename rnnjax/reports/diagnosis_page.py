"""The page of a diagnosis: the verdict with its evidence, every figure, and what was left out."""

import json
from pathlib import Path

import numpy as np

from rnnjax import runs
from rnnjax.diagnostics.verdict import Diagnosis
from rnnjax.reports.diagnosis_measures import sections_of
from rnnjax.reports.diagnosis_subject import B, Subject
from rnnjax.reports.diagnosis_verdict import triage
from rnnjax.reports.html_page import escape, figures_html, page_html, table_html
from rnnjax.training import outputs
from rnnjax.training.dotted import flat_settings


def write_page(subject: Subject, out: str | Path, title: str) -> Diagnosis:
    """Measures, and writes index.html and diagnostics.json into `out`. Returns the verdict."""
    out = runs.check_own_directory(out, "diagnosis")
    verdict = triage(subject)
    sections = sections_of(subject, finite=verdict.verdict != "NaN")
    left_out = [section.left_out for section in sections.values() if section.left_out]
    if verdict.verdict == "NaN":
        left_out.append(
            "All but the gradient was left out: of numbers that are not finite there is nothing to measure."
        )
    if not subject.layers:
        left_out.append(
            "What is of a recurrence alone was left out: sensitivity, Jacobians, Lyapunov exponents, credit, paths and "
            "units."
        )
    elif subject.config.num_layers > 1:
        left_out.append("All but the verdict, the gradient and the horizon is of the first layer alone.")
    record = {
        "verdict": verdict.verdict,
        "layer": verdict.layer,
        "step": verdict.step,
        "reasons": verdict.reasons,
        "cure": verdict.cure,
        "left_out": left_out,
        "config": outputs.config_dict(subject.config),
        "measures": {name: section.numbers for name, section in sections.items()},
    }
    runs.own_directory(out, "diagnosis")
    runs.write_file(out / "diagnostics.json", json.dumps(outputs.plain_numbers(record), allow_nan=False) + "\n")
    figures = [figure for section in sections.values() for figure in section.figures]
    runs.write_file(out / "index.html", _page(subject, verdict, figures, left_out, title))
    return verdict


def _page(subject, verdict, figures, left_out, title):
    evidence = verdict.evidence and table_html(
        ["layer", "|dh_T/dh_0|", "|dL/dh_t| first, last", "dead ReLUs", "saturated", "half of the units forget within"],
        [
            [str(k), _power_of_e(e.log_sensitivity[0]), f"{e.gradient[0]:.2g}, {e.gradient[-1]:.2g}", f"{e.dead:.0%}",
             escape(", ".join(f"{n} {v:.0%}" for n, v in e.saturated.items()) or "–"), f"{e.timescale:.3g} steps"]
            for k, e in enumerate(verdict.evidence)
        ],
    )  # fmt: skip
    config = [
        [escape(name), escape(value)] for name, value in flat_settings(subject.config).items() if value is not None
    ]
    remarks = "".join(f"<li>{escape(text)}</li>" for text in left_out)
    body = (
        f"<h1>{escape(title)}</h1><p class='verdict'><b>{escape(str(verdict))}</b></p>{evidence or ''}"
        f"<p class='note'>Measured on {B} fresh validation sequences{NOTE if verdict.evidence else '.'}</p>"
        f"{figures_html(figures)}<details open><summary>Left out</summary><ul>{remarks or '<li>nothing</li>'}</ul>"
        f"</details><details><summary>Config</summary>{table_html(['setting', 'value'], config)}</details>"
    )
    return page_html(title, body)


NOTE = (
    "; spectra and sensitivities on one of them. A value counts as saturated on the flat part of its nonlinearity, "
    "unless its unit is one that remembers."
)


def _power_of_e(log):
    return "0" if log == -np.inf else f"10<sup>{log / np.log(10):.1f}</sup>"
