"""What holds for every rule, read from the rules' own text."""

import re
from pathlib import Path

RULES = {
    name: block
    for path in sorted(Path("rules").glob("*.smk"))
    if path.name not in ("bench.smk", "demo_model.smk")  # workflows of their own
    for name, block in re.findall(
        r"^ *rule (\w+):\n(.*?)(?=^ *rule |\Z)", path.read_text(), re.M | re.S
    )
}


def test_rules_declare_the_threads_that_their_scripts_give_to_pytorch() -> None:
    """Otherwise Snakemake would start two jobs of two threads on two cores."""
    threaded = {
        name
        for name, block in RULES.items()
        if "STUDY.engine.model_dump(" in block or "--threads {THREADS}" in block
    }
    assert {"score", "measure_residuals", "patch", "probe_model"} <= threaded
    assert {name for name, block in RULES.items() if "threads: THREADS" in block} == threaded
