"""`make gpu`: what only a GPU can show, in one command of limited time, which goes on next time.

Needs Python with torch for CUDA, a compiler, nanobind, scikit-build-core and pytest, and no package
registry: what else is missing comes as wheels from a folder. In its order:

1. build: both packages as wheels, and those of the folder, installed under OUT/site; what is
   compiled is put beside the checkout's sources, so that runs know their commit
2. checks: `tests/gpu`, and the tests of CUDA graphs and Triton's passes
3. speed: `tests/benchmarks/gpu_speed.py`
4. train: runs of the paper's recipes, all at once, each from its last checkpoint

A step that is done is not done again, and what the time ends goes on in the next call. Where CUDA's
MPS is there, kernels of several runs run side by side.

    python tests/gpu/session.py --data DIR --out runs/gpu --wheels DIR --minutes 9
    python tests/gpu/session.py --data DIR --out runs/gpu --run mnist-paper:mpsl:100

A run is RECIPE:METHOD:EPOCHS[:KEY=VALUE…].
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNS = [
    f"{recipe}-paper:{method}:100:augmentation.shift=1{more}"
    for recipe, more in (("mnist", ""), ("fashion-mnist", ":augmentation.flip=true"))
    for method in ("mpsl", "stbp")
]
COMMON = ("training.step=graphed", "training.precision=bf16")
CHECKS = ["tests/gpu", "tests/train/network/test_graphed.py", "tests/train/network/test_triton.py"]


@dataclass
class Session:
    """Where things are, and what is done.

    Attributes:
        out: everything is written there. ends: on time.monotonic's clock.
    """

    out: Path
    data: Path
    wheels: Path | None
    ends: float
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def done(self, step: str) -> bool:
        """Whether an earlier call has finished it."""
        return (self.out / f"{step}.done").is_file()

    def finish(self, step: str) -> None:
        """It need not be done again."""
        (self.out / f"{step}.done").touch()

    def run(self, command: list[str], log: str) -> int:
        """Runs to its end, or to the session's; the output goes to OUT/log."""
        with (self.out / log).open("w") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=file, stderr=subprocess.STDOUT
            )
            try:
                return process.wait(max(1.0, self.left))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return 124


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def build(session: Session) -> None:
    """The checkout with what is compiled of it, and the packages that it needs."""
    site, made = session.out / "site", session.out / "wheels"
    session.environment |= {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "runtime", site))),
        "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "MPSL_CACHE": str(session.out / "cache"),
    }  # fmt: skip
    if session.done("build"):
        return
    shutil.rmtree(site, ignore_errors=True)
    pip = [sys.executable, "-m", "pip"]
    quiet = ["-q", "--no-index", "--no-deps", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", *quiet, "--no-build-isolation", "-w", str(made), ".", "./runtime"]
    if session.run(wheel, "build.log"):
        raise SystemExit(f"the packages cannot be built: {session.out / 'build.log'}")
    carried = sorted(session.wheels.glob("*.whl")) if session.wheels is not None else []
    install = [*pip, "install", *quiet, "--no-compile", "--target", str(site)]
    if session.run([*install, *map(str, [*carried, *made.glob("*.whl")])], "install.log"):
        raise SystemExit(f"the packages cannot be installed: {session.out / 'install.log'}")
    for package, sources in (("mpsl_train", ROOT), ("mpsl_runtime", ROOT / "runtime")):
        for module in (site / package).glob("_native*.so"):
            shutil.copy(module, sources / package)
    session.finish("build")
    say("build: done")


def check(session: Session) -> None:
    """CUDA against the CPU."""
    if session.done("checks"):
        return
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CHECKS]
    code = session.run(command, "checks.log")
    last = (session.out / "checks.log").read_text(errors="replace").rstrip().rpartition("\n")[2]
    say(f"checks: {last}")
    if code == 0:
        session.finish("checks")


def measure(session: Session) -> None:
    """A step beside other frameworks."""
    if session.done("speed"):
        return
    command = [sys.executable, "tests/benchmarks/gpu_speed.py", "--data", str(session.data)]
    code = session.run([*command, "--out", str(session.out / "speed")], "speed.log")
    say(f"speed: exit code {code}")
    print((session.out / "speed.log").read_text(errors="replace"), flush=True)
    if code == 0:
        session.finish("speed")


