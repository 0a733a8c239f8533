"""What pyproject.toml cannot say: the wheel also holds the recipes and run files of this repository, for `rayprob new`."""

from setuptools import find_packages, setup

STARTERS = {"rayprob.starters.shards": "shards", "rayprob.starters.tune_configs": "tune_configs"}

setup(packages=[*find_packages(include=["rayprob*"]), *STARTERS], package_dir=STARTERS)
