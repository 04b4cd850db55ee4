"""Defines both towers in torch.

This is the mathematics of models/two_tower, for batches and with gradients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.two_tower import EPSILON, PROFILE_AGE, Floats, TwoTowerFacts, shapes

FIRST_SCALE = 0.05
"""Standard deviation of embeddings before training: scores start near 0, which suits a softmax over
thousands of items.
"""


class Towers(nn.Module):
    """Parameters under the names of `models.two_tower.shapes`, and the item tower's own:
    `id_vectors`, `projection`.
    """

    features: Tensor
    distance: Tensor

    def __init__(self, facts: TwoTowerFacts, features: Floats, dropout: float) -> None:
        """`features (n_items, n_features)` f32: content features of each item."""
        super().__init__()
        self.facts, self.dropout = facts, dropout
        self.register_buffer("features", torch.from_numpy(features), persistent=False)
        self.id_vectors = nn.Parameter(torch.randn(facts.items, facts.dimension) * FIRST_SCALE)
        self.projection = nn.Parameter(
            torch.randn(features.shape[1], facts.dimension) * FIRST_SCALE
        )
        for name, shape in shapes(facts, 0).items():
            if name != "term_vectors":
                self.register_parameter(name, nn.Parameter(_first(name, shape)))
        places = torch.arange(facts.history + 1)
        self.register_buffer("distance", (places[:, None] - places).clamp(min=0), persistent=False)

    def item_vectors(
        self, items: Tensor, without_id: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """(n, d): the vectors of the rows `items (n,)`.

        A share `without_id`, which `generator` draws (None: torch's own), gets no id vector, so
        that content alone learns to represent items.
        """
        ids = functional.embedding(items, self.id_vectors)
        if without_id:
            drawn = torch.rand(len(items), 1, generator=generator, device=ids.device)
            ids = ids * (drawn >= without_id)
        return ids + self.features[items] @ self.projection

    def users(
        self,
        vectors: Tensor,
        event_types: Tensor,
        ages: Tensor,
        profiles: Tensor,
        roles: Tensor,
        older: Tensor,
    ) -> Tensor:
        """User vectors (b, s + 1, d) after the profile alone and after each event.

        `vectors (b, s, d)` of the events' items; `event_types (b, s)`; `ages (b, s, s)` of
        models.two_tower; `profiles (b, n_features)`; `roles (b, n_roles)` how often each role
        counts; `older (b, d)` the mean of what came before. Padding stands at the end, where the
        mask hides it.
        """
        tokens = self._drop(vectors + self._own("event_types")[event_types])
        profile = (
            self._own("start")
            + profiles @ self.projection
            + roles @ self._own("roles")
            + older @ self._own("older")
        )
        x = torch.cat([profile[:, None], tokens], 1)
        size = x.shape[1]
        with_profile = functional.pad(ages, (1, 0, 1, 0), value=PROFILE_AGE)
        by_age = torch.stack(
            [of_head.gather(0, with_profile.flatten()) for of_head in self._own("age_bias")]
        ).view(-1, *with_profile.shape)
        bias = by_age.transpose(0, 1) + self._own("distance_bias")[:, self.distance[:size, :size]]
        future = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
        bias = bias.masked_fill(future, -math.inf)
        for layer in range(self.facts.layers):
            x = self._layer(x, bias, layer)
        return self._norm(x, self._own("norm"))

    def export(self) -> dict[str, Floats]:
        """Every array by its name.

        These are the arrays of `shapes` without term_vectors, and `id_vectors` and `projection`.
        """
        return {
            name: parameter.detach().float().cpu().numpy().copy()
            for name, parameter in self.named_parameters()
        }

    def _layer(self, x: Tensor, bias: Tensor, layer: int) -> Tensor:
        batch, size, d = x.shape
        heads = self.facts.heads

        def own(name: str) -> Tensor:
            return self._own(f"layer{layer}_{name}")

        split = (
            (self._norm(x, own("norm1")) @ own("qkv"))
            .view(batch, size, 3, heads, d // heads)
            .permute(2, 0, 3, 1, 4)
        )
        queries, keys, values = split.unbind(0)
        mixed = functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=bias.to(split.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        x = x + self._drop(mixed.transpose(1, 2).reshape(batch, size, d) @ own("out"))
        hidden = functional.relu(self._norm(x, own("norm2")) @ own("up") + own("up_bias"))
        return x + self._drop(hidden @ own("down") + own("down_bias"))

    def _own(self, name: str) -> Tensor:
        return self.get_parameter(name)

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)

    @staticmethod
    def _norm(x: Tensor, gain: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), gain, EPSILON)


def _first(name: str, shape: tuple[int, ...]) -> Tensor:
    if "norm" in name:
        return torch.ones(shape)
    # a layer adds nothing at first: a user starts as the last item
    if "bias" in name or name.endswith(("_out", "_down", "older")):
        return torch.zeros(shape)
    if name.startswith("layer"):
        return torch.randn(shape) / math.sqrt(shape[0])
    return torch.randn(shape) * FIRST_SCALE
