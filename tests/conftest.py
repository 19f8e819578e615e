"""Fixtures for all tests. Only pytest is imported here: `tests/runtime` runs with nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings: `$MPSL_SHARED_DATA`, or `shared/data` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("MPSL_SHARED_DATA") or beside)
    if not path.is_dir():
        pytest.skip(f"no real data: neither $MPSL_SHARED_DATA nor {beside} is a folder")
    return path


@pytest.fixture(scope="session")
def recordings_folder() -> Path:
    """`tests/recordings`: small recordings of our own in every format, and what is in them."""
    return Path(__file__).resolve().parent / "recordings"
