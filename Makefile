# Three commands do all their own set-up: `make run`, `make demo` and `make test`. Everything else is for whoever works here.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIR ?=
SEEDS ?= 10000
FIRST ?= 0
WORDS ?=
FUZZ_S ?= 600
RESTARTS ?= 50
FAULTS_S ?= 60
PENDING ?= 10000000
DOC ?= docs/BENCHMARKS.md
ONLY ?=
# Where the stores of benchmarks are put: a real disk, which the system's folder for temporary files may not be on.
BENCH_FOLDER ?= /var/tmp
# Tests that run at a time: a third of what they take is waiting, for time to pass or for a process to start.
JOBS ?= 5

# Tests start hundreds of processes: each would compile all sources again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run demo test check lint types unit test-long test-cluster explore simulate mutants fuzz restarts bench wheel docs api vendor screenshots clean

## Find the duplicate files of Python's standard library, or of a folder: make run DIR=~/Pictures
run: $(VENV)/.run
	$(BIN)/python examples/duplicates.py $(if $(DIR),"$(DIR)")

## A site for videos with traffic, and the console to look at it, until Ctrl-C; its data is in .demo
demo: $(VENV)/.run
	@$(BIN)/python examples/video.py

## Lint, types and tests; mypy takes one processor, so it runs beside the tests
test: lint
	@$(MAKE) --no-print-directory -j 2 types unit

## The same for while you work, without servers, other processes, and cores that are broken on purpose
check: lint types
	$(BIN)/python -m pytest -n 2 tests/core tests/test_arrows.py tests/test_contract.py -k "not Sqlite and not is_found_out"

lint: $(VENV)/.test $(VENV)/.eslint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if [ -f $(VENV)/eslint.mjs ] && command -v node > /dev/null; then node tests/console/lint.mjs $(VENV)/eslint.mjs src/solarwind/console; \
	else echo "ESLint or Node is not here: the JavaScript of the console is not linted"; fi

types: $(VENV)/.test
	$(BIN)/mypy

unit: $(VENV)/.test $(VENV)/.peers $(VENV)/.npm $(VENV)/.axe $(VENV)/.asyncapi $(VENV)/.compiled
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

## What is too long for each time: contracts that repeat others, the cases that `make test` leaves out of many, further
## faults, more examples, and a run of each benchmark with few events. Clusters under faults have a target of their own:
## what is asked of them has time limits, so it wants a machine that does nothing else.
test-long: $(VENV)/.test $(VENV)/.peers $(VENV)/.npm $(VENV)/.axe $(VENV)/.asyncapi $(VENV)/.prometheus $(VENV)/.testssl $(VENV)/.sslyze $(VENV)/.bench $(VENV)/.brokers $(VENV)/.django6
	$(BIN)/python -m pytest -m long -n $(JOBS) --dist worksteal --ignore tests/cluster/test_faults.py
	$(BIN)/python -m pytest -m "hypothesis and not long" -n $(JOBS) --hypothesis-profile long tests/core tests/store
	$(BIN)/python -m pytest -n $(JOBS) tests/on_django/test_djangos_own.py
	test ! -x $(VENV)/django6/bin/python || DJANGO_PYTHON=$(CURDIR)/$(VENV)/django6/bin/python $(BIN)/python -m pytest -n $(JOBS) tests/on_django

## Clusters of three nodes under faults of each kind, for so many seconds each: make test-cluster [FAULTS_S=60]
test-cluster: $(VENV)/.test $(VENV)/.peers
	FAULTS_S=$(FAULTS_S) PENDING=$(PENDING) $(BIN)/python -m pytest -m "long or not long" tests/cluster/test_faults.py tests/cluster/test_owners.py

## Examples that no run has tried before, for each rule that is stated for all examples
explore: $(VENV)/.test
	$(BIN)/python -m pytest -m "hypothesis and not long" -n $(JOBS) --hypothesis-profile explore tests/core tests/store

## Any number of simulated lives of the core: make simulate SEEDS=100000 [FIRST=0]
simulate: $(VENV)/.test
	$(BIN)/python -m solarwind.testing.simulator --seeds $(SEEDS) --first $(FIRST)

## Faults of one line in the core and the engine: something has to notice each: make mutants [WORDS=dispatcher]
mutants: $(VENV)/.test
	cd tests && ../$(BIN)/python -m mutants $(WORDS)

## Whatever somebody may send to a server: make fuzz [FUZZ_S=600] [FIRST=0]
fuzz: $(VENV)/.test
	cd tests && ../$(BIN)/python -m server.fuzz --seconds $(FUZZ_S) --first $(FIRST)

## A server restarted under load, by SIGTERM and by kill -9 in turn: make restarts RESTARTS=50
restarts: $(VENV)/.test
	RESTARTS=$(RESTARTS) $(BIN)/python -m pytest -m "long or not long" tests/server/test_reconnect.py

## The speed, beside peers in the same run, with tables and plots into a document: make bench [DOC=…] [ONLY="latency jobs"]
bench: $(VENV)/.bench $(VENV)/.brokers
	$(BIN)/python bench/all.py --write $(DOC) --folder $(BENCH_FOLDER) $(if $(ONLY),--only $(ONLY))

## Build the wheel and the source distribution, install each alone into empty environments, with pip and with uv on each
## Python that is here, and run the README's example from there
wheel: $(VENV)/.test
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python tests/installed.py dist build/installed

## The documents as a site, in build/docs, which needs no server and loads nothing from elsewhere; a warning is an error
docs: $(VENV)/.docs
	rm -rf build/docs
	$(BIN)/sphinx-build -W --keep-going -q -E -j 2 -d build/doctrees -c docs/site docs build/docs
	$(BIN)/python docs/site/check.py build/docs

