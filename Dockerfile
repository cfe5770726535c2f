# syntax=docker/dockerfile:1
# One image for all processes: `docker build -t shardline:dev .`; the command says which of them.

FROM python:3.11.14-slim-bookworm AS build
# The version that wrote the lock (Makefile).
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
ENV UV_PROJECT_ENVIRONMENT=/opt/shardline \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy
# More than what every process needs: "--extra assembly" for assembled datasets, "--extra parquet" for Parquet files and
# exports, "--extra onnx" for an embedder.
ARG EXTRAS=""
WORKDIR /src
# Dependencies first: this layer stays while only our own code changes.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev ${EXTRAS} --no-install-project
COPY README.md LICENSE ./
COPY common common
COPY producer producer
COPY consumer consumer
COPY shardline shardline
RUN uv sync --locked --no-dev ${EXTRAS} --no-editable

FROM python:3.11.14-slim-bookworm
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Shardline" \
      org.opencontainers.image.description="Turns document stores into training data: exactly once, reproducible" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A number, so that Kubernetes can tell that it is not root.
RUN groupadd --gid 10001 shardline \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /spool --shell /usr/sbin/nologin shardline \
    && install --directory --owner=10001 --group=10001 --mode=0750 /spool /data
COPY --from=build /opt/shardline /opt/shardline
# Temporary files are plans and exports, which may be large: they go where the spool is, not into memory.
ENV PATH=/opt/shardline/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SHARDLINE_SPOOL_DIR=/spool \
    TMPDIR=/spool \
    FILES_ROOT=/data \
    SHARDLINE_METRICS_PORT=9400
USER 10001:10001
# Settings are also read from .env and shardline.toml of the working directory: nobody must be able to put them there.
WORKDIR /opt/shardline
VOLUME ["/spool"]
EXPOSE 9400 45681
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['SHARDLINE_METRICS_PORT']}/healthz\", timeout=3)"]
ENTRYPOINT ["shardline"]
CMD ["--help"]
