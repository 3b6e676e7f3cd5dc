# Two commands for a newcomer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread a process: the suite and the workers bring their own parallelism.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg

.PHONY: help install demo test browser quick lint format bench schema clean

help:
	@echo "make demo    set up .venv, run the main job on embedded data, leave demo/run/report.html"
	@echo "make test    the whole suite, with lint"
	@echo "make quick   the part of the suite that takes under three minutes"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make bench   benchmarks: each prints its ratio first"

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=24"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/eocausal demo --out demo

test: lint browser
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

# The report's tests use a real Chromium; root on Debian gets one, others are told.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q >/dev/null && apt-get install -y -q chromium >/dev/null; \
	  fi; } || true
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	  echo "No Chromium: the browser tests will be skipped (install the package chromium)."

quick: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow and not browser" tests/unit tests/properties

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev,bench]"
	@for name in coverage encode ingest weighting worlds zonal; do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done
	@echo "== impact_speed"; $(BIN)/python benchmarks/impact_speed.py many one season gaps

clean:
	rm -rf demo $(VENV) build dist
