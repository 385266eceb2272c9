"""The schedulers once more, as plain as they can be: every rule walks over every sequence, every time.

Nothing here is shared with ``policies``, but for the settings' values. The tests compare the two.
"""

from oracle.paged import VLLM, ChunkedOnly, HybridOnly, SarathiServe
from oracle.reserving import FasterTransformer, Orca, Sarathi
from oracle.scheduler import Oracle
from oracle.slack import Slack
from oracle.v1 import VLLMV1

ORACLES: dict[str, type[Oracle]] = {
    "faster-transformer": FasterTransformer,
    "orca": Orca,
    "vllm": VLLM,
    "sarathi": Sarathi,
    "sarathi-serve": SarathiServe,
    "hybrid-only": HybridOnly,
    "chunked-only": ChunkedOnly,
    "vllm-v1": VLLMV1,
    "slack": Slack,
}
