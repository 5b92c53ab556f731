# make train    set up, train on real MNIST for about five minutes on two cores, show what was learned
# make test     set up, run all tests
# make lint     set up, check style and types
# make docs     write the environments' pages and pictures, and those of the pretrained agents
# make site     build the docs as a site, into site/
# make results  print the paper's tables with our runs beside its figures
# make settings search for the settings of the leaderboard's algorithms, eight trials of a CPU minute each; resumes what was stopped
# make leaderboard   train the algorithms of docs/leaderboard.md, ten CPU minutes each, and write the page; resumes what was stopped

VENV ?= .venv
PYTHON ?= python3
PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet -c constraints.txt

.PHONY: train test lint docs site results settings leaderboard clean

train: $(VENV)/.train
	$(VENV)/bin/python train_agent.py --progress

test: $(VENV)/.train
	$(VENV)/bin/python -m pytest -n auto

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/.train
	$(VENV)/bin/python -m ram_envs.gallery
	$(VENV)/bin/python docs/pages.py
	$(VENV)/bin/python docs/figures.py

site: $(VENV)/.dev
	$(VENV)/bin/python -m mkdocs build --quiet

results: $(VENV)/.train
	$(VENV)/bin/python benchmarks/tables.py

settings: $(VENV)/.train
	for env in GlimpseMNIST-v0 GlimpseCatch-v0; do \
	    for algo in episode_ppo ppo recurrent_ppo episode_a2c a2c dqn; do \
	        $(VENV)/bin/python benchmarks/search.py --algo $$algo --env $$env --space hyperparams/search_leaderboard.yml \
	            --trials 8 --minutes 1 --clock cpu --evaluations 4 --pruner median --workers 2 --results results/search.jsonl || exit 1; done; done

leaderboard: $(VENV)/.train
	$(VENV)/bin/python benchmarks/compare.py --minutes 10 --page docs/leaderboard.md --results results/comparison.jsonl \
	    --envs GlimpseMNIST-v0 GlimpseClutteredMNIST-v0 GlimpseCatch-v0 \
	    --algos ram ram_random episode_ppo ppo recurrent_ppo episode_a2c a2c dqn cnn conv

$(VENV)/.train: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e ".[train,contrib,search,test]"
	touch $@

$(VENV)/.dev: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e ".[train,contrib,search,test,dev,docs]"
	touch $(VENV)/.train $@

clean:
	rm -rf $(VENV)
