"""Every command that a page shows is one: it exists, takes those options, and is given what it needs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cryfed.cli.main import app

REPO = Path(__file__).resolve().parents[2]
PAGES = sorted([REPO / "README.md", *(REPO / "docs").glob("*.md"), *REPO.glob("benchmarks/*.md")])
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (REPO / "Makefile").read_text(), re.MULTILINE))
_STOPS = {"|", ">", "&&", ";", "\\"}


def commands(page: Path) -> list[list[str]]:
    """The words of each command in a page's shell blocks, ended at a pipe, a redirection or a comment."""
    blocks = re.findall(r"```(?:ba)?sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in lines:
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "|"]:
            if word not in _STOPS:
                words.append(word)
            elif words:
                found.append(words)
                words = []
    return found


def shown(program: str) -> list[tuple[str, list[str]]]:
    return [(page.name, words) for page in PAGES for words in commands(page) if words[0] == program]


def complaint(words: list[str]) -> str:
    """Why the command line refuses these words; nothing is run."""
    if words[-1] == "--help":
        words = words[:-1]
    command: Any = typer.main.get_command(app)
    context = command.make_context("cryfed", [], resilient_parsing=True)
    rest = words[1:]
    try:
        while rest and hasattr(command, "commands"):
            name = rest[0]
            if name not in command.commands:
                return f"{name} is no command of {context.command_path}"
            _, command, rest = command.resolve_command(context, rest)
            last = not hasattr(command, "commands")
            context = command.make_context(name, list(rest), parent=context, resilient_parsing=not last)
    except Exception as err:  # of typer's own click, whose classes are not public
        return f"{type(err).__name__}: {err}"
    return ""


@pytest.mark.parametrize(
    ("page", "words"), shown("cryfed"), ids=lambda v: v if isinstance(v, str) else " ".join(v)
)
def test_a_command_of_a_page_can_be_given(page: str, words: list[str]) -> None:
    assert complaint(words) == "", page


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["cryfed", "sign-off", "ward-7", "infant-cry@3", "--key", "clinical-1", "--by", "Dr"], "statement"),
        (["cryfed", "fleet", "halt", "ward-7"], "halt"),
        (["cryfed", "deploy", "prod", "--flet", "ward-7"], "--flet"),
    ],
)
def test_a_wrong_one_would_be_noticed(words: list[str], why: str) -> None:
    assert why in complaint(words)


def test_the_pages_show_commands() -> None:
    assert len(shown("cryfed")) > 30
    assert {words[1] for _, words in shown("make")} <= TARGETS


def test_commands_named_in_a_sentence_exist() -> None:
    """`cryfed store list`, without what it needs: its words up to the first that is no command."""
    unknown = []
    for page in PAGES:
        for text in re.findall(r"`cryfed ([a-z][a-z -]*)", page.read_text()):
            command = typer.main.get_command(app)
            for word in text.split():
                group = getattr(command, "commands", None)
                if group is None:
                    break
                if word not in group:
                    unknown.append((page.name, text, word))
                    break
                command = group[word]
    assert unknown == []


def test_what_the_pages_link_to_is_there() -> None:
    missing = [
        (page.name, link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert missing == []
