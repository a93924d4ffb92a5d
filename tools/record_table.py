"""Write what is on record into the pages of the operators; --check only compares.

    python tools/record_table.py [--check]

A page says which cases it wants, and what stands up to the closing line is written from them:

    <!-- record epyc-2vcpu/goals.jsonl: 7x7.* -->
    <!-- end of record -->

The expression must match the whole name of a case: its label, or its problem, dtype and, where it is a training step,
"forward and backward". ``goals`` stands for the verdicts of `striate bench --goals`. Machine and date are the record's
own.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from readme_table import PASSES, RECORDS, ROOT, cell, ratio

BLOCK = re.compile(
    r"(?P<open><!-- record (?P<file>\S+): (?P<wanted>.+?) -->)\n.*?(?P<close><!-- end of record -->)",
    re.DOTALL,
)
# The pass that is both; what copying the input takes, which is shown as a share of its bandwidth.
STEP, COPY = "fwdbwd", "clone"
Record = dict[str, Any]


def name_of(case: Record) -> str:
    """What a case is called in a table."""
    if "short" not in case:
        return str(case["label"])
    return f"{case['short']} {case['dtype']}" + (" forward and backward" if case["pass"] == STEP else "")


def is_pass(case: Record) -> bool:
    """Whether a case is one pass of a convolution."""
    return case.get("pass") in PASSES and str(case["problem"]).startswith("conv ")


def heading(here: Record, file: str) -> str:
    """Machine, versions and date of a record, and whether it had the machine to itself."""
    machine = here.get("cpu", Path(file).parts[0])
    commit = f" at {here['commit']}" if here.get("commit") else ""
    shared = here.get("others") != 0  # a record that does not say counts as shared
    return (
        f"{machine}, {here['cores']} cores, {here.get('date', 'undated')}, torch {here['torch']}, "
        f"striate {here['striate']}{commit}" + ("; other processes shared the machine." if shared else ".")
    )


def sheet(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """A table in Markdown."""
    head = list(columns)
    return [_row(head), "|" + "---|" * len(head), *map(_row, rows)]


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def passes(cases: list[Record]) -> list[str]:
    """Cases of `striate bench`: one row for a problem and a number of threads, one column for a pass."""
    rows: dict[tuple[str, int], dict[str, Record]] = {}
    for case in cases:
        rows.setdefault((name_of(case), case["threads"]), {})[case["pass"]] = case
    order = list(dict.fromkeys(name for name, _ in rows))
    return [
        "Torch's time over striate's: as called / the fastest way that was tried (striate's median time).",
        "",
        *sheet(
            ["problem", "threads", *PASSES.values()],
            (
                [f"`{name}`", threads, *(cell(found.get(key)) for key in PASSES)]
                for (name, threads), found in sorted(
                    rows.items(), key=lambda row: (order.index(row[0][0]), row[0][1])
                )
            ),
        ),
    ]


def rival(case: Record, name: str) -> str:
    """One contender's time over striate's, by medians and by minima; of a copy, the share of its bandwidth."""
    theirs, ours = case["times"].get(name), case["times"]["striate"]
    if theirs is None or (name == COPY and "fault" in theirs):
        return ""
    if "fault" in theirs:
        return str(theirs["fault"])
    by_median, by_min = (theirs[key] / ours[key] for key in ("median", "min"))
    if name == COPY:
        return f"{by_median:.0%} ({by_min:.0%})"
    return f"{ratio(by_median)} ({ratio(by_min)})"


def contenders(cases: list[Record]) -> list[str]:
    """Cases of the other benchmarks: one row for a case and a number of threads, one column for a contender."""
    rivals = list(dict.fromkeys(name for case in cases for name in case["times"] if name != "striate"))
    order = list(dict.fromkeys(map(name_of, cases)))
    copied = "; of `clone`, the share of its bandwidth" if COPY in rivals else ""
    return [
        f"Times over striate's: medians (fastest rounds){copied}.",
        "",
        *sheet(
            ["case", "threads", "striate", *rivals],
            (
                [
                    name_of(case),
                    case["threads"],
                    f"{case['times']['striate']['median'] * 1e3:.2f} ms",
                    *(rival(case, name) for name in rivals),
                ]
                for case in sorted(cases, key=lambda case: (order.index(name_of(case)), case["threads"]))
            ),
        ),
    ]


def memory(cases: list[Record]) -> list[str]:
    """What one call adds to the process's memory, where that was measured beside another way to the same result.

    It hardly depends on the threads.
    """
    found: dict[str, Record] = {}
    for case in cases:
        if set(case.get("peak_bytes", ())) - {"striate", "plain", COPY}:
            of_pass = f" {PASSES[case['pass']]}" if is_pass(case) else ""
            found.setdefault(name_of(case) + of_pass, case["peak_bytes"])
    names = list(dict.fromkeys(name for peaks in found.values() for name in peaks))
    if not names:
        return []
    return [
        "",
        "What one call adds to the memory of its process, its result included, in MB:",
        "",
        *sheet(
            ["case", *names],
            ([case, *(megabytes(peaks.get(name)) for name in names)] for case, peaks in found.items()),
        ),
    ]


def goals(records: list[Record]) -> list[str]:
    """One row for a goal and a pass, with what every number of threads measured."""
    rows: dict[tuple[str, str, str], dict[int, str]] = {}
    for goal in records:
        note = f" ({goal['note']})" if goal["note"] and goal["verdict"] != "reached" else ""
        told = f"{goal['measured']:.3g}, {goal['verdict']}{note}"
        rows.setdefault((goal["case"], goal["pass"], goal["goal"]), {})[goal["threads"]] = told
    threads = sorted({goal["threads"] for goal in records})
    return sheet(
        ["case", "pass", "goal", *(f"threads: {n}" for n in threads)],
        (
            [f"`{case}`", PASSES.get(pass_, ""), goal, *(by.get(n, "") for n in threads)]
            for (case, pass_, goal), by in rows.items()
        ),
    )


def megabytes(size: int | None) -> str:
    """A size with three digits; nothing where the system did not tell."""
    return "" if size is None else f"{size / 1e6:.3g}"


def body(file: str, wanted: str) -> str:
    """The lines between the markers."""
    records = [json.loads(line) for line in (RECORDS / file).read_text().splitlines() if line]
    (here,) = (record for record in records if record["kind"] == "environment")
    if wanted == "goals":
        verdicts = [record for record in records if record["kind"] == "goal"]
        return "\n".join([heading(here, file), "", *goals(verdicts)])
    cases = [
        record for record in records if record["kind"] == "case" and re.fullmatch(wanted, name_of(record))
    ]
    if not cases:
        raise SystemExit(f"bench/record/{file} holds no case {wanted!r}")
    table = passes(cases) if all(map(is_pass, cases)) else contenders(cases)
    return "\n".join([heading(here, file), *table, *memory(cases)])


def written(text: str) -> str:
    """The page with every block anew."""
    return BLOCK.sub(
        lambda found: f"{found['open']}\n{body(found['file'], found['wanted'])}\n{found['close']}", text
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail if a page is not up to date")
    check, count, stale = parser.parse_args().check, 0, 0
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        wanted = written(text)
        count += len(BLOCK.findall(text))
        if not check:
            page.write_text(wanted)
        elif wanted != text:
            print(f"{page.relative_to(ROOT)}: not what the records say; write it with `make docs`")
            stale += 1
    print(f"{count} tables from records")
    return int(stale > 0 or not count)


if __name__ == "__main__":
    sys.exit(main())
