"""Public layouts of items and users whose files name their columns."""

from __future__ import annotations

from store.tables.layouts.layout import (
    MOVIE,
    MOVIELENS_MOVIE,
    Layout,
)

CATALOGUES: tuple[Layout, ...] = (
    Layout(
        name="MovieLens movies",
        kind="items",
        has=frozenset({"movieId", "title", "genres"}),
        columns=MOVIELENS_MOVIE,
        constants=MOVIE,
        list_separator="|",
    ),
    Layout(
        name="Amazon products (2023)",
        kind="items",
        has=frozenset({"parent_asin", "title", "main_category"}),
        columns={
            "item_id": "parent_asin",
            "title": "title",
            "categories": "categories",
            "attributes.store": "store",
            "attributes.price": "price",
            "attributes.main_category": "main_category",
        },
        constants={"item_type": "product"},
    ),
    *(
        Layout(
            name="Amazon products (2014, 2018)",
            kind="items",
            has=frozenset({"asin", "title", categories}),
            columns={
                "item_id": "asin",
                "title": "title",
                "categories": categories,
                "attributes.brand": "brand",
                "attributes.price": "price",
            },
            constants={"item_type": "product"},
        )
        for categories in ("categories", "category")
    ),
    Layout(
        name="Yelp businesses",
        kind="items",
        has=frozenset({"business_id", "name", "categories", "is_open"}),
        columns={
            "item_id": "business_id",
            "title": "name",
            "categories": "categories",
            "available": "is_open",
            "attributes.city": "city",
            "attributes.state": "state",
            "attributes.stars": "stars",
        },
        constants={"item_type": "business"},
        list_separator=",",
    ),
    Layout(
        name="Goodreads books",
        kind="items",
        has=frozenset({"book_id", "title", "popular_shelves"}),
        columns={
            "item_id": "book_id",
            "title": "title",
            "text": "description",
            "tags": "popular_shelves",
            "attributes.year": "publication_year",
            "attributes.publisher": "publisher",
        },
        constants={"item_type": "book"},
    ),
    Layout(
        name="goodbooks books",
        kind="items",
        has=frozenset({"book_id", "authors", "title", "original_publication_year"}),
        columns={
            "item_id": "book_id",
            "title": "title",
            "tags": "authors",
            "attributes.year": "original_publication_year",
            "attributes.language": "language_code",
        },
        constants={"item_type": "book"},
        list_separator=",",
    ),
    Layout(
        name="Steam games",
        kind="items",
        has=frozenset({"app_name", "id", "tags"}),
        columns={
            "item_id": "id",
            "title": "app_name",
            "categories": "genres",
            "tags": "tags",
            "attributes.price": "price",
            "attributes.developer": "developer",
        },
        constants={"item_type": "game"},
    ),
    Layout(
        name="H&M articles",
        kind="items",
        has=frozenset({"article_id", "prod_name", "product_type_name"}),
        columns={
            "item_id": "article_id",
            "title": "prod_name",
            "text": "detail_desc",
            "categories": "product_type_name",
            "tags": "product_group_name",
            "attributes.colour": "colour_group_name",
            "attributes.department": "department_name",
        },
        constants={"item_type": "article"},
        list_separator="|",
    ),
    Layout(
        name="H&M profiles",
        kind="users",
        has=frozenset({"customer_id", "club_member_status", "age"}),
        columns={
            "user_id": "customer_id",
            "attributes.age": "age",
            "attributes.club_member_status": "club_member_status",
        },
    ),
)
"""The first that fits counts."""
