"""JSON lines: one self-contained object per line, each with the version of this format.

The first line is the environment, then one ``case`` per problem, pass and number of threads, then ``overhead`` and
``goal`` lines if they were asked for, and an ``end`` line that says the run was complete. Times are in seconds,
rates per second; see bench/record/README.md for the fields.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

SCHEMA = 1


class Recorder:
    """Writes records as they come, so that an interrupted run keeps what it measured; does nothing without a path."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Recorder:
        if self.path is not None:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self._file = Path(self.path).open("w", encoding="utf-8")
        return self

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""
        if self._file is not None:
            self._file.write(json.dumps({"schema": SCHEMA, **record}) + "\n")
            self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def read(path: str | Path) -> list[dict[str, Any]]:
    """Records of a file; ValueError if it was written in another version of the format."""
    records: list[dict[str, Any]] = [json.loads(line) for line in Path(path).read_text().splitlines() if line]
    for number, record in enumerate(records, 1):
        if record.get("schema") != SCHEMA:
            raise ValueError(f"{path} line {number}: expected schema {SCHEMA}, got {record.get('schema')}")
    return records
