"""Fits ALS by Spark MLlib, as the same model that training/als.py makes.

`implicit` and this project minimise, for confidence c and preference p = 1 of a pair of the data,

    sum over the pairs of  c (p - x_u'y_i)^2  +  sum over all others of  (x_u'y_i)^2
    + lambda (sum of |x_u|^2 + sum of |y_i|^2)                   with c = alpha * weight * discount

MLlib has c = 1 + alpha' * rating (Hu, Koren, Volinsky 2008) and, for n_u and n_i pairs of a user
and of an item, lambda' (sum of n_u |x_u|^2 + sum of n_i |y_i|^2) (ALS-WR: Zhou et al. 2008). So

    alpha' = 1,  rating = c - 1            the same confidences
    lambda' = lambda / sqrt(mean n_u * mean n_i)
    x = x' (mean n_u / mean n_i)^(1/4),  y = y' (mean n_i / mean n_u)^(1/4)

The scores x'y do not change by the last line. It puts the factors where lambda acts on both sides
alike, as a fold-in by the served model assumes; only the product of both sides' lambdas matters,
which makes the second line. What remains is that MLlib regularises users and items with many pairs
more than those with few. docs/als-training-guide.md has what that costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog

from core.use_cases import UseCases
from models.als import ALSModel, UserSide
from models.als.confidence import Confidence
from models.id_map import IdMap
from training.als import Hyperparameters
from training.data.events import Skipped
from training.spark.events import Events
from training.spark.pairs import Ids, Pairs, pairs
from training.spark.session import Cluster, cancelled_by

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = structlog.get_logger(__name__)

BLOCK_ROWS = 250_000
"""Rows that the driver collects at once: 128 MB of factors where they are 128 numbers long."""
LEAST_RATING = 1e-6
"""Rating of a confidence of at most 1: MLlib reads a rating of 0 or less as a preference of 0."""
BLOCK_PAIRS = 5_000_000
"""Pairs in a block of users or items, which a task sorts in memory: about 200 MB. More blocks send
the factors over the network more often.
"""


class TrainingEvents(NamedTuple):
    """What to fit on: the events of a source, by the weights of `use_cases`.

    `before`: only events before that time (seconds since 1970) or without one.
    """

    source: Events
    use_cases: UseCases
    before: float | None = None


class Fitted(NamedTuple):
    """The model, the number of pairs that it was fitted on, and the events that were left out."""

    model: ALSModel
    pairs: int
    skipped: Skipped


def fit(
    cluster: Cluster,
    events: TrainingEvents,
    hyperparameters: Hyperparameters,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> Fitted:
    """Fit a model on the events in Spark.

    `check`: called every second; once it raises an EddylineError, the jobs are cancelled and the
    error goes on. The driver's memory holds the ids and the factors.

    Raises DatasetError, ArchiveError, SparkFailed.
    """
    with cancelled_by(cluster.spark, check):
        accepted = events.source.accepted(cluster)
        with pairs(accepted, events.use_cases, events.before) as entries:
            model = _fit(cluster, entries, hyperparameters, seed)
    return Fitted(model, entries.count, entries.skipped)


def _fit(cluster: Cluster, entries: Pairs, hyperparameters: Hyperparameters, seed: int) -> ALSModel:
    from pyspark.ml.recommendation import ALS

    users, items = entries.users, entries.items
    item_ids, counts = _ids(items)
    confidence = Confidence()
    if hyperparameters.popularity_discount:
        confidence = Confidence(hyperparameters.popularity_discount, counts)
    mean_user, mean_item = entries.count / users.count, entries.count / items.count
    parallel = cluster.spark.sparkContext.defaultParallelism
    blocks = max(parallel, -(-entries.count // BLOCK_PAIRS))
    mllib = ALS(
        rank=hyperparameters.factors,
        maxIter=hyperparameters.iterations,
        regParam=hyperparameters.regularization / np.sqrt(mean_user * mean_item),
        implicitPrefs=True,
        alpha=1.0,
        seed=seed,
        numUserBlocks=blocks,
        numItemBlocks=blocks,
    ).fit(_ratings(entries, hyperparameters.alpha, confidence))
    scale = (mean_user / mean_item) ** 0.25
    user_factors = _factors(mllib.userFactors, users.count, hyperparameters.factors) * scale
    item_factors = _factors(mllib.itemFactors, items.count, hyperparameters.factors) / scale
    return ALSModel(
        item_ids=item_ids,
        item_factors=item_factors.astype(np.float32, copy=False),
        users=UserSide.of(_ids(users)[0], user_factors.astype(np.float32, copy=False)),
        regularization=hyperparameters.regularization,
        alpha=hyperparameters.alpha,
        confidence=confidence,
    )


def _ratings(entries: Pairs, alpha: float, confidence: Confidence) -> DataFrame:
    """user, item, rating: the confidence of each pair less 1."""
    from pyspark.sql import functions as sql

    # relative(n) = scale * n^-discount, see models/als/confidence.py
    scale = float(confidence.relative(np.ones(1, np.float32))[0])
    value = sql.lit(alpha * scale) * sql.col("weight")
    if confidence.discount:
        value = value * sql.pow("n", sql.lit(-confidence.discount))
    low = entries.frame.where(value < 1.0).count()
    if low:
        log.warning("confidences_raised", pairs=low, of=entries.count, alpha=alpha, least=1.0)
    rating = sql.greatest(value - 1.0, sql.lit(LEAST_RATING)).cast("float")
    return entries.frame.select("user", "item", rating.alias("rating"))


def _ids(ids: Ids) -> tuple[IdMap, npt.NDArray[np.float32]]:
    """The ids in the order of their rows, and (n,) f32: the pairs of each."""
    names: list[str] = []
    counts = np.empty(ids.count, np.float32)
    for first, block in _blocks(ids.frame, "row", ids.count):
        ordered = block.sort_by("row")
        names += ordered["id"].to_pylist()
        counts[first : first + len(ordered)] = ordered["n"].to_numpy()
    return IdMap(names), counts


def _factors(frame: DataFrame, rows: int, length: int) -> npt.NDArray[np.float32]:
    """(rows, length) f32 of MLlib's frame of `id` and `features`."""
    factors = np.zeros((rows, length), np.float32)
    for _, block in _blocks(frame, "id", rows):
        features = block["features"].combine_chunks()
        factors[block["id"].to_numpy()] = features.values.to_numpy().reshape(-1, length)
    return factors


def _blocks(frame: DataFrame, column: str, rows: int) -> Iterator[tuple[int, pa.Table]]:
    """Tables of the rows whose `column` lies between a multiple of BLOCK_ROWS and the next one."""
    from pyspark.sql import functions as sql

    for first in range(0, rows, BLOCK_ROWS):
        end = first + BLOCK_ROWS
        yield first, frame.where((sql.col(column) >= first) & (sql.col(column) < end)).toArrow()
