# make demo | test | lint | lock | clean. Needs python3 (3.11 or newer, with venv).

# The first of these that starts, is new enough and can make an environment.
FIND_PYTHON = for p in python3 python3.12 python3.11 python3.13; do \
	"$$p" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && { echo "$$p"; break; }; done
ifndef PYTHON
PYTHON := $(shell $(FIND_PYTHON))
endif
ifeq ($(PYTHON),)
$(error No Python 3.11 or newer with venv found. Install one (Debian: apt install \
python3-venv) or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS))
endif
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# The lock files were resolved on Linux x86-64; elsewhere the ranges of setup.py hold.
LOCK := $(if $(filter Linux-x86_64,$(shell uname -s -m | tr ' ' '-')),\
	$(wildcard requirements/lock-$(VERSION).txt))

VENV := .venv
RUN := $(VENV)/bin/python
# One stamp per Python version and set of requirements: a second make installs nothing.
STAMP := $(VENV)/installed-$(VERSION)
WORKDIR ?= runs/demo
# Most of the time of tests is compilation, on one core each.
PYTEST_ARGS ?= -n 2 --dist=loadfile --no-loadscope-reorder
# On CPU a step asks for its memory anew; in large pages that takes glibc less time:
# 1.1 to 1.25 times the steps per second. Elsewhere it means nothing.
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1
LOCKED_VERSIONS := 3.11 3.12

.PHONY: demo test lint lock clean

demo: $(STAMP)
	$(HUGE_PAGES) $(RUN) -m visxp_jax.main --config=configs/selflabel.py \
		--workdir=$(WORKDIR)

test: $(STAMP)
	$(RUN) -m pytest $(PYTEST_ARGS)

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

$(STAMP): setup.py pyproject.toml $(LOCK)
	@echo "Installing into $(VENV) with Python $(VERSION), about a minute"
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check \
		$(addprefix -r ,$(LOCK)) -e '.[dev]'
	@touch $@

# Needs every one of the versions on the PATH; run it on Linux x86-64.
lock:
	set -e; for version in $(LOCKED_VERSIONS); do \
	    python$$version -m venv --clear .lock-$$version; \
	    .lock-$$version/bin/python -m pip install --quiet '.[dev]'; \
	    .lock-$$version/bin/python -m pip freeze --exclude visxp-jax \
	        > requirements/lock-$$version.txt; \
	    rm -rf .lock-$$version; \
	done

clean:
	rm -rf $(VENV) .lock-* build *.egg-info .pytest_cache .ruff_cache
