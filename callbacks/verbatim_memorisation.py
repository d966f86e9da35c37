"""MUSE's VerbMem: whether the model goes on with a text as it was.

- class_path: VerbatimMemorisation
  init_args: {data: {class_path: ChatStage, init_args: {source: verbmem_forget.json, response_field: gt, held_out_examples: 0}}}
"""

from __future__ import annotations

from typing import Any

from callbacks.greedy_continuation import GreedyContinuation
from callbacks.probe import Quantity
from unlearn_lightning.data import Encoded, Example


class VerbatimMemorisation(GreedyContinuation):
    """VerbMem of MUSE: ROUGE-L F1 of 128 greedy tokens after a text's beginning with its next 128 tokens.

    The data's prompt is the beginning, and its response what follows. A plain text (TextStage) is cut in the middle. The target is the
    retrained model's value.
    """

    probe_name = "verbatim"
    quantities = {"rouge_l_f1": Quantity("VerbMem (ROUGE-L F1)", "share", "higher")}

    def question(self, example: Example, encoded: Encoded, tokenizer: Any) -> tuple[list[int], str]:
        """The beginning, and as many tokens of what follows as are continued."""
        if example.prompt:
            prompt, rest = self.prompt_ids(example.prompt, tokenizer), self.encoder.chat.plain_tokens(example.response)
        else:
            half = (len(encoded.response_ids) + 1) // 2
            prompt, rest = [*encoded.prompt_ids, *encoded.response_ids[:half]], encoded.response_ids[half:]
        return prompt, str(tokenizer.decode(rest[: self.max_new_tokens], skip_special_tokens=True))
