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

SCHEMA = 2  # 1 had no samples
READABLE = (1, 2)


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
    """Records of a file, or of all ``*.jsonl`` files of a folder by name; ValueError says what cannot be read."""
    path = Path(path)
    if path.is_dir():
        found = [record for file in sorted(path.glob("*.jsonl")) for record in read(file)]
        if not found:
            raise ValueError(
                f"{path}: expected a folder with records (*.jsonl); write one: striate bench --json FILE"
            )
        return found
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: expected a record, a file of JSON lines: {error.strerror}") from None
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = json.loads(line)
        except ValueError:
            raise ValueError(f"{path} line {number}: expected a JSON object, got {line[:40]!r}") from None
        schema = record.get("schema") if isinstance(record, dict) else None
        if schema not in READABLE:
            raise ValueError(
                f"{path} line {number}: expected schema {' or '.join(map(str, READABLE))}, got {schema}"
            )
        records.append(record)
    return records
