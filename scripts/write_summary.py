"""Write a study's summary in plain words: the answer first, then what it rests on."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument(
        "--models",
        required=True,
        help='JSON: {model: {"results": directory of its tables, "record": its model.json}}',
    )
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    parser.add_argument("--documents", type=Path, required=True, help="documents.parquet")
    parser.add_argument("--claims", type=Path, required=True, help="claims.csv")
    parser.add_argument(
        "--tables",
        nargs="*",
        default=[],
        help="tables of optional stages, in each results directory",
    )
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--output", type=Path, required=True, help="output: summary (Markdown)")
    return parser.parse_args()


def read_model(name: str, folder: Path, record: Path, tables: list[str]):
    """Read the tables of one model."""
    import pandas as pd

    from lowbit.files import read_json, read_table
    from lowbit.summary.model import ModelSummary

    return ModelSummary(
        name=name,
        folder=folder.name,
        record=read_json(record),
        errors=pd.read_parquet(folder / "errors.parquet"),
        sets=pd.read_parquet(folder / "sets.parquet"),
        perplexity=pd.read_csv(folder / "perplexity.csv"),
        overlap=pd.read_csv(folder / "overlap.csv"),
        by_bits=pd.read_csv(folder / "correlation_by_bits.csv"),
        residual_correlation=pd.read_csv(folder / "residual_correlation.csv"),
        prediction=pd.read_csv(folder / "prediction.csv"),
        prediction_added=pd.read_csv(folder / "prediction_added.csv"),
        long_tail=pd.read_csv(folder / "long_tail.csv"),
        token_concentration=pd.read_csv(folder / "token_concentration.csv"),
        tables={Path(table).stem: read_table(folder / table) for table in tables},
    )


def main() -> None:
    """Read all tables, write the summary."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.analysis.tables import methods_from_config
    from lowbit.files import write_text
    from lowbit.settings import parse_json, parse_settings
    from lowbit.summary.page import summary_markdown

    models = parse_json(arguments.models, "--models")
    text = summary_markdown(
        arguments.study,
        [
            read_model(name, Path(entry["results"]), Path(entry["record"]), arguments.tables)
            for name, entry in models.items()
        ],
        methods_from_config(parse_json(arguments.methods, "--methods")),
        pd.read_parquet(arguments.documents, columns=["doc_id", "text", "source"]),
        pd.read_csv(arguments.claims),
        parse_settings(BootstrapSettings, arguments.settings, "--settings"),
        arguments.seed,
    )
    write_text(arguments.output, text)


if __name__ == "__main__":
    run(main)
