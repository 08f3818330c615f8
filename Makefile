.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Compiled modules are kept, whatever the shell says: without them every new process compiles torch and the converters
# again, and an export takes twice the CPU time.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo test fuzz kills lint format docs bench clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	# onnx2torch imports torchvision for two detection operators only; without its dependencies it needs none
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps onnx2torch==1.5.15
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/ready ## press a model of real handwritten digits, end to end (under 5 minutes)
	$(BIN)/glyphpress demo --out demo-out --force

test: .venv/ready ## the whole test suite, two files at a time
	# a process that crashes fails its test and is not started again: pytest-xdist waits for ever for the second one
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

fuzz: .venv/ready ## 1,000 damaged files for each reader (SEED=0, COUNT=1000)
	$(BIN)/python -m tests.fuzz --seed $(or $(SEED),0) --count $(or $(COUNT),1000)

lint: .venv/ready ## ruff check, ruff format --check, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready ## rewrite the sources, and the generated parts of docs, in the one form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m bench.reference docs

docs: .venv/ready ## the documentation as a site with a search, in site/
	$(BIN)/zensical build --clean --strict

bench: .venv/ready ## the numbers of README and docs, measured again (DATA=emnist:balanced)
	$(BIN)/python -m bench.recipes $(or $(DATA),emnist:balanced)
	$(BIN)/python -m bench.example $(or $(DATA),emnist:balanced)
	$(BIN)/python -m bench.pictures

kills: .venv/ready ## 200 kills of the commands that write, and what each leaves (KILLS=200)
	$(BIN)/python -m tests.kills.run --kills $(or $(KILLS),200)

clean: ## remove what was built
	rm -rf .venv build dist site .cache demo-out fuzz-failures *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
