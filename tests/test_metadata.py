"""What the repository says of itself: licence, citation, catalog."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_bytes())
CATALOG = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_bytes())


def test_licence_and_authors_are_the_same_everywhere() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith(f"{CITATION['license']} License\n")
    assert re.search(r"^Copyright \(c\) \d{4} (.+)$", licence, re.MULTILINE)[1] in {
        author["name"] for author in CITATION["authors"]
    }
    crate = (ROOT / "scripts/study/records/crate.py").read_text(encoding="utf-8")
    assert f'"https://spdx.org/licenses/{CITATION["license"]}"' in crate


def test_the_papers_of_the_claims_are_cited() -> None:
    titles = {reference["title"] for reference in CITATION["references"]}
    papers = [yaml.safe_load(file.read_bytes()) for file in (ROOT / "claims").glob("*.yaml")]
    assert papers
    for paper in papers:
        assert any(title.startswith(paper["title"]) for title in titles), paper["title"]


def test_the_catalog_says_what_the_workflow_offers() -> None:
    offered = CATALOG["usage"]["software-stack-deployment"]
    profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_bytes())
    assert {name for name, works in offered.items() if works} == {
        profile["software-deployment-method"]
    }
    rules = "".join(file.read_text() for file in (ROOT / "rules").glob("*.smk"))
    assert ("container:" in rules) == offered["apptainer"]
    assert CATALOG["usage"]["report"] is True
