"""Who may do what: keys, tokens, sessions and tickets, and what each of them grants.

A leaf: it knows neither HTTP nor runs. What cannot be read or proved grants nothing.
"""

from service.access.authentication import Authentication
from service.access.grants import ANONYMOUS, EVERYTHING, RIGHTS, Grant
from service.access.keys import KeyFile
from service.access.tickets import Ticket
from service.access.tokens import TokenIssuer

__all__ = ["ANONYMOUS", "EVERYTHING", "RIGHTS", "Authentication", "Grant", "KeyFile", "Ticket", "TokenIssuer"]
