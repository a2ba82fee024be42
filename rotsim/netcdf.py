"""A dataset as the bytes of a NetCDF-4 file, and back, without trust in the bytes.

A NetCDF-4 file is an HDF5 file. rotsim appends the SHA-256 of the whole file, which HDF5 takes for unused space. A bit
that flips anywhere is thus noticed before HDF5 sees it. A file without that line is read as well, after the same checks
of its structure: nothing may lie outside the file, and nothing may need more memory than the file can hold.
"""

from __future__ import annotations

import sys
import zlib
from hashlib import sha256
from io import BytesIO
from math import prod
from typing import BinaryIO

import h5py
import numpy as np
import xarray as xr

from rotsim.errors import DatasetError, shown_error
from rotsim.memory import available_memory

MAX_DEFLATION = 1032  # times that deflate can shrink data; a larger array is not stored in the file
MEMORY_SHARE = 0.5  # of the available memory that a dataset may take
MOST_ARRAYS, MOST_ATTRIBUTES = 256, 1024  # in one file; rotsim writes some thirty and some hundred
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_REFERENCE_BYTES = 16  # of a reference to text in an HDF5 file
_CHECKSUM_BYTES = 4  # of Fletcher's checksum behind a part of an array
_SCALES = {"DIMENSION_LIST", "REFERENCE_LIST"}  # in which NetCDF keeps what dimensions arrays have
_OVERHEAD_BYTES = 128  # of a Python string beyond its characters
_MARK = b"\nrotsim sha256 "
_SEAL_BYTES = len(_MARK) + 2 * sha256().digest_size + 1


def encode(dataset: xr.Dataset) -> bytes:
    """The bytes of a NetCDF-4 file, made in memory: HDF5 may crash where it meets a full disk.

    Raises
    ------
    DatasetError
        If NetCDF has no form for an attribute or a variable.
    """
    checked = {"zlib": True, "complevel": 4, "shuffle": True, "fletcher32": True}  # for readers other than rotsim
    encoding = {
        str(name): checked
        for name, variable in dataset.variables.items()
        if variable.dtype.kind in "fiu" and variable.size and variable.ndim
    }
    made = BytesIO()
    try:
        dataset.to_netcdf(made, engine="h5netcdf", encoding=encoding)
        with h5py.File(made, "r") as structure:  # what would not be read is not written
            _Inspection(made.getbuffer().nbytes, sys.maxsize).inspect(structure)
    except (MemoryError, DatasetError):
        raise
    except Exception as error:  # of many kinds: an attribute or a variable that NetCDF has no form for
        raise DatasetError(f"the dataset cannot be written as NetCDF-4: {shown_error(error)}") from error
    content = made.getbuffer()
    return b"".join([content, _MARK, sha256(content).hexdigest().encode(), b"\n"])


def decode(file: BinaryIO) -> xr.Dataset:
    """Read what `encode` wrote, fully into memory; a file of an earlier version has no digest.

    Raises
    ------
    DatasetError
        If the content is not what was written, or its structure is none that rotsim writes.
    Exception
        Of any kind, from HDF5 and xarray, for a file of another format.
    """
    size = _verified_size(file)
    limit = size * MAX_DEFLATION
    available = available_memory()
    if available is not None:
        limit = min(limit, int(MEMORY_SHARE * available))
    with h5py.File(file, "r") as structure:
        _Inspection(size, limit).inspect(structure)
    file.seek(0)
    # an attribute may not turn numbers into dates or scale them: that takes memory which nobody has counted
    with xr.open_dataset(
        file, engine="h5netcdf", decode_times=False, decode_timedelta=False, mask_and_scale=False, phony_dims="access"
    ) as handle:
        dataset = handle.load().drop_encoding()
    for variable in dataset.variables.values():
        variable.attrs.pop("_FillValue", None)
    return dataset


