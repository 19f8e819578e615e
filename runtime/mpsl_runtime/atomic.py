"""Files appear whole or not at all: write to a temporary name beside the target, then rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpsl_runtime.errors import OutputError

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; renames it to `path` when the block ends.

    The temporary name keeps the suffix of `path`, for writers that go by it. When the block
    raises, the temporary file is removed and `path` is left as it was.

    Raises:
        OutputError: the folder is absent or not writable, or the disk is full.
    """
    if path.is_dir():
        raise OutputError("output is a folder", expected="a file name", where=path)
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise OutputError("cannot write output", got=error.strerror, where=path) from error
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise OutputError("cannot write output", got=error.strerror or error, where=path) from error
    finally:
        temporary.unlink(missing_ok=True)
