"""Sizes of a Llama that benchmarks make up."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaConfig


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama whose embeddings and output head are two matrices."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int

    @property
    def block_matrices(self) -> int:
        """Parameters of one block's matrices: four of attention, three of the MLP."""
        return 4 * self.hidden**2 + 3 * self.hidden * self.intermediate

    @property
    def block_parameters(self) -> int:
        """Parameters of one block, its two norms among them."""
        return self.block_matrices + 2 * self.hidden

    @property
    def head_parameters(self) -> int:
        """Parameters of the output head; the embeddings have as many."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layers * self.block_parameters + 2 * self.head_parameters + self.hidden

    def config(self, length: int) -> "LlamaConfig":
        """Return transformers' config, for documents of `length` tokens."""
        from transformers import LlamaConfig

        return LlamaConfig(
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            vocab_size=self.vocabulary,
            max_position_embeddings=length,
            tie_word_embeddings=False,
        )
