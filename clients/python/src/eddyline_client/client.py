"""The blocking HTTP client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from eddyline_client import calls, exchange
from eddyline_client.calls import (
    ItemOptions,
    PageOptions,
    PersonalOptions,
    PopularOptions,
    SimilarUserOptions,
    UserOptions,
    WhatIfOptions,
)
from eddyline_client.exchange import Outcome, Pause, Service, Steps
from eddyline_client.retries import RetryPolicy
from eddyline_client.types import (
    Accepted,
    EntryResults,
    Event,
    EventResults,
    Explanation,
    Item,
    ItemAnswer,
    ItemList,
    ItemPage,
    Preview,
    Recommendations,
    SimilarUsers,
    User,
    UserAnswer,
)

_Answer = TypeVar("_Answer")


class EddylineClient:
    """Calls Eddyline's HTTP API and blocks until it answers.

    Thread-safe; keep one for the life of the process.

        with EddylineClient("https://recommendations.example.com", api_key=...) as client:
            answer = client.recommend("42", use_case="developer_startup", limit=3)

    Each call is repeated with exponential back-off while the server cannot be reached or answers
    503, 429, 502 or 504 (`retries`); to repeat a call is safe. Raises a subclass of
    EddylineClientError.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        retries: RetryPolicy | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        """`base_url` may have a path prefix. `timeout_s`: seconds that one attempt may wait for a
        connection or for data.

        `http`: an own client, for TLS settings or proxies; the caller closes it.
        Raises InvalidInput.
        """
        self._service = Service(base_url, api_key, timeout_s, retries or RetryPolicy())
        self._own = http is None
        self._http = http or httpx.Client()

    def send_events(self, events: Event | Iterable[Event]) -> EventResults:
        """Publish events, in requests of at most 1,000; returns once the log has every one.

        Raises EventsRejected when some break the contract and all others were accepted;
        Unavailable, RequestRejected or InvalidInput when it stops before the end. The `results` of
        the error have the tokens of the accepted events; send the others again unchanged, a
        repeated event_id counts once.
        """
        return self._run(exchange.send_events(self._service, events))

    def recommend(self, user_id: str, **options: Unpack[PersonalOptions]) -> Recommendations:
        """Recommendations for a user; `use_case` names a configured use case.

        An unknown user gets popular items.
        """
        return self._run(exchange.perform(self._service, calls.recommend(user_id, **options)))

    def preview(self, user_id: str, **options: Unpack[WhatIfOptions]) -> Preview:
        """What a user would get beside what each engine alone would answer; stores nothing."""
        return self._run(exchange.perform(self._service, calls.preview(user_id, **options)))

    def explain(self, user_id: str, item_id: str, **options: Unpack[WhatIfOptions]) -> Explanation:
        """Why an item is shown to a user, or why not."""
        return self._run(
            exchange.perform(self._service, calls.explain(user_id, item_id, **options))
        )

    def similar_items(self, item_id: str, **options: Unpack[ItemOptions]) -> ItemList:
        """Items with interactions of the same users, or with similar content."""
        return self._run(exchange.perform(self._service, calls.similar_items(item_id, **options)))

    def similar_users(self, user_id: str, **options: Unpack[SimilarUserOptions]) -> SimilarUsers:
        """Users with similar interactions; `cause` says why there are none."""
        return self._run(exchange.perform(self._service, calls.similar_users(user_id, **options)))

    def popular(self, **options: Unpack[PopularOptions]) -> ItemList:
        """Popular items, of all time or of the last hour, day or week."""
        return self._run(exchange.perform(self._service, calls.popular(**options)))

    def user(self, user_id: str, **options: Unpack[UserOptions]) -> UserAnswer:
        """The stored state of a user."""
        return self._run(exchange.perform(self._service, calls.user(user_id, **options)))

    def item(self, item_id: str, **options: Unpack[UserOptions]) -> ItemAnswer:
        """The catalogue entry of an item. Raises NotFound."""
        return self._run(exchange.perform(self._service, calls.item(item_id, **options)))

    def items(self, **options: Unpack[PageOptions]) -> ItemPage:
        """A page of the catalogue; go on with the `cursor` of each page until it is None."""
        return self._run(exchange.perform(self._service, calls.items(**options)))

    def upsert_items(self, items: Sequence[Item]) -> EntryResults:
        """Create or replace up to 1,000 items; the results say which were accepted."""
        return self._run(exchange.perform(self._service, calls.upsert_items(items)))

    def patch_item(self, item_id: str, changes: Mapping[str, Any]) -> Accepted:
        """Change some fields of an item: None removes one, all others stay.

        `{"available": False}` hides the item. Raises NotFound.
        """
        return self._run(exchange.perform(self._service, calls.patch_item(item_id, changes)))

    def upsert_item(self, item: Item) -> Accepted:
        """Create or replace an item."""
        return self._run(exchange.perform(self._service, calls.upsert_item(item)))

    def delete_item(self, item_id: str) -> Accepted:
        """Remove an item from every answer; an unknown id is accepted, too."""
        return self._run(exchange.perform(self._service, calls.delete_item(item_id)))

    def upsert_users(self, users: Sequence[User]) -> EntryResults:
        """Create or replace what up to 1,000 users declare; the results say which were accepted."""
        return self._run(exchange.perform(self._service, calls.upsert_users(users)))

    def patch_user(self, user_id: str, changes: Mapping[str, Any]) -> Accepted:
        """Change some fields of what a user declares: None removes one, all others stay."""
        return self._run(exchange.perform(self._service, calls.patch_user(user_id, changes)))

    def upsert_user(self, user: User) -> Accepted:
        """Create or replace what a user declares."""
        return self._run(exchange.perform(self._service, calls.upsert_user(user)))

    def delete_user(self, user_id: str) -> Accepted:
        """Delete a user and all their interactions so far; an unknown id is accepted, too."""
        return self._run(exchange.perform(self._service, calls.delete_user(user_id)))

    def close(self) -> None:
        """Close the connections."""
        if self._own:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, steps: Steps[_Answer]) -> _Answer:
        """Execute the steps of a call."""
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                answer: _Answer = end.value
                return answer
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                outcome = None
                continue
            try:
                outcome = self._http.send(step)
            except httpx.HTTPError as error:
                outcome = error
