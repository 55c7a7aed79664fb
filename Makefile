# Each target does all its own set-up. PIP_FLAGS go to pip, for example to choose the build of torch (README.md).
PYTHON ?= python3
PIP_FLAGS ?=
DEMO_FLAGS ?=
PYTEST_FLAGS ?=

BIN := .venv/bin
STAMP := .venv/.installed

TRL_BIN := .venv-trl/bin
TRL_OLDEST := .venv-trl/oldest
VERL_BIN := .venv-verl/bin
VLLM_BIN := .venv-vllm/bin

# Its paths are absolute and its packages belong to one Python: in another folder, with another Python or with other
# flags for pip, `.venv` is made anew. No flags keep what is there.
export MADE_FOR := $(CURDIR), $(shell $(PYTHON) -V 2>&1)
export PIP_FLAGS
ifneq ($(MADE_FOR),$(shell cat $(STAMP) 2>/dev/null))
$(shell rm -f $(STAMP))
endif
ifneq ($(strip $(PIP_FLAGS)),)
ifneq ($(strip $(PIP_FLAGS)),$(strip $(shell cat .venv/.pip-flags 2>/dev/null)))
$(shell rm -f $(STAMP))
endif
endif

.PHONY: demo test test-trl test-verl test-vllm test-report reliability-trl kernels lint clean

demo: $(STAMP)
	$(BIN)/covent demo $(DEMO_FLAGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

# covent inside TRL, in an environment of its own: with the newest supported release, then with the oldest.
test-trl: .venv-trl/.installed
	$(TRL_BIN)/python -m pytest tests/integrations/trl $(PYTEST_FLAGS)
	PYTHONPATH=$(TRL_OLDEST) $(TRL_BIN)/python -m pytest tests/integrations/trl $(PYTEST_FLAGS)

# Faults of docs/reliability.md given to TRL; half an hour.
reliability-trl: .venv-trl/.installed
	$(TRL_BIN)/python -m benchmarks.trl_faults

# covent inside verl, in an environment of its own; with a whole run under Ray, on two FSDP2 ranks. Without it:
# make test-verl PYTEST_FLAGS='-m "verl and not slow"'
test-verl: .venv-verl/.installed
	$(VERL_BIN)/python -m pytest -m verl tests/integrations/verl $(PYTEST_FLAGS)

# vLLM on a CPU, as our sampler and beside TRL, in an environment of its own of some 4 GB; x86_64 Linux only.
test-vllm: .venv-vllm/.installed
	VLLM_LOGGING_LEVEL=ERROR $(VLLM_BIN)/python -m pytest -m vllm tests/integrations/vllm $(PYTEST_FLAGS)

# The report in a browser. Playwright and axe-core are fetched; Chromium must be there, or the tests say how to get it.
test-report: .venv/.browser
	@command -v npm >/dev/null || { echo "make test-report needs npm, for axe-core. Install Node.js: https://nodejs.org" >&2; exit 2; }
	test -f .venv/axe/node_modules/axe-core/axe.min.js || npm install --no-audit --no-fund --prefix .venv/axe axe-core@4.14.1
	rm -rf .venv/report-demo && $(BIN)/covent demo --steps 60 --out .venv/report-demo
	COVENT_AXE=.venv/axe/node_modules/axe-core/axe.min.js COVENT_DEMO=.venv/report-demo \
	  $(BIN)/python -m pytest tests/browser -m browser $(PYTEST_FLAGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Triton, so that `make test` also runs the GPU kernels in its interpreter. A gigabyte; there is none for macOS.
kernels: $(STAMP)
	test "$$(uname)" != Linux || $(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) 'triton>=3.4'

# Installed once, and again when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "covent needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name one: make PYTHON=python3.12" >&2; exit 2; }
	test -f $@ || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_FLAGS) -e '.[train,dev]'
	@printf '%s\n' "$$PIP_FLAGS" > .venv/.pip-flags
	@printf '%s\n' "$$MADE_FOR" > $@

.venv/.browser: $(STAMP) tests/browser/requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -r tests/browser/requirements.txt
	touch $@

.venv-trl/.installed: pyproject.toml tests/integrations/trl/requirements.txt
	test -x $(TRL_BIN)/python || $(PYTHON) -m venv .venv-trl
	$(TRL_BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) \
	  -r tests/integrations/trl/requirements.txt -e ".[trl]"
	rm -rf $(TRL_OLDEST)
	$(TRL_BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) --no-deps --target $(TRL_OLDEST) trl==1.14.2
	touch $@

# verl asks for much that its trainer on CPUs does not need, and not for all that it does: requirements.txt has it.
.venv-verl/.installed: pyproject.toml tests/integrations/verl/requirements.txt
	test -x $(VERL_BIN)/python || $(PYTHON) -m venv .venv-verl
	$(VERL_BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) \
	  -r tests/integrations/verl/requirements.txt -e .
	$(VERL_BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) --no-deps verl==0.9.1
	touch $@

.venv-vllm/.installed: pyproject.toml tests/integrations/vllm/requirements.txt
	test -x $(VLLM_BIN)/python || $(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) \
	  -r tests/integrations/vllm/requirements.txt -e ".[trl]"
	$(VLLM_BIN)/python -m pip uninstall -y torchvision torchaudio torchcodec
	touch $@

# Keeps runs/: results are yours to delete.
clean:
	rm -rf .venv .venv-trl .venv-verl .venv-vllm .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
