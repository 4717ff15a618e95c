"""What is said once of an input that is listed several times."""

from __future__ import annotations

import logging
from functools import lru_cache

_LOGGER = logging.getLogger(__name__)


@lru_cache(maxsize=1024)
def log_once(text: str, level: int = logging.INFO) -> None:
    """Logs a line once in a process: lists are read again by what comes later."""
    _LOGGER.log(level, "%s", text.encode(errors="backslashreplace").decode())
