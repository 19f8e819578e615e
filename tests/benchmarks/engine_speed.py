"""Speed of the engine against ONNX Runtime: one thread each, same model, same inputs.

Network A (2x34x34, 128C3-AP2-256C3-AP2-256C3-AP2-512FC-10) with weights that are multiples of
1/128, so that every back end computes the same bits; biases are set so that a chosen fraction of
each layer's neurons fires. The two run in turns in one process; the last membrane potentials must
be equal, and the ratio is the median over the rounds.

    python tests/benchmarks/engine_speed.py --densities 0.01 0.05 --rounds 15
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mpsl_runtime.engine import Engine
from mpsl_runtime.plan import Convolution, Dense, Flatten, Neuron, Node, Plan, Pooling
from mpsl_runtime.reference import apply

Array = NDArray[np.float32]
STEPS = 8
DECAY = np.float32(0.75)
INPUT = (2, 34, 34)
LAYERS: tuple[tuple[str, int], ...] = (
    ("conv", 128), ("pool", 2), ("conv", 256), ("pool", 2), ("conv", 256), ("pool", 2),
    ("dense", 512), ("dense", 10),
)  # fmt: skip


def moving_blob(density: float = 0.1, seed: int = 3) -> Array:
    """Events as a recording has them, dense in the middle: [T, *INPUT]."""
    random = np.random.default_rng(seed)
    _, rows, columns = INPUT
    y, x = np.mgrid[0:rows, 0:columns]
    blob = np.exp(
        -(((y - rows / 2) / (rows * 0.3)) ** 2 + ((x - columns / 2) / (columns * 0.3)) ** 2)
    )
    return (random.random((STEPS, *INPUT)) < blob * density / blob.mean()).astype(np.float32)


def network_a(density: float, frames: Array) -> Plan:
    """Network A whose hidden layers fire with `density` on `frames`."""
    random = np.random.default_rng(0)
    nodes: list[Node] = []
    signal, shape = frames, INPUT
    for index, (kind, size) in enumerate(LAYERS):
        name = f"n{index:02d}_{kind}"
        if kind == "pool":
            pooled = (shape[0], shape[1] // 2, shape[2] // 2)
            nodes.append(Pooling(name, (2, 2), (2, 2), (0, 0), 0.25, shape, pooled))
            signal, shape = apply(nodes[-1], signal), pooled
            continue
        if kind == "dense" and len(shape) == 3:
            nodes.append(Flatten(f"{name}_flatten", shape, (int(np.prod(shape)),)))
            signal, shape = apply(nodes[-1], signal), nodes[-1].output_shape
        fan_in = (shape[0], 3, 3) if kind == "conv" else shape
        weight = np.clip(np.round(random.normal(0, 40, (size, *fan_in))), -127, 127) / 128
        weight = weight.astype(np.float32)
        silent = np.zeros(size, np.float32)
        if kind == "conv":
            out = (size, *shape[1:])
            layer: Node = Convolution(
                name, weight, silent, (1, 1), ((1, 1), (1, 1)), (1, 1), 1, shape, out
            )
        else:
            out = (size,)
            layer = Dense(name, weight, silent, shape, out)
        current = apply(layer, signal)
        threshold = np.float32(max(1.0, np.round(2 * current.std() * 16) / 16))
        bias, signal = _calibrate(current, threshold, density)
        if index == len(LAYERS) - 1:
            bias = np.float32(0)
        nodes.append(type(layer)(**{**vars(layer), "bias": np.full(size, bias)}))
        nodes.append(_neurons(f"{name}_lif", threshold, out))
        shape = out
    return Plan(tuple(nodes), INPUT, shape, None, f"network A at {density:.0%}")


def _calibrate(current: Array, threshold: np.float32, density: float) -> tuple[np.float32, Array]:
    """The bias with which `density` of the neurons fire, and their spikes."""
    low, high = -8 * threshold, 2 * threshold
    for _ in range(16):
        bias = np.float32(np.round((low + high) / 2 * 256) / 256)
        V = np.zeros_like(current[0])
        spikes = np.zeros_like(current)
        for t, I_t in enumerate(current):
            U = DECAY * V + (I_t + bias)
            spikes[t] = np.greater_equal(U, threshold)
            V = U - spikes[t] * threshold
        low, high = (low, bias) if spikes.mean() > density else (bias, high)
    return bias, spikes


def _neurons(name: str, threshold: np.float32, shape: tuple[int, ...]) -> Neuron:
    def full(value: float) -> Array:
        return np.full(shape, value, np.float32)

    return Neuron(
        name, "spiking", full(float(DECAY)), full(float(threshold)), "subtract", full(0), full(1),
        full(0), False, None, None, shape, shape,
    )  # fmt: skip


class OnnxRuntime:
    """The plan's step graph in ONNX Runtime on one thread, states bound in place."""

    def __init__(self, plan: Plan) -> None:
        nodes: list[Any] = []
        weights: list[Any] = []
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *plan.input_shape])]
        outputs: list[Any] = []
        self.shapes: list[tuple[int, ...]] = []
        at = "x"
        for node in plan.nodes:
            n = node.name
            if isinstance(node, Convolution | Dense):
                weights += [numpy_helper.from_array(node.weight, f"{n}.W")]
                weights += [numpy_helper.from_array(node.bias, f"{n}.b")]
                operator, options = ("Gemm", {"transB": 1})
                if isinstance(node, Convolution):
                    operator, options = ("Conv", {"pads": [1, 1, 1, 1]})
                nodes.append(helper.make_node(operator, [at, f"{n}.W", f"{n}.b"], [n], **options))
            elif isinstance(node, Pooling):
                window = {"kernel_shape": [2, 2], "strides": [2, 2]}
                nodes.append(helper.make_node("AveragePool", [at], [n], **window))
            elif isinstance(node, Flatten):
                nodes.append(helper.make_node("Flatten", [at], [n]))
            elif isinstance(node, Neuron):
                v, u, s = f"{n}.v", f"{n}.U", f"{n}.S"
                weights += [numpy_helper.from_array(node.decay.flat[0], f"{n}.rho")]
                weights += [numpy_helper.from_array(node.threshold.flat[0], f"{n}.theta")]
                nodes += [
                    helper.make_node("Mul", [v, f"{n}.rho"], [f"{n}.d"]),
                    helper.make_node("Add", [f"{n}.d", at], [u]),
                    helper.make_node("GreaterOrEqual", [u, f"{n}.theta"], [f"{n}.f"]),
                    helper.make_node("Cast", [f"{n}.f"], [s], to=TensorProto.FLOAT),
                    helper.make_node("Mul", [s, f"{n}.theta"], [f"{n}.r"]),
                    helper.make_node("Sub", [u, f"{n}.r"], [f"{n}.next"]),
                ]
                shape = [1, *node.output_shape]
                inputs.append(helper.make_tensor_value_info(v, TensorProto.FLOAT, shape))
                outputs.append(helper.make_tensor_value_info(f"{n}.next", TensorProto.FLOAT, shape))
                self.shapes.append(tuple(shape))
                n = s
            at = n
        graph = helper.make_graph(nodes, "step", inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        self.x = value(np.zeros((1, *plan.input_shape), np.float32))
        self.states = [[value(np.zeros(s, np.float32)) for s in self.shapes] for _ in range(2)]
        self.bindings = []
        for side in range(2):
            binding = self.session.io_binding()
            binding.bind_ortvalue_input("x", self.x)
            for i, (entry, result) in enumerate(zip(inputs[1:], outputs, strict=True)):
                binding.bind_ortvalue_input(entry.name, self.states[side][i])
                binding.bind_ortvalue_output(result.name, self.states[1 - side][i])
            self.bindings.append(binding)
        self.side = 0

    def reset(self) -> None:
        for states in self.states:
            for state, shape in zip(states, self.shapes, strict=True):
                state.update_inplace(np.zeros(shape, np.float32))
        self.side = 0

    def step(self, frame: Array) -> None:
        self.x.update_inplace(frame[None])
        self.session.run_with_iobinding(self.bindings[self.side])
        self.side ^= 1

    def states_now(self) -> list[Array]:
        return [state.numpy()[0] for state in self.states[self.side]]


def check_equal(plan: Plan, frames: Array, engine: Engine, onnx_runtime: OnnxRuntime) -> None:
    """Every state V of the last step, bit for bit."""
    onnx_runtime.reset()
    for frame in frames:
        onnx_runtime.step(frame)
    membranes, spikes = engine.record_membrane(frames), engine.record(frames)
    for neuron, U, S, expected in zip(
        plan.spiking, membranes, spikes, onnx_runtime.states_now(), strict=True
    ):
        if not np.array_equal(U[-1] - S[-1] * neuron.threshold, expected):
            raise SystemExit(f"outputs differ in {neuron.name} of {plan.source}")


def seconds_per_step(runner: Engine | OnnxRuntime, frames: Array) -> float:
    """Of a warm runner: the one before it has just used the caches."""
    for _ in range(2):
        runner.reset()
        begin = time.perf_counter()
        for frame in frames:
            runner.step(frame)
    return (time.perf_counter() - begin) / len(frames)


def measure(density: float, rounds: int) -> dict[str, float]:
    frames = moving_blob()
    plan = network_a(density, frames)
    onnx_runtime, engine = OnnxRuntime(plan), Engine(plan)
    check_equal(plan, frames, engine, onnx_runtime)
    engine = Engine(plan)  # one that keeps no membranes
    engine.run(frames)
    synops = engine.synops / len(frames)
    times: dict[str, list[float]] = {"engine": [], "onnx": []}
    for _ in range(rounds):
        times["engine"].append(seconds_per_step(engine, frames))
        times["onnx"].append(seconds_per_step(onnx_runtime, frames))
    ratios = [b / a for a, b in zip(times["engine"], times["onnx"], strict=True)]
    engine_s = statistics.median(times["engine"])
    return {
        "density": density,
        "engine_us": engine_s * 1e6,
        "onnx_us": statistics.median(times["onnx"]) * 1e6,
        "ratio": statistics.median(ratios),
        "gsops_per_s": synops / engine_s / 1e9,
        "memory_mib": engine.memory_bytes / 2**20,
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--densities", type=float, nargs="+", default=[0.01, 0.02, 0.05, 0.1, 0.2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    arguments = parser.parse_args()
    rows = [measure(density, arguments.rounds) for density in arguments.densities]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    from mpsl_runtime import _native

    about = {
        "device": f"{processor()}, {_native.isa()}, 1 thread",
        "commit": commit,
        "command": "python " + " ".join(sys.argv),
    }
    if arguments.json:
        print(json.dumps({**about, "rows": rows}))
        return
    print("; ".join(f"{key}: {value}" for key, value in about.items()))
    print("density   engine      ONNX Runtime   ratio   GSOP/s   memory")
    for row in rows:
        print(
            f"{row['density']:6.0%} {row['engine_us']:8.0f} us {row['onnx_us']:10.0f} us"
            f" {row['ratio']:9.1f}x {row['gsops_per_s']:7.1f} {row['memory_mib']:7.1f} MiB"
        )


if __name__ == "__main__":
    main()
