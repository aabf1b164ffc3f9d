# make run    set up (requirements/choose says for which TFX and Python), and run the packages pipeline to a pushed student
# make test   set up, and run every test
# make soak   what takes longer than the suite may, with the campaign of faults of docs/reliability.md
# make lint   format check, lint and types
# make lock   write the hashed locks anew from pyproject.toml and requirements/docs.in
# make docs   build the documentation into site/, links checked

export PYTHON
BIN := .venv/bin
MYPY_OPTIONS := --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache

.PHONY: set-up run test soak lint format lock docs clean

set-up:
	@requirements/set-up

run: set-up
	$(BIN)/python data/prepare.py packages
	$(BIN)/stillhouse run pipelines/examples/packages.yaml

test: set-up
	$(BIN)/python data/prepare.py
	$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder --durations 25

soak: set-up
	$(BIN)/python data/prepare.py
	rm -f build/reliability.jsonl
	$(BIN)/python -m pytest -m soak

lint: set-up
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@messages=$$(requirements/as-installed $(CURDIR)/$(BIN)/mypy $(MYPY_OPTIONS) -p stillhouse); status=$$?; \
	  echo "$$messages" | sed -E 's#^stillhouse/(pipelines|components|modules)/#\1/#'; exit $$status

format: set-up
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:
	requirements/lock

docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 requirements/as-installed $(CURDIR)/.venv-docs/bin/mkdocs build --strict --config-file $(CURDIR)/mkdocs.yml

.venv-docs/installed: requirements/docs.txt requirements/pip.txt
	choice=$$(requirements/choose) && "$${choice#* }" -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --require-hashes -r requirements/pip.txt
	.venv-docs/bin/python -m pip install --quiet --require-hashes -r requirements/docs.txt
	touch $@

clean:
	rm -rf .venv .venv-docs runs serving build site *.egg-info
