"""A study with known answers, written as the files that the analysis scripts read.

Every document has a hidden fragility f ~ N(0, 1). Errors of all methods grow with f, the residual
norms r and z fall with it and the norm h rises with it, the more so the deeper the layer. So
errors correlate between methods, r predicts them, and the order reverses from r to h. The texts say
nothing of it. A document's error is spread over its tokens very unevenly.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lowbit.files import sha256

METHODS = {
    f"{quantizer}{bits}": {"quantizer": quantizer, "bits": bits, "group_size": 64}
    for quantizer in ("rtn", "nf", "hqq")
    for bits in (2, 3, 4)
}
LAYERS = 6
VOCABULARY = 5000
NOISE = {2: 0.5, 3: 1.0, 4: 2.0}
"""Noise of the errors, relative to what fragility explains, by bits."""


@dataclass(frozen=True)
class SyntheticStudy:
    """Paths of the study's files; `results` is where the analyses write."""

    root: Path
    scores: Path
    tokens: Path
    residuals: Path
    dimensions: Path
    documents: Path
    model: Path
    results: Path


def make_scores(n: int, methods: dict, seed: int = 0) -> tuple[dict, np.ndarray]:
    """Return ({"full" and method: score table}, fragility [n])."""
    rng = np.random.default_rng(seed)
    fragility = rng.normal(size=n)
    nll = 3.5 - 0.3 * fragility + rng.normal(scale=0.3, size=n)
    doc_ids = [f"doc{i:05d}" for i in range(n)]
    zeros = np.zeros(n)
    columns = {"doc_id": doc_ids, "nll": nll, "kl": zeros, "top1_flip_rate": zeros}
    scores = {"full": pd.DataFrame({**columns, "entropy": 0.5 + 0.8 * nll})}
    for name, method in methods.items():
        scale = 0.8 / 4 ** (method["bits"] - 2)
        noise = rng.normal(scale=NOISE.get(method["bits"], 1.0), size=n)
        error = scale * (1.5 + 0.4 * (fragility + noise))
        kl = np.abs(error) * rng.uniform(0.9, 1.1, size=n)
        flips = np.clip(0.3 * scale + 0.02 * rng.normal(size=n), 0, 1)
        columns = {"doc_id": doc_ids, "nll": nll + error, "kl": kl, "top1_flip_rate": flips}
        scores[name] = pd.DataFrame(columns)
    return scores, fragility


def make_token_scores(scores: dict, length: int, seed: int = 3) -> dict[str, dict]:
    """Per method the columns with a value per predicted token, [n, length - 1] each.

    A token's error is the document's times a weight of mean 1; the weights are the same for every
    method, spread unevenly, and twice as large on average where the full model's confidence is
    below 0.5 as where it is above. There the most likely token changes.
    """
    rng = np.random.default_rng(seed)
    full = scores["full"]["nll"].to_numpy()
    shape = (len(full), length - 1)
    confidence = rng.uniform(size=shape).astype(np.float32)
    weight = rng.gamma(0.3, size=shape) * np.where(confidence < 0.5, 2, 1)
    weight /= weight.mean(axis=1, keepdims=True)
    nll = rng.gamma(2, size=shape)
    nll *= (full / nll.mean(axis=1))[:, None]
    columns = {}
    for name, table in scores.items():
        error = (table["nll"].to_numpy() - full)[:, None] * weight
        flip = confidence < 0.5 if name != "full" else np.zeros(shape, bool)
        columns[name] = {"token_nll": (nll + error).astype(np.float32), "token_flip": flip}
    columns["full"]["token_confidence"] = confidence
    return columns


