"""What the columns of a person's table become, and the option that a wrong reading needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors import ConfigurationError
from core.types import Item
from store.tables.options import Options
from store.tables.reader import items as items_of
from store.tables.reader import open_path
from store.tables.rows import BATCH

PRICED = Options(kind="items", others_as_attributes=True)


@pytest.mark.parametrize(
    ("cells", "decimal", "prices"),
    [
        (["9", "12.5"], ".", [9, 12.5]),
        (["0.30000000000000004", "1e-05"], ".", [0.30000000000000004, 1e-05]),
        (['"9,50"', '"1.003,5"'], ",", [9.5, 1003.5]),
        (["n/a", "9"], ".", [None, 9]),
        (["007", "12"], ".", ["007", "12"]),
        (["10.02.2024", "12"], ",", ["10.02.2024", "12"]),
    ],
)
def test_a_numeric_column_is_a_number_in_an_items_attributes(
    tmp_path: Path, cells: list[str], decimal: str, prices: list[Any]
) -> None:
    path = tmp_path / "items.csv"
    rows = "".join(f"{number},book,{cell}\n" for number, cell in enumerate(cells))
    path.write_text("item_id,item_type,price\n" + rows)
    options = msgspec.structs.replace(PRICED, decimal=decimal, delimiter=",")
    read = [row for batch in open_path(path, options, 2e9).batches() for row in items_of(batch)]
    assert [item.attributes.get("price") for item in read if isinstance(item, Item)] == prices


def test_a_column_that_is_empty_at_first_is_numeric_where_its_first_cells_are(
    tmp_path: Path,
) -> None:
    path = tmp_path / "items.csv"
    rows = [f"{number},book," for number in range(BATCH + 5)] + ["x,book,7"]
    path.write_text("item_id,item_type,discount\n" + "\n".join(rows))
    read = [row for batch in open_path(path, PRICED, 2e9).batches() for row in items_of(batch)]
    assert isinstance(read[-1], Item)
    assert read[-1].attributes == {"discount": 7}


def test_a_constant_attribute_that_is_a_number_is_one(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,item_type\na,book\n")
    options = Options(kind="items", constants={"attributes.price": "5", "attributes.code": "05"})
    (batch,) = open_path(path, options, 2e9).batches()
    (item,) = items_of(batch)
    assert isinstance(item, Item)
    assert item.attributes == {"price": 5, "code": "05"}


def test_a_note_says_which_text_keeps_a_column_from_being_numbers(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,item_type,price\na,book,5\nb,book,on request\n")
    reader = open_path(path, PRICED, 2e9)
    list(reader.batches())
    assert "attributes.price stays text, because 'on request' is no number" in reader.notes
    assert "attributes of each row: price" in reader.notes


def test_a_note_names_the_columns_of_users_that_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("user_id,roles,age\n1,reader,30\n")
    options = Options(kind="users", others_as_attributes=True)
    (note,) = open_path(path, options, 2e9).notes
    assert "left out, because they are mapped to no field: age" in note
    assert "--map attributes.age=age" in note


@pytest.mark.parametrize(
    ("mark", "option", "said"),
    [
        (";", ",", "has ; between its columns, not ,: give --delimiter ';'"),
        (",", ";", "has , between its columns, not ;: give --delimiter ','"),
        ("\t", ",", r"has a tab between its columns, not ,: give --delimiter '\t'"),
        ("^", None, "has ^ between its columns, not ,: give --delimiter '^'"),
    ],
)
def test_a_wrong_delimiter_suggests_the_right_one(
    tmp_path: Path, mark: str, option: str | None, said: str
) -> None:
    path = tmp_path / "log.csv"
    rows = ["user_id,item_id,event_type,timestamp", "1,2,view,1700000000", "1,3,view,1700000001"]
    path.write_text("\n".join(rows).replace(",", mark))
    with pytest.raises(ConfigurationError) as refused:
        open_path(path, Options(delimiter=option), 2e9)
    assert said in str(refused.value)
    (batch,) = open_path(path, Options(delimiter=mark), 2e9).batches()
    assert len(batch.numbers) == 2


def test_a_file_of_one_column_is_no_wrong_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id\na\nb\n")
    options = Options(kind="items", constants={"item_type": "book"})
    (batch,) = open_path(path, options, 2e9).batches()
    assert batch.fields["item_id"] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "categories"),
    [({}, ["a;b"]), ({"list_separator": ";"}, ["a", "b"]), ({"list_separator": "+"}, ["a;b"])],
)
def test_a_list_is_split_at_the_given_separator(
    tmp_path: Path, options: dict[str, Any], categories: list[str]
) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,item_type,categories\n1,book,a;b\n")
    (batch,) = open_path(path, Options(kind="items", **options), 2e9).batches()
    (item,) = items_of(batch)
    assert isinstance(item, Item)
    assert item.categories == categories
