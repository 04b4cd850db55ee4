"""Lists and shows models and the last retrain; promotes, rolls back, requests a retrain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from api.errors import ApiError, json_response, unavailable
from api.routes.routing import ADMIN_ERRORS, Operation, add, path_id
from api.schemas import models as schemas
from api.schemas.bodies import RetrainRequest
from api.schemas.document import DocumentedApp, schema
from api.service import Service
from core.contract import problems
from core.errors import LogUnavailable, ModelCorrupt, ModelMissing, StoreError
from models.listing import summaries
from models.registry import Registry
from models.router import served
from store.log import retrain_requests
from store.state import retrains
from store.state.connection import connect

_log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")


_body = msgspec.json.Decoder(RetrainRequest)
_gate = msgspec.json.Decoder(schemas.GateVerdict)


class Models:
    """The routes about models.

    A thread reads files and Redis, so that reads of recommendations go on meanwhile.
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
                "Differences between two versions",
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
                errors={**ADMIN_ERRORS, **missing, **damaged},
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
                    **ADMIN_ERRORS,
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
                summary="Request a retrain",
                body={
                    "schema": schema(RetrainRequest),
                    "example": {"reason": "new catalogue"},
                },
                status=202,
                errors={
                    **ADMIN_ERRORS,
                    400: "not JSON",
                    422: "not of this shape",
                    503: "the broker has not acknowledged it: send it again",
                },
            ),
        )

    async def list(self, _request: Request) -> Response:
        """Every published version with its metrics, newest first; and the progress of the last
        retrain.
        """
        live, versions = await self._files(
            lambda: (self._registry.current(), summaries(self._registry, self._settings.router))
        )
        try:
            last = await asyncio.to_thread(self._last_retrain)
        except StoreError as error:
            _log.warning("last_retrain_not_readable", error=str(error))
            last, degraded = None, True
        else:
            degraded = self._service.health.degraded
        recommender = self._service.live
        bundle, limits = recommender.bundle, recommender.thresholds
        return json_response(
            schemas.Models(
                live=live,
                serving=bundle.version,
                summary=served.summary(
                    served.of_manifest(bundle.manifest.metrics), self._settings.router
                ),
                router=schemas.Router(
                    mode=self._settings.router,
                    cold_start_threshold=limits.cold,
                    warm_user_threshold=limits.warm,
                    why=limits.why,
                ),
                versions=versions,
                retrain=last,
                degraded=degraded,
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
        """Every field in which the two manifests differ."""
        a, b = path_id(request, "a"), path_id(request, "b")
        differences = await self._files(lambda: self._registry.diff(a, b))
        return json_response(
            schemas.Difference(
                a=a, b=b, differences={name: list(both) for name, both in differences.items()}
            )
        )

    async def promote(self, request: Request) -> Response:
        """Every file of the version is verified first.

        Each process of the API serves it within REFRESH_S.
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
        """A training worker runs it, once for all requests made before its start.

        The body may be left out.
        """
        raw = await request.body()
        try:
            body = _body.decode(raw) if raw.strip() else RetrainRequest()
            value = retrain_requests.encode("api", body.reason)
        except (msgspec.ValidationError, ValueError) as error:
            decodable = isinstance(error, msgspec.ValidationError) or not isinstance(
                error, msgspec.DecodeError | UnicodeDecodeError
            )
            status, word = (422, "bad_field") if decodable else (400, "not_json")
            raise ApiError(
                status,
                word,
                f'the body should look like {{"reason": "new catalogue"}}: '
                f"{problems.in_words(error, raw, 'body')}",
            ) from None
        try:
            token = await self._service.publish(
                self._settings.retrain_requests_topic, retrain_requests.KEY, value
            )
        except LogUnavailable as error:
            text = f"the request was not accepted, send it again: {error}"
            raise unavailable("log_unavailable", text) from None
        return json_response(schemas.RetrainRequested(token=token), 202)

    async def _make_live(self, change: Callable[[], str]) -> Response:
        previous = await self._files(self._registry.current)
        live = await self._files(change)
        _log.info("model_promoted", version=live, previous=previous)
        try:
            await asyncio.to_thread(self._announce, live)
        except (
            StoreError
        ) as error:  # only people read model:current; processes follow the pointer file
            _log.warning("model_announcement_failed", version=live, error=str(error))
        return json_response(schemas.Promoted(live=live, was=previous))

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
        gate=_gate.decode(fields[retrains.GATE]) if retrains.GATE in fields else None,
    )
