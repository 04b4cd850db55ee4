"""Public layouts of events whose files name their columns."""

from __future__ import annotations

from store.tables.layouts.layout import (
    MOVIELENS_RATING,
    MS,
    RATING,
    Layout,
)

EVENTS: tuple[Layout, ...] = (
    Layout(
        name="MovieLens ratings",
        has=frozenset({"userId", "movieId", "rating", "timestamp"}),
        columns=MOVIELENS_RATING,
        constants=RATING,
    ),
    Layout(
        name="RetailRocket events",
        has=frozenset({"timestamp", "visitorid", "event", "itemid"}),
        columns={
            "user_id": "visitorid",
            "item_id": "itemid",
            "event_type": "event",
            "timestamp": "timestamp",
        },
        per_second=MS,
    ),
    Layout(
        name="REES46 events",
        has=frozenset({"event_time", "event_type", "product_id", "user_id", "user_session"}),
        columns={
            "user_id": "user_id",
            "item_id": "product_id",
            "event_type": "event_type",
            "timestamp": "event_time",
        },
        event_types={"cart": "addtocart", "remove_from_cart": "dismiss"},
    ),
    Layout(
        name="Amazon reviews (2014, 2018)",
        has=frozenset({"reviewerID", "asin", "overall", "unixReviewTime"}),
        columns={
            "user_id": "reviewerID",
            "item_id": "asin",
            "value": "overall",
            "timestamp": "unixReviewTime",
        },
        constants=RATING,
    ),
    Layout(
        name="Amazon reviews (2023)",
        has=frozenset({"user_id", "parent_asin", "rating", "timestamp"}),
        columns={
            "user_id": "user_id",
            "item_id": "parent_asin",
            "value": "rating",
            "timestamp": "timestamp",
        },
        constants=RATING,
        per_second=MS,
    ),
    Layout(
        name="Yelp reviews",
        has=frozenset({"review_id", "user_id", "business_id", "stars", "date"}),
        columns={
            "user_id": "user_id",
            "item_id": "business_id",
            "value": "stars",
            "timestamp": "date",
        },
        constants=RATING,
    ),
    Layout(
        name="Goodreads interactions (JSON)",
        has=frozenset({"user_id", "book_id", "rating", "date_updated"}),
        columns={
            "user_id": "user_id",
            "item_id": "book_id",
            "value": "rating",
            "timestamp": "date_updated",
        },
        constants=RATING,
        time_formats=("%a %b %d %H:%M:%S %z %Y",),
    ),
    Layout(
        name="goodbooks or Goodreads ratings",
        has=frozenset({"user_id", "book_id", "rating"}),
        columns={"user_id": "user_id", "item_id": "book_id", "value": "rating"},
        constants=RATING,
    ),
    Layout(
        name="Steam reviews",
        has=frozenset({"username", "product_id", "hours", "date"}),
        columns={
            "user_id": "username",
            "item_id": "product_id",
            "value": "hours",
            "timestamp": "date",
        },
        constants={"event_type": "view"},
        time_formats=("%Y-%m-%d",),
    ),
    Layout(
        name="Last.fm tags (HetRec)",
        has=frozenset({"userID", "artistID", "tagID", "timestamp"}),
        columns={"user_id": "userID", "item_id": "artistID", "timestamp": "timestamp"},
        constants={"event_type": "like"},
        per_second=MS,
    ),
    Layout(
        name="Last.fm listening counts (HetRec)",
        has=frozenset({"userID", "artistID", "weight"}),
        columns={"user_id": "userID", "item_id": "artistID", "value": "weight"},
        constants={"event_type": "view"},
    ),
    Layout(
        name="H&M transactions",
        has=frozenset({"t_dat", "customer_id", "article_id"}),
        columns={"user_id": "customer_id", "item_id": "article_id", "timestamp": "t_dat"},
        constants={"event_type": "purchase"},
        time_formats=("%Y-%m-%d",),
    ),
    Layout(
        name="Yambda events",
        has=frozenset({"uid", "item_id", "timestamp", "is_organic", "event_type"}),
        columns={
            "user_id": "uid",
            "item_id": "item_id",
            "event_type": "event_type",
            "timestamp": "timestamp",
        },
        event_types={
            "listen": "view",
            "unlike": "dismiss",
            "dislike": "dismiss",
            "undislike": "dismiss",
        },
    ),
    Layout(
        name="Yambda listens",
        has=frozenset({"uid", "item_id", "timestamp", "is_organic", "played_ratio_pct"}),
        columns={"user_id": "uid", "item_id": "item_id", "timestamp": "timestamp"},
        constants={"event_type": "view"},
    ),
    Layout(
        name="Yambda likes",
        has=frozenset({"uid", "item_id", "timestamp", "is_organic"}),
        columns={"user_id": "uid", "item_id": "item_id", "timestamp": "timestamp"},
    ),
)
"""The first that fits counts."""
