"""Attacks and suites beside those of other libraries, on a robust network that is trained in seconds.

Part of `python -m benchmarks`. Times are of this process, which has one thread; every side attacks the same examples
and its points are verified in the same way.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from benchmarks import evaluation
from benchmarks.evaluation import THEIRS, Turn, counted
from benchmarks.peers import APGD_PEERS, APGD_STEPS, PGD_PEERS, PGD_STEP, PGD_STEPS, Peer
from benchmarks.ratios import Row
from torch import nn
from torch.nn import functional

import unperturbed as un
from unperturbed.attacks.base import padded_logits
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.data.split import Split, array_split, select
from unperturbed.evaluation import block
from unperturbed.evaluation.block import Block
from unperturbed.evaluation.search import Networks
from unperturbed.losses import cross_entropy
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.suites.autoattack import STANDARD
from unperturbed.suites.fast import FAST
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Labels

GROUP, NOT_INSTALLED, FAILED = "attack", "not installed", "does not run here"
BARE = "bare passes"
UNCHECKED = "`fast` without its check"
MOST_TRAINING = 6400
THREAT = Threat("Linf", 0.2)
SUITE_THEIRS = f"{THEIRS}, its four of `standard`"
PGD_40 = GradientAttack(f"PGD-{PGD_STEPS}", cross_entropy, PGD(steps=PGD_STEPS, step_size=PGD_STEP)).to_the_end()
APGD_CE = GradientAttack("APGD-CE", cross_entropy, APGD(steps=APGD_STEPS))


@dataclass(frozen=True)
class Subject:
    """A network, and the examples on which it is attacked."""

    model: nn.Module
    split: Split

    @property
    def x(self) -> Inputs:
        """The inputs."""
        return self.split.inputs(torch.arange(len(self.split)))


def subject(place: str | None, examples: int, epochs: int) -> Subject:
    """Return a small CNN after adversarial training on some thousand images, and the first test images.

    Without a place the images are the embedded digits in twice their size, 16 x 16.
    """
    data = un.load_data(place or "digits")
    assert data.test is not None
    train, test = select(data.train, torch.arange(min(MOST_TRAINING, len(data.train)))), data.test
    if place is None:
        train, test = (array_split(functional.interpolate(part.x, scale_factor=2), part.y) for part in (train, test))
    torch.manual_seed(0)
    model = un.architectures.SmallCNN(input_shape=train.shape)
    un.train(model, train, THREAT, un.methods.AT(PGD(steps=5)), un.Recipe(epochs=epochs))
    return Subject(model.eval().requires_grad_(False), select(test, torch.arange(examples)))


def attacks(subject: Subject, seed: int) -> list[Row]:
    """Return the ratios of one repeat: single attacks, and then suites."""
    rows = []
    for attack, peers in ((PGD_40, PGD_PEERS), (APGD_CE, APGD_PEERS)):
        ours = _our_attack(subject, attack, seed)
        for name, peer in peers.items():
            rows.append(_row(attack.label, ours, name, _their_attack(subject, peer, seed)))
        if attack is PGD_40:
            rows.append(_row(attack.label, ours, BARE, _bare_passes(subject)))
    return rows + _suites(subject, seed)


def _row(name: str, ours: Turn, beside: str, theirs: Turn | str) -> Row:
    """Return the row of an attack; in place of their turn there may be the reason that there is none."""
    if isinstance(theirs, str):
        return Row(GROUP, name, beside, missing=theirs)
    n = len(ours.standing)
    passes = f"{ours.passes / n:,.0f} and {theirs.passes / n:,.0f}"
    standing = f"; {sum(ours.standing)} and {sum(theirs.standing)} of {n} standing" if theirs.standing else ""
    return Row(GROUP, name, beside, (ours.seconds / theirs.seconds,), passes + standing)


def _our_attack(subject: Subject, attack: GradientAttack, seed: int) -> Turn:
    suite = Suite("single", (attack,), "")
    return _attacked(subject, lambda model, x, y: un.attack(model, x, y, THREAT, suite, seed=seed))


def _their_attack(subject: Subject, peer: Peer, seed: int) -> Turn | str:
    torch.manual_seed(seed)
    try:
        x, y = subject.x[:2], subject.split.labels[:2]
        peer(subject.model, x, y, THREAT.eps)  # imports, and what a first call sets up
    except Exception as error:  # of another library: its row says so, and the rest is measured
        print(f"  {type(error).__name__}: {error}")
        return NOT_INSTALLED if isinstance(error, ImportError) else FAILED
    return _attacked(subject, lambda model, x, y: peer(model, x, y, THREAT.eps))


def _attacked(subject: Subject, attack: Callable[[nn.Module, Inputs, Labels], Inputs]) -> Turn:
    """Return the cost of an attack, and which examples its points leave standing."""
    x, y = subject.x, subject.split.labels
    with counted(subject.model) as seen:
        began = time.process_time()
        z = attack(subject.model, x, y)
        spent, passes = time.process_time() - began, seen[0]
    with torch.no_grad():
        right = padded_logits(subject.model, z.detach(), len(z)).argmax(1) == y
    return Turn((right | ~THREAT.contains(x, z.detach())).tolist(), spent, passes)


def _bare_passes(subject: Subject) -> Turn:
    """Return the cost of as many forwards and backwards in plain PyTorch; nothing is attacked."""
    x, y = subject.x, subject.split.labels
    with under_attack(subject.model):
        began = time.process_time()
        for _ in range(PGD_STEPS):
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(functional.cross_entropy(subject.model(leaf), y), leaf)
        return Turn([], time.process_time() - began, PGD_STEPS * len(x))


def _suites(subject: Subject, seed: int) -> list[Row]:
    """Return the rows of `fast` without its check, of `standard`, and of the attacks of `standard`."""
    fast, _ = _our_suite(subject, replace(FAST, gate=None), seed)
    standard, by_attack = _our_suite(subject, STANDARD, seed)
    theirs: Turn | str = NOT_INSTALLED
    try:
        theirs = evaluation.theirs(
            subject.model, subject.x, subject.split.labels, THREAT, seed, len(subject.split), clock=time.process_time
        )
    except ImportError as error:
        print(f"  {error}")
    rows = [_row(suite, ours, SUITE_THEIRS, theirs) for suite, ours in ((UNCHECKED, fast), ("`standard`", standard))]
    rows.append(_row(UNCHECKED, fast, "`standard`", standard))
    for attack, (ours, number) in by_attack.items():
        of_theirs = theirs if isinstance(theirs, str) else Turn([], *theirs.attacks[number])
        row = _row(attack, ours, THEIRS, of_theirs)
        rows.append(Row(GROUP, f"{attack} in `standard`", row.beside, row.values, row.passes, row.missing))
    return rows


def _our_suite(subject: Subject, suite: Suite, seed: int) -> tuple[Turn, Mapping[str, tuple[Turn, int]]]:
    """Return what a suite leaves standing, and the cost and the number of each of its attacks."""
    began = time.process_time()
    with _timed_attacks() as seconds:
        outcome = un.evaluate(subject.model, subject.split, THREAT, suite, seed=seed)
    spent = time.process_time() - began
    standing = [verdict == "survived" for verdict in outcome.examples["verdict"]]
    passes = sum(record.forwards for record in outcome.attacks)
    print(f"  {suite.name}, seed {seed}: {spent:.1f} s, standing {sum(standing)}, {passes:,} passes", flush=True)
    by_attack = {
        record.name: (Turn(standing, seconds[record.name], record.forwards), number)
        for number, record in enumerate(outcome.attacks)
        if record.name in seconds
    }
    return Turn(standing, spent, passes), by_attack


@contextmanager
def _timed_attacks() -> Iterator[Counter[str]]:
    """Add up the seconds of processor time of each attack of the evaluations in this block, by its label."""
    seconds, attack = Counter[str](), block.attack_block

    def timed(networks: Networks, state: Block, threat: Threat, suite: Suite, seed: int) -> None:
        label, began = suite.attacks[len(state.tallies)].label, time.process_time()
        attack(networks, state, threat, suite, seed)
        seconds[label] += time.process_time() - began  # type: ignore[assignment]

    block.attack_block = timed
    try:
        yield seconds
    finally:
        block.attack_block = attack
