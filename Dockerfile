# A worker. `docker build -t streamq .`, then `docker run -e STREAMQ_REDIS_URL=… -e STREAMQ_RELAY=… streamq`.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY streamq ./streamq
RUN python -m venv /opt/streamq && /opt/streamq/bin/pip install --no-cache-dir ".[web]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/streamq /opt/streamq
ENV PATH=/opt/streamq/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin streamq
USER streamq
# SIGTERM: what is in SMTP ends, the rest is handed back. Give it more time than STREAMQ_GRACE (30 s).
STOPSIGNAL SIGTERM
# Redis answers and knows this queue; the worker itself ends, and is started again, where it cannot go on.
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s CMD ["streamq", "status", "--json"]
ENTRYPOINT ["streamq"]
CMD ["worker"]
