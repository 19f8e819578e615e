"""SOURCE → images for a model of images, as `mpsl run` takes it.

| source | images |
|---|---|
| a picture (.png .jpg .jpeg .bmp .pgm .ppm) | one |
| an array (.npy, or in memory) | uint8 [H, W] or [N, H, W] of grey, [C, H, W], [N, C, H, W] or [N, H, W, 3] |
| IDX (`…-ubyte`, `…-ubyte.gz`) | all; labelled where the file of labels lies beside it |
| a batch of CIFAR-10 (.bin) | all, labelled |
| a folder that holds the model's data set | its test images, labelled |
| a folder or zip of `[Train|Test]/<label>/<picture>` | labelled, in the order of their ids |
| a folder of pictures | each, by name |

Where both splits are there, the test split is taken. Nothing is resized or turned grey: an image of
another shape than the model's is refused, since what would be right is not known.
"""  # noqa: E501

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data import datasets
from mpsl_runtime.data.catalogue import DATASETS
from mpsl_runtime.data.containers import map_array
from mpsl_runtime.data.layouts import cifar, idx, layout_of
from mpsl_runtime.data.layouts.recordings import LabelledFiles, find_split, split_to_take
from mpsl_runtime.errors import DataError, MissingExtraError, UsageError
from mpsl_runtime.events.readers import read_bytes
from mpsl_runtime.model.plan import Plan

__all__ = ["PICTURES", "Image", "images_of"]

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm")
_FORMATS = ("PNG", "JPEG", "BMP", "PPM")
_LARGEST_PICTURE = 1 << 24
_KINDS = f"a picture ({' '.join(PICTURES)}), .npy, an IDX file (-ubyte.gz), or a folder of them"
_ONE = "one image"
_Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Image:
    """One image.

    Attributes:
        file: its name in the output: the path, or its id where a source holds many.
        pixels: uint8 [C, H, W]. target: its class where known.
    """

    file: str
    pixels: _Pixels
    target: int | None = None


def images_of(source: str | Path | NDArray[np.generic], plan: Plan) -> Iterator[Image]:
    """The images of a source; paths are looked at now, pictures are read when their turn comes.

    Args:
        source: see the module. plan: of the model, whose input [C, H, W] they must have.

    Raises:
        UsageError: the model's input is no image.
        DataError: the path is absent or of no kind that is read, an image has another shape or
            other channels, a file is damaged, or a label is no class.
        MissingExtraError: a picture, and Pillow is not installed.
    """
    shape = plan.input_shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UsageError(
            "model takes no images",
            got=f"input {shape}",
            expected="[1, rows, columns] of grey or [3, rows, columns] of colour",
            where=plan.source,
        )
    if isinstance(source, np.ndarray):
        return _of_array(source, shape, _ONE)
    path = Path(source)
    if path.is_dir():
        return _folder(path, plan)
    if not path.is_file():
        raise DataError("no such file or folder", where=path)
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        return iter([Image(str(path), _picture(_content(path), shape, path))])
    if suffix == ".npy":
        return _of_array(map_array(path, damage="damaged file, or no array"), shape, str(path))
    if suffix == ".zip":
        return _labelled(path, plan)
    if "ubyte" in path.name.lower():
        return _of_idx(path, plan)
    if suffix == ".bin" and shape[0] == 3:
        images, labels = cifar.read_batch(path, classes=len(plan.class_names))
        return _numbered(_fitting(images, shape, path), labels)
    raise DataError("file holds no images", got=path.name, expected=_KINDS, where=path)


def _folder(path: Path, plan: Plan) -> Iterator[Image]:
    facts = DATASETS.get(plan.metadata.dataset) if plan.metadata is not None else None
    if facts is not None and facts.kind == "image":
        layout = layout_of(facts.layout)
        for root in (path, *(path / outer for outer in facts.outer)):
            for split in datasets.SPLITS[::-1]:
                if layout.is_there(root, split):
                    found = datasets.open_split(facts.name, root, split)
                    return _numbered(_fitting(found.images(), plan.input_shape, root), found.labels)
    place = find_split(path, "test") or find_split(path, "train") or path
    if place.is_file():
        return _labelled(place, plan)
    try:
        entries = sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError("folder cannot be read", got=error.strerror, where=place) from error
    if any(entry.is_dir() for entry in entries):
        return _labelled(place, plan)
    files = [entry for entry in entries if entry.suffix.lower() in PICTURES]
    if not files:
        raise DataError(
            "folder has no pictures",
            expected=f"files with suffix {' '.join(PICTURES)}, <label>/<file>, or a data set",
            where=path,
        )
    shape = plan.input_shape
    return (Image(str(file), _picture(_content(file), shape, file)) for file in files)


