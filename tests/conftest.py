"""Fixtures for all tests. `tests/runtime` runs with the runtime and its extra `test` alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# Without a GPU passes in Triton are interpreted. Read when triton is imported, by whichever test.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Properties take the same examples each time and have no deadline: `make test` says the same on a
# crowded machine as on an idle one. New examples are for `make fuzz`, and for MPSL_FUZZ=1 anywhere.
settings.register_profile("same", derandomize=True, deadline=None)
if not os.environ.get("MPSL_FUZZ"):
    settings.load_profile("same")


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
