# All make .venv first: `make train` runs the embedded demo, `make test` checks and tests, `make test-slow`
# runs what takes long (kills runs four times), `make test-slurm` tests on a Slurm that it starts
# and ends, `make test-versions` tests fresh installs on every Python (docs/versions.md). `make test-release` runs
# the long form of the slow tests (20 kills, 6,000 bad files); it is run by hand before a release.
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUN_DIR ?= runs/demo
VERSIONS ?=
SLOW ?=

.PHONY: train test test-slow test-release lint clean test-slurm slurm-packages slurm-up slurm-down test-versions
.DELETE_ON_ERROR:

train: $(INSTALLED)
	$(BIN)/lightly-ssl-train method=salt preset=demo hydra.run.dir=$(RUN_DIR)

# A file's tests stay in one process, which makes its fixtures once.
test: lint
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: $(INSTALLED)
	$(BIN)/pytest -m "slow and not cluster and not release" --durations=15 $(SLOW)

test-release: $(INSTALLED)
	$(BIN)/pytest -m release

# Skipped, with what is missing, where Slurm is not installed.
test-slurm: $(INSTALLED)
	$(BIN)/pytest -m "cluster and not release" --durations=15 tests/cluster

# All rows of the table, or those in VERSIONS, such as VERSIONS="3.13 3.11-lowest".
test-versions: $(INSTALLED)
	$(BIN)/python tests/versions/matrix.py $(VERSIONS)

# As root, on Debian and Ubuntu; no service is started.
slurm-packages:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
		$$(python3 tests/cluster/slurm.py packages)

# Two nodes on this machine, to try salt launch on; prints what to export.
slurm-up:
	@python3 tests/cluster/slurm.py up

slurm-down:
	@python3 tests/cluster/slurm.py down

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# uv resolves torch and torchvision together: builds that do not match fail at import. Bytecode is written here:
# where PYTHONDONTWRITEBYTECODE is set, every command would take ten seconds more to make it anew.
$(INSTALLED): pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
