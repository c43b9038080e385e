# Two commands do everything: `make course` runs the course and builds its site, `make test` proves it.
PYTHON ?= python3
BIN := .venv/bin

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 10

course: .venv/course  ## run every lesson that has changed, build the site, end with a table
	@$(BIN)/dlopt run && $(BIN)/dlopt site

test: .venv/dev course  ## run the whole test suite
	@$(BIN)/pytest -n 2 --dist loadgroup

lab: .venv/course  ## open your own copy of the lessons in JupyterLab (folder my-course)
	@$(BIN)/dlopt lab my-course

site: .venv/course  ## build the site from the lessons as they were run last, and show it
	@$(BIN)/dlopt site --serve

bench: .venv/dev  ## measure against the peers; what is in benchmarks/results is not measured again
	@$(BIN)/python -m benchmarks

clean:  ## remove what was made: results, site, caches (not .venv, not your own folder)
	rm -rf _build _site .pytest_cache .ruff_cache .hypothesis

# Each stamp is an environment that holds what its extra names, in the versions of constraints.txt.
.venv/course: EXTRA := site
.venv/dev: EXTRA := dev
.venv/course .venv/dev: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Setting up .venv ($(EXTRA)): a few minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA)]'
	@touch $@

.PHONY: help course test lab site bench clean
.NOTPARALLEL:
