"""docs/scale.md says what was measured: its tables are made from the figures that are kept."""

import pytest
import sizing

import documents

TEXT = sizing.DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sizing.tables())
def test_a_table_is_what_it_is_made_from(name):
    _, table, _ = documents.between(TEXT, name)

    assert table == sizing.tables()[name], "run `python benchmarks/sizing.py`"
