"""The bytes of text files become UTF-8, whatever program wrote them."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import IO, cast

from genrec.errors import DataError

_MARKS = {  # byte order mark → encoding
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


_PACKERS: dict[bytes, Callable[[Path], object]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
"""Functions that open a compressed file, by its first bytes."""


_UNREAD = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "export it as CSV"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "export it as CSV"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it, or compress it with gzip"),
    b"PAR1": ("a Parquet file", "rename it to .parquet"),
    b"SQLite format 3": ("an SQLite database", "export the table as CSV"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file with git lfs pull"),
    b"<!DOCTYPE html": ("a web page", "download the file again"),
    b"<html": ("a web page", "download the file again"),
}
"""What a file that is no text is, and what to do with it, by its first bytes."""


_WESTERN = "cp1252"
"""What Excel and other programs of Windows write in Western Europe and America."""


_MULTIBYTE = re.compile(rb"[\xc2-\xde][\x80-\xbf](?![\x80-\xbf])|[\xe0-\xef][\x80-\xbf]{2}")
"""Characters of UTF-8 that would be odd pairs of letters and signs in Windows-1252."""


_NOT_WESTERN = re.compile(rb"[\x80-\xff]{3}|[\x81\x8d\x8f\x90\x9d]")
"""Words of other alphabets would be long runs of accented letters."""


_ACCENTED = re.compile(r"[^\s,;|\"]{0,20}[^\x00-\x7f][^\s,;|\"]{0,20}")
_RARE = re.compile(r"[^\s,;|\"]{0,20}[ÞþÐðÝýÕõÛû¿³¹¾¤£¼½ºª¶±µ¥§¬¢ƒ†‡ˆ‰][^\s,;|\"]{0,20}")
"""Words with characters that other encodings often have where Windows-1252 has these."""


_SAMPLE = 4096  # bytes that show whether a text is UTF-16


def open_file(path: Path) -> IO[bytes]:
    """Open a file, which may be compressed with gzip, bzip2 or xz, for reading bytes."""
    with path.open("rb") as file:
        start = file.read(max(map(len, _PACKERS)))
    for mark, opener in _PACKERS.items():
        if start.startswith(mark):
            return cast(IO[bytes], opener(path))
    return path.open("rb")


def unpacked_name(path: Path) -> str:
    """Return the name of a file in lower case, without the suffix of its compression."""
    return re.sub(r"\.(gz|bz2|xz)$", "", path.name.lower())


def utf8_of(path: Path, encoding: str | None = None) -> tuple[bytes, list[str]]:
    """Read a text file and return its text in UTF-8 without a byte order mark.

    Without ``encoding`` the text may be UTF-8, UTF-16, UTF-32 or Windows-1252. A text is taken for
    Windows-1252 only if it is no UTF-8 and looks like a Western language.

    Args:
        path: the file, which may be compressed with gzip.
        encoding: name of the encoding as Python spells it; recognised if ``None``.

    Returns:
        The text, and a note if the encoding was guessed.

    Raises:
        DataError: The encoding is unknown, or the text has another one.
    """
    with open_file(path) as file:
        data = file.read()
    for mark, (kind, remedy) in _UNREAD.items():
        if data.startswith(mark):
            raise DataError(f"{path}: this is {kind}; {remedy}")
    text, notes = _utf8(path, data, encoding)
    if b"\r" in text and b"\n" not in text:  # line ends of old Macs
        text = text.replace(b"\r", b"\n")
    text = text.replace(b"\r\r\n", b"\n")  # what Windows makes of its own line ends
    zeros = text.count(b"\x00")
    if 0 < zeros < 0.01 * len(text):
        raise DataError(
            f"{path}: zero bytes in the text ({zeros}), the first in line "
            f"{_line(text, text.index(0))}; remove them, e.g. with tr -d '\\000'"
        )
    if zeros:
        raise DataError(
            f"{path}: the text holds zero bytes, so its encoding is another one; name it with "
            "--encoding NAME (in Python encoding=NAME), e.g. utf-16-le"
        )
    return text, notes


def _utf8(path: Path, data: bytes, encoding: str | None) -> tuple[bytes, list[str]]:
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            notes = []
            if encoding and not name.startswith(_codec(path, encoding)):
                begins = f"{path}: the file begins with the byte order mark of {name}"
                notes = [f"{begins}, so it was not read as {encoding}"]
            return _decoded(path, data[len(mark) :], name), notes
    encoding = encoding or _wide(data[:_SAMPLE]) or _escaped(data)
    if data.isascii():
        return (_decoded(path, data, encoding) if encoding else data), []
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return (_decoded(path, data, encoding), []) if encoding else _western(path, data, error)
    if encoding and _codec(path, encoding) != "utf-8":
        return data, [f"{path}: the text is UTF-8, so it was not read as {encoding}"]
    return data, []


def _decoded(path: Path, data: bytes, encoding: str) -> bytes:
    try:
        return data.decode(encoding).removeprefix("\ufeff").encode()
    except LookupError:
        raise DataError(f"{path}: unknown encoding {encoding!r}; give one such as cp1251") from None
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        where = f"line {_line(data, start)}, byte offset {start}"
        raise DataError(
            f"{path}: not {encoding} at {where}; name the encoding with --encoding NAME "
            "(in Python encoding=NAME)"
        ) from None


def _wide(sample: bytes) -> str | None:
    """Recognise UTF-16 without a byte order mark: every other byte of Western text is zero."""
    even, odd = sample[::2], sample[1::2]
    for zeros, others, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if zeros.count(0) > 0.5 * len(zeros) and not others.count(0):
            return name
    return None


def _escaped(data: bytes) -> str | None:
    """Recognise ISO-2022-JP, whose Japanese consists of ASCII characters after an escape."""
    return "iso-2022-jp" if re.search(rb"\x1b\$[@B]", data) else None


def _western(path: Path, data: bytes, error: UnicodeDecodeError) -> tuple[bytes, list[str]]:
    """Read text that is not UTF-8 as Windows-1252 if it looks like that."""
    where = f"not UTF-8 at line {_line(data, error.start)}, byte offset {error.start}"
    if _MULTIBYTE.search(data):
        raise DataError(
            f"{path}: {where}, although other characters of the file are; correct that line, or "
            "name the encoding of the whole file with --encoding NAME (in Python encoding=NAME)"
        )
    if _NOT_WESTERN.search(data):
        raise DataError(
            f"{path}: {where}; name the encoding with --encoding NAME (in Python encoding=NAME), "
            "e.g. cp1250 for Central Europe, cp1251 for Cyrillic, cp1253 for Greek, cp1254 for "
            "Turkish, shift_jis for Japanese or gb18030 for Chinese"
        )
    text = data.decode(_WESTERN)
    words = chain(_RARE.finditer(text), _ACCENTED.finditer(text))
    shown = dict.fromkeys(match[0].strip() for match in islice(words, 200))
    examples = ", ".join(repr(word) for word in islice(shown, 3))
    note = (
        f"{path}: {where}; it was read as Windows-1252, for example {examples}; if these words are "
        "wrong, name the encoding with --encoding NAME, e.g. cp1250, cp1254 or mac_roman"
    )
    return text.encode(), [note]


def _line(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1


def _codec(path: Path, encoding: str) -> str:
    """Return the usual name of an encoding, whose byte order mark does not matter."""
    _decoded(path, b"", encoding)  # an unknown name is an error
    return codecs.lookup(encoding).name.removesuffix("-sig")