## The list of public names and signatures, which a test compares: say first in CHANGELOG.md what changed
api: $(VENV)/.test
	$(BIN)/python docs/site/public_api.py

## The modules of others that the console has in it, by name and version, and what the lock says of them
vendor: $(VENV)/.test
	cd tests && ../$(BIN)/python -m console.vendoring

## A picture of each page of the console, light, dark and on a phone, in build/screenshots; three of them for docs/
screenshots: $(VENV)/.test $(VENV)/.peers
	cd tests && ../$(BIN)/python -m console.screenshots ../build/screenshots

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# pip copies what is not in the folder of the package.
$(VENV)/.run: $(VENV)/bin/python requirements.txt pyproject.toml src/pytest_solarwind.py
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/.test: $(VENV)/.run requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# The foreign programs that tests meet a server with, and those that benchmarks stand beside. Where they cannot be
# installed, those tests are skipped, and those peers left out.
PEERS := chromium curl gcc ip node openssl
PACKAGE_OF := s/^node$$/nodejs/; s/^ip$$/iproute2/; s/^testssl$$/testssl.sh/
$(VENV)/.peers: PROGRAMS := $(PEERS)
$(VENV)/.prometheus: PROGRAMS := prometheus
$(VENV)/.testssl: PROGRAMS := testssl
$(VENV)/.brokers: PROGRAMS := redis-server beanstalkd rabbitmq-server
$(VENV)/.peers $(VENV)/.prometheus $(VENV)/.testssl $(VENV)/.brokers: $(VENV)/bin/python Makefile
	@missing=$$(for each in $(PROGRAMS); do command -v $$each > /dev/null || echo $$each | sed '$(PACKAGE_OF)'; done); \
	if [ -n "$$missing" ]; then \
		echo "installing what some tests or benchmarks need:" $$missing; \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends $$missing) > /dev/null || \
			echo "they cannot be installed here: those tests are skipped, those benchmarks go without them"; \
	fi
	touch $@

# SSLyze, which scans the server's TLS. It needs another version of cryptography than the rest, so it is on its own.
$(VENV)/.sslyze: $(VENV)/bin/python tests/server/sslyze.txt
	@$(PYTHON) -m venv $(VENV)/sslyze && $(VENV)/sslyze/bin/pip install --quiet --disable-pip-version-check -r tests/server/sslyze.txt || \
		echo "SSLyze cannot be installed here: the test with it is skipped"
	touch $@

# The packages of npm that tests meet a server with, by name and version. Where npm cannot fetch them, those tests are
# skipped.
$(VENV)/.npm: $(VENV)/.peers tests/npm/package.json
	@mkdir -p $(VENV)/npm && cp tests/npm/package.json $(VENV)/npm && \
		npm install --prefix $(VENV)/npm --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error > /dev/null || \
		echo "the packages of npm cannot be fetched here: tests with them are skipped"
	touch $@

# axe-core, with which tests look at the console. Where npm cannot fetch it, they look without it.
$(VENV)/.axe: $(VENV)/.test src/solarwind/console/vendor/vendor.lock
	@cd tests && ../$(BIN)/python -m console.vendoring axe-core ../$(VENV)/axe.js || echo "axe-core cannot be fetched here: pages are looked at without it"
	touch $@

# ESLint, with which the modules of the console are linted: by name and version, and the hash that the lock has of it.
$(VENV)/.eslint: $(VENV)/.test src/solarwind/console/vendor/vendor.lock
	@cd tests && ../$(BIN)/python -m console.vendoring eslint-linter-browserify ../$(VENV)/eslint.mjs || \
		echo "ESLint cannot be fetched here"
	touch $@

# AsyncAPI's parser, with which documents are checked. Where npm cannot fetch it, they are not.
$(VENV)/.asyncapi: $(VENV)/.test src/solarwind/console/vendor/vendor.lock
	@cd tests && ../$(BIN)/python -m console.vendoring @asyncapi/parser ../$(VENV)/asyncapi.js || \
		echo "AsyncAPI's parser cannot be fetched here: documents are not checked with it"
	touch $@

# Compile the tests once: in a new checkout each worker would do that for itself, all at the same time. What is wrong with
# them is said by the run itself.
$(VENV)/.compiled: $(VENV)/.test
	$(BIN)/python -m pytest --collect-only -qq > $@ || true

$(VENV)/.docs: $(VENV)/.test docs/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	touch $@

# Django 6 beside, where there is a Python for it, with the tests that Django has of backends for tasks. Where they cannot
# be fetched, the tests with them are skipped.
PYTHON6 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python) $(shell command -v python3.13 python3.12))
DJANGO6 := Django==6.1.3
$(VENV)/.django6: $(VENV)/.test
	@(test -n "$(PYTHON6)" && "$(PYTHON6)" -m venv $(VENV)/django6 && \
		$(VENV)/django6/bin/pip install --quiet --disable-pip-version-check -r requirements.txt $(DJANGO6) $(shell grep -E "^(asgiref|sqlparse|uvicorn|psycopg|psycopg-binary|pytest|pytest-django)==" requirements-dev.txt) && \
		$(VENV)/django6/bin/pip install --quiet --disable-pip-version-check --no-deps -e . && \
		mkdir -p $(VENV)/django6/sdist && cd $(VENV)/django6/sdist && \
		../bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: $(DJANGO6) && \
		tar --wildcards -xzf [Dd]jango-*.tar.gz '*/tests/tasks/*') || \
		{ rm -rf $(VENV)/django6; echo "Django 6 cannot be installed here: it is left out"; }
	touch $@

$(VENV)/.bench: $(VENV)/.test bench/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	touch $@