class _LabelledPictures(LabelledFiles):
    noun = "picture"


def _labelled(place: Path, plan: Plan) -> Iterator[Image]:
    """`<label>/<picture>` in a folder or a zip."""
    split = split_to_take(place) if place.is_file() else None
    found = _LabelledPictures.open(place, plan.class_names, split=split, suffixes=PICTURES)
    return (
        Image(
            name,
            _picture(found.read(index), plan.input_shape, found.where(index)),
            int(found.labels[index]),
        )
        for index, name in enumerate(found.ids)
    )


def _of_idx(path: Path, plan: Plan) -> Iterator[Image]:
    labels = _labels_beside(path)
    if labels is None:
        images = idx.read_idx(path, 3)[:, None]
        return _numbered(_fitting(images, plan.input_shape, path), None)
    images, targets = idx.read_pair(path, labels, classes=len(plan.class_names))
    return _numbered(_fitting(images, plan.input_shape, path), targets)


def _labels_beside(path: Path) -> Path | None:
    """`t10k-images-idx3-ubyte.gz` → `t10k-labels-idx1-ubyte.gz`, packed or not, where it is."""
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    if name == path.name:
        return None
    bare = name.removesuffix(".gz")
    found = (path.with_name(beside) for beside in (name, bare, f"{bare}.gz"))
    return next((beside for beside in found if beside.is_file()), None)


def _numbered(images: _Pixels, labels: NDArray[np.int64] | None) -> Iterator[Image]:
    """Ids as a data set has them: "00045"."""
    return (
        Image(f"{index:05d}", pixels, None if labels is None else int(labels[index]))
        for index, pixels in enumerate(images)
    )


def _of_array(array: NDArray[np.generic], shape: tuple[int, ...], name: str) -> Iterator[Image]:
    channels, rows, columns = shape
    last = (rows, columns, channels)
    for one in (shape, (rows, columns) if channels == 1 else last):
        if array.dtype != np.uint8 or one not in (array.shape, array.shape[1:]) or not array.size:
            continue
        pixels = array.astype(np.uint8, copy=False).reshape(-1, *one)
        if one == last:
            pixels = np.moveaxis(pixels, 3, 1)
        names = [name] if array.shape == one else [f"{name}[{i}]" for i in range(len(pixels))]
        images = pixels.reshape(-1, *shape)
        return (Image(each, image) for each, image in zip(names, images, strict=True))
    raise DataError(
        "array does not fit the model",
        got=f"{array.dtype} {list(array.shape)}",
        expected=f"uint8 [N, {', '.join(map(str, shape))}]",
        where=name,
    )


def _fitting(images: _Pixels, shape: tuple[int, ...], where: Path) -> _Pixels:
    if images.shape[1:] != shape:
        raise _other_shape(images.shape[1:], shape, where)
    return images


def _other_shape(got: tuple[int, ...], expected: tuple[int, ...], where: Path) -> DataError:
    return DataError(
        "image does not fit the model", got=_words(got), expected=_words(expected), where=where
    )


def _words(shape: tuple[int, ...]) -> str:
    channels, rows, columns = shape
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    return f"{columns}x{rows} pixels, {kind}"


def _content(path: Path) -> bytes:
    if path.stat().st_size > _LARGEST_PICTURE:
        raise DataError(
            "picture is too large",
            got=f"{path.stat().st_size} bytes",
            expected=f"≤ {_LARGEST_PICTURE}",
            where=path,
        )
    return read_bytes(path)


def _picture(content: bytes, shape: tuple[int, ...], where: Path) -> _Pixels:
    """A picture's pixels, uint8 [C, H, W]; its size and colours are looked at before it is
    unpacked."""
    try:
        import PIL.Image
    except ImportError:
        raise MissingExtraError("Pillow, which reads pictures,", "mpsl-runtime[images]") from None
    channels, rows, columns = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
                found = {"1": 1, "L": 1, "P": 3, "RGB": 3}.get(picture.mode, 0)
                if not found:
                    raise DataError(
                        "picture has colours of another kind",
                        got=f"mode {picture.mode}",
                        expected="8 bits of grey, or of red, green and blue, without transparency",
                        where=where,
                    )
                width, height = picture.size
                if (found, height, width) != shape:
                    raise _other_shape((found, height, width), shape, where)
                pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.uint8)
    except DataError:
        raise
    except Exception as error:  # each of Pillow's decoders has errors of its own
        raise DataError("damaged picture, or none", got=error, where=where) from None
    return pixels.reshape(rows, columns, channels).transpose(2, 0, 1)
