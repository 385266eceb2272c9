"""The capacity for one draw of the requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, inf, log

from simulator.capacity.bracket import USUAL_SLOPE, Bracket, log_tolerance
from simulator.capacity.saturation import ALL_AT_ONCE_PER_S, drift, service_limit_per_s
from simulator.capacity.slo import Slo
from simulator.trials.candidate import Candidate
from simulator.trials.demand import Demand
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Plan
from simulator.trials.trial import Trial
from traces.errors import InputError

SATURATION = "saturation"
FIRST_SHARE = 0.8
"""Of the rate at which requests are served when all arrive at once: where a search begins."""
LEAST_SHARE = 1e-3
"""Of that rate: so few arrivals that requests hardly meet; what fails here fails at any rate."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A trial of a search.

    Attributes
    ----------
    margin
        By how much the SLO is missed there (:meth:`Slo.margin`); above 0 too where only the queue grows.
    bound_by
        What is missed by most or kept by least.
    worst
        The same with its value, as people say it.
    """

    rate_per_s: float
    seed: int
    margin: float
    bound_by: str
    worst: str
    outcome: Outcome

    @property
    def holds(self) -> bool:
        """Whether the rate is within the capacity of this seed."""
        return self.margin <= 0


@dataclass(frozen=True, kw_only=True)
class SeedCapacity:
    """The capacity for one seed.

    Attributes
    ----------
    rate_per_s
        The highest rate, as well as it is known; 0 where no rate holds; where all hold, what was served of all
        requests at once.
    low_per_s, high_per_s
        The highest rate that was seen to hold (0: none was), the lowest that was seen to fail or to saturate
        (infinity: none was).
    bound_by
        What fails beyond the capacity: a part of the SLO, or ``saturation``.
    unmet, unlimited
        Whether the SLO is missed however few requests arrive; whether it holds even with all requests at once.
    service_limit_per_s
        The rate at which the deployment saturates; None where it is not known.
    slope
        How much the margin rises with the log of the rate there.
    samples
        The trials with arrivals at a rate, in the order in which they ran.
    all_at_once
        What came of all requests arriving at once; None where that was not looked at.
    """

    seed: int
    rate_per_s: float
    low_per_s: float
    high_per_s: float
    bound_by: str
    unmet: bool
    unlimited: bool
    service_limit_per_s: float | None
    slope: float
    samples: tuple[Sample, ...]
    all_at_once: Outcome | None

    @property
    def trials(self) -> int:
        """Simulations that it took."""
        return len(self.samples) + (self.all_at_once is not None)

    @property
    def above(self) -> Sample | None:
        """The lowest rate that failed."""
        failed = [sample for sample in self.samples if not sample.holds]
        return min(failed, key=lambda sample: sample.rate_per_s) if failed else None

    @property
    def below(self) -> Sample | None:
        """The highest rate that held, below all that failed."""
        held = [sample for sample in self.samples if sample.holds and sample.rate_per_s <= self.low_per_s]
        return max(held, key=lambda sample: sample.rate_per_s) if held else None


@dataclass(frozen=True, kw_only=True)
class SeedSearch:
    """How the capacity for a seed is searched for.

    Attributes
    ----------
    tolerance
        How far apart the rate that holds and the rate that fails may be, as a share.
    most_trials
        The search ends there, at least 2, with what it knows.
    guess_per_s
        Where to begin; by default by the rate of service.
    stability
        False: the latencies of the run alone decide, as in the papers.
    """

    tolerance: float = 0.025
    most_trials: int = 8
    guess_per_s: float | None = None
    stability: bool = True


def find_seed_capacity(
    candidate: Candidate,
    demand: Demand,
    slo: Slo,
    search: SeedSearch | None = None,
    *,
    seed: int = 0,
    like: SeedCapacity | None = None,
) -> Plan[SeedCapacity]:
    """Return the plan that finds the highest rate at which the SLO holds, for the requests of one seed.

    The first trial lets all requests arrive at once: it says how fast they are served at most. Rates beyond that are
    not within the capacity, however good the latencies of a run that ends before its queue has grown.

    Parameters
    ----------
    like
        What another seed has found: where to begin; without ``stability`` nothing is then run all at once.

    Raises
    ------
    InputError
        If the candidate cannot serve the demand (out of the plan).
    """
    search = search or SeedSearch()

    def trial(rate_per_s: float) -> Trial:
        return Trial(candidate=candidate, demand=demand, rate_per_s=rate_per_s, seed=seed, goodput=slo.goodput)

    all_at_once = None
    if search.stability or like is None:
        all_at_once = _known((yield [trial(ALL_AT_ONCE_PER_S)])[0])
    limit = service_limit_per_s(all_at_once) if all_at_once is not None and search.stability else None
    if all_at_once is not None and limit is None and slo.margin(all_at_once) <= 0:
        return _unlimited(seed, slo, all_at_once)
    bracket = _bracket(search, limit, all_at_once, like)
    samples: list[Sample] = []
    while len(samples) + (all_at_once is not None) < search.most_trials and (x := bracket.next_x()) is not None:
        outcome = _known((yield [trial(exp(x))])[0])
        samples.append(_sample(exp(x), seed, slo, outcome, drift_counts=search.stability and limit is None))
        bracket.add(x, samples[-1].margin)
    return _found(seed, bracket, samples, limit, all_at_once)


def _known(answer: Outcome | InputError) -> Outcome:
    if isinstance(answer, InputError):
        raise answer
    return answer


def _sample(rate_per_s: float, seed: int, slo: Slo, outcome: Outcome, *, drift_counts: bool) -> Sample:
    sample = Sample(
        rate_per_s=rate_per_s,
        seed=seed,
        margin=slo.margin(outcome),
        bound_by=slo.bound_by(outcome),
        worst=slo.worst(outcome),
        outcome=outcome,
    )
    drifting = drift(outcome)
    if sample.holds and drift_counts and drifting.grows:
        return replace(sample, margin=drifting.growth, bound_by=SATURATION)
    return sample


def _bracket(
    search: SeedSearch, limit: float | None, all_at_once: Outcome | None, like: SeedCapacity | None
) -> Bracket:
    if all_at_once is not None:
        most = limit or all_at_once.metrics["Requests/s"]
    else:
        assert like is not None
        most = like.rate_per_s / FIRST_SHARE
    guess = search.guess_per_s or FIRST_SHARE * most
    if like is not None and like.rate_per_s > 0:
        guess = like.rate_per_s * (limit / like.service_limit_per_s if limit and like.service_limit_per_s else 1.0)
    return Bracket(
        guess=log(guess),
        tolerance=log_tolerance(search.tolerance),
        floor=log(LEAST_SHARE * most),
        top=log(ALL_AT_ONCE_PER_S),
        ceiling=log(limit) if limit else inf,
        probable=log(most),
        slope=None if like is None else like.slope,
    )


def _found(
    seed: int, bracket: Bracket, samples: list[Sample], limit: float | None, all_at_once: Outcome | None
) -> SeedCapacity:
    high = min((each for each in samples if not each.holds), key=lambda each: each.rate_per_s, default=None)
    last = max(samples, key=lambda each: each.rate_per_s)
    return SeedCapacity(
        seed=seed,
        rate_per_s=0.0 if bracket.unmet else exp(bracket.crossing()),
        low_per_s=exp(bracket.low_x),
        high_per_s=exp(bracket.high_x),
        bound_by=high.bound_by if high else SATURATION if limit else last.bound_by,
        unmet=bracket.unmet,
        unlimited=bracket.unlimited,
        service_limit_per_s=limit,
        slope=bracket.steepness(),
        samples=tuple(samples),
        all_at_once=all_at_once,
    )


def _unlimited(seed: int, slo: Slo, all_at_once: Outcome) -> SeedCapacity:
    served_per_s = all_at_once.metrics["Requests/s"]
    return SeedCapacity(
        seed=seed,
        rate_per_s=served_per_s,
        low_per_s=served_per_s,
        high_per_s=inf,
        bound_by=slo.bound_by(all_at_once),
        unmet=False,
        unlimited=True,
        service_limit_per_s=None,
        slope=USUAL_SLOPE,
        samples=(),
        all_at_once=all_at_once,
    )
