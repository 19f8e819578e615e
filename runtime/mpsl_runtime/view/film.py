"""`mpsl view --record`: frames in, a film of them as .gif or .mp4 out.

A frame is drawn once more here, without a browser: the camera, and beside it each model's answer
and scores. Whoever makes frames waits for no film: those that cannot be drawn in time are counted,
and the one before is shown longer.
"""

from __future__ import annotations

import importlib.util
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing
from mpsl_runtime.errors import MissingExtraError, MpslError, OutputError, UsageError, shortened
from mpsl_runtime.view.composer import RATE_HZ, Frame

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

__all__ = ["Film", "draw"]

SIZE = (960, 540)
_GIF_EVERY = 3  # 10 pictures a second: a GIF counts hundredths
# Pillow holds all pictures of a GIF until it ends: a minute.
_MOST_GIF = 600
_MOST_WAITING = 8
_ON, _OFF = np.array([255, 167, 51], np.float32), np.array([74, 163, 255], np.float32)
_BACK, _PANEL, _TEXT, _FAINT = (11, 14, 20), (24, 29, 38), (236, 240, 245), (139, 148, 160)
_LEADS = (255, 167, 51)


class Film:
    """See the module.

    Args:
        path: .gif or .mp4; it appears when the film is closed. names: of the models, and `classes`
            of each, as a frame has them. say: called with a line for people.

    Attributes:
        dropped: frames that were not drawn.

    Raises:
        UsageError: another suffix. MissingExtraError: Pillow, or a program that encodes, is absent.
    """

    def __init__(
        self,
        path: Path,
        names: list[str],
        classes: list[tuple[str, ...]],
        *,
        say: Callable[[str], None],
    ) -> None:
        if path.suffix.lower() not in (".gif", ".mp4"):
            raise UsageError(
                "film of an unknown kind", got=path.name, expected=".gif or .mp4", where="--record"
            )
        if importlib.util.find_spec("PIL") is None:
            raise MissingExtraError("drawing a film", "mpsl-runtime[images]")
        self._is_gif = path.suffix.lower() == ".gif"
        self._encoder = "" if self._is_gif else _encoder()
        self._path, self._names, self._classes, self._say = path, names, classes, say
        self.dropped = 0
        self._waiting: queue.Queue[Frame | None] = queue.Queue(_MOST_WAITING)
        self._error: MpslError | None = None
        self._is_over = False
        self._stage = ExitStack()
        self._new = path
        self._thread = threading.Thread(target=self._work, name="mpsl view film", daemon=True)

    def start(self) -> None:
        """Begins.

        Raises:
            OutputError: nothing can be written there.
        """
        self._new = self._stage.enter_context(replacing(self._path))
        self._thread.start()

    def see(self, frame: Frame) -> None:
        """The newest frame, from any thread; returns at once."""
        try:
            self._waiting.put_nowait(frame)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Writes what is left; the file is there after this.

        Raises:
            OutputError: it cannot be written, and nothing is left of it.
        """
        if self._thread.ident is None:
            return
        self._waiting.put(None)
        self._thread.join()
        with self._stage:
            if self._error is not None:
                raise self._error

    def _work(self) -> None:
        try:
            if self._is_gif:
                self._write_gif(self._new)
            else:
                self._write_mp4(self._new)
        except OSError as error:
            self._error = OutputError(
                "film cannot be written", got=error.strerror or error, where=self._path
            )
        except MpslError as error:
            self._error = error
        # Whoever makes frames goes on, and `close` finds room for its word.
        while not self._is_over:
            self._next()

    def _next(self) -> Frame | None:
        """The next frame; None at the end."""
        frame = self._waiting.get()
        self._is_over = frame is None
        return frame

    def _frames(self) -> Iterator[tuple[Frame, int]]:
        """Each frame, and for how many of the constant rate it stands."""
        before: Frame | None = None
        while (frame := self._next()) is not None:
            if before is not None:
                yield before, frame.number - before.number
            before = frame
        if before is not None:
            yield before, 1

    def _write_gif(self, path: Path) -> None:
        from PIL.Image import Dither

        palette = _palette()
        number = 0

        def pictures() -> Iterator[Image]:
            nonlocal number
            due = 0
            for frame, times in self._frames():
                due += times
                for _ in range(due // _GIF_EVERY):
                    if number == _MOST_GIF:
                        return
                    number += 1
                    picture = draw(frame, self._names, self._classes)
                    yield picture.quantize(palette=palette, dither=Dither.NONE)
                due %= _GIF_EVERY

        made = pictures()
        first = next(made, None)
        if first is None:
            raise OutputError("film has no picture", expected="≥ 0.1 s", where=self._path)
        milliseconds = round(1000 * _GIF_EVERY / RATE_HZ)
        first.save(
            path, save_all=True, append_images=made, duration=milliseconds, loop=0, optimize=False
        )
        if number == _MOST_GIF:
            seconds = _MOST_GIF * milliseconds // 1000
            self._say(f"a GIF holds {seconds} s: the rest is not in {self._path}; .mp4 holds all")

    def _write_mp4(self, path: Path) -> None:
        size = f"{SIZE[0]}x{SIZE[1]}"
        command = [
            self._encoder, "-y", "-loglevel", "error",
            "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{RATE_HZ:g}", "-i", "-",
            "-an", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", f"file:{path}",
        ]  # fmt: skip
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as encoder:
            stdin, stderr = encoder.stdin, encoder.stderr
            if stdin is None or stderr is None:
                raise RuntimeError("pipes were asked for")
            try:
                for frame, times in self._frames():
                    pixels = draw(frame, self._names, self._classes).tobytes()
                    for _ in range(times):
                        stdin.write(pixels)
                stdin.close()
            except BrokenPipeError:
                pass  # it says why
            said = stderr.read(4096).decode("utf-8", "replace").strip()
        if encoder.returncode:
            raise OutputError(
                "film cannot be written", got=shortened(said.splitlines()[-1] if said else
                f"ffmpeg ended with {encoder.returncode}", 200), where=self._path,
            )  # fmt: skip


def _encoder() -> str:
    """ffmpeg: the system's, or that of imageio-ffmpeg."""
    found = shutil.which("ffmpeg")
    if found is None and importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        found = str(imageio_ffmpeg.get_ffmpeg_exe())
    if found is None:
        raise MissingExtraError("writing .mp4 (ffmpeg)", "mpsl-runtime[film]")
    return found


