"""Messages of ROS 2 as other programs know them: fields, hashes, and samples that both sides write."""

import hashlib
import json
from dataclasses import dataclass

from pycdr2 import IdlStruct
from pycdr2.types import float64, int32, sequence, uint8, uint32


@dataclass
class Time(IdlStruct, typename="builtin_interfaces/Time"):
    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs/Header"):
    stamp: Time
    frame_id: str


@dataclass
class String(IdlStruct, typename="std_msgs/String"):
    data: str


@dataclass
class Image(IdlStruct, typename="sensor_msgs/Image"):
    header: Header
    height: uint32
    width: uint32
    encoding: str
    is_bigendian: uint8
    step: uint32
    data: sequence[uint8]


@dataclass
class CompressedImage(IdlStruct, typename="sensor_msgs/CompressedImage"):
    header: Header
    format: str
    data: sequence[uint8]


@dataclass
class ObjectHypothesis(IdlStruct, typename="vision_msgs/ObjectHypothesis"):
    class_id: str
    score: float64


@dataclass
class Classification(IdlStruct, typename="vision_msgs/Classification"):
    header: Header
    results: sequence[ObjectHypothesis]


@dataclass
class KeyValue(IdlStruct, typename="diagnostic_msgs/KeyValue"):
    key: str
    value: str


@dataclass
class DiagnosticStatus(IdlStruct, typename="diagnostic_msgs/DiagnosticStatus"):
    level: uint8
    name: str
    message: str
    hardware_id: str
    values: sequence[KeyValue]


@dataclass
class DiagnosticArray(IdlStruct, typename="diagnostic_msgs/DiagnosticArray"):
    header: Header
    status: sequence[DiagnosticStatus]


HEADER = Header(Time(1_700_000_000, 5), "front_optical")
EARLY = Header(Time(-1, 999_999_999), "")
STATUS = DiagnosticStatus(0, "front", "A red box.", "robot-1", [KeyValue("sequence", "7"), KeyValue("", "")])

# The same in tests/bus/ros.rs, in the same order.
SAMPLES = [
    String(""),
    String("A red box moves."),
    String("\u00fcber \u2603"),
    Image(HEADER, 1, 2, "rgb8", 0, 6, list(range(6))),
    CompressedImage(EARLY, "jpeg", [255, 216, 0]),
    Classification(HEADER, [ObjectHypothesis("door", 0.75), ObjectHypothesis("", -1.5)]),
    Classification(EARLY, []),
    DiagnosticArray(HEADER, [STATUS, DiagnosticStatus(2, "", "", "", [])]),
]

# Fields of the types by name, from the interface files of ROS 2; constants do not count.
FIELDS = {
    "builtin_interfaces/msg/Time": "int32 sec, uint32 nanosec",
    "std_msgs/msg/Header": "builtin_interfaces/msg/Time stamp, string frame_id",
    "std_msgs/msg/String": "string data",
    "sensor_msgs/msg/Image": "std_msgs/msg/Header header, uint32 height, uint32 width, string encoding, "
    "uint8 is_bigendian, uint32 step, uint8[] data",
    "sensor_msgs/msg/CompressedImage": "std_msgs/msg/Header header, string format, uint8[] data",
    "vision_msgs/msg/ObjectHypothesis": "string class_id, float64 score",
    "vision_msgs/msg/Classification": "std_msgs/msg/Header header, vision_msgs/msg/ObjectHypothesis[] results",
    "diagnostic_msgs/msg/KeyValue": "string key, string value",
    "diagnostic_msgs/msg/DiagnosticStatus": "byte level, string name, string message, string hardware_id, "
    "diagnostic_msgs/msg/KeyValue[] values",
    "diagnostic_msgs/msg/DiagnosticArray": "std_msgs/msg/Header header, diagnostic_msgs/msg/DiagnosticStatus[] status",
}
NESTED = 1
NUMBERS = {"uint8": 3, "int32": 6, "uint32": 7, "float64": 11, "byte": 16, "string": 17}
SEQUENCE = 144


def fields(name):
    """Names and types of fields, and whether they are sequences."""
    for field in FIELDS[name].split(", "):
        kind, name = field.split(" ")
        yield name, kind.removesuffix("[]"), kind.endswith("[]")


def description(name):
    listed = []
    for field, kind, is_sequence in fields(name):
        number = NUMBERS.get(kind, NESTED) + (SEQUENCE if is_sequence else 0)
        nested = kind if kind in FIELDS else ""
        about = {"type_id": number, "capacity": 0, "string_capacity": 0, "nested_type_name": nested}
        listed.append({"name": field, "type": about})
    return {"type_name": name, "fields": listed}


def nested(name):
    found = {kind for _, kind, _ in fields(name) if kind in FIELDS}
    return found.union(*map(nested, found))


def type_hash(name):
    """The hash of a type's description, as ROS 2 defines it (REP 2011)."""
    others = [description(other) for other in sorted(nested(name))]
    whole = {"type_description": description(name), "referenced_type_descriptions": others}
    return "RIHS01_" + hashlib.sha256(json.dumps(whole).encode()).hexdigest()
