"""Kinds of targets: one file that is another one, a file whose sum is made to fit, the words of a call, `--set`."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzz.mutate_json import encoded
from tests.fuzz.odd import ODD_VALUES, arguments
from tests.fuzz.verdict import Case, State

Cases = st.SearchStrategy[Case]
Mutants = Callable[[bytes], st.SearchStrategy[bytes]]
Verb = tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """Something to fuzz. `share` is how many inputs of the fast selection are spent on it; 0 where one takes seconds."""

    name: str
    cases: Callable[[Path], Cases]
    share: int = 4


def file_target(name: str, path: str, verbs: Sequence[Verb], *mutants: Mutants, share: int = 4) -> Target:
    """Fuzz one file by all of the mutants, and by what may stand in its place."""

    def cases(root: Path) -> Cases:
        (file,) = root.glob(path)
        content, place = file.read_bytes(), str(file.relative_to(root))
        contents = st.one_of(*(mutant(content) for mutant in mutants), st.sampled_from([*State, b"", b"\0" * 64]))
        return st.builds(lambda verb, content: Case(verb, {place: content}), st.sampled_from(verbs), contents)

    return Target(name, cases, share)


def with_sum(
    path: str, described: str, key: Sequence[str], mutants: Mutants
) -> Callable[[Path], st.SearchStrategy[dict[str, bytes]]]:
    """Return mutants of a file together with the JSON file that states its sha256, so that only its content can be wrong."""

    def files(root: Path) -> st.SearchStrategy[dict[str, bytes]]:
        document = json.loads((root / described).read_bytes())

        def both(content: bytes) -> dict[str, bytes]:
            node = document
            for part in key[:-1]:
                node = node[part]
            node[key[-1]] = hashlib.sha256(content).hexdigest()
            return {path: content, described: json.dumps(document).encode()}

        return mutants((root / path).read_bytes()).map(both)

    return files


def summed_target(
    name: str, path: str, described: str, key: Sequence[str], verbs: Sequence[Verb], mutants: Mutants, share: int = 6
) -> Target:
    """Fuzz a file whose sha256 stands in another one, and is made to fit."""
    files = with_sum(path, described, key, mutants)
    return Target(name, lambda root: st.builds(Case, st.sampled_from(verbs), files(root)), share)


def options_target(name: str, calls: Sequence[Verb], share: int = 4) -> Target:
    """Fuzz the words of calls: each `?` in one, alone or in a word, is any text."""

    def filled(call: Verb) -> Cases:
        return st.tuples(*map(_word, call)).map(Case)

    return Target(name, lambda root: st.one_of(*map(filled, calls)), share)


def _word(word: str) -> st.SearchStrategy[str]:
    return arguments.map(lambda text: word.replace("?", text)) if "?" in word else st.just(word)


def set_target(name: str, verb: Verb, share: int = 4) -> Target:
    """Fuzz `--set KEY=VALUE` with the keys that the file has, or has not."""

    def cases(root: Path) -> Cases:
        keys = [
            "seed",
            "name",
            "folder",
            "data.root",
            "stream.lanes",
            "model.backbone",
            "model.weights",
            "loss.name",
            "duration",
        ]
        keys += ["placement.num_workers", "transforms.train.name", "optimizer.lr", "schedule.name", "evaluation.every.epochs"]
        keys += [
            "search.space",
            "search.metric",
            "search.trials",
            "splits.train.images",
            "holdout.fraction",
            "target",
            "x",
            "a.b",
        ]
        values = st.one_of(arguments, st.sampled_from(ODD_VALUES).map(encoded).map(bytes.decode))
        pairs = st.builds(lambda key, value: f"{key}={value}", st.sampled_from(keys), values)
        sets = st.lists(st.one_of(pairs, arguments), min_size=1, max_size=3)
        return sets.map(lambda sets: Case((*verb, *(word for pair in sets for word in ("--set", pair)))))

    return Target(name, cases, share)
