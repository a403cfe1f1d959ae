# syntax=docker/dockerfile:1
# The web process and the command line, without torch. Build from the repository's root:
#   docker build -f docker/web.Dockerfile -t patchbay-web .

FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY docker/install-web.sh docker/
COPY migrations migrations
COPY service service
RUN --mount=type=cache,target=/root/.cache/pip docker/install-web.sh /opt/patchbay

FROM python:3.11-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Patchbay web" \
      org.opencontainers.image.description="A registry for model patches: API, pages, command line" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The home holds the owner's token. It exists here so that a new volume on it takes over its owner.
RUN groupadd --system --gid 10001 patchbay \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/patchbay --no-create-home \
        --shell /usr/sbin/nologin patchbay \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/patchbay
COPY --from=build /opt/patchbay /opt/patchbay
ENV PATH="/opt/patchbay/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATCHBAY_HOME=/var/lib/patchbay \
    PATCHBAY_HOST=0.0.0.0 \
    PATCHBAY_LOG_FORMAT=json
USER 10001:10001
EXPOSE 8321
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8321/healthz', timeout=4)"]
ENTRYPOINT ["patchbay"]
CMD ["serve", "--no-worker"]
