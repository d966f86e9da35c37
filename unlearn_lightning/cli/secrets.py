"""A configuration is written into run folders and logged as a whole, so keys and passwords have no place in it.

refuse_secrets({"setup": "export WANDB_API_KEY=0123..."})   # ValueError: setup holds a key or a password, ...

A value is refused for what it looks like, which the detectors of `detect-secrets` know for two dozen services, for the setting that it
stands in (`token`, `*_secret`, `authorization`), and for what stands in a text: an address with a key, `NAME_TOKEN=...`, `--password ...`.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

# Names that are a key's whatever the value is. Words of one name are told apart at _, -, ., and capital letters.
SECRET_WORDS = {
    "token", "secret", "secrets", "password", "passwd", "passphrase", "passcode", "pwd", "pw", "pass", "credential", "credentials",
    "authorization", "apikey", "apitoken", "authtoken", "accesstoken", "secretkey", "privatekey", "cookie", "sessionid",
}  # fmt: skip
# A `*_key` of these is a secret; of others it may be the name of a field, and is one only where its value looks random.
KEY_OF = {
    "api",
    "access",
    "secret",
    "private",
    "auth",
    "account",
    "service",
    "encryption",
    "signing",
    "ssh",
    "wandb",
    "hf",
    "openai",
    "anthropic",
}
# Words that end so are as good: mysecret, dbpassword.
SECRET_ENDINGS = ("secret", "password", "passwd", "passphrase")
# Digits of a number that is a token of access, and of one that may be a token's place in the largest vocabularies.
SHORTEST_NUMBER, LONGEST_TOKEN_ID = 4, 6
# A name of one of these endings says where a secret is to be found, or how many there are, and is none itself.
NOT_ITSELF = {"variable", "env", "file", "path", "name", "id", "ids", "count", "length", "class", "type", "field"}
# A `*_token` of these is one of a text, such as <s> or [PAD].
TEXT_TOKENS = {
    "bos", "eos", "pad", "unk", "cls", "sep", "mask", "image", "audio", "video", "special", "start", "end", "begin", "stop", "think",
    "turn", "prefix", "suffix", "middle", "eot", "eom", "bot", "new", "added", "additional", "control",
    "text", "next", "last", "first",
}  # fmt: skip
TEXT_TOKEN = re.compile(r"\s*[<\[｜|{(].*[>\]｜|})]\s*")
NAMES_OF_OURS = ("stages", "objectives", "probes", "paths", "relearning")
# A value that only says where the secret is: $HF_TOKEN, ${HF_TOKEN}, $(cat ~/.key), <your key>, ***, and names of variables.
ELSEWHERE = re.compile(r"\$.*|`.*`|<.*>|\{\{?.*\}?\}|\*+|x+|\.\.\.|env:.*|[~./].*|null|none|true|false|unset", re.I | re.S)
VARIABLE_NAME = re.compile(r"(?:[A-Z][A-Z0-9]*_)+[A-Z0-9]+")
# An address with a key before its host. A name alone is none where one logs in with a key file.
USER_INFO = re.compile(r"\b(?!(?:ssh|sftp|rsync|git\+ssh|hdfs)://[^/@:\s]+@)[a-z][a-z0-9+.-]*://([^/@\s'\"]+)@", re.I)
# In a text: ?token=..., export NAME_KEY=..., "api_key": "...", --password ..., Authorization: Bearer ...
ASSIGNED = re.compile(r"([A-Za-z][\w.-]*)[\"']?(\s*=\s*|:\s*)(?:Bearer\s+|Basic\s+|Token\s+)?[\"']?([^\s\"'&;|,?]+)", re.I)
FLAGGED = re.compile(r"(?<!\S)--?([A-Za-z][\w.-]*)\s+[\"']?([^\s\"'&;|,?-][^\s\"'&;|,?]*)")
BEARER = re.compile(r"\bBearer\s+([^\s\"']{6,})", re.I)
RANDOM_LENGTH, RANDOM_BITS, RANDOM_CHANGES = 16, 3.0, 3
# Detectors that take too much: an entropy alone is also a commit's or a digest's, and a public address is no secret.
LEFT_OUT = {"Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector", "IPPublicDetector", "BasicAuthDetector"}
# What the detectors do not know: Hugging Face, W&B's new keys, and keys of OpenAI's and Anthropic's kind.
FURTHER = re.compile(r"\bhf_[A-Za-z0-9]{30,}|\bwandb_v\d+_[A-Za-z0-9_]{20,}|\bsk-[A-Za-z0-9_-]{20,}")
# A command's words in which the secret has no name before it: `wandb login KEY`, `curl -u me:KEY`, `set -x HF_TOKEN KEY`, a line of .netrc.
COMMANDED = re.compile(
    r"\b(?:wandb|hf|huggingface-cli|docker|mlflow|auth)\s+(?:auth\s+)?login\s+(?:--?relogin\s+)?([^\s\"'&;|-][^\s\"'&;|]*)"
    r"|\b(?:curl|lftp|http|https)\s(?:[^;&|\n]*\s)?(?:-u|--user|--proxy-user)[\s=]+[\"']?[^\s:\"'/]+:([^\s\"'&;|]+)"
    r"|\bmachine\s+\S+\s+login\s+\S+\s+password\s+([^\s\"'&;|]+)"
    r"|\b(?:echo|printf|cat\s+<<<)\s+[\"']?([^\s\"'&;|]+)[\"']?\s*\|\s*[^;&\n]*--(?:password|token)-stdin"
)
SET = re.compile(r"\b(?:set(?:\s+-[a-zA-Z]+)+|setenv)\s+([A-Za-z_]\w*)\s+[\"']?([^\s\"'&;|]+)")


def refuse_secrets(config: Any, path: str = "") -> None:
    """Finds a key or password in a configuration before it is written and logged.

    Raises:
        ValueError: there is one; the message names its place and not the secret.
    """
    place = next(_places(config, path), None)
    if place is not None:
        raise ValueError(
            f"{place} holds a key or a password, which config.yaml and the loggers would show. Leave it out and set it in the "
            "environment (WANDB_API_KEY, HF_TOKEN, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)."
        )


def _places(config: Any, path: str) -> Iterator[str]:
    """The settings of a configuration that hold a secret, by their dotted names."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            # A key may be a secret itself, and is then not repeated.
            shown = "a name" if looks_secret(str(name)) else str(name)
            place = f"{path}.{shown}" if path else shown
            # Stages, objectives and probes have names of the user's own, such as `secrets`, and settings below them.
            named = path in NAMES_OF_OURS and isinstance(value, Mapping)
            if shown != str(name) or (not named and any(_is_secret(str(name), one) for one in _texts_of(value))):
                yield place
            else:
                yield from _places(value, place)
    elif isinstance(config, list | tuple | set):
        words = [str(one) for one in config if isinstance(one, str | int)]
        for number, value in enumerate(config):
            yield from _places(value, f"{path}.{number}" if path else str(number))
        # A command's words: ["--api_key", "k-1"].
        if any(_is_secret(flag.lstrip("-"), word) for flag, word in pairwise(words) if flag.startswith("-")):
            yield path
    elif isinstance(config, str) and looks_secret(config):
        yield path


