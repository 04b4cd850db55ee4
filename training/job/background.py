"""Prepares the parts of the evaluation that need no new model.

It runs on another core while ALS is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import DatasetError
from core.types import Item
from models.content import ContentModel
from models.popular import PopularModel
from training.blend import choice
from training.data.dataset import Dataset, Interactions, Split
from training.data.popularity import popular
from training.evaluation import population
from training.evaluation.evaluate import Inputs
from training.evaluation.population import JudgedUsers, Sample
from training.job import gate
from training.job.context import Context


@dataclass(frozen=True)
class Comparison:
    """The inputs of evaluation, gate and publication.

    `interactions`: of all events. `judged`: the users to evaluate with; None
    for the reason in `unjudged`. `inputs`: of the evaluations, None without a split. `live`: how
    the live bundle answers them.
    """

    content: ContentModel
    popular_at_cut: PopularModel
    popular_now: PopularModel
    interactions: Interactions
    judged: JudgedUsers | None
    unjudged: str
    inputs: Inputs | None
    live: gate.Live


def prepare_comparison(
    context: Context, data: Dataset, split: Split | None, unsplit: str, entries: Sequence[Item]
) -> Comparison:
    """Fit content, count popularity, draw the judged users, and evaluate the live bundle with them.

    Takes some seconds.
    """
    settings = context.settings
    popular_now, content = popular(data, settings), ContentModel.fit(entries)
    popular_at_cut = popular_now if split is None else popular(data, settings, split.train)
    judged, unjudged, inputs = None, unsplit, None
    if split is not None:
        inputs = Inputs(entries, popular_at_cut.scores, data, split, settings)
        try:
            sample = Sample(context.options.users, context.seed, choice.reserve(settings))
            judged = population.draw(data, split, content, settings, sample)
        except DatasetError as error:
            unjudged = str(error)
    live = gate.ask_live(context.registry, inputs, judged, context.run.check)
    return Comparison(
        content, popular_at_cut, popular_now, data.interactions(), judged, unjudged, inputs, live
    )
