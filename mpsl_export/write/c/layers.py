"""Weights and pools as C: what one input adds, and a loop over the inputs that are not 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.write.c.program import Program, proven
from mpsl_export.write.c.signals import Signal
from mpsl_export.write.c.text import comment, fill, number, type_of
from mpsl_export.write.c.widths import integer_membrane
from mpsl_runtime.model.plan import Convolution, Dense, Neuron, Pooling

__all__ = ["add_pool", "add_weights"]


def add_weights(program: Program, index: int, node: Convolution | Dense, source: Signal) -> Signal:
    """Writes a layer with weights; returns its currents."""
    grid = program.grids.get(node.name)
    image = node.output_shape if isinstance(node, Convolution) else None
    size = math.prod(node.output_shape)
    values: NDArray[Any] = node.weight if grid is None else grid.weight
    bias: NDArray[Any] = node.bias if grid is None else grid.bias
    shift = 0
    if grid is None:
        out = program.array_of_values(index, "float", size, image)
    else:
        shift, out = _integer_currents(program, index, node, image)
    in_place = index + 1 in program.membranes
    name = program.function(index)
    # Branches and loops sum whole numbers in float32: the same weights, and the quantum at the end.
    whole = proven(program.plan).get(node.name) if grid is None else grid
    quantum = 1.0 if whole is None or grid is not None else whole.weight_quantum
    if whole is not None:
        values = whole.weight
    weight = "float" if whole is None else "int8_t"
    if isinstance(node, Convolution):
        rows = _convolution_rows(node, values)
    else:
        rows = values.T[source.order]
    program.constant(weight, f"{name}_weight", np.ascontiguousarray(rows))
    scale = f" * {1 << shift}" if shift else ""
    w = "(float)w[o]" if grid is None and whole is not None else "w[o]"
    add = {
        "name": name,
        "value": "float" if grid is None else "int32_t",
        "acc": out.ctype,
        "weight": weight,
    }
    if isinstance(node, Convolution):
        total = _plus(out.ctype, "to[o]", f"value * {w}{scale}")
        program.parts.append(_convolution_text(node, total, **add))
    else:
        inputs, outputs = node.input_shape[0], node.output_shape[0]
        program.parts.append(
            fill(
                "dense_add.c",
                **add,
                about=f"{comment(node.name)}: fully connected, {inputs} -> {outputs}.",
                outputs=outputs,
                sum=_plus(out.ctype, "I[o]", f"value * {w}{scale}"),
            )
        )
    start, finish = "", ""
    if not in_place:
        start, finish = _with_bias(program, index, bias, out)
        if quantum != 1:
            times = f"for (int32_t k = 0; k < {out.size}; k++)\n    I[k] *= {number(quantum)};"
            finish = f"{times}\n{finish}" if finish else times
    _add_loop(program, index, source, out, node.input_shape, start, finish)
    return out


def add_pool(program: Program, index: int, node: Pooling, source: Signal, largest: int) -> Signal:
    """Writes a pool; returns its sums, on a grid without its scale, which the quantum has.

    Args:
        largest: of an int8 plan, |sum| never is larger.
    """
    ctype = "float"
    if program.is_int8:
        ctype = type_of(-largest if _signed(source.ctype) else 0, largest)
    out = program.array_of_values(index, ctype, math.prod(node.output_shape), node.output_shape)
    (_, _, columns), filters = node.output_shape, node.output_shape[0]
    (down, right), (top, left) = node.stride, node.padding
    over = f",\n *     i < {node.kernel[0]}, j < {node.kernel[1]}"
    if not program.is_int8 and node.scale != 1:
        over += f", all times {number(np.float32(node.scale)).removesuffix('f')}"
    shape = "x".join(map(str, node.input_shape))
    program.parts.append(
        fill(
            "pool_add.c",
            name=program.function(index),
            about=f"{comment(node.name)}: sums of {node.kernel[0]}x{node.kernel[1]}, stride "
            f"{down},{right}, padding {top},{left}, of {shape}.",
            value="int32_t" if program.is_int8 else "float",
            acc=ctype,
            row_seen=_seen("y", down, "i", 1, top),
            column_seen=_seen("x", right, "j", 1, left),
            over=over,
            above=_offset("row", top - node.kernel[0] + 1),
            beside=_offset("column", left - node.kernel[1] + 1),
            row=_offset("row", top),
            column=_offset("column", left),
            y_first=_first("above", down),
            x_first=_first("beside", right),
            down=down,
            right=right,
            rows=node.output_shape[1],
            columns=columns,
            filters=filters,
            sum=_plus(ctype, f"I[(y * {columns} + x) * {filters} + c]", "value"),
        )
    )
    finish = ""
    if not program.is_int8 and node.scale != 1:
        scale = number(np.float32(node.scale))
        finish = f"for (int32_t k = 0; k < {out.size}; k++)\n    I[k] *= {scale};"
    _add_loop(program, index, source, out, node.input_shape, _cleared(out), finish)
    return out


def _integer_currents(
    program: Program, index: int, node: Convolution | Dense, image: Any
) -> tuple[int, Signal]:
    """Where the currents of an int8 layer are summed: in the membranes themselves where these are
    integers; and by how many places to the left."""
    grid, following = program.grids[node.name], program.plan.nodes[index + 1]
    size = math.prod(node.output_shape)
    metadata = program.plan.metadata
    if metadata is None or not isinstance(following, Neuron):
        raise program.error("weights of an int8 model have no neurons behind them", node)
    # Spikes are not negative, nor are counts of events.
    negative = metadata.input_kind != "events" and not any(
        isinstance(each, Neuron) for each in program.plan.nodes[:index]
    )
    membrane = integer_membrane(grid, following, metadata.steps, negative_input=negative)
    if membrane is None:
        ctype = type_of(-grid.worst_sum, grid.worst_sum, signed=True)
        return 0, program.array_of_values(index, ctype, size, image)
    program.membranes[index + 1] = membrane
    program.horizon = max(program.horizon, membrane.steps)
    note = "rho V + b, to which a step adds its current"
    V = program.member(membrane.ctype, f"{program.local(index + 1)}_V", size, note)
    return membrane.places, Signal("values", membrane.ctype, V, size, image=image)


def _convolution_rows(node: Convolution, values: NDArray[Any]) -> NDArray[Any]:
    """A row for each input channel and tap: its weights to the filters of its group."""
    taps, filters = values.shape[2:], values.shape[0] // node.groups
    grouped = values.reshape(node.groups, filters, values.shape[1], *taps)
    return grouped.transpose(0, 2, 3, 4, 1).reshape(-1, filters)


def _convolution_text(node: Convolution, total: str, **add: Any) -> str:
    """The function that adds one input's weights."""
    channels, kernel = node.input_shape[0], node.weight.shape[2:]
    filters, rows, columns = node.output_shape
    per_group = filters // node.groups
    group = f" + c / {channels // node.groups} * {per_group}" if node.groups > 1 else ""
    i = _axis("row", "i", node, 0, rows)
    j = _axis("column", "j", node, 1, columns)
    shapes = "x".join(map(str, node.input_shape)), "x".join(map(str, node.output_shape))
    groups = f", {node.groups} groups" if node.groups > 1 else ""
    over = " for the channels c of its group" if node.groups > 1 else ""
    return fill(
        "convolution_add.c",
        **add,
        about=f"{comment(node.name)}: convolution {shapes[0]} -> {shapes[1]}, "
        f"{kernel[0]}x{kernel[1]}{groups}.",
        row_seen=_seen("y", node.stride[0], "i", node.dilation[0], node.padding[0][0]),
        column_seen=_seen("x", node.stride[1], "j", node.dilation[1], node.padding[1][0]),
        over=over,
        **{f"i_{key}": value for key, value in i.items()},
        **{f"j_{key}": value for key, value in j.items()},
        columns=columns,
        filters=filters,
        group=group,
        per_group=per_group,
        sum=total,
    )


