"""Networks that belong here and are not built yet, each with the reason."""

from ..registry import Row

ROWS: list[Row] = []
