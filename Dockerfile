# syntax=docker/dockerfile:1
# Two images of one source. `serve`: the API, ingest and archive; no compiler, no torch. `train`: the same and what the trainer needs.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS packages-serve
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
COPY requirements/serve.txt requirements/streams.txt requirements/database.txt /requirements/
RUN /venv/bin/pip install --only-binary :all: -r /requirements/serve.txt -r /requirements/streams.txt -r /requirements/database.txt

FROM packages-serve AS packages-train
COPY requirements/train.txt /requirements/
RUN /venv/bin/pip install --only-binary :all: -r /requirements/train.txt

FROM python:${PYTHON} AS base
# implicit's wheel expects libgomp from the system.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 eddyline && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent eddyline \
  && install --directory --owner 10001 --group 10001 /data /data/archive /data/models
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
  ARCHIVE_URL=/data/archive MODELS_PATH=/data/models
WORKDIR /app
COPY core core
COPY models models
COPY store store
COPY engines engines
USER 10001:10001

FROM base AS train
COPY --from=packages-train /venv /venv
COPY training training
CMD ["python", "-m", "training", "--help"]

FROM base AS serve
COPY --from=packages-serve /venv /venv
COPY streams streams
COPY api api
EXPOSE 8000
CMD ["python", "-m", "api"]
