"""What the documents say exists: files they link to, code they quote, commands they show."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent, indent

import pytest

from npmobilenet.bench.ladder import find_ladder
from npmobilenet.bench.layers import find_layer
from npmobilenet.cli import parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
QUOTE = re.compile(r"<!-- from: (\S+) -->\n```python\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"(?:^|&& |\n)(?:\.venv/bin/)?(npmobilenet [^\n&|]*)")


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands() -> list[str]:
    """Every ``npmobilenet`` command that a document shows, in a block or in a line, without its comment."""
    found = []
    for page in PAGES:
        shell = "".join(re.findall(r"```sh\n(.*?)```", text(page), re.DOTALL))
        quoted = re.findall(r"`(npmobilenet [a-z][^`]*)`", text(page))
        found += [line.split("  #")[0].split(" # ")[0].strip() for line in [*COMMAND.findall(shell), *quoted]]
    return sorted({line for line in found if "…" not in line and not line.endswith("TOPIC")})


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text(page)):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [page for page in PAGES if QUOTE.search(text(page))], ids=name)
def test_code_is_quoted_as_it_stands(page):
    for file, quoted in QUOTE.findall(text(page)):
        source = text(ROOT / file)
        first = quoted.splitlines()[0]
        places = [line for line in source.splitlines() if line.strip() == first]
        assert any(indent(quoted, line[: len(line) - len(first)]) in source for line in places), f"{file}:\n{quoted}"
        assert quoted == dedent(quoted)


@pytest.mark.parametrize("command", commands())
def test_commands_can_be_given(command):
    options = parser().parse_args(shlex.split(command)[1:])
    if getattr(options, "ladder", None):
        operation = find_ladder(options.ladder)
        if options.shape:
            find_layer(operation, options.shape)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page):
    for path in re.findall(r"`((?:npmobilenet|kernels|bench|tests|docs|examples)/[\w./]*)`", text(page)):
        assert (ROOT / path).exists(), path


def test_modules_can_be_run():
    modules = {
        module for page in PAGES for module in re.findall(r"python -m ((?:npmobilenet|tests)\b[\w.]*)", text(page))
    }
    assert len(modules) > 3
    for module in modules:
        assert find_spec(module) is not None, module
