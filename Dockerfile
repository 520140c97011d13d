# syntax=docker/dockerfile:1
# Three images: `api` without PyTorch, `worker` with the engine, `proxy` before the API. Versions and hashes are those of
# the lock files. `docker/rehearse` does what it does, line by line, in a fresh folder of a machine without a container engine.

FROM node:24-slim AS browser
WORKDIR /srv/fadrm
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --omit=dev

FROM python:3.12-slim AS installer
COPY requirements-uv.lock /locks/
RUN pip install --no-cache-dir --require-hashes -r /locks/requirements-uv.lock
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1

FROM installer AS api-packages
COPY requirements-api.lock /locks/
RUN uv venv /opt/venv && uv pip sync --python /opt/venv --require-hashes /locks/requirements-api.lock

FROM installer AS worker-packages
COPY requirements-worker.lock /locks/
RUN uv venv /opt/venv && uv pip sync --python /opt/venv --require-hashes /locks/requirements-worker.lock

FROM python:3.12-slim AS base
RUN useradd --uid 10001 --user-group --home-dir /var/lib/fadrm --create-home --shell /usr/sbin/nologin fadrm \
    && install --directory --owner fadrm --group fadrm /var/lib/fadrm/store /data
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/srv/fadrm PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    FADRM_HOME=/var/lib/fadrm FADRM_STORE=/var/lib/fadrm/store FADRM_DATA_ROOTS=/data
WORKDIR /srv/fadrm
COPY docker/fadrm /usr/local/bin/fadrm
COPY pyproject.toml README.md ./
COPY engine engine
COPY fadrm fadrm
COPY app app
COPY worker worker

FROM base AS api
COPY --from=api-packages /opt/venv /opt/venv
COPY --from=browser /srv/fadrm/node_modules node_modules
COPY package.json package-lock.json ./
COPY migrations migrations
COPY templates templates
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["fadrm"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]

# The compiler is for the engine's own passes: engine/native.py, and Triton's way to a GPU.
FROM base AS worker
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY --from=worker-packages /opt/venv /opt/venv
USER 10001:10001
# No check from outside: a worker in the middle of a step answers nobody. It holds its work by a lease, and ends itself
# when it cannot renew it; /readyz of the API says how long ago each worker was heard.
HEALTHCHECK NONE
ENTRYPOINT ["fadrm"]
CMD ["worker"]

# Caddy, as nobody in particular. Its program may bind low ports by a capability of the file, which cannot even be
# started where all capabilities are dropped: away with it, the ports are high.
FROM caddy:2.10 AS proxy
RUN setcap -r /usr/bin/caddy && install -d -o 10001 -g 10001 /data /config
COPY docker/Caddyfile /etc/caddy/Caddyfile
USER 10001:10001
EXPOSE 8443
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["wget", "--quiet", "--spider", "http://127.0.0.1:8081"]
