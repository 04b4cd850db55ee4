"""Models: which versions there are, which is live, how the last retrain went; promote, roll back,
ask for a retrain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from api.errors import ApiError, json_response
from api.routes.routing import Operation, add, path_id
from api.schemas import models as schemas
from api.schemas.bodies import RetrainRequest
from api.schemas.document import DocumentedApp, schema
from api.service import Service
from core.errors import LogUnavailable, ModelCorrupt, ModelMissing, StoreError
from models.listing import summaries
from models.registry import Registry
from store.log import retrain_requests
from store.state import retrains
from store.state.connection import connect

_log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")
_ADMIN = {
    401: "no key, or a wrong one",
    403: "the key may not do this, or this server has no API_ADMIN_KEYS",
}


_body = msgspec.json.Decoder(RetrainRequest)


class Models:
    """The routes about models.

    Files and Redis are asked in a thread: reads of recommendations go on meanwhile.
    """

    def __init__(self, service: Service) -> None:
        self._service, self._settings = service, service.settings
        self._registry = Registry(service.settings.models_path)

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`."""
        missing = {404: "no such version"}
        add(
            app,
            Operation(
                method="GET",
                path="/api/models",
                handler=self.list,
                answer=schemas.Models,
                tag="models",
                summary="Versions, and the last retrain",
            ),
        )
        for path, handler, model, summary in (
            ("/api/models/{version}", self.show, schemas.Model, "One version's manifest"),
            (
                "/api/models/{a}/diff/{b}",
                self.diff,
                schemas.Difference,
                "What two versions say differently",
            ),
        ):
            add(
                app,
                Operation(
                    method="GET",
                    path=path,
                    handler=handler,
                    answer=model,
                    tag="models",
                    summary=summary,
                    errors=missing,
                ),
            )
        damaged = {409: "a file of it is damaged", 503: "the models folder cannot be written"}
        add(
            app,
            Operation(
                method="POST",
                path="/api/models/{version}/promote",
                handler=self.promote,
                answer=schemas.Promoted,
                tag="models",
                summary="Make a version live",
                errors={**_ADMIN, **missing, **damaged},
            ),
        )
        add(
            app,
            Operation(
                method="POST",
                path="/api/models/rollback",
                handler=self.rollback,
                answer=schemas.Promoted,
                tag="models",
                summary="Make the version before live again",
                errors={
                    **_ADMIN,
                    **damaged,
                    409: "no version was live before, or a file of it is damaged",
                },
            ),
        )
        add(
            app,
            Operation(
                method="POST",
                path="/api/models/retrain",
                handler=self.retrain,
                answer=schemas.RetrainRequested,
                tag="models",
                summary="Ask for a retrain",
                body={
                    "schema": schema(RetrainRequest),
                    "example": {"reason": "new catalogue"},
                },
                status=202,
                errors={
                    **_ADMIN,
                    400: "not JSON",
                    422: "not of this shape",
                    503: "the broker did not take it: send it again",
                },
            ),
        )

    async def list(self, _request: Request) -> Response:
        """Every published version, newest first, with what it was judged to be; and how far the
        last retrain is.
        """
        live, versions = await self._files(
            lambda: (self._registry.current(), summaries(self._registry))
        )
        try:
            last = await asyncio.to_thread(self._last_retrain)
        except StoreError as error:
            _log.warning("the last retrain cannot be read", cause=str(error))
            last, degraded = None, True
        else:
            degraded = self._service.health.degraded
        serving = self._service.live.bundle.version
        return json_response(
            schemas.Models(
                live=live, serving=serving, versions=versions, retrain=last, degraded=degraded
            )
        )

    async def show(self, request: Request) -> Response:
        """The manifest: settings, seeds, positions of the snapshot, metrics, the gate's verdict,
        sha256 of each file.
        """
        version = path_id(request, "version")
        manifest, live = await self._files(
            lambda: (self._registry.manifest(version), self._registry.current())
        )
        return json_response(
            schemas.Model(
                version=version, live=version == live, manifest=msgspec.to_builtins(manifest)
            )
        )

    async def diff(self, request: Request) -> Response:
        """Every field of the two manifests that is not the same in both."""
        a, b = path_id(request, "a"), path_id(request, "b")
        differences = await self._files(lambda: self._registry.diff(a, b))
        return json_response(
            schemas.Difference(
                a=a, b=b, differences={name: list(both) for name, both in differences.items()}
            )
        )

    async def promote(self, request: Request) -> Response:
        """Every file of the version is verified first.

        Each process of the API serves it within REFRESH_S, as one swap.
        """
        version = path_id(request, "version")

        def promote() -> str:
            self._registry.promote(version)
            return version

        return await self._make_live(promote)

    async def rollback(self, _request: Request) -> Response:
        """The version that was live before this one is live again; its files are verified first."""
        try:
            return await self._make_live(self._registry.rollback)
        except ApiError as error:
            if error.status == 404:
                raise ApiError(409, "no_version_before", error.detail) from None
            raise

    async def retrain(self, request: Request) -> Response:
        """A training worker takes it; requests made before a retrain begins are answered by that
        one. The body may be left out.
        """
        raw = await request.body()
        try:
            body = _body.decode(raw) if raw.strip() else RetrainRequest()
            value = retrain_requests.encode("api", body.reason)
        except (msgspec.ValidationError, ValueError) as error:
            known = isinstance(error, msgspec.ValidationError) or not isinstance(
                error, msgspec.DecodeError | UnicodeDecodeError
            )
            status, word = (422, "bad_field") if known else (400, "not_json")
            raise ApiError(
                status, word, f'the body should look like {{"reason": "new catalogue"}}: {error}'
            ) from None
        try:
            token = await self._service.publish(
                self._settings.retrain_requests_topic, retrain_requests.KEY, value
            )
        except LogUnavailable as error:
            text = f"the request was not accepted, send it again: {error}"
            raise ApiError(503, "log_unavailable", text, {"retry-after": "1"}) from None
        return json_response(schemas.RetrainRequested(token=token), 202)

    async def _make_live(self, change: Callable[[], str]) -> Response:
        was = await self._files(self._registry.current)
        live = await self._files(change)
        _log.info("promoted", version=live, was=was)
        try:
            await asyncio.to_thread(self._announce, live)
        except StoreError as error:  # a note for people; the pointer file is what processes follow
            _log.warning("model:current in Redis still names the version before", error=str(error))
        return json_response(schemas.Promoted(live=live, was=was))

    async def _files(self, call: Callable[[], _Answer]) -> _Answer:
        try:
            return await asyncio.to_thread(call)
        except ModelMissing as error:
            raise ApiError(404, "no_such_version", str(error)) from None
        except ModelCorrupt as error:
            raise ApiError(409, "model_corrupt", str(error)) from None
        except OSError as error:
            text = (
                f"{self._settings.models_path} cannot be read or written by the API: "
                f"{error.strerror}"
            )
            raise ApiError(503, "models_unavailable", text) from None

    def _announce(self, version: str) -> None:
        with connect(self._settings, self._settings.api_redis_timeout_s) as client:
            retrains.announce(client, version)

    def _last_retrain(self) -> schemas.Retrain | None:
        with connect(self._settings, self._settings.api_redis_timeout_s) as client:
            fields = retrains.last(client)
        return _retrain(fields) if fields else None


def _retrain(fields: Mapping[str, str]) -> schemas.Retrain:
    return schemas.Retrain(
        status=fields.get("status", ""),
        step=fields.get("step", ""),
        progress=fields.get("progress") or None,
        started=fields.get("started", ""),
        at=fields.get("at", ""),
        seconds=float(fields.get("seconds", 0.0)),
        holder=fields.get("holder", ""),
        requested_by=fields.get("requested_by") or None,
        reason=fields.get("reason") or None,
        request=fields.get("request") or None,
        version=fields.get("version") or None,
        error=fields.get("error") or None,
    )
