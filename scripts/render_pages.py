"""Turn Markdown into HTML pages, which the report shows in place; Markdown it offers to save."""

import argparse
from pathlib import Path

from lowbit.errors import run
from lowbit.files import write_text

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-size: 14px; }}
th, td {{ border: 1px solid #ccc; padding: .25rem .5rem; text-align: left; vertical-align: top; }}
th {{ background: #f3f3f3; }}
</style></head><body>
{body}</body></html>
"""


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, nargs="+", required=True, help="pages to read")
    parser.add_argument("--html", type=Path, nargs="+", required=True, help="pages to write")
    return parser.parse_args()


def main() -> None:
    """Render each page."""
    arguments = parse_arguments()
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark").enable("table")
    for source, target in zip(arguments.markdown, arguments.html, strict=True):
        text = source.read_text(encoding="utf-8").replace(".md)", ".html)")  # links between pages
        body = renderer.render(text)
        write_text(target, PAGE.format(title=source.stem, body=body))


if __name__ == "__main__":
    run(main)
