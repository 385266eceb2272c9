"""The capacity for one draw of the requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, inf, log

from simulator.capacity.bracket import MOST_SLOPE, USUAL_SLOPE, Bracket, log_tolerance
from simulator.capacity.sample import Sample
from simulator.capacity.saturation import SATURATION
from simulator.capacity.service import Budget, Service, Trials, find_service, flood, outcome_of
from simulator.capacity.slo import Slo
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Plan
from traces.demand import Demand

FIRST_SHARE = 0.8
"""Of the rate at which requests are served when all arrive at once: where a search begins."""
LEAST_SHARE = 1e-3
"""Of that rate: so few arrivals that requests hardly meet; what fails here fails at any rate."""
MOST_SHARE = 1e3
"""Of that rate: what holds here holds at any rate."""
BEYOND_LIMIT = 0.05
"""How far above the limit a search looks that met nothing but saturation."""
Known = tuple[float, Outcome]
"""A rate, requests/s, and what came of it."""


@dataclass(frozen=True, kw_only=True)
class SeedCapacity:
    """The capacity for one seed.

    Attributes
    ----------
    rate_per_s
        The highest rate, as well as it is known; 0 where no rate holds; where all hold, what was served of all
        requests at once.
    low_per_s, high_per_s
        Between which it lies: rates that were seen to hold and to fail or saturate; where the trials ended before
        there were both, what :meth:`Bracket.ends` makes of those there are.
    bound_by
        What fails beyond the capacity: a part of the SLO, or ``saturation``.
    unmet, unlimited
        Whether the SLO is missed however few requests arrive; whether it holds even with all requests at once.
    service
        How fast requests are served at most.
    slope
        How much the margin rises with the log of the rate there.
    flat
        Whether it hardly rises up to there (:attr:`Bracket.flat`).
    samples
        The trials with arrivals at a rate, in the order in which they ran, those known before first.
    """

    seed: int
    rate_per_s: float
    low_per_s: float
    high_per_s: float
    bound_by: str
    unmet: bool
    unlimited: bool
    service: Service
    slope: float
    flat: bool
    samples: tuple[Sample, ...]

    @property
    def trials(self) -> int:
        """Simulations that it took."""
        return len(self.samples) + self.service.trials

    @property
    def seen(self) -> bool:
        """Whether it was seen to hold at any rate."""
        return self.unlimited or self.below is not None

    @property
    def above(self) -> Sample | None:
        """The lowest rate that failed."""
        failed = [sample for sample in self.samples if not sample.holds]
        return min(failed, key=lambda sample: sample.rate_per_s) if failed else None

    @property
    def below(self) -> Sample | None:
        """The highest rate that held, below all that failed."""
        limit = self.above.rate_per_s if self.above else inf
        held = [sample for sample in self.samples if sample.holds and sample.rate_per_s < limit]
        return max(held, key=lambda sample: sample.rate_per_s) if held else None


@dataclass(frozen=True, kw_only=True)
class SeedSearch:
    """How the capacity for a seed is searched for.

    Attributes
    ----------
    tolerance
        How far apart the rate that holds and the rate that fails may be, as a share.
    most_trials
        The search ends there, with what it knows; at least 2.
    guess_per_s
        Where to begin; by default by the rate of service.
    stability
        Whether rates beyond the rate of service fail. If not, the latencies of the run alone decide, as in the papers.
    look_beyond
        Where nothing but saturation ends the search, run once beyond it (:data:`BEYOND_LIMIT`), to have it seen.
    """

    tolerance: float = 0.025
    most_trials: int = 8
    guess_per_s: float | None = None
    stability: bool = True
    look_beyond: bool = False


def find_seed_capacity(
    candidate: Candidate,
    demand: Demand,
    slo: Slo,
    search: SeedSearch | None = None,
    *,
    seed: int = 0,
    like: SeedCapacity | None = None,
    budget: Budget | None = None,
    start: Service | None = None,
    known: Sequence[Known] = (),
) -> Plan[SeedCapacity]:
    """Return the plan that finds the highest rate at which the SLO holds, for the requests of one seed.

    The first trial lets all requests arrive at once: it says how fast they are served at most. Rates beyond that are
    not within the capacity, however good the latencies of a run that ends before its queue has grown. Where that limit
    is all that ends the search, a flood has to confirm it (:func:`simulator.capacity.service.flood`).

    Parameters
    ----------
    like
        What another seed has found: where to begin, and how many requests tell how fast they are served.
    budget
        Shared with other searches, instead of ``search.most_trials``.
    start
        How fast requests are served at most, where that need not be looked for.
    known
        Rates that the same candidate was run at before, with the same requests: the search goes on from there.

    Raises
    ------
    InputError
        If the candidate cannot serve the demand (out of the plan).
    """
    search = search or SeedSearch()
    budget = budget or Budget(search.most_trials)
    trials = Trials(candidate=candidate, demand=demand, goodput=slo.goodput, seed=seed)
    served = None if like is None else like.service
    service = start or (yield from find_service(trials, budget, stability=search.stability, like=served))
    if service.at_once is not None and service.ceiling_per_s is None and slo.margin(service.at_once) <= 0:
        return _unlimited(seed, slo.bound_by(service.at_once), service)
    bracket, samples = _bracket(search, service, like), list[Sample]()

    def judge(rate_per_s: float, outcome: Outcome) -> None:
        samples.append(Sample.of(outcome, rate_per_s, seed, slo, service))
        bracket.add(log(rate_per_s), samples[-1].margin)

    def look(rate_per_s: float) -> Plan[None]:
        judge(rate_per_s, outcome_of((yield [trials.at(rate_per_s)])[0]))

    for each in known:
        judge(*each)
    while budget.left > 0:
        x = bracket.next_x(last=budget.left == 1 and like is None)
        if x is None and not _saturated(bracket, service):
            break
        budget.take()
        if x is not None:
            yield from look(exp(x))
        else:
            service = yield from flood(trials, service)
            bracket.ceiling = log(service.ceiling_per_s) if service.ceiling_per_s else inf
    found = _found(seed, bracket, samples, service)
    if not (search.look_beyond and found.above is None and service.ceiling_per_s and budget.take()):
        return found
    yield from look(service.ceiling_per_s * (1 + BEYOND_LIMIT))
    return replace(found, samples=tuple(samples))


def _saturated(bracket: Bracket, service: Service) -> bool:
    """Whether it holds up to a limit that no flood has confirmed yet."""
    limit = service.limit_per_s
    return service.flooded is None and limit is not None and bracket.low_x >= log(limit) - bracket.tolerance


def _bracket(search: SeedSearch, service: Service, like: SeedCapacity | None) -> Bracket:
    guess, slope = search.guess_per_s or FIRST_SHARE * service.served_per_s, None
    if like is not None and like.rate_per_s > 0:
        guess = like.rate_per_s * service.served_per_s / like.service.served_per_s
        slope = MOST_SLOPE if like.bound_by == SATURATION else like.slope
    return Bracket(
        guess=log(guess),
        tolerance=log_tolerance(search.tolerance),
        floor=log(LEAST_SHARE * service.served_per_s),
        top=log(MOST_SHARE * service.served_per_s),
        ceiling=log(service.ceiling_per_s) if service.ceiling_per_s else inf,
        probable=log(service.served_per_s),
        slope=slope,
        likely_flat=like is not None and like.flat,
    )


def _found(seed: int, bracket: Bracket, samples: list[Sample], service: Service) -> SeedCapacity:
    high = min((each for each in samples if not each.holds), key=lambda each: each.rate_per_s, default=None)
    nearest = max(samples, key=lambda each: each.margin)
    low_x, high_x = bracket.ends()
    return SeedCapacity(
        seed=seed,
        rate_per_s=0.0 if bracket.unmet else exp(bracket.crossing()),
        low_per_s=exp(low_x),
        high_per_s=exp(high_x),
        bound_by=high.bound_by if high else SATURATION if high_x == bracket.ceiling else nearest.bound_by,
        unmet=bracket.unmet,
        unlimited=bracket.unlimited,
        service=service,
        slope=bracket.steepness(),
        flat=bracket.flat,
        samples=tuple(samples),
    )


def _unlimited(seed: int, bound_by: str, service: Service) -> SeedCapacity:
    return SeedCapacity(
        seed=seed,
        rate_per_s=service.served_per_s,
        low_per_s=service.served_per_s,
        high_per_s=inf,
        bound_by=bound_by,
        unmet=False,
        unlimited=True,
        service=service,
        slope=USUAL_SLOPE,
        flat=False,
        samples=(),
    )
