"""What the summary says and shows of optional stages, by their table."""

from lowbit.analysis.evaluation import evaluation_answer
from lowbit.analysis.mechanisms.intervention_report import intervention_answer
from lowbit.analysis.mechanisms.mixed_precision_tables import mixed_answer
from lowbit.analysis.mechanisms.patching_report import patching_answer
from lowbit.analysis.perturbation.report import (
    agreement_answer,
    perturbation_answer,
    sensitivity_answer,
    transforms_answer,
)
from lowbit.analysis.topics import topics_answer

PATCHING, INTERVENTIONS, MIXED = "patching", "interventions", "mixed_precision"
PERTURBATION, AGREEMENT, SENSITIVITY = "perturbation", "perturbation_agreement", "sensitivity"
TRANSFORMS = "best_transforms"
EVALUATION, TOPICS = "evaluation", "topics"
ANSWERS = {
    TOPICS: topics_answer,
    EVALUATION: evaluation_answer,
    PATCHING: patching_answer,
    INTERVENTIONS: intervention_answer,
    MIXED: mixed_answer,
    PERTURBATION: perturbation_answer,
    AGREEMENT: agreement_answer,
    SENSITIVITY: sensitivity_answer,
    TRANSFORMS: transforms_answer,
}
"""Table of an optional stage -> what the summary says of it, given the table and the folder."""

OPTIONAL_FIGURES = {
    TOPICS: {"topics": "topics of the documents that break"},
    EVALUATION: {"evaluation": "perplexity and accuracy on the evaluation sets"},
    INTERVENTIONS: {"interventions": "errors when residual norms are changed"},
    MIXED: {
        "module_ranking": "what each module gives back in higher precision",
        "mixed_precision": "models of mixed precision",
    },
    PERTURBATION: {
        "perturbation_intensity": "noise of growing norm",
        "perturbation_distribution": "noise of different kinds",
        "clipping": "clipping and its controls",
        "interaction": "noise on weights, activations and both",
    },
    AGREEMENT: {"perturbation_agreement": "whether noise hurts the same documents"},
    SENSITIVITY: {"sensitivity": "noise on single projections"},
    TRANSFORMS: {
        "transforms": "uniform and non-uniform grids",
        "sqnr": "signal-to-noise ratio and errors",
    },
}
"""Table of an optional stage -> files in a model's folder figures/, and what they show."""
