"""The settings: every bad value is refused at once, by name, with what would be right."""

import random

import pytest

from service.errors import InvalidInput
from service.ops import values
from service.ops.settings import SETTINGS, Settings, unknown_names
from service.steps.addresses import parse_allowed


def faults(environ=None, **flags) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        Settings.load(environ or {}, **flags)
    return {fault.pointer: fault.message for fault in caught.value.faults}


def test_the_defaults_are_the_service_on_loopback():
    settings = Settings.load({})
    assert settings == Settings()
    assert (settings.port, str(settings.db), settings.commands) == (8080, "tailrace.db", ("*",))
    assert (settings.ping_interval_s, settings.pong_timeout_s, settings.drain_timeout_s) == (54, 60, 30)


def test_a_flag_wins_over_the_environment():
    environ = {"TAILRACE_PORT": "1", "TAILRACE_MAX_RUNS": "2"}
    settings = Settings.load(environ, port="3", max_runs=None)
    assert (settings.port, settings.max_runs) == (3, 2)


def test_a_bad_flag_is_not_hidden_by_a_good_variable():
    assert faults({"TAILRACE_PORT": "1"}, port="x").keys() == {"TAILRACE_PORT"}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_is_a_field_and_its_default_is_a_good_value(setting):
    assert hasattr(Settings(), setting.name)
    if setting.name != "host" and getattr(Settings(), setting.name) is not None:
        assert setting.parse(setting.default) is not None
    assert setting.help.endswith(".")


def test_there_is_a_setting_for_each_field():
    assert {setting.name for setting in SETTINGS} | {"secrets"} == set(Settings.__struct_fields__)


