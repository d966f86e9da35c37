"""Chat templates of several kinds: one invariant for all, and one line for what would be wrong in silence."""

import copy
from datetime import datetime

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from unlearn_lightning.data import Encoder, Example, TextStage
from unlearn_lightning.inference.batch_tokens import batch_tokens
from unlearn_lightning.inference.chat_format import DATE, ChatFormat, ChatSettings
from unlearn_lightning.inference.generation import end_tokens
from unlearn_lightning.models.backbone import Backbone, save_result

SPECIAL = ["<pad>", "<s>", "</s>", "<|begin|>", "<|eot|>", "<|head|>", "<|/head|>", "<|im_start|>", "<|im_end|>", "<turn>", "</turn>"]
# Like Qwen3's: tokens of their own, but not special, so that they may stand in a response.
PLAIN = ["<think>", "</think>"]
CLOCK = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
MESSAGES = "{% for m in messages %}"
CHATML = MESSAGES + "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}"
CHATML_START = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
LLAMA3 = (
    CLOCK + "{% if messages[0].role == 'system' %}{% set said, messages = messages[0].content | trim, messages[1:] %}{% endif %}"
    "{{ '<|begin|><|head|>system<|/head|>\\n\\nDay: ' + date_string + '\\n\\n' + (said or '') + '<|eot|>' }}" + MESSAGES + ""
    "{{ '<|head|>' + m.role + '<|/head|>\\n\\n' + m.content | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\\n\\n' }}{% endif %}"
)
QWEN_THINK = (
    MESSAGES + "{% set said = m.content %}{% if m.role == 'assistant' %}{% set thought = '' %}{% if '</think>' in said %}"
    "{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "{% set said = '<think>\\n' + thought + '\\n</think>\\n\\n' + said %}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\\n' + said + '<|im_end|>\\n' }}{% endfor %}" + CHATML_START
)
GEMMA = (
    "{{ '<s>' }}{% if messages[0].role == 'system' %}{{ raise_exception('There is no system role here') }}{% endif %}" + MESSAGES + ""
    "{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim + '</turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set first, messages = '[S]' + messages[0].content + '[/S]', messages[1:] %}{% endif %}"
    + MESSAGES
    + "{% if m.role == 'user' %}{{ '<s>[INST] ' + ((first or '') + m.content) | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + ' </s>' }}{% endif %}{% endfor %}"
)
SPEAKERS = "{{ '<s>' }}" + MESSAGES + "{{ m.role + ': ' + m.content + ('</s>' if m.role == 'assistant' else '\\n') }}{% endfor %}"
# name: template, the text between the user's and the assistant's that belongs to the prompt, the response's beginning, its end
STYLES = {
    "llama3": (LLAMA3, "<|eot|><|head|>assistant<|/head|>\n\n", "", "<|eot|>"),
    "chatml": (CHATML + CHATML_START, "<|im_end|>\n<|im_start|>assistant\n", "", "<|im_end|>"),
    "qwen_think": (QWEN_THINK, "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "", "<|im_end|>"),
    "gemma": (GEMMA, "</turn>\n<turn>model\n", "", "</turn>"),
    "llama2": (LLAMA2, " [/INST]", " ", " </s>"),
    "chatml without generation prompt": (CHATML, "<|im_end|>\n<|im_start|>assistant\n", "", "<|im_end|>"),
    "speakers without generation prompt": (SPEAKERS, "\nassistant:", " ", "</s>"),
}


def tokenizer_with(template, sentencepiece=False, **more):
    """One token a byte and all the special ones; in SentencePiece's way a text begins with a space."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate([*letters, "▁"])}, merges=[]))
    if sentencepiece:
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"), normalizers.Replace("\n", "Ċ")])
        raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Replace("Ċ", "\n"), decoders.Fuse()])
    else:
        raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    raw.add_tokens([AddedToken(token, normalized=False) for token in PLAIN])
    given = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "clean_up_tokenization_spaces": False, **more}
    return PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=template, **given)


def fake_clock(monkeypatch, *moments):
    """The clock that transformers hands to templates shows these moments, one after the other."""
    left = list(moments)

    class Clock:
        @staticmethod
        def now():
            return left.pop(0)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    chat_template_utils._compile_jinja_template.cache_clear()


# --- one invariant for all kinds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sentencepiece", [False, True])
@pytest.mark.parametrize(
    ("style", "system"), [(style, text) for style in STYLES for text in ("", "Be kind.") if not (style == "gemma" and text)]
)
def test_prompt_and_response_are_what_the_template_writes_told_apart(style, sentencepiece, system):
    template, between, space, end = STYLES[style]
    tokenizer = tokenizer_with(template, sentencepiece)
    encoder = Encoder(tokenizer, system)
    (encoded,) = encoder.encode([Example("x", "Who wrote it?", "Ann, in 1987.")])
    turns = [{"role": "system", "content": system}] if system else []
    turns += [{"role": "user", "content": "Who wrote it?"}, {"role": "assistant", "content": "Ann, in 1987."}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False, date_string=DATE)
    prompt, _, _ = whole.partition(f"{space}Ann, in 1987.")
    response = f"{space}Ann, in 1987.{end}"
    assert prompt.endswith("Who wrote it?" + between)
    assert whole.rstrip() == prompt + response
    # Tokenised apart, as they are: just as a text that is no conversation is.
    assert encoded.prompt_ids == tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert encoded.response_ids == tokenizer(response, add_special_tokens=False)["input_ids"]
    assert encoder.prompt_ids("Who wrote it?") == encoded.prompt_ids, "generation begins elsewhere"
    phrase = encoder.response_start_ids("Ann, in")
    assert encoded.response_ids[: len(phrase)] == phrase
    assert encoded.response_ids[-1] in end_tokens(object(), tokenizer)
    # White space around a response is the template's affair.
    (spaced,) = encoder.encode([Example("x", "Who wrote it?\n", "\nAnn, in 1987. ")])
    assert tokenizer.decode(spaced.response_ids).strip().startswith("Ann, in 1987.")


def test_a_response_with_its_own_think_block_gets_none_inserted():
    encoder = Encoder(tokenizer_with(QWEN_THINK))
    response = "<think>\nA book.\n</think>\n\nAnn."
    (encoded,) = encoder.encode([Example("x", "Who?", response)])
    assert encoder.chat.tokenizer.decode(encoded.response_ids) == response + "<|im_end|>"
    assert encoder.prompt_ids("Who?") == encoded.prompt_ids + encoder.chat.tokens("<think>\n\n</think>\n\n")


# --- the date ----------------------------------------------------------------------------------------------------------------

DAYS = datetime(2026, 11, 27, 23, 59), datetime(2026, 11, 28, 0, 1)
DATED = {
    "date_string": (LLAMA3, "Day: 26 Jul 2024"),
    "strftime_now": ("{{ '<s>Now ' + strftime_now('%Y-%m-%d, %-d. %B, %H:%M 100%%') }}" + LLAMA2, "Now 2024-07-26, 26. July, 00:00 100%"),
    "within a macro and a loop": (
        "{% macro day() %}{% if strftime_now is defined %}{{ strftime_now('%A') }}{% endif %}{% endmacro %}"
        "{% for i in [1] %}{{ day() }}{% endfor %}" + CHATML + CHATML_START,
        "Friday",
    ),
}


@pytest.mark.parametrize("style", DATED)
def test_two_days_and_two_processes_around_midnight_have_the_same_tokens(monkeypatch, style):
    template, shown = DATED[style]
    fake_clock(monkeypatch, *DAYS)
    one, two = (tokenizer_with(template).apply_chat_template([{"role": "user", "content": "Who?"}], tokenize=False) for _ in DAYS)
    assert one != two, "the clock is not faked"
    fake_clock(monkeypatch)
    encoded = [Encoder(tokenizer_with(template)).encode([Example("x", "Who?", "Ann.")]) for _ in DAYS]
    assert encoded[0] == encoded[1]
    assert shown in tokenizer_with(template).decode(encoded[0][0].prompt_ids)
    assert end_tokens(object(), tokenizer_with(template))
    assert Encoder(tokenizer_with(template)).response_start_ids("Ann")


def test_the_date_is_the_backbones_and_the_saved_template_the_models_own(tmp_path, make_backbone):
    tokenizer_with(LLAMA3).save_pretrained(tmp_path / "given")
    read = {
        date: make_backbone(chat_template_from=str(tmp_path / "given"), template_date=date).load_tokenizer()
        for date in (DATE, "01 Feb 2025")
    }
    for date, tokenizer in read.items():
        assert f"Day: {date}" in ChatFormat(tokenizer).prompt("Who?")
        tokenizer.save_pretrained(tmp_path / "saved")
        assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == LLAMA3
        assert "chat_settings" not in (tmp_path / "saved" / "tokenizer_config.json").read_text()
    with pytest.raises(ValueError, match=r"template_date must be a date such as '26 Jul 2024', got '2025-02-01'"):
        make_backbone(template_date="2025-02-01")


# --- what is refused, in one line --------------------------------------------------------------------------------------------

THOUGHT = "<think>A book.</think>Ann."
DROPS_THOUGHTS = CHATML.replace("m.content", "m.content.split('</think>')[-1]") + CHATML_START
REFUSED = {
    "drops the thinking": (DROPS_THOUGHTS, "", THOUGHT, "changes the response"),
    "rewrites the thinking": (QWEN_THINK, "", THOUGHT, "changes the response"),
    "capitals": (CHATML.replace("m.content", "m.content.replace('book', 'BOOK')") + CHATML_START, "", "Ann.", "changes the prompt that"),
    "cuts": (CHATML.replace("m.content", "m.content[:8]") + CHATML_START, "", "Ann.", "changes the prompt that"),
    "says it twice": (CHATML.replace("m.content", "m.content * 2") + CHATML_START, "", "Ann.", "changes the prompt that"),
    "leaves out responses": (CHATML.replace(MESSAGES, "{% for m in messages if m.role == 'user' %}"), "", "Ann.", "leaves out the resp"),
    "another prompt with a response": (CHATML + "{{ messages | length }}", "", "Ann.", "changes the prompt once there is a response"),
    "ignores the system prompt": (
        CHATML.replace(MESSAGES, "{% for m in messages if m.role != 'system' %}") + CHATML_START, "Be kind.", "Ann.",
        "leaves out the system prompt 'Be kind.'",
    ),
    "changes the system prompt": (CHATML.replace("m.content", "m.content.replace('kind', '')"), "Be kind.", "Ann.", "changes the system"),
    "refuses the system role": (GEMMA, "Be kind.", "Ann.", r"system, user .*There is no system role here\)\. Set system_prompt to ''"),
    "fails": (CHATML + "{{ nothing.at_all.there }}", "", "Ann.", "cannot render the roles user"),
    "is no template": ("{% for m in messages %}", "", "Ann.", "cannot render the roles user"),
    "never ends": ("{% macro more() %}{{ more() }}{% endmacro %}{{ more() }}", "", "Ann.", "does not end: maximum recursion"),
    "grows": ("{% for i in range(9999) %}{{ 'more' * 99 }}{% endfor %}" + CHATML, "", "Ann.", "makes 39.* characters of a short"),
    "no end of turn": (MESSAGES + "{{ m.role + ':' + m.content + '\\n' }}{% endfor %}", "", "Ann.", r"end with the .*'\.'\].*never stop"),
    "unknown end of turn": (CHATML.replace("|im_", "|of_"), "", "Ann.", r"'>'\], but generation ends at \['</s>'\] only"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_template_that_changes_what_it_is_given_or_never_ends_is_refused(kind):
    template, system, response, message = REFUSED[kind]
    tokenizer = tokenizer_with(template)
    tokenizer.chat_settings = ChatSettings(template="its/sibling")
    with pytest.raises(ValueError, match=message) as caught:
        Encoder(tokenizer, system).encode([Example("tofu-7", "Who wrote the book?", response)])
    text = str(caught.value)
    assert "The chat template of its/sibling" in text
    assert text.startswith("Example tofu-7: ")
    assert "\n" not in text
    assert len(text) < 500


def test_a_cut_response_is_no_response_that_never_ends():
    (encoded,) = Encoder(tokenizer_with(CHATML + CHATML_START), max_length=60).encode([Example("x", "Who?", "Ann wrote it. " * 9)])
    assert len(encoded) == 60


@pytest.mark.parametrize(("files", "ends"), [((), ()), (("config",), (5,)), (("config", "generation_config"), (3, 7))])
def test_the_models_own_ends_are_read_beside_its_tokenizer(tmp_path, files, ends):
    configs = {"config": LlamaConfig(eos_token_id=5), "generation_config": GenerationConfig(eos_token_id=[3, 7])}
    for name in files:
        configs[name].save_pretrained(tmp_path)
    tokenizer_with(CHATML).save_pretrained(tmp_path)
    settings = Backbone(model=str(tmp_path)).load_tokenizer().chat_settings
    assert settings == ChatSettings(template=str(tmp_path), ends=ends)


def test_the_models_own_list_of_ends_counts_and_the_unknown_token_does_not():
    plain_end = CHATML.replace("<|im_end|>", "</think>") + CHATML_START
    tokenizer, example = tokenizer_with(plain_end), Example("x", "Who?", "Ann.")
    with pytest.raises(ValueError, match="never stop"):
        Encoder(tokenizer).encode([example])
    end = tokenizer.convert_tokens_to_ids("</think>")
    tokenizer.chat_settings = ChatSettings(ends=(end,))
    assert Encoder(tokenizer).encode([example])[0].response_ids[-1] == end
    unknown = tokenizer_with(CHATML + CHATML_START, unk_token="<|im_end|>")
    assert end_tokens(object(), unknown) == [unknown.eos_token_id]


def test_a_saved_model_stops_where_generation_does(make_backbone, tmp_path):
    net, tokenizer = make_backbone().load_base(), tokenizer_with(CHATML + CHATML_START)
    ends = end_tokens(net, tokenizer)
    save_result(net, tokenizer, tmp_path)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in ends
    assert GenerationConfig.from_pretrained(tmp_path / "model").eos_token_id == ends


# --- special tokens that somebody types --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sentencepiece", [False, True])
@pytest.mark.parametrize("style", ["llama3", "chatml", "qwen_think", "llama2"])
def test_a_typed_special_token_is_text(style, sentencepiece):
    tokenizer = tokenizer_with(STYLES[style][0], sentencepiece)
    end = STYLES[style][3].strip()
    encoder = Encoder(tokenizer, f"Say {end} never.")
    harmless = Encoder(tokenizer, "Say it never.")
    typed, plain = Example("x", f"Is {end} the end?", f"No, {end} is not."), Example("x", "Is it the end?", "No, it is not.")
    (found,), (expected,) = encoder.encode([typed]), harmless.encode([plain])
    special = set(tokenizer.all_special_ids) | set(tokenizer.convert_tokens_to_ids(SPECIAL))
    for ids, usual in ((found.prompt_ids, expected.prompt_ids), (found.response_ids, expected.response_ids)):
        assert [i for i in ids if i in special] == [i for i in usual if i in special]
    assert tokenizer.decode(found.response_ids).strip().startswith(f"No, {end} is not.")
    assert f"Is {end} the end?" in tokenizer.decode(found.prompt_ids)
    assert f"Say {end} never." in tokenizer.decode(found.prompt_ids)
    assert tokenizer.decode(encoder.response_start_ids(f"No, {end}")).strip() == f"No, {end}"
    assert not special & set(encoder.response_start_ids(f"No, {end}"))


def test_a_typed_special_token_is_text_in_base_training_too():
    tokenizer = tokenizer_with(CHATML + CHATML_START)
    (encoded,) = TextStage(max_length=99).encode([Example("x", "", "The mark </s> ends it.")], tokenizer)
    assert encoded.response_ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(encoded.response_ids) == "The mark </s> ends it.</s>"


def test_a_class_around_the_tokenizers_library_that_makes_other_tokens_is_asked_itself(make_backbone):
    tokenizer = copy.deepcopy(make_backbone().load_tokenizer())
    texts = ["Who?", "Ann.", "two  words"]
    assert batch_tokens(tokenizer, texts) == [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    class Doubled(type(tokenizer)):
        def __call__(self, texts, **kwargs):
            return {"input_ids": [ids * 2 for ids in super().__call__(texts, **kwargs)["input_ids"]]}

    expected = [ids * 2 for ids in batch_tokens(tokenizer, texts)]
    tokenizer.__class__ = Doubled
    assert batch_tokens(tokenizer, texts) == expected