@dataclass
class Training:
    """One run.

    Attributes:
        name: of its folder. epochs: planned.
    """

    name: str
    folder: Path
    epochs: int
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def finished(self) -> bool:
        """It has been evaluated."""
        return (self.folder / "report.json").is_file()

    @property
    def epoch(self) -> int:
        """How many are done."""
        with contextlib.suppress(OSError):
            return max(0, len((self.folder / "metrics.csv").read_text().splitlines()) - 1)
        return 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, session: Session) -> None:
        """From its last checkpoint, where there is one."""
        begun = (self.folder / "last.ckpt").is_file()
        command = [*self.command, *(["--resume"] if begun else [])]
        with (session.out / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=session.environment, stdout=log, stderr=log
            )

    def stop(self) -> None:
        """As Ctrl-C does: what the last epoch left can be resumed."""
        if self.process is not None and self.running:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            if self.running:
                self.process.kill()


def training(text: str, session: Session) -> Training:
    """RECIPE:METHOD:EPOCHS[:KEY=VALUE…]."""
    recipe, method, epochs, *keys = text.split(":")
    # Runs that differ in a key have folders of their own.
    name = "-".join([recipe, method, epochs, *(key.replace("=", "-") for key in keys)])
    folder = session.out / "runs" / name
    call = "import sys; from mpsl_runtime.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", call, "train", recipe, "--method", method]
    command += ["--data", str(session.data), "--out", str(folder), "--device", "cuda"]
    for key in (*COMMON, f"training.epochs={epochs}", *keys):
        command += ["--set", key]
    return Training(name, folder, int(epochs), command)


def train(session: Session, runs: list[Training]) -> None:
    """All at once, until they have finished or the time is over."""
    for one in runs:
        if not one.finished:
            one.start(session)
    said = time.monotonic()
    while any(one.running for one in runs) and session.left > 8:
        time.sleep(1)
        if time.monotonic() - said > 30:
            said = time.monotonic()
            say(", ".join(f"{one.name}: {one.epoch} of {one.epochs} epochs" for one in runs))
    for one in runs:
        one.stop()
    for one in runs:
        state = "finished" if one.finished else f"{one.epoch} of {one.epochs} epochs; goes on"
        if one.finished:
            report = json.loads((one.folder / "report.json").read_text())
            state += f", test accuracy {report['accuracy']:.2%}"
        say(f"{one.name}: {state}")


@contextlib.contextmanager
def shared_device(session: Session) -> Iterator[None]:
    """Lets kernels of several processes run beside each other, by CUDA's MPS, where it works."""
    control = shutil.which("nvidia-cuda-mps-control")
    folder = session.out / "mps"
    own = {f"CUDA_MPS_{name}_DIRECTORY": str(folder) for name in ("PIPE", "LOG")}
    if control is None:
        yield
        return
    folder.mkdir(exist_ok=True)
    subprocess.run([control, "-d"], env={**os.environ, **own}, check=False)
    session.environment |= own
    probe = [sys.executable, "-c", "import torch; torch.ones(9, device='cuda').sum().item()"]
    if session.run(probe, "mps.log"):
        say("several processes take turns: MPS does not run here")
        for name in own:
            del session.environment[name]
    else:
        say("kernels of several processes run beside each other (MPS)")
    try:
        yield
    finally:
        subprocess.run([control], input=b"quit\n", env={**os.environ, **own}, check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--wheels", type=Path, help="folder of wheels for what is missing here")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--skip", nargs="*", default=[], choices=["checks", "speed", "train"])
    parser.add_argument("--run", nargs="*", default=RUNS, metavar="RUN")
    arguments = parser.parse_args()
    probe = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", probe], check=False).returncode:
        raise SystemExit("no CUDA device is there, or no torch for it: nothing is done")
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    session = Session(
        out, arguments.data.resolve(), arguments.wheels and arguments.wheels.resolve(),
        time.monotonic() + 60 * arguments.minutes, dict(os.environ),
    )  # fmt: skip
    build(session)
    if "checks" not in arguments.skip:
        check(session)
    if "speed" not in arguments.skip:
        measure(session)
    if "train" not in arguments.skip:
        runs = [training(text, session) for text in arguments.run]
        with shared_device(session):
            train(session, runs)


if __name__ == "__main__":
    main()
