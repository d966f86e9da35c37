"""Plain text for the base training of a small model: no chat template, every token counts.

unlearn fit -c configs/stages/base.yaml -c configs/backbones/tiny-llama.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from unlearn_lightning import world
from unlearn_lightning.chat_format import ChatFormat
from unlearn_lightning.data.examples import Encoded, Example
from unlearn_lightning.data.stage_data import Split, StageData


class TextStage(StageData):
    """Texts (all text fields of each record, one a line), cut into examples of at most max_length tokens.

    Every token counts for the loss, behind the tokenizer's beginning-of-text token.
    """

    stage_name = "text"
    train_file = "instruct/ism_sda_k2_1000.json"
    hub_name = "PrincetonPLI/Instruct-SkillMix-SDA"
    world_examples = 12800

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """The generic base-training mix; its first texts are the held-out ones."""
        if split == "held_out":
            return world.base_text(count, self.data_seed)
        return world.base_text(self.held_out_examples + count, self.data_seed)[self.held_out_examples :]

    def examples(self, split: Split) -> list[Example]:
        """Each record's texts, one a line."""
        texts = ["\n".join(v for v in row.fields.values() if isinstance(v, str) and v.strip()) for row in self.rows(split)]
        return [Example(f"{self.stage_name}-{split}-{i:05d}", "", text) for i, text in enumerate(texts)]

    def encode(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        """Each text's tokens; a text longer than max_length goes on in further examples."""
        start_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        width = self.max_length - 1
        chat, found = ChatFormat(tokenizer), []
        for example in examples:
            tokens = [*chat.plain_tokens(example.response), tokenizer.eos_token_id]
            pieces = [tokens[i : i + width] for i in range(0, len(tokens), width)]
            found += [Encoded(f"{example.id}-{i}", [start_id], piece) for i, piece in enumerate(pieces)]
        return found
