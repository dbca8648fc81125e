# Every target does its own set-up: `python3` and `make` are all that has to be there.
PYTHON ?= python3
VENV ?= .venv
VENV_OLDEST ?= .venv-oldest
VENV_LOWEST ?= .venv-lowest

.PHONY: quickstart test test-slow test-oldest test-lowest test-pythons check docs benchmark clean

quickstart: $(VENV)/.installed
	$(VENV)/bin/python examples/quickstart.py

test: $(VENV)/.installed
	scripts/check $(VENV)
	scripts/test $(VENV)

check: $(VENV)/.installed
	scripts/check $(VENV)

# The API reference, into site/; the pages about tasks are in docs/.
docs: $(VENV)/.installed
	scripts/docs $(VENV)

test-slow: $(VENV)/.installed
	scripts/test $(VENV) -m slow

# The oldest supported releases: transformers 4.57 with huggingface_hub 0.36.
test-oldest: $(VENV_OLDEST)/.installed
	scripts/test $(VENV_OLDEST)

# The lowest versions that setup.cfg allows, together.
test-lowest: $(VENV_LOWEST)/.installed
	scripts/test $(VENV_LOWEST)

# What needs no torch, on the other versions of Python that are here.
test-pythons:
	scripts/test-pythons

benchmark: $(VENV)/.installed
	$(VENV)/bin/python benchmarks/save_time.py

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt scripts/install
	scripts/install $(VENV) constraints.txt $(PYTHON)

$(VENV_OLDEST)/.installed: setup.cfg pyproject.toml constraints-oldest.txt scripts/install
	scripts/install $(VENV_OLDEST) constraints-oldest.txt $(PYTHON)

$(VENV_LOWEST)/.installed: setup.cfg pyproject.toml constraints-lowest.txt scripts/install
	scripts/install $(VENV_LOWEST) constraints-lowest.txt $(PYTHON)

clean:
	rm -rf $(VENV) $(VENV_OLDEST) $(VENV_LOWEST) .venv-3.* build dist *.egg-info
