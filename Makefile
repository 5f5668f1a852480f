# From a fresh Debian or Ubuntu with Python 3.11 or 3.12 to a running server, with nothing else installed:
#
#     make serve      install what serving needs, start the server with the style `warm`, print the URL to open
#     make test       install what the tests need (Chromium included), then lint and run all tests
#     make lint       ruff and mypy --strict
#     make bench      milliseconds for each stage of the street on this machine, as JSON
#     make soak       the tests that take minutes to hours
#     make clean      remove the environment and all caches
#
# Everything goes into .venv; a second run installs nothing. As root, missing system packages are installed with apt;
# otherwise the exact command is printed. More arguments for the server: make serve ARGS="--port 9000 --engine noop".
# More arguments for pip: make serve PIP_ARGS="--extra-index-url URL" (PyTorch's CPU index saves 2 GB without a GPU).

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
PIP_ARGS ?=
TEST_ARGS ?=

SERVE_PACKAGES := libportaudio2
TEST_PACKAGES := $(SERVE_PACKAGES) chromium flite festival festvox-kdlpc16k espeak-ng libegl1 libgl1-mesa-dri \
	fonts-dejavu-core coturn iproute2 iptables pulseaudio libasound2-plugins

.PHONY: help serve test lint bench soak clean serve-system test-system
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#     //p' Makefile

serve: serve-system $(VENV)/.serve
	$(BIN)/python -m server --style warm $(ARGS)

test: test-system lint
	$(BIN)/python -m pytest $(TEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.serve
	$(BIN)/svp bench street --json $(ARGS)

soak: test-system $(VENV)/.dev
	$(BIN)/python -m pytest -m soak --timeout 0 $(TEST_ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. Each stamp is newer than pyproject.toml, so a changed pin installs again.

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "Python 3.11 or 3.12 is needed; $(PYTHON) is `$(PYTHON) -V 2>&1`. Try: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		$(MAKE) --no-print-directory --silent apt-install PACKAGES=python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check $(PIP_ARGS) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check $(PIP_ARGS) -e '.[dev]'
	@touch $(VENV)/.serve $@

# System packages. Serving goes on without them (only sound cards of the server itself need one); tests do not.

serve-system:
	@$(MAKE) --no-print-directory --silent apt-install PACKAGES="$(SERVE_PACKAGES)" \
		|| echo "Going on without: the server's own sound card cannot be used as a microphone." >&2

test-system:
	@$(MAKE) --no-print-directory --silent apt-install PACKAGES="$(TEST_PACKAGES)"

.PHONY: apt-install
apt-install:
	@command -v dpkg-query >/dev/null || \
		{ echo "Not a Debian or Ubuntu; please see that these are installed: $(PACKAGES)" >&2; exit 0; }; \
	missing=""; \
	for package in $(PACKAGES); do \
		dpkg-query -W -f='$${db:Status-Status}\n' $$package 2>/dev/null | grep -qx installed \
			|| missing="$$missing $$package"; \
	done; \
	test -z "$$missing" && exit 0; \
	if [ "$$(id -u)" = 0 ]; then \
		echo "installing:$$missing"; \
		apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
		echo "Missing system packages. Run: sudo apt-get install --no-install-recommends$$missing" >&2; exit 1; \
	fi
