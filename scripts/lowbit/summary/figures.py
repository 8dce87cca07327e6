"""Links to a model's figures, with what they show."""

from lowbit.analysis.mechanisms.patching_report import patching_figures
from lowbit.summary.model import ModelSummary
from lowbit.summary.optional_stages import OPTIONAL_FIGURES, PATCHING

FIGURES = {
    "error_distribution": "errors by method",
    "overlap": "overlap of the worst documents",
    "correlation": "correlation between methods",
    "scatter": "errors of two methods",
    "residual_correlation": "residual norms and errors by layer",
    "residual_norms": "norms of D_large and D_ctrl",
    "residual_reversal": "the reversal",
    "residual_density": "how norms spread over the documents of both",
    "residual_kurtosis": "kurtosis of D_large and D_ctrl",
    "early_exit": "what each layer would predict",
    "amplification": "errors of MLP outputs and the size of their inputs",
    "prediction": "prediction of held-out documents by features",
    "prediction_transfer": "prediction from one method to another",
    "long_tail": "errors and the full model's NLL",
    "token_concentration": "share of the worst tokens",
    "token_errors": "token errors by position, frequency and confidence",
    "token_flips": "changed top tokens by the same",
}
"""Files in a model's folder figures/, and what they show."""


def figure_links(model: ModelSummary) -> str:
    """A list of the figures that the model's tables are there for."""
    shown = dict(FIGURES)
    if PATCHING in model.tables:
        shown |= patching_figures(model.tables[PATCHING])
    for name, figures in OPTIONAL_FIGURES.items():
        shown |= figures if name in model.tables else {}
    return "\n".join(
        f"- [{text}]({model.folder}/figures/{name}.png)" for name, text in shown.items()
    )
