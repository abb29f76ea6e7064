//! A Python client subscribes, asks and is answered.
