# Every target does its own set-up: Python packages into .venv, everything else into .local. Nothing is installed on the
# machine. PYTHON names another Python (3.11 or newer) to build .venv with.

PYTHON ?= python3
PY := .venv/bin/python
SOURCES := kanikojobs project deploy tests manage.py

# The tests start Python a hundred times, and each start would compile the same files again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster bench screenshots image lint format clean

help:  ## What there is
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: .venv/ready  ## The whole system with sample events, until Ctrl-C. DEMO_ONCE=1: check the result and end
	@exec $(PY) -m deploy.local.demo

test: .venv/ready  ## The tests, against real PostgreSQL and RabbitMQ. ARGS="tests/test_x.py -k name": some of them
	@exec $(PY) -m pytest $(or $(ARGS),-n 4 --dist worksteal)

test-cluster: .venv/ready  ## The tests that talk to Kubernetes, against the current context, after asking
	@context=$$($(PY) -m deploy.local.cluster) && \
	KANIKOJOBS_CLUSTER=kubeconfig KANIKOJOBS_CLUSTER_CONFIRM="$$context" $(PY) -m pytest -m cluster $(ARGS)

bench: .venv/ready  ## What it can do on this machine. CASE=name: one of the measurements
	@exec $(PY) -m tests.bench $(CASE)

screenshots: .venv/ready  ## The README's pictures, taken anew of a seeded system
	@exec $(PY) -m tests.house.pictures

image:  ## The container image, with docker or podman. IMAGE=name:tag, TRACES=1 with OpenTelemetry
	@builder=$$(command -v docker || command -v podman) || { echo "make image needs docker or podman." >&2; exit 2; }; \
	exec $$builder build -f deploy/Dockerfile $(if $(TRACES),--build-arg TRACES=1) -t "$(or $(IMAGE),kanikojobs:laptop)" .

lint: .venv/ready  ## ruff (rules and format) and mypy
	$(PY) -m ruff check $(SOURCES)
	$(PY) -m ruff format --check $(SOURCES)
	@# mypy's Django plugin reads the settings; it connects to nothing.
	DJANGO_DEBUG=1 DATABASE_URL=postgres://localhost/none $(PY) -m mypy $(SOURCES)

format: .venv/ready  ## Put the code into the format that lint asks for
	$(PY) -m ruff check --fix $(SOURCES)
	$(PY) -m ruff format $(SOURCES)

clean:  ## Remove what the other targets have made
	@sh deploy/local/clean.sh

.venv/ready: requirements.txt requirements-dev.txt deploy/requirements-traces.txt deploy/local/venv.sh
	@sh deploy/local/venv.sh "$(PYTHON)"
