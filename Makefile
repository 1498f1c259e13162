PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check check-scripts check-wheel docs clean

# Train on the embedded data set, and print the path of the finished report.
demo: $(VENV)/.demo
	$(BIN)/sightline run

# The whole test suite, after the linter and the type checker.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(VENV)/.test check-scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The types of the report's scripts. Only this check needs node: without it, it is left out, but not in CI.
check-scripts:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory node_modules/.locked && node_modules/.bin/tsc; \
	elif [ -n "$$CI" ]; then echo "npm is missing, and CI checks the report's scripts with it"; exit 1; \
	else echo "npm is missing: the types of the report's scripts are not checked"; fi

node_modules/.locked: package.json package-lock.json
	npm ci --no-audit --no-fund --loglevel=error
	touch $@

# The site, with its examples run and no warning: build/site/index.html.
docs: $(VENV)/.docs
	OMP_NUM_THREADS=2 $(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site
	@echo build/site/index.html

# Wheel and source archive; the wheel in an empty environment, away from this folder, trains and writes its page.
check-wheel: $(VENV)/.test
	rm -rf dist build/wheel
	$(BIN)/python -m hatchling build
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	bin=$$PWD/build/wheel/bin; cd "$$(mktemp -d)"; \
	$$bin/python -W error -c "import sightline" && \
	$$bin/sightline run --set training.epochs=1 --set data.limit=500 --out run && test -s run/report.html
	rm -rf build/wheel

$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@ $(VENV)/.demo

clean:
	rm -rf docs/api docs/gallery docs/from_project
	rm -rf $(VENV) node_modules build dist .pytest_cache .ruff_cache
