"""Computes the softmax loss of Two-Tower, and draws the items that a step ranks.

    loss(h, answer) = -log softmax over candidates c of  v_c . h - log P(c is a candidate)

Up to TWO_TOWER_CANDIDATES items every item is a candidate, so P = 1 and the softmax is the full
one. Beyond, the candidates of a batch are its own items (popular, and so hard to tell from the
answer) and uniform draws; subtracting log P corrects for popular items being candidates more often
(Bengio and Senécal 2008; Yi et al. 2019, "Sampling-bias-corrected neural modeling").
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.two_tower.samples import Batch, Floats, Integers

SOFTMAX_ROWS = 128
"""Rows of scores that fit into a processor's cache, with some thousand candidates."""
LEAST_DRAWN = 4
"""At least TWO_TOWER_CANDIDATES / LEAST_DRAWN items are drawn uniformly, however many items a batch
has: rare items must be ranked too.
"""


def candidates(
    batch: Batch, share: Any, most: int, rng: np.random.Generator
) -> tuple[Integers, Floats]:
    """Rows (c,) of the items to rank, ascending, and the log (c,) f32 of their probabilities.

    A probability is that of the item to be a candidate.

    `share (n_items,)`: share of all events with each item. The batch's own items are always
    included, so there may be more than `most`.
    """
    items = len(share)
    if items <= most:
        return np.arange(items), np.zeros(items, np.float32)
    own = np.unique(np.concatenate([batch.items.ravel(), batch.answers[batch.answers >= 0]]))
    drawn = max(most - len(own), most // LEAST_DRAWN)
    rows = np.union1d(own, rng.choice(items, drawn, replace=False))
    missed = (1.0 - share[rows]) ** int(batch.sizes.sum() + len(batch.sizes)) * (
        1.0 - drawn / items
    )
    return rows, np.log(1.0 - missed).astype(np.float32)


class SoftmaxLoss(torch.autograd.Function):
    """Cross entropy of `users (n, d)` with answers `places (n,)` among `vectors (c, d)`.

    It is the sum over the users, divided by `answers`: n for the mean. `log_chance (c,)` is
    subtracted from the scores.

    Loss and gradient are computed together, SOFTMAX_ROWS users at a time: the (n, c) scores, 60 MB
    at 4,096 by 3,700, are never in memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        vectors: Tensor,
        log_chance: Tensor,
        places: Tensor,
        answers: float,
    ) -> Tensor:
        """The loss ()."""
        by_users, by_vectors = torch.empty_like(users), torch.zeros_like(vectors)
        total = users.new_zeros(())
        scores = users.new_empty(SOFTMAX_ROWS, len(vectors))
        for start in range(0, len(users), SOFTMAX_ROWS):
            some, targets = (
                users[start : start + SOFTMAX_ROWS],
                places[start : start + SOFTMAX_ROWS, None],
            )
            chunk = torch.mm(some, vectors.T, out=scores[: len(some)])
            chunk -= log_chance
            chunk -= chunk.amax(1, keepdim=True)
            total -= chunk.gather(1, targets).sum()
            sums = chunk.exp_().sum(1, keepdim=True)
            total += sums.log().sum()
            chunk /= sums
            chunk.scatter_add_(1, targets, torch.full_like(sums, -1.0))
            torch.mm(chunk, vectors, out=by_users[start : start + SOFTMAX_ROWS])
            by_vectors.addmm_(chunk.T, some)
        ctx.save_for_backward(by_users, by_vectors)
        ctx.answers = answers
        return total / answers

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Gradients of `users` and `vectors`."""
        by_users, by_vectors = ctx.saved_tensors
        scale = gradients[0] / ctx.answers
        return by_users * scale, by_vectors * scale, None, None, None
