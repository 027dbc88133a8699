"""Robust accuracy: a verdict per example, verified, and a headline with its interval."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unperturbed.attacks.base import Attack
from unperturbed.attacks.function import FunctionAttack
from unperturbed.attacks.gradient import PGD_SUITE, Suite
from unperturbed.checks import COUNT, SEED, checked
from unperturbed.errors import InputError
from unperturbed.evaluation.block import TIE, Block, Networks, attack_block, untouched
from unperturbed.evaluation.carry import with_carried
from unperturbed.evaluation.evidence import Doubt, doubts_of, examined, fallen_without_gradients, total
from unperturbed.evaluation.identity import identity, other_threads
from unperturbed.evaluation.randomised import (
    RANDOM,
    RandomBlock,
    attack_random_block,
    draws_of,
    draws_random_numbers,
    look_again,
    over_draws,
    random_block,
    randomness_warnings,
)
from unperturbed.evaluation.store import OUTDATED, Part, Store, inputs_in_order, read_again, table_in_order
from unperturbed.evaluation.subject import (
    FLAT,
    Subject,
    look_at,
    measured_split,
    physical_batch_size,
)
from unperturbed.findings import AttackRecord, Outcome, Progress, Verdict, silent
from unperturbed.maximise.places import Watch, watched
from unperturbed.networks.inputs import missing_layer
from unperturbed.networks.logits import Output
from unperturbed.networks.modes import own_randomness, under_attack
from unperturbed.networks.precision import InPrecision, as_reported, choose
from unperturbed.runs.lock import alone_in
from unperturbed.statistics.intervals import wilson
from unperturbed.suites.autoattack import PLUS, RAND, STANDARD
from unperturbed.suites.by_name import ATTACKS, custom
from unperturbed.threat import Threat
from unperturbed.types import Batch

SUITES = {suite.name: suite for suite in (PGD_SUITE, STANDARD, PLUS, RAND)}
BLOCK = 1024
"""Examples that are evaluated, held in memory and written together."""


def _place(given: Mapping[str, Any]) -> tuple[Path, str] | None:
    """Return the folder that an evaluation writes into."""
    return None if given["out"] is None else (Path(given["out"]) / find_suite(given["suite"]).name, "")


@checked(seed=SEED, batch_size=COUNT)
@alone_in(_place)
def evaluate(
    model: nn.Module,
    data: Any,
    threat: Threat,
    suite: str | Suite | Callable[..., Any] = "pgd",
    *,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["auto", "32"] = "auto",
    output: Output = None,
    progress: Progress = silent,
) -> Outcome:
    """Return how many examples the model classifies correctly, and on how many of those the suite cannot change that.

    Runs in eval mode and leaves the model as it was. Every success is verified by a fresh forward in the weights' own
    precision (float32 or float64), strictly (a tie is no success) and inside the threat set. An example that could not
    be evaluated, even alone, is unknown and never counts as robust.

    With `out`, what is done is kept: the same call goes on where an interrupted one stopped, and gives the table that
    it would have given. Processes of one `torch.distributed` group share the examples.

    Args:
        model: returns logits: a tensor, a tuple's first item, or an object with `.logits`.
        data: a `Data` (its test split), a `Split`, a pair of arrays (inputs, labels), or a map-style dataset.
        threat: the threat set; inputs must lie within its bounds.
        suite: a name ("pgd", "standard", "plus", "rand", "apgd-ce,square") or a `Suite`.
        out: folder for `SUITE.json` and, in a folder of its own, the per-example tables and adversarial inputs.
        overwrite: replace another evaluation that `out` holds.
        seed: of the attacks' random starts.
        batch_size: examples that the network sees at a time, raised to a power of two; fewer where fewer are left.
        precision: "auto" lets attacks that bear it search in bfloat16 where the processor multiplies that natively and
            the network is convolutional, and repeats in float32 what came close to a break; "32": all in float32.
        output: which part of what the model returns are the logits: a place, a name, or a function of it.
        progress: told of every attack that is through with a block of examples, and about twice a second of how far
            it is: the bound within an attack counts what it claims, which a fresh forward has yet to confirm.

    Raises:
        InputError: on data outside the bounds or with NaN, labels that do not fit the outputs, an unknown suite, and
            where `out` holds an evaluation of other weights, data, threat, suite, seed or version, or one begun with
            another version of torch or on another kind of device.
    """
    began = time.perf_counter()
    split = measured_split(data)
    subject = look_at(model, split, threat, seed, output)
    attacks, warnings = find_suite(suite).against(threat.norm, subject.classes), list(subject.warnings)
    networks = as_searched(subject, precision, physical_batch_size(batch_size, subject, len(split)))
    if batch_size != "auto" and batch_size > len(split):
        warnings.append(f"The batch size {batch_size} is larger than the data ({len(split)}); it was lowered.")
    rank, processes = group()
    store = Store(None if out is None else Path(out) / attacks.name)
    if out is None and processes > 1:
        raise InputError("Several processes share their results through files: give `out`, a folder that all can see.")
    job: dict[str, Any] = {
        "is_of": identity(model, subject, split, threat, attacks, seed)
        | {"search": _name(subject.dtype if networks.rough is None else torch.bfloat16)},
        "threads": torch.get_num_threads(),
        "rounding": networks.rounding(subject.some),
        "batch_size": networks.places,
        "block": _block_size(len(split), processes),
    }
    warnings += [OUTDATED] if rank == 0 and store.is_outdated(job) else []
    if rank == 0:
        store.begin(job, overwrite)
    meet()
    job = store.join(job)

    order = split.names().argsort(stable=True)  # then results do not depend on the order of the split
    blocks = torch.split(order, job["block"])
    if batch_size != "auto" and networks.places != job["batch_size"]:
        warnings.append(f"The evaluation goes on at the batch size that it was begun with, {job['batch_size']}.")
    warnings += other_threads(job, subject)
    networks.places = job["batch_size"]
    parts: list[Part] = []
    open_blocks = [number for number in range(len(blocks)) if not store.is_finished(number)]
    if open_blocks and len(blocks) < processes:
        warnings.append(_idle(len(blocks), processes))
    meet()  # before one of them finishes a block that another one finds open
    resumed = len(open_blocks) < len(blocks)
    own = open_blocks[rank::processes]
    own_left = [sum(len(blocks[number]) for number in own[place:]) for place in range(len(own))]
    all_left = sum(len(blocks[number]) for number in open_blocks)
    with under_attack(subject.classifier), as_reported(subject.device):
        for place, number in enumerate(own):
            batch = subject.batch(split, blocks[number], threat)
            kind: type[Block] | type[RandomBlock] = RandomBlock if draws_of(attacks) > 1 else Block
            begun = store.begun(number, batch, kind)
            resumed = resumed or begun is not None

            def told(attacks_done: float, text: str, place: int = place, n: int = len(batch.y)) -> None:
                left = own_left[place] - n * attacks_done / len(attacks.attacks)
                # as if the other processes were as fast
                progress(len(split) - left / own_left[0] * all_left, len(split), text)

            block = _through(networks, batch, threat, attacks, seed, begun, partial(store.keep, number), told)
            if networks.places < job["batch_size"]:
                places = networks.places
                block.warnings.append(f"Memory ran out: the network saw {places} examples at a time in the end.")
            parts.append(store.finish(number, block.table(threat, attacks), block))
    if out is not None:
        meet()
        parts = [store.read(number) for number in range(len(blocks))]
    environment = {
        **job["is_of"],
        **job.get("rounding", {}),
        "python": platform.python_version(),
        "batch_size": job["batch_size"],
        "threads": job["threads"],
    }
    seconds = time.perf_counter() - began
    if resumed:
        seconds = sum(tally.seconds for part in parts for tally in part.tallies)
    doubts = doubts_about(subject, attacks, parts, len(split), job["batch_size"])
    warnings += [doubt.text for doubt in doubts if doubt.text not in warnings]
    outcome = _outcome(attacks, threat, parts, order, warnings, environment, seconds)
    outcome = replace(outcome, doubts=tuple(dict.fromkeys(doubt.short for doubt in doubts if doubt.short)))
    if outcome.n >= 20 and outcome.clean_accuracy.low <= 1 / subject.classes:
        text = f"The clean accuracy is not above chance ({1 / subject.classes:.0%}): are these weights trained, and do "
        outcome = replace(outcome, warnings=(*outcome.warnings, text + "labels and inputs suit them?"))
        some = order[torch.arange(min(len(order), 256)) * len(order) // min(len(order), 256)]
        batch = subject.batch(split, some, threat)
        with own_randomness(seed, subject.device):
            expected = missing_layer(subject.classifier, batch.x, batch.y)
        if expected is not None:
            outcome = replace(outcome, warnings=(*outcome.warnings, expected))
    if draws_of(attacks) > 1:
        outcome = over_draws(outcome)
    outcome = with_carried(outcome, store)
    if rank == 0:
        store.summarise(outcome.json())
    if store.folder is not None and not open_blocks:
        outcome = replace(outcome, warnings=(*outcome.warnings, read_again(store.folder)))
    return outcome


def _through(
    networks: Networks,
    batch: Batch,
    threat: Threat,
    suite: Suite,
    seed: int,
    begun: Block | RandomBlock | None,
    keep: Callable[[Block | RandomBlock], None],
    told: Callable[[float, str], None],
) -> Block | RandomBlock:
    """Return a block after all the attacks of the suite, kept after each of them; told how many are done."""
    block: Block | RandomBlock
    if begun is not None:
        block = begun
    elif draws_of(suite) > 1:
        block = random_block(networks, batch, suite, seed)
    else:
        block = untouched(networks.reported, batch, networks.places, seed)
    while len(block.tallies) < len(suite.attacks):
        with watched(_watch(block, suite, told)):
            if isinstance(block, RandomBlock):
                attack_random_block(networks, block, threat, suite, seed)
            else:
                attack_block(networks, block, threat, suite, seed)
        keep(block)
        _watch(block, suite, told)(0.0, 0)
    if isinstance(block, RandomBlock):
        look_again(networks, block, seed)
    random = draws_random_numbers(networks.reported, batch.x, networks.places)
    block.warnings.extend(randomness_warnings(suite, random))
    block.evidence = examined(
        networks.reported,
        batch,
        block.z,
        torch.tensor([verdict == "survived" for verdict in block.verdicts()], device=batch.x.device),
        threat,
        seed,
        networks,
        random=random,
        replaced=any(tally.replaced for tally in block.tallies),
    )
    return block


def doubts_about(subject: Subject, suite: Suite, parts: Sequence[Part], n: int, places: int) -> list[Doubt]:
    """Return what speaks against a robust accuracy: of the network, its gradients, and what broke without them."""
    broken = [sum(part.tallies[number].broken for part in parts) for number in range(len(suite.attacks))]
    evidence = total([part.evidence for part in parts])
    random = randomness_warnings(suite, evidence.random > 0 and draws_of(suite) == 1)
    return [
        *subject.doubts(places),
        *(Doubt("the network draws random numbers", text) for text in random if text.startswith(RANDOM)),
        *doubts_of(evidence, n, flat_told=any(text.startswith(FLAT) for text in subject.warnings)),
        *fallen_without_gradients(suite.attacks, broken, n),
    ]


def as_searched(subject: Subject, precision: Literal["auto", "32"], places: int) -> Networks:
    """Return the network as results are computed with it and as searches run it: where that is faster and works."""
    classifier, some = subject.classifier, subject.some
    chosen = choose("auto", classifier, subject.device)
    if subject.dtype != torch.float32 or chosen.autocast is None:
        return Networks(classifier, classifier, None, places)
    searched = InPrecision(classifier, memory_format=chosen.memory_format)
    rough = InPrecision(classifier, chosen.autocast, memory_format=chosen.memory_format)
    try:
        with under_attack(classifier), own_randomness(0, subject.device), torch.enable_grad():
            x = some[:1].clone().requires_grad_()
            logits = rough(x)
            (slope,) = torch.autograd.grad(logits.sum(), x)
            sound = bool(logits.isfinite().all() and slope.isfinite().all())
    except Exception:  # an operation that does not know bfloat16
        sound = False
    return Networks(classifier, searched, rough if sound and precision == "auto" else None, places)


def find_suite(suite: str | Suite | Callable[..., Any]) -> Suite:
    """Return the suite of this name or of these attacks ("apgd-ce,square"), of one function, or the one given."""
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, Attack):
        raise InputError(f"The suite is the attack {suite!r:.80}: put it into one, Suite('mine', (attack,), 'a note').")
    if not isinstance(suite, str):
        label = getattr(suite, "__name__", type(suite).__name__)
        return Suite(label, (FunctionAttack(label, suite),), "upper bound only: one attack of the user's own")
    if suite in SUITES:
        return SUITES[suite]
    names = suite.split(",")
    if len(names) == 1 and suite.lower() not in ATTACKS:
        raise InputError(
            f"The suite {suite!r} does not exist; there is: {', '.join(SUITES)}, or attacks with commas between them: "
            f"{', '.join(ATTACKS)}."
        )
    return custom(names)


def group() -> tuple[int, int]:
    """Return which process this is, and how many share the examples."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)


