"""The documents say what the code does: commands, keys, reasons, events and tables that exist, and all of them."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from docs import generate
from ich_node.cli import build_parser
from ich_node.config import Config
from ich_node.records import NotAnalysedReason
from ich_node.training.cli import build_parser as build_training_parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "models/README.md"])
OPERATION = ROOT / "docs/operation.md"
COMMANDS = ROOT / "docs/commands.md"

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE_SPAN = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?<![\w-])(ich-node|ich-train) ([a-z][a-z-]*)((?: [^\s]+)*)")
_OPTION = re.compile(r"(?<!\S)--[a-z][a-z0-9-]*")
_DOTTED_KEY = re.compile(r"([a-z]+)\.([a-z_]+)")

by_name = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def code_of(document: Path) -> Iterator[str]:
    """Every piece of a document that is set as code: spans, and indented lines up to the words that explain them."""
    for line in document.read_text().splitlines():
        if line.startswith("    "):
            yield re.split(r" {2,}", line.strip())[0]
        else:
            yield from _CODE_SPAN.findall(line)


def commands() -> dict[str, set[str]]:
    """Every command of both programs with its options; actions as ``ich-node model list``."""

    def walk(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, set[str]]]:
        words = {word for action in parser._actions for word in action.option_strings} - {"-h", "--help"}
        yield name, words
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child, child_parser in action.choices.items():
                    yield from walk(child_parser, f"{name} {child}".strip())

    programs = {"ich-node": build_parser(), "ich-train": build_training_parser()}
    every = (found for program, parser in programs.items() for found in walk(parser, program))
    return {name: words for name, words in every if name not in programs}


# ------------------------------------------------------------------------------------------ documents


def test_readme_is_no_longer_than_200_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_readme_says_early_that_this_is_no_medical_device() -> None:
    assert "not a medical device" in "\n".join((ROOT / "README.md").read_text().splitlines()[:12])


@by_name
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(document.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {link}"


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, left = set[Path](), [ROOT / "README.md"]
    while left:
        document = left.pop()
        if document in reached or document.suffix != ".md":
            continue
        reached.add(document)
        left += [
            (document.parent / link.partition("#")[0]).resolve()
            for link in _LINK.findall(document.read_text())
            if "://" not in link and not link.startswith("#")
        ]
    assert reached >= set(DOCUMENTS)


# ------------------------------------------------------------------------------------ generated tables


def test_conformance_statement_has_the_tables_of_the_code() -> None:
    text = generate.CONFORMANCE_STATEMENT.read_text()
    assert generate.generate(text) == text, "run `make docs`"


def test_conformance_statement_holds_every_generated_part_once() -> None:
    text = generate.CONFORMANCE_STATEMENT.read_text()
    assert sorted(re.findall(r"<!-- generated: (\w+) -->", text)) == sorted(generate.PARTS)


def test_a_table_that_was_altered_is_written_anew() -> None:
    text = generate.CONFORMANCE_STATEMENT.read_text()
    altered = text.replace("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.71")
    assert altered != text
    assert generate.generate(altered) == text


# ------------------------------------------------------------------------------------ commands, targets


@by_name
def test_commands_that_are_named_exist(document: Path) -> None:
    known = commands()
    for code in code_of(document):
        for program, word, rest in _COMMAND.findall(code):
            name = f"{program} {word}"
            action = f"{name} {rest.split()[0]}" if rest.split() else name
            command = action if action in known else name
            assert command in known, f"{document.name}: {name}"
            unknown = set(_OPTION.findall(rest)) - known[command]
            assert not unknown, f"{document.name}: {command} has no {unknown}"


def test_commands_are_found_in_the_documents() -> None:
    found = [name for code in code_of(ROOT / "README.md") for _, name, _ in _COMMAND.findall(code)]
    assert {"status", "requeue", "resend", "doctor", "score", "check-config"} <= set(found)


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_and_option_is_documented(command: str) -> None:
    text = COMMANDS.read_text()
    assert command in text
    section = next(part for part in re.split(r"\n(?=`ich-node|`ich-train|## )", text) if f"`{command}" in part)
    options = commands()[command]
    assert options <= set(re.findall(r"--[a-z][a-z0-9-]*", section)), f"missing: {options}"


@by_name
def test_make_targets_that_are_named_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "install"} <= targets
    named = {name for code in code_of(document) for name in re.findall(r"(?:^|&& |sudo )make ([a-z-]+)", code)}
    assert named <= targets


# --------------------------------------------------------------------------------------- configuration


def sections() -> dict[str, set[str]]:
    def models(annotation: Any) -> Iterator[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        for inner in get_args(annotation):
            yield from models(inner)

    return {name: set(next(models(one.annotation)).model_fields) for name, one in Config.model_fields.items()}


@by_name
def test_configuration_keys_that_are_named_exist(document: Path) -> None:
    known = sections()
    for code in code_of(document):
        for section, key in _DOTTED_KEY.findall(code) if re.fullmatch(r"[a-z]+\.[a-z_]+( = .*)?", code) else ():
            if section in known:
                assert key in known[section] | {"py"}, f"{document.name}: {section}.{key}"


def test_the_keys_of_every_section_are_known() -> None:
    known = sections()
    assert {"return_port", "skip_old", "station_name", "port"} <= set().union(
        *(known[name] for name in ("peer", "destination", "priority", "query"))
    )


def test_what_a_site_may_want_to_set_is_documented() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    keys = ["series.routine_max_age_h", "skip_old", "[query]", "[[priority]]", "[eligibility]"]
    keys += [f"eligibility.{key}" for key in sections()["eligibility"]]
    assert not [key for key in keys if key not in text]
    assert not [key for key in sections()["priority"] if key not in text]


def test_configuration_keys_are_found_in_the_documents() -> None:
    assert "receiver.maximum_pdu_kib" in set(code_of(generate.CONFORMANCE_STATEMENT))


# -------------------------------------------------------------------------------------- reasons, events


def test_every_reason_for_no_result_is_explained() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \| [^|]+ \| [^|]+ \|$", reasons_document(), re.MULTILINE)
    assert {name: text.strip() for name, text in rows} == {one.name: one.text for one in NotAnalysedReason}


def reasons_document() -> str:
    return (ROOT / "docs/what-is-analysed.md").read_text()


def logged_warnings() -> set[str]:
    """The first words of every warning and error that the package logs."""
    events = set[str]()
    for path in sorted((ROOT / "ich_node").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("log.warning", "log.error"):
                events |= set(event_texts(node.args[0]))
    return events


def event_texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.IfExp):
        yield from event_texts(node.body)
        yield from event_texts(node.orelse)
    elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        yield str(node.values[0].value).strip(", ")


def test_every_warning_and_error_is_explained() -> None:
    events = logged_warnings()
    assert len(events) > 20
    text = OPERATION.read_text()
    missing = {event for event in events if f"`{event.replace('`', '')}" not in text}
    assert not missing
