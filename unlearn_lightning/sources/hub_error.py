"""The error of what could not be read from the Hugging Face Hub, in words that say what to do."""

from __future__ import annotations


class HubError(OSError):
    """A Hub data set could not be read, or a Hub model not be found; `name` is its name."""

    def __init__(self, name: str, why: str, kind: str = "data set") -> None:
        page = ("datasets/" if kind == "data set" else "") + "/".join(name.split("/")[:2])
        folder = "" if kind == "data set" else " There is no folder of that name here either."
        super().__init__(
            f"The Hub {kind} {name} could not be read ({why}).{folder} Is there a network, and do you have access to it? Apply for a gated "
            f"{kind} on https://huggingface.co/{page}, then `hf auth login` or set HF_TOKEN."
        )
        self.name = name
