"""Where a file may be written, and writing it so that a reader finds the old content or the new one, never half.

Every file that rotsim leaves behind goes through `write_atomically`. The content is made in memory first, so that no
library that formats it meets a full disk.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import IO, Any, BinaryIO

from rotsim.errors import InvalidInput, is_a, shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_SEPARATORS = ("/", os.sep)
_LONGEST_WRITE_SECONDS = 3600.0  # seconds; where there are no locks, an older temporary file has no writer
_TEMPORARY = ".rotsim-*.tmp"  # the star stands for random digits: unique, and short enough for any file system
#: Of the files that commands write, what their names end in; the first is what a message proposes.
ENDINGS = {"NetCDF": (".nc", ".nc4", ".h5"), "JSON": (".json",)}
_KINDS = {
    stat.S_ISDIR: "a directory; name a file in it",
    stat.S_ISFIFO: "a pipe; name a regular file",
    stat.S_ISSOCK: "a socket; name a regular file",
    stat.S_ISBLK: "a device; name a regular file",
    stat.S_ISCHR: "a device; name a regular file",
}


def check_writable(path: str | os.PathLike[str], kind: str = "") -> Path:
    """Say where writing to `path` would write, before long work starts.

    Parameters
    ----------
    path : str or Path
        A leading ``~`` is the home folder. A symbolic link stands for the file that it points to.
    kind : {"", "NetCDF", "JSON"}
        What will be written. A name with the ending of something else is refused; one without ending is not.

    Returns
    -------
    Path
        Absolute, without links.

    Raises
    ------
    InvalidInput
        If no regular file can be written there: the name is empty or too long, the folder is absent or not writable,
        or a directory, device, pipe, socket or protected file is there. If the name ends as another `kind` does.
    """
    target = resolved(path)
    if str(path).endswith(_SEPARATORS):
        raise InvalidInput(f"output {quoted(path)} ends in a slash, as a folder does; name a file in it")
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        raise InvalidInput(f"output {quoted(path)} cannot be written ({reason(error)}); choose another name") from None
    for is_kind, what in _KINDS.items():
        if mode is not None and is_kind(mode):
            raise InvalidInput(f"output {quoted(path)} is {what}")
    if mode is not None and not os.access(target, os.W_OK):
        raise InvalidInput(f"output {quoted(path)} is write-protected; choose another name or allow writing")
    if kind and target.suffix.lower() not in ("", *ENDINGS[kind]):
        raise InvalidInput(f"output {quoted(path)} would hold {kind}; give it a name that ends in {ENDINGS[kind][0]}")
    folder = target.parent
    if not folder.is_dir():
        raise InvalidInput(f"output folder {str(folder)!r} does not exist; create it or name a file in another folder")
    try:
        with _temporary(folder, 0o600):
            pass
    except OSError as error:
        raise InvalidInput(
            f"output folder {str(folder)!r} is not writable ({reason(error)}); name a file in another folder"
        ) from None
    return target


def output_folder(path: str | os.PathLike[str], *files: str) -> Path:
    """Create a folder if absent and return it if all `files` can be written there.

    Parameters
    ----------
    path : str or Path
        As in `check_writable`.
    *files : str
        Names of the files that will be written.

    Raises
    ------
    InvalidInput
        If the folder cannot be created or one of the files cannot be written.
    """
    folder = resolved(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"output folder {quoted(path)} cannot be created ({reason(error)})") from None
    for file in files:
        check_writable(folder / file)
    return folder


def write_atomically(path: str | os.PathLike[str], content: str | bytes | bytearray | memoryview) -> Path:
    """Replace a file by new content: complete or untouched, also after a crash or on a full disk.

    Parameters
    ----------
    path : str or Path
        As in `check_writable`. A file that is there keeps its permissions; a new one has those of the umask.
    content : str or bytes
        Text is written as UTF-8.

    Returns
    -------
    Path
        The file written, absolute and without links.

    Raises
    ------
    InvalidInput
        As `check_writable` does.
    OSError
        If the disk is full or fails; what was there before is still there.
    """
    target = check_writable(path)
    try:
        with _temporary(target.parent, 0o666) as (temporary, file):
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            with suppress(OSError):  # absent, or on a file system without permissions
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            if fcntl is None:  # Windows renames closed files only
                file.close()
            os.replace(temporary, target)
    except OSError as error:
        failure = OSError(f"{str(target)!r} cannot be written ({reason(error)}); what was there before is unchanged")
        failure.errno = error.errno
        raise failure from None
    with suppress(OSError):  # the rename reaches the disk too, where folders can be synchronised
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return target


def to_json(content: Any, digits: int | None = None) -> str:
    """Content as indented JSON that any reader takes: a list without lists on one line, null for NaN and infinity.

    Parameters
    ----------
    content : dict, list, str, number or None
        And what holds them: tuples and NumPy's arrays and scalars too.
    digits : int, optional
        Significant digits of floats, >= 1; default all.

    Returns
    -------
    str
        With a newline at the end.
    """
    return _json(content, digits, "\n") + "\n"


def _json(value: Any, digits: int | None, newline: str) -> str:
    if hasattr(value, "tolist"):  # NumPy's, which is not imported here
        value = value.tolist()
    if isinstance(value, float):
        value = value if digits is None or not isfinite(value) else float(f"{value:.{digits}g}")
        return json.dumps(value if isfinite(value) else None)
    if not isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    inner = newline + " "
    if isinstance(value, dict):
        parts = [
            f"{json.dumps(str(key), ensure_ascii=False)}: {_json(item, digits, inner)}" for key, item in value.items()
        ]
        return f"{{{inner}{f',{inner}'.join(parts)}{newline}}}" if parts else "{}"
    parts = [_json(item, digits, inner) for item in value]
    if any(part[0] in "[{" for part in parts):
        return f"[{inner}{f',{inner}'.join(parts)}{newline}]"
    return f"[{', '.join(parts)}]"


def append_lines(path: str | os.PathLike[str], entries: Iterable[Any]) -> None:
    """Add entries to a file of JSON, a line each, in one write, after whatever a writer that was cut off has left.

    Parameters
    ----------
    path : str or Path
        Need not be there yet. Many processes may add to one file.
    entries : iterable
        What JSON can hold.

    Raises
    ------
    OSError
        If the disk is full or fails; the lines before are kept.
    """
    try:
        with open(path, "a+b") as file, _locked(file):  # or half a line of another writer would be taken for a torn one
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            torn = file.read(1) not in (b"", b"\n")
            content = b"\n" * torn + b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
            if os.write(file.fileno(), content) != len(content):  # the file is opened to append: no two writers mix
                raise OSError("the disk is full")
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"{quoted(path)} cannot be extended ({reason(error)}); what was there before is kept") from None


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[bytes, Any]]:
    """Lines of such a file, each with its entry; None where a writer was cut off, or where there is no JSON."""
    with open(path, "rb") as file:
        for line in file.read().splitlines():
            try:
                yield line, json.loads(line)
            except ValueError:
                yield line, None


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for this file, where the system has locks."""
    with path.open("rb") as file, _locked(file):
        yield


