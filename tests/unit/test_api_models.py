"""Bodies of requests are read as their schema says."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ich_node.web.api.models import FeedbackGiven


def given(revision: str) -> FeedbackGiven:
    return FeedbackGiven.model_validate_json(f'{{"agrees": true, "classes": [], "revision": {revision}}}')


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert given("3.0").revision == given("3").revision == 3
    assert given("null").revision is None


@pytest.mark.parametrize("revision", ['"3"', "true", "3.5", "0", "1e9"])
def test_what_is_no_revision_is_refused(revision: str) -> None:
    with pytest.raises(ValidationError):
        given(revision)
