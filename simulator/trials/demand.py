"""What users ask for: :mod:`traces.demand`, which the engine draws from too."""

from traces.demand import ArrivalKind, Demand

__all__ = ["ArrivalKind", "Demand"]
