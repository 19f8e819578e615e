# Tensors are given by address (`Tensor.data_ptr()`, 0: not there) and size; the caller checks them.
# Shapes are (batch, rows, columns, channels), channels last.
from typing import Protocol

_Shape = tuple[int, int, int, int]

class Functions(Protocol):
    """The functions for one type of numbers; kernels.hpp says what each computes."""

    @staticmethod
    def fire(
        current: int,
        membrane: int,
        fired: int,
        near: int,
        count: int,
        decay: float,
        threshold: float,
        width: float,
        first: bool,
        last: bool,
        activity: bool,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def pool(fired: int, out: int, shape: _Shape, size: int, threads: int, /) -> None: ...
    @staticmethod
    def unfire(
        gradient: int,
        later: int,
        near: int,
        shape: _Shape,
        size: int,
        decay: float,
        threshold: float,
        width: float,
        first: bool,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def sums(values: int, out: int, count: int, channels: int, threads: int, /) -> None: ...
    @staticmethod
    def finish(
        change: int,
        beta: int,
        mean: int,
        outputs: int,
        inputs: int,
        columns: bool,
        count: float,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def learn(
        change: int,
        base: int,
        hebbian: int,
        steered: int,
        weight: int,
        first: int,
        second: int,
        factor: int,
        decay: float,
        eta: float,
        outputs: int,
        inputs: int,
        columns: bool,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def decay_add(
        trace: int, gradient: int, total: int, count: int, decay: float, threads: int, /
    ) -> None: ...
    @staticmethod
    def dot(
        a: int, b: int, out: int, outputs: int, inputs: int, columns: bool, shared: bool,
        threads: int, /,
    ) -> None: ...  # fmt: skip
    @staticmethod
    def transpose(source: int, out: int, rows: int, columns: int, threads: int, /) -> None: ...
    @staticmethod
    def convolve(
        x: int,
        weight: int,
        bias: int,
        out: int,
        shape_in: _Shape,
        shape_out: _Shape,
        size: int,
        stride: int,
        padding: int,
        tap_stride: int,
        in_stride: int,
        flipped: bool,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def correlate(
        x: int,
        g: int,
        out: int,
        shape_in: _Shape,
        shape_out: _Shape,
        padding: int,
        again: bool,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def mean(
        x: int,
        out: int,
        shape_in: _Shape,
        shape_out: _Shape,
        size: int,
        stride: int,
        padding: int,
        threads: int,
        /,
    ) -> None: ...
    @staticmethod
    def nonzero(x: int, count: int, threads: int, /) -> int: ...

float32: Functions
float64: Functions

def isa() -> str: ...
