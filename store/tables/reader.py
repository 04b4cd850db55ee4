"""Reads a table as valid rows of fields, and rejects the others with a reason.

The one interface for `streams import`, `training --events` and `--items`. At most one batch of
rows is in memory.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from core import codec
from core.errors import BadEvent
from core.types import Item, User
from store.tables import mapping as mappings
from store.tables import nested, values
from store.tables.files import FileTable
from store.tables.mapping import FieldMapping
from store.tables.options import ATTRIBUTE, REQUIRED, Options
from store.tables.rows import RawBatch, Reject, Table
from store.tables.times import Times
from store.tables.values import Converter, Invalid

_TEXT_IDS = ("user_id", "item_id", "event_id", "recommendation_id")
_Entry = TypeVar("_Entry", Item, User)
_LISTS = ("categories", "tags", "roles", "interests")


class Batch(msgspec.Struct, frozen=True):
    """Valid rows by field: the number of each, and the values of each field; None is missing.

    `cells`: the cells of the same rows before conversion. `rejects`: the rows that are not valid,
    in the order of their numbers. `read`: rows of both kinds.
    """

    numbers: Sequence[int]
    fields: Mapping[str, Sequence[Any]]
    cells: Mapping[str, Sequence[Any]]
    rejects: Sequence[Reject]

    @property
    def read(self) -> int:
        """The number of rows, valid or not."""
        return len(self.numbers) + len(self.rejects)

    def rows(self, places: Sequence[int]) -> Batch:
        """The batch with the valid rows at these places only."""

        def of(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
            return {name: [column[place] for place in places] for name, column in columns.items()}

        numbers = [self.numbers[place] for place in places]
        return Batch(numbers, of(self.fields), of(self.cells), self.rejects)

    def reject(self, index: int, error: BadEvent) -> Reject:
        """The reject of a valid row that breaks a rule of its reader."""
        return Reject(self.numbers[index], error.code, str(error), _shown(self.cells, index))


class Reader:
    """Reads one table. `missing`: missing cells by column, of the rows read so far."""

    def __init__(self, table: Table, options: Options, now: float) -> None:
        """`now`: seconds since 1970; later times are rejected, save by a day.

        Raises ConfigurationError where the mapping does not fit the columns.
        """
        self.table = table
        self.mapping: FieldMapping = mappings.choose(table.columns, table.layout, options)
        self.missing: Counter[str] = Counter()
        self.notes = dict.fromkeys([*table.notes, *mappings.notes(self.mapping, table.columns)])
        self._now = now
        self._converters: dict[str, Converter] = {}
        self._required = REQUIRED[self.mapping.kind]

    def batches(self) -> Iterator[Batch]:
        """All rows in the order of the table. Raises SourceFailed."""
        rejects: list[Reject] = []
        columns = self.mapping.columns
        constants = {
            field: self._converter(field, [text]).value(text)
            for field, text in self.mapping.constants.items()
        }
        for raw in self.table.batches(list(columns.values()), rejects.append):
            cells = dict(zip(columns, raw.columns, strict=True))
            fields = {field: self._converted(field, raw, cells[field]) for field in columns}
            fields |= {field: [value] * len(raw.numbers) for field, value in constants.items()}
            yield self._sound(raw.numbers, fields, cells, rejects)
            rejects.clear()
        if rejects:
            yield Batch([], {field: [] for field in (*columns, *constants)}, {}, _ordered(rejects))

    def _converted(self, field: str, raw: RawBatch, cells: Sequence[Any]) -> list[Any]:
        converter, column = self._converter(field, cells), self.mapping.columns[field]
        if column in raw.seconds and isinstance(converter, Times):
            converted = converter.seconds(cells)
        else:
            converted = converter.column(cells)
        if missing := converted.count(None):
            self.missing[column] += missing
            if (default := self.mapping.defaults.get(field)) is not None:
                value = converter.value(default)
                converted = [value if present is None else present for present in converted]
        return converted

    def _sound(
        self,
        numbers: Sequence[int],
        fields: dict[str, list[Any]],
        cells: dict[str, Sequence[Any]],
        rejects: list[Reject],
    ) -> Batch:
        invalid: dict[int, Invalid] = {}
        for field, column in fields.items():
            if self._converters[field].has_invalid:
                for index, value in enumerate(column):
                    if value.__class__ is Invalid:
                        invalid.setdefault(index, value)
            if field in self._required and None in column:
                code = "bad_id" if field.endswith("_id") else "bad_field"
                for index, value in enumerate(column):
                    if value is None:
                        invalid.setdefault(index, Invalid(code, f"{field} is missing"))
        if not invalid:
            return Batch(numbers, fields, cells, _ordered(rejects))
        rejected = [
            Reject(numbers[index], problem.code, problem.reason, _shown(cells, index))
            for index, problem in invalid.items()
        ]
        sound = [index for index in range(len(numbers)) if index not in invalid]
        return Batch(numbers, fields, cells, _ordered([*rejects, *rejected])).rows(sound)

    def _converter(self, field: str, cells: Sequence[Any]) -> Converter:
        if field not in self._converters:
            self._converters[field] = self._make(field, cells)
        return self._converters[field]

    def _make(self, field: str, cells: Sequence[Any]) -> Converter:
        mapping = self.mapping
        if field in ("timestamp", "created_at"):
            return Times(field, mapping.per_second, mapping.time_formats, self._now)
        convert: Callable[[Any], Any] = values.text_cell
        if field in _TEXT_IDS:
            is_float = values.are_floats(cells)
            if is_float:
                self.notes[f"{field} is a column of floats: 17850.0 is read as 17850"] = None
            return values.Ids(field, strip_zero=is_float)
        if field == "item_type":
            return values.Ids(field)
        if field == "value":
            return values.Numbers(field, mapping.decimal)
        if field == "event_type":
            convert = self._event_type
        elif field == "available":
            convert = values.flag
        elif field in _LISTS:
            convert = nested.texts(mapping.list_separator)
        elif field == "attributes":
            convert = nested.attributes
        elif field.startswith(ATTRIBUTE):
            return _Attribute(field, mapping.decimal, self.notes)
        elif field == "context":
            convert = values.json_text
        return Converter(field, convert)

    def _event_type(self, value: Any) -> str:
        text = values.to_text(value)
        return self.mapping.event_types.get(text, text)


class _Attribute(Converter):
    """Converts a column of attributes: to numbers where all cells of its first batch with any are.

    It remembers nothing: 1, 1.0 and True are three attributes, but one key.
    """

    def __init__(self, field: str, decimal: str, notes: dict[str, None]) -> None:
        super().__init__(field, nested.attribute)
        self._decimal, self._notes, self._is_decided = decimal, notes, False

    def column(self, cells: Sequence[Any]) -> list[Any]:
        self._decide(cells)
        return [self.value(cell) for cell in cells]

    def value(self, cell: Any) -> Any:
        self._decide([cell])
        return super().value(cell)

    def _decide(self, cells: Sequence[Any]) -> None:
        if self._is_decided or all(values.is_missing(cell) for cell in cells):
            return
        self._is_decided = True
        self.convert, odd = nested.attribute_kind(cells, self._decimal)
        if odd is not None:
            self._notes[f"{self.field} stays text, because {odd[:40]!r} is no number"] = None


def open_path(path: str | Path, options: Options, now: float) -> Reader:
    """A reader of a file, a folder, or s3://bucket/key. Raises ConfigurationError, SourceFailed."""
    return Reader(FileTable(path, options), options, now)


