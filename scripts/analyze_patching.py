"""Say what patching restores on D_large and D_ctrl, with the papers' own values beside it."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patching", type=Path, required=True, help="patching.parquet")
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--claims", type=Path, nargs="+", required=True, help="claims files (YAML)")
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument("--source", required=True, help="source of the model, as in the config")
    parser.add_argument(
        "--document-settings", required=True, help='JSON: {"source": ..., "length": tokens}'
    )
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--table", type=Path, required=True, help="output: every condition (CSV)")
    parser.add_argument("--markdown", type=Path, required=True, help="output: to read (Markdown)")
    return parser.parse_args()


def main() -> None:
    """Read the NLLs of every document and condition; write shares and perplexities."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.mechanisms.patching import patching_table
    from lowbit.analysis.mechanisms.patching_report import patching_markdown
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.analysis.tables import document_ids
    from lowbit.claims.judging import Study
    from lowbit.claims.paper import read_paper
    from lowbit.claims.paper_patching import paper_perplexities
    from lowbit.claims.statistics import STATISTICS
    from lowbit.claims.study_statistics import STUDY_STATISTICS
    from lowbit.files import write_csv, write_text
    from lowbit.settings import parse_json, parse_settings

    documents = parse_json(arguments.document_settings, "--document-settings")
    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    study = Study(
        sources={arguments.name: arguments.source},
        results={}.__getitem__,
        methods=parse_json(arguments.methods, "--methods"),
        text_source=documents["source"],
        text_length=documents["length"],
    )
    doc_ids = document_ids(pd.read_parquet(arguments.errors, columns=["doc_id"]))
    patching = pd.read_parquet(arguments.patching)
    shares = patching_table(patching, doc_ids, settings, arguments.seed)
    papers = [read_paper(path, STATISTICS, STUDY_STATISTICS) for path in arguments.claims]
    known = paper_perplexities(papers, study, arguments.name)
    write_csv(arguments.table, shares)
    write_text(
        arguments.markdown,
        patching_markdown(shares, known, arguments.name, settings.confidence),
    )


if __name__ == "__main__":
    run(main)
