# syntax=docker/dockerfile:1
# The worker's image: also `init`, `check`, `offline` and whatever else `verifier --help` lists.
# The base is pinned by tag. To pin it by digest, add @sha256:... as your registry gives it.

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock ./
# Every dependency as a wheel, checked against the hashes of the lock.
RUN pip wheel --no-cache-dir --require-hashes --no-deps --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY verifier ./verifier
COPY sql ./sql
COPY k8s/shadow-proxy ./k8s/shadow-proxy
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="shadow-verifier" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10001 verifier \
    && useradd --system --uid 10001 --gid 10001 --home-dir /nonexistent --no-create-home verifier
# With bytecode: the root is read-only later, and a start without it takes twice the CPU.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
# Alive, not ready: a worker that waits for Kafka is not to be killed for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('VERIFIER_HTTP_PORT', '8080') + '/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["verifier"]
CMD ["worker"]
