"""One training in several processes: which of them this is, and means over all of them.

Each process has its share of every batch; what a batch decides, gradients and local updates alike,
is averaged, so that N processes with B/N samples each do what one process does with B.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mpsl_runtime.errors import UsageError

__all__ = ["Processes", "average", "everyone", "find_processes", "place", "total"]


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank: 0 … world − 1; the first one writes the run folder.
        world: number of processes on all hosts. local: of them on this host.
        torchrun: it started the processes; otherwise the first process starts the others.
    """

    rank: int = 0
    world: int = 1
    local: int = 1
    torchrun: bool = False

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def check(
        self, batch_size: int, normalised: bool, device: str, alone: Sequence[str] = ()
    ) -> None:
        """Whether so many processes can do what one does.

        Args:
            normalised: a layer has batch normalisation. device: `cpu` or `cuda`.
            alone: mechanisms that are right in one process only.

        Raises:
            UsageError: they cannot.
        """
        if self.world > 1 and alone:
            raise UsageError(
                f"mechanism {alone[0]!r} is not right in several processes", got=self.world,
                expected="one process", where="--devices",
            )  # fmt: skip
        if batch_size % self.world:
            raise UsageError(
                "a batch cannot be shared equally", got=batch_size,
                expected=f"a multiple of the {self.world} processes",
                where="recipe key training.batch_size",
            )  # fmt: skip
        if device == "cuda" and self.local > torch.cuda.device_count():
            raise UsageError(
                "not so many CUDA devices", got=self.local,
                expected=f"≤ {torch.cuda.device_count()}", where="--devices",
            )  # fmt: skip
        if device == "cpu" and self.world > 1 and normalised:
            raise UsageError(
                "BN needs the statistics of all processes, which torch gathers on CUDA alone",
                expected="one process, or --device cuda", where="recipe key network",
            )  # fmt: skip

    def trainer_options(self, device: str) -> dict[str, Any]:
        """What Lightning's Trainer has to know of the processes."""
        if self.world == 1:
            return {"devices": 1}
        from lightning.pytorch.plugins.environments import (
            LightningEnvironment,
            TorchElasticEnvironment,
        )
        from lightning.pytorch.strategies import DDPStrategy

        return {
            "devices": self.local,
            "num_nodes": self.world // self.local,
            # Broadcast, the first process's banks would replace what the others have learned; they
            # are averaged inside the step instead. λ_p of the last layer has no part in any loss.
            "strategy": DDPStrategy(
                process_group_backend="nccl" if device == "cuda" else "gloo",
                broadcast_buffers=False,
                find_unused_parameters=True,
            ),
            # Named, not guessed from whatever cluster's variables are set.
            "plugins": [TorchElasticEnvironment() if self.torchrun else LightningEnvironment()],
            "sync_batchnorm": device == "cuda",
            "use_distributed_sampler": False,
        }


def find_processes(devices: int | None) -> Processes:
    """Who this process is, from what `torchrun` or Lightning's launcher put into its environment.

    Args:
        devices: processes on this host; None: as many as torchrun started, else one.

    Raises:
        UsageError: less than one, or not as many as torchrun started.
    """
    if devices is not None and devices < 1:
        raise UsageError("number of devices", got=devices, expected="≥ 1", where="--devices")
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        local = int(environment["LOCAL_WORLD_SIZE"])
        if devices not in (None, local):
            raise UsageError(
                "not as many devices as torchrun started processes", got=devices,
                expected=f"{local}, or no --devices", where="--devices",
            )  # fmt: skip
        return Processes(int(environment["RANK"]), int(environment["WORLD_SIZE"]), local, True)
    if devices in (None, 1):
        return Processes()
    return Processes(int(environment.get("LOCAL_RANK", "0")), int(devices or 1), int(devices or 1))


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def place() -> tuple[int, int]:
    """(rank, processes) of this process; batches are shared out in the order of the ranks."""
    world = _world()
    return (dist.get_rank() if world > 1 else 0), world


class _Mean(torch.autograd.Function):
    """Every process uses the mean, so the gradient of each share is the mean of their gradients;
    that of a parameter is averaged once more, over the shares, by DistributedDataParallel."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        mean = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(mean)
        return mean.div_(_world())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Mean.forward(ctx, gradients[0])


def average(value: Tensor) -> Tensor:
    """The mean over all processes, the same bits in each; differentiable."""
    if _world() == 1:
        return value
    mean: Tensor = _Mean.apply(value)  # type: ignore[no-untyped-call]
    return mean


def total(values: list[float], device: torch.device) -> list[float]:
    """Sums over all processes."""
    if _world() == 1:
        return values
    # CUDA's collectives take no host memory; float64 is missing only on devices without NCCL.
    summed = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(summed)
    return [float(value) for value in summed]


def everyone(holds: bool, device: torch.device) -> bool:
    """Whether `holds` is true in all processes: what one of them stops at must stop all."""
    return holds if _world() == 1 else total([float(not holds)], device)[0] == 0.0
