"""What somebody who has proved who they are may do."""

from msgspec import Struct

# read: definitions, and one's own runs. run: execute, cancel. write: definitions. metrics: /metrics alone.
# admin: all of it, and everybody's runs.
RIGHTS = ("read", "run", "write", "metrics", "admin")
ANONYMOUS = "anonymous"  # whoever asks a service that wants no credentials


class Grant(Struct, frozen=True):
    """The name and the rights that a credential gives, and what they hang on.

    ``key_id``: the key without which they end; ``issuer``: the fingerprint of the one whose token it was;
    ``session_id``: the session, opened at ``issued_at``; that and ``expires_at`` are Unix seconds.
    """

    name: str
    rights: frozenset[str]
    key_id: str | None = None
    session_id: str | None = None
    expires_at: float | None = None
    issuer: str | None = None
    issued_at: int | None = None

    def may(self, right: str) -> bool:
        """Tell whether ``right`` is among the rights; admin stands for all of them."""
        return right in self.rights or "admin" in self.rights

    @property
    def sees_all(self) -> bool:
        """Tell whether the runs of others can be seen, too."""
        return "admin" in self.rights


EVERYTHING = Grant(ANONYMOUS, frozenset(RIGHTS))
