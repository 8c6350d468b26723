# Every target first makes .venv when it is missing or older than the package metadata.
#   make convert SUBSET=demo|coco|...|all [OUT=DIR] [WORKERS=N] [MODELS=DIR] [LIMIT=N] [ARGS='--overwrite ...']
#   make test [ARGS='-k shards'] | make lint | make docs | make bench | make clean
#   make soak [ARGS='--rows 10000 --kills 5', or --replayed]: hours on a slow machine; figures in build/soak
PYTHON = python3
SUBSET = demo
OUT = $(if $(filter all,$(SUBSET)),shards,shards/$(SUBSET))
WORKERS =
MODELS =
LIMIT =
ARGS =

# Python keeps what it has compiled, also where the environment forbids it: `make test` alone starts dozens of processes,
# and each would compile thousands of files again.
export PYTHONDONTWRITEBYTECODE =

VENV = .venv
STAMP = $(VENV)/.installed

.PHONY: convert test lint style docs bench soak clean

convert: $(STAMP)
	$(VENV)/bin/skelfit convert --manifest $(SUBSET) --out $(OUT) \
	    $(if $(WORKERS),--workers $(WORKERS)) $(if $(MODELS),--models $(MODELS)) $(if $(LIMIT),--limit $(LIMIT)) $(ARGS)

# All of them take a process per core, up to four; some run in one process, as ARGS says.
test: $(STAMP)
	$(VENV)/bin/python -m pytest $(or $(ARGS),-n logical --maxprocesses 4 --dist loadscope)

lint: style
	$(VENV)/bin/mypy

style: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# The site is build/site; open its index.html. Warnings are errors.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict $(ARGS)

bench: $(STAMP)
	$(VENV)/bin/skelfit bench $(ARGS)

soak: $(STAMP)
	$(VENV)/bin/python -m pytest -m soak
	$(VENV)/bin/python -m tools.soak $(ARGS)

# Leaves the results in shards/, models/ and data/ alone.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find skelfit tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so an installation that was cut short is repeated. Python compiles what it imports, at the
# first import: far less than all that is installed.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[train,loaders,hub,test,lint,docs]'
	touch $(STAMP)
