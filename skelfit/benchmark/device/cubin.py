"""The registers, stack and shared memory of the kernels in a compiled GPU module.

A cubin is an ELF file. The code of kernel K is its section `.text.K`, whose `info` field has the registers in its high
byte on sm_80; from sm_90 on they stand in `.nv.info`, a list of attributes: (format, attribute, size or value), for
format 4 followed by so many bytes, for these attributes the number of a symbol and a value.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HAS_VALUES = 4  # format of an attribute that bytes follow
_STACK, _REGISTERS = 0x11, 0x2F
_CODE, _SHARED = ".text.", ".nv.shared."


@dataclass(frozen=True)
class KernelCode:
    """The resources that a kernel takes."""

    registers: int  # of a thread
    stack_bytes: int  # of a thread: arrays with indices known only at run time, and spilled registers
    shared_bytes: int  # static, of a block; on sm_90 with the 1 KiB that the system reserves


@dataclass(frozen=True)
class _Section:
    name: str
    offset: int
    size: int
    link: int
    info: int


def read_cubin(data: bytes) -> dict[str, KernelCode]:
    """The kernels of a cubin, by the names they have in it."""
    if data[:5] != b"\x7fELF\x02":
        raise ValueError("expected a cubin, a 64-bit ELF file, found something else")
    sections = _sections(data)
    symbols = _symbols(data, sections)
    values = _attributes(data, next(s for s in sections if s.name == ".nv.info"))
    shared = {s.name: s.size for s in sections if s.name.startswith(_SHARED)}
    kernels = {}
    for section in sections:
        if section.name.startswith(_CODE):
            name = section.name.removeprefix(_CODE)
            number = symbols.index(name)
            registers = values.get((_REGISTERS, number), section.info >> 24)
            kernels[name] = KernelCode(
                registers, values.get((_STACK, number), 0), shared.get(_SHARED + name, 0)
            )
    return kernels


def _sections(data: bytes) -> list[_Section]:
    (start,) = struct.unpack_from("<Q", data, 40)
    count, names_at = struct.unpack_from("<HH", data, 60)
    # name, type, flags, address, offset, size, link, info, alignment, size of an entry
    heads = [struct.unpack_from("<IIQQQQIIQQ", data, start + 64 * k) for k in range(count)]
    names = heads[names_at][4]
    return [_Section(_text(data, names + h[0]), h[4], h[5], h[6], h[7]) for h in heads]


def _symbols(data: bytes, sections: list[_Section]) -> list[str]:
    table = next(s for s in sections if s.name == ".symtab")
    names = sections[table.link].offset
    starts = range(table.offset, table.offset + table.size, 24)
    return [_text(data, names + struct.unpack_from("<I", data, start)[0]) for start in starts]


def _attributes(data: bytes, section: _Section) -> dict[tuple[int, int], int]:
    """Values of symbols, by attribute and number of the symbol."""
    values, at = {}, section.offset
    while at < section.offset + section.size:
        kind, attribute, size = struct.unpack_from("<BBH", data, at)
        at += 4
        if kind == _HAS_VALUES:
            if size == 8:
                symbol, value = struct.unpack_from("<II", data, at)
                values[attribute, symbol] = value
            at += size
    return values


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()
