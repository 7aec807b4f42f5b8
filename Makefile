# Two commands do everything: `make demo` and `make test`. `make check` is the short form of the tests;
# `make docs` builds the site into build/site, strictly, from an environment of its own.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := $(VENV)/.peers
PAGE   := .venv-ui
PLACE  := -c "import sysconfig; print(sysconfig.get_path('purelib'))"
# One process a core, four at most: each takes a gigabyte.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal
PAGE_TESTS := tests/ui/test_page_in_browser.py tests/ui/test_ui_server.py
DOCS   := .venv-docs
SITE   := $(DOCS)/.ready

.PHONY: demo ui test check lint setup docs clean

demo: $(READY)
	$(BIN)/ddpm demo --out runs/demo

ui: $(PAGE)/.ready
	PYTHONPATH=src $(PAGE)/bin/python -m ddpm ui

test: lint $(PEERS) $(PAGE)/.ready
	$(PYTEST) $(addprefix --ignore=,$(PAGE_TESTS))
	PYTHONPATH=src $(PAGE)/bin/python -m pytest -rs $(PAGE_TESTS)

check: lint $(PEERS)
	$(PYTEST) -m "not slow"

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

# The page in the browser and its tests. Gradio asks for an older Pillow than constraints.txt pins, so
# that they have an environment of their own; all else is that of $(VENV), which it looks into.
$(PAGE)/.ready: $(READY) constraints-ui.txt
	test -d $(PAGE) || $(PYTHON) -m venv $(PAGE)
	$(BIN)/python $(PLACE) > "$$($(PAGE)/bin/python $(PLACE))/shared.pth"
	grep -v '^pillow==' constraints.txt | cat - constraints-ui.txt > $(PAGE)/constraints.txt
	$(PAGE)/bin/python -m pip install --quiet -c $(PAGE)/constraints.txt gradio playwright
	touch $@

docs: $(SITE)
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

# What builds the site reads the sources and imports nothing of them: no PyTorch is needed.
$(SITE): pyproject.toml constraints.txt
	test -d $(DOCS) || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet -c constraints.txt latex2mathml mkdocs mkdocs-material 'mkdocstrings[python]' ruff
	touch $@

clean:
	rm -rf $(VENV) $(PAGE) $(DOCS) build dist .pytest_cache .mypy_cache .ruff_cache
