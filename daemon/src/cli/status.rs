//! `mobilevlmd status`: prints the daemon's status.

use std::fmt::{self, Write};

use messages::{
    BusStatus, CameraPhase, CameraStatus, DraftStatus, EngineStatus, Format, Latency, RulePhase, RuleStatus,
    Status, encode,
};

use super::Failure;
use crate::bus::client::{Client, Connect};

/// Prints the daemon's status
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let status = Client::connect(&args.connect)?.status()?;
    if args.json {
        say!("{}", String::from_utf8_lossy(&encode(&status, Format::Json)));
    } else {
        let mut text = String::new();
        write_status(&mut text, &status)?;
        say!("{}", text.trim_end());
    }
    Ok(())
}

const MIB: f64 = 1024.0 * 1024.0;

fn write_status(out: &mut impl Write, status: &Status) -> fmt::Result {
    let Status { model, engine, cache, .. } = status;
    write!(out, "{}: mobilevlmd {}, up {}", status.device, status.version, duration(status.uptime_s))?;
    write!(out, ", {:.0} MiB resident", status.resident_bytes as f64 / MIB)?;
    match status.temperature_c {
        Some(celsius) => writeln!(out, ", {celsius:.0} C")?,
        None => writeln!(out)?,
    }
    writeln!(
        out,
        "model    {}: {}, {:.0} MiB on {}",
        model.id,
        model.weights,
        model.weight_bytes as f64 / MIB,
        model.device
    )?;
    write!(
        out,
        "engine   encode {:.0} ms, prefill {:.1} tok/s",
        engine.encode_ms, engine.prefill_tokens_per_second
    )?;
    writeln!(
        out,
        ", decode {:.1} tok/s, longest unit {:.0} ms",
        engine.decode_tokens_per_second, engine.longest_unit_ms
    )?;
    write!(out, "         {} images, {} questions answered", engine.images, engine.questions_answered)?;
    write!(out, ", {} failed, {} refused", engine.questions_failed, engine.questions_refused)?;
    writeln!(out, ", {} waiting", engine.questions_waiting)?;
    write_bus(out, &status.bus)?;
    write_drafts(out, engine)?;
    write_stages(out, engine)?;
    let prompt = cache.positions_reused + cache.positions_computed;
    let reused = if prompt == 0 { 0.0 } else { 100.0 * cache.positions_reused as f64 / prompt as f64 };
    writeln!(
        out,
        "KV cache {} of {} pages, {:.0} MiB, {reused:.0} % of prompt positions reused, {} evictions",
        cache.pages_used,
        cache.pages,
        cache.bytes as f64 / MIB,
        cache.evicted
    )?;
    status.cameras.iter().try_for_each(|camera| write_camera(out, camera))?;
    status.rules.iter().try_for_each(|rule| write_rule(out, rule))
}

/// Questions and requests with their ends, and the neighbours.
fn write_bus(out: &mut impl Write, bus: &BusStatus) -> fmt::Result {
    let BusStatus { questions, answered, failed, open, requests, requests_failed, .. } = bus;
    write!(
        out,
        "bus      {} neighbours; {questions} questions: {answered} answered, {open} open",
        bus.neighbours
    )?;
    for (kind, number) in failed.kinds().iter().filter(|(_, number)| *number > 0) {
        write!(out, ", {number} {kind}")?;
    }
    write!(out, "; {requests} other requests, {requests_failed} failed")?;
    if bus.strangers > 0 {
        write!(out, "; {} strangers turned away", bus.strangers)?;
    }
    if bus.too_slow > 0 {
        write!(out, "; {} neighbours disconnected that did not read", bus.too_slow)?;
    }
    writeln!(out)
}

fn write_rule(out: &mut impl Write, rule: &RuleStatus) -> fmt::Result {
    let phase = match rule.phase {
        RulePhase::Quiet => "quiet",
        RulePhase::Rising => "rising",
        RulePhase::Active => "ALERT",
    };
    write!(out, "rule     {} on {}: {phase}", rule.rule, rule.camera)?;
    match rule.p_yes {
        Some(p_yes) => write!(out, ", yes: {:.0} %", 100.0 * p_yes)?,
        None => out.write_str(", not evaluated yet")?,
    }
    write!(out, "; {} evaluations", rule.evaluations)?;
    writeln!(out, ", last one {:.1} ms, {} alerts", rule.evaluation_ms, rule.alerts)
}

/// How drafts and sessions fare, as far as there are any.
fn write_drafts(out: &mut impl Write, engine: &EngineStatus) -> fmt::Result {
    let DraftStatus { proposed, accepted, tokens, passes } = engine.drafts;
    if passes > 0 {
        write!(out, "drafts   {:.2} tokens per pass", tokens as f64 / passes as f64)?;
        writeln!(out, ", {accepted} of {proposed} drafted tokens right")?;
    }
    if engine.sessions > 0 || engine.sessions_recomputed > 0 {
        write!(out, "sessions {} open", engine.sessions)?;
        writeln!(out, ", earlier turns computed again {} times", engine.sessions_recomputed)?;
    }
    Ok(())
}

