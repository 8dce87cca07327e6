"""Judge every claim of the papers against what the study measured."""

import argparse
from functools import cache
from pathlib import Path

from lowbit.errors import InputError, run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=Path, nargs="+", required=True, help="claims files (YAML)")
    parser.add_argument(
        "--models",
        required=True,
        help='JSON: {model: {"source", "family", "step" and "base" of the config, "results": '
        'directory of its tables, "residuals": its residuals.parquet, "record": its model.json}}',
    )
    parser.add_argument(
        "--document-settings", required=True, help='JSON: {"source": ..., "length": tokens}'
    )
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    parser.add_argument(
        "--tables",
        nargs="*",
        default=[],
        help="tables of optional stages, in each results directory",
    )
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--csv", type=Path, required=True, help="output: all columns (CSV)")
    parser.add_argument("--markdown", type=Path, required=True, help="output: to read (Markdown)")
    return parser.parse_args()


def main() -> None:
    """Read claims and tables, write the verdicts."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.analysis.studied_models import studied_models
    from lowbit.analysis.tables import methods_from_config, require_methods
    from lowbit.claims.judging import Study, judge
    from lowbit.claims.paper import read_paper
    from lowbit.claims.report import claims_markdown
    from lowbit.claims.statistics import STATISTICS, ModelResults
    from lowbit.claims.study_statistics import STUDY_STATISTICS
    from lowbit.files import read_json, read_table, write_csv, write_text
    from lowbit.settings import parse_json, parse_settings

    models = parse_json(arguments.models, "--models")
    documents = parse_json(arguments.document_settings, "--document-settings")
    methods = parse_json(arguments.methods, "--methods")
    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")

    @cache
    def results(model: str) -> ModelResults:
        folder = Path(models[model]["results"])
        errors = pd.read_parquet(folder / "errors.parquet")
        require_methods(errors, methods_from_config(methods))
        return ModelResults(
            errors=errors,
            sets=pd.read_parquet(folder / "sets.parquet"),
            residuals=pd.read_parquet(models[model]["residuals"]),
            tables={Path(name).stem: read_table(folder / name) for name in arguments.tables},
            methods=methods_from_config(methods),
            settings=settings,
            seed=arguments.seed,
        )

    study = Study(
        sources={name: entry["source"] for name, entry in models.items()},
        results=results,
        methods=methods,
        text_source=documents["source"],
        text_length=documents["length"],
        models=studied_models(
            models, {name: read_json(entry["record"]) for name, entry in models.items()}
        ),
    )
    papers = [read_paper(path, STATISTICS, STUDY_STATISTICS) for path in arguments.claims]
    names = [paper.name for paper in papers]
    if len(set(names)) < len(names):
        raise InputError(f"--claims holds two files with one name: {names}")
    verdicts = judge(papers, study)
    write_csv(arguments.csv, verdicts)
    write_text(arguments.markdown, claims_markdown(verdicts, papers, settings.confidence))


if __name__ == "__main__":
    run(main)
