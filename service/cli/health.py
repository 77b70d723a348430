"""``tailrace health``: whether the service of these settings answers, for the health checks of containers."""

import http.client
import os
import ssl
import sys

import rich_click as click

TIMEOUT_S = 4.0
EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  to reach, not to bind


@click.command()
def health() -> None:
    """Exit with 0 if the service answers /health, else with 1; nothing is said of whether it is ready.

    Run it beside the service, with its environment: TAILRACE_HOST, TAILRACE_PORT and TAILRACE_TLS_CERT count.
    """
    from service.errors import InvalidInput
    from service.ops.settings import Settings

    try:
        settings = Settings.load(os.environ)
    except InvalidInput as error:
        sys.exit(f"tailrace: {error}")
    address = EVERYWHERE.get(settings.host, settings.host.strip("[]")), settings.port
    if settings.tls_cert is None:
        connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
    else:
        # It asks itself, by an address that no certificate names: that is for clients to check.
        trusting = ssl._create_unverified_context()  # noqa: S323, SLF001
        connection = http.client.HTTPSConnection(*address, timeout=TIMEOUT_S, context=trusting)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"tailrace: nothing answers at {address[0]}, port {address[1]}: {str(error) or repr(error)}")
    finally:
        connection.close()
    # 421: the service is there, and does not know itself by this address.
    sys.exit(0 if status in {200, http.client.MISDIRECTED_REQUEST} else f"tailrace: it answers {status}")
