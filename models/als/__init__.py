"""The ALS part of a bundle.

`model` has the item factors, the scores and the fold-in of many users; `fold` solves the fold-in of
one user, `confidence` is the popularity discount. `trained_users` finds similar users, `new_items`
holds the factors of items that the bundle does not know. Start with `model`.
"""

from models.als.arrays import Floats, Rows
from models.als.model import ALSModel
from models.als.user_side import UserSide

__all__ = ["ALSModel", "Floats", "Rows", "UserSide"]
