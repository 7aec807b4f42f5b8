# Two commands do everything: `make demo` and `make test`. `make check` is the short form of the tests.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := $(VENV)/.peers

.PHONY: demo test check lint setup clean

demo: $(READY)
	$(BIN)/ddpm demo --out runs/demo

test: lint $(PEERS)
	$(BIN)/python -m pytest

check: lint $(PEERS)
	$(BIN)/python -m pytest -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(READY) $(PEERS)

$(READY): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# For the tests; azula declares torchvision, which nothing here needs.
$(PEERS): $(READY)
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt azula einops
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
