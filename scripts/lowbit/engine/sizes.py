"""How much the engine handles at once; needs no PyTorch, for the plan of a study reads it, too."""

STREAM_SHARD = 256
"""Documents whose hidden states are held at once where weights are read block by block."""
PROBE_DOCUMENTS = 2
"""Documents that the gates look at; the noise floor between batch sizes looks at a whole batch."""
LOGITS_PER_CHUNK = 1 << 21
"""Logits in flight per stream: 8 MiB in float32, within a large cache, few enough calls."""
