# Users need two commands, `make run` and `make test`; `make help` lists all. It works with GNU make 3.81, macOS's version.

PYTHON ?= python3
VENV = .venv/bin/python
TRAINING = .venv-training/bin/python
# The locks list every package, so --no-deps is safe. It is also needed: for a requirement with an extra, pip 23 would
# look at newer releases and stop at one whose hash is not in the lock.
PIP = -m pip --disable-pip-version-check install -q --no-deps --require-hashes -r
# Locks contain packages and hashes but no index address, because each machine has its own index.
LOCK = uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate pyproject.toml

.PHONY: help run dev test test-training check chaos chaos-short hostile containers lock docs docs-site bench clean
.DEFAULT_GOAL := help

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

run: .venv/.local ## start dermq on http://127.0.0.1:8000 until Ctrl-C (another port: DERMQ_PORT=8001 make run)
	@exec $(VENV) -m embedded

dev: .venv/.dev ## make run for development: programs restart when their code changes, and a demo batch is submitted
	@exec $(VENV) -m embedded --reload

test: .venv/.dev ## run all tests but those of training; needs no running service and no TensorFlow
	$(VENV) -m pytest tests --ignore=tests/training --ignore=tests/chaos --ignore=tests/bench -n 2 --cov --cov-report=
	@echo "Coverage of lines and branches together: $$($(VENV) -m coverage report --format=total) %"

test-training: .venv-training/.training ## test training/ and the Keras engine, in a second environment with TensorFlow
	$(TRAINING) -m pytest tests/training

check: .venv/.dev ## check format, lint, types and imports and run the unit tests, in under a minute
	$(VENV) -m ruff format --check
	$(VENV) -m ruff check
	$(VENV) -m mypy
	$(VENV) .venv/bin/lint-imports --no-logo
	$(VENV) -m pytest -q tests/unit tests/test_project.py

chaos: .venv/.dev ## inject every kind of fault into a whole system and print a row for each; about 25 minutes
	$(VENV) -m tests.chaos

chaos-short: .venv/.dev ## run a part of make chaos, for CI
	$(VENV) -m tests.chaos --short

hostile: .venv/.dev .venv-hostile/.hostile ## send hostile input to real processes and list what it finds (one part: HOSTILE=files)
	$(VENV) -m tests.hostile $(HOSTILE)

containers: .venv/.dev ## build the images and run the compose file; needs Debian, root and podman (GPU image too: CONTAINERS=--gpu)
	$(VENV) -m tests.containers $(CONTAINERS)

bench: .venv/.dev ## measure images per second, end to end and of the engine alone (all: BENCH="--images 10015")
	$(VENV) -m tests.bench $(BENCH)

docs: .venv/.dev ## write docs/settings.md from dermq/settings.py
	$(VENV) -m docs.settings_page

docs-site: docs ## build the documents as a website in site/, which a browser can open without a server
	$(VENV) -m docs.site site

lock: ## write the lock files of all dependency groups; the only command that needs uv
	$(LOCK) --group dev -o requirements/dev.txt
	$(LOCK) --group web -c requirements/dev.txt -o requirements/web.txt
	$(LOCK) --group cpu -c requirements/dev.txt -o requirements/cpu.txt
	$(LOCK) --group gpu -c requirements/dev.txt -o requirements/gpu.txt
	$(LOCK) --group local -c requirements/dev.txt -o requirements/local.txt
	$(LOCK) --group hostile -c requirements/dev.txt -o requirements/hostile.txt
	$(LOCK) --group training --group test -c requirements/dev.txt -o requirements/training.txt
	$(LOCK) --group torch --group test -c requirements/dev.txt -o requirements/torch.txt

clean: ## delete the virtual environments and caches, but not the data in var/
	rm -rf .venv .venv-training .venv-hostile .coverage site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis tests/artefacts

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("dermq needs Python 3.11 or newer; this is %s. Choose another: make PYTHON=python3.12 run" % sys.version.split()[0])'
	@echo "Making a virtual environment and installing the locked packages. This happens once and takes a minute …"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv-training/bin/python:
	@echo "Making a second virtual environment, with TensorFlow …"
	@$(PYTHON) -m venv .venv-training || { rm -rf .venv-training; exit 1; }

.venv-hostile/bin/python:
	@$(PYTHON) -m venv .venv-hostile || { rm -rf .venv-hostile; exit 1; }

.venv/.local: requirements/local.txt | .venv/bin/python
	@$(VENV) $(PIP) $<
	@touch $@

.venv/.dev: requirements/dev.txt | .venv/bin/python
	@$(VENV) $(PIP) $<
	@touch $@

.venv-hostile/.hostile: requirements/hostile.txt | .venv-hostile/bin/python
	@.venv-hostile/bin/python $(PIP) $<
	@touch $@

.venv-training/.training: requirements/training.txt | .venv-training/bin/python
	@$(TRAINING) $(PIP) $<
	@touch $@