def _axis(at: str, tap: str, node: Convolution, axis: int, outputs: int) -> dict[str, Any]:
    """How a loop over the taps of an axis finds the outputs that see an input with them."""
    stride, dilation, before = node.stride[axis], node.dilation[axis], node.padding[axis][0]
    seen = f"{at}{f' + {before}' if before else ''}"
    offset = f"{seen} - {f'{dilation} * ' if dilation > 1 else ''}{tap}"
    out = "y" if axis == 0 else "x"
    check = f"if ({out} < 0 || {out} >= {outputs}) continue;"
    loop = {"taps": node.weight.shape[2 + axis], "first": "0", "step": "1"}
    if stride > 1 and dilation == 1:
        loop |= {
            "first": f"({seen}) % {stride}" if before else f"{seen} % {stride}",
            "step": stride,
        }
    elif stride > 1:
        check = f"if (({offset}) % {stride} != 0) continue;\n{check}"
    return {**loop, "at": f"({offset}) / {stride}" if stride > 1 else offset, "check": check}


def _seen(out: str, stride: int, tap: str, dilation: int, before: int) -> str:
    """Which input an output sees with a tap, as an equation says it."""
    text = (
        f"{f'{stride} ' if stride > 1 else ''}{out} + {f'{dilation} ' if dilation > 1 else ''}{tap}"
    )
    return f"{text} - {before}" if before else text


