"""What holds of a search's prediction and what falls short, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from statistics import median

from policies.prediction import Interval, Prediction
from simulator.scoreboard import TIE, duration, three_digits
from simulator.validation.policy_order import HIGHER, NOISE, OBJECTIVES, MetricOrder, Preference
from simulator.validation.policy_slo import slo_finding
from simulator.validation.policy_validation import JudgedSetting, Promise, places, share_inside
from simulator.validation.validation import Finding
from simulator.validation.verdict import QUIET, percent

SHARES = ("Goodput",)


def policy_verdict(
    settings: Sequence[JudgedSetting],
    prediction: Prediction,
    found: Sequence[Preference],
    orders: Mapping[str, MetricOrder],
) -> tuple[Finding, ...]:
    """Return what there is to say, the sum of it first.

    What holds is decided by the prediction as it was made: a prediction that is corrected once the machine's pace is
    known is none. What it would have said at that pace stands beside it, and tells whether the machine or the model
    was off.
    """
    promised = [_intervals(settings, prediction.coverage), _order(found, prediction)]
    if (slo := slo_finding({each.label: each.kept for each in settings})) is not None:
        promised.append(slo)
    told = [
        _at_pace(settings, prediction),
        _iterations(settings),
        _again(settings),
        _elsewhere(prediction.elsewhere),
        _each_metric(orders),
        _others(settings),
    ]
    return (_sum(promised), *promised, *(finding for finding in told if finding.text))


def shown(metric: str, value: float) -> str:
    """Return a value of a metric as people say it."""
    if metric in SHARES:
        return percent(value, signed=False)
    return three_digits(value) if metric in HIGHER else duration(value)


def span(metric: str, interval: Interval) -> str:
    """Return an interval as people say it."""
    return f"{shown(metric, interval.low)} to {shown(metric, interval.high)}"


def _sum(promised: Sequence[Finding]) -> Finding:
    short = [finding.subject for finding in promised if finding.holds is False]
    if not short:
        return Finding(subject="in sum", holds=True, text="The prediction holds on this engine and this machine.")
    text = f"The prediction does not hold on this engine and this machine as they were: {' and '.join(short)}."
    return Finding(subject="in sum", holds=False, text=text)


def _intervals(settings: Sequence[JudgedSetting], coverage: float) -> Finding:
    found, share = places(settings), share_inside(settings)
    if not found:
        return Finding(subject="intervals", holds=False, text="No metric that was predicted has been measured.")
    text = f"{found.count('inside')} of {len(found)} measured metrics lie within their intervals"
    text += f", {percent(share, signed=False)}; promised are {100 * coverage:g} %{_sides(settings)}."
    text = f"{text} {_width(settings)} {_farthest(settings)}".strip()
    return Finding(subject="intervals", holds=share >= coverage, text=text)


def _width(settings: Sequence[JudgedSetting]) -> str:
    """Return how wide the intervals are: those that hold everything say little."""
    known = [each.predicted for setting in settings for each in setting.known if each.predicted.value > 0]
    if not known:
        return ""
    low, high = (median(getattr(each, end) / each.value - 1 for each in known) for end in ("low", "high"))
    return f"The median interval spans {percent(low)} to {percent(high)} of its value."


def _sides(settings: Sequence[JudgedSetting]) -> str:
    found = places(settings)
    sides = [f"{found.count(side)} {side}" for side in ("above", "below") if side in found]
    return f" ({', '.join(sides)})" if sides else ""


def _farthest(settings: Sequence[JudgedSetting]) -> str:
    beyond = [(each.off, setting.label, each) for setting in settings for each in setting.known if each.off > TIE]
    if not beyond:
        return ""
    off, label, worst = max(beyond, key=lambda one: one[0])
    return f"Farthest off: {label}, {_told(worst)}, {percent(off, signed=False)} beyond."


def _told(promise: Promise) -> str:
    name = promise.metric
    return f"{name} {shown(name, promise.value)} against {span(name, promise.predicted)}"


def _order(found: Sequence[Preference], prediction: Prediction) -> Finding:
    subject = "order"
    if not found:
        return Finding(subject=subject, holds=True, text="There are no runners-up to tell the winner from.")
    turned, rule = [each for each in found if not each.agrees], _rule(found, prediction)
    ties = sum(not each.by for each in found)
    if not turned:
        same = f"{len(found) - ties} of {len(found)} pairs of settings come in the same order {rule}"
        why = f"within {percent(NOISE, signed=False)}, or replays overlap"
        rest = f", {ties} cannot be told apart ({why})" if ties else ""
        return Finding(subject=subject, holds=True, text=f"{same}{rest}: none is turned around.")
    pairs = "; ".join(f"{each.measured} is better than {_loser(each)} ({each.by})" for each in turned)
    text = f"{len(turned)} of {len(found)} pairs of settings come in another order {rule}; as measured {pairs}."
    return Finding(subject=subject, holds=False, text=text)


def _rule(found: Sequence[Preference], prediction: Prediction) -> str:
    """Return what settings are ordered by, and what they are not."""
    by = sorted({each.by for each in found if each.by})
    told = f"by {' and '.join(by)}" if by else "in what decides"
    ranked = prediction.objective.get("name")
    if not ranked or not _unseen(ranked, by):
        return told
    return f"{told} (the search ranked by {ranked}, which one replay does not measure)"


def _unseen(objective: str, by: Sequence[str]) -> bool:
    return OBJECTIVES.get(objective, objective) not in by


def _loser(each: Preference) -> str:
    return each.other if each.measured == each.one else each.one


def _at_pace(settings: Sequence[JudgedSetting], prediction: Prediction) -> Finding:
    subject = "at the machine's pace"
    known = [(each.drift, each.label) for each in settings if each.drift is not None]
    if not known:
        where = f"{prediction.profile} holds" if prediction.profile else "the prediction names no profile with"
        text = f"Not known: {where}{' no' if prediction.profile else ''} designed iterations to compare with."
        return Finding(subject=subject, holds=None, text=text)
    span_of = " to ".join(f"{percent(drift)} ({label})" for drift, label in dict.fromkeys((min(known), max(known))))
    found, share = places(settings, at_pace=True), share_inside(settings, at_pace=True)
    text = (
        f"During the replays designed batches took {span_of} longer (+) or shorter (-) than in the profile. Predicted "
        f"for that pace, {found.count('inside')} of {len(found)} metrics lie within their intervals "
        f"({percent(share, signed=False)})."
    )
    return Finding(subject=subject, holds=None, text=f"{text} {_blame(settings, prediction.coverage)}".strip())


def _blame(settings: Sequence[JudgedSetting], coverage: float) -> str:
    as_made, paced = share_inside(settings), share_inside(settings, at_pace=True)
    if as_made >= coverage or isnan(paced):
        return ""
    if paced >= coverage:
        return "So the machine has changed its pace, and the cost model was right: profile it again."
    return "So the pace alone does not explain what was missed."


def _iterations(settings: Sequence[JudgedSetting]) -> Finding:
    known = [each for each in settings if each.errors.iterations]
    if not known:
        return Finding(subject="iteration time", holds=None, text="")
    worst = max(known, key=lambda each: abs(each.errors.total))
    text = (
        f"Given the measured batches, the cost model is {percent(worst.errors.total)} off over all iterations of "
        f"{worst.label}, the worst (median iteration {percent(worst.errors.median, signed=False)})."
    )
    return Finding(subject="iteration time", holds=None, text=text)


def _again(settings: Sequence[JudgedSetting]) -> Finding:
    worst = max(settings, key=lambda each: each.deviation)
    if worst.deviation <= TIE:
        return Finding(subject="predicted again", holds=None, text="The same values come out here and now.")
    text = (
        f"Here and now other values come out, up to {percent(worst.deviation, signed=False)} apart ({worst.label}): "
        "the profile, the KV cache or the program is not what the search had."
    )
    return Finding(subject="predicted again", holds=None, text=text)


def _elsewhere(policies: Sequence[str]) -> Finding:
    text = f"Runners-up on another deployment were not served: {', '.join(policies)}." if policies else ""
    return Finding(subject="elsewhere", holds=None, text=text)


def _each_metric(orders: Mapping[str, MetricOrder]) -> Finding:
    pairs, turned, ties = (
        sum(getattr(each, name) for each in orders.values()) for name in ("pairs", "reversed", "reversed_ties")
    )
    text = f"Metric by metric, {turned} of {pairs} pairs come in another order, {ties} of them ties." if pairs else ""
    return Finding(subject="order in each metric", holds=None, text=text)


def _others(settings: Sequence[JudgedSetting]) -> Finding:
    known = [(each.others, each.label) for each in settings if each.others is not None]
    if not known:
        return Finding(subject="other programs", holds=None, text="")
    most, label = max(known)
    text = f"They kept up to {most:.2f} processors busy during the replays ({label})"
    text += ": the machine was quiet." if most <= QUIET else ", which slows an engine."
    return Finding(subject="other programs", holds=None, text=text)