def _verified_size(file: BinaryIO) -> int:
    """Bytes of the file, after comparing it with its digest if it has one."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _SEAL_BYTES))
    seal = file.read()
    if not seal.startswith(_MARK):
        return size
    digest, left = sha256(), size - _SEAL_BYTES
    file.seek(0)
    while left:
        block = file.read(min(left, 1 << 20))
        if not block:
            break
        digest.update(block)
        left -= len(block)
    if seal != _MARK + digest.hexdigest().encode() + b"\n":
        raise DatasetError("the file is not what rotsim wrote: it is damaged, or another program changed it")
    return size


class _Inspection:
    """Counts the memory that a file's parts need and refuses what rotsim never writes, before any of it is read."""

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        self.needed = 0
        self.attributes = 0

    def inspect(self, file: h5py.File) -> None:
        if len(file) > MOST_ARRAYS:
            raise DatasetError(f"it has {len(file)} parts; rotsim writes at most {MOST_ARRAYS}")
        self._attributes(file)
        for name in file:
            link = file.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise DatasetError(f"{name!r} is a link to elsewhere, which rotsim never writes")
            part = file[name]
            if not isinstance(part, h5py.Dataset):
                raise DatasetError(f"{name!r} is no array; rotsim writes arrays alone")
            self._attributes(part)
            self._array(name, part)

    def _count(self, count: int) -> None:
        self.needed += count
        self._allow(self.needed)

    def _allow(self, count: int) -> None:
        if count > self.limit:
            raise DatasetError(
                f"its arrays need more than {self.limit / 2**20:.4g} MiB, the most that {self.size} bytes can hold or "
                f"that {MEMORY_SHARE:.0%} of the available memory allows"
            )

    def _attributes(self, part: h5py.Group | h5py.Dataset) -> None:
        count = h5py.h5a.get_num_attrs(part.id)
        self.attributes += count
        if self.attributes > MOST_ATTRIBUTES:
            raise DatasetError(f"it has more than {MOST_ATTRIBUTES} attributes, which rotsim never writes")
        for index in range(count):
            attribute = h5py.h5a.open(part.id, index=index)
            name, kind = attribute.name.decode(), attribute.dtype
            entries = prod(attribute.shape or ())
            self._count(entries * kind.itemsize)
            if kind.kind in "iufbSU" or name in _SCALES:
                continue
            if h5py.check_string_dtype(kind) is None:
                raise DatasetError(f"attribute {name!r} holds {kind}; rotsim writes numbers and text alone")
            self._allow(entries * self.size)  # text lies elsewhere in the file, several perhaps in one place
            self._count(sum(len(entry) for entry in np.ravel(part.attrs[name]) if isinstance(entry, str | bytes)))

    def _array(self, name: str, array: h5py.Dataset) -> None:
        properties = array.id.get_create_plist()
        if array.is_virtual or properties.get_external_count():
            raise DatasetError(f"{name!r} is stored in another file, which rotsim never does")
        filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
        if not set(filters) <= _FILTERS or len(set(filters)) < len(filters):
            raise DatasetError(f"{name!r} is compressed in a way that rotsim does not use (HDF5 filters {filters})")
        text = h5py.check_string_dtype(array.dtype)
        if array.dtype.kind not in "iufbS" and text is None:
            raise DatasetError(f"{name!r} holds {array.dtype}; rotsim writes numbers and text alone")
        elsewhere = text is not None and text.length is None  # the array holds where each text lies
        item = _REFERENCE_BYTES if elsewhere else array.dtype.itemsize
        self._count(array.size * item)
        if array.chunks is not None:
            self._count(prod(array.chunks) * item)
            self._chunks(name, array, prod(array.chunks) * item, filters)
        if elsewhere:
            self._text(array)

    def _chunks(self, name: str, array: h5py.Dataset, declared: int, filters: list[int]) -> None:
        """Every chunk must unpack to what is declared: HDF5 unpacks a longer one whole and reads past a shorter."""
        places: list[tuple[int, ...]] = []
        array.id.chunk_iter(lambda info: places.append(info.chunk_offset))
        for place in places:
            skipped, packed = array.id.read_direct_chunk(place)
            size, deflated = declared, False
            for index, kind in enumerate(filters):
                if skipped >> index & 1:  # HDF5 leaves a part as it is that deflate would not shrink
                    continue
                if kind == h5py.h5z.FILTER_DEFLATE:
                    deflated = True
                elif kind == h5py.h5z.FILTER_FLETCHER32 and not deflated:
                    size += _CHECKSUM_BYTES
                elif kind == h5py.h5z.FILTER_FLETCHER32:
                    packed = packed[:-_CHECKSUM_BYTES]
            if deflated:
                unpack = zlib.decompressobj()
                found = len(unpack.decompress(packed, size + 1))
                whole = unpack.eof and not unpack.unused_data
            else:
                found, whole = len(packed), True
            if found != size or not whole:
                raise DatasetError(f"{name!r} is damaged or does not hold what it declares")

    def _text(self, array: h5py.Dataset) -> None:
        """All text of an array together, read so few at a time that these cannot exceed the limit."""
        rows = max(1, self.limit // (self.size * max(1, prod(array.shape[1:]))))
        self._count(array.size * _OVERHEAD_BYTES)
        for first in range(0, array.shape[0] if array.shape else 0, rows):
            self._count(sum(len(entry) for entry in array[first : first + rows].ravel()))
