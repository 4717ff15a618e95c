# `make train` runs the embedded demo, `make test` checks and tests; both make .venv first.
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUN_DIR ?= runs/demo

.PHONY: train test lint clean
.DELETE_ON_ERROR:

train: $(INSTALLED)
	$(BIN)/lightly-ssl-train method=salt hydra.run.dir=$(RUN_DIR)

test: lint
	$(BIN)/pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# uv resolves torch and torchvision together: builds that do not match fail at import.
$(INSTALLED): pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
