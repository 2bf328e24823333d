# Two commands for users, `make run` and `make test`; `make help` lists all. Works with GNU make 3.81, as macOS has it.

PYTHON ?= python3
VENV = .venv/bin/python
TRAINING = .venv-training/bin/python
# The locks name everything, so nothing is left to resolve. pip 23 would look at newer releases for a requirement with an
# extra, and stop at one that the lock has no hash of.
PIP = -m pip --disable-pip-version-check install -q --no-deps --require-hashes -r
# Locks name packages and hashes, never an index: that is each machine's own choice.
LOCK = uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate pyproject.toml

.PHONY: help run dev test test-training check chaos chaos-short containers lock docs docs-site bench clean
.DEFAULT_GOAL := help

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

run: .venv/.local ## start everything on http://127.0.0.1:8000 (DERMQ_PORT=8001 make run: on another port); Ctrl-C stops it
	@exec $(VENV) -m embedded

dev: .venv/.dev ## make run for who changes the code: programs start again when their code changes; a demo batch
	@exec $(VENV) -m embedded --reload

test: .venv/.dev ## all tests but those of training; needs no service and no TensorFlow
	$(VENV) -m pytest tests --ignore=tests/training --ignore=tests/chaos --ignore=tests/bench -n 2 --cov --cov-report=
	@echo "Covered, lines and branches together: $$($(VENV) -m coverage report --format=total) %"

test-training: .venv-training/.training ## install TensorFlow beside and test training/ and the Keras engine
	$(TRAINING) -m pytest tests/training

check: .venv/.dev ## format, lint, types, imports and unit tests, in under a minute
	$(VENV) -m ruff format --check
	$(VENV) -m ruff check
	$(VENV) -m mypy
	$(VENV) .venv/bin/lint-imports --no-logo
	$(VENV) -m pytest -q tests/unit tests/test_project.py

chaos: .venv/.dev ## do everything to a whole system that can be done to it; a row a fault; about 25 minutes
	$(VENV) -m tests.chaos

chaos-short: .venv/.dev ## a part of make chaos, for CI
	$(VENV) -m tests.chaos --short

containers: .venv/.dev ## build the images and run the compose file; needs root, podman, Debian (CONTAINERS=--gpu: its image too)
	$(VENV) -m tests.containers $(CONTAINERS)

bench: .venv/.dev ## images per second, end to end and of the engine alone (BENCH="--images 10015": all)
	$(VENV) -m tests.bench $(BENCH)

docs: .venv/.dev ## write docs/settings.md from dermq/settings.py
	$(VENV) -m docs.settings_page

docs-site: docs ## build the documents as a site in site/, to be opened or served as files
	$(VENV) -m docs.site site

lock: ## lock every dependency group anew; needs uv, and no other command does
	$(LOCK) --group dev -o requirements/dev.txt
	$(LOCK) --group web -c requirements/dev.txt -o requirements/web.txt
	$(LOCK) --group cpu -c requirements/dev.txt -o requirements/cpu.txt
	$(LOCK) --group gpu -c requirements/dev.txt -o requirements/gpu.txt
	$(LOCK) --group local -c requirements/dev.txt -o requirements/local.txt
	$(LOCK) --group training --group test -c requirements/dev.txt -o requirements/training.txt

clean: ## delete the virtual environments and caches; var/ with its data stays
	rm -rf .venv .venv-training .coverage site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis tests/artefacts

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("dermq needs Python 3.11 or newer; this is %s. Name another: make PYTHON=python3.12 run" % sys.version.split()[0])'
	@echo "Making a virtual environment and installing the locked packages; once, about a minute …"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv-training/bin/python:
	@echo "Making a second virtual environment, with TensorFlow …"
	@$(PYTHON) -m venv .venv-training || { rm -rf .venv-training; exit 1; }

.venv/.local: requirements/local.txt | .venv/bin/python
	@$(VENV) $(PIP) $<
	@touch $@

.venv/.dev: requirements/dev.txt | .venv/bin/python
	@$(VENV) $(PIP) $<
	@touch $@

.venv-training/.training: requirements/training.txt | .venv-training/bin/python
	@$(TRAINING) $(PIP) $<
	@touch $@