def _offset(at: str, offset: int) -> str:
    return f"{at} {'+' if offset > 0 else '-'} {abs(offset)}" if offset else at


def _first(at: str, stride: int) -> str:
    """The first window that ends behind `at`, from 0 on."""
    return f"{at} > 0 ? {f'({at} + {stride - 1}) / {stride}' if stride > 1 else at} : 0"


def _plus(ctype: str, to: str, what: str) -> str:
    total = f"{to} + {what}"
    return total if ctype in ("float", "int32_t") else f"({ctype})({total})"


def _signed(ctype: str) -> bool:
    return ctype in ("int8_t", "int16_t", "int32_t")


def _cleared(out: Signal) -> str:
    return f"memset(I, 0, {out.size} * sizeof *I);"


def _with_bias(program: Program, index: int, bias: NDArray[Any], out: Signal) -> tuple[str, str]:
    """What stands before and behind the loop over inputs. Whole numbers may begin with the bias;
    in float32 it is added to the sum, as everywhere."""
    if not bias.any():
        return _cleared(out), ""
    places = out.size // len(bias)
    ctype = "float"
    if bias.dtype.kind != "f":
        ctype = type_of(int(bias.min()), int(bias.max()))
    name = program.constant(ctype, f"{program.function(index)}_bias", bias)
    first = ctype != "float"
    to = f"I[p * {len(bias)} + o]" if places > 1 else "I[o]"
    value = f"{name}[o]"
    if first and ctype != out.ctype:
        value = f"({out.ctype}){value}"
    loop = f"for (int32_t o = 0; o < {len(bias)}; o++)\n    {to} {'' if first else '+'}= {value};"
    if places > 1:
        inner = loop.replace("\n", "\n    ")
        loop = f"for (int32_t p = 0; p < {places}; p++)\n    {inner}"
    return (loop, "") if first else (_cleared(out), loop)


def _add_loop(
    program: Program,
    index: int,
    source: Signal,
    out: Signal,
    shape: tuple[int, ...],
    start: str,
    finish: str,
) -> None:
    """Writes the function that goes through the inputs which are not 0, and its call."""
    locate, at = "", "s"
    if len(shape) == 3:
        channels, rows, columns = shape
        at = "c, row, column"
        locate = f"const int32_t c = s / {rows * columns}, row = s / {columns} % {rows}, "
        locate += f"column = s % {columns};"
        if source.image is not None:
            locate = f"const int32_t c = s % {channels}, row = s / {channels * columns}, "
            locate += f"column = s / {channels} % {columns};"
    name = program.function(index)
    bias = ", then the bias" if finish.find("bias") > 0 else ""
    common = {
        "name": name,
        "acc": out.ctype,
        "start": start,
        "finish": finish,
        "locate": locate,
        "at": at,
        "value": "float" if out.ctype == "float" else "int32_t",
    }
    if source.kind == "spikes":
        cast = "(int32_t)" if source.ctype == "uint32_t" else ""
        text = fill(
            "from_spikes.c", **common, index=source.ctype, spike=f"{cast}spikes[k]",
            done=f"Every spike{bias}.",
        )  # fmt: skip
        passed = f"{source.pointer}, {source.count}"
    elif source.kind == "values":
        # Whole numbers in a float: of neurons that fire several times a step.
        rounds = source.ctype == "float" and common["value"] == "int32_t"
        text = fill(
            "from_values.c", **common, values=source.ctype, size=source.size,
            cast="(int32_t)" if rounds else "",
            done=f"Every input that is not 0{bias}.",
        )  # fmt: skip
        passed = source.pointer
    else:
        cast = "(int32_t)" if source.size > 1 << 16 else ""
        text = fill(
            "from_events.c", **common, prefix=program.prefix, values=source.ctype,
            event=f"{cast}events[k].at", done=f"Every event{bias}",
        )  # fmt: skip
        passed = f"events, n, {source.pointer}"
    program.parts.append(text)
    program.body.append(f"{name}({passed}, {out.pointer});")
