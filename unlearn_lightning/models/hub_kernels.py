"""Imports bitsandbytes without the code that it would fetch from the Hub.

On processors with AVX512-BF16 it takes a compiled kernel from there as soon as it is imported, where the package `kernels` is installed:
that is code of others without a question, and a wait for a network that may not be there. Its own kernels do the same.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

FETCHING = "Failed to load CPU gemm_4bit_forward"


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


class _IsNoFetch(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(FETCHING)
