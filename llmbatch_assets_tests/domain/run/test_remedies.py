"""Every cause of a failed item has a remedy, and a cause of another version does not break the page."""

from __future__ import annotations

import re

from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.run.remedies import REMEDIES, remedy
from llmbatch_assets.errors import FailureCause


def test_every_cause_has_a_remedy() -> None:
    assert set(REMEDIES) == set(FailureCause)
    assert all(text.endswith(".") for text in REMEDIES.values())
    assert remedy("a_cause_of_the_future")


def test_remedies_name_settings_that_exist() -> None:
    named = {pair for text in REMEDIES.values() for pair in re.findall(r"\b(llm|judge|context|grouping)\.(\w+)", text)}
    assert len(named) > 5
    parameters = Parameters.model_fields
    for block, setting in named:
        kind = parameters[block].annotation
        assert kind is not None
        assert setting in kind.model_fields
