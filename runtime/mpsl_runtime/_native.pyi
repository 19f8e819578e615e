import numpy as np
from numpy.typing import NDArray

_Columns = tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint8]]

def isa() -> str: ...
def roofline() -> dict[str, float]: ...
def unpack_datagrams(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    times_us: NDArray[np.int64],
    counts: NDArray[np.int64],
    width: int,
    height: int,
    reached_us: int,
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
) -> tuple[int, int, int, int]: ...
def remap_events(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    columns: NDArray[np.int32],
    rows: NDArray[np.int32],
    merge: bool,
    t_out: NDArray[np.int64],
    x_out: NDArray[np.uint16],
    y_out: NDArray[np.uint16],
    p_out: NDArray[np.uint8],
) -> int: ...
def background_events(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    window_us: int,
    last_us: NDArray[np.int64],
    keep: NDArray[np.uint8],
) -> None: ...
def refractory_events(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    refractory_us: int,
    last_us: NDArray[np.int64],
    keep: NDArray[np.uint8],
) -> None: ...

class DatagramQueue:
    def __init__(self, socket: int, bytes: int, largest_events: int, rule: str) -> None: ...
    def wait(self, milliseconds: int) -> tuple[int, int]: ...
    def take(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        senders: NDArray[np.uint64],
        arrivals_ns: NDArray[np.int64],
    ) -> int: ...
    def counters(self) -> tuple[int, int, int, int]: ...
    def waiting_events(self) -> int: ...
    def stop(self) -> None: ...

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
        reset: str,
        decay: NDArray[np.float32],
        threshold: NDArray[np.float32],
        reset_value: NDArray[np.float32],
        gain: NDArray[np.float32] | None,
        leak: NDArray[np.float32] | None,
        synaptic_decay: NDArray[np.float32] | None,
        synaptic_gain: NDArray[np.float32] | None,
        initial: NDArray[np.float32] | None = None,
        drop: NDArray[np.float32] | None = None,
        many: bool = False,
    ) -> None: ...
    def mark(self) -> int: ...
    def add_late(self, extent: tuple[int, int, int], spikes: bool) -> int: ...
    def follow(self, late: int, source: int) -> None: ...
    def see(self, sources: list[int], extent: tuple[int, int, int]) -> None: ...
    def add_delay(self, steps: NDArray[np.int32]) -> None: ...
    def finish(self) -> None: ...
    def fork(self) -> Network: ...
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
    def state(
        self,
        last: int,
        V: NDArray[np.float32],
        J: NDArray[np.float32],
        S: NDArray[np.uint8],
        U: NDArray[np.float32],
        late: NDArray[np.float32],
    ) -> tuple[int, int]: ...
    def restore(
        self,
        last: int,
        V: NDArray[np.float32],
        J: NDArray[np.float32],
        S: NDArray[np.uint8],
        U: NDArray[np.float32],
        late: NDArray[np.float32],
        steps: int,
        synops: int,
    ) -> None: ...
    def keep_membrane(self, index: int) -> None: ...
    def replace_weights(self, index: int, weight: NDArray[np.float32]) -> None: ...
    def fired(self) -> list[int]: ...
    def spikes(self, index: int, output: NDArray[np.uint8]) -> None: ...
    def membrane(self, index: int, output: NDArray[np.float32]) -> None: ...
    @property
    def populations(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def synops(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def shared_bytes(self) -> int: ...
    @property
    def crossovers(self) -> list[float]: ...
    @property
    def isa(self) -> str: ...

class EventDecoder:
    before_time: int
    before_address: int
    without_clock: int
    outside: int
    unknown: int
    is_lost: bool
    @property
    def pending(self) -> int: ...
    def feed(self, data: object) -> _Columns: ...
    def finish(self) -> _Columns: ...

class Evt2(EventDecoder):
    def __init__(self) -> None: ...

class Evt21(EventDecoder):
    def __init__(self, swapped: bool) -> None: ...

class Evt3(EventDecoder):
    def __init__(self) -> None: ...

class Nmnist(EventDecoder):
    def __init__(self) -> None: ...

class EventStream(EventDecoder):
    def __init__(self, is_atis: bool, height: int) -> None: ...

class Aedat3(EventDecoder):
    def __init__(self) -> None: ...

class Text(EventDecoder):
    lines: int
    first_unknown: int
    def __init__(self, columns: str, separator: str, time_exponent: int) -> None: ...

class Addresses(EventDecoder):
    def __init__(
        self,
        *,
        x_shift: int,
        x_mask: int,
        y_shift: int,
        y_mask: int,
        p_shift: int,
        p_mask: int,
        other_mask: int = 0,
        flip_x: int = 0,
        flip_y: int = 0,
        on_is_zero: bool = False,
        is_big: bool = False,
    ) -> None: ...
