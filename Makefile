# The two commands are `make refresh` and `make test`. Everything else serves them.
# Nothing here needs root, Docker, a JVM or an account; everything comes from the Python package index.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := .venv-peers/.ready
# which tests share what they have built and stay in one process: tests/conftest.py; each has servers of its own
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DBT_SEND_ANONYMOUS_USAGE_STATS := false
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help refresh test test-full test-security lint audit format docs bench bench-ingest bench-warehouse lock down clean

help: ## what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

refresh: $(READY) ## install, start and fill the sources, land, model, check, publish; again: only what is new
	@$(BIN)/warehouse refresh

test: lint ## everything CI runs
	$(PYTEST)

test-full: lint ## everything there is, the long tests too
	$(PYTEST) --run-slow

test-security: $(READY) profiles.yml ## the proof of the eight promises, with its figures; then without each control
	$(PYTEST) tests/security tests/unit/test_tokens.py tests/unit/test_boundary.py tests/project/test_controls.py
	$(BIN)/python -m pytest --run-slow tests/mutations/test_control_deletions.py

lint: $(READY) profiles.yml ## style, types, import directions, SQL, workflows, that every test can be imported
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive warehouse ingestion expectations benchmarks
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --baseline .secrets.baseline
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	WAREHOUSE_HOME=$(CURDIR)/.warehouse $(BIN)/sqlfluff lint --disable-progress-bar --processes 2 models tests/dbt
	@# a test file that cannot be imported fails here, not at the end of the tests
	@found=$$($(BIN)/python -m pytest --collect-only -qq) || { echo "$$found" >&2; exit 1; }

audit: $(READY) ## known vulnerabilities of what is installed: asks a service on the network
	@$(BIN)/pip-audit --require-hashes --disable-pip --requirement requirements.lock || \
		{ echo "make audit: vulnerabilities were found, or the service could not be asked (see above): not audited" >&2; exit 1; }

format: $(READY) profiles.yml ## let ruff and sqlfluff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/sqlfluff fix models tests/dbt

docs: $(READY) ## write the site: dbt docs, data docs, the last run
	@$(BIN)/warehouse site

bench: $(READY) $(PEERS) ## measure, as ratios in one run; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

bench-ingest: $(READY) $(PEERS) ## the same, landing only
	$(BIN)/python -m benchmarks ingest

bench-warehouse: $(READY) ## the same, models only
	$(BIN)/python -m benchmarks warehouse

lock: $(READY) ## resolve requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url \
		--no-header --extra servers --extra dev pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header benchmarks/peers.in -o benchmarks/peers.lock

down: ## stop the embedded servers; their data stays
	@$(BIN)/warehouse sources down

clean: ## remove what runs and tools left behind; data, keys and .venv stay
	rm -rf target logs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)*/*' -prune -exec rm -rf {} +

$(PEERS): benchmarks/peers.lock # programs to be measured beside ours, in a folder of their own
	@echo "installing the programs that benchmarks are run against (once)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --no-deps --require-hashes --requirement benchmarks/peers.lock
	@find $(@D) -name sling-linux-amd64 -type f -exec chmod u+x {} +
	@touch $@

profiles.yml: # yours once it exists: never overwritten
	@cp profiles.yml.example $@

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 refresh")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned requirements into $(VENV) (once, a minute or two)"
	@# the lock names everything there is to install: pip need not, and with hashes cannot always, resolve it again
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check --quiet
	@touch $@
