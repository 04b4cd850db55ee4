"""Lists dead letters, shows one, and replays it, corrected or as it is.

The index of the topic is read by threads of their own at the first request; a server whose admins
never ask reads nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from api.errors import ApiError, invalid, json_response, status_of, unavailable
from api.routes.query import plain_query, whole_number
from api.routes.routing import ADMIN_ERRORS, Operation, add, path_id
from api.routes.writes import parsed
from api.schemas import dead_letters as schemas
from api.schemas.document import DocumentedApp, schema
from api.service import Service
from core.codec import encode_json
from core.deletions import IdHasher, Kind
from core.errors import BadEvent, ConfigurationError, LogUnavailable, StoreError
from store.dead_letters.corrections import Corrections
from store.dead_letters.index import LetterIndex
from store.dead_letters.letters import Coordinates, format_place, parse_place
from store.dead_letters.resend import (
    REPLAYED_FROM,
    check_accepted,
    corrected,
    ids_of,
    kind_of,
    refuse_deleted,
)
from store.log import dead_letters
from store.log.dead_letters import DeadLetter
from store.log.producer import Headers
from store.state import running
from store.state.apply import deletions
from store.state.shards import Shards

_log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")
READ_SHARE = 0.4
"""Share of the time of a request in which the index follows the topic."""
_body = msgspec.json.Decoder(schemas.Replay)


class DeadLetterRoutes:
    """The routes about dead letters. All need a key of API_ADMIN_KEYS: letters name users."""

    def __init__(self, service: Service) -> None:
        self._service, self._settings = service, service.settings
        self._index = LetterIndex(service.settings)
        self._index_lock = threading.Lock()
        self._replaying = asyncio.Lock()
        self._refresh_s = READ_SHARE * service.settings.api_timeout_s
        self._hasher = IdHasher(service.settings.deletion_salt)

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`."""
        away = {503: "Kafka or Redis does not answer"}
        missing = {404: "no such letter among the newest"}
        add(
            app,
            Operation(
                method="GET",
                path="/api/dead-letters",
                handler=self.list,
                answer=schemas.DeadLetterPage,
                tag="operations",
                summary="Messages that are no valid event, newest first",
                parameters=schemas.LIST_PARAMETERS,
                errors={**ADMIN_ERRORS, 422: "a parameter is not acceptable", **away},
            ),
        )
        add(
            app,
            Operation(
                method="GET",
                path="/api/dead-letters/{place}",
                handler=self.show,
                answer=schemas.DeadLetterAnswer,
                tag="operations",
                summary="One dead letter with its message",
                errors={**ADMIN_ERRORS, **missing, 422: "no place", **away},
            ),
        )
        add(
            app,
            Operation(
                method="POST",
                path="/api/dead-letters/{place}/replay",
                handler=self.replay,
                answer=schemas.Replayed,
                tag="operations",
                summary="Send a dead letter again, corrected or as it is",
                body={"schema": schema(schemas.Replay), "example": {"dry_run": True}},
                status=202,
                errors={
                    **ADMIN_ERRORS,
                    400: "not JSON",
                    **missing,
                    409: "it was replayed before, its user or item was deleted since, or the "
                    "log no longer has the whole message",
                    422: "the message is still no valid event",
                    **away,
                },
            ),
        )

    async def list(self, request: Request) -> Response:
        """The letters that wait, with the reason of each; `code` selects some.

        Read on with the `cursor` of each answer until it is null.
        """
        values = plain_query(request, "code", "cursor", "limit")
        limit = whole_number(values, "limit", schemas.PAGE, schemas.MAX_PAGE)
        code, before = values.get("code") or None, _parse_cursor(values.get("cursor", ""))

        def read() -> schemas.DeadLetterPage:
            with self._index_lock:
                self._index.refresh(self._refresh_s)
                page = self._index.page(limit, code, before)
                return schemas.DeadLetterPage(
                    letters=[schemas.line(entry.letter) for entry in page.entries],
                    cursor=None if page.following is None else "-".join(map(str, page.following)),
                    waiting=sum(page.codes.values()),
                    replayed=len(self._index.replayed),
                    codes=page.codes,
                    complete=self._index.complete,
                )

        return json_response(await self._read(read))

    async def show(self, request: Request) -> Response:
        """The reason, and the message as it came."""
        place = _place(request)
        letter, token = await self._letter(place)
        return json_response(
            schemas.DeadLetterAnswer(
                **msgspec.structs.asdict(schemas.line(letter)),
                truncated=letter.truncated,
                key=schemas.text(letter.key),
                message=schemas.text(letter.value),
                replayed_to=token,
            )
        )

    async def replay(self, request: Request) -> Response:
        """Check the letter again, or the message of the body in its place, and send it.

        It keeps its `event_id`, so it counts once even if it is sent twice. A letter that is older
        than the deletion of its user or item is refused.
        """
        place = _place(request)
        raw = await request.body()
        body = parsed(_body, raw) if raw.strip() else schemas.Replay()
        async with self._replaying:
            letter, token = await self._letter(place)
            if token is not None:
                raise ApiError(409, "already_replayed", f"it was replayed: it is {token}")
            edits = {} if body.message is None else {place: encode_json(body.message)}
            corrections = Corrections(edits=edits)
            key, value = await self._read(lambda: corrected(self._settings, letter, corrections))
            await self._refuse(letter, key, value)
            token = None if body.dry_run else await self._send(letter, key, value)
        answer = schemas.Replayed(
            place=format_place(place), token=token, message=schemas.text(value) or ""
        )
        return json_response(answer, 202)

    async def _letter(self, place: Coordinates) -> tuple[DeadLetter, str | None]:
        """The letter and the token of its replay. Raises ApiError."""

        def read() -> tuple[DeadLetter | None, str | None]:
            with self._index_lock:
                self._index.refresh(self._refresh_s)
                return self._index.letter(place), self._index.replayed.get(place)

        letter, token = await self._read(read)
        if letter is None:
            raise ApiError(
                404,
                "not_found",
                f"there is no dead letter {format_place(place)} among the newest; "
                "`python -m streams dlq list` shows all",
            )
        return letter, token

    async def _refuse(self, letter: DeadLetter, key: bytes, value: bytes) -> None:
        """Raises ApiError: deleted since, or not known yet because ingest is behind. Raises
        BadEvent: ingest would refuse the message again.
        """
        kind: Kind = kind_of(self._settings, letter)
        topic = self._settings.items_topic if kind == "item" else self._settings.users_topic
        ids = ids_of(letter, kind, key)
        for entity_id in ids:
            # a deletion that ingest has not applied yet would not be in Redis
            if not await _answered(self._service.applied(topic, entity_id)):
                raise _unavailable(
                    "store_unavailable",
                    f"ingest has not applied all of the topic {topic} yet, which may hold the "
                    f"deletion of this {kind}",
                )

        def check() -> None:
            with Shards(self._settings, self._settings.api_redis_timeout_s) as shards:
                deletions.require(shards, self._hasher)
                for entity_id in ids:
                    client = shards.first if kind == "item" else shards.of_user(entity_id)
                    refuse_deleted(client, self._hasher, letter, kind, [entity_id])
                check_accepted(self._settings, running.accepted(shards.first), letter, value)

        await self._read(check)

    async def _send(self, letter: DeadLetter, key: bytes, value: bytes) -> str:
        """Send the message and the note of its replay. Raises ApiError."""
        place = format_place(letter.coordinates)
        headers: Headers = [(REPLAYED_FROM, place)]
        publish = self._service.publish
        token = await _answered(publish(letter.topic, key, value, headers))

        def note_replay() -> None:
            with self._index_lock:
                self._index.note_replay(letter.coordinates, token)

        await asyncio.to_thread(note_replay)
        _log.info("dead_letter_replayed", place=place, token=token)
        note = dead_letters.encode_replay(letter, token)
        try:
            await publish(self._settings.dlq_topic, note.key, note.value, note.headers)
        except LogUnavailable as error:
            # the message has its event_id: a second replay would not count
            _log.warning("replay_note_failed", place=place, token=token, error=str(error))
        return token

    async def _read(self, work: Callable[[], _Answer]) -> _Answer:
        """Run `work` in a thread of its own. Raises ApiError."""
        if (cause := self._service.health.failure("kafka")) is not None:
            raise _unavailable("log_unavailable", cause)
        return await _answered(asyncio.to_thread(work))


async def _answered(work: Awaitable[_Answer]) -> _Answer:
    """The result of `work`. Raises ApiError in place of its errors."""
    try:
        return await work
    except BadEvent as error:
        status = 409 if error.code in ("deleted", "gone") else status_of(error.code)
        raise ApiError(status, error.code, str(error)) from None
    except LogUnavailable as error:
        raise _unavailable("log_unavailable", str(error)) from None
    except StoreError as error:
        raise _unavailable("store_unavailable", str(error)) from None
    except ConfigurationError as error:
        raise ApiError(503, "misconfigured", str(error)) from None


def _unavailable(word: str, detail: str) -> ApiError:
    return unavailable(word, f"send it again: {detail}")


def _place(request: Request) -> Coordinates:
    try:
        return parse_place(path_id(request, "place"))
    except ConfigurationError as error:
        raise invalid(str(error), "bad_place") from None


def _parse_cursor(text: str) -> tuple[int, int, int] | None:
    parts = text.split("-")
    if not text:
        return None
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise invalid(f"cursor must be one that an answer named, not {text[:100]!r}")
    time, partition, offset = (int(part[:19]) for part in parts)
    return time, partition, offset
