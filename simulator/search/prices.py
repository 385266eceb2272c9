"""What an hour of a device costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from traces.errors import InputError
from traces.files import read_json

EXPECTED = "DEVICE=USD an hour, such as a100-sxm=1.79, or a JSON file of such pairs"


@dataclass(frozen=True, kw_only=True)
class Prices:
    """USD for an hour of one device, by its name; no device has a price unless somebody gave it."""

    usd_per_hour: Mapping[str, float] = field(default_factory=dict)

    def per_hour(self, gpus: Mapping[str, int]) -> float | None:
        """Return USD for an hour of so many devices of each kind; None where one has no price."""
        if not gpus.keys() <= self.usd_per_hour.keys():
            return None
        return sum(count * self.usd_per_hour[device] for device, count in gpus.items())

    def require(self, devices: Iterable[str]) -> None:
        """Check that each device has a price.

        Raises
        ------
        InputError
            If one has none.
        """
        missing = sorted(set(devices) - self.usd_per_hour.keys())
        if missing:
            what = f"no price for {', '.join(missing)}, and the objective is cost"
            wish = f"--price {','.join(f'{device}=USD' for device in missing)} (an hour), or another --objective"
            raise InputError(what, where="--price", expected=wish)


def parse_prices(texts: Iterable[str], *, where: str = "--price") -> Prices:
    """Return the prices that ``a100-sxm=1.79,h100=2.99``, or JSON files of such pairs, give.

    Raises
    ------
    InputError
        If a word is no pair of a device and a positive number, or a device has two prices.
    """
    found: dict[str, float] = {}
    for word in filter(None, (part.strip() for text in texts for part in text.split(","))):
        if word.endswith(".json"):
            pairs = read_prices(read_json(Path(word)), where=word).usd_per_hour
        else:
            pairs = _pair(word, where)
        for device, price in pairs.items():
            if found.get(device, price) != price:
                raise InputError(f"{device} has two prices", where=where, expected="one")
            found[device] = price
    return Prices(usd_per_hour=found)


def read_prices(document: Mapping[str, object], *, where: str) -> Prices:
    """Return the prices of a JSON object: device -> USD an hour.

    Raises
    ------
    InputError
        If a value is no positive number.
    """
    for device, price in document.items():
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 < price < math.inf:
            raise InputError(f"the price of {device} is {price!r}", where=where, expected="USD an hour, above 0")
    return Prices(usd_per_hour={device: float(price) for device, price in document.items()})  # type: ignore[arg-type]


def _pair(word: str, where: str) -> Mapping[str, float]:
    device, _, text = word.rpartition("=")
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not device or not 0 < price < math.inf:
        raise InputError(f"cannot read {word!r}", where=where, expected=EXPECTED)
    return {device: price}