def make_residuals(fragility: np.ndarray, seed: int = 1) -> pd.DataFrame:
    """Norms r, z, h per document and layer, tied to fragility more strongly in deeper layers."""
    rng = np.random.default_rng(seed)
    parts = []
    for layer in range(1, LAYERS + 1):
        tie = 0.03 * layer / LAYERS
        noise = rng.normal(scale=0.02, size=(5, len(fragility)))
        base = 10.0 * 1.6**layer
        parts.append(
            pd.DataFrame(
                {
                    "doc_id": [f"doc{i:05d}" for i in range(len(fragility))],
                    "layer": layer,
                    "r": base * (1 - tie * fragility + noise[0]),
                    "z": 1.2 * base * (1 - 0.7 * tie * fragility + noise[1]),
                    "h": 20.0 * (1 + tie * fragility + noise[2]),
                    "r_kurtosis": 30.0 * (1 - tie * fragility + noise[3]),
                    "h_kurtosis": 5.0 * (1 + noise[4]),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def make_dimensions(width: int = 16) -> pd.DataFrame:
    """Mean |r| per layer and dimension; the larger, the smaller the scale gamma."""
    layer, dimension = np.indices((LAYERS, width)).reshape(2, -1)
    magnitude = 1.0 + dimension
    return pd.DataFrame(
        {
            "layer": layer + 1,
            "dimension": dimension,
            "magnitude": magnitude,
            "gamma": 1 / magnitude,
        }
    )


def write_study(
    root: Path, n: int = 200, methods: dict = METHODS, length: int = 40
) -> SyntheticStudy:
    """Write a synthetic study's inputs below `root`."""
    study = SyntheticStudy(
        root=root,
        scores=root / "scores.json",
        tokens=root / "tokens.parquet",
        residuals=root / "residuals.parquet",
        dimensions=root / "dimensions.parquet",
        documents=root / "documents.parquet",
        model=root / "model.json",
        results=root / "results" / "demo",
    )
    study.results.mkdir(parents=True)
    scores, fragility = make_scores(n, methods)
    record = {}
    token_scores = make_token_scores(scores, length)
    for name, table in scores.items():
        path = root / f"{name}.parquet"
        write_scores(path, table, token_scores[name])
        record[name] = {"path": str(path), "sha256": sha256(path)}
    study.scores.write_text(json.dumps(record))
    tokens = np.random.default_rng(2).integers(0, VOCABULARY, (n, length)).astype(np.int32)
    write_tokens(study.tokens, list(scores["full"]["doc_id"]), tokens)
    make_residuals(fragility).to_parquet(study.residuals, index=False)
    make_dimensions().to_parquet(study.dimensions, index=False)
    write_documents(study.documents, list(scores["full"]["doc_id"]))
    record = {"source": "demo", "parameters": 8_100_000, "layers": LAYERS, "hidden_size": 256}
    record |= {"vocabulary": VOCABULARY, "architecture": "LlamaForCausalLM"}
    study.model.write_text(json.dumps(record))
    return study


def write_scores(path: Path, table: pd.DataFrame, token_scores: dict[str, np.ndarray]) -> None:
    """Write a method's scores as the score stage does."""
    columns = {name: pa.array(values) for name, values in table.items()}
    for name, values in token_scores.items():
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    pq.write_table(pa.table(columns), path)


def write_tokens(path: Path, doc_ids: list[str], tokens: np.ndarray) -> None:
    """Write a token table as the tokenize stage does; each token is a word of its own."""
    words = np.array([f"word{token}" for token in range(VOCABULARY)])
    texts = [" ".join(row) for row in words[tokens]]
    flat = pa.array(tokens.reshape(-1), pa.int32())
    lists = pa.FixedSizeListArray.from_arrays(flat, tokens.shape[1])
    pq.write_table(pa.table({"doc_id": doc_ids, "token_ids": lists, "text": texts}), path)


def write_documents(path: Path, doc_ids: list[str]) -> None:
    """Write a document table; texts hold what breaks careless Markdown (bars, line breaks)."""
    texts = [f"Document {name} | with a bar,\na line break and `code`. " * 20 for name in doc_ids]
    pd.DataFrame({"doc_id": doc_ids, "text": texts, "source": "module synthetic"}).to_parquet(path)