def _names_secret(before: str, word: str) -> bool:
    """Whether a word within a setting's name, with the one before it, says that the setting is a secret: x_secret_y, hf_token_2b."""
    return (word in SECRET_WORDS and word != "token") or word.endswith(SECRET_ENDINGS) or (before in KEY_OF and word in ("token", "key"))


def _is_written_as_one(text: str) -> bool:
    """Whether a text is one word with letters and digits, as a key is and the value of a setting about secrets is not."""
    return len(text) >= 4 and bool(re.fullmatch(r"(?=.*[A-Za-z])(?=.*[0-9])[^\s/,;]+", text))


def _texts_of(value: Any) -> Iterator[Any]:
    """What a setting holds, at any depth: a secret's name also names the parts of it that have names of their own."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | set):
        yield value
        return
    for one in value:
        yield from _texts_of(one)


def _is_secret(name: str, value: Any) -> bool:
    """Whether the value of a setting is a secret by the setting's name."""
    if not isinstance(value, str | bytes | int) or isinstance(value, bool):
        return False
    words, text = _words(name), value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    if not words or words[-1] in NOT_ITSELF or not text.strip() or _says_where(text):
        return False
    if words[-1] == "token" and words[-2:-1] and words[-2] in KEY_OF:
        return len(text) >= SHORTEST_NUMBER or not isinstance(value, int)
    if words[-1] == "token":
        is_text = TEXT_TOKEN.fullmatch(text) or (words[-2:-1] and words[-2] in TEXT_TOKENS)
        # A number of fewer digits is a token's place in a vocabulary.
        return not is_text and (isinstance(value, str) or len(text) > LONGEST_TOKEN_ID)
    if words[-1] in SECRET_WORDS or "".join(words[-2:]) in SECRET_WORDS or words[-1].endswith(SECRET_ENDINGS):
        return True
    if any(_names_secret(*pair) for pair in pairwise(["", *words[:-1]])) and _is_written_as_one(text):
        return True
    if words[-1] == "key" and len(words) > 1 and words[-2] in KEY_OF:
        return True
    if words[-1] == "auth" and re.fullmatch(r"[^\s:/]+:[^\s/]+", text):
        return True
    return words[-1] in ("key", "keys", "tokens", "tok", "auth", "login", "sig", "signature", "bearer") and _is_random(text)


