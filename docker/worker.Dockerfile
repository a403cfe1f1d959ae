# syntax=docker/dockerfile:1
# A worker, with torch for the CPU or for CUDA. Build from the repository's root:
#   docker build -f docker/worker.Dockerfile -t patchbay-worker .
#   docker build -f docker/worker.Dockerfile -t patchbay-worker:cuda --build-arg DEVICE=cuda .

FROM python:3.11-slim AS build
ARG DEVICE=cpu
# PyPI has one build of torch for Linux, that with CUDA; PyTorch's own index has the CPU's. Its
# address stands on PyTorch's page "Get started": --build-arg TORCH_CPU_INDEX=…
ARG TORCH_CPU_INDEX=
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY docker/install-worker.sh docker/
COPY migrations migrations
COPY service service
RUN --mount=type=cache,target=/root/.cache/pip docker/install-worker.sh /opt/patchbay "${DEVICE}"

FROM python:3.11-slim
ARG DEVICE=cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Patchbay worker (${DEVICE})" \
      org.opencontainers.image.description="Carries out extractions and builds for a Patchbay" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The home is where files under way lie, as large as the models. It exists here so that a new
# volume on it takes over its owner.
RUN groupadd --system --gid 10001 patchbay \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/patchbay --no-create-home \
        --shell /usr/sbin/nologin patchbay \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/patchbay
COPY --from=build /opt/patchbay /opt/patchbay
COPY docker/check_worker.py /opt/patchbay/check_worker.py
# NVIDIA's container runtime hands in the driver; without a GPU its variable means nothing.
ENV PATH="/opt/patchbay/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/var/lib/patchbay \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PATCHBAY_LOG_FORMAT=json
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 \
    CMD ["python", "/opt/patchbay/check_worker.py"]
ENTRYPOINT ["patchbay"]
CMD ["worker"]
