"""Phrases that keep coming back and that a colleague would not say, each with the better wording (DESIGN.md, section 7)."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Places with prose; leave out a folder until its prose is clean.
CLEAN = (
    *("rayprob", "benchmarks", "examples", "tune_configs", "shards", "cluster", "Makefile", "docs"),
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
)
NOT_YET = {"docs/_build"}

UNITS = "second|minute|hour|day|image|label|sample|step|epoch|shard|row|rank|GPU|node|lane|trial|bin|update|connection"
COUNTED = "images?|labels?|samples?|steps?|trials?|shards?|epochs?|bytes|MB|GB|MiB|GiB|ms|s|NLL|nats|numbers"
EACH = "one|thresholds?|values?|curves?|nodes?|times?|distributions?"
CONTAINERS = "folder|file|bundle|array|outputs?|table|calibrator|dataset|checkpoint"
THINGS = "run|sweep|bundle|dataset|folder|file|mapping|number|image|attribute|simulation|proper"
PROGRAMS = "dataset.json|the manifest|the (?:run|sweep|recipe) file|the output|the command|the header|the log|the page"

# regex -> what to write instead
PHRASES = {
    rf"\b(?:{COUNTED}|{EACH}) an? (?:{UNITS})\b(?! (?:has|needs|is))": "per: images per second, one threshold per label",
    r"\bgo(?:es|ing)? on\b|\bwent on\b": "continue",
    r"\bl(?:et|ets|etting) go\b": "release, close, discard",
    r"(?<!there )\b(?:is|are|was) none\b(?! of| %)": "is not a ..., does not exist, is missing",
    r"\b(?:folder|run|it that|file|dataset) (?:has|have) none\b": "has no ...",
    rf"(?<!there )\bis no (?:{THINGS})\b": "is not a ...",
    r"\b(?:for|in) want of\b": "without, because ... is missing",
    r"\b(?:store|storage|server|service)\b[^.]{0,40}\bis ill\b|\bbusy, ill\b": "failing, unreachable",
    rf"\b(?:{PROGRAMS}) says?\b": "write what it contains: `but 12 in dataset.json`; or shows, prints, reports, names",
    r"\b(?:Ray|KubeRay|Slurm|gloo|torch|numpy|pyarrow|backend|program|process) wants\b": "requires, needs",
    r"\ba person\b(?! |\.$)|\bshows? a person\b": "the user; the output of `predict`",
    r"(?<![`#\"])\b[Bb]eside\b(?![`\"-])": "next to, compared with",
    r"\bversion 0\.1\b": "rayprob 0.1",
    r"\bso many\b(?! that)": "name the number: `num_workers` workers; or: this many",
    r"\b(?:is|are|be) told\b|\bcan be told\b": "is reported, is known",
    r"\blooked at\b|\blooks at\b": "checked, read, inspected",
    r"\bat hand\b": "available",
    r"\bl(?:ies|ie|ay) (?:in|at|on|below|beside|where|between|there|here|within)\b": "is in, is stored in",
    r"\bwhat lies (?:where|in|below)\b": "the contents of",
    r"\bas it stands\b": "unchanged; the run file's own settings",
    r"\bmend(?:s|ed|ing)?\b": "fix, repair",
    r"\bflatters?\b": "is optimistic, is too high",
    r"\bas honest as\b|\bhonest(?:y|ly)? of\b|\b[Hh]onest (?:probabilit|marginal|number)\w+|\bhow honest\b": "calibrated",
    r"\b(?:probabilities|marginals|it) (?:are |is )?honest\b": "calibrated, trustworthy",
    r"\bfor ever\b|\bover and over\b|\bagain and again\b": "forever, repeatedly",
    r"\bmeanwhile\b": "since, at the same time",
    r"\btell(?:s|ing)? (?:them|it|keys|trials) apart\b|\btold apart\b": "distinguish",
    r"\bgo(?:es)? together\b": "fit together, co-occur",
    r"\b(?:lay|laid|lies?)s? (?:it |them |a prior )?over\b": "applied to, combined with",
    r"\b(?:[Kk]nows?|says?) nothing of\b": "is independent of, does not contain",
    r"\b(?:each|every|single) \w+ by (?:itself|themselves)\b|\b\w+s choose by themselves\b": "separately, alone",
    r"\bRaises \w+ where\b": "Raises X if",
    r"\bwhere there (?:is|are) (?:none|one|some|more|fewer)\b|\bwhere none\b": "if there is none, if there are more",
    rf"\b(?:{CONTAINERS}) holds?\b(?! (?:if|for|out))": "contains, has",
    r"\bstands? (?:in|on|twice|both|alone|below)\b": "is in, appears, occurs",
    r"\bat (?:the|its) foot\b": "at the end",
    r"\bof most doubt\b|\brather (?:present|absent)\b|\b(?:it|they) rather (?:is|are)\b": "most uncertain, more likely",
    r"\bthe (?:highest|largest|lowest) of equals?\b|\bof equal ones\b": "the highest if several tie",
    r"\bof least\b|\bin (?:the )?type (?:it|they) came in\b": "with the lowest; in the input dtype",
    r"\bworked on at a time\b|\bfor the work of\b": "processed at a time, for the cost of",
    r"\bwhat (?:\w+ ){1,3}(?:makes? of|asks? of)\b": "say what it is: the mixture under the prior, the interface",
    r"\bin vain\b|\bbegot\b|\banew\b": "unnecessarily, again",
    r"\b(?:a|an|the) wanted\b": "target, requested",
    r"\d at (?:least|most)\b": "put it before the number: at least 2",
    r"\b(?:is|are) not ours\b|\bwords of ours\b": "foreign, from elsewhere; rayprob's own",
    r"\bas \w+(?:'s \w+)? (?:has|have) (?:it|them)\b": "as in",
    r"\bwhat came of\b|\bcame to nothing\b": "the result of",
    r"\bunder way\b": "running, in progress",
    r"\bwhat (?:it is|\w+ (?:is|are)) worth\b": "the gain of, the value of",
    r"\bbuilt anew\b|\bmade anew\b|\bbegins? anew\b": "rebuilt, created, starts over",
    r"\bits kin\b|\band the like\b": "its subclasses; or name them",
    r"\bin its time\b|\bkeep its word\b": "say what happens",
    r"\bleft as (?:it|they) (?:is|are)\b": "unchanged",
    r"\btars? of others\b": "tars from elsewhere, tars read in place",
    r"\bheld against\b": "compared with, checked against",
    r"\bof one name\b": "with the same name",
    r"\bpoint(?:ed)? at\b|\bpoints at (?:a|one|the) (?:file|folder|dataset)\b": "give, pass",
    r"\bhalves of surrogate": "lone surrogates",
    r"\bpeople (?:have|keep)\b|\bsomebody\b": "the user; or leave it out",
    r"\bnames without use\b": "unusable names",
    r"\bin what (?:\w+ ){1,4}differs?\b": "the differences between",
    r"\b(?:is|are) not there\b": "is missing, does not exist",
    r"\bdo(?:es)? no harm\b|\b(?:takes?|plays?) no part\b": "is accepted; is ignored, is left out of",
}

ANY = re.compile("|".join(PHRASES))  # one search for the many texts that have none of them


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of everything that a reader or user sees: whole texts, and of Python its strings and comments."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(content.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, " ".join(node.value.split())


def found_in(path: Path) -> list[str]:
    """Return the phrases of a file that should be written another way, with the line and the better wording."""
    return [
        f"{path.name}:{line}: {match[0]!r}; better: {better}"
        for line, text in texts_of(path)
        if ANY.search(text)
        for phrase, better in PHRASES.items()
        if (match := re.search(phrase, text))
    ]


def files_of(place: str) -> list[Path]:
    """Return the files with prose at a place of CLEAN."""
    path = ROOT / place
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    prose = [file for file in found if file.suffix in {".py", ".yaml", ".html", ".md", ".sh"} or file == path]
    return [file for file in prose if file.is_file() and not is_not_yet(file.relative_to(ROOT).as_posix())]


def is_not_yet(name: str) -> bool:
    """Return whether a file, or a folder that it is in, is still to be cleaned."""
    return any(name == place or name.startswith(f"{place}/") for place in NOT_YET)


@pytest.mark.parametrize("place", CLEAN)
def test_no_phrase_comes_back(place: str) -> None:
    files = files_of(place)
    assert files, f"{place} has no prose; correct CLEAN"
    found = [fault for file in files for fault in found_in(file)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "one threshold of 3 labels a step",
        "the run goes on",
        "{folder} is no run folder",
        "dataset.json says 12",
        "what `predict` shows a person",
        "the table beside the paper's",
        "checkpoints of version 0.1",
        "mend the faults",
        "no GPU was at hand",
        "two values, one a label",
        "Raises DataError where a row is missing",
        "the folder holds a run",
        "needs 2 at least",
        "it lays a prior over them",
        "images in tars of others",
        "two files of one name",
        "point at one file",
    ],
)
def test_a_phrase_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "words.py").write_text(f'"""Fine."""\nMESSAGE = {text!r}\n')
    (tmp_path / "words.md").write_text(f"# Fine\n{text}\n")
    for name in ("words.py", "words.md"):
        assert [fault.split(": ")[0] for fault in found_in(tmp_path / name)] == [f"{name}:2"]
