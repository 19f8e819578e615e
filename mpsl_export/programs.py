"""What `mpsl bench --against` compares the engine with: ONNX Runtime and torch, step by step.

Each runs the model in the form that suits it best, on the CPU alone: ONNX Runtime the step graph of
`to_onnx`, its states bound in place so that nothing is copied between steps; torch the operations
that training uses, `channels_last`, without `torch.compile`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.write.to_onnx import step_model
from mpsl_runtime.errors import MissingExtraError
from mpsl_runtime.model.plan import Convolution, Dense, Flatten, Neuron, Node, Plan, Pooling

if TYPE_CHECKING:
    from mpsl_runtime.bench.programs import Program

__all__ = ["OnnxStep", "averaging", "onnx", "torch"]

Array = NDArray[np.float32]


def onnx(plan: Plan, threads: int) -> Program:
    """ONNX Runtime. Raises MissingExtraError where it is not installed."""
    return OnnxStep(plan, threads)


def torch(plan: Plan, threads: int) -> Program:
    """torch, eager; sets the number of threads of the whole process."""
    from mpsl_export.verify.backends.torch_step import TorchStep

    return TorchStep(averaging(plan), threads)


def averaging(plan: Plan) -> Plan:
    """The same network with sums over windows written as averages, which both programs have as one
    operation. Only where the window's area is a power of two, so that no number is rounded."""
    if not plan.is_chain:
        return plan
    nodes: list[Node] = []
    factor = np.float32(1)
    for position, node in enumerate(plan.nodes):
        if isinstance(node, Pooling):
            area = node.kernel[0] * node.kernel[1]
            if area & (area - 1) == 0 and _reaches_weights(plan, position):
                factor = np.float32(node.scale * area)
                node = replace(node, scale=1 / area)
        elif isinstance(node, Convolution | Dense) and factor != 1:
            node = replace(node, weight=node.weight * factor)
            factor = np.float32(1)
        nodes.append(node)
    return replace(plan, nodes=tuple(nodes))


def _reaches_weights(plan: Plan, position: int) -> bool:
    """Whether nothing but flattening is between a node and the next weights."""
    behind = [node for node in plan.nodes[position + 1 :] if not isinstance(node, Flatten)]
    return bool(behind) and isinstance(behind[0], Convolution | Dense)


class OnnxStep:
    """The step graph in ONNX Runtime on the CPU, batch 1.

    Two sets of states take turns as input and output of a step.
    """

    def __init__(self, plan: Plan, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("ONNX Runtime", "mpsl[cpu]") from error

        # float32 weights are faster; but a gain behind them would be multiplied into them.
        gains = any(isinstance(node, Neuron) and node.has_input_map for node in plan.nodes)
        model = step_model(averaging(plan), packs=gains)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Its threads would otherwise go on spinning while another program has its turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        plural = "s" * (threads > 1)
        self.device = f"ONNX Runtime {onnxruntime.__version__}, CPU, {threads} thread{plural}"
        shapes = {value.name: value.shape for value in self._session.get_inputs()}
        self._shape = shapes.pop("x")
        self._names = list(shapes)
        self._output = self._session.get_outputs()[0].name

        def zeros(shape: Any) -> Any:
            return onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))

        self._x = zeros(self._shape)
        self._spikes = zeros((1, *plan.output_shape))
        self._states = [{name: zeros(shapes[name]) for name in self._names} for _ in range(2)]
        extra = {
            value.name: zeros(value.shape)
            for value in self._session.get_outputs()
            if value.name != self._output and not value.name.endswith("_next")
        }
        self._bindings = [self._bind(side, extra) for side in range(2)]
        self._side = 0

    def _bind(self, side: int, extra: dict[str, Any]) -> Any:
        """The step that reads the states of `side` and writes those of the other."""
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("x", self._x)
        binding.bind_ortvalue_output(self._output, self._spikes)
        for name, value in extra.items():
            binding.bind_ortvalue_output(name, value)
        for name in self._names:
            binding.bind_ortvalue_input(name, self._states[side][name])
            binding.bind_ortvalue_output(f"{name}_next", self._states[1 - side][name])
        return binding

    def reset(self) -> None:
        """See `Program.reset`."""
        for value in self._states[0].values():
            value.update_inplace(np.zeros(value.shape(), np.float32))
        self._side = 0

    def step(self, frame: Array) -> Array:
        """See `Program.step`."""
        self._x.update_inplace(frame.reshape(self._shape))
        self._session.run_with_iobinding(self._bindings[self._side])
        self._side ^= 1
        # A copy: the next step writes to the same place.
        return np.array(self._spikes.numpy(), np.float32).reshape(-1)

    def states(self) -> dict[str, Array]:
        """See `Program.states`."""
        return {
            name.removesuffix(".v"): np.array(value.numpy(), np.float32)[0]
            for name, value in self._states[self._side].items()
            if name.endswith(".v")
        }
