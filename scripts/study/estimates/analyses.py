"""What analyses of the scores take: no model is run, tables of documents and resamples are."""

from study.config.study import Study

FLOAT64 = 8
RESAMPLES = 3
"""Arrays `[1 + resamples, documents]` at once: counts, weights, and one more in between."""
CHUNK = 4_000_000
"""Numbers of the largest temporary array of rank statistics: `lowbit.analysis.statistics`."""
CHUNKS = 2
"""Arrays of that size at once."""
RANKED = ("correlate", "judge_claims", "predict", "analyze_residuals")
"""Rules that rank every resample anew."""
TOKEN_BYTES = {
    "analyze_tokens": 320,
    "check_calibration": 230,
    "compute_errors": 60,
    "tokenize_documents": 100,
}
"""Bytes at once per token of a method's scores, of the documents' n-grams, of lists of ids."""


def analysis_memory(rule: str, study: Study) -> float:
    """Bytes beside Python and its libraries."""
    n, columns = study.documents.n, 2 * len(study.methods)
    resamples = 1 + study.bootstrap.resamples
    found = TOKEN_BYTES.get(rule, 0) * n * study.documents.length
    if rule.startswith(("analyze", "correlate", "judge", "predict", "write_summary", "compare")):
        found += FLOAT64 * RESAMPLES * resamples * n
    if rule in RANKED:
        found += FLOAT64 * CHUNKS * min(CHUNK, resamples * n * columns)
    return found


def analysis_work(rule: str, study: Study) -> float:
    """Documents times methods: the rows that an analysis goes over."""
    return float(study.documents.n * len(study.methods))
