//! Readiness, watchdog and status for the service manager.
