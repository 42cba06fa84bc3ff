"""Templates of messages: Jinja2 in its sandbox, so that a site may write its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from ich_node.alert.message import AlertMessage, ClassFinding, PersonNameParts
from ich_node.errors import AlertRefused

Syntax = Literal["hl7", "text"]

HL7_TEMPLATE: Final = "oru_r01.hl7.j2"
MAIL_TEMPLATE: Final = "mail.txt.j2"

_HL7_ESCAPES: Final = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
_FAULTS: Final = (OSError, TemplateError, TypeError, ValueError, ArithmeticError, LookupError)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def render(template: Path | None, default: str, syntax: Syntax, message: AlertMessage, more: Mapping[str, str]) -> str:
    """Fill a template in.

    Args:
        template: a site's own file; None: the one of this package.
        default: name of that.
        syntax: ``hl7`` escapes the delimiters in every value (HL7 v2.5.1, 2.7).
        message: its fields are what the template may name.
        more: further names, of the channel.

    Raises:
        AlertRefused: the template cannot be read, has a fault, or names what there is not. It says no more than
            the kind of fault and the line: the rest may quote a patient's data.
    """
    try:
        return _fill(template, default, syntax, message, more)
    except _FAULTS as error:
        raise AlertRefused(f"template {template or default}{_line(error)}: {type(error).__name__}") from None


def _line(error: Exception) -> str:
    number = getattr(error, "lineno", None)  # of a fault in its syntax
    return f", line {number}" if number else ""


def _fill(template: Path | None, default: str, syntax: Syntax, message: AlertMessage, more: Mapping[str, str]) -> str:
    source = template.read_text("utf-8") if template else _packaged(default)
    environment = SandboxedEnvironment(
        undefined=StrictUndefined, finalize=_FINALIZE[syntax], trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    names = {name: getattr(message, name) for name in AlertMessage.__slots__} | {"created": message.created}
    return environment.from_string(source).render(names | dict(more))


def check_template(template: Path, default: str, syntax: Syntax, more: Mapping[str, str]) -> str:
    """Fill a site's template in with an invented message; returns what is wrong with it, else nothing."""
    try:
        text = _fill(template, default, syntax, _invented(), more)
    except (OSError, UnicodeDecodeError) as error:
        return f"template {template} cannot be read: {error}"
    except _FAULTS as error:  # all that it can quote is invented
        return f"template {template}{_line(error)}: {error}"
    if syntax == "hl7" and not text.lstrip().startswith("MSH|"):
        return f"template {template}: must begin with MSH|"
    return ""


def hl7_value(value: object) -> str:
    """Escape a value for an HL7 field; line breaks and other control characters become spaces."""
    text = _CONTROL.sub(" ", "" if value is None else str(value))
    return "".join(_HL7_ESCAPES.get(character, character) for character in text)


def _plain(value: object) -> str:
    return _CONTROL.sub(" ", "" if value is None else str(value))


_FINALIZE: Final[dict[Syntax, Callable[[Any], str]]] = {"hl7": hl7_value, "text": _plain}


def _packaged(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text("utf-8")


def _invented() -> AlertMessage:
    return AlertMessage(
        identifier="A" * 20, kind="correction", result_status="C", outcome="positive", told_before="negative",
        first_identifier="B" * 20,
        headline="Suspected intracranial hemorrhage", urgent=True, revision=2, created_at=datetime.now(UTC),
        findings=(ClassFinding("any", "any intracranial hemorrhage", "present", 0.9),), patient_id="1",
        patient_name=PersonNameParts("A", "B"), accession_number="2", prior="first study known here",
        prior_undated="first study known here", link="https://ich.hospital.example/alerts/1",
    )  # fmt: skip
