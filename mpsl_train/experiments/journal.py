"""Which runs of a sweep wait, run, are finished or have failed: an Optuna study in a journal file.

Optuna's journal takes many writers, also over NFS. It has no heartbeat for journals, so a run's
worker holds a lock while it trains: a trial that runs and is not locked was killed.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpsl_runtime.errors import OutputError, RunError, UsageError
from mpsl_runtime.run_folder import RunFolder
from mpsl_train.recipe import Recipe, parse
from mpsl_train.training.report import read_report

__all__ = ["RETRIES", "Claim", "Journal", "Outcome"]

# How often a run that was killed is taken up again before it counts as failed.
RETRIES = 2
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        name: of the run. run: its folder.
        state: `finished`, `failed`, `running` or `waiting`.
        report: report.json of a finished run. error: the one line of a failed one.
    """

    name: str
    run: Path
    state: str
    report: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Claim:
    """A run that this process trains now.

    Attributes:
        name: of the run. recipe: as TOML. run: the folder to write. trial: Optuna's.
    """

    name: str
    recipe: str
    run: Path
    trial: Any


def _recipe_of(trial: Any, folder: Path) -> Recipe:
    return parse(
        trial.user_attrs["recipe"], f"{folder / 'journal.log'}, run {trial.user_attrs['name']}"
    )


class Journal:
    """The journal of one sweep.

    Args:
        folder: of the sweep; made where it is absent.

    Raises:
        OutputError: the folder cannot be written. RunError: the journal is damaged.
    """

    def __init__(self, folder: Path) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder = folder
        # Absolute: the journal's lock is a symbolic link, and a relative one would point nowhere.
        path = folder.resolve() / "journal.log"
        try:
            for part in ("runs", "locks", "logs"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            self.study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path))),
                study_name="sweep",
                sampler=optuna.samplers.RandomSampler(),
                direction="maximize",
                load_if_exists=True,
            )
        except OSError as error:
            raise OutputError("cannot write output", got=error.strerror, where=folder) from error
        except (ValueError, KeyError, TypeError) as error:
            raise RunError("journal cannot be read", got=error, where=path) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time changes the queue."""
        with (self.folder / "locks" / ".queue").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _held(self, name: str) -> Iterator[bool]:
        """Yields whether this process now holds the run; no other can while the block lasts."""
        with (self.folder / "locks" / name).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _latest(self) -> dict[str, Any]:
        """The newest trial of each run, by name; what a name is becomes part of paths."""
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:
            facts = [trial.user_attrs.get(key) for key in ("name", "recipe", "tries")]
            kinds = [type(fact) for fact in facts]
            if kinds != [str, str, int] or not _NAME.fullmatch(str(facts[0])):
                raise RunError(
                    "journal cannot be read", got=f"a run named {facts[0]!r}",
                    expected="name, recipe and tries of each run",
                    where=self.folder / "journal.log",
                )  # fmt: skip
        return {trial.user_attrs["name"]: trial for trial in trials}

    def _add(self, name: str, text: str, tries: int) -> None:
        self.study.enqueue_trial({}, user_attrs={"name": name, "recipe": text, "tries": tries})

    def run_folder(self, name: str) -> Path:
        """Where the run of that name is written."""
        return self.folder / "runs" / name

    def enqueue(self, recipes: Mapping[str, Recipe]) -> None:
        """Adds what is not in the journal yet, and once more what failed or lost its report.

        Raises:
            UsageError: a name does not suit a folder, or stands in the journal for another recipe.
        """
        for name in recipes:
            if not _NAME.fullmatch(name):
                raise UsageError(
                    "run has an unsuitable name", got=repr(name),
                    expected="letters, digits and . _ + -",
                )  # fmt: skip
        with self._locked():
            known = self._latest()
            changed = [
                name for name, recipe in recipes.items()
                if name in known and _recipe_of(known[name], self.folder) != recipe
            ]  # fmt: skip
            if changed:
                raise UsageError(
                    f"run {changed[0]} was begun with another recipe",
                    expected="another --out, or the same RECIPE and --set",
                    where=self.folder,
                )
            for name, recipe in recipes.items():
                if name not in known or self._outcome(known[name]).state == "failed":
                    self._add(name, recipe.text(), 0)

    def _outcome(self, trial: Any) -> Outcome:
        name, state = trial.user_attrs["name"], trial.state.name
        run = self.run_folder(name)
        if state == "COMPLETE":
            try:
                return Outcome(name, run, "finished", read_report(RunFolder(run).report))
            except RunError as reason:
                return Outcome(name, run, "failed", error=str(reason))
        if state == "FAIL":
            error = trial.user_attrs.get("error", f"its process died; {self.folder / 'logs'}")
            return Outcome(name, run, "failed", error=error)
        return Outcome(name, run, "running" if state == "RUNNING" else "waiting")

    def outcomes(self, names: Sequence[str]) -> dict[str, Outcome]:
        """What became of these runs, in this order."""
        known = self._latest()
        return {name: self._outcome(known[name]) for name in names if name in known}

    def open_runs(self) -> int:
        """How many runs are not finished: those that wait, and those that run somewhere."""
        return sum(trial.state.name in ("WAITING", "RUNNING") for trial in self._latest().values())

    def _take_up_killed(self) -> None:
        from optuna.trial import TrialState

        for name, trial in self._latest().items():
            if trial.state.name != "RUNNING":
                continue
            with self._held(name) as dead:
                if dead:
                    self.study.tell(trial.number, state=TrialState.FAIL)
                    tries = trial.user_attrs["tries"] + 1
                    if tries <= RETRIES:
                        self._add(name, trial.user_attrs["recipe"], tries)

    @contextmanager
    def claim(self) -> Iterator[Claim | None]:
        """The next run that waits, held while the block lasts; None when there is none.

        A run whose process was killed waits again, `RETRIES` times.
        """
        with self._locked():
            self._take_up_killed()
            waiting = any(trial.state.name == "WAITING" for trial in self._latest().values())
            trial = self.study.ask() if waiting else None
            held = None if trial is None else self._held(trial.user_attrs["name"])
            if held is not None:
                held.__enter__()
        try:
            if trial is None:
                yield None
            else:
                name = trial.user_attrs["name"]
                yield Claim(name, trial.user_attrs["recipe"], self.run_folder(name), trial)
        finally:
            if held is not None:
                held.__exit__(None, None, None)

    def finish(self, claim: Claim, report: Mapping[str, Any]) -> None:
        """The run is complete. Its value is the validation accuracy, or without one the test's."""
        value = report.get("validation_accuracy")
        self.study.tell(claim.trial, report["accuracy"] if value is None else value)

    def fail(self, claim: Claim, error: str) -> None:
        """The run cannot be completed."""
        from optuna.trial import TrialState

        claim.trial.set_user_attr("error", error)
        self.study.tell(claim.trial, state=TrialState.FAIL)
