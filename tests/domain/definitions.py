"""Definitions for the tests of this room, and the verbs they read by."""

from service.domain.definition import parse_definition
from service.domain.fields import child
from service.errors import Fault, InvalidInput


class Probe:
    """A step type that wants a text ``do`` and says ``again`` when it may be repeated."""

    holds_slot = True

    def check(self, config, pointer):
        faults = [
            Fault(child(pointer, key), "unknown") for key in config if key not in ("do", "again", "with")
        ]
        return (
            faults if isinstance(config.get("do", ""), str) else [*faults, Fault(f"{pointer}/do", "no text")]
        )

    def repeatable(self, config):
        return bool(config.get("again"))


class Pause(Probe):
    holds_slot = False


KINDS = {"probe": Probe(), "pause": Pause()}


def parse(raw, *, steps_max=1000, pointer=""):
    return parse_definition(raw, kinds=KINDS, steps_max=steps_max, pointer=pointer)


def step(**members):
    return {"type": "probe", **members}


def faults_of(raw, **options):
    """Return the faults as (pointer, message); none for a definition that is good."""
    try:
        parse(raw, **options)
    except InvalidInput as error:
        if not error.faults:
            raise AssertionError("refused without a fault") from error
        return [(fault.pointer, fault.message) for fault in error.faults]
    return []


def resolve(raw, pointer):
    """Return what an RFC 6901 pointer points to. Raises LookupError when that is nothing."""
    value = raw
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value