def meet() -> None:
    """Wait until all the processes that share the examples have come here."""
    if group()[1] > 1:
        torch.distributed.barrier()


def _block_size(n: int, processes: int) -> int:
    """Return how many examples make a block, so that each of several processes has as many blocks as the others."""
    if processes == 1:
        return min(BLOCK, n)
    return -(-n // (-(-n // (BLOCK * processes)) * processes))


def _idle(blocks: int, processes: int) -> str:
    return (
        f"The evaluation was begun in {blocks} block{'s' * (blocks > 1)} of examples, so that only {blocks} of "
        f"{processes} processes had something to do: given another --out, they share it evenly."
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _watch(block: Block | RandomBlock, suite: Suite, told: Callable[[float, str], None]) -> Watch:
    """Return what tells how far the next attack on a block is, and what share it leaves standing at most."""
    done, n = len(block.tallies), len(block.batch.y)
    label = suite.attacks[min(done, len(suite.attacks) - 1)].label
    standing = int(block.standing.sum()) if isinstance(block, Block) else None

    def watch(share: float, over: int) -> None:
        bound = "" if standing is None else f", robust at most {(standing - over) / n:.1%}"
        told(done + share, f"{label}: {n} examples{bound}")

    return watch


def _outcome(
    suite: Suite,
    threat: Threat,
    parts: list[Part],
    order: Tensor,
    warnings: list[str],
    environment: dict[str, Any],
    seconds: float,
) -> Outcome:
    """Return the outcome of all the parts, whose examples lie in the split at `order`."""
    table = table_in_order(parts, order)
    n = len(table["verdict"])
    counts: dict[Verdict, int] = {
        "misclassified": table["verdict"].count("misclassified"),
        "broken": table["verdict"].count("broken"),
        "survived": table["verdict"].count("survived"),
        "unknown": table["verdict"].count("unknown"),
    }
    correct = sum(margin < 0 for margin in table["clean_margin"])
    not_finite = sum(margin != margin for margin in table["clean_margin"])
    warnings = warnings + list(dict.fromkeys(text for part in parts for text in part.warnings))
    standing, attacks, unverified = correct, [], 0
    for number, attack in enumerate(suite.attacks):
        tallies = [part.tallies[number] for part in parts]
        broken, broken_last = (sum(getattr(tally, name) for tally in tallies) for name in ("broken", "broken_last"))
        standing, unverified = standing - broken, unverified + sum(tally.unverified for tally in tallies)
        forwards, backwards = (sum(getattr(tally, name) for tally in tallies) for name in ("forwards", "backwards"))
        spent = sum(tally.seconds for tally in tallies)
        attacks.append(AttackRecord(attack.label, broken, standing / n, spent, forwards, backwards))
        if broken_last:
            warnings.append(
                f"{broken_last} examples broke only in the last restart of {attack.label}: more would break more."
            )
    ties = sum(abs(margin) <= TIE for margin in table["margin"])
    if unverified:
        warnings.append(f"{unverified} successes claimed by an attack were refuted by a fresh forward.")
    if counts["unknown"]:
        reasons = "failures, values that are not finite, tied logits, or claims refuted by a fresh forward"
        warnings.append(f"{counts['unknown']} examples could not be decided ({reasons}): not counted as robust.")
    return Outcome(
        suite=suite.name,
        note=suite.note,
        threat=str(threat),
        n=n,
        clean_accuracy=wilson(correct, n, correct + not_finite),
        robust_accuracy=wilson(counts["survived"], n, counts["survived"] + counts["unknown"]),
        counts=counts,
        attacks=tuple(attacks),
        ties=ties,
        unverified=unverified,
        seconds=seconds,
        warnings=tuple(warnings),
        environment=environment,
        examples=table,
        adversarial=inputs_in_order(parts, order),
    )
