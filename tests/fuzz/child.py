"""Reads every file of a folder in a process of its own, with bounds on memory and time.

As a program it reads and says what came of each file; anything but a right value or an `MpslError`
of one line is a fault, and the next file follows. `read` runs that program, and goes on behind a
file that ended or held up the process.

    python tests/fuzz/child.py READER FOLDER FIRST
"""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import resource
import select
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MEMORY_BYTES = 1 << 31
"""Beyond what importing takes."""
SECONDS = 10.0
"""Of processor time; a busy machine may take several times as long."""


@dataclass(frozen=True)
class Verdict:
    """What came of a file: `refused`, what the reader calls a right value, or `FAULT`."""

    file: str
    word: str
    about: str


def read(reader: str, folder: Path) -> list[Verdict]:
    """The verdicts on every file of `folder`, in the order of their names.

    Args:
        reader: `read_NAME.py` beside this file, with a function `verdict(path) -> str`.
    """
    names = sorted(path.name for path in folder.iterdir())
    found: list[Verdict] = []
    while len(found) < len(names):
        found += _read_from(reader, folder, names[len(found) :])
    return found


def _read_from(reader: str, folder: Path, names: list[str]) -> list[Verdict]:
    """The verdicts up to the first file that ended the process, or held it up."""
    # Without `site`, as `make sanitize` starts Python, its engine is the one that is read with.
    flags = ["-S"] if sys.flags.no_site else []
    command = [sys.executable, *flags, str(Path(__file__)), reader, str(folder), names[0]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    found: list[Verdict] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        waiting, ready_to_read = b"", False
        last = time.monotonic()
        while len(found) < len(names):
            ready = select.select([process.stdout], [], [], 1)[0]
            data = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if data:
                *lines, waiting = (waiting + data).split(b"\n")
                for line in lines:
                    if line == b"ready":
                        ready_to_read = True
                        continue
                    file, word, about = line.decode("utf-8", "replace").split("\t", 2)
                    found.append(Verdict(file, word, about))
                last = time.monotonic()
            elif ready or time.monotonic() - last > 12 * SECONDS:
                process.kill()
                break
        errors = process.stderr.read().decode("utf-8", "replace") if len(found) < len(names) else ""
    assert ready_to_read, errors
    if len(found) < len(names):
        how = f"ended with {process.returncode}: {errors[-1500:]}"
        found.append(Verdict(names[len(found)], "FAULT", how))
    return found


def _verdict(call: Callable[[Path], str], path: Path) -> tuple[str, str]:
    from mpsl_runtime.errors import LONGEST_MESSAGE, MpslError

    before = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)  # nobody is shown it
            word, about = call(path), ""
    except MpslError as error:
        word, about = "refused", str(error)
        if not about.isprintable() or len(about) > LONGEST_MESSAGE or not about:
            word = "FAULT"
    except BaseException:
        word, about = "FAULT", " ".join(traceback.format_exc()[-1500:].split())
    seconds = time.process_time() - before
    if seconds > SECONDS:
        word, about = "FAULT", f"took {seconds:.1f} s of processor time: {word} {about}"
    return word, about


def _main(reader: str, folder: Path, first: str) -> None:
    faulthandler.enable()
    spec = importlib.util.spec_from_file_location(
        reader, Path(__file__).with_name(f"read_{reader}.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    limit = MEMORY_BYTES + _data_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    print("ready", flush=True)
    for path in sorted(path for path in folder.iterdir() if path.name >= first):
        word, about = _verdict(module.verdict, path)
        print(path.name, word, about, sep="\t", flush=True)


def _data_bytes() -> int:
    """Memory that is already taken, as RLIMIT_DATA counts it."""
    status = Path("/proc/self/status").read_text("ascii")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmData"].split()[0]) << 10


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
