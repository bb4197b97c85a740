"""The user's cache folder: downloads and unpacked artefacts, safe to remove at any time."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """LAMBDENO_CACHE, or the platform's own place for caches."""
    return Path(os.environ.get("LAMBDENO_CACHE") or platformdirs.user_cache_dir("lambdeno"))
