//! `mobilevlmd watch`: prints captions and alerts as they are published.

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;

use super::Failure;
use super::terminal::Look;
use crate::bus::client::{Client, Connect, Seen};

mod printer;

use printer::Printer;

/// Prints captions and alerts as they are published
///
/// On a terminal a caption grows as it is written. A daemon that is restarted is waited for.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of a camera; all cameras if left out
    camera: Option<String>,
    /// Print alerts only
    #[arg(long)]
    alerts: bool,
    /// Print each caption, or with --alerts each alert, as one JSON object per line
    #[arg(long)]
    json: bool,
    /// Stop after this many captions, or with --alerts this many alerts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    connect: Connect,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let client = Client::connect(&args.connect)?;
    let stdout = io::stdout();
    let is_live = stdout.is_terminal() && !args.json;
    let look = if is_live { Look::of_terminal() } else { Look::plain() };
    let mut printer = Printer::new(stdout.lock(), args.json, look);
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut outcome = Ok(());
    client.watch(args.camera.as_deref(), is_live && !args.alerts, |seen| {
        let is_alert = matches!(seen, Seen::Alert(_));
        let is_caption = matches!(seen, Seen::Caption(_));
        // A script is given messages of one kind only.
        if is_alert && args.json && !args.alerts || is_caption && args.alerts {
            return ControlFlow::Continue(());
        }
        left -= u64::from(if args.alerts { is_alert } else { is_caption });
        outcome = printer.print(&seen);
        if left == 0 || outcome.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match outcome {
        // Whoever read the captions has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
