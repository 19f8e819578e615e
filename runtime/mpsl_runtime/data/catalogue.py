"""The data sets that are known, and what is known of each before a file is opened."""

from __future__ import annotations

from dataclasses import dataclass

from mpsl_runtime.data.layouts import cifar, gestures
from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.binning import Origin
from mpsl_runtime.model.metadata import InputKind

__all__ = ["DATASETS", "DatasetFacts", "facts_of"]


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set before a file is opened.

    Attributes:
        name: as on the command line.
        kind: `events` or `image`.
        class_names: in the order of the labels; names of the folders where labels are folders.
        sensor_size: (width, height) of the camera; (0, 0) for images.
        origin: t0 of a sample, see `binning.Binning`.
        image_shape: (channels, rows, columns) of images, else None.
        layout: of the files, by its name in `layouts`.
        suffixes: of the files of recordings.
        flips: a sample mirrored left to right is still one of its class.
        outer: names of folders that may lie around the data, as its sources pack it.
        missing: what to do when it is not there.
    """

    name: str
    kind: InputKind
    class_names: tuple[str, ...]
    sensor_size: tuple[int, int] = (0, 0)
    origin: Origin = "zero"
    image_shape: tuple[int, int, int] | None = None
    layout: str = "recordings"
    suffixes: tuple[str, ...] = (".bin",)
    flips: bool = False
    outer: tuple[str, ...] = ()
    missing: str = ""


_DIGITS = tuple("0123456789")
_GARMENTS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_GESTURES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter clockwise",
    "left arm clockwise",
    "left arm counter clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
_IDX_OUTER = ("raw", "MNIST", "MNIST/raw", "FashionMNIST", "FashionMNIST/raw")
_NMNIST_FILES = "put train.zip and test.zip (or Train/ and Test/) there"
_IDX_FILES = "put the four official *-ubyte.gz there, or let `mpsl train` fetch them"

DATASETS: dict[str, DatasetFacts] = {
    facts.name: facts
    for facts in (
        DatasetFacts(
            "mnist",
            "image",
            _DIGITS,
            image_shape=(1, 28, 28),
            layout="idx",
            outer=_IDX_OUTER,
            missing=_IDX_FILES,
        ),
        DatasetFacts(
            "fashion-mnist",
            "image",
            _GARMENTS,
            image_shape=(1, 28, 28),
            flips=True,
            layout="idx",
            outer=_IDX_OUTER,
            missing=_IDX_FILES,
        ),
        DatasetFacts(
            "cifar10",
            "image",
            _CIFAR10,
            image_shape=(3, 32, 32),
            flips=True,
            layout="cifar",
            outer=("cifar-10-batches-bin",),
            missing=f"put {cifar.ARCHIVE} or its *.bin there, or let `mpsl train` fetch it",
        ),
        DatasetFacts(
            "nmnist", "events", _DIGITS, (34, 34), outer=("NMNIST",), missing=_NMNIST_FILES
        ),
        DatasetFacts("nmnist8", "events", _DIGITS[:8], (34, 34), missing=_NMNIST_FILES),
        DatasetFacts(
            "dvs-digits", "events", _DIGITS, (34, 34), missing="run `mpsl data make dvs-digits`"
        ),
        DatasetFacts(
            "dvs-gesture",
            "events",
            _GESTURES,
            gestures.SENSOR_SIZE,
            layout="gestures",
            outer=("DvsGesture", "DVSGesture"),
            missing="unpack DvsGesture.tar.gz there, or run `mpsl data make dvs-gesture`",
        ),
        DatasetFacts(
            "dvs-gesture-made",
            "events",
            _GESTURES,
            gestures.SENSOR_SIZE,
            layout="gestures-made",
            missing="run `mpsl data make dvs-gesture-made`",
        ),
    )
}


def facts_of(name: str) -> DatasetFacts:
    """What is known of a data set.

    Raises:
        UsageError: no data set of that name.
    """
    if name not in DATASETS:
        raise UsageError("unknown data set", got=repr(name), expected=", ".join(DATASETS))
    return DATASETS[name]
