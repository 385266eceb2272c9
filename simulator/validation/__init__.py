"""Is what the simulator promises true? Measured runs of the engine judged beside simulated ones.

``Judge`` simulates and audits what the engine measured, ``Validation`` is what it found.
"""

from simulator.validation.judge import Judge
from simulator.validation.validation import Validation

__all__ = ["Judge", "Validation"]
