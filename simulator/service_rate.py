"""How much a replica serves, by its cost model: what routers weigh unequal replicas with."""

from __future__ import annotations

from policies.catalog import PolicyChoice
from profiler.aggregates import Aggregates
from simulator.cluster import Cluster, Group
from traces.workload import Workload


def weights(cluster: Cluster, choice: PolicyChoice, workload: Workload) -> list[float]:
    """Return the weight of a replica of each group: its own, or what it serves, as a share of the most.

    Shares are among groups of the same role, for no router chooses between others.
    """
    roles = [group.role for group in cluster.groups]
    if cluster.groups[0].weight is not None:
        return [group.weight or 1.0 for group in cluster.groups]
    if len(set(roles)) == len(roles):
        return [1.0] * len(roles)
    rates = [service_rate(group, choice, workload) for group in cluster.groups]
    most = {role: max(rate for rate, other in zip(rates, roles, strict=True) if other == role) for role in roles}
    return [rate / most[role] for rate, role in zip(rates, roles, strict=True)]


def service_rate(group: Group, choice: PolicyChoice, workload: Workload) -> float:
    """Return about how many requests/s a replica serves at most, all of the workload's mean lengths.

    Prompts are taken to run one by one, and as many decodes at once as it has room for.
    """
    prompt = max(1, round(float(workload.prompt_tokens.mean())))
    output = max(1, round(float(workload.output_tokens.mean())))
    seconds = 0.0
    if group.role != "decode":
        seconds += _slowest_s(group, Aggregates.of(prompt))
    if group.role != "prefill":
        context = prompt + output // 2
        seats = group.choice(choice).settings.max_num_seqs
        fitting = group.memory.blocks // group.memory.blocks_for(context)
        decodes = max(1, min(seats, fitting) // group.stages)
        batch = Aggregates.of(decodes=decodes, context=context)
        seconds += output * _slowest_s(group, batch) / decodes
    return 1 / seconds


def _slowest_s(group: Group, batch: Aggregates) -> float:
    return max(group.cost_model.iteration_time(batch, stage) for stage in range(group.stages))
