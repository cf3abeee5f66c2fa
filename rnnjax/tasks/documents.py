"""Text files as users have them: with a byte order mark or none, of any system's line ends, one or a folder of them."""

import codecs
import hashlib
import os
from pathlib import Path

import numpy as np

MARKS = (  # UTF-32's begins with UTF-16's
    *((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
)


def read_files(path: str | os.PathLike) -> tuple[tuple[str, bytes], ...]:
    """(name, content) of a file, or of each *.txt in a folder, sorted by name.

    Raises ValueError, in one line, where one cannot be read, or a folder has none.
    """
    path = Path(path)
    files = [path]
    try:
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix == ".txt" and file.is_file())
            if not files:
                raise ValueError(f"{os.fspath(path)!r} has no text in it; allowed: a text file, or a folder with *.txt")
        return tuple((os.fspath(file), file.read_bytes()) for file in files)
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else os.fspath(path)
        raise ValueError(f"text file {name!r} cannot be read: {error.strerror or error}") from None


def digest(files: tuple[tuple[str, bytes], ...]) -> str:
    """The sha256 of a file's bytes, or of those of several with their sizes."""
    found = hashlib.sha256()
    for _, content in files:
        found.update(content if len(files) == 1 else b"%d:" % len(content) + content)
    return found.hexdigest()


def decoded(name: str, content: bytes) -> str:
    """A file's text, its lines ended by newlines alone. Raises ValueError, in one line that names the byte."""
    encoding = next((encoding for mark, encoding in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise ValueError(
            f"text file {name!r} is not {encoding.upper()} text: byte {error.start} is {byte:#x}; allowed: UTF-8, or "
            "UTF-16 with a byte order mark"
        ) from None
    return plain_lines(text.removeprefix("\ufeff"))


def plain_lines(text: str) -> str:
    """The text with newlines for CRLF and for the lone CR of old."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def joined(texts: list[str], separator: str | None = None) -> tuple[str, np.ndarray]:
    r"""Several texts as one, and where documents begin in it.

    Each text is a document, which a newline ends; with a `separator` (\n and \t are a newline and a tab), each piece
    that ends with that. What is between them stays in the text.

    Raises ValueError for a separator that does not occur.
    """
    texts = [text + "\n" if len(texts) > 1 and not text.endswith("\n") else text for text in texts]
    whole = "".join(texts)
    starts = {0} | set(np.cumsum([len(text) for text in texts]).tolist())
    if separator is not None:
        mark = separator.replace("\\n", "\n").replace("\\t", "\t")
        at = whole.find(mark) if mark else -1
        if at < 0:
            raise ValueError(
                f"task.separator={separator!r} does not occur in the text; allowed: one that does, or none"
            )
        while at >= 0:
            starts.add(at + len(mark))
            at = whole.find(mark, at + len(mark))
    return whole, np.asarray(sorted(starts - {len(whole)} | {0}), np.int64)
