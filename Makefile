# pgsonar's commands. `make demo` and `make test` need nothing but Python 3.11 and a C compiler: the rest is set up in
# .venv. The environment's own settings for pip and uv (index, certificates) are used as they are.

VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
NATIVE := $(wildcard native/*.c native/*.h native/*.py)
SECONDS ?= 60
# Tests wait more than they compute: three of them fill two cores.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test quick flaky parts test-backends lint bench soak healthy sanitize fuzz score scenarios storm scale wheel docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## leak connections of a PostgreSQL of its own, and watch them being found
	$(BIN)/pgsonar demo

test: $(VENV)/.test ## run all tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --durations=10

quick: $(VENV)/.test ## run what needs neither a PostgreSQL nor root nor a C compiler, in a minute
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not live and not netns and not backends" --ignore tests/native

flaky: $(VENV)/.test ## find what depends on luck: N=10 runs in random order, half of them on a busy machine (ARGS=tests/native)
	$(BIN)/python tests/flaky.py $(or $(N),10) $(SIDE_BY_SIDE) $(ARGS)

parts: ## install what tests can use, on Debian, as root
	.ci/parts

test-backends: $(VENV)/.test ## test against real backends, six minutes (SHORT=1: the Collector and VictoriaMetrics)
	$(BIN)/python tests/backends/parts.py $(if $(SHORT),collector victoriametrics)
	$(BIN)/python -m pytest -p no:randomly -m backends tests/backends \
	  $(if $(SHORT),-k "test_collector or test_victoriametrics or accepts")

lint: $(VENV)/.test ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.bench ## measure everything beside its goal, half an hour (SHORT=1: three minutes; needs root)
	$(BIN)/python -m pytest benchmarks -p no:randomly --benchmark-columns=min,median,stddev,rounds $(if $(SHORT),--short)
	$(if $(SHORT),,$(MAKE) --no-print-directory docs)

soak: $(VENV)/.bench ## an hour of sessions that come and go: the agent's memory (needs root)
	PGSONAR_CHURN_MINUTES=60 $(BIN)/python -m pytest benchmarks/test_agent.py -k churn -p no:randomly

healthy: $(VENV)/.test ## two hours of work that must not be reported: each workload ten minutes, on three majors
	PGSONAR_HEALTHY_SECONDS=600 $(BIN)/python -m pytest -p no:randomly tests/live/test_healthy.py

sanitize: $(VENV)/.test ## run the tests of what is written in C under the address and undefined behaviour sanitizers
	rm -rf build/sanitized && mkdir -p build/sanitized
	cp -r agent/pgsonar build/sanitized/pgsonar && rm -f build/sanitized/pgsonar/*.so
	PGSONAR_SANITIZE=1 $(BIN)/python setup.py -q build_ext --build-lib build/sanitized --build-temp build/sanitized-objects
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so.6)" \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONMALLOC=malloc \
	$(BIN)/python -m pytest -o pythonpath="build/sanitized tests tests/live" tests/native tests/sources

fuzz: ## fuzz the parsers of the kernel's texts and messages (SECONDS=60 each, needs clang)
	@clang=$$(command -v clang || command -v clang-14) || { echo "clang is missing: sudo apt-get install -y clang libclang-rt-14-dev" >&2; exit 1; }; \
	for parser in procnet diagmsg; do \
	  mkdir -p build/fuzz/found_$$parser && \
	  $$clang -g -O1 -std=c11 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined -Inative \
	    tests/native/fuzz_$$parser.c native/$$parser.c -o build/fuzz/$$parser && \
	  build/fuzz/$$parser -max_total_time=$(SECONDS) -max_len=4096 -print_final_stats=1 \
	    build/fuzz/found_$$parser tests/native/corpus_$$parser || exit 1; \
	done

score: $(VENV)/.test ## precision, recall and delay on plays drawn by seeds (SEED=1 N=10, 40 s each; needs root)
	$(BIN)/python tests/score/score.py --seed $(or $(SEED),1) --count $(or $(N),10)

scenarios: $(VENV)/.test ## record the scenarios anew, ten minutes (needs root)
	$(BIN)/python tests/scenarios/make.py

storm: $(VENV)/.test ## a minute of 8000 connections a second, by each source (needs root)
	PGSONAR_STORM_SECONDS=60 $(BIN)/python -m pytest -p no:randomly -s tests/storm

scale: $(VENV)/.test ## measure what agents send and gateways take, twenty minutes (writes docs/scale.md)
	$(BIN)/python tests/backends/parts.py
	PYTHONPATH=agent:tests/backends:tests/live:benchmarks $(BIN)/python benchmarks/scale.py

wheel: $(VENV)/.test ## build the wheel into dist/
	if command -v uv >/dev/null; then uv build -q --wheel --out-dir dist .; \
	else $(BIN)/python -m pip wheel -q --no-deps --wheel-dir dist .; fi

docs: $(VENV)/.test ## write anew what the README and docs/ have from the code
	PYTHONPATH=agent:tests/live:tests/scenarios:benchmarks $(BIN)/python tests/documents.py

clean: ## remove what was built, and the environment
	rm -rf $(VENV) build dist *.egg-info agent/*.egg-info agent/pgsonar/*.so

# --- the environment ---------------------------------------------------------------------------------------------

# Rebuilt when what is installed or compiled changes. An editable install, so that Python files need no rebuild.
$(VENV)/.demo: $(BIN)/python pyproject.toml setup.py $(NATIVE)
	@$(call install,demo)
	@touch $@

$(VENV)/.bench: $(BIN)/python pyproject.toml setup.py $(NATIVE)
	@$(call install,bench)
	@touch $@ $(VENV)/.test $(VENV)/.demo

$(VENV)/.test: $(BIN)/python pyproject.toml setup.py $(NATIVE)
	@$(call install,test)
	@touch $@ $(VENV)/.demo

define install
	if command -v uv >/dev/null; then uv pip install -q --python $(BIN)/python -e '.[$(1)]'; \
	else $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[$(1)]'; fi
endef

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pgsonar needs Python 3.11 or later, $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=python3.12 ..." >&2; exit 1; }
	@command -v $(CC) >/dev/null || { echo "a C compiler is missing: sudo apt-get install -y gcc" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || \
	  { echo "Python.h is missing: sudo apt-get install -y python3-dev" >&2; exit 1; }
	@if command -v uv >/dev/null; then uv venv -q --python "$$(command -v $(PYTHON))" $(VENV); \
	elif $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	elif $(PYTHON) -m virtualenv --version >/dev/null 2>&1; then $(PYTHON) -m virtualenv -q $(VENV); \
	else echo "no way to make a virtual environment: sudo apt-get install -y python3-venv" >&2; exit 1; fi
