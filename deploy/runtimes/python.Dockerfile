# For Python sources that bring no Dockerfile: dependencies from requirements.txt, else the project itself from
# pyproject.toml or setup.py; started by main.py, app.py, server.py or __main__.py.
# runtime: python
# versions: 3.10 3.11 3.12 3.13 3.14
# default: 3.13
FROM @REGISTRY@/python:@VERSION@-bookworm AS build
@ARGUMENTS@
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PATH=/venv/bin:$PATH
WORKDIR /app
COPY . .
# A pyproject.toml that only configures tools is no project to install.
RUN python -m venv /venv && \
    if [ -f requirements.txt ]; then \
        pip install -r requirements.txt; \
    elif [ -f setup.py ] || { [ -f pyproject.toml ] && grep -Eq '^\[(project|build-system|tool\.poetry)\]' pyproject.toml; }; then \
        pip install .; \
    fi

FROM @REGISTRY@/python:@VERSION@-slim-bookworm
@ENVIRONMENT@
ENV PYTHONUNBUFFERED=1 PATH=/venv/bin:$PATH
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build --chown=65532:65532 /app /app
USER 65532:65532
CMD ["sh", "-c", "for file in main.py app.py server.py __main__.py; do if [ -f \"$file\" ]; then exec python \"$file\"; fi; done; echo 'no main.py, app.py, server.py or __main__.py to start' >&2; exit 1"]
