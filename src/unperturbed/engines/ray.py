"""The engine of a Ray cluster: workers on several machines compute the units, and this process, the driver, writes."""

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from unperturbed.checks import COUNT, NOT_NEGATIVE, check_fields
from unperturbed.engines.base import R, Report, Unit
from unperturbed.engines.ray_cluster import connected, library, room
from unperturbed.engines.ray_worker import News, Setting, Worker, processor, versions
from unperturbed.errors import InputError, RunError

log = logging.getLogger("unperturbed")
PAUSE = 0.5
"""Seconds between two questions for the progress of a worker."""
TRIES = 4
"""The number of workers that may end during the same unit before the job is given up."""
PATIENCE = 60.0
"""Seconds without any worker after which a warning names the resources that it needs."""


@dataclass(frozen=True)
class Ray:
    """Executes the units in workers of a Ray cluster.

    Workers compute and write no files: results and states between two steps travel to the driver, which stores them. So
    nothing is written twice, and no folder is shared. The unit of a worker that ends is resumed by another one.

    Attributes:
        address: of the cluster: "auto" for the one that this machine belongs to, "HOST:PORT", or "ray://HOST:PORT" for
            one elsewhere; None: a cluster on this machine, for this process.
        workers: the number of units at a time; 0: as many as the cluster has room for.
        cpus_per_worker: processors of a worker, and the number of torch's threads in it.
        gpus_per_worker: GPUs of a worker.
    """

    name: ClassVar[str] = "ray"
    address: str | None = None
    workers: int = 0
    cpus_per_worker: int = 1
    gpus_per_worker: int = 0

    def __post_init__(self) -> None:
        """Connect where the number of workers depends on the cluster.

        Raises:
            InputError: for numbers out of range, without the library, and if no cluster answers.
        """
        check_fields(self, workers=NOT_NEGATIVE, cpus_per_worker=COUNT, gpus_per_worker=NOT_NEGATIVE)
        library(self.address)
        if self.workers == 0:
            object.__setattr__(self, "workers", room(self.address, self.cpus_per_worker, self.gpus_per_worker))

    @property
    def threads(self) -> int:
        """The number of torch's threads in a worker."""
        return self.cpus_per_worker

    def map(self, units: Sequence[Unit[R]], report: Report) -> Iterator[tuple[int, R]]:
        """Yield number and result of every unit, in the order of their ends.

        Raises:
            InputError: if the units cannot be sent to other processes, or a worker has other versions.
            RunError: if several workers end during the same unit, or none starts.
        """
        if not units:
            return
        connected(self.address, self.workers * self.cpus_per_worker, self.workers * self.gpus_per_worker)
        yield from _Dispatch(self, units, report).results()


@dataclass(eq=False)
class _Member:
    """A worker in use: its running call, the position of its unit (-1 during the start), and its progress."""

    handle: Any
    call: Any
    place: int = -1
    question: Any = None
    news: News = News()


