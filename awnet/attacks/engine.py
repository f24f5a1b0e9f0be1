"""The engine that runs every attack over a whole set.

It owns all that is not the attack's idea: batches of one padded shape, whose slots are refilled as examples finish; the
model's modes, restored exactly; precision; costs; progress; and the verdict, which is always the model's own in float32 on
the images that come out (`awnet/attacks/float32.py`: no caller's autocast, no TensorFloat-32). Since every batch has one
shape and every random number is counted by example, neighbours, order and the number of examples change no bit of a result;
another batch size changes it by rounding only.

Once the queue is empty fewer and fewer slots are taken. The batch then shrinks, down to two images, where the network has been
seen to answer each image of the smaller batch with the very same bits: on a CPU it mostly does; elsewhere the batch stays as
it is. Slots beyond the batch are dropped then. An attack that foresees its next steps takes several of them with one batch,
where there is room (`awnet/attacks/foresight.py`), and one whose runs need nothing of each other makes several of them side by
side (`awnet/attacks/scouts.py`).

In bfloat16 a search sees the network as `awnet/attacks/lean.py` tells. A success counts once the model itself, in float32,
has confirmed it; and since that cannot show a success that was missed, FAB, and the last quarter of each run of APGD, are in
float32. Examples at such a step and examples at others wait for each other in a pool of two batches, so that each evaluation
is of one precision and full. Whom all that leaves standing by a hair (`NEAR` in `awnet/attacks/sweep.py`) meets APGD, and what
else takes its last steps in float32, a second time, with the same random numbers, all of it in float32.

With `compile` a search sees the network through `awnet/attacks/compiled.py`, where it compiles; confirmations and verdicts are
the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from awnet.attacks.attack import (
    Attack,
    Forward,
    Query,
    Slots,
    advance,
    evaluate,
    fresh,
    put,
    select,
    succeeds,
    take,
)
from awnet.attacks.attack import backwards as backwards_of
from awnet.attacks.float32 import in_float32
from awnet.attacks.foresight import leap
from awnet.attacks.frozen import frozen_for_attack
from awnet.attacks.inputs import check_answers, check_fits, check_ids, check_range, finite
from awnet.attacks.lean import convolutions_of
from awnet.attacks.network import Network, Warn, warn
from awnet.attacks.scouts import Scouts, meet, send
from awnet.attacks.shapes import FEW, halved
from awnet.attacks.suite import Suite
from awnet.attacks.sweep import Examples, Outcome, Sweep
from awnet.config import setting
from awnet.errors import Mistake
from awnet.losses import Margin
from awnet.models.model import device_of, judge
from awnet.noise import Noise, fold
from awnet.threat_model import ThreatModel
from awnet.types import Hits, Images, Labels, PerExample


@setting
@dataclass(frozen=True, kw_only=True)
class Engine:
    """How attacks are run.

    Args:
        batch_size: how many examples an evaluation of the model has, the last ones padded. Where memory does not suffice it
            is halved, with a warning. On a CPU a linear layer of two or three outputs rounds by the place of an image in its
            batch if that has fewer than 16: for such networks more are better, if no bit is to depend on the order.
        precision: of the search; the verdict is always float32.
        channels_last: memory layout of images.
        look_every: after how many evaluations it is asked who has finished. To ask keeps a GPU waiting, not to ask keeps
            slots waiting; results are the same. 0: at once on a CPU, every eighth time elsewhere.
        compile: whether the network is compiled for the search. That takes up to a minute, so it is worth it for long
            searches on a GPU; a network that does not compile is searched as it is, with a warning.
    """

    batch_size: int = 128
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    look_every: int = 0
    compile: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise Mistake(f"the engine's batch size must be at least 1, got {self.batch_size}")
        if self.look_every < 0:
            raise Mistake(f"the engine looks every 0 or more evaluations, got look_every={self.look_every}")

    def begin(
        self, attack: Attack | Suite, model: nn.Module, examples: Examples, *, seed: int = 0, member: int = 0
    ) -> Sweep:
        """The sweep before its first turn: empty slots, which hold copies of example 0 that nobody looks at.

        With a `member` other than the first, what a sweep in the middle of a suite looks like.
        """
        searches, n = _searches(attack, seed), len(examples)
        slots, nobody = self._empty(searches[member], model, examples)
        nothing, no = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.bool)
        return Sweep(
            member=torch.tensor(member),
            again=torch.tensor(False),
            slots=slots,
            slot_of=nobody,
            scouts=Scouts.none(len(nobody)),
            begun=torch.tensor(0),
            left=no,
            fallen=no.clone(),
            x_adv=torch.zeros(n, *slots.x.shape[1:]),
            most=nothing + searches[member].attack.queries,
            passes=nothing[:, None].repeat(1, len(searches)),
            backwards=nothing[:, None].repeat(1, len(searches)),
            confirmations=nothing[:, None].repeat(1, len(searches)),
            prediction=nothing,
            p_clean=torch.zeros(n),
            correct=~no,
            lost=no.clone(),
            margin=torch.full((n,), -torch.inf),
            broken_by=nothing - 1,
        )

    def run(
        self,
        attack: Attack | Suite,
        model: nn.Module,
        examples: Examples,
        *,
        seed: int = 0,
        sweep: Sweep | None = None,
        watch: Callable[[Sweep], None] = lambda sweep: None,
        warn: Warn = warn,
    ) -> Outcome:
        """Attack every example.

        Args:
            attack: what to do. Of a suite, a forward pass of each image comes first: what is misclassified already needs
                no attack. Then each member meets who still stands, with random numbers of its own.
            model: maps [0, 1] images to logits; left as it was.
            examples: images and labels.
            seed: of the attack's random numbers, which follow `examples.ids`.
            sweep: where an interrupted run of the very same was, instead of the beginning; changed in place.
            watch: shown the sweep after each turn, to tell how far it is or to save it; what it raises ends the run.
            warn: told in a sentence where memory did not suffice for the batch, the network did not compile, or the model
                answers attacked images, or has gradients, with NaN or infinity.

        Returns:
            The outcome of each example; `attack.stop_on_success` examples cost only what they needed.

        Raises:
            Mistake: images leave [0, 1], labels or ids do not fit, the model does not answer with numbers for two or more
                classes, or the first look of a suite meets images that it answers with NaN or infinity.
        """
        searches, is_suite = _searches(attack, seed), isinstance(attack, Suite)
        check_ids(examples.ids, len(examples))
        if len(examples) == 0:
            return self.predict(model, examples, members=len(searches), warn=warn)
        with in_float32(model), frozen_for_attack(model), torch.no_grad():
            suited = self.suited(model, examples, warn)
            if suited is not self:
                return suited.run(attack, model, examples, seed=seed, sweep=sweep, watch=watch, warn=warn)
            sweep = sweep or self.begin(attack, model, examples, seed=seed)
            network = self._network(model, examples, warn)
            if is_suite and not (sweep.member or sweep.again or sweep.begun):
                self._copy(examples, sweep.x_adv)
                sweep = self._judged(None, model, examples, sweep, warn)
                sweep = sweep._replace(left=~sweep.correct)
            searches += [search._replace(again=True) for search in searches if self._wavers(search, model, examples)]
            under_way = next(search for search in searches if search.under_way(sweep))
            for search in searches[searches.index(under_way) :]:
                sweep = sweep if search.under_way(sweep) else self._entered(search, model, examples, sweep)
                sweep = self._searched(search, network, examples, sweep, watch)
                sweep = self._judged(search, model, examples, sweep, warn)
        if count := int(sweep.lost.sum()):
            warn(
                f"the gradient of {count} of {len(examples)} images was NaN or infinite in the course of the attack, and taken "
                "as 0: it may find too little; look for a square root, a logarithm or a division in the backward pass"
            )
        met = sweep.passes > 0  # and so had a verdict
        spent = torch.stack([sweep.passes + sweep.confirmations + met, sweep.backwards], dim=2)
        forwards, backwards = spent.sum(1).unbind(1)
        return Outcome(
            x_adv=sweep.x_adv,
            prediction=sweep.prediction,
            correct=sweep.correct,
            p_clean=sweep.p_clean,
            forwards=forwards + is_suite,
            backwards=backwards,
            broken_by=sweep.broken_by,
            spent=spent,
        )

    def suited(self, model: nn.Module, examples: Examples, warn: Warn = warn) -> Engine:
        """This engine, or one with the usual layout for a network that cannot read channels last, as `.view` cannot.

        The model is asked about a few of the examples, the first ones.

        Raises:
            Mistake: they leave [0, 1], or model, images and labels do not fit together (`check_fits`).
        """
        if not len(examples):
            return self
        x, _ = examples.batch(torch.arange(min(self.batch_size, FEW)).clamp(max=len(examples) - 1))
        check_range(x)
        with in_float32(model):
            try:
                check_fits(model, self._laid_out(x), examples.labels)
            except torch.OutOfMemoryError:
                return self  # the search will say so
            except Mistake as mistake:
                if not (self.channels_last and isinstance(mistake.__cause__, RuntimeError)):
                    raise
            else:
                return self
            usual = replace(self, channels_last=False)
            check_fits(model, usual._laid_out(x), examples.labels)
        warn(
            "the network cannot read images with channels last in memory (does it use .view?): they have the usual layout"
        )
        return usual

    @contextmanager
    def asking(self, attack: Attack | Suite, model: nn.Module, examples: Examples) -> Iterator[Callable[[], None]]:
        """While it lasts, a function that evaluates a full batch of starts as a search does, to be timed."""
        suited = self.suited(model, examples, lambda sentence: None)
        if suited is not self:
            with suited.asking(attack, model, examples) as ask:
                yield ask
            return
        search = _searches(attack, 0)[0]
        with in_float32(model), frozen_for_attack(model), torch.no_grad():
            network, nobody = self._network(model, examples, warn), torch.full((self.batch_size,), -1)
            query = search.attack.query(self._fresh(search, examples, nobody, device_of(model)).state)

            def ask() -> None:
                with network.seen(search.attack.exact or self.precision == "float32"):
                    evaluate(network.searched(query), query, self._laid_out)

            yield ask

    def _searched(
        self,
        search: Search,
        network: Network,
        examples: Examples,
        sweep: Sweep,
        watch: Callable[[Sweep], None],
    ) -> Sweep:
        """The sweep when everybody has left the search."""
        attack, member, device = search.attack, int(sweep.member), device_of(network.model)
        slots, slot_of, scouts, begun = sweep.slots, sweep.slot_of.clone(), sweep.scouts, int(sweep.begun)
        left, fallen, x_adv, lost = sweep.left, sweep.fallen, sweep.x_adv, sweep.lost
        # views: written to in place
        passes, backwards, confirmations = (t[:, member] for t in (sweep.passes, sweep.backwards, sweep.confirmations))
        queue = sweep.meets.nonzero()[:, 0]
        queue = queue[sweep.margin[queue].argsort(stable=True)]
        goes_back = backwards_of(attack.query(slots.state), network.model)
        while not left.all():
            free = slot_of < 0
            if begun < len(queue) and free.sum() >= max(len(free) // 16, 1):
                # Starts are computed for the whole shape too, so that they do not depend on how many enter at once.
                entering = free & (free.cumsum(0) <= len(queue) - begun)
                slot_of[entering] = queue[begun : begun + int(entering.sum())]
                begun += int(entering.sum())
                slots = select(entering.to(device), self._fresh(search, examples, slot_of, device), slots)
            if attack.scouted and begun == len(queue):
                noise = partial(self._noise, search, examples, device=device)
                slots, slot_of, scouts = send(attack, slots, slot_of, scouts, network.shapes.roomy, noise)
            active = scouts.active(slots, slot_of)
            rows, manner = self._next(search, slots, active)
            rows = rows[: network.shapes.largest]
            everybody = len(rows) == int(active.sum())
            try:
                remaining = sweep.most - passes
                turn = self._turned(search, network, examples, slots, slot_of, scouts, rows, manner, remaining)
            except torch.OutOfMemoryError:
                network.shapes = network.shapes.halved(network.warn)
                continue
            spent = scouts.spent.index_add(0, rows, turn.spent(0 if manner.look else goes_back))
            slots, slot_of, scouts = meet(attack, turn.slots, slot_of, scouts._replace(spent=spent))
            mine = (slot_of >= 0) & ~scouts.ahead
            for counted, number in zip((passes, backwards, confirmations), scouts.spent[mine].unbind(1), strict=True):
                counted[slot_of[mine]] += number
            scouts = scouts._replace(spent=scouts.spent * scouts.ahead[:, None])
            ended, hit = torch.stack([slots.finished, slots.hit]).cpu()  # one wait for both
            leaving = mine & (ended | (passes >= sweep.most)[slot_of.clamp(min=0)])
            if leaving.any():
                of = slot_of[leaving]
                x_adv[of] = slots.x_adv[leaving.to(device)].cpu()
                lost[of] |= slots.lost[leaving.to(device)].cpu()
                left[of] = True
                fallen[slot_of[leaving & hit]] = True
                slot_of[torch.isin(slot_of, of)] = -1  # and their scouts
                scouts = scouts.without(slot_of < 0)
            taken = int((slot_of >= 0).sum())
            size = max(turn.shape, 2 * network.shapes.roomy * attack.scouted, taken)
            if begun == len(queue) and everybody and 0 < taken <= size < len(slot_of):  # nobody will need the free ones
                slots, slot_of, scouts = _packed(slots, slot_of, scouts, size)
            sweep = sweep._replace(slots=slots, slot_of=slot_of.clone(), scouts=scouts, begun=torch.tensor(begun))
            watch(sweep)
        return sweep

    def _wavers(self, search: Search, model: nn.Module, examples: Examples) -> bool:
        """Whether float32 answers some queries of the search, and not all of them."""
        if self._manner(search).exact:
            return False
        one = self._fresh(search, examples, torch.zeros(1, dtype=torch.int64), device_of(model))
        return search.attack.delicate(one.state) is not None

    def _entered(self, search: Search, model: nn.Module, examples: Examples, sweep: Sweep) -> Sweep:
        """The sweep at the beginning of another search than the first."""
        slots, nobody = self._empty(search, model, examples)
        sweep = sweep._replace(
            member=torch.tensor(search.member),
            again=torch.tensor(search.again),
            slots=slots,
            slot_of=nobody,
            scouts=Scouts.none(len(nobody)),
            begun=torch.tensor(0),
            most=sweep.passes[:, search.member] + search.attack.queries,
        )
        return sweep._replace(left=~sweep.meets, fallen=torch.zeros_like(sweep.left))

    def _apart(self, search: Search, slots: Slots) -> Hits | None:
        """Who is asked in another manner than the others, who can wait for those; None where all are asked alike."""
        looking = search.attack.looks(slots.state)
        if looking is not None or self._manner(search).exact:
            return looking
        return search.attack.delicate(slots.state)

    def _manner(self, search: Search) -> Manner:
        """How those are asked who are not taken apart."""
        return Manner(False, exact=self.precision == "float32" or search.again or search.attack.exact, look=False)

    def _next(self, search: Search, slots: Slots, taken: Hits) -> tuple[Tensor, Manner]:
        """Which slots have their turn, and how they are asked: all that are taken, or those that are asked alike."""
        apart, usual = self._apart(search, slots), self._manner(search)
        if apart is None:
            return taken.nonzero()[:, 0], usual
        groups = [(taken & kind).nonzero()[:, 0] for kind in (~apart.cpu(), apart.cpu())]
        if len(groups[0]) >= len(groups[1]):
            return groups[0], usual
        look = search.attack.looks(slots.state) is not None
        return groups[1], Manner(True, exact=usual.exact or not look, look=look)

    def _turned(
        self,
        search: Search,
        network: Network,
        examples: Examples,
        slots: Slots,
        slot_of: Tensor,
        scouts: Scouts,
        rows: Tensor,
        manner: Manner,
        remaining: Tensor,
    ) -> Turn:
        """Some slots after some evaluations of one manner, the others as they were."""
        attack, exact, device = search.attack, manner.exact, slots.finished.device

        def asked_of(state: Any) -> Query:
            query = attack.query(state)
            return Forward(query.x) if manner.look else query

        def ask(size: int, first: int = 0) -> list[Tensor]:
            state = take(_from(rows, len(slot_of), size, first).to(device), slots.state)
            with network.seen(exact):
                query = asked_of(state)
                answer = evaluate(network.searched(query), query, self._laid_out)
            return [t for t in answer if t is not None]

        query = asked_of(slots.state)
        kind = type(query).__name__, exact
        network.try_compiled(kind, ask)
        searched = network.searched(query)
        roomy = network.shapes.roomy if attack.foresees else 0
        shape = network.shapes.largest
        if not attack.asks_another:
            shape = network.shapes.fit(kind, roomy if roomy >= 2 * len(rows) else len(rows), ask)
        leaps = attack.foresees and shape >= 2 * len(rows)
        whole = shape == len(slot_of) and not leaps  # nothing is taken apart, and nobody looks at the free slots
        index = torch.arange(shape) if whole else rows if leaps else _padded(rows, shape)
        place = rows if whole else torch.arange(len(rows))
        part = slots if whole else take(index.to(device), slots)
        noise = self._noise(search, examples, slot_of[index], device)
        left = remaining[slot_of[index].clamp(min=0)].to(device)
        asked = torch.zeros_like(left)
        last = scouts.last(slot_of)[index].to(device) if attack.scouted else None

        def step(slots: Slots, noise: Noise) -> Slots:
            # whatever layout a state has drifted into: the kernels, and so the last bits, depend on it
            return advance(attack, searched, slots, noise, self._laid_out, partial(network.seen, exact), manner.look)

        alternates = attack.looks(slots.state) is not None  # after one evaluation all have to be asked otherwise
        for _ in range(1 if alternates else self.look_every or (1 if device.type == "cpu" else 8)):
            pausing, apart = part.finished | (asked >= left), self._apart(search, part)
            pausing = pausing if apart is None else pausing | (apart ^ manner.apart)
            pausing = pausing if last is None else pausing | (part.state.run > last)
            given = part._replace(finished=pausing)
            moved, steps = leap(attack, given, noise, left - asked, shape, step) if leaps else (step(given, noise), 1)
            part = moved._replace(finished=torch.where(pausing, part.finished, moved.finished))
            asked = asked + steps * ~pausing
        confirmed = torch.zeros_like(rows)
        if attack.stop_on_success and network.differs(exact):
            part, confirmed = self._confirmed(attack, network, part, place)
        if last is not None:  # a scout that has come to the end of its run waits
            over = (part.state.run > last) & scouts.ahead[index].to(device)
            part = part._replace(finished=part.finished | over)
        slots = part if whole else put(rows.to(device), take(place.to(device), part), slots)
        return Turn(slots, shape, asked.cpu()[place], confirmed)

    def _judged(self, search: Search | None, model: nn.Module, examples: Examples, sweep: Sweep, warn: Warn) -> Sweep:
        """The sweep with the verdict on who met this search, or without one on the images as they are."""
        met = sweep.meets.nonzero()[:, 0]
        verdict = sweep.prediction, sweep.p_clean, sweep.correct, sweep.margin
        prediction, p_clean, correct, margin = (t.clone() for t in verdict)
        broken_by = sweep.broken_by.clone()
        threat = search.attack.threat if search else None
        verdict = self._verdict(threat, model, examples, sweep.x_adv, met, warn)
        prediction[met], p_clean[met], correct[met], reached = verdict
        margin[met] = torch.fmax(margin[met], reached)
        if search:
            broken_by[met[~correct[met]]] = search.member
            if search.again:
                sweep.confirmations[met, search.member] += 1
        return sweep._replace(
            prediction=prediction, p_clean=p_clean, correct=correct, margin=margin, broken_by=broken_by
        )

    def _empty(self, search: Search, model: nn.Module, examples: Examples) -> tuple[Slots, Tensor]:
        """The slots of a search before anybody enters, and that nobody is in them."""
        nobody, device = torch.full((self.batch_size,), -1), device_of(model)
        slots = self._fresh(search, examples, nobody, device)
        if self._apart(search, slots) is not None:
            nobody = nobody.repeat(2)
            slots = self._fresh(search, examples, nobody, device)
        return slots._replace(finished=torch.ones_like(slots.finished)), nobody

    def _copy(self, examples: Examples, to: Images) -> None:
        """Write all images to a place, a batch at a time: a second copy of them all may not fit beside the first."""
        for index in torch.arange(len(examples)).split(self.batch_size):
            to[index] = examples.batch(index)[0].cpu()

    def _fresh(self, search: Search, examples: Examples, slot_of: Tensor, device: torch.device) -> Slots:
        """Starts of the examples in the slots; an empty slot holds a copy of example 0."""
        x, y = examples.batch(slot_of.clamp(min=0))
        check_range(x)
        x, y = x.to(device), y.to(device)
        return fresh(search.attack, self._laid_out(x), y, self._noise(search, examples, slot_of, device))

    def _noise(self, search: Search, examples: Examples, slot_of: Tensor, device: torch.device) -> Noise:
        return Noise(search.seed, examples.ids[slot_of.clamp(min=0)].to(device))

    def predict(self, model: nn.Module, examples: Examples, *, members: int = 1, warn: Warn = warn) -> Outcome:
        """The outcome of no attack at all: what the model says of the images themselves, one forward pass each.

        Raises:
            Mistake: it answers some with NaN or infinity.
        """
        everybody = torch.arange(len(examples))
        x, _ = examples.batch(everybody)
        try:
            with in_float32(model), frozen_for_attack(model), torch.no_grad():
                prediction, p_clean, correct, _ = self._verdict(None, model, examples, x, everybody, warn)
        except RuntimeError as error:  # in the first batch, where a network cannot read channels last
            if not self.channels_last or isinstance(error, torch.OutOfMemoryError):
                raise
            return replace(self, channels_last=False).predict(model, examples, members=members, warn=warn)
        ones, spent = torch.ones_like(everybody), torch.zeros(len(examples), members, 2, dtype=torch.int64)
        return Outcome(x, prediction, correct, p_clean, ones, 0 * ones, -ones, spent)

    def _confirmed(self, attack: Attack, network: Network, slots: Slots, rows: Tensor) -> tuple[Slots, Tensor]:
        """The slots less the successes that only the search sees, and which of the rows were asked about, as 0 or 1.

        An example that the model in float32 still gets right goes on: stopped there, it would count as robust.
        """
        device = slots.finished.device
        doubtful = (slots.finished & ~attack.done(slots.state)).cpu()[rows]
        asked = rows[doubtful]
        if not len(asked):
            return slots, doubtful.long()

        def ask(size: int, first: int = 0) -> list[Tensor]:
            index = _from(asked, len(slots.x_adv), size, first).to(device)
            return [network.model(self._laid_out(take(index, slots.x_adv)))]

        shape = network.shapes.fit(("confirmation", True), len(asked), ask)
        logits, index = ask(shape)[0][: len(asked)], asked.to(device)
        x, x_adv, target = (take(index, t) for t in (slots.x, slots.x_adv, slots.target))
        hit = succeeds(attack.threat, x, x_adv, logits, target)
        finished, hit = (t.index_copy(0, index, hit) for t in (slots.finished, slots.hit))
        return slots._replace(finished=finished, hit=hit), doubtful.long()

    def _verdict(
        self, threat: ThreatModel | None, model: nn.Module, examples: Examples, x_adv: Tensor, of: Tensor, warn: Warn
    ) -> tuple[Labels, PerExample, Hits, PerExample]:
        """Class, P(clean), correctness and relative margin of the final images of some examples, in float32, in one shape.

        Raises:
            Mistake: where no attack has been, the model answers with NaN or infinity.
        """
        n, b, device = len(of), self.batch_size, device_of(model)
        none = torch.empty(0)
        found: list[tuple[Tensor, ...]] = [(none.long(), none, none.bool(), none, none.bool(), none.bool())]
        start = 0
        while start < n:
            index = of[torch.arange(start, start + b).clamp(max=n - 1)]
            x, y = (t.to(device) for t in examples.batch(index))
            x_final = self._laid_out(x_adv[index].to(device))
            allowed = threat.contains(x, x_final) if threat else torch.ones_like(y, dtype=torch.bool)
            in_box = ((x_final >= 0) & (x_final <= 1)).flatten(1).all(1)  # elsewhere no model owes an answer
            is_image = x_final.isfinite().flatten(1).all(1)
            try:
                logits, p_clean = judge(model, x_final)
            except torch.OutOfMemoryError:
                b = halved(b, warn)
                continue
            logits = logits.float()
            prediction, numbers = logits.argmax(1), finite(logits)
            correct = (prediction == y) | ~allowed | ~numbers
            margin = Margin()(logits, y) / logits.abs().amax(1).clamp(min=1e-30)
            verdict = prediction, p_clean, correct, margin, numbers | ~in_box, is_image
            found.append(tuple(t.cpu() for t in verdict))
            start += b
        joined = (torch.cat(parts)[:n] for parts in zip(*found, strict=True))
        prediction, p_clean, correct, margin, answered, are_images = joined
        if threat and (count := int((~are_images).sum())):
            warn(f"the attack made {count} of {n} images with pixels that are no numbers: they count as not broken")
        if threat is None:
            check_answers(answered)
        elif count := int((~answered).sum()):
            warn(f"the model answers {count} of {n} attacked images with NaN or infinity: they count as not broken")
        return prediction, p_clean, correct, margin

    def _laid_out(self, x: Images) -> Images:
        return x.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def _network(self, model: nn.Module, examples: Examples, warn: Warn) -> Network:
        convolutions = None
        if self.precision != "float32":
            x, _ = examples.batch(torch.arange(FEW).clamp(max=len(examples) - 1))
            x = self._laid_out(x.to(device_of(model)))
            convolutions = convolutions_of(model, x, channels_last=self.channels_last)
        layout = self.channels_last
        return Network(model, self.batch_size, convolutions, channels_last=layout, compiled=self.compile, warn=warn)


class Manner(NamedTuple):
    """How slots are asked in a turn: those that were taken apart or the others, in float32 or not, for logits alone or not."""

    apart: bool
    exact: bool
    look: bool


class Turn(NamedTuple):
    """What a turn did: all slots, the batch, and of those whose turn it was the evaluations and confirmations."""

    slots: Slots
    shape: int
    asked: Tensor
    confirmed: Tensor

    def spent(self, goes_back: int) -> Tensor:
        """Evaluations, backward passes and confirmations, shape (rows, 3)."""
        return torch.stack([self.asked, self.asked * goes_back, self.confirmed], dim=1)


class Search(NamedTuple):
    """An attack with the seed of its random numbers and its place in a suite, or the same again in float32."""

    attack: Attack
    seed: int
    member: int = 0
    again: bool = False

    def under_way(self, sweep: Sweep) -> bool:
        """Whether it is what the sweep is at."""
        return (self.member, self.again) == (int(sweep.member), bool(sweep.again))


def _searches(attack: Attack | Suite, seed: int) -> list[Search]:
    """What is to be run, one after the other; members of a suite have seeds of their own."""
    if isinstance(attack, Suite):
        return [Search(member, fold(seed, place), place) for place, member in enumerate(attack.attacks)]
    return [Search(attack, seed)]


def _packed(slots: Slots, slot_of: Tensor, scouts: Scouts, size: int) -> tuple[Slots, Tensor, Scouts]:
    """Those that are taken, in so many slots: where a batch has as many, nothing need be taken out for a turn, and put back."""
    taken = (slot_of >= 0).nonzero()[:, 0]
    index = _padded(taken, size)
    nobody = torch.arange(size) >= len(taken)
    slots = take(index.to(slots.finished.device), slots)
    slots = slots._replace(finished=slots.finished | nobody.to(slots.finished.device))
    return slots, slot_of[index].masked_fill(nobody, -1), take(index, scouts).without(nobody)


def _padded(rows: Tensor, size: int) -> Tensor:
    """The rows, and the first of them again until there are so many."""
    return torch.cat([rows, rows[:1].expand(size - len(rows))])


def _from(rows: Tensor, slots: int, size: int, first: int) -> Tensor:
    """So many slots, beginning with the given one: these rows before the others, around and around."""
    others = torch.ones(slots, dtype=torch.bool).index_fill(0, rows, False).nonzero()[:, 0]
    return torch.cat([rows, others])[torch.arange(first, first + size) % slots]
