"""A cluster as it is simulated: groups of replicas with their cost models, a router, a link, failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace

from policies.blocks import KVMemory
from policies.catalog import PolicyChoice, parse_choice
from policies.policy import Policy
from policies.routing.catalog import RouterChoice
from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from simulator.failures import FailureSettings
from simulator.link import Link


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Replicas that are alike.

    Attributes
    ----------
    deployment, cost_model, memory
        What runs on each of them, how long it takes, and the KV cache of each.
    count, role, weight
        As :class:`simulator.cluster_settings.GroupSettings` has them.
    policy_settings
        What the policies here have of their own.
    told
        The cost model that policies are told of; None: the one by which time passes.
    """

    deployment: Deployment
    cost_model: CostModel
    memory: KVMemory
    count: int = 1
    role: str = "both"
    weight: float | None = None
    policy_settings: Mapping[str, int] = field(default_factory=dict)
    told: CostModel | None = None

    def choice(self, choice: PolicyChoice) -> PolicyChoice:
        """Return the policy as it runs here (see :func:`settled`)."""
        return settled(choice, self.policy_settings)

    def policy(self, choice: PolicyChoice) -> Policy:
        """Return a fresh policy for one replica.

        Raises
        ------
        InputError
            If its settings do not go with the memory.
        """
        return self.choice(choice).build(self.memory, stages=self.stages, costs=self.told or self.cost_model)

    @property
    def stages(self) -> int:
        """Pipeline stages of a replica."""
        return self.deployment.pipeline_parallel_size


def settled(choice: PolicyChoice, settings: Mapping[str, int]) -> PolicyChoice:
    """Return a policy with those of ``settings`` that it has, in place of its own.

    Raises
    ------
    InputError
        If the policy refuses them.
    """
    known = {name.name for name in fields(choice.settings)}
    own = {name: value for name, value in settings.items() if name in known}
    if not own:
        return choice
    return parse_choice(choice.name, {**asdict(choice.settings), **own}, where="a group of the cluster")


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """Groups of replicas, numbered through in order, behind a router.

    Attributes
    ----------
    link
        Over which prefill replicas send KV to decode replicas; None where there are none.
    """

    groups: tuple[Group, ...]
    router: RouterChoice = field(default_factory=RouterChoice)
    link: Link | None = None
    failures: FailureSettings = field(default_factory=FailureSettings)

    @staticmethod
    def single(
        deployment: Deployment, cost_model: CostModel, memory: KVMemory, *, told: CostModel | None = None
    ) -> Cluster:
        """Return a cluster of one replica."""
        return Cluster(groups=(Group(deployment=deployment, cost_model=cost_model, memory=memory, told=told),))

    @property
    def replicas(self) -> int:
        """Replicas of all groups."""
        return sum(group.count for group in self.groups)

    def drawn(self, draw: int) -> Cluster:
        """Return the same with the cost model of every group as :meth:`profiler.cost_model.CostModel.drawn` has it.

        Policies are not told.
        """
        groups = tuple(
            replace(group, cost_model=group.cost_model.drawn(draw), told=group.told or group.cost_model)
            for group in self.groups
        )
        return replace(self, groups=groups)

    @property
    def block_size(self) -> int:
        """Tokens of a KV block, the same everywhere."""
        return self.groups[0].memory.block_size
