"""Declared secrets never reach an event: lines are masked, results that hold one are refused."""

from collections.abc import Iterable, Mapping

import msgspec

from service.domain.events import Error, encode_value

MASK = "***"


class Masking:
    """Knows the values of the secrets that one definition names."""

    def __init__(self, secrets: Mapping[str, str], names: Iterable[str]) -> None:
        self.values = sorted({secrets[name] for name in names if secrets.get(name)}, key=len, reverse=True)
        self._encoded = [encode_value(value)[1:-1] for value in self.values]

    def mask(self, text: str) -> str:
        """Return ``text`` with every secret replaced by ``***``."""
        for value in self.values:
            text = text.replace(value, MASK)
        return text

    def mask_error(self, error: Error | None) -> Error | None:
        """Return ``error`` with a masked message."""
        if error is None or not self.values:
            return error
        return msgspec.structs.replace(error, message=self.mask(error.message))

    def holds(self, value: object) -> bool:
        """Say whether the JSON of ``value`` contains a secret."""
        if not self.values:
            return False
        encoded = encode_value(value)
        return any(secret in encoded for secret in self._encoded)
