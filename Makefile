# Each target does all its own set-up. PIP_FLAGS go to pip, for example to choose the build of torch (README.md).
PYTHON ?= python3
PIP_FLAGS ?=
DEMO_FLAGS ?=
PYTEST_FLAGS ?=

BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint kernels clean

demo: $(STAMP)
	$(BIN)/covent demo $(DEMO_FLAGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Triton, so that `make test` also runs the GPU kernels in its interpreter. A gigabyte; there is none for macOS.
kernels: $(STAMP)
	test "$$(uname)" != Linux || $(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) 'triton>=3.4'

# Installed once, and again when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_FLAGS) -e '.[train,dev]'
	touch $(STAMP)

# Keeps runs/: results are yours to delete.
clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