BAD = [
    ("TAILRACE_PORT", "65536", "a whole number from 0 to 65535"),
    ("TAILRACE_PORT", "tcp://10.0.0.1:80", "a whole number"),
    ("TAILRACE_PORT", "-1", "a whole number"),
    ("TAILRACE_PORT", "\u0663", "a whole number"),
    ("TAILRACE_PORT", "", "a whole number"),
    ("TAILRACE_MAX_RUNS", "0", "from 1 to"),
    ("TAILRACE_MAX_EVENTS_PER_RUN", "999", "from 1000 to"),
    ("TAILRACE_PING_INTERVAL_S", "0", "seconds from 0.05 to 3600"),
    ("TAILRACE_PING_INTERVAL_S", "nan", "seconds"),
    ("TAILRACE_DRAIN_TIMEOUT_S", "1e9", "seconds"),
    ("TAILRACE_HOST", "http://x", "an address or a host name"),
    ("TAILRACE_DB", "", "path of a file"),
    ("TAILRACE_HOSTS", "a.example,http://b", "'http://b' is not a host"),
    ("TAILRACE_ORIGINS", "b.example", "'b.example' is not an origin"),
    ("TAILRACE_ORIGINS", "https://b.example/path", "is not an origin"),
    ("TAILRACE_HTTP_ALLOW", "10.0.0.1/8", "host bits set"),
    ("TAILRACE_HTTP_ALLOW", "db.internal,localhost:8080", "'localhost:8080' is not a host's name"),
    ("TAILRACE_HTTP_ALLOW", "*.example.com", "no port, no *"),
    ("TAILRACE_HTTP_ALLOW", "127.1", "an address, or a network such as 10.0.0.0/8"),
    ("TAILRACE_ENV", "HOME,a-b", "'a-b' is not the name"),
    ("TAILRACE_ENV", "TAILRACE_SECRET_KEY", "workflows read it as secrets.KEY"),
    ("TAILRACE_DIAGNOSTICS", "xml", "auto, json, console"),
    ("TAILRACE_BEHIND_PROXY", "proxy.example", "an address or a network"),
    ("TAILRACE_BEHIND_PROXY", "10.0.0.1/8", "host bits set"),
    ("TAILRACE_BEHIND_PROXY", "10.0.0.7,0.0.0.0/0", "0.0.0.0/0 is everybody"),
    ("TAILRACE_BEHIND_PROXY", "::/0", "::/0 is everybody"),
    ("TAILRACE_JWT_LEEWAY_S", "301", "seconds from 0 to 300"),
    ("TAILRACE_MAX_WATCHERS_PER_IP", "-1", "from 0 to"),
    ("TAILRACE_SECRET_A-B", "x", "letters, digits and _"),
    ("TAILRACE_SECRET_A", "\udcff", "is not text in UTF-8"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_a_bad_value_is_refused_by_name(name, value, message):
    found = faults({name: value})
    assert found.keys() == {name}
    assert message in found[name]


def takes(parse, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


REACHABLE = """
localhost:8080 *.example.com * 127.1 [::1]:80 münchen.de a..b 2130706433 [::1] ::1 10.0.0.0/8 10.0.0.1/8 a/b
Db.Internal. db_1.x-y x. . - a-1 a1 1a 0x7f.1 fe80::1%eth0 [10.0.0.7] 10.0.0.7/32 ::/0 K.example http://a u@h
"""


def test_http_steps_take_every_host_that_the_settings_take_and_no_other():
    rng = random.Random(7)
    made_up = ["".join(rng.choices("aZ01.-_:/[]*", k=rng.randint(1, 6))) for _ in range(5_000)]
    for text in [*REACHABLE.split(), *made_up]:
        assert takes(values.reachable, text) == takes(lambda item: parse_allowed((item,)), text), text


def test_all_bad_values_are_named_at_once():
    assert len(faults({name: value for name, value, _ in BAD})) == len({name for name, _, _ in BAD})


def test_a_secret_s_value_is_in_no_text_about_the_settings():
    settings = Settings.load({"TAILRACE_SECRET_KEY": "hunter2"})
    assert settings.secrets == {"KEY": "hunter2"}
    assert "hunter2" not in repr(settings) + str(settings)
    assert "hunter2" not in str(faults({"TAILRACE_SECRET_A-B": "hunter2"}))


def test_only_named_variables_reach_workflows():
    settings = Settings.load({"TAILRACE_ENV": "HOME, LANG,UNSET", "HOME": "/h", "LANG": "C", "PATH": "/p"})
    assert settings.env == {"HOME": "/h", "LANG": "C"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "tail.example"])
def test_outside_loopback_everything_has_to_be_decided(host, tmp_path):
    db = {"TAILRACE_DB": str(tmp_path / "t.db")}
    found = faults({"TAILRACE_HOST": host, **db})
    assert found.keys() == {"TAILRACE_COMMANDS", "TAILRACE_HOST", "TAILRACE_TLS_CERT"}
    assert "tailrace keys create" in found["TAILRACE_HOST"]
    (tmp_path / "t.db.keys").touch()
    decided = {"TAILRACE_HOST": host, "TAILRACE_BEHIND_PROXY": "10.0.0.0/8", **db}
    assert faults(decided).keys() == {"TAILRACE_COMMANDS"}
    for commands, expected in (("*", ("*",)), ("", ()), ("git, /bin/ls", ("git", "/bin/ls"))):
        settings = Settings.load({**decided, "TAILRACE_COMMANDS": commands})
        assert (settings.host, settings.commands) == (host, expected)


def test_behind_a_proxy_on_this_machine_commands_and_credentials_are_decided(tmp_path):
    behind = {"TAILRACE_BEHIND_PROXY": "127.0.0.1", "TAILRACE_DB": str(tmp_path / "t.db")}
    unseen = {"TAILRACE_COMMANDS": "", "TAILRACE_DB": str(tmp_path / ("x" * 300))}
    found = faults(behind | unseen)
    assert found.keys() == {"TAILRACE_DB"}
    assert "its keys cannot be looked for: File name too long" in found["TAILRACE_DB"]
    found = faults(behind)
    assert found.keys() == {"TAILRACE_COMMANDS", "TAILRACE_BEHIND_PROXY"}
    assert "behind a proxy" in found["TAILRACE_COMMANDS"]
    assert "tailrace keys create" in found["TAILRACE_BEHIND_PROXY"]
    (tmp_path / "t.db.keys").touch()
    assert faults(behind).keys() == {"TAILRACE_COMMANDS"}
    assert Settings.load({**behind, "TAILRACE_COMMANDS": "*"}).commands == ("*",)


def test_settings_that_belong_together_are_given_together(tmp_path):
    there = tmp_path / "x.pem"
    there.touch()
    assert faults({"TAILRACE_TLS_CERT": str(there)}).keys() == {"TAILRACE_TLS_KEY"}
    found = faults({"TAILRACE_JWT_KEY_FILE": str(there)})
    assert found.keys() == {"TAILRACE_JWT_ISSUER", "TAILRACE_JWT_AUDIENCE"}
    assert "belong together" in found["TAILRACE_JWT_ISSUER"]
    assert "cannot be read" in faults({"TAILRACE_TLS_KEY": str(tmp_path / "no.pem")})["TAILRACE_TLS_KEY"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_on_loopback_any_command_may_run(host):
    assert Settings.load({"TAILRACE_HOST": host}).commands == ("*",)


def test_an_unknown_variable_is_noticed_and_the_near_one_named():
    environ = {
        "TAILRACE_MAX_RUN": "1",
        "TAILRACE_SECRET_X": "1",
        "TAILRACE_PORT": "1",
        "PATH": "",
        "TAILRACE_QQQ": "",
    }
    assert dict(unknown_names(environ)) == {"TAILRACE_MAX_RUN": "TAILRACE_MAX_RUNS", "TAILRACE_QQQ": None}
