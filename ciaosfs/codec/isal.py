"""libisal's Galois-field arithmetic, if the machine has it: several times zfec's speed with the same results.

It knows no codes, only the product of a matrix and a column of equally long buffers over GF(2^8) with the
polynomial zfec uses too. Where the matrix comes from, and proof that the product is right, is the matter of
`erasure`. Calls go through ctypes and hold no lock of Python's while the arithmetic runs.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

from ciaosfs.base.types import Buffer

_SONAME = "libisal.so.2"
_TABLE_BYTES = 32
"""What libisal expands each coefficient to: the products of both halves of a byte."""


class _BufferView(ctypes.Structure):
    """Py_buffer of the C API: the only way to the address of a read-only memoryview."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("owner", ctypes.c_void_p),
        ("length", ctypes.c_ssize_t),
        ("item_bytes", ctypes.c_ssize_t),
        ("read_only", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_ADDRESS = struct.Struct(f"P{ctypes.sizeof(_BufferView) - ctypes.sizeof(ctypes.c_void_p)}x")

_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.c_void_p,)
_release_buffer.restype = None


class Isal:
    """The library, loaded. Its methods may be called from any thread."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._init_tables = library.ec_init_tables
        self._init_tables.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self._init_tables.restype = None
        self._encode_data = library.ec_encode_data
        self._encode_data.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int) + (ctypes.c_void_p,) * 3
        self._encode_data.restype = None

    def expand(self, rows: Sequence[bytes]) -> IsalMatrix:
        """Prepare a matrix, one bytes object of coefficients per row, for multiplying."""
        columns = len(rows[0])
        tables = ctypes.create_string_buffer(_TABLE_BYTES * columns * len(rows))
        self._init_tables(columns, len(rows), b"".join(rows), tables)
        return IsalMatrix(self._encode_data, columns, len(rows), tables)


class IsalMatrix:
    """A matrix that multiplies columns of buffers; made by `Isal.expand`, immutable."""

    def __init__(
        self,
        encode_data: ctypes._NamedFuncPointer,
        columns: int,
        rows: int,
        tables: ctypes.Array[ctypes.c_char],
    ) -> None:
        self._encode_data = encode_data
        self._columns = columns
        self._rows = rows
        self._tables = tables
        self._views_type = _BufferView * (columns + rows)
        self._view_offsets = range(0, ctypes.sizeof(self._views_type), ctypes.sizeof(_BufferView))
        self._pointers_type = ctypes.c_void_p * (columns + rows)
        self._outputs_offset = ctypes.sizeof(ctypes.c_void_p) * columns

    def multiply(self, inputs: Sequence[Buffer]) -> list[bytearray]:
        """Return one buffer per row. `inputs` has one per column, equally long, not written to meanwhile."""
        length = len(inputs[0])
        assert len(inputs) == self._columns
        assert all(len(buffer) == length for buffer in inputs)
        outputs = [bytearray(length) for _ in range(self._rows)]
        views = self._views_type()
        first_view = ctypes.addressof(views)
        held: list[int] = []
        try:
            # A buffer that is viewed cannot be resized or freed: its address stays good without Python's
            # lock.
            for offset, buffer in zip(self._view_offsets, (*inputs, *outputs), strict=True):
                _get_buffer(buffer, first_view + offset, 0)
                held.append(first_view + offset)
            pointers = self._pointers_type(*[address for (address,) in _ADDRESS.iter_unpack(views)])
            sources = ctypes.addressof(pointers)
            targets = sources + self._outputs_offset
            self._encode_data(length, self._columns, self._rows, self._tables, sources, targets)
        finally:
            for view in held:
                _release_buffer(view)
        return outputs


def load_isal() -> Isal | None:
    """Return the library, or None where it is not installed or not the one we know."""
    try:
        return Isal(ctypes.CDLL(_SONAME))
    except (OSError, AttributeError):
        return None
