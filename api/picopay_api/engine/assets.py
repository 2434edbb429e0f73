"""Assets: ISO 4217 currencies by their code, everything else as `CODE/exponent`.

Asked by whoever creates an account or plans a posting. An asset has one name only: a currency is never
written with an exponent, so that `USD` and `USD/2` cannot become two assets.
"""

import re
from functools import lru_cache

from iso4217 import Currency

from picopay_api.errors import AssetUnknown

_OTHER = re.compile(r"([A-Z][A-Z0-9]{0,15})/(0|[1-9]|1[0-8])\Z")
_CURRENCIES = {currency.code: currency.exponent or 0 for currency in Currency}


@lru_cache(maxsize=4_096)
def exponent_of(asset: str) -> int:
    """Return the number of decimal places of an asset's minor unit.

    Raises:
        AssetUnknown: it is neither an ISO 4217 code nor `CODE/exponent`.
    """
    if asset in _CURRENCIES:
        return _CURRENCIES[asset]
    match = _OTHER.match(asset)
    if match is None:
        raise AssetUnknown(
            "an asset is an ISO 4217 code such as USD, or a code and its exponent such as BTC/8",
            asset=asset,
        )
    if match[1] in _CURRENCIES:
        raise AssetUnknown(f"{match[1]} is a currency of ISO 4217: write it alone", asset=asset)
    return int(match[2])
