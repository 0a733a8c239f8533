# make demo    scenes -> shards -> train -> evaluate -> calibrate -> report on this machine, in ./demo
# make test    all tests          make lint    ruff and mypy          make repeat-tests    all tests, ten times
# make test-slow    the slow tests (minutes): every verb on the command line with tiny data, a step of the paper's network
# make docs    the documentation, docs/_build/html/index.html
# make bench   every benchmark that this machine can run, with a summary
# make coco2014    on a machine with GPUs: COCO-2014 from its download to the tables of docs/how-to/gpu-day.md, in ./coco2014
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export RAY_USAGE_STATS_ENABLED := 0

# Benchmarks are run by hand: this finds calls of what was renamed or removed.
LOOSE := arg-type assignment call-overload dict-item import-not-found import-untyped method-assign misc no-any-return \
  no-untyped-call return-value union-attr

.PHONY: demo docs test test-slow repeat-tests lint format bench coco2014 clean

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	@echo "installing into $(VENV): about 7 GB, a few minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/rayprob scenes demo/scenes --train 4000 --val 1000 --size 128 --labels 20
	$(BIN)/rayprob shard shards/scenes.yaml
	$(BIN)/rayprob train tune_configs/demo.yaml
	$(BIN)/rayprob evaluate demo/run
	$(BIN)/rayprob calibrate demo/run
	$(BIN)/rayprob report demo/run
	@echo
	@echo "results           demo/run/report.html   the report: open it in a browser"
	@echo "                  demo/run/bundle        the trained classifier, ready to predict"
	@echo "                  demo/shards            the dataset; demo/scenes: its images"
	@echo "try next          . $(BIN)/activate"
	@echo "                  rayprob predict demo/run demo/scenes/val2014/COCO_val2014_000000004012.jpg --query 'P(chair | dining table)'"
	@echo "                  rayprob train tune_configs/demo.yaml --set name=wider --set folder=demo/wider --set duration.epochs=10"
	@echo "                  rayprob inspect demo/shards;  tensorboard --logdir demo"

# Benchmarks that need missing data, rights or more time are skipped with the reason; LONG=--long also runs those that take hours.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/every.py $(LONG)

# Days of training; the same command continues. DAY=--dry-run prints the commands, DAY="--part paper" only trains the two recipes.
coco2014: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu_day.py $(DAY)

test: $(VENV)/.installed
	$(BIN)/python -m pytest

# Every verb on the command line, one after the other; a step of the paper's network.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

# Ten runs of the suite, the first five with two busy loops in parallel; every one must pass.
repeat-tests: $(VENV)/.installed
	$(BIN)/python tests/repeat.py --times 10 --busy 5

# Any warning, such as a broken link, fails the build.
docs: $(VENV)/.installed
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy rayprob
	MYPYPATH=.:benchmarks $(BIN)/mypy --explicit-package-bases --follow-imports silent --no-warn-unused-ignores $(LOOSE:%=--disable-error-code %) benchmarks

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
