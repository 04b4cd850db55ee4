"""A catalogue from a CSV file can be filtered by its numbers, without an option."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.types import AttributeFilter, Filters, Item, Request, UserState
from engines.base import eligible
from engines.catalogue import Catalogue
from store.tables import command_line
from store.tables.command_line import Reading, Typed
from store.tables.reader import items
from streams.importers.command import open_reader
from streams.importers.options import Options, plan

CSV = "item_id,item_type,title,price\n1,book,A,9.5\n2,book,B,12.90\n3,book,C,\n"


@pytest.mark.parametrize(("only_mapped", "matching"), [(False, ["2"]), (True, [])])
def test_a_minimum_price_finds_the_items_of_an_imported_file(
    tmp_path: Path, only_mapped: bool, matching: list[str]
) -> None:
    """As `attr.price.min=10` of the API; --only-mapped leaves the column out."""
    path = tmp_path / "books.csv"
    path.write_text(CSV)
    reading = command_line.options(
        Typed(kind="items", only_mapped=only_mapped), Reading("the file")
    )
    reader = open_reader(plan(Options(file=path, reading=reading)))
    entries = [item for batch in reader.batches() for item in items(batch)]
    catalogue = Catalogue.of([item for item in entries if isinstance(item, Item)])
    priced = Filters(attributes=(AttributeFilter(name="price", low=10.0),))
    mask = eligible(catalogue, UserState(user_id="u"), Request(filters=priced))
    assert [catalogue.ids[row] for row in mask.nonzero()[0]] == matching
