"""ONNX Runtime on a file of ours: the sequence graph in one call, the step graph step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.verify.backends import LayerActivity, Outcome, check_steps, outputs
from mpsl_export.write.onnx_file import graphs_of, read_model
from mpsl_export.write.onnx_nodes import STATES
from mpsl_runtime.errors import MissingExtraError, ModelError

__all__ = ["OnnxRuntime"]


class OnnxRuntime:
    """Runs a `.onnx` file of `mpsl export` on the providers that this machine really has.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: the file is damaged, or not of the form that `mpsl export` writes.
    """

    name = "onnx"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._model = read_model(path)
        self._session = _session(self._model, path)
        self._recorder: tuple[Any, list[str]] | None = None
        # The runtime falls back to the CPU with no more than a line in its log.
        self.device = ", ".join(self._session.get_providers())
        inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._is_step = len(inputs) > 1
        if (
            "x" not in inputs
            or not {"spikes", "membrane"} & set(self._outputs)
            or not all(name == "x" or name.endswith(STATES) for name in inputs)
            or (not self._is_step and len(inputs["x"].shape) < 3)
        ):
            raise ModelError(
                "ONNX model is not of the form that mpsl writes",
                got=f"{list(inputs)} → {self._outputs}",
                expected="x and states → spikes and next states",
                where=path,
            )

    def run(self, frames: NDArray[np.float32]) -> Outcome:
        """See `Backend.run`."""
        check_steps(frames)
        frames = np.ascontiguousarray(frames)
        if self._is_step:
            kept = _steps(self._session, frames, "x", self._path)
            results = {
                name: np.stack([step[name] for step in kept])
                for name in self._outputs
                if name in ("spikes", "membrane")
            }
        else:
            values = _run(self._session, None, {"x": frames}, self._path)
            results = dict(zip(self._outputs, values, strict=True))
        membrane = results.get("membrane")
        return Outcome(
            spikes=outputs(results["spikes" if "spikes" in results else "membrane"]),
            membrane=None if membrane is None else membrane[-1],
        )

    def record(self, frames: NDArray[np.float32]) -> list[LayerActivity]:
        """See `Backend.record`. The step inside the file is run with more outputs."""
        if self._recorder is None:
            self._recorder = _recorder(self._model, self._path)
        session, names = self._recorder
        frame = "x" if self._is_step else "x_t"
        kept = _steps(session, np.ascontiguousarray(frames[:, None]), frame, self._path)
        recordings = []
        for name in names:
            values = {
                part: np.stack([step[f"{name}.{part}"].reshape(-1) for step in kept])
                for part in ("spikes", "membrane")
                if f"{name}.{part}" in kept[0]
            }
            recordings.append(LayerActivity(name, values["spikes"] > 0, values.get("membrane")))
        return recordings


def _session(model: Any, path: Path) -> Any:
    """An inference session with every provider that there is, in float32 throughout."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("ONNX Runtime", "mpsl[cpu]") from error

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": 0}))
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:  # its exception classes share no other base
        raise ModelError("ONNX Runtime refuses the model", got=error, where=path) from error


def _run(session: Any, outputs: list[str] | None, inputs: dict[str, Any], path: Path) -> list[Any]:
    """One call of a session. Raises ModelError: the model loads, and does not run."""
    try:
        results: list[Any] = session.run(outputs, inputs)
    except Exception as error:  # its exception classes share no other base
        raise ModelError("ONNX Runtime cannot run the model", got=error, where=path) from error
    return results


def _steps(
    session: Any, frames: NDArray[np.float32], frame_name: str, path: Path
) -> list[dict[str, Any]]:
    """Runs a step graph over frames [T, B, …] from rest; every output of every step."""
    fixed = next(value.shape[0] for value in session.get_inputs() if value.name == frame_name)
    if isinstance(fixed, int) and fixed != frames.shape[1]:
        return _in_batches(session, frames, frame_name, path, fixed)
    batch = frames.shape[1]
    states = {
        value.name: np.zeros((batch, *value.shape[1:]), np.float32)
        for value in session.get_inputs()
        if value.name != frame_name
    }
    outputs = [value.name for value in session.get_outputs()]
    steps = []
    for frame in frames:
        results = _run(session, outputs, {frame_name: frame, **states}, path)
        step = dict(zip(outputs, results, strict=True))
        states = {name: step[f"{name}_next"] for name in states}
        steps.append(step)
    return steps


def _in_batches(
    session: Any, frames: NDArray[np.float32], frame_name: str, path: Path, size: int
) -> list[dict[str, Any]]:
    """`_steps` of a graph that takes `size` samples and no others: the last ones with silence."""
    count = frames.shape[1]
    silence = np.zeros((len(frames), -count % size, *frames.shape[2:]), np.float32)
    padded = np.concatenate([frames, silence], axis=1)
    parts = [
        _steps(session, np.ascontiguousarray(padded[:, at : at + size]), frame_name, path)
        for at in range(0, count, size)
    ]
    return [
        {name: np.concatenate([step[name] for step in steps])[:count] for name in steps[0]}
        for steps in zip(*parts, strict=True)
    ]


def _recorder(model: Any, path: Path) -> tuple[Any, list[str]]:
    """The step graph of a model, or the body of its Scan, with the spikes and the membrane
    potential of every layer as outputs; and the layers' names in order."""
    import onnx
    from onnx import TensorProto, helper

    wanted = onnx.ModelProto()
    wanted.CopyFrom(model)
    if len(graphs := graphs_of(model)) > 1:
        wanted.graph.CopyFrom(graphs[-1])
        # What the body of a Scan sees around it: weights that are made of whole numbers.
        around = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
        inside = [*wanted.graph.node]
        del wanted.graph.node[:]
        wanted.graph.node.extend([*around, *inside])
        needed = {name for node in around for name in node.input}
        wanted.graph.initializer.extend(c for c in model.graph.initializer if c.name in needed)
    values = [
        output
        for node in wanted.graph.node
        for output in node.output
        if output.endswith((".spikes", ".membrane"))
    ]
    known = {value.name for value in wanted.graph.output}
    wanted.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in values
        if name not in known
    )
    names = [name.removesuffix(".spikes") for name in values if name.endswith(".spikes")]
    return _session(wanted, path), names
