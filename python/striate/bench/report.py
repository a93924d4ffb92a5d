"""Tables and progress: rich on a terminal that has it, plain text everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Step = Callable[[str], None]


@dataclass
class Table:
    """Rows of text under headers; a header that starts with ``<`` is aligned to the left, the others to the right."""

    title: str
    headers: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    spare: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Characters of the widest line."""
        return max(map(len, self.plain().splitlines()))

    def fitted(self, width: int) -> Table:
        """The table without as many of its ``spare`` columns, in their order, as ``width`` demands."""
        table = self
        for header in self.spare:
            if table.width <= width:
                break
            at = table.headers.index(header)
            headers, *rows = ((*row[:at], *row[at + 1 :]) for row in (table.headers, *table.rows))
            table = Table(table.title, headers, rows)
        return table

    def plain(self) -> str:
        """The table as text."""
        names = [header.lstrip("<") for header in self.headers]
        widths = [max(map(len, column)) for column in zip(names, *self.rows, strict=True)]
        lines = [self.title] if self.title else []
        for row in (names, *self.rows):
            cells = [
                cell.ljust(width) if header.startswith("<") else cell.rjust(width)
                for cell, width, header in zip(row, widths, self.headers, strict=True)
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def _console(stream: Any) -> Any:
    """A rich console if the stream is a terminal and rich is installed, else None."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream)


def show(table: Table) -> None:
    """Print a table to standard output."""
    console = _console(sys.stdout)
    if console is not None:
        # Rules between columns take one more character each than the spaces of plain text.
        table = table.fitted(console.width - len(table.headers) - 1)
    if console is None or console.width < table.width + len(table.headers) + 1:
        print(table.plain(), end="\n\n")
        return
    from rich import box
    from rich.table import Table as RichTable

    drawn = RichTable(title=table.title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for header in table.headers:
        left = header.startswith("<")
        drawn.add_column(header.lstrip("<"), justify="left" if left else "right", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*row, style="red" if any("FAILED" in cell for cell in row) else None)
    console.print(drawn)


@contextmanager
def progress(total: int) -> Iterator[Step]:
    """Yields a function that announces the next of ``total`` steps, on standard error."""
    console = _console(sys.stderr)
    if console is None:
        yield _lines(total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Drawn only between cases: a thread that redraws by itself would disturb the timing.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("measuring".ljust(44), total=total)
        yield lambda text: bar.update(task, advance=1, description=text.ljust(44)[:44], refresh=True)


def _lines(total: int) -> Step:
    """Ten lines in all: enough to see that it lives."""
    done = 0

    def step(text: str) -> None:
        nonlocal done
        done += 1
        if done * 10 // total > (done - 1) * 10 // total:
            print(f"[{done}/{total}] {text}", file=sys.stderr, flush=True)

    return step


def plural(threads: int) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{threads} thread{'s' * (threads != 1)}"


def milliseconds(time: dict[str, Any] | None, key: str = "median") -> str:
    """A time of a record for a table: milliseconds, or why there is none."""
    if time is None:
        return "-"
    return time["fault"][:24] if "fault" in time else f"{time[key] * 1e3:.3f}"


def _times(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}x" if value >= 99.5 else f"{value:.3g}x" if value >= 10 else f"{value:.2f}x"


_HEADERS: tuple[str, ...] = (
    "<problem",
    "<pass",
    "<dtype",
    "thr",
    "<row",
    "ms",
    "min ms",
    "torch ms",
    "best ms",
    "<best path",
)
_HEADERS += ("x torch", "x best", "GFLOP/s", "GB/s", "roof", "<bound")
# What a narrow terminal can do without; the records have it all.
_SPARE = ("min ms", "<bound", "GB/s", "best ms", "torch ms")


def case_row(case: dict[str, Any]) -> tuple[str, ...]:
    """A case as a row of the table."""
    head = (case["short"], case["pass"], case["dtype"], str(case["threads"]), case["row"])
    if case["fault"]:
        return (*head, "FAILED", *[""] * (len(_HEADERS) - len(head) - 1))
    times, best = case["times"], case["best"]
    return (
        *head,
        milliseconds(times["striate"]),
        milliseconds(times["striate"], "min"),
        milliseconds(times.get("torch")),
        milliseconds(times.get(best)),
        (best or "-").removeprefix("torch."),
        _times(case["ratio_default"]),
        _times(case["ratio_best"]),
        f"{case['gflops']:.1f}",
        f"{case['gbps']:.1f}",
        f"{case['roof']['share']:.0%}",
        case["roof"]["bound"],
    )


def case_table(title: str, cases: Sequence[dict[str, Any]]) -> Table:
    """Cases as a table, with a column for the device where there are several."""
    rows = [case_row(case) for case in cases]
    if all(case["device"] == "cpu" for case in cases):
        return Table(title, _HEADERS, rows, spare=_SPARE)
    headers = (*_HEADERS[:3], "<device", *_HEADERS[3:])
    rows = [(*row[:3], case["device"], *row[3:]) for row, case in zip(rows, cases, strict=True)]
    return Table(title, headers, rows, spare=_SPARE)


def by_device(cases: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, dict[str, Any]]]:
    """Cases that differ in nothing but the device: the fastest number of threads of each device."""
    pairs: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for case in cases:
        device = case.get("device", "cpu")
        if case.get("fault") or "striate" not in case["times"] or "problem" not in case:
            continue
        line = str(case["problem"]).replace(f" {device} ", " ", 1)
        found = pairs.setdefault((line, case["short"], case["pass"]), {})
        old = found.get(device)
        if old is None or case["times"]["striate"]["median"] < old["times"]["striate"]["median"]:
            found[device] = case
    return {key: found for key, found in pairs.items() if len(found) > 1}


def device_table(cases: Iterable[dict[str, Any]]) -> Table:
    """CPU and GPU side by side."""
    headers = ("<problem", "<pass", "<dtype", "cpu ms", "cuda ms", "cpu/cuda", "<cpu row", "<cuda row")
    rows: list[tuple[str, ...]] = []
    for (_, short, pass_), found in by_device(cases).items():
        cpu, cuda = found["cpu"], found["cuda"]
        ratio = cpu["times"]["striate"]["median"] / cuda["times"]["striate"]["median"]
        times = (milliseconds(cpu["times"]["striate"]), milliseconds(cuda["times"]["striate"]), _times(ratio))
        rows.append((short, pass_, cpu["dtype"], *times, cpu["row"], cuda["row"]))
    return Table("CPU (its fastest number of threads) beside GPU", headers, rows)


def goal_table(goals: Iterable[dict[str, Any]]) -> Table:
    """Goals, what was measured, and the verdict."""
    headers = ("<case", "<pass", "thr", "<goal", "measured", "<verdict", "<note")
    rows: list[tuple[str, ...]] = []
    for goal in goals:
        measured = "-" if goal["measured"] is None else f"{goal['measured']:.3g}"
        head = (goal["case"], goal["pass"], str(goal["threads"]), goal["goal"], measured)
        rows.append((*head, goal["verdict"], goal["note"]))
    return Table("What it must reach", headers, rows)


def overhead_table(records: Iterable[dict[str, Any]]) -> Table:
    """Microseconds per call."""
    rows = [
        (record["mode"], *(f"{record['times'][name]['median'] * 1e6:.2f}" for name in ("striate", "torch")))
        for record in records
    ]
    return Table("Call overhead, conv1d (1,4,4)*(4,2), microseconds", ("<mode", "striate", "torch"), rows)


_PEAKS = ("f32", "f64", "bf16", "f16")


def roofline_table(rates: Sequence[dict[str, Any]]) -> Table:
    """The machine's reference rates."""
    keys = [key for key in ("copy", *(f"peak_{word}" for word in _PEAKS)) if all(key in r for r in rates)]
    headers = ("<device", "thr", "copy GB/s", *(f"{key.removeprefix('peak_')} GFLOP/s" for key in keys[1:]))
    rows = [
        (
            r.get("device", "cpu"),
            str(r["threads"] or "-"),
            *(f"{r[key] * 1e-9:.1f}" for key in keys),
        )
        for r in rates
    ]
    return Table("Roofline: copying in memory (read + written), matrix product", headers, rows)


def level_table(rates: Iterable[dict[str, Any]]) -> Table:
    """Copy bandwidth inside each cache."""
    rows: list[tuple[str, ...]] = []
    for rate in rates:
        for level in rate.get("levels", ()):
            size = f"{level['size'] >> 10} KiB" if level["size"] else "-"
            each = f"{level['copy_bytes'] >> 10} KiB"
            rows.append((str(rate["threads"]), level["level"], size, each, f"{level['copy'] * 1e-9:.1f}"))
    return Table("Copying inside the caches", ("thr", "<level", "holds", "copied", "GB/s"), rows)
