"""The examples in PopQA's prompts. Runs in the environment of lm-evaluation-harness."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from lm_eval.api.samplers import ContextSampler

from lowbit.errors import InputError


class OtherRelations(ContextSampler):
    """Draws examples of other relations than the question's, as many of each, in random order.

    Of PopQA's 16 relations, 15 examples are one of each other one (arXiv 2212.10511): the prompt
    shows what an answer looks like, and gives away nothing of the question's own relation.
    """

    @cached_property
    def by_relation(self) -> dict[str, list[Mapping[str, Any]]]:
        """All items that may be examples, by their relation."""
        found = defaultdict(list)
        for item in self.df:
            found[item["prop"]].append(item)
        return dict(found)

    def sample(
        self,
        n: int,
        eval_doc: Mapping[str, Any] | None = None,
        df: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> list[Mapping[str, Any]]:
        """Draw `n` examples for the question `eval_doc`.

        Raises:
            InputError: there are not enough of other relations.
        """
        own = None if eval_doc is None else eval_doc["prop"]
        others = [relation for relation in self.by_relation if relation != own]
        self.rnd.shuffle(others)
        drawn: list[Mapping[str, Any]] = []
        for place, relation in enumerate(others):
            count = n // len(others) + (place < n % len(others))
            items = self.by_relation[relation]
            if count > len(items):
                raise InputError(
                    f"{n} examples for a question about {own!r} take {count} about {relation!r}, "
                    f"of which there are {len(items)}; write fewer shots"
                )
            drawn += self.rnd.sample(items, count)
        if len(drawn) < n:
            raise InputError(
                f"examples are of other relations (column prop) than the question's, {own!r}, but "
                "there is no other; write shots: 0"
            )
        self.rnd.shuffle(drawn)
        return drawn
