"""Pictures in time as the bytes of a GIF or an MP4 file, made in memory or beside it: no half-written file is left."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import numpy as np

from rotsim import files
from rotsim.errors import InvalidInput

FORMATS = (".gif", ".mp4")
_COLOURS = 128  # one palette for all pictures of a GIF, so that it stores only what moves

Draw = Callable[[int], np.ndarray]


def check_movie(path: str | os.PathLike[str]) -> str:
    """The ending of a movie's name; raises `InvalidInput` if it could not be written, before long work starts."""
    ending = files.resolved(path).suffix.lower()
    if ending not in FORMATS:
        raise InvalidInput(f"an animation's name must end in {' or '.join(FORMATS)}; got {files.quoted(path)}")
    files.check_writable(path)
    if ending == ".mp4":
        _ffmpeg()
    return ending


def encoded(ending: str, draw: Draw, count: int, fps: int) -> bytes:
    """A movie as the bytes of its file.

    Parameters
    ----------
    ending : {".gif", ".mp4"}
    draw : callable
        ``draw(number)`` is a picture, of uint8 and shape (height, width, 3), each even.
    count : int
        Pictures. The last one stays for a second.
    fps : int
        Pictures per second.

    Raises
    ------
    InvalidInput
        If an MP4 is wanted and there is no ffmpeg.
    OSError
        If ffmpeg fails.
    """
    return _gif(draw, count, fps) if ending == ".gif" else _mp4(draw, count, fps)


def _gif(draw: Draw, count: int, fps: int) -> bytes:
    from PIL import Image

    palette = Image.fromarray(draw(count - 1)).quantize(_COLOURS)

    def picture(number: int) -> Image.Image:
        return Image.fromarray(draw(number)).quantize(palette=palette, dither=Image.Dither.NONE)

    first, rest = picture(0), (picture(number) for number in range(1, count))
    durations = [1000 // fps] * (count - 1) + [1000]
    written = BytesIO()
    first.save(written, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=False)
    return written.getvalue()


def _mp4(draw: Draw, count: int, fps: int) -> bytes:
    height, width, _ = draw(0).shape
    with TemporaryDirectory(prefix="rotsim-") as folder, TemporaryFile() as said:
        target = Path(folder) / "movie.mp4"
        reads = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
        writes = ["-an", "-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
        command = [_ffmpeg(), "-y", "-loglevel", "error", *reads, *writes, str(target)]
        # ffmpeg has a session of its own: Ctrl-C comes here alone, and this ends ffmpeg
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True
        ) as process:
            assert process.stdin is not None
            try:
                for number in [*range(count), *[count - 1] * fps]:
                    process.stdin.write(draw(number).tobytes())
                process.stdin.close()
            except BrokenPipeError:  # ffmpeg ended early, and has said why
                pass
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            said.seek(0)
            words = said.read().decode(errors="replace").split()
            raise OSError(f"ffmpeg made no movie: {' '.join(words)[:300] or 'it said nothing'}")
        return target.read_bytes()


def _ffmpeg() -> str:
    """The program, of this machine or of the package imageio-ffmpeg."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise InvalidInput(
            'an .mp4 needs ffmpeg, which is not here: pip install "rotsim[movie]", or choose a name that ends in .gif'
        ) from None
