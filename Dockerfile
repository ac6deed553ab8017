# One image for everything: `tickbird worker`, `tickbird dashboard`, and the demo's shop.
# Debian, not Alpine: some of our dependencies have wheels for glibc only.
FROM python:3.13-slim AS build

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tickbird
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY tickbird tickbird
COPY dashboard dashboard
COPY templates templates
COPY static static
RUN /opt/tickbird/bin/pip install ".[demo]"

FROM python:3.13-slim

ENV PATH=/opt/tickbird/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# The folder of the demo's files, so that a volume mounted on it belongs to the user.
RUN groupadd --gid 10001 tickbird \
    && useradd --uid 10001 --gid tickbird --no-create-home --shell /usr/sbin/nologin tickbird \
    && install --directory --owner tickbird --group tickbird /var/lib/shop
COPY --from=build /opt/tickbird /opt/tickbird
# `worker demo.tasks:app` looks for modules in the current folder, as `python -m` does.
WORKDIR /app
COPY --chmod=0755 demo demo

USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["tickbird"]
CMD ["--help"]
