"""The settings of a class, with those that its constructor passes on to the classes above it.

    parameters(NPO)["beta"].default            # 0.5
    parameters(NPO)["cache_reference"]         # Unlearning's, which NPO takes in its **kwargs

A configuration may give exactly these, as jsonargparse has them from the constructors' source.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# `inspect.signature` ends at **kwargs; what jsonargparse finds behind them has no public name.
from jsonargparse._parameter_resolvers import get_signature_parameters


@lru_cache(maxsize=256)
def parameters(owner: Any) -> dict[str, Any]:
    """By name, in their order; each has `annotation` and `default` as in `inspect.Parameter`.

    Args:
        owner: a class, or a function that is called in its place.
    """
    found = get_signature_parameters(owner, "__init__" if isinstance(owner, type) else None)
    return {parameter.name: parameter for parameter in found}
