"""Several processes train what one process trains, and only the first of them writes."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from mpsl_runtime.errors import UsageError
from mpsl_train.network.network import Network
from mpsl_train.network.plasticity import Post, Pre, Rule, register
from mpsl_train.network.processes import Processes, everyone, find_processes
from mpsl_train.recipe import load
from mpsl_train.training import training

# 72 samples in batches of 8, three epochs, with dropout before two layers.
CHOICES = (
    "network=4C3S2-DP0.3-6C3-AP2-DP0.2-12FC-10",
    "training.batch_size=8",
    "rules.eta_hat=3.0",
)

# Trained in float64: float32 rounds differently in two halves, and spikes flip.
WORKER = """
import sys
from pathlib import Path
from mpsl_train.training import training
from mpsl_train.recipe import load
build, finish = training.build, training.finish
training.build = lambda *given: build(*given).double()
training.finish = lambda network, *given: finish(network.float(), *given)
recipe, run, data, *choices = sys.argv[1:]
training.train(load(Path(recipe), choices), Path(run), data=Path(data), device="cpu")
"""


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def one(
    small_data: Path, recipe_text: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, torch.Tensor]]:
    """A run of one process in float64, and the weights that it began with."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "small.toml").write_text(recipe_text, encoding="utf-8")
    build, finish, first = training.build, training.finish, {}

    def double(*given: object) -> Network:
        network: Network = build(*given).double()  # type: ignore[arg-type]
        first.update({name: value.clone() for name, value in network.state_dict().items()})
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPSL_CACHE", str(folder / "cache"))
        patch.setattr(training, "build", double)
        patch.setattr(training, "finish", lambda n, *given: finish(n.float(), *given))
        recipe = load(folder / "small.toml", CHOICES)
        training.train(recipe, folder / "run", data=small_data, device="cpu")
    return folder / "run", first


def _start(
    options: list[str], recipe: Path, data: Path, run: Path, within: Sequence[str] = (),
    **environment: str,
) -> subprocess.Popen[str]:  # fmt: skip
    """A host's torchrun, whose processes train in float64.

    Args:
        within: a command that runs another.
    """
    worker = run.with_suffix(".py")
    worker.write_text(WORKER, encoding="utf-8")
    return subprocess.Popen(
        [*within, sys.executable, "-m", "torch.distributed.run", *options, str(worker),
         str(recipe), str(run), str(data), *CHOICES],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**_environment(), **environment},
    )  # fmt: skip


