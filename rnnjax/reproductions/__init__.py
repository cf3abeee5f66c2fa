"""Published tables, run again: a protocol as a sweep, and what ours reach beside what was published."""

from collections.abc import Callable

from rnnjax.reproductions.long_adding import chrono, long_adding
from rnnjax.reproductions.parity import parity
from rnnjax.reproductions.table import Place, Table, markdown, reproduce, write_table

TABLES: dict[str, Callable[[], Table]] = {make.__name__: make for make in (long_adding, chrono, parity)}

__all__ = ["TABLES", "Place", "Table", "markdown", "reproduce", "write_table"]
