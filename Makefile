PYTHON ?= python3
PY = .venv/bin/python
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.venv/jax_cache

.PHONY: demo test test-slow test-ray faults lint bench clean

demo: .venv/installed  ## the main job: what learns, what does not, and why
	$(PY) experiments/demo.py --workdir=runs/demo

test: .venv/installed lint  ## all fast tests
	$(PY) -m pytest

test-slow: .venv/installed  ## the tests that take minutes
	$(PY) -m pytest -m slow

faults: .venv/installed  ## the launchers under kill -9, SIGTERM, full disks and damage, at length
	$(PY) -m pytest tests/test_faults.py tests/test_runs.py -m "slow or not slow"

test-ray: .venv/ray  ## a sweep on a Ray of its own, with a worker killed
	$(PY) -m pytest tests/test_faults.py -n 0 -k ray -m "slow or not slow"

lint: .venv/installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --cache-dir .venv/mypy_cache

bench: .venv/bench  ## rnnjax beside its peers: a table, a figure and JSON in runs/benchmark
	$(PY) experiments/benchmark.py --out=runs/benchmark

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --editable '.[test]'
	touch $@

.venv/bench: .venv/installed
	$(PY) -m pip install --quiet --editable '.[test,bench]'
	touch $@

.venv/ray: .venv/installed
	$(PY) -m pip install --quiet --editable '.[test,ray]'
	touch $@

clean:  ## what `make` installed; the results in runs/ stay
	rm -rf .venv