def _free_port(address: str) -> int:
    """Below those that the system hands to clients, so that none of them takes it meanwhile."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def _assert_same(one: Path, two: Path, first: dict[str, torch.Tensor]) -> None:
    """Files, weights, banks and the history of two runs; none of the weights stayed as it was."""
    assert sorted(path.name for path in one.iterdir()) == sorted(p.name for p in two.iterdir())
    ends = [torch.load(run / "last.ckpt", weights_only=True) for run in (one, two)]
    assert ends[0]["global_step"] == ends[1]["global_step"] >= 20
    for name, value in ends[0]["state_dict"].items():
        torch.testing.assert_close(ends[1]["state_dict"][name], value, rtol=1e-10, atol=1e-12)
        last = name.startswith("network.layers.3")  # λ_p has no part in the last layer
        if not (last and name.endswith("theta_p")):
            change = value - first[name.removeprefix("network.")]
            assert float(change.abs().max()) > 1e-6, name
    history = [(run / "metrics.csv").read_text().splitlines() for run in (one, two)]
    for row, expected in zip(history[1][1:], history[0][1:], strict=True):
        numbers = [[float(word) for word in line.split(",")[:-1]] for line in (row, expected)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-9)


def test_two_processes_with_half_the_batch_equal_one_with_all_of_it(
    one: tuple[Path, dict[str, torch.Tensor]], small_data: Path, small_recipe: Path, tmp_path: Path
) -> None:
    options = ["--standalone", "--nproc-per-node", "2"]
    host = _start(options, small_recipe, small_data, tmp_path / "two")
    said, _ = host.communicate(timeout=240)
    assert host.returncode == 0, said
    assert said.count("epoch 1/3") == 1, "only the first process speaks"
    _assert_same(one[0], tmp_path / "two", one[1])


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces, joined by a cable and nothing else: what `ip netns exec` calls them.
    Each has a loopback of its own, and an interface `cable`, 10.213.0.1 and 10.213.0.2."""
    names = [f"mpsl-{os.getpid()}-{number}" for number in range(2)]
    commands = [f"ip netns add {name}" for name in names]
    commands.append(
        f"ip link add cable netns {names[0]} type veth peer name cable netns {names[1]}"
    )
    for number, name in enumerate(names, start=1):
        commands.append(f"ip -n {name} addr add 10.213.0.{number}/30 dev cable")
        commands += [f"ip -n {name} link set {device} up" for device in ("cable", "lo")]
    try:
        for command in commands:
            try:
                subprocess.run(command.split(), check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip(f"no network namespaces for this user: {command!r} fails")
        yield names
    finally:
        if shutil.which("ip"):
            for name in names:
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_two_hosts_with_networks_of_their_own_equal_one(
    one: tuple[Path, dict[str, torch.Tensor]], small_data: Path, small_recipe: Path,
    tmp_path: Path, hosts: list[str],
) -> None:  # fmt: skip
    """Neither reaches the other's loopback, as on two machines."""
    running = []
    for number, name in enumerate(hosts):
        options = [
            "--nnodes", "2", "--nproc-per-node", "1", "--local-addr", f"10.213.0.{number + 1}",
            "--rdzv-backend", "c10d", "--rdzv-endpoint", "10.213.0.1:29500",
            "--rdzv-id", "two-networks", "--rdzv-conf", f"is_host={1 - number}",
        ]  # fmt: skip
        within = ["ip", "netns", "exec", name]
        run = tmp_path / "two"
        running.append(
            _start(options, small_recipe, small_data, run, within, GLOO_SOCKET_IFNAME="cable")
        )
    said = [host.communicate(timeout=240)[0] for host in running]
    assert [host.returncode for host in running] == [0, 0], "\n".join(said)
    assert "".join(said).count("epoch 1/3") == 1
    _assert_same(one[0], tmp_path / "two", one[1])


def test_two_hosts_that_meet_at_an_address_equal_one(
    one: tuple[Path, dict[str, torch.Tensor]], small_data: Path, small_recipe: Path, tmp_path: Path
) -> None:
    """Two addresses of this machine, as the command in the README is given on two hosts."""
    meeting = f"127.0.0.2:{_free_port('127.0.0.2')}"
    hosts = []
    for number, address in enumerate(("127.0.0.2", "127.0.0.3")):
        options = [
            "--nnodes", "2", "--nproc-per-node", "1", "--local-addr", address,
            "--rdzv-backend", "c10d", "--rdzv-endpoint", meeting, "--rdzv-id", "two-hosts",
            "--rdzv-conf", f"is_host={1 - number}",
        ]  # fmt: skip
        hosts.append(_start(options, small_recipe, small_data, tmp_path / "two"))
    said = [host.communicate(timeout=240)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(said)
    assert "".join(said).count("epoch 1/3") == 1
    _assert_same(one[0], tmp_path / "two", one[1])


def test_the_command_starts_the_processes_that_are_asked_for(
    small_data: Path, small_recipe: Path, tmp_path: Path
) -> None:
    command = Path(sys.executable).parent / "mpsl"
    done = subprocess.run(
        [str(command), "train", str(small_recipe), "--data", str(small_data), "--device", "cpu",
         "--out", str(tmp_path / "run"), "--devices", "2", "--set", "training.epochs=1", "--json"],
        capture_output=True, text=True, env=_environment(), check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["processes"] == 2
    assert done.stderr.count("epoch 1/1") == 1


BROKEN = """
import os
from mpsl_runtime.cli import main
from mpsl_train.training.module import TrainingModule
window, where = TrainingModule._window, os.environ["BROKEN_SPLIT"]

def broken(self, batch, split):
    values, labels = batch
    if os.environ.get("LOCAL_RANK") == "1" and split == where and self.current_epoch == 1:
        values = values.float() * float("nan")
    return window(self, (values, labels), split)

TrainingModule._window = broken
if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("split", ["training", "validation"])
def test_what_is_not_finite_in_one_process_ends_all_in_one_line(
    split: str, small_data: Path, small_recipe: Path, tmp_path: Path
) -> None:
    script = tmp_path / "broken.py"
    script.write_text(BROKEN, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), "train", str(small_recipe), "--data", str(small_data),
         "--device", "cpu", "--out", str(tmp_path / "run"), "--devices", "2"],
        capture_output=True, text=True, env=_environment() | {"BROKEN_SPLIT": split}, check=False,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith(("epoch", "step:"))]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("mpsl: ")
    assert "not finite" in said[0]
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 2
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.mark.parametrize(
    ("overrides", "mechanism"),
    [
        (["method=sbp"], "sbp-local"),
        (["method=stdp", "data.dataset=mnist"], "stdp"),
        (["mechanisms=stbp+own-mean"], "own-mean"),
    ],
)
def test_mechanisms_that_would_drift_apart_are_refused_in_several_processes(
    overrides: list[str], mechanism: str, small_data: Path, small_recipe: Path, tmp_path: Path
) -> None:
    @register("own-mean")
    class OwnMean(Rule):
        def update(self, pre: Pre, post: Post) -> torch.Tensor:
            return pre.correlate(post.activity - post.activity.mean())

    recipe = load(small_recipe, overrides)
    with pytest.raises(UsageError, match=f"'{mechanism}' is not right in several processes"):
        training.train(recipe, tmp_path / "run", data=small_data, device="cpu", devices=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("processes", "batch", "normalised", "device", "message"),
    [
        (Processes(0, 3, 3), 8, False, "cpu", "multiple of the 3"),
        (Processes(0, 2, 2), 8, True, "cpu", "BN"),
        (Processes(0, 512, 512), 512, False, "cuda", "CUDA devices"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(
    processes: Processes, batch: int, normalised: bool, device: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        processes.check(batch, normalised, device)
    Processes().check(batch, normalised, "cpu")


def test_who_a_process_is_comes_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert find_processes(None) == find_processes(1) == Processes()
    assert find_processes(2) == Processes(0, 2, 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_processes(2) == Processes(1, 2, 2)
    assert not find_processes(2).first
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "2"),
                        ("TORCHELASTIC_RUN_ID", "x")):  # fmt: skip
        monkeypatch.setenv(name, value)
    assert find_processes(None) == find_processes(2) == Processes(3, 4, 2, True)
    with pytest.raises(UsageError, match="torchrun"):
        find_processes(4)
    with pytest.raises(UsageError, match="≥ 1"):
        find_processes(0)


def test_one_process_asks_nobody() -> None:
    device = torch.device("cpu")
    assert everyone(True, device)
    assert not everyone(False, device)
