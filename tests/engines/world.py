"""A small catalogue with obvious answers, shared by the tests of the engines.

Eight startups: three in fintech, three in health, one in both, one without a category. ALS factors:
the first axis is fintech, the second is health. Only the ALS model has the item `ghost`.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from core.settings import Settings
from core.types import HistoryEvent, Item, User, UserState
from engines.builder import build
from engines.catalogue import Catalogue
from engines.recommender import Recommender
from models.als import ALSModel
from models.bundle import Bundle
from models.content import ContentModel
from models.id_map import IdMap
from models.popular import PopularModel
from models.two_tower import TwoTowerFacts, TwoTowerModel, shapes

DAY = 24 * 3600


def item(item_id: str, categories: list[str], created: int | None, **fields: object) -> Item:
    return Item(
        item_id=item_id,
        item_type=str(fields.pop("item_type", "startup")),
        categories=categories,
        created_at=None if created is None else created * DAY,
        **fields,
    )  # type: ignore[arg-type]


ITEMS = [
    item(
        "pay",
        ["fintech"],
        1,
        title="Payflow",
        tags=["payments"],
        attributes={"stage": "seed", "founded": 2019},
    ),
    item(
        "bank", ["fintech"], 2, tags=["payments"], attributes={"stage": "growth", "founded": 2010}
    ),
    item("coin", ["fintech"], 3, attributes={"stage": "seed", "founded": 2021, "remote": True}),
    item("pill", ["health"], 4, attributes={"stage": "seed"}),
    item("gene", ["health"], 5, attributes={"stage": "growth", "founded": 2015.0}),
    item("care", ["health"], 6, available=False),
    item(
        "medpay",
        ["health", "fintech"],
        7,
        item_type="scaleup",
        attributes={"markets": ["eu", "us"]},
    ),
    item("mute", [], None),
]
FACTORS = {
    "pay": (1, 0),
    "bank": (1, 0),
    "coin": (0.9, 0),
    "ghost": (0.5, 0),
    "pill": (0, 1),
    "gene": (0, 0.9),
    "care": (0, 0.8),
    "medpay": (0.7, 0.7),
}
POPULAR = {
    "developer_startup": [("pill", 5.0), ("pay", 1.0)],
    "investor_startup": [("gene", 7.0)],
    "unlabelled": [("pay", 2.0)],
}


def als() -> ALSModel:
    return ALSModel(
        IdMap(list(FACTORS)),
        np.array(list(FACTORS.values()), dtype=np.float32),
        regularization=0.1,
        alpha=10,
    )


def two_tower() -> TwoTowerModel:
    """A model whose user vector is the vector of the last event's item.

    The layer adds nothing. Items have FACTORS; a category has the vector of its axis.
    """
    words = ContentModel.fit(ITEMS)
    vocabulary = ContentModel(
        words.terms, words.idf, IdMap([]), sp.csr_matrix((0, len(words.terms)), dtype=np.float32)
    )
    facts = TwoTowerFacts(
        dimension=2,
        layers=1,
        heads=1,
        history=3,
        items=len(FACTORS),
        event_types=["like"],
        roles=["developer"],
    )
    arrays = {
        name: np.zeros(shape, dtype=np.float32)
        for name, shape in shapes(facts, len(words.terms)).items()
    }
    for name in ("norm", "layer0_norm1", "layer0_norm2"):
        arrays[name][:] = 1
    for axis, term in enumerate(("fintech", "health")):
        arrays["term_vectors"][words.terms.index(term), axis] = 1
    return TwoTowerModel(
        facts,
        IdMap(list(FACTORS)),
        np.array(list(FACTORS.values()), dtype=np.float32),
        vocabulary,
        arrays,
    )


def bundle(**replaced: object) -> Bundle:
    parts: dict[str, object] = {
        "als": als(),
        "content": ContentModel.fit(ITEMS),
        "popular": PopularModel(POPULAR),
    }
    return Bundle.of("v1", list(ITEMS), **{**parts, **replaced})


def recommender(**settings: object) -> Recommender:
    return build(bundle(), settings=Settings(_env_file=None, **settings))  # type: ignore[call-arg, arg-type]


def catalogue() -> Catalogue:
    return Catalogue.of(ITEMS)


def user(
    *items: str,
    events: int | None = None,
    interests: list[str] | None = None,
    event_type: str = "like",
) -> UserState:
    """A user with one like a day of `items`.

    `events`: the live count, if it differs from the length of the history.
    """
    history = [
        HistoryEvent(timestamp=day * DAY, event_type=event_type, item_id=item_id)
        for day, item_id in enumerate(items)
    ]
    profile = User(user_id="ada", interests=interests) if interests else None
    return UserState(
        user_id="ada",
        events=len(items) if events is None else events,
        history=history,
        profile=profile,
    )
