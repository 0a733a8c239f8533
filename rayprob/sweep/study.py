"""Decides which trial of a sweep runs next and which is stopped early. Optuna decides; the ledger records.

A study applies the rows of its ledger in order, and writes each new row before it applies it. So a sweep that was killed at
any point is in exactly the same state once its ledger is read again. This module does not use Ray.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna

from rayprob.errors import RunError
from rayprob.seeds import derive
from rayprob.sweep.ledger import REMEDY, Ledger, Row
from rayprob.sweep.search import SearchSpec, Sweep
from rayprob.sweep.space import Params, applies

optuna.logging.set_verbosity(optuna.logging.WARNING)

TICKS = 1000  # of an epoch: Optuna counts resources in whole numbers
MOST_REPEATS = 20  # consecutive draws of known parameters after which the space counts as exhausted
DIRECTIONS = {"max": optuna.study.StudyDirection.MAXIMIZE, "min": optuna.study.StudyDirection.MINIMIZE}
WAIT, DONE = "wait", "done"


@dataclass
class Trial:
    """The state of a trial; `values` are the metrics at its best evaluation by the first metric."""

    number: int
    what: str
    params: dict[str, Any]
    seed: int
    of: int | None = None
    state: str = "running"
    reason: str = ""
    epoch: float = 0.0
    best: tuple[float, ...] = ()
    is_to_stop: bool = False
    told: optuna.trial.Trial | None = field(default=None, repr=False)


class Study:
    """A sweep's trials and what to do next. Raises RunError if a row does not fit the sweep."""

    def __init__(self, sweep: Sweep, ledger: Ledger) -> None:
        self._sweep, self._ledger = sweep, ledger
        self._search, self._base = sweep.search, sweep.base()
        self._cells = self._search.cells()
        if self._search.is_all_grid:
            self._cells = _distinct([self._applying(cell) for cell in self._cells])
        directions = [DIRECTIONS[mode] for mode in self._search.modes]
        self._optuna = optuna.create_study(
            study_name=sweep.run.name, directions=directions, pruner=_pruner(self._search, self._base)
        )
        self.trials: dict[int, Trial] = {}
        for number, row in enumerate(ledger.rows, start=1):
            try:
                self._apply(row)
            except (KeyError, TypeError, ValueError) as error:  # parameters or a metric of another search
                raise RunError(f"row {number} of {ledger.uri} does not fit this sweep ({error!r}); {REMEDY}") from error
        # Trials that were running when the driver ended come first.
        self._to_go_on = [trial.number for trial in self.trials.values() if trial.state == "running"]
        self._is_used_up = False

    def next(self) -> Trial | str:
        """Return the trial to start now, WAIT if others must end first, or DONE."""
        if self._to_go_on:
            return self.trials[self._to_go_on.pop(0)]
        if self._search.default and not self.trials:
            return self._ask("default", {})
        if not self._is_used_up and self._num_drawn() < self.num_draws:
            params = self._drawn()
            if params is not None:
                return self._ask("search", params)
            self._is_used_up = True
        return self._next_confirmation()

    def is_open(self) -> bool:
        """Return whether any trial remains to be trained, without starting one."""
        if any(trial.state == "running" for trial in self.trials.values()) or (self._search.default and not self.trials):
            return True
        return self._num_drawn() < self.num_draws or bool(self._to_confirm())

    def result(self, number: int, epoch: float, values: Mapping[str, float]) -> bool:
        """Record an evaluation and return whether the trial continues. A known evaluation changes nothing."""
        trial = self.trials[number]
        if trial.state == "running" and epoch > trial.epoch:
            self._write({"kind": "result", "number": number, "epoch": epoch, "values": dict(values)})
        return not trial.is_to_stop

    def end(self, number: int, state: str, reason: str = "") -> None:
        """Record how a trial ended: finished, pruned or failed."""
        if self.trials[number].state == "running":
            self._write({"kind": "end", "number": number, "state": state, "reason": reason})

    @property
    def num_draws(self) -> int:
        """The number of trials that the search draws, without the default and confirmations."""
        return len(self._cells) if self._search.is_all_grid else (self._search.trials or 1) * len(self._cells)

    @property
    def num_expected(self) -> int:
        """The total number of trials."""
        confirmed = self._search.confirm.seeds * (2 if self._search.default else 1)
        return self.num_draws + self._search.default + confirmed

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that trials are ranked by."""
        return self._search.metric

    def ranked(self) -> list[Trial]:
        """Return the finished trials of the search, best first by the first metric; ties in order of number."""
        sign = -1 if self._search.modes[0] == "max" else 1
        done = [trial for trial in self.trials.values() if trial.what != "confirm" and trial.state == "finished" and trial.best]
        return sorted(done, key=lambda trial: sign * trial.best[0])

    def best(self) -> Trial | None:
        """Return the first of the ranked trials, or None if no trial has finished."""
        return next(iter(self.ranked()), None)

    def importance(self) -> dict[str, float] | None:
        """Return each parameter's share of the variance of the first metric (fANOVA: Hutter, Hoos, Leyton-Brown, ICML 2014).

        None if fewer than four trials have a value, or all values are equal.
        """
        complete = [t for t in self._optuna.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
        if len(complete) < 4 or len({t.values[0] for t in complete}) < 2:
            return None
        shares = optuna.importance.get_param_importances(
            self._optuna,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=derive(self._search.seed, "importance") % 2**32),
            target=lambda trial: trial.values[0],
        )
        return {key: float(share) for key, share in shares.items()}

    def _num_drawn(self) -> int:
        return sum(trial.what == "search" for trial in self.trials.values())

    def _drawn(self) -> dict[str, Any] | None:
        """Return parameters that no trial has had, or None if many draws found none."""
        cell = self._cells[self._num_drawn() % len(self._cells)]
        if self._search.is_all_grid:
            return cell
        known = [trial.params for trial in self.trials.values() if trial.what == "search"]
        for attempt in range(MOST_REPEATS):
            self._optuna.sampler = _sampler(self._search, derive(self._search.seed, len(self.trials), attempt) % 2**32)
            self._optuna.enqueue_trial(cell)
            asked = self._optuna.ask()
            params = self._suggested(asked)
            # The row written next creates a separate trial with these parameters.
            self._optuna.tell(asked, state=optuna.trial.TrialState.FAIL)
            if params not in known:
                return params
        return None

    def _applying(self, cell: Params) -> dict[str, Any]:
        return {key: value for key, value in cell.items() if applies(self._search.space[key], cell, self._base)}

    def _suggested(self, asked: optuna.trial.Trial) -> dict[str, Any]:
        params: dict[str, Any] = {}
        for key, parameter in self._search.space.items():
            if not applies(parameter, params, self._base):
                continue
            if parameter.values is not None:
                names = [repr(value) for value in parameter.values]
                params[key] = parameter.values[names.index(asked.suggest_categorical(key, names))]
                continue
            low, high = parameter.bounds
            step = parameter.quniform[2] if parameter.quniform else None
            params[key] = asked.suggest_float(key, low, high, log=parameter.loguniform is not None, step=step)
        return params

    def _next_confirmation(self) -> Trial | str:
        searching = any(trial.state == "running" and trial.what != "confirm" for trial in self.trials.values())
        if searching and self._search.confirm.seeds:
            return WAIT
        for original, done in self._to_confirm():
            return self._ask("confirm", original.params, seed=original.seed + done + 1, of=original.number)
        return DONE

    def _to_confirm(self) -> list[tuple[Trial, int]]:
        """Return those of the default and the best that need more confirmations, each with its number of confirmations."""
        best = self.best()
        if best is None:
            return []
        numbers = dict.fromkeys([0, best.number] if self._search.default else [best.number])
        counts = {number: sum(trial.of == number for trial in self.trials.values()) for number in numbers}
        return [(self.trials[number], done) for number, done in counts.items() if done < self._search.confirm.seeds]

    def _ask(self, what: str, params: Params, *, seed: int | None = None, of: int | None = None) -> Trial:
        number = len(self.trials)
        if seed is None:
            seed = int(params.get("seed", self._sweep.run.seed))
        row = {"kind": "ask", "number": number, "what": what, "params": dict(params), "seed": seed, "of": of}
        self._write({**row, "draws": len(self._optuna.get_trials(deepcopy=False))})
        return self.trials[number]

    def _write(self, row: Row) -> None:
        self._ledger.append(row)
        self._apply(row)

    def _apply(self, row: Row) -> None:
        {"ask": self._apply_ask, "result": self._apply_result, "end": self._apply_end}[row["kind"]](row)

    def _apply_ask(self, row: Row) -> None:
        trial = Trial(row["number"], row["what"], row["params"], row["seed"], row["of"])
        self.trials[trial.number] = trial
        if trial.what != "search":
            return
        space, states = self._search.space, optuna.trial.TrialState
        # Optuna's pruners use its own trial numbers, so unused draws are counted again when a ledger is read.
        most = (len(self.trials) + 1) * (MOST_REPEATS + 1)
        if row["draws"] > most:
            raise ValueError(f"{row['draws']} draws for {len(self.trials)} trials, {most} at most")
        while len(self._optuna.get_trials(deepcopy=False)) < row["draws"]:
            self._optuna.add_trial(optuna.trial.create_trial(state=states.FAIL))
        listed = {key for key in trial.params if space[key].values is not None}
        self._optuna.enqueue_trial({key: repr(v) if key in listed else v for key, v in trial.params.items()})
        trial.told = self._optuna.ask()
        self._suggested(trial.told)

    def _apply_result(self, row: Row) -> None:
        trial = self.trials[row["number"]]
        values = tuple(float(row["values"][name]) for name in self._search.metric)
        trial.epoch = row["epoch"]
        is_better = not trial.best or (values[0] > trial.best[0]) == (self._search.modes[0] == "max")
        trial.best = values if is_better else trial.best
        if trial.told is not None and len(values) == 1:
            trial.told.report(values[0], step=max(1, round(trial.epoch * TICKS)))
            trial.is_to_stop = trial.told.should_prune()

    def _apply_end(self, row: Row) -> None:
        trial = self.trials[row["number"]]
        trial.state, trial.reason = row["state"], row["reason"]
        if trial.told is None:
            return
        states = optuna.trial.TrialState
        if trial.state == "finished" and trial.best:
            self._optuna.tell(trial.told, list(trial.best))
        else:
            self._optuna.tell(trial.told, state=states.PRUNED if trial.state == "pruned" else states.FAIL)


def _distinct(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cells without those that differ only in parameters that do not apply."""
    return list({repr(sorted(cell.items())): cell for cell in cells}.values())


def _sampler(search: SearchSpec, seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler whose next draw depends only on the seed and the trials, not on earlier draws."""
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # constant_liar: running trials count as bad, so that two trials at the same time do not try the same values.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def _pruner(search: SearchSpec, base: dict[str, Any]) -> optuna.pruners.BasePruner:
    scheduler = search.scheduler
    grace = max(1, round(scheduler.grace_epochs * TICKS))
    if scheduler.name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=scheduler.reduction_factor)
    if scheduler.name == "hyperband":
        epochs = base["duration"]["epochs"]
        most = max(grace, round(epochs * TICKS))
        return optuna.pruners.HyperbandPruner(grace, most, scheduler.reduction_factor)
    return optuna.pruners.NopPruner()