def looks_secret(text: str) -> bool:
    """Whether a text is or holds a key, a password, or an address with one, whatever setting it stands in."""
    if len(text) < 4:
        return False
    if FURTHER.search(text) or any(not _says_where(found) for found in USER_INFO.findall(text)):
        return True
    if any(list(detector.analyze_string(line)) for line in text.splitlines()[:1000] for detector in _detectors()):
        return True
    return (
        any(_is_assigned(*found.groups()) for found in ASSIGNED.finditer(text))
        or any(_is_secret(name, value) for name, value in FLAGGED.findall(text))
        or any(_is_secret(name, value) for name, value in SET.findall(text))
        or any(not _says_where(value) for found in COMMANDED.findall(text) for value in found if value)
        or any(_is_random(value) for value in BEARER.findall(text))
    )


def _is_assigned(name: str, sign: str, value: str) -> bool:
    if sign[-1:].isspace() and len(_words(name)) == 1 and "=" not in sign and not _is_random(value):
        # Prose such as "The token: a word", where a setting would have a value that looks like one.
        return _words(name)[-1] in ("authorization", "passwd") and len(value) > 3
    return len(value) > 3 and _is_secret(name, value)


def _words(name: str) -> list[str]:
    # In compatible letters, as some are wider and mean the same.
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", unicodedata.normalize("NFKC", name))
    # Without numbers behind them: password1, token_2.
    words = [short for word in re.split(r"[^a-z0-9]+", spaced.lower()) if (short := word.rstrip("0123456789"))]
    words = [part for word in words for part in _parts(word)]
    return words[:-1] if words[-1:] in (["value"], ["values"], ["string"], ["text"]) else words


def _parts(word: str) -> list[str]:
    """A word that is two without a sign between them: hftoken, wandbkey."""
    end = next((end for end in ("token", "key") if word.endswith(end) and word.removesuffix(end) in KEY_OF), None)
    return [word] if end is None else [word.removesuffix(end), end]


def _says_where(text: str) -> bool:
    return bool(ELSEWHERE.fullmatch(text.strip()) or VARIABLE_NAME.fullmatch(text.strip()))


def _is_random(text: str) -> bool:
    """Whether a text looks drawn and not written: long, of letters and digits, and of many different ones."""
    if len(text) < RANDOM_LENGTH or not re.fullmatch(r"[A-Za-z0-9+/=_.~%-]+", text):
        return False
    if len(re.findall(r"[A-Za-z](?=[0-9])|[0-9](?=[A-Za-z])", text)) < RANDOM_CHANGES:
        return False
    return bool(_entropy().calculate_shannon_entropy(text) >= RANDOM_BITS)


@functools.cache
def _detectors() -> tuple[Any, ...]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    kinds: list[Any] = list(get_mapping_from_secret_type_to_class().values())
    return tuple(kind() for kind in kinds if kind.__name__ not in LEFT_OUT)


@functools.cache
def _entropy() -> Any:
    from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString

    return Base64HighEntropyString()
