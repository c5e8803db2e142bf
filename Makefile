# `make test` and `make check` set up what they need in .venv; nothing but Python 3.11+ has to be there.
# `make demo` draws three pictures with as little installed as that takes.
# `make docs` builds the site, `make package` the wheel, and draws with it where this repository is not.
# `make test PYTEST_ARGS="-k kv -x"` passes options on, `JOBS=1` runs tests in turn; `make test DIFFUSERS=0.40.0` runs against that release.
PYTHON      ?= python3
PYTEST_ARGS ?=
JOBS        ?= auto

# The two ends of the supported range, and a huggingface_hub that every release between them accepts
# (diffusers 0.40 wants <2, transformers 5.23 wants >=1.31).
DIFFUSERS_RANGE := 0.40.0 0.42.1
RANGE_HUB       := 1.33.0

ifdef DIFFUSERS
VENV := .venv-diffusers-$(DIFFUSERS)
PINS := sed -e 's/^diffusers==.*/diffusers==$(DIFFUSERS)/' -e 's/^huggingface_hub==.*/huggingface_hub==$(RANGE_HUB)/'
else
VENV := .venv
PINS := cat
endif
BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip --disable-pip-version-check --quiet
STAMP := $(VENV)/.ready
DRAWS := $(VENV)/.draws
DOCS  := $(VENV)/.docs

.PHONY: setup demo test check fmt coverage docs docs-serve docs-examples package diffusers-range release clean

setup: $(STAMP)

# torch first and alone: its exact pin keeps pip from looking for another build of it.
$(STAMP): $(DRAWS)
	@echo "adding the test tools to $(VENV)"
	@$(PIP) install -c $(VENV)/constraints.txt -e '.[dev]'
	@touch $@

# What drawing takes, without the test tools.
$(DRAWS): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("hybridstitch needs Python 3.11 or newer")'
	@echo "setting up $(VENV) (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PINS) constraints.txt > $(VENV)/constraints.txt
	@$(PIP) install --upgrade pip  # a third quicker than the one of Python 3.11
	@$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@$(PIP) install -c $(VENV)/constraints.txt -e .
	@touch $@

DEMO_OUT     ?= out/demo
DEMO_PROMPTS ?= "a big dog left of a small cat on a meadow" "a robot above a pizza at sunset" "a penguin, a rocket and a star in a row at night"

demo: $(DRAWS)
	@echo "drawing three pictures with two models, and each again with the large one alone"
	@$(BIN)/hybridstitch generate $(DEMO_PROMPTS) --compare --explain --out $(DEMO_OUT)

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_rooms.py

fmt: $(STAMP)
	$(BIN)/ruff check --fix --quiet --exit-zero .
	$(BIN)/ruff format .

coverage: $(STAMP)
	$(BIN)/python -m pytest --cov --cov-fail-under=95 $(PYTEST_ARGS)

$(DOCS): $(STAMP)
	@echo "adding what the site is built with to $(VENV)"
	@$(PIP) install -c $(VENV)/constraints.txt -e '.[docs]'
	@touch $@

# Fails on every warning: a dead link, a name that is not there.
docs: $(DOCS)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean
	@echo "open this page: site/index.html"

docs-serve: $(DOCS)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# Every console block is what its commands print now, numbers apart; without CHECK they are written down anew.
CHECK ?= --check
docs-examples: $(STAMP)
	@$(BIN)/python docs/run_examples.py $(CHECK)

# Wheel and sdist; then the wheel alone, in a fresh environment of PYTHON's and in an empty folder, draws a picture.
package: $(STAMP)
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist .
	@$(BIN)/python -m twine check --strict dist/*
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	    $(PYTHON) -m venv "$$folder/fresh" && \
	    "$$folder/fresh/bin/python" -m pip install --quiet "$$(grep '^torch==' constraints.txt)" && \
	    "$$folder/fresh/bin/python" -m pip install --quiet -c constraints.txt dist/*.whl && \
	    cd "$$folder" && "$$folder/fresh/bin/hybridstitch" doctor && \
	    "$$folder/fresh/bin/hybridstitch" generate "a big dog on a meadow" --compare

diffusers-range:
	@failed=""; for release in $(DIFFUSERS_RANGE); do \
	    echo "== diffusers $$release"; \
	    $(MAKE) --no-print-directory test DIFFUSERS=$$release || failed="$$failed $$release"; \
	done; test -z "$$failed" || { echo "failed with diffusers$$failed"; exit 1; }

# Cuts a release: the version in the package (which pyproject.toml reads) and CITATION.cff, and the changelog's heading.
# Read `git diff`, then commit and tag.
DATE ?= $(shell date +%F)
release:
	@test -n "$(VERSION)" || { echo "which one? make release VERSION=0.2.0"; exit 1; }
	@grep -q '^## Unreleased$$' CHANGELOG.md || { echo "CHANGELOG.md has no heading '## Unreleased'"; exit 1; }
	@sed -i.bak 's/^__version__ = .*/__version__ = "$(VERSION)"/' src/hybridstitch/__init__.py
	@sed -i.bak 's/^version: .*/version: $(VERSION)/' CITATION.cff
	@sed -i.bak 's/^## Unreleased$$/## $(VERSION) - $(DATE)/' CHANGELOG.md
	@rm -f src/hybridstitch/__init__.py.bak CITATION.cff.bak CHANGELOG.md.bak

clean:
	rm -rf .venv .venv-diffusers-* .pytest_cache .ruff_cache .hypothesis .coverage dist site
