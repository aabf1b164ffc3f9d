# make run    set up, and run the digits pipeline to a pushed student
# make test   set up, and run every test
# make soak   what takes longer than the suite may, with the campaign of faults of docs/reliability.md
# make lint   format check, lint and types
# make lock   write the hashed locks anew from pyproject.toml and requirements/docs.in
# make docs   build the documentation into site/, links checked

PYTHON ?=
BIN := .venv/bin
MYPY_OPTIONS := --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache

.PHONY: run test soak lint format lock docs clean

run: .venv/installed
	$(BIN)/python data/prepare.py digits
	$(BIN)/stillhouse run pipelines/examples/digits.yaml

test: .venv/installed
	$(BIN)/python data/prepare.py
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations 25

soak: .venv/installed
	$(BIN)/python data/prepare.py
	rm -f build/reliability.jsonl
	$(BIN)/python -m pytest -m soak

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@messages=$$(requirements/as-installed $(CURDIR)/$(BIN)/mypy $(MYPY_OPTIONS) -p stillhouse); status=$$?; \
	  echo "$$messages" | sed -E 's#^stillhouse/(pipelines|components|modules)/#\1/#'; exit $$status

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:
	PYTHON="$(PYTHON)" requirements/lock

docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 requirements/as-installed $(CURDIR)/.venv-docs/bin/mkdocs build --strict --config-file $(CURDIR)/mkdocs.yml

.venv-docs/installed: requirements/docs.txt requirements/pip.txt
	python=$$(PYTHON="$(PYTHON)" requirements/find-python) && "$$python" -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --require-hashes -r requirements/pip.txt
	.venv-docs/bin/python -m pip install --quiet --require-hashes -r requirements/docs.txt
	touch $@

# Old pips do not know a locked package[extra] for the package itself, so the pip is locked too.
.venv/installed: requirements/tfx-1.16.txt requirements/pip.txt pyproject.toml setup.py
	python=$$(PYTHON="$(PYTHON)" requirements/find-python) && "$$python" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/pip.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/tfx-1.16.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf .venv .venv-docs runs serving build site *.egg-info
