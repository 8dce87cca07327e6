"""Predict errors of held-out documents from text and full-precision model; say what norms add."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument("--residuals", type=Path, required=True, help="residuals.parquet")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--model", type=Path, required=True, help="model.json")
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument("--prediction", required=True, help="the config's prediction: as JSON")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of folds and resamples")
    parser.add_argument("--predictions", type=Path, required=True, help="output: every prediction")
    parser.add_argument("--table", type=Path, required=True, help="output: by features (CSV)")
    parser.add_argument("--added", type=Path, required=True, help="output: what norms add (CSV)")
    parser.add_argument("--transfer", type=Path, required=True, help="output: by methods (CSV)")
    parser.add_argument("--partial", type=Path, required=True, help="output: NLL held fixed (CSV)")
    parser.add_argument("--markdown", type=Path, required=True, help="output: to read (Markdown)")
    return parser.parse_args()


def main() -> None:
    """Predict, then measure how well."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.error_sets import require_documents_of
    from lowbit.analysis.prediction import fit as prediction_fit
    from lowbit.analysis.prediction import tables as prediction_tables
    from lowbit.analysis.prediction.feature_sets import make_targets, predictions_table
    from lowbit.analysis.prediction.report import prediction_markdown
    from lowbit.analysis.statistics import BootstrapSettings, resample_counts
    from lowbit.files import read_json, write_csv, write_parquet, write_text
    from lowbit.inputs.tokens import read_texts, read_tokens
    from lowbit.settings import parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    folds = parse_settings(prediction_fit.PredictionSettings, arguments.prediction, "--prediction")
    errors, sets = pd.read_parquet(arguments.errors), pd.read_parquet(arguments.sets)
    doc_ids, tokens = read_tokens(arguments.tokens)
    require_documents_of(errors, doc_ids)
    features = prediction_fit.make_features(
        pd.read_parquet(arguments.residuals),
        errors,
        doc_ids,
        read_texts(arguments.tokens),
        tokens,
        read_json(arguments.model)["vocabulary"],
    )
    targets = make_targets(errors, sets)
    predictions = prediction_fit.predict(features, targets, folds, arguments.seed)
    evaluation = prediction_tables.Evaluation(
        predictions,
        targets,
        resample_counts(len(doc_ids), settings, arguments.seed),
        settings.confidence,
    )
    values = prediction_tables.prediction_table(evaluation)
    added = prediction_tables.added_table(evaluation)
    partial = prediction_tables.partial_table(
        features.norm[:, 0], features.quantity, features.nll[:, 0], evaluation
    )
    page = prediction_markdown(arguments.name, values, added, partial, folds.folds, folds.repeats)
    write_parquet(arguments.predictions, predictions_table(predictions, doc_ids))
    write_csv(arguments.table, values)
    write_csv(arguments.added, added)
    write_csv(arguments.transfer, prediction_tables.transfer_table(evaluation))
    write_csv(arguments.partial, partial)
    write_text(arguments.markdown, page)


if __name__ == "__main__":
    run(main)
