//! Readiness, watchdog and status for the service manager; memory and temperature of the machine.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Tells the service manager how the daemon is. Without one, every call does nothing.
#[derive(Debug)]
pub struct Health {
    watchdog: Option<Watchdog>,
    is_ready: bool,
    status: String,
}

impl Health {
    /// Takes the watchdog interval that the service manager asks for, if any.
    pub fn new() -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| Watchdog::new(limit, Instant::now()));
        Self { watchdog, is_ready: false, status: String::new() }
    }

    /// Start-up is still under way: asks for `more` time and tells what is being done.
    pub fn starting(&mut self, what: &str, more: Duration) {
        let micros = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
        send(&[NotifyState::ExtendTimeoutUsec(micros)]);
        self.status(what);
    }

    /// The model has answered: the service is up. Only the first call tells so.
    pub fn ready(&mut self) {
        if !self.is_ready {
            self.is_ready = true;
            send(&[NotifyState::Ready]);
            tracing::info!("ready");
        }
    }

    /// The configuration is being read again, until [`Health::reloaded`].
    pub fn reloading(&mut self) {
        // Newer service managers match the answer to their order by this clock.
        let now = NotifyState::monotonic_usec_now();
        let mut states = vec![NotifyState::Reloading];
        states.extend(
            now.inspect_err(|error| tracing::debug!(%error, "no clock for the service manager")).ok(),
        );
        send(&states);
    }

    /// The configuration was taken up or refused: the service is up as before.
    pub fn reloaded(&mut self) {
        send(&[NotifyState::Ready]);
    }

    /// Tells in a line what the daemon does; the same line is not sent twice in a row.
    pub fn status(&mut self, status: &str) {
        if self.status != status {
            self.status = status.to_owned();
            send(&[NotifyState::Status(status)]);
        }
    }

    /// Feeds the watchdog if the engine has done something since the last time. `progress` is any
    /// counter that grows while the engine is healthy, idle or not.
    pub fn feed(&mut self, progress: u64) {
        if self.watchdog.as_mut().is_some_and(|watchdog| watchdog.is_due(progress, Instant::now())) {
            send(&[NotifyState::Watchdog]);
        }
    }

    /// The daemon is going down.
    pub fn stopping(&mut self) {
        send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// A service manager that does not listen is no reason to stop.
fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not reached");
    }
}

/// Decides when the service manager hears from us: at most four times per interval, and only after
/// progress.
#[derive(Debug)]
struct Watchdog {
    pause: Duration,
    last_ping: Instant,
    last_progress: u64,
}

impl Watchdog {
    fn new(limit: Duration, now: Instant) -> Self {
        Self { pause: limit / 4, last_ping: now, last_progress: 0 }
    }

    fn is_due(&mut self, progress: u64, now: Instant) -> bool {
        if progress == self.last_progress || now.duration_since(self.last_ping) < self.pause {
            return false;
        }
        self.last_progress = progress;
        self.last_ping = now;
        true
    }
}

/// Resident memory of this process in bytes, mapped files included; 0 if the kernel tells nothing.
pub fn resident_bytes() -> u64 {
    let kib = |line: &str| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(kib).unwrap_or(0) * 1024
}

/// Hottest thermal zone in degrees Celsius, if the machine has any.
pub fn temperature_c() -> Option<f32> {
    hottest(Path::new("/sys/class/thermal"))
}

/// Zones that are switched off give errors or absurd numbers, which are left out.
fn hottest(thermal: &Path) -> Option<f32> {
    fs::read_dir(thermal)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry.file_name().to_str()?.strip_prefix("thermal_zone")?;
            let millidegrees: f32 =
                fs::read_to_string(entry.path().join("temp")).ok()?.trim().parse().ok()?;
            Some(millidegrees / 1000.0)
        })
        .filter(|celsius| (-60.0..=200.0).contains(celsius))
        .max_by(f32::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_engine_is_not_reported_alive() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut watchdog = Watchdog::new(Duration::from_secs(4), start);
        assert!(!watchdog.is_due(1, at(10)), "too early");
        assert!(watchdog.is_due(2, at(1000)));
        assert!(!watchdog.is_due(2, at(2500)), "no progress");
        assert!(!watchdog.is_due(2, at(100_000)), "still no progress");
        assert!(watchdog.is_due(3, at(100_001)), "it moves again");
    }

    #[test]
    fn memory_of_this_process_is_known() {
        assert!(resident_bytes() > 1 << 20);
    }

    #[test]
    fn the_hottest_zone_counts() {
        let root = std::env::temp_dir().join(format!("mobilevlmd-thermal-{}", std::process::id()));
        for (zone, temp) in [
            ("thermal_zone0", "41500\n"),
            ("thermal_zone1", "55250\n"),
            ("thermal_zone2", "-256000\n"),
            ("cooling_device0", "99000\n"),
            ("thermal_zone3", "broken\n"),
        ] {
            fs::create_dir_all(root.join(zone)).expect("folder");
            fs::write(root.join(zone).join("temp"), temp).expect("file");
        }
        assert_eq!(hottest(&root), Some(55.25));
        assert_eq!(hottest(&root.join("thermal_zone0")), None);
        fs::remove_dir_all(&root).expect("removed");
    }
}
