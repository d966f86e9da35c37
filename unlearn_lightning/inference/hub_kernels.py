"""Imports bitsandbytes without the code that it would fetch from the Hub.

On processors with AVX512-BF16 it takes a compiled kernel from there as soon as it is imported, where the package `kernels` is installed:
that is code of others without a question, and a wait for a network that may not be there. Its own kernels do the same. PEFT imports
bitsandbytes, so that every module of ours that needs either imports this one first.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

FETCHING = "Failed to load CPU gemm_4bit_forward"


class _IsNoFetch(logging.Filter):
    """Leaves out the one line that tells of the fetch that did not take place."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is any other."""
        return not record.getMessage().startswith(FETCHING)


def import_bitsandbytes() -> None:
    """Imports it, unless somebody has already; while it is imported there is no package `kernels`."""
    absent = object()
    before = sys.modules.get("kernels", absent)
    log, quiet = logging.getLogger("bitsandbytes.backends.cpu.ops"), _IsNoFetch()
    log.addFilter(quiet)
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        with suppress(ImportError):
            import bitsandbytes  # noqa: F401
    finally:
        log.removeFilter(quiet)
        if before is absent:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = before  # type: ignore[assignment]


import_bitsandbytes()
