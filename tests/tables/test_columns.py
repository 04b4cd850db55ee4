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


def test_a_column_whose_name_comes_twice_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,item_id,event_type,note,note\n1,a,b,view,x,y\n")
    with pytest.raises(ConfigurationError, match="2 columns have the name 'item_id'"):
        open_path(path, Options(), 2e9)
    path.write_text("user_id,item_id,event_type,note,note\n1,a,view,x,y\n")
    (batch,) = open_path(path, Options(), 2e9).batches()
    assert batch.fields["item_id"] == ["a"]


@pytest.mark.parametrize(
    ("cell", "code", "reason"),
    [
        (b'"caf\xe9"', "bad_encoding", "give --encoding, such as cp1252"),
        (b'{"id": 7}', "bad_id", """'{"id":7}' is neither text nor a number"""),
        (b'["u"]', "bad_id", """'["u"]' is neither text nor a number"""),
    ],
)
def test_an_id_that_is_no_text_costs_its_row_and_says_why(
    tmp_path: Path, cell: bytes, code: str, reason: str
) -> None:
    path = tmp_path / "log.jsonl"
    row = b'{"user_id": %s, "item_id": "a", "event_type": "view"}\n'
    path.write_bytes(row % b'"u1"' + row % cell)
    (batch,) = open_path(path, Options(encoding="utf-8"), 2e9).batches()
    (reject,) = batch.rejects
    assert (batch.fields["user_id"], reject.number, reject.code) == (["u1"], 2, code)
    assert reason in reject.reason


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("1/15/2024 10:30", "%m/%d/%Y %H:%M"),
        ("01/15/24, 10:30:05 PM", "%m/%d/%y, %I:%M:%S %p"),
        ("1/15/2024", "%m/%d/%Y"),
    ],
)
def test_a_date_with_slashes_suggests_the_option_that_reads_it(
    tmp_path: Path, text: str, form: str
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f'user_id,item_id,event_type,timestamp\n1,a,view,"{text}"\n')
    (batch,) = open_path(path, Options(), 2e9).batches()
    assert f"give --time-format '{form}' or, for days first" in batch.rejects[0].reason
    (batch,) = open_path(path, Options(time_formats=(form,)), 2e9).batches()
    assert not batch.rejects


def test_what_r_and_pandas_write_is_missing_except_in_texts(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "user_id,item_id,event_type,timestamp,value\n"
        "17850.0,a,view,1700000000,NA\n18.0,b,view,NaT,2\nNA,c,view,NA,3\n"
    )
    reader = open_path(path, Options(), 2e9)
    (batch,) = reader.batches()
    assert batch.fields["user_id"] == ["17850", "18"]
    assert (batch.fields["timestamp"], batch.fields["value"]) == ([1.7e9, None], [None, 2.0])
    assert [reject.number for reject in batch.rejects] == [4]
    assert reader.missing == {"user_id": 1, "timestamp": 2, "value": 1}
    path.write_text("item_id,item_type,title,tags,region\n1,game,NA,NA|EU,NA\n")
    (batch,) = open_path(path, PRICED, 2e9).batches()
    (item,) = items_of(batch)
    assert isinstance(item, Item)
    assert (item.title, item.tags, item.attributes) == ("NA", ["NA", "EU"], {"region": "NA"})
