//! Logging: structured fields under systemd, a human log otherwise.
