# `make help` lists what there is. Everything runs in .venv, which is made and kept up to date by itself.
PY := .venv/bin/python
# What needs a program, a picture of minutes or a machine of its own: `make test-all` runs these too.
FAST := not (nginx or browser or chaos or grown or image or slow)
# Test files run side by side: servers are mostly waited for. One at a time, for a debugger: make test ARGS=-n0
JOBS := 3
ARGS :=
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help run test test-all check docs bench bench-quick bench-peers bench-cost lock setup clean
.DEFAULT_GOAL := help

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## start everything on this machine; PORT=8000, Ctrl-C ends it
	@scripts/setup.sh requirements.txt
	@exec $(PY) -m launcher --parent-pid $$PPID

test: ## the fast tests; ARGS="-k name" picks some
	@scripts/setup.sh requirements-dev.txt
	@$(PY) -m pytest -n $(JOBS) --dist loadfile -m "$(FAST)" $(ARGS)

test-all: ## every test: nginx, browser, chaos, grown parts and image too
	@scripts/setup.sh requirements-dev.txt
	@$(PY) -m pytest $(ARGS)

check: ## format, lint, types, imports, and docs that are up to date
	@scripts/setup.sh requirements-dev.txt
	$(PY) -m ruff format --check --quiet .
	$(PY) -m ruff check --quiet .
	$(PY) -m mypy service config launcher offline_model scripts wsgi.py worker.py
	lint-imports --no-logo
	$(PY) -m config | diff docs/settings.md -
	$(PY) -m config --env | diff .env.example -
	$(PY) -m scripts.errors_page | diff docs/errors.md -

docs: ## write what is generated
	@scripts/setup.sh requirements.txt
	$(PY) -m config > docs/settings.md
	$(PY) -m config --env > .env.example
	$(PY) -m scripts.errors_page > docs/errors.md

bench: bench-peers ## measure beside every peer; ARGS="--only A,B --peers slipway,fastapi"
	@scripts/setup.sh requirements-dev.txt
	@$(PY) -m benchmarks $(ARGS)

bench-quick: bench-peers ## two minutes: ratios beside those that were kept; ARGS=--keep keeps the new ones
	@scripts/setup.sh requirements-dev.txt
	@$(PY) -m benchmarks.quick $(ARGS)

bench-peers: ## install the peers, each into an environment of its own
	@benchmarks/peers/install.sh

bench-cost: ## what a day of questions costs, each saver on in turn (an hour or so); ARGS="--requests 1000"
	@scripts/setup.sh requirements-dev.txt
	@$(PY) -m benchmarks.cost $(ARGS)

lock: ## compile requirements*.in, with the newest versions (needs uv)
	uv pip compile -q --universal --upgrade --python-version 3.11 requirements.in -o requirements.txt
	uv pip compile -q --universal --upgrade --python-version 3.11 requirements-dev.in -o requirements-dev.txt

setup: ## make .venv with all that development needs
	@scripts/setup.sh requirements-dev.txt

clean: ## remove what can be made again; var/ with its data stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
