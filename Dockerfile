# The agent as an image. Index and certificate settings come from the build: PIP_* arguments, PIP_CERT naming a CA bundle
# that is mounted for the build; nothing of them stays in the final stage.

FROM debian:bookworm-slim AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY native native
COPY agent agent
RUN python3 -m venv /opt/pgsonar \
    && /opt/pgsonar/bin/pip install --no-cache-dir . "psycopg[binary]" \
    && /opt/pgsonar/bin/pip uninstall -y pip setuptools

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="pgsonar" \
      org.opencontainers.image.description="Finds PostgreSQL connections that leak or hang, and reports them over OTLP" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin pgsonar
COPY --from=build /opt/pgsonar /opt/pgsonar
ENV PATH=/opt/pgsonar/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:13133/', timeout=4)"]
ENTRYPOINT ["pgsonar"]
CMD ["run"]
