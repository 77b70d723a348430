"""Runs that wait for their turn, and whose they are."""

from collections import Counter

from service.engine.places import User, share_of


class Waiting:
    """Each user's runs wait in the order of arrival; of the users, who has fewest at work is next.

    None has more than ``share_of(runs_max)`` at work: so a thousand endless runs stay one user's affair.
    """

    def __init__(self, runs_max: int) -> None:
        self._runs_max = runs_max
        self._share = share_of(runs_max)
        self._of_user: dict[User, dict[str, None]] = {}
        self._users: dict[str, User] = {}  # of every run that waits
        self._at_work: dict[str, User] = {}
        self._held: Counter[User] = Counter()

    def __len__(self) -> int:
        return len(self._users)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._users

    def add(self, run_id: str, user: User) -> None:
        """Let a run wait, behind the others of ``user``."""
        self._users[run_id] = user
        self._of_user.setdefault(user, {})[run_id] = None

    def begin(self, run_id: str) -> None:
        """Count a run that waits as at work, whether it was its turn or not."""
        user = self._at_work[run_id] = self._users.pop(run_id)
        self._held[user] += 1
        del self._of_user[user][run_id]
        if not self._of_user[user]:
            del self._of_user[user]

    def end(self, run_id: str) -> None:
        """Count a run as at work no longer."""
        user = self._at_work.pop(run_id)
        self._held[user] -= 1
        if not self._held[user]:
            del self._held[user]

    def user(self, run_id: str) -> User:
        """Return whose a run is that is at work."""
        return self._at_work[run_id]

    def next(self) -> str | None:
        """Return the run whose turn it is, None if there is no place, or none for who waits."""
        if len(self._at_work) >= self._runs_max:
            return None
        users = [user for user in self._of_user if user is None or self._held[user] < self._share]
        return next(iter(self._of_user[min(users, key=self._held.__getitem__)])) if users else None
