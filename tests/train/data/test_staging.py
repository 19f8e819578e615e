"""Data sets appear whole or not at all, also where whoever makes them is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from mpsl_train.data.staging import staged

SLOW = """
import sys, time
from pathlib import Path
from mpsl_train.data.staging import staged
with staged(Path(sys.argv[1])) as stage:
    (stage / "half").write_text("of it")
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_fills_is_not(
    tmp_path: Path,
) -> None:
    root = tmp_path / "data" / "set"
    with subprocess.Popen([sys.executable, "-c", SLOW, str(root)]) as killed:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("data/.*/new/half")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not root.exists()
        with staged(tmp_path / "data" / "other") as stage:
            (stage / "whole").write_text("all")
        assert len(list(tmp_path.glob("data/.*"))) == 1, "its maker lives"
        killed.kill()
    assert len(list(tmp_path.glob("data/.*"))) == 1
    with staged(root) as stage:
        (stage / "whole").write_text("all")
    assert [path.name for path in root.iterdir()] == ["whole"]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["other", "set"]
    (root / ".mpsl-stage-abcdefgh").mkdir()  # killed while it added to a folder
    with staged(root) as stage:
        (stage / "more").write_text("all")
    assert sorted(path.name for path in root.iterdir()) == ["more", "whole"]
