# Each target does all its own set-up. PIP_FLAGS go to pip, for example to choose the build of torch (README.md).
PYTHON ?= python3
PIP_FLAGS ?=
DEMO_FLAGS ?=
PYTEST_FLAGS ?=

BIN := .venv/bin
STAMP := .venv/.installed

TRL_BIN := .venv-trl/bin
TRL_OLDEST := .venv-trl/oldest

.PHONY: demo test test-trl lint clean

demo: $(STAMP)
	$(BIN)/covent demo $(DEMO_FLAGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

# covent inside TRL, in an environment of its own: with the newest supported release, then with the oldest.
test-trl: .venv-trl/.installed
	$(TRL_BIN)/python -m pytest tests/integrations/trl $(PYTEST_FLAGS)
	PYTHONPATH=$(TRL_OLDEST) $(TRL_BIN)/python -m pytest tests/integrations/trl $(PYTEST_FLAGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Installed once, and again when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_FLAGS) -e '.[train,dev]'
	touch $(STAMP)

.venv-trl/.installed: pyproject.toml tests/integrations/trl/requirements.txt
	test -x $(TRL_BIN)/python || $(PYTHON) -m venv .venv-trl
	$(TRL_BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) \
	  -r tests/integrations/trl/requirements.txt -e ".[trl]"
	rm -rf $(TRL_OLDEST)
	$(TRL_BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) --no-deps --target $(TRL_OLDEST) trl==1.14.2
	touch $@

# Keeps runs/: results are yours to delete.
clean:
	rm -rf .venv .venv-trl .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
