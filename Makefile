# make train: the quickstart, from nothing to a table.   make test: the proof.   A second call installs nothing.
PYTHON ?= python3
VENV ?= .venv
# The exact versions that CI installs; `make LOCK= ...` takes the newest that requirements.txt admits.
LOCK ?= --constraint requirements-lock.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(LOCK)

.PHONY: train test check

train: $(VENV)/.installed
	$(BIN)/python train.py --config configs/quickstart.py --workdir runs/quickstart
	$(BIN)/python evaluate.py --method bicubic --workdir runs/quickstart --stage all --data photographs \
	    --out runs/quickstart/evaluation

test: check
	$(BIN)/python -m pytest -n 2
	$(BIN)/python -m decloss_jax compare-torch

check: $(VENV)/.installed-for-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.installed: requirements.txt requirements-lock.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	touch $@

$(VENV)/.installed-for-tests: $(VENV)/.installed requirements-test.txt
	$(PIP) -r requirements-test.txt
	touch $@
