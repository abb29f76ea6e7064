"""Compares messages with an independent implementation of CDR.

    ros_cdr.py HEX...

The samples as someone else wrote them come as hexadecimal text; they must read as what they are. Prints the
samples as written here, a line each, then the hash of each type that has a topic.
"""

import sys

from ros_messages import SAMPLES, type_hash

assert len(sys.argv) - 1 == len(SAMPLES), sys.argv
for sample, theirs in zip(SAMPLES, sys.argv[1:]):
    read = type(sample).deserialize(bytes.fromhex(theirs))
    assert read == sample, (read, sample)
    print(sample.serialize().hex())
for name in [
    "std_msgs/msg/String",
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "vision_msgs/msg/Classification",
    "diagnostic_msgs/msg/DiagnosticArray",
]:
    print(name, type_hash(name))