/// A line for every stage that has run.
fn write_stages(out: &mut impl Write, engine: &EngineStatus) -> fmt::Result {
    let stages = &engine.stages;
    let lines = [
        ("question: queue", stages.queue),
        ("question: first token", stages.first_token),
        ("question: answer", stages.answer),
        ("caption", stages.caption),
        ("preprocess", stages.preprocess),
        ("encode", stages.encode),
        ("picture to cache", stages.picture),
        ("pass with a prompt", stages.prefill),
        ("pass of tokens", stages.decode),
        ("unit", stages.unit),
    ];
    for (name, latency) in lines.iter().filter(|(_, latency)| latency.count > 0) {
        let Latency { count, median_ms, p99_ms, worst_ms } = latency;
        write!(out, "         {name:<21} {median_ms:>8.1} ms median, {p99_ms:.1} p99")?;
        writeln!(out, ", {worst_ms:.1} worst of {count}")?;
    }
    Ok(())
}

fn write_camera(out: &mut impl Write, camera: &CameraStatus) -> fmt::Result {
    let CameraStatus { state, source, .. } = camera;
    write!(out, "camera   {}: {}", state.camera, phase(state.phase))?;
    if !state.reason.is_empty() {
        write!(out, " ({})", state.reason)?;
    }
    writeln!(out, ", {source}")?;
    write!(out, "         {} frames, {:.1} per second", camera.frames, camera.frames_per_second)?;
    write!(out, ", {} replaced, {} lost, {} damaged", camera.replaced, camera.lost, camera.damaged)?;
    write!(out, "; {} captions, {} too old", camera.captions, camera.too_old)?;
    write!(out, ", {} unchanged", camera.unchanged)?;
    writeln!(out, ", last one {:.2} s old", camera.caption_age_ms / 1000.0)
}

fn phase(phase: CameraPhase) -> &'static str {
    match phase {
        CameraPhase::Opening => "opening",
        CameraPhase::Live => "live",
        CameraPhase::Stalled => "stalled",
        CameraPhase::Gone => "gone",
        CameraPhase::Reopening => "reopening",
        CameraPhase::Ended => "ended",
        CameraPhase::Absent => "absent",
        CameraPhase::Failing => "failing",
    }
}

/// Seconds in words: `45 s`, `3 min 20 s`, `2 h 5 min`, `4 d 1 h`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use messages::ErrorCounts;

    use super::*;

    #[test]
    fn durations_read_well() {
        let texts = [0.9, 59.9, 60.0, 7499.0, 349_200.0].map(duration);
        assert_eq!(texts, ["0 s", "59 s", "1 min 0 s", "2 h 4 min", "4 d 1 h"]);
    }

    #[test]
    fn stages_that_ran_have_their_lines() {
        let mut status = Status::default();
        status.engine.stages.encode = Latency { count: 7, median_ms: 450.0, p99_ms: 500.0, worst_ms: 612.5 };
        let mut text = String::new();
        write_status(&mut text, &status).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("median")).collect();
        let line = "         encode                   450.0 ms median, 500.0 p99, 612.5 worst of 7";
        assert_eq!(lines, [line]);
    }

    #[test]
    fn how_questions_ended_is_told() {
        let failed = ErrorCounts { overloaded: 3, cancelled: 1, ..ErrorCounts::default() };
        let bus =
            BusStatus { questions: 9, answered: 4, failed, open: 1, too_slow: 2, ..BusStatus::default() };
        let mut text = String::new();
        write_bus(&mut text, &bus).unwrap();
        let expected = "bus      0 neighbours; 9 questions: 4 answered, 1 open, 3 overloaded, 1 cancelled; \
                        0 other requests, 0 failed; 2 neighbours disconnected that did not read\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_camera_and_rule_has_its_lines() {
        let mut status = Status { device: "robot".into(), ..Status::default() };
        for (name, reason) in [("front", ""), ("rear", "no such device")] {
            let mut camera = CameraStatus { source: "test:".into(), ..CameraStatus::default() };
            camera.state.camera = name.into();
            camera.state.reason = reason.into();
            status.cameras.push(camera);
        }
        let (rule, camera) = ("door".into(), "front".into());
        let phase = RulePhase::Active;
        status.rules.push(RuleStatus { rule, camera, phase, p_yes: Some(0.931), ..RuleStatus::default() });
        let mut text = String::new();
        write_status(&mut text, &status).unwrap();
        assert!(text.contains("camera   front: opening, test:\n"), "{text}");
        assert!(text.contains("camera   rear: opening (no such device), test:\n"), "{text}");
        assert!(text.contains("rule     door on front: ALERT, yes: 93 %; 0 evaluations"), "{text}");
    }
}
