"""The recipes and run files that come with rayprob, and which belong together: a run file, the files it extends, its recipe."""

from pathlib import Path

import rayprob
from rayprob.config.spec import read_chain, read_yaml
from rayprob.errors import SpecError
from rayprob.registry import unknown

PACKAGE = Path(rayprob.__file__).parent


def starters_folder() -> Path:
    """Return the folder of shards/ and tune_configs/: inside an installed package, next to the package in a checkout."""
    packed = PACKAGE / "starters"
    return packed if packed.is_dir() else PACKAGE.parent


def starter_names() -> list[str]:
    """Return the names of the run and sweep files that come with rayprob, in sorted order."""
    return sorted(path.stem for path in (starters_folder() / "tune_configs").glob("*.yaml"))


def starter_files(name: str) -> dict[str, str]:
    """Return the text of a run file, of those that it extends and of their recipes, by path, in the order of use.

    Raises SpecError for an unknown name.
    """
    folder = starters_folder()
    path = folder / "tune_configs" / f"{name}.yaml"
    if name not in starter_names():
        raise SpecError(unknown(name, starter_names(), "run file"))
    chain = read_chain(path)
    roots = {str(mapping.get("data", {}).get("root")) for mapping in chain.values()}
    recipes = [recipe for recipe in sorted((folder / "shards").glob("*.yaml")) if _root_of(recipe) in roots]
    paths = [*recipes, *reversed(chain)]
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def _root_of(recipe: Path) -> str:
    from rayprob.data.building.recipe import Recipe  # imports all readers of formats, which names of starters do not need

    return Recipe.parse(read_yaml(recipe), str(recipe)).root
