"""Whether a network fits a chip: each limit beside what the network needs, and where it goes.

For chips whose cores take whole layers (Speck), with c channels and f filters of kₓ·k_y taps, and
an output of f·fₓ·f_y neurons before pooling, memory is counted as sinabs does when it places layers
(`DynapcnnLayer.memory_summary`); its documentation gives N = f·fₓ·f_y, which is less:

    kernels  K = c · 2^(⌈log₂ kₓk_y⌉ + ⌈log₂ f⌉)        neurons  N = f · 2^(⌈log₂ fₓ⌉ + ⌈log₂ f_y⌉)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mpsl_runtime.deploy.chips import Chip, Cores, Limit
from mpsl_runtime.deploy.demands import MEASURES, Demands, Layer, demands_of
from mpsl_runtime.deploy.matching import match
from mpsl_runtime.model.plan import Plan

__all__ = [
    "Fit",
    "Violation",
    "broken_as_int8",
    "fit",
    "kernel_entries",
    "lines",
    "neuron_entries",
    "to_mapping",
]

_KI = 1024


@dataclass(frozen=True)
class Violation:
    """One limit that a network breaks: what was found, where, and what would mend it."""

    measure: str
    text: str
    mend: str


@dataclass(frozen=True)
class Fit:
    """A network held against one chip.

    Attributes:
        chip: the chip. violations: empty where the network fits.
        worst: for each limit the network's value that is farthest from it, as text.
        as_int8: it breaks limits, but none if its weights were stored in 8 bits.
        placed: a line for each layer and its core or cores.
    """

    chip: Chip
    violations: tuple[Violation, ...]
    worst: tuple[tuple[Limit, str], ...]
    as_int8: bool
    placed: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """As it is."""
        return not self.violations

    @property
    def verdict(self) -> str:
        """`fits`, `fits as int8` or `does not fit`."""
        return "fits" if self.fits else "fits as int8" if self.as_int8 else "does not fit"


def fit(plan: Plan, chip: Chip) -> Fit:
    """Holds a network against every limit of a chip."""
    demands = demands_of(plan)
    violations, placed = _check(demands, chip)
    as_int8 = bool(violations) and not broken_as_int8(plan, chip)
    worst = tuple((limit, _worst(demands, limit)) for limit in chip.limits)
    return Fit(chip, tuple(violations), worst, as_int8, tuple(placed))


def broken_as_int8(plan: Plan, chip: Chip) -> list[str]:
    """The measures whose limits a network breaks with its weights stored in 8 bits."""
    violations, _ = _check(demands_of(plan, weight_bits=8), chip)
    return list(dict.fromkeys(found.measure for found in violations))


def _check(demands: Demands, chip: Chip) -> tuple[list[Violation], list[str]]:
    """What is broken, and where each layer goes."""
    violations = [found for limit in chip.limits if (found := _broken(demands, limit))]
    if chip.cores is None:
        return violations, []
    place = _match_cores if chip.cores.assignment == "matching" else _split_cores
    broken, placed = place(demands.layers, chip.cores)
    return violations + broken, placed


def _broken(demands: Demands, limit: Limit) -> Violation | None:
    """One line for a limit, however many layers break it."""
    measure = MEASURES[limit.measure]
    places: dict[int | str, list[str]] = {}
    for where, value in measure.values(demands):
        if not limit.takes(value):
            places.setdefault(value, []).append(where)
    if not places:
        return None
    found = [
        f"{_shown(value)} {measure.unit}".rstrip()
        + (f" in {', '.join(names)}" if any(names) else "")
        for value, names in places.items()
    ]
    text = f"{measure.words} {', '.join(found)}; the chip takes {limit.text}"
    return Violation(limit.measure, text, limit.mend)


def _worst(demands: Demands, limit: Limit) -> str:
    """The value that breaks the limit, or the one nearest to it."""
    values = [value for _, value in MEASURES[limit.measure].values(demands)]
    numbers = [value for value in values if isinstance(value, int)]
    if limit.allowed or len(numbers) < len(values):
        return ", ".join(_shown(value) for value in dict.fromkeys(values)) or "–"
    if not numbers:
        return "–"
    return _shown(min(numbers) if limit.least is not None else max(numbers))


def kernel_entries(layer: Layer) -> int:
    """K, entries of kernel memory on a core that takes a whole layer."""
    taps = (math.prod(layer.kernel) - 1).bit_length()
    filters = (layer.filters - 1).bit_length()
    return int(layer.channels << (taps + filters))


def neuron_entries(layer: Layer) -> int:
    """N, entries of neuron memory, before pooling."""
    return layer.filters << sum((side - 1).bit_length() for side in layer.map_shape)


def _match_cores(layers: tuple[Layer, ...], cores: Cores) -> tuple[list[Violation], list[str]]:
    sizes = list(zip(cores.kernel_ki, cores.neuron_ki, strict=True))
    needs = [(kernel_entries(layer), neuron_entries(layer)) for layer in layers]
    options = [
        [i for i, (k, n) in enumerate(sizes) if kernel <= k * _KI and neurons <= n * _KI]
        for kernel, neurons in needs
    ]
    found: list[Violation] = []
    placed: list[str] = []
    core_of = match(options)
    for layer, (kernel, neurons), possible, core in zip(
        layers, needs, options, core_of, strict=True
    ):
        asked = f"{_ki(kernel)} Ki of kernels and {_ki(neurons)} Ki of neurons"
        if core is not None:
            k, n = sizes[core]
            placed.append(f"{layer.name}: core {core}, {asked}; the core has {k} and {n}")
        elif possible:
            taken = len(layers) - core_of.count(None)
            text = f"{layer.name} needs {asked}; {taken} of {len(layers)} layers find a core"
            found.append(Violation("cores", text, cores.mend))
        else:
            best = f"{max(cores.kernel_ki)} and {max(cores.neuron_ki)}"
            text = f"{layer.name} needs {asked}; no core has both, the most are {best} Ki"
            found.append(Violation("memory", text, cores.mend))
    return found, placed


def _split_cores(layers: tuple[Layer, ...], cores: Cores) -> tuple[list[Violation], list[str]]:
    total, placed = 0, []
    for layer in layers:
        has = {"neurons": layer.neurons, "bytes": layer.stored_bytes}
        count = max(1, *(-(-has[key] // most) for key, most in cores.each))
        total += count
        asked = ", ".join(f"{has[key]:,} {key}" for key, _ in cores.each)
        placed.append(f"{layer.name}: {count:,} {'core' if count == 1 else 'cores'}, {asked}")
    if total <= cores.count:
        return [], placed
    text = f"{total:,} cores; the chip has {cores.count:,}"
    return [Violation("cores", text, cores.mend)], placed


def _ki(entries: int) -> str:
    return f"{entries / _KI:.3g}"


def _shown(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def to_mapping(result: Fit) -> dict[str, Any]:
    """A fit as plain values, for JSON."""
    return {
        "chip": result.chip.name,
        "title": result.chip.title,
        "fits": result.fits,
        "fits_as_int8": result.fits or result.as_int8,
        "limits": [
            {
                "measure": limit.measure,
                "limit": limit.text,
                "model": worst,
                "source": limit.source,
            }
            for limit, worst in result.worst
        ],
        "violations": [vars(violation) for violation in result.violations],
        "cores": _cores_mapping(result),
        "notes": list(result.chip.notes),
    }


def _cores_mapping(result: Fit) -> dict[str, Any] | None:
    cores = result.chip.cores
    if cores is None:
        return None
    return {
        "assignment": cores.assignment,
        "layers": list(result.placed),
        "source": cores.source,
    }


def lines(result: Fit) -> list[str]:
    """A fit as text for people."""
    chip = result.chip
    text = [f"{chip.name}  ({chip.title}): {result.verdict}"]
    text += [f"  {found.text}; mend: {found.mend}" for found in result.violations]
    if chip.limits:
        text += ["", *_limit_lines(result)]
    if chip.cores is not None:
        text += ["", f"  cores: {_cores_text(chip.cores)}  {chip.cores.source}"]
        text += [f"    {line}" for line in result.placed]
    text += [f"  note: {note}" for note in chip.notes]
    return text


def _limit_lines(result: Fit) -> list[str]:
    """Every limit beside the network's value, with its source."""
    rows = [("limit", "", "model", "source")]
    rows += [
        (MEASURES[limit.measure].words, limit.text, worst, limit.source)
        for limit, worst in result.worst
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        "  " + "  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]) for row in rows
    ]


def _cores_text(cores: Cores) -> str:
    if cores.assignment == "split":
        each = ", ".join(f"{most:,} {key}" for key, most in cores.each)
        return f"{cores.count:,} of {each}"
    kernels, neurons = (",".join(map(str, sizes)) for sizes in (cores.kernel_ki, cores.neuron_ki))
    return f"{len(cores.kernel_ki)}, kernels of {kernels} Ki, neurons of {neurons} Ki"
