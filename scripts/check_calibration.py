"""Check that no calibration text is near a scored document; record how near the nearest is."""

import argparse
from pathlib import Path

from lowbit.errors import InputError, run
from lowbit.files import write_json


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=Path, required=True, help="tokens that are scored")
    parser.add_argument("--calibration", type=Path, nargs="+", required=True, help="their tokens")
    parser.add_argument("--names", required=True, help="JSON: the calibration sets' names")
    parser.add_argument(
        "--settings", required=True, help='JSON: {"duplicate_ngram", "duplicate_jaccard"}'
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON to write")
    return parser.parse_args()


def main() -> None:
    """Find the nearest pair of each calibration set; stop where it is too near."""
    arguments = parse_arguments()
    from lowbit.inputs.near_duplicates import nearest_pair
    from lowbit.inputs.tokens import read_tokens
    from lowbit.settings import parse_json

    settings = parse_json(arguments.settings, "--settings")
    doc_ids, tokens = read_tokens(arguments.tokens)
    found = {}
    for name, path in zip(
        parse_json(arguments.names, "--names"), arguments.calibration, strict=True
    ):
        text_ids, texts = read_tokens(path)
        jaccard, text, document = nearest_pair(texts, tokens, settings["duplicate_ngram"])
        if jaccard > settings["duplicate_jaccard"]:
            raise InputError(
                f"calibration.{name} and documents overlap: {text_ids[text]} and "
                f"{doc_ids[document]} share token {settings['duplicate_ngram']}-grams with a "
                f"Jaccard similarity of {jaccard:.2f} (errors.duplicate_jaccard allows "
                f"{settings['duplicate_jaccard']:g}); quantizers must not learn from what is "
                "scored. Take calibration texts from elsewhere"
            )
        found[name] = {
            "largest_jaccard": round(jaccard, 6),
            "text": text_ids[text],
            "document": doc_ids[document],
        }
    write_json(arguments.output, found)


if __name__ == "__main__":
    run(main)
