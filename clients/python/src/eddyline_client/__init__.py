"""Client of Eddyline, the streaming recommender.

- `EventProducer`: publishes events, items and users to Kafka (needs the extra `kafka`);
- `EddylineClient`, `AsyncEddylineClient`: the HTTP API, events included.

types.py has the types of requests and answers, errors.py the errors.
"""

from eddyline_client.async_client import AsyncEddylineClient
from eddyline_client.client import EddylineClient
from eddyline_client.errors import (
    DeliveryFailed,
    EddylineClientError,
    EventsRejected,
    FailedDelivery,
    InvalidInput,
    MissingDependency,
    NotFound,
    RequestRejected,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from eddyline_client.producer import EventProducer
from eddyline_client.retries import RetryPolicy
from eddyline_client.types import (
    Accepted,
    EngineAnswer,
    EngineView,
    EntryResult,
    EntryResults,
    Event,
    EventResult,
    EventResults,
    Explanation,
    Fallback,
    HistoryEvent,
    Item,
    ItemAnswer,
    ItemList,
    ItemPage,
    Preview,
    Reason,
    Recommendation,
    Recommendations,
    SimilarUser,
    SimilarUsers,
    User,
    UserAnswer,
)
from eddyline_client.version import __version__

__all__ = [
    "Accepted",
    "AsyncEddylineClient",
    "DeliveryFailed",
    "EddylineClient",
    "EddylineClientError",
    "EngineAnswer",
    "EngineView",
    "EntryResult",
    "EntryResults",
    "Event",
    "EventProducer",
    "EventResult",
    "EventResults",
    "EventsRejected",
    "Explanation",
    "FailedDelivery",
    "Fallback",
    "HistoryEvent",
    "InvalidInput",
    "Item",
    "ItemAnswer",
    "ItemList",
    "ItemPage",
    "MissingDependency",
    "NotFound",
    "Preview",
    "Reason",
    "Recommendation",
    "Recommendations",
    "RequestRejected",
    "RetryPolicy",
    "SimilarUser",
    "SimilarUsers",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "User",
    "UserAnswer",
    "__version__",
]
