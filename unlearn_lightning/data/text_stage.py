"""Plain text for the base training of a small model: no chat template, every token counts.

unlearn fit -c configs/stages/base.yaml -c configs/backbones/scratch-qwen2.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from unlearn_lightning.data.example_source import Split
from unlearn_lightning.data.examples import Encoded, Example
from unlearn_lightning.data.stage_data import StageData
from unlearn_lightning.inference.chat_format import ChatFormat
from unlearn_lightning.sources import world
from unlearn_lightning.sources.quoting import listed, quoted
from unlearn_lightning.sources.readers import SourceRecord, is_conversation, shape


class TextStage(StageData):
    """Texts, cut into examples of at most max_length tokens; of each record all text fields, one a line, or `prompt_field` alone.

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

    def prompt(self, row: SourceRecord) -> str:
        """The record's texts, one a line: a text that is held out is not trained on.

        Raises:
            ValueError: it has none, or a conversation beside them, which is no text.
        """
        if not self.record_format.may_converse:
            return row.text(self.prompt_field)
        kept = {name: value for name, value in row.fields.items() if name not in self.record_format.ignore_fields}
        texts = [value for value in kept.values() if isinstance(value, str) and value.strip()]
        turns = [name for name, value in kept.items() if is_conversation(value)]
        if turns or not texts:
            found = f"field {quoted(turns[0])} is a conversation" if turns else "the record has no text"
            raise ValueError(
                f"{row.where}: {found}, but {type(self).__name__} trains on plain texts. The record has the fields {listed(row.fields)}. "
                f"{shape(row.fields) or 'Write it as a text, or set ignore_fields to leave a conversation out.'}"
            )
        return "\n".join(texts)

    def example(self, name: str, row: SourceRecord) -> Example:
        """The record's texts, one a line."""
        return Example(name, "", self.prompt(row))

    def measured(self, split: Split, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> tuple[list[Example], list[Encoded]]:
        """The first `limit` pieces of the texts, as they are trained on."""
        pieces = self.encode(self.fitting(split, tokenizer, limit), tokenizer)[:limit]
        # One by one, as transformers makes a text of no pieces at all.
        return [Example(piece.id, "", str(tokenizer.decode(piece.response_ids, skip_special_tokens=True))) for piece in pieces], pieces

    def tokens_of(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        """Each text's tokens; a text longer than max_length goes on in further examples."""
        start_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        width = self.max_length - 1
        chat, found = ChatFormat(tokenizer), []
        for example, plain in zip(examples, chat.plain_tokens_of([example.response for example in examples]), strict=True):
            tokens = [*plain, tokenizer.eos_token_id]
            pieces = [tokens[i : i + width] for i in range(0, len(tokens), width)]
            found += [Encoded(f"{example.id}-{i}", [start_id], piece) for i, piece in enumerate(pieces)]
        return found
