"""The published event contract and the codec agree on every example."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from core import codec, contract
from core.errors import BadEvent
from core.settings import Settings
from core.use_cases import load

CONTRACT = Path(__file__).parents[2] / "docs" / "contract"
NOW = 1_800_000_000.0
USE_CASES = load(None)
EXPECTED: dict[str, dict[str, Any]] = {
    entry["file"]: entry
    for entry in msgspec.json.decode((CONTRACT / "examples/expected.json").read_bytes())["bad"]
}


def decode(kind: str, data: bytes, key: str | None = None, record_time: float = NOW) -> Any:
    """Decode a message as the consumer of its topic does."""
    if kind == "interaction":
        return codec.decode_interaction(data, record_time, USE_CASES)
    entry: Any = (codec.decode_item if kind == "item" else codec.decode_user)(data, record_time)
    return entry if key is None else codec.require_key(entry, codec.decode_id(key.encode()))


def schema_accepts(kind: str, data: bytes) -> bool:
    try:
        message = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    schema = msgspec.json.decode((CONTRACT / f"{kind}.schema.json").read_bytes())
    return bool(jsonschema.Draft202012Validator(schema).is_valid(message))


def examples(folder: str) -> list[str]:
    return sorted(path.name for path in (CONTRACT / "examples" / folder).iterdir())


@pytest.mark.parametrize("kind", ["interaction", "item", "user"])
def test_each_schema_is_valid_and_accepts_its_own_examples(kind: str) -> None:
    schema = msgspec.json.decode((CONTRACT / f"{kind}.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    for example in schema["examples"]:
        assert schema_accepts(kind, msgspec.json.encode(example))


@pytest.mark.parametrize("name", examples("good"))
def test_a_good_example_is_accepted_by_schema_and_codec(name: str) -> None:
    kind, data = name.split("_", maxsplit=1)[0], (CONTRACT / "examples/good" / name).read_bytes()
    assert schema_accepts(kind, data)
    decode(kind, data)


@pytest.mark.parametrize("name", examples("bad"))
def test_a_bad_example_is_refused_with_its_code(name: str) -> None:
    kind, expected = name.split("_", maxsplit=1)[0], EXPECTED[name]
    data = (CONTRACT / "examples/bad" / name).read_bytes()
    data = data.ljust(expected.get("grow_to_bytes", 0))
    with pytest.raises(BadEvent) as refused:
        decode(kind, data, expected.get("key"), expected.get("record_time", NOW))
    assert refused.value.code == expected["code"]
    assert schema_accepts(kind, data) == ("schema_accepts_because" in expected)


def test_every_bad_example_is_listed_and_every_code_has_one() -> None:
    assert examples("bad") == sorted(EXPECTED)
    sources = [Path(codec.__file__), *Path(contract.__file__).parent.glob("*.py")]
    codes = {
        code
        for source in sources
        for code in re.findall(r'BadEvent\(\s*"(\w+)"', source.read_text())
    } | {"not_json", "bad_field"}
    assert {entry["code"] for entry in EXPECTED.values()} == codes


def test_asyncapi_names_the_topics_schemas_and_codes_of_the_code() -> None:
    text = (CONTRACT / "asyncapi.yaml").read_text()
    document = yaml.safe_load(text)
    defaults = Settings(_env_file=None)  # type: ignore[call-arg]
    assert document["asyncapi"].startswith("3.")
    topics = {channel["address"] for channel in document["channels"].values()}
    assert topics == {
        defaults.interactions_topic,
        defaults.items_topic,
        defaults.users_topic,
        defaults.dlq_topic,
    }
    for reference in re.findall(r"\$ref: '?(#?[\w./#]+)'?", text):
        if reference.startswith("#/"):
            node = document
            for part in reference[2:].split("/"):
                node = node[part]
        else:
            assert (CONTRACT / reference).is_file()
    headers = document["components"]["messages"]["deadLetter"]["headers"]["properties"]
    codes = set(re.findall(r"\w+_?\w*", headers["code"]["description"].split(":")[1]))
    of_partitions = {"foreign_partition"}  # depends on the partition, so it has no example file
    assert codes == {entry["code"] for entry in EXPECTED.values()} | of_partitions


def test_the_schema_names_the_built_in_event_types() -> None:
    schema = msgspec.json.decode((CONTRACT / "interaction.schema.json").read_bytes())
    named = schema["properties"]["event_type"]["description"].split("built in: ")[1].rstrip(".")
    assert named.split(", ") == list(USE_CASES.event_types)
