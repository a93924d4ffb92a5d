"""Do the documents do what they say?

Every Python block of every page runs, in order, and prints the text block that follows it; so do the `striate`
commands of the shell blocks. A block that begins with ``# not run: reason`` says so to the reader as well.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import shlex
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import check_docs  # noqa: E402

PAGES = [
    page
    for page in check_docs.documents()
    if any(block.language in ("python", "sh") for block in check_docs.blocks(page.read_text()))
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A folder of its own, one thread, fixed numbers; what a page changes in torch is changed back."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def compared(where: str, wanted: str | None, printed: str) -> None:
    """The output of a block is what the page shows, where it shows one."""
    if wanted is None:
        return
    example = doctest.Example("", wanted)
    checker = doctest.OutputChecker()
    assert checker.check_output(wanted, printed, FLAGS), (
        where + "\n" + checker.output_difference(example, printed, FLAGS)
    )


def command(line: str) -> None:
    """One line of a shell block: commands of ours run, others must at least name files that exist."""
    from striate.bench.cli import main

    if check_docs.NOT_RUN in line:
        assert line.partition(check_docs.NOT_RUN)[2].startswith(": "), f"{line}: gives no reason"
        return
    words = shlex.split(line, comments=True)
    if words and words[0] == "striate":
        assert main(words[1:]) == 0, line
    for word in words:
        if word.startswith(("examples/", "tools/", "bench/", "tests/")):
            assert (ROOT / word).exists(), f"{line}: there is no {word}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_do_what_the_page_says(page: Path) -> None:
    names: dict[str, object] = {"__name__": "__page__"}
    for block in check_docs.blocks(page.read_text()):
        where, printed = f"{page}:{block.line}", io.StringIO()
        if not block.runs or block.language not in ("python", "sh"):
            continue
        with contextlib.redirect_stdout(printed):
            if block.language == "python":
                code = compile("\n" * block.line + block.code, str(page), "exec")
                exec(code, names)
            else:
                for line in block.code.splitlines():
                    command(line)
        compared(where, block.output, printed.getvalue())


def test_outputs_are_compared() -> None:
    (block,) = (
        b
        for b in check_docs.blocks("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n")
        if b.language == "python"
    )
    assert (block.output, block.line, block.runs) == ("3\n", 1, True)
    with pytest.raises(AssertionError, match="Expected"):
        compared("here", block.output, "2\n")


def test_a_block_that_is_not_run_says_why() -> None:
    quiet = "```python\n# not run\nx = 1\n```\n"
    assert check_docs.broken_code(Path("page.md"), quiet)
    assert not check_docs.broken_code(Path("page.md"), quiet.replace("not run", "not run: needs a download"))
    assert not any(block.runs for block in check_docs.blocks(quiet))


def test_faults_are_found() -> None:
    page = ROOT / "docs" / "ops" / "none.md"
    assert check_docs.broken_links(
        page, "[a](conv.md#no-such) ![b](../pictures/none.svg) [c](conv.md#types)"
    ) == [
        "link to conv.md#no-such: there is no such heading",
        "link to ../pictures/none.svg: there is no such file",
    ]
    assert len(check_docs.missing_parts(page, "# Op\n\n## Definition\n")) == len(check_docs.PARTS)
    text = "\n".join(f"## {part}" for part in reversed(check_docs.PARTS))
    (fault,) = check_docs.missing_parts(page, f"![a](../pictures/conv.svg)\n{text}\n")
    assert "order" in fault
