"""Two-Tower learns what follows what, serves it as torch would, and goes on where a killed fit
stopped.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch

from core.errors import DatasetError
from core.settings import Settings
from core.types import Item
from models.id_map import IdMap
from models.two_tower import TwoTowerModel, ages
from training.data import dataset
from training.data.dataset import Dataset
from training.two_tower import fit as two_tower
from training.two_tower.fit import Hyperparameters
from training.two_tower.network import Towers
from training.two_tower.samples import NOBODY, Content, Sequences
from training.two_tower.softmax import SoftmaxLoss, candidates

USE_CASES = Settings(_env_file=None).use_cases  # type: ignore[call-arg]
SMALL = Hyperparameters(
    dimension=16,
    layers=2,
    heads=2,
    history=6,
    dropout=0.0,
    epochs=30,
    patience=30,
    learning_rate=0.01,
)
RING = 24
DAY = 86_400.0


def table(rows: list[tuple[str, str, str, float | None]]) -> Dataset:
    columns = zip(*rows, strict=True)
    users, items, types, times = (list(column) for column in columns)
    return dataset.build(
        pa.table(
            {
                "user_id": pa.array(users).dictionary_encode(),
                "item_id": pa.array(items).dictionary_encode(),
                "event_type": pa.array(types).dictionary_encode(),
                "timestamp": pa.array(times, pa.float64()),
                "value": pa.nulls(len(rows), pa.float64()),
                "use_case": pa.array(["developer_startup"] * len(rows)).dictionary_encode(),
            }
        ),
        USE_CASES,
    )


def ring(users: int = 96, steps: int = 5) -> Dataset:
    """Everybody goes round a ring of items, each from a place of their own: after item n comes item
    n + 1.
    """
    return table(round_the_ring(users, steps))


def round_the_ring(users: int = 96, steps: int = 5) -> list[tuple[str, str, str, float | None]]:
    return [
        (f"u{user}", f"i{(user + step) % RING}", "like", 1e9 + step * DAY)
        for user in range(users)
        for step in range(steps)
    ]


def items(count: int = RING) -> list[Item]:
    return [
        Item(
            item_id=f"i{number}",
            item_type="startup",
            categories=["low" if number < RING // 2 else "high"],
        )
        for number in range(count)
    ]


def following(model: TwoTowerModel, *rows: int) -> int:
    """The new item that the model expects after the items numbered `rows`."""
    places = model.item_ids.rows([f"i{row}" for row in rows])
    times = 1e9 + DAY * np.arange(len(rows))
    vector = model.user_vector(
        model.item_vectors[places],
        model.type_rows(["like"] * len(rows)),
        times,
        np.zeros(16, np.float32),
    )
    scores = model.scores(vector)
    scores[places] = -np.inf
    return int(model.item_ids.ids[int(scores.argmax())][1:])


def test_it_learns_what_comes_next() -> None:
    model = two_tower.fit(ring(), items(), USE_CASES, SMALL, seed=1, threads=1).model
    assert (
        sum(
            following(model, at, (at + 1) % RING, (at + 2) % RING) == (at + 3) % RING
            for at in range(RING)
        )
        >= RING - 2
    )


def test_a_sample_of_candidates_learns_it_too() -> None:
    few = Hyperparameters(
        **{**{name: getattr(SMALL, name) for name in SMALL.__struct_fields__}, "candidates": 8}
    )
    model = two_tower.fit(ring(), [], USE_CASES, few, seed=1, threads=1).model
    right = sum(
        following(model, at, (at + 1) % RING, (at + 2) % RING) == (at + 3) % RING
        for at in range(RING)
    )
    assert right >= RING - 2


def test_what_is_served_is_what_was_trained() -> None:
    """Parity: numpy's pass equals torch's within 1e-4, for full and short histories, with interests
    and a role.
    """
    data = ring()
    sequences = Sequences.of(data, None, USE_CASES)
    content = Content.of(sequences.items, items(), 1)
    fit = two_tower._Fit(sequences, content, data.event_types, SMALL, 1, "", 10, None, True)
    torch.manual_seed(3)
    towers = Towers(fit.facts, content.features, 0.3).eval()
    with torch.no_grad():
        for name, parameter in towers.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if "norm" not in name else 1.0))
    model = fit.export(towers.export())
    rng = np.random.default_rng(0)
    interests = model.vocabulary.profile_from_interests(["low"])
    for n in (0, 1, 3, 6):
        rows, times = (
            rng.integers(0, RING, n),
            np.sort(rng.integers(0, 5, n)) * 10.0 ** rng.integers(0, 7, n),
        )
        before = rng.integers(0, RING, 9 if n == 6 else 0)
        batch_ages = torch.from_numpy(ages(times)[None])
        with torch.no_grad():
            vectors = towers.item_vectors(torch.from_numpy(rows))[None]
            types = torch.zeros(1, n, dtype=torch.int64)
            profile = torch.from_numpy((interests @ content.axes)[None])
            older = (
                towers.item_vectors(torch.from_numpy(before)).mean(0, keepdim=True)
                if n == 6
                else torch.zeros(1, 16)
            )
            expected = towers.users(vectors, types, batch_ages, profile, torch.ones(1, 1), older)[
                0, -1
            ].numpy()
        declared = model.profile_vector(["low"], ["developer"]) + model.older_part(
            model.item_vectors[before]
        )
        found = model.user_vector(model.item_vectors[rows], np.zeros(n, np.int64), times, declared)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(
        model.item_vectors, towers.item_vectors(torch.arange(RING)).detach().numpy(), atol=1e-5
    )


def test_an_item_without_an_event_lies_with_those_that_say_the_same() -> None:
    model = two_tower.fit(ring(), items(), USE_CASES, SMALL, seed=1, threads=1).model
    low, high = model.content_vectors(
        [Item(item_id=name, item_type="startup", categories=[name]) for name in ("low", "high")]
    )
    assert low.any()
    assert not np.allclose(low, high, atol=1e-3)
    assert not model.content_vectors(
        [Item(item_id="x", item_type="startup", categories=["unheard of"])]
    ).any()


def test_a_killed_fit_goes_on_and_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    chosen = Hyperparameters(
        **{
            **{name: getattr(SMALL, name) for name in SMALL.__struct_fields__},
            "epochs": 4,
            "dropout": 0.2,
        }
    )
    whole = two_tower.fit(ring(), items(), USE_CASES, chosen, seed=1, threads=1)

    class Killed(Exception):
        pass

    def kill(progress: two_tower.Progress) -> None:
        if progress.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        two_tower.fit(
            ring(), items(), USE_CASES, chosen, seed=1, threads=1, folder=tmp_path, on_epoch=kill
        )
    seen: list[int] = []
    resumed = two_tower.fit(
        ring(),
        items(),
        USE_CASES,
        chosen,
        seed=1,
        threads=1,
        folder=tmp_path,
        on_epoch=lambda progress: seen.append(progress.epoch),
    )
    assert seen == [3, 4]
    assert [each["epoch"] for each in resumed.curve] == [1, 2, 3, 4]
    assert resumed.curve == whole.curve, "the report shows the epochs before the kill, too"
    np.testing.assert_array_equal(resumed.model.item_vectors, whole.model.item_vectors)
    for name, array in whole.model.arrays.items():
        np.testing.assert_array_equal(resumed.model.arrays[name], array)


def test_a_refresh_takes_over_what_was_learnt_and_knows_the_items_that_came_since() -> None:
    before, after = (
        ring(),
        table(
            [
                *round_the_ring(),
                *(
                    (f"n{user}", item, "like", 1e9 + DAY)
                    for user in range(20)
                    for item in ("i0", "new")
                ),
            ]
        ),
    )
    fitted = two_tower.fit(before, items(), USE_CASES, SMALL, seed=1, threads=1)
    fresh = two_tower.refresh(fitted, after, items(), USE_CASES, SMALL, seed=1, threads=1).model
    assert set(fresh.item_ids.ids) == {*fitted.model.item_ids.ids, "new"}
    kept = fresh.item_vectors[fresh.item_ids.rows(fitted.model.item_ids.ids)]
    assert 0 < float(np.abs(kept - fitted.model.item_vectors).max()) < 0.5
    assert (
        sum(
            following(fresh, at, (at + 1) % RING, (at + 2) % RING) == (at + 3) % RING
            for at in range(RING)
        )
        >= RING - 4
    )


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_checkpoint_that_cannot_be_read_is_not_gone_on_from(
    tmp_path: Path, content: bytes
) -> None:
    chosen = Hyperparameters(dimension=4, layers=1, heads=1, history=4, epochs=1)
    (tmp_path / "two_tower_checkpoint.npz").write_bytes(content)
    two_tower.fit(ring(), [], USE_CASES, chosen, seed=1, threads=1, folder=tmp_path)


def test_a_checkpoint_of_other_data_is_not_gone_on_from(tmp_path: Path) -> None:
    chosen = Hyperparameters(dimension=4, layers=1, heads=1, history=4, epochs=1)
    two_tower.fit(ring(), [], USE_CASES, chosen, seed=1, threads=1, folder=tmp_path)
    seen: list[int] = []
    two_tower.fit(
        ring(50),
        [],
        USE_CASES,
        chosen,
        seed=1,
        threads=1,
        folder=tmp_path,
        on_epoch=lambda now: seen.append(now.epoch),
    )
    assert seen == [1]


def test_a_checkpoint_of_another_catalogue_or_order_is_not_gone_on_from(tmp_path: Path) -> None:
    one = msgspec.structs.replace(SMALL, epochs=1)
    told: list[int] = []
    for entries, ordered in (([], True), (items(), True), (items(), False)):
        two_tower.fit(
            ring(24),
            entries,
            USE_CASES,
            one,
            1,
            threads=1,
            folder=tmp_path,
            ordered=ordered,
            on_epoch=lambda now: told.append(now.epoch),
        )
    assert told == [1, 1, 1], "each began anew"


def test_an_epoch_without_a_loss_is_not_in_the_curve() -> None:
    fitted = two_tower.fit(ring(24), [], USE_CASES, SMALL, 1, threads=1, seconds=0.0)
    assert fitted.curve == []
    broken = two_tower.fit(
        ring(24),
        [],
        USE_CASES,
        msgspec.structs.replace(SMALL, epochs=3, learning_rate=1e30),
        1,
        threads=1,
    )
    assert all(np.isfinite(row["loss"]) for row in broken.curve), (
        "a page cannot show what is no number"
    )


def test_the_time_budget_ends_training_with_a_model_that_serves() -> None:
    model = two_tower.fit(ring(), items(), USE_CASES, SMALL, seed=1, threads=1, seconds=0).model
    assert 0 <= following(model, 1, 2) < RING


def test_nothing_to_learn_is_said() -> None:
    with pytest.raises(DatasetError, match="nothing to learn"):
        two_tower.fit(table([("u", "i", "dismiss", 1.0)]), [], USE_CASES, SMALL, seed=1, threads=1)


def test_answers_are_the_next_new_good_items_and_what_is_held_out_is_not_among_them() -> None:
    data = table(
        [
            ("ada", "b", "like", 2.0),
            ("ada", "a", "view", 1.0),
            ("ada", "a", "like", 3.0),
            ("ada", "no", "dismiss", 4.0),
            ("ada", "c", "like", 5.0),
            ("ada", "untimed", "like", None),
            ("bob", "a", "like", 9.0),
        ]
    )
    sequences = Sequences.of(data, None, USE_CASES)
    names = sequences.items.ids

    def answers(user: int, of: Sequences) -> list[str]:
        batch = of.batch(of.latest(np.array([user]), 50))
        return [names[row] if row != NOBODY else "-" for row in batch.answers[0].tolist()]

    assert [names[row] for row in sequences.item[:6].tolist()] == [
        "untimed",
        "a",
        "b",
        "a",
        "no",
        "c",
    ]
    assert answers(0, sequences) == ["untimed", "a", "b", "c", "c", "c", "-"]
    shortened, held_out = sequences.without_last(np.random.default_rng(0), 10)
    assert held_out.users.tolist() == [0]
    assert [names[row] for row in held_out.items.tolist()] == ["c"]
    assert answers(0, shortened) == ["untimed", "a", "b", "-", "-", "-"]
    assert answers(1, shortened) == ["a", "-"]


def test_windows_cover_every_event_that_something_follows_once() -> None:
    sequences = Sequences.of(ring(users=7, steps=11), None, USE_CASES)
    windows = sequences.windows(4, np.random.default_rng(1))
    covered = np.concatenate(
        [np.arange(start, end) for start, end in zip(windows.start, windows.end, strict=True)]
    )
    followed = [
        row
        for start, end in zip(sequences.start, sequences.end, strict=True)
        for row in range(start, end - 1)
    ]
    assert sorted(covered.tolist()) == followed
    assert (windows.end - windows.start).max() <= 4
    batched = [
        window
        for batch in windows.batches(12, np.random.default_rng(2))
        for window in batch.start.tolist()
    ]
    assert sorted(batched) == sorted(windows.start.tolist())


def test_events_without_an_order_are_read_in_another_each_time_and_what_is_held_out_stays_out() -> (
    None
):
    sequences, held_out = Sequences.of(ring(users=7, steps=11), None, USE_CASES).without_last(
        np.random.default_rng(0), 5
    )
    shuffled = sequences.shuffled(np.random.default_rng(1))

    assert (shuffled.item != sequences.item).any()
    for user in range(7):
        mine = slice(sequences.start[user], sequences.end[user])
        assert sorted(shuffled.item[mine]) == sorted(sequences.item[mine])
    assert shuffled.item[sequences.end[held_out.users]].tolist() == held_out.items.tolist()
    batch = shuffled.batch(shuffled.latest(np.arange(7), 50))
    for items_read, answers, size in zip(
        batch.items, batch.answers, batch.sizes.tolist(), strict=True
    ):
        assert answers[:size].tolist() == items_read[:size].tolist(), (
            "the next event is the answer, as each is new to its user"
        )
        assert answers[size] == NOBODY


def test_the_loss_and_its_gradient_are_those_of_cross_entropy() -> None:
    torch.manual_seed(0)
    users, vectors = torch.randn(300, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    chance, places = torch.randn(50), torch.randint(0, 50, (300,))
    expected = torch.nn.functional.cross_entropy(users @ vectors.T - chance, places)
    found = SoftmaxLoss.apply(users, vectors, chance, places)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(found, (users, vectors)),
        torch.autograd.grad(expected, (users, vectors)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def test_a_candidates_chance_is_how_often_it_comes() -> None:
    sequences = Sequences.of(ring(), None, USE_CASES)
    share = np.bincount(sequences.item, minlength=RING) / len(sequences.item)
    rng = np.random.default_rng(1)
    came, told, rounds = np.zeros(RING), np.zeros(RING), 2000
    for _ in range(rounds):
        batch = sequences.batch(sequences.latest(rng.integers(0, 96, 2), 2))
        rows, log_chance = candidates(batch, share, 16, rng)
        came[rows] += 1
        told[rows] += np.exp(log_chance)
    np.testing.assert_allclose(told / came, came / rounds, atol=0.08)
    everything = candidates(batch, share, RING, rng)
    assert everything[0].tolist() == list(range(RING))
    assert not everything[1].any()


def test_pretended_interests_are_read_as_declared_ones() -> None:
    entries = [
        Item(
            item_id=f"i{number}",
            item_type="startup",
            categories=["Climate Tech", "x"],
            tags=["solar_power"],
        )
        for number in range(3)
    ]
    content = Content.of(IdMap(["i0", "i1", "gone"]), entries, 1)
    assert content.item_labels.toarray().tolist() == [
        [1.0, 1.0, 1.0],
        [1.0, 1.0, 1.0],
        [0.0, 0.0, 0.0],
    ]
    names = ["Climate Tech", "x", "solar_power"]
    rows = sorted(map(tuple, content.labels.toarray().round(5).tolist()))
    assert rows == sorted(
        tuple(content.vocabulary.profile_from_interests([name]).round(5).tolist()) for name in names
    )


def test_a_catalogue_without_terms_has_no_features_and_trains() -> None:
    content = Content.of(IdMap(["a", "b"]), [], 1)
    assert content.features.shape == (2, 0)
