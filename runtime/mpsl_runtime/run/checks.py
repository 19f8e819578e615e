"""Frames and addresses of a caller in, what a step may be made of out; or one error."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.plan import Convolution, Dense, Plan

__all__ = ["checked", "checked_addresses", "checked_frames", "checked_weight", "in_one_piece"]

Array = NDArray[np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)


def checked(values: ArrayLike, shape: tuple[int, ...], where: object = None) -> Array:
    """The values as float32, without a copy where they are; they must be finite, of `shape`. What
    is broadcast along the first axis stays so.

    Raises:
        UsageError: they are not.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or array.shape != shape:
        raise UsageError(
            "input does not fit the model",
            got=f"{array.dtype} {array.shape}",
            expected=f"numbers of shape {shape}",
            where=where,
        )
    # One frame that stands for many is looked at, and stays, one.
    is_one = array.ndim > 1 and len(array) > 1 and array.strides[0] == 0
    with np.errstate(over="ignore"):
        result: Array = (array[:1] if is_one else array).astype(np.float32, copy=False)
    if not np.isfinite(result).all():
        raise UsageError("input is not finite", expected="finite numbers", where=where)
    return np.broadcast_to(result, shape) if is_one else result


def checked_frames(frames: ArrayLike, plan: Plan, *, least: int = 0) -> Array:
    """Frames float32 [T, *input_shape], without a copy where they are; one broadcast over T stays
    broadcast.

    Args:
        least: so many steps there must be.

    Raises:
        UsageError: they have another shape, or are not finite numbers.
    """
    array = np.asarray(frames)
    if array.shape[1:] != plan.input_shape or array.ndim == 0 or len(array) < least:
        shape = ", ".join(map(str, plan.input_shape))
        raise UsageError(
            "input does not fit the model",
            got=f"{array.dtype} {array.shape}",
            expected=f"numbers of shape (T, {shape}){f', T ≥ {least}' if least else ''}",
        )
    return checked(array, array.shape)


def checked_addresses(
    address: ArrayLike, value: ArrayLike, size: int
) -> tuple[NDArray[np.int32], Array]:
    """Addresses int32 [n] within 0 … size−1, ascending, and their finite values float32 [n].

    They may come in any order; the values of one address add up.

    Raises:
        UsageError: they are not.
    """
    where, values = np.asarray(address), checked(value, np.shape(value))
    if where.ndim != 1 or where.shape != values.shape or where.dtype.kind not in "iu":
        raise UsageError(
            "addresses and values do not fit",
            got=f"{where.dtype} {where.shape} and {values.shape}",
            expected="two vectors of one length, whole numbers and numbers",
        )
    if not where.size:
        return where.astype(np.int32, copy=False), values
    is_ascending = bool((where[1:] > where[:-1]).all())
    lowest, highest = (where[0], where[-1]) if is_ascending else (where.min(), where.max())
    if lowest < 0 or highest >= size:
        raise UsageError(
            "address outside the input",
            got=f"{lowest} … {highest}",
            expected=f"0 … {size - 1}",
        )
    where = where.astype(np.int32, copy=False)
    if is_ascending:
        return where, values
    places, place_of = np.unique(where, return_inverse=True)
    total = np.zeros(len(places), np.float32)
    with np.errstate(over="ignore"):
        np.add.at(total, place_of, values)
    return places, checked(total, total.shape)


def checked_weight(plan: Plan, name: str, weight: ArrayLike) -> tuple[int, Array]:
    """The index of a weighted node in `plan.nodes`, and another weight for it, float32.

    Raises:
        UsageError: the plan has no such node, or its weights are int8; the weight has another shape
            or is not finite.
    """
    where = f"{name} of {plan.source}"
    for index, node in enumerate(plan.nodes):
        if node.name == name and isinstance(node, Convolution | Dense):
            if node.weight_grid is not None:
                raise UsageError("int8 weights stay as they are", expected="a float32 model",
                                 where=where)  # fmt: skip
            return index, checked(weight, node.weight.shape, where)
    raise UsageError("no node with weights has this name", got=repr(name), where=plan.source)


def in_one_piece(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """The array, or a copy where its values do not lie one after the other, each at an address
    that the processor reads at once."""
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.require(array, requirements=["C", "A"])
