# make train: installs, trains the quickstart and measures it.   make test: all checks and tests.
PYTHON ?= python3
VENV ?= .venv
# The exact versions that CI installs; `make LOCK= ...` installs the newest that requirements.txt allows.
LOCK ?= --constraint requirements-lock.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(LOCK)

.PHONY: train networks test test-fast check browser dependencies audit

train: $(VENV)/.installed
	$(BIN)/python train.py --config configs/quickstart.py --workdir runs/quickstart
	$(BIN)/python evaluate.py --method bicubic --workdir runs/quickstart --stage all --data photographs \
	    --out runs/quickstart/evaluation

# The networks in the package, trained on photographs from Debian's packages in the folder PACKAGES; resumes.
networks: $(VENV)/.installed-for-tests
	test -d data/packaged || $(BIN)/python benchmarks/packaged.py --packages $(PACKAGES)
	for name in faithful vivid; do \
	    $(BIN)/python train.py --config configs/packaged/$$name.py --workdir runs/packaged/$$name && \
	    $(BIN)/python -m decloss_jax convert runs/packaged/$$name decloss_jax/weights/$$name.safetensors \
	        --float16 --overwrite || exit; \
	done

test: check browser
	$(BIN)/python -m pytest -n 2 --dist worksteal
	$(BIN)/python -m decloss_jax compare-torch

# The quick unit tests, for daily work: equations, metrics, data, the rules of the house.
test-fast: $(VENV)/.installed-for-tests
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/ops tests/losses tests/metrics tests/data \
	    tests/host tests/training/test_optim.py tests/training/test_plan.py tests/test_architecture.py tests/test_readme.py

check: $(VENV)/.installed-for-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Tests with the lowest and with the newest versions that the requirements allow; each takes as long as `test`.
dependencies: browser
	$(PYTHON) benchmarks/trials/dependencies.py

# Known vulnerabilities of the locked and of the newest versions; fails if PyPI does not answer.
audit:
	folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && $(PYTHON) -m venv "$$folder" && \
	    "$$folder/bin/python" -m pip install --quiet --disable-pip-version-check pip-audit && \
	    "$$folder/bin/pip-audit" --strict --no-deps --disable-pip -r requirements-lock.txt && \
	    "$$folder/bin/pip-audit" --strict -r requirements.txt

# The tests of report.html drive a browser; its driver must have the same release, so both come from Debian.
browser:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	        apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null; \
	else echo "make test: install chromium and chromedriver (Debian: apt install chromium chromium-driver)" >&2; \
	    exit 1; fi

$(VENV)/.installed: requirements.txt requirements-lock.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	touch $@

$(VENV)/.installed-for-tests: $(VENV)/.installed requirements-test.txt
	$(PIP) -r requirements-test.txt
	touch $@
