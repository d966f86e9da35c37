"""The settings of a class, with those that its constructor passes on to the classes above it.

    parameters(NPO)["beta"].default            # 0.5
    parameters(NPO)["cache_reference"]         # Unlearning's, which NPO takes in its **kwargs

A configuration may give exactly these, as jsonargparse has them from the constructors' source.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from unlearn_lightning.cli.parser_internals import signature_parameters


def parameters(owner: Any) -> dict[str, Any]:
    """By name, in their order; each has `annotation` and `default` as in `inspect.Parameter`.

    Args:
        owner: a class, or a function that is called in its place.
    """
    return _parameters(owner)


@lru_cache(maxsize=256)
def _parameters(owner: Any) -> dict[str, Any]:
    return {parameter.name: parameter for parameter in signature_parameters(owner)}