class _Dispatch:
    """Units on their way to workers and back."""

    def __init__(self, engine: Ray, units: Sequence[Unit[Any]], report: Report) -> None:
        self._ray = library(engine.address)
        self._engine, self._units, self._report = engine, units, report
        self._shared = [self._sent()]
        self._states = dict[int, Any]()  # the newest state of units in work
        self._waiting = deque(range(len(units)))
        self._losses = Counter[int]()
        self._members = list[_Member]()
        self._finished = 0
        self._began = time.monotonic()
        self._warned = False

    def results(self) -> Iterator[tuple[int, Any]]:
        """Yield number and result of every unit."""
        try:
            while self._waiting or self._members:
                self._hire()
                calls = [member.call for member in self._members]
                ready, _ = self._ray.wait(calls, num_returns=1, timeout=PAUSE)
                for member in [member for member in self._members if member.call in ready]:
                    yield from self._answered(member)
                self._ask()
        finally:
            for member in self._members:
                self._dismiss(member)

    def _sent(self) -> Any:
        """Return the reference to the `compute` of all units: what they share, networks and data, is sent once."""
        try:
            return self._ray.put([unit.compute for unit in self._units])
        except Exception as error:  # the user's objects may raise anything
            raise InputError(
                f"The network, the data or the attacks cannot be sent to workers ({type(error).__name__}: {error}): "
                "keep no open files, locks or generators in them, or use the engine local."
            ) from error

    def _hire(self) -> None:
        """Start workers: no more than the units that are not finished."""
        engine, setting = self._engine, Setting.here(self._engine.cpus_per_worker)
        in_work = sum(member.place >= 0 for member in self._members)
        while len(self._members) < min(engine.workers, in_work + len(self._waiting)):
            kind = self._ray.remote(Worker).options(
                num_cpus=engine.cpus_per_worker,
                num_gpus=engine.gpus_per_worker,
                max_concurrency=2,  # a unit, and a question about it
                runtime_env={"env_vars": setting.environment()},
            )
            handle = kind.remote(setting)
            self._members.append(_Member(handle, handle.introduce.remote(self._shared)))

    def _answered(self, member: _Member) -> Iterator[tuple[int, Any]]:
        """Yield the result of a worker that has answered, and give the worker another unit or dismiss it."""
        exceptions, place = self._ray.exceptions, member.place
        try:
            answer = self._ray.get(member.call)
        except exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, BaseException) else error from None
        except exceptions.RayError as error:
            self._lost(member, error)
            return
        if place < 0:
            _check(*answer)
        if self._waiting:
            member.place, member.news = self._waiting.popleft(), News()
            state = self._states.get(member.place)
            state = self._units[member.place].begun() if state is None else state
            member.call = member.handle.execute.remote(self._shared, member.place, state)
        else:
            self._members.remove(member)
            self._dismiss(member)
        if place >= 0:
            unit = self._units[place]
            self._states.pop(place, None)
            self._finished += unit.size
            yield unit.number, unit.finish(answer)

    def _lost(self, member: _Member, error: Exception) -> None:
        """Let another worker resume the unit of a lost one."""
        self._members.remove(member)
        self._dismiss(member)
        self._losses[member.place] += 1
        short = " ".join(str(error).split())[:300]
        if self._losses[member.place] >= TRIES:
            what = f"part {self._units[member.place].number}" if member.place >= 0 else "the start"
            raise RunError(
                f"{TRIES} workers ended during {what} ({short}): perhaps memory ran out, or a node lacks a library."
            )
        if member.place >= 0:
            self._waiting.appendleft(member.place)
            number = self._units[member.place].number
            log.warning("The worker of part %d ended (%s): another one resumes the part.", number, short)

    def _ask(self) -> None:
        """Take the answers to earlier questions for progress, ask again, and report."""
        ray, members = self._ray, [member for member in self._members if member.place >= 0]
        questions = [member.question for member in members if member.question is not None]
        answered = ray.wait(questions, num_returns=len(questions), timeout=0)[0] if questions else []
        for member in members:
            if member.question in answered:
                question, member.question = member.question, None
                with suppress(ray.exceptions.RayError):  # its call says that a worker is lost
                    self._take(member, ray.get(question))
            if member.question is None:
                member.question = member.handle.news.remote()
        done = sum(self._units[member.place].size * member.news.share for member in members)
        text = next((member.news.text for member in members if member.news.text), "")
        if members:
            self._report(self._finished + done, f"{text} ({len(members)} workers)" if len(members) > 1 else text)
        elif not self._warned and not self._finished and time.monotonic() - self._began > PATIENCE:
            self._warned = True
            log.warning(
                "No worker has started for %.0f s: the cluster has %s, and a worker needs %d CPUs and %d GPUs.",
                PATIENCE,
                {name: ray.cluster_resources().get(name, 0.0) for name in ("CPU", "GPU")},
                self._engine.cpus_per_worker,
                self._engine.gpus_per_worker,
            )

    def _take(self, member: _Member, news: News) -> None:
        """Store the newest state of a unit that is still in work, and its progress."""
        if news.place != member.place:
            return
        member.news = news
        if news.state is not None:
            self._states[member.place] = news.state
            self._units[member.place].keep(news.state)

    def _dismiss(self, member: _Member) -> None:
        with suppress(Exception):  # it may have ended
            self._ray.kill(member.handle)


def _check(other: dict[str, str], instructions: str) -> None:
    """Raise InputError for a worker with other versions; warn of another kind of processor."""
    mine = versions()
    differing = [f"{name} {other[name]} (here {mine[name]})" for name in mine if other[name] != mine[name]]
    if differing:
        raise InputError(f"A worker of the cluster has {', '.join(differing)}: install the same versions on all nodes.")
    if instructions != processor():
        log.warning(
            "A worker computes with %s, and this process with %s: the last bits of the results may differ.",
            instructions,
            processor(),
        )
