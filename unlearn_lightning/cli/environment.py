"""The environment variables that this package reads; a mistyped one is refused, as a mistyped flag is.

    UNLEARN_DATA=DIR UNLEARN_FIT__TRAINER__MAX_STEPS=100 unlearn fit ...

UNLEARN_<VERB>__<SETTING> sets a setting of fit, validate or test below what files and flags say.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

PREFIX = "UNLEARN_"
TRAINER_VERBS = ("fit", "validate", "test")
# Each variable's name, and what it is for.
VARIABLES = {
    "UNLEARN_DATA": "folder of the data sets that `source: files` reads",
    "UNLEARN_CACHE": "folder of the tokens that are kept of large files",
    "UNLEARN_TRACEBACK": "1 shows where an error comes from",
    "UNLEARN_CONFIG": "a configuration of the trainer verbs",
    "UNLEARN_SUBCOMMAND": "a trainer verb",
}


def refuse_unknown(environment: Mapping[str, str], settings: Iterable[str] | None = None) -> None:
    """Looks through the variables that begin with UNLEARN_.

    Args:
        environment: such as os.environ.
        settings: the variables of the trainer verbs' settings, as far as they are known; any below a verb of which none is known pass.

    Raises:
        ValueError: there is one that nothing reads; the message has the nearest name.
    """
    verbs = tuple(f"{PREFIX}{verb.upper()}__" for verb in TRAINER_VERBS)
    known = {*VARIABLES, *(settings or ())}
    unread = tuple(verb for verb in verbs if not any(name.startswith(verb) for name in known))
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name in known or name.startswith(unread):
            continue
        near = difflib.get_close_matches(name, sorted({*known, *verbs}), n=1, cutoff=0.6)
        hint = f"Did you mean {near[0]}{'...' if near[0].endswith('__') else ''}?" if near else f"There are {', '.join(VARIABLES)}."
        raise ValueError(f"the environment sets {name}, which nothing here reads. {hint} Unset it otherwise.")
