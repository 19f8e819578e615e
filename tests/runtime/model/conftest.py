"""What the tests of reading NIR share."""

from __future__ import annotations

from pathlib import Path

import nir
import pytest

from .graphs import small


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good model, to be damaged."""
    nir.write(str(tmp_path / "model.nir"), small())
    return tmp_path / "model.nir"