@contextmanager
def _locked(file: IO[bytes]) -> Iterator[None]:
    """Wait until no other process or thread holds this file; closing it lets it go."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
    yield


def resolved(path: str | os.PathLike[str]) -> Path:
    """The path without ``~`` and links, absolute; raises `InvalidInput` if it is no path."""
    try:
        text = os.fsdecode(os.fspath(path))
        os.fsencode(text)
    except Exception:  # no path, one that cannot be encoded, or an object of the caller with a __fspath__ of its own
        raise InvalidInput(f"a path must be text that this system can encode; got {quoted(path)}") from None
    if not text or "\0" in text:
        raise InvalidInput(f"a path must not be empty or contain NUL characters; got {quoted(text)}")
    return Path(os.path.realpath(os.path.expanduser(text)))


def quoted(path: object) -> str:
    """A path as an error prints it."""
    return shown(str(path) if is_a(path, Path) else path)


def reason(error: OSError) -> str:
    """Why an operation failed, without the path."""
    return error.strerror or str(error) or type(error).__name__


@contextmanager
def _temporary(folder: Path, mode: int) -> Iterator[tuple[Path, BinaryIO]]:
    """A new, locked file in `folder` that is removed at the end, unless it was renamed before.

    The lock tells other processes that the writer lives. Files whose writers died are removed first.
    """
    for left in folder.glob(_TEMPORARY):
        with suppress(OSError):
            _remove_if_abandoned(left)
    while True:
        temporary = folder / _TEMPORARY.replace("*", secrets.token_hex(8))
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        with os.fdopen(descriptor, "wb") as file:
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks: nobody can take this file for abandoned
                    fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink == 0:  # another process looked before the lock was there
                    continue
            try:
                yield temporary, file
            finally:
                with suppress(OSError):
                    file.close()  # Windows removes closed files only; here a full disk may fail once more
                with suppress(OSError):
                    temporary.unlink()
            return


def _remove_if_abandoned(temporary: Path) -> None:
    """Remove a temporary file unless a live process holds it; raises `OSError` if one does."""
    if fcntl is None:
        if time.time() - temporary.stat().st_mtime > _LONGEST_WRITE_SECONDS:
            temporary.unlink()
        return
    descriptor = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.unlink()
    finally:
        os.close(descriptor)
