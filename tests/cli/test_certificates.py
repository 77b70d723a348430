"""The doctor and a service that speaks TLS itself: whether its certificate holds, and how it is all the same."""

import signal
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cli.test_doctor import examined
from tests.server import Server

HERE = x509.IPAddress(ip_address("127.0.0.1"))
ELSEWHERE = x509.DNSName("tailrace.example.org")
PEM = serialization.Encoding.PEM


class Secured(Server):
    """A service with a certificate for ``name`` that ends in ``days``, which is its own authority."""

    def __init__(self, directory, name, days):
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tailrace")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.certificate, self.tls_key = directory / "cert.pem", directory / "key.pem"
        self.certificate.write_bytes(certificate.public_bytes(PEM))
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.tls_key.write_bytes(key.private_bytes(PEM, *form))
        super().__init__(directory, TAILRACE_TLS_CERT=self.certificate, TAILRACE_TLS_KEY=self.tls_key)

    def wait_until_ready(self) -> None:
        """Leave that to the doctor: this one's requests speak no TLS."""


@pytest.mark.parametrize(
    ("name", "days", "trusted", "found"),
    [
        (HERE, 2, True, None),
        (ELSEWHERE, 2, True, ("warn", "not valid for '127.0.0.1'")),
        (HERE, 2, False, ("warn", "self-signed")),
        (HERE, -1, True, ("fail", "has expired")),
    ],
    ids=["good", "another name", "nobody's", "expired"],
)
def test_what_its_certificate_is_worth_and_how_it_is(tmp_path, name, days, trusted, found):
    with Secured(tmp_path, name, days) as server:
        given = {"SSL_CERT_FILE": server.certificate} if trusted else {}
        told = examined(tmp_path, **given)
        assert f"answers at https://127.0.0.1:{server.port}" in told.said("service")
        about = [(status, said) for status, said in told.of("service") if "its certificate" in said]
        assert [status for status, _ in about] == ([] if found is None else [found[0]])
        assert found is None or found[1] in about[0][1]


def test_a_service_that_hangs_behind_a_certificate_for_another_name(tmp_path):
    with Secured(tmp_path, ELSEWHERE, 2) as server:
        given = {"SSL_CERT_FILE": server.certificate}
        server.process.send_signal(signal.SIGSTOP)
        try:
            ((status, said),) = examined(tmp_path, **given).of("service")
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert (status, "does not answer" in said) == ("fail", True)


def test_a_name_that_the_certificate_does_not_have_is_no_way_for_clients(tmp_path):
    with Secured(tmp_path, ELSEWHERE, 2) as server:
        url = f"https://127.0.0.1:{server.port}"
        ((status, said),) = examined(tmp_path, "--url", url, SSL_CERT_FILE=server.certificate).of("proxy")
        assert (status, "not valid for '127.0.0.1'" in said) == ("fail", True)