def items(batch: Batch) -> Iterator[Item | Reject]:
    """The catalogue entry of each row of a batch, or why it is none."""
    return _decoded(batch, codec.decode_item)


def users(batch: Batch) -> Iterator[User | Reject]:
    """The profile of each row of a batch, or why it is none."""
    return _decoded(batch, codec.decode_user)


def _decoded(batch: Batch, decode: Callable[[bytes, float], _Entry]) -> Iterator[_Entry | Reject]:
    now = time.time()
    for index, fields in enumerate(_entries(batch)):
        try:
            yield decode(codec.encode_json(fields), now)
        except BadEvent as error:
            yield batch.reject(index, error)


def _entries(batch: Batch) -> Iterator[dict[str, Any]]:
    names = list(batch.fields)
    for row in zip(*batch.fields.values(), strict=True):
        entry: dict[str, Any] = {}
        attributes: dict[str, Any] = {}
        for field, value in zip(names, row, strict=True):
            if value is None:
                continue
            if field == "attributes":
                attributes |= value
            elif field.startswith(ATTRIBUTE):
                attributes[field.removeprefix(ATTRIBUTE)] = value
            else:
                entry[field] = value
        yield entry | ({"attributes": attributes} if attributes else {})


def _ordered(rejects: Sequence[Reject]) -> list[Reject]:
    return sorted(rejects, key=lambda reject: reject.number)


def _shown(cells: Mapping[str, Sequence[Any]], index: int) -> dict[str, Any]:
    return {field: column[index] for field, column in cells.items()}
