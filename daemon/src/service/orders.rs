//! What the daemon is told from outside: to read its configuration again, or to stop.

use std::future::Future;
use std::io::{self, IsTerminal};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// What the daemon is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// Stop.
    Stop,
}

/// Where orders come from.
pub trait Orders {
    /// The next order. Whoever gives up waiting for it loses none.
    fn next(&mut self) -> impl Future<Output = Order>;
}

/// Orders of another part of the program; to stop when it is gone.
impl Orders for mpsc::Receiver<Order> {
    async fn next(&mut self) -> Order {
        self.recv().await.unwrap_or(Order::Stop)
    }
}

/// Orders by signal: SIGHUP to reload, SIGTERM and SIGINT to stop.
pub struct Signals {
    hang_up: Signal,
    /// Terminate and interrupt: until the first wait they end the process at once, however far the model
    /// is loaded.
    ends: Option<(Signal, Signal)>,
    /// Whether there was a terminal whose loss is a hang-up, too.
    had_terminal: bool,
}

impl Signals {
    /// Keeps SIGHUP from ending the process from now on.
    ///
    /// Errors: no handler can be set.
    pub fn new() -> io::Result<Self> {
        let hang_up = signal(SignalKind::hangup())?;
        Ok(Self { hang_up, ends: None, had_terminal: io::stdout().is_terminal() })
    }

    /// Waits for the signals that end the process. Without handlers they do that by themselves.
    async fn end(ends: &mut Option<(Signal, Signal)>) {
        if ends.is_none() {
            let both = signal(SignalKind::terminate())
                .and_then(|first| signal(SignalKind::interrupt()).map(|second| (first, second)));
            *ends = both.inspect_err(|error| tracing::warn!(%error, "signals stop the daemon at once")).ok();
        }
        let Some((terminate, interrupt)) = ends else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    }
}

impl Orders for Signals {
    async fn next(&mut self) -> Order {
        tokio::select! {
            biased;
            () = Self::end(&mut self.ends) => Order::Stop,
            _ = self.hang_up.recv() => match self.had_terminal && !io::stdout().is_terminal() {
                true => Order::Stop,
                false => Order::Reload,
            },
        }
    }
}
