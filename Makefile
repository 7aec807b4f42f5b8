# Two commands do everything: `make demo` and `make test`. `make check` is the short form of the tests;
# `make docs` builds the site into build/site, strictly, from an environment of its own.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := $(VENV)/.peers
DOCS   := .venv-docs
SITE   := $(DOCS)/.ready

.PHONY: demo test check lint setup docs clean

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

docs: $(SITE)
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

# What builds the site reads the sources and imports nothing of them: no PyTorch is needed.
$(SITE): pyproject.toml constraints.txt
	test -d $(DOCS) || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet -c constraints.txt latex2mathml mkdocs mkdocs-material 'mkdocstrings[python]' ruff
	touch $@

clean:
	rm -rf $(VENV) $(DOCS) build dist .pytest_cache .mypy_cache .ruff_cache
