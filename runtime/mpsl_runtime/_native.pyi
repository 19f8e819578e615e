import numpy as np
from numpy.typing import NDArray

def isa() -> str: ...
def roofline() -> dict[str, float]: ...

class Network:
    def __init__(self, channels: int, rows: int, columns: int, threads: int = 1) -> None: ...
    def add_convolution(
        self,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        stride: tuple[int, int],
        padding: tuple[int, int, int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> None: ...
    def add_int8_convolution(
        self,
        weight: NDArray[np.int8],
        quantum: float,
        bias: NDArray[np.float32],
        stride: tuple[int, int],
        padding: tuple[int, int, int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> None: ...
    def add_int8_dense(
        self, weight: NDArray[np.int8], quantum: float, bias: NDArray[np.float32]
    ) -> None: ...
    def add_dense(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None: ...
    def add_pooling(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        scale: float,
    ) -> None: ...
    def add_scaling(self, scale: NDArray[np.float32]) -> None: ...
    def add_neurons(
        self,
        kind: str,
        subtract: bool,
        decay: NDArray[np.float32],
        threshold: NDArray[np.float32],
        reset_value: NDArray[np.float32],
        gain: NDArray[np.float32] | None,
        leak: NDArray[np.float32] | None,
        synaptic_decay: NDArray[np.float32] | None,
        synaptic_gain: NDArray[np.float32] | None,
    ) -> None: ...
    def finish(self) -> None: ...
    def reset(self) -> None: ...
    def step(self, frame: NDArray[np.float32], output: NDArray[np.float32]) -> None: ...
    def step_sparse(
        self,
        address: NDArray[np.int32],
        value: NDArray[np.float32],
        output: NDArray[np.float32],
    ) -> None: ...
    def run(
        self,
        frames: NDArray[np.float32],
        steps: int,
        constant: bool,
        output: NDArray[np.float32],
    ) -> None: ...
    def keep_membrane(self, index: int) -> None: ...
    def spikes(self, index: int, output: NDArray[np.uint8]) -> None: ...
    def membrane(self, index: int, output: NDArray[np.float32]) -> None: ...
    @property
    def populations(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    @property
    def synops(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def crossovers(self) -> list[float]: ...
    @property
    def isa(self) -> str: ...