def coloured(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Levels as `picture` has them, [H, W], as colours [H, W, 3]: both polarities add up."""
    on, off = (levels >> 4)[..., None] / np.float32(15), (levels & 15)[..., None] / np.float32(15)
    return np.minimum(on * _ON + off * _OFF, 255).astype(np.uint8)


def draw(frame: Frame, names: list[str], classes: list[tuple[str, ...]]) -> Image:
    """A frame as an RGB picture of `SIZE`."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", SIZE, _BACK)
    canvas = ImageDraw.Draw(image)
    box = 500
    camera = Image.fromarray(coloured(frame.picture.levels))
    scale = box / max(camera.size)
    size = tuple(max(1, round(side * scale)) for side in camera.size)
    corner = tuple(20 + (box - side) // 2 for side in size)
    canvas.rectangle((20, 20, 19 + box, 19 + box), fill=(0, 0, 0))
    image.paste(camera.resize((size[0], size[1]), Image.Resampling.NEAREST), (corner[0], corner[1]))
    rate = frame.facts["rate"]
    position = frame.facts.get("position_us")
    where = "" if position is None else f"{position / 1e6:.2f} s   "
    canvas.text((20, 530), f"{where}{rate:,} events/s", _FAINT, font=_font(13), anchor="lm")
    height = (SIZE[1] - 40) / len(frame.models)
    for index in range(len(frame.models)):
        _draw_model(canvas, frame, index, names[index], classes[index], 20 + index * height, height)
    return image


def _draw_model(
    canvas: ImageDraw,
    frame: Frame,
    index: int,
    name: str,
    classes: tuple[str, ...],
    top: float,
    height: float,
) -> None:
    """Name, answer and scores of one model, in a panel."""
    model = frame.models[index]
    left, right, bottom = 540, SIZE[0] - 20, top + height - 8
    canvas.rounded_rectangle((left, top, right, bottom), 8, fill=_PANEL)
    canvas.text((left + 16, top + 18), name[:40], _TEXT, font=_font(15), anchor="lm")
    facts = model.facts
    answer = facts["name"] if facts["label"] is not None else "–"
    colour = _LEADS if facts["final"] and facts["label"] is not None else _FAINT
    large = min(64, int(height / 4))
    canvas.text(
        (left + 16, top + 44 + large / 2), answer[:24], colour, font=_font(large), anchor="lm"
    )
    share = f"{facts['confidence']:.0%}" if facts["label"] is not None else "nothing to answer"
    how = "answered" if facts["final"] else "leads"
    words = share if facts["label"] is None else f"{how}, {share}"
    canvas.text((right - 16, top + 18), words, _FAINT, font=_font(13), anchor="rm")
    most = max(float(np.abs(model.scores).max(initial=0)), 1e-9)
    begin = top + 60 + large
    rows = min(len(classes), max(1, int((bottom - begin - 8) / 10)))
    each = min(24.0, (bottom - begin - 8) / rows)
    for row, label in enumerate(classes[:rows]):
        y = begin + row * each
        length = max(0.0, float(model.scores[row]) / most) * (right - left - 130)
        is_first = facts["label"] == row
        canvas.text(
            (left + 16, y + each / 2),
            label[:10],
            _FAINT,
            font=_font(int(each / 2) + 2),
            anchor="lm",
        )
        if length >= 1:
            fill = _LEADS if is_first else _FAINT
            canvas.rectangle((left + 100, y + 2, left + 100 + length, y + each - 3), fill=fill)


def _font(size: int) -> ImageFont | FreeTypeFont:
    from PIL.ImageFont import load_default

    return load_default(max(8, size))


def _palette() -> Image:
    """The colours of the camera in twelve levels of each polarity, and greys for the rest."""
    from PIL import Image

    steps = np.linspace(0, 1, 12, dtype=np.float32)[:, None]
    colours = np.minimum(steps[:, None] * _ON + steps[None] * _OFF, 255).reshape(-1, 3)
    greys = np.linspace(0, 255, 256 - len(colours) - 4)[:, None].repeat(3, axis=1)
    table = np.concatenate([colours, greys, [_BACK, _PANEL, _TEXT, _FAINT]]).astype(np.uint8)
    image = Image.new("P", (1, 1))
    image.putpalette(table.tobytes())
    return image
