//! Single choices of the scheduler.

use std::time::Duration;

use super::*;

const ROOM: Room = Room { rows: 192, sampled: 64, sequences: 64 };

fn second() -> Duration {
    Duration::from_secs(1)
}

/// A sequence that decodes.
fn job(class: Class, turn: Instant) -> JobView {
    JobView { class, turn, owed_at: None, rows: 1, is_prompt: false, draft: 0, lane: None }
}

fn prompt(class: Class, turn: Instant, rows: usize) -> JobView {
    JobView { rows, is_prompt: true, ..job(class, turn) }
}

fn camera(last_start: Option<Instant>) -> CameraView {
    CameraView { is_due: true, last_start, owed_at: None }
}

/// A view of nothing at `now`.
fn view(now: Instant) -> View<'static> {
    View { now, jobs: &[], wants: &[], cameras: &[], picture: None, turns: Turns::default() }
}

fn chosen(view: &View<'_>) -> Unit {
    next(view).0
}

/// `(job, rows, draft)` of those who share a pass.
fn shared(view: &View<'_>, lane: Lane, room: Room) -> Vec<(usize, usize, usize)> {
    let mut shares = Vec::new();
    share(view, lane, room, &mut shares);
    shares.iter().map(|share| (share.job, share.rows, share.draft)).collect()
}

#[test]
fn without_work_it_waits() {
    let now = Instant::now();
    assert_eq!(chosen(&view(now)), Unit::Wait);
    let idle = CameraView { is_due: false, last_start: None, owed_at: Some(now) };
    assert_eq!(chosen(&View { cameras: &[idle], ..view(now) }), Unit::Wait);
}

#[test]
fn questions_go_before_captions_and_captions_before_pictures() {
    let now = Instant::now();
    let picture = Some(PictureView { owed_at: None });
    let (caption, question) = (job(Class::Caption, now), prompt(Class::Question, now, 20));
    let steady = JobView { lane: Some(Lane::Steady), ..caption };
    let cameras = [camera(None)];
    for (jobs, want) in [
        (&[caption, question][..], Unit::Begin(Lane::Urgent)),
        (&[steady, question], Unit::Begin(Lane::Urgent)),
        (&[steady], Unit::Continue(Lane::Steady)),
        (&[caption], Unit::Begin(Lane::Steady)),
        (&[], Unit::Encode),
    ] {
        assert_eq!(chosen(&View { jobs, picture, cameras: &cameras, ..view(now) }), want);
    }
    assert_eq!(chosen(&View { cameras: &cameras, ..view(now) }), Unit::Describe(0));
}

#[test]
fn a_short_pass_is_finished_so_that_the_next_one_carries_all() {
    let now = Instant::now();
    let steady = JobView { lane: Some(Lane::Steady), ..job(Class::Caption, now) };
    let long = JobView { draft: 9, ..steady };
    let (token, fresh) = (job(Class::Question, now), prompt(Class::Question, now, 20));
    assert_eq!(chosen(&View { jobs: &[steady, token], ..view(now) }), Unit::Continue(Lane::Steady));
    assert_eq!(chosen(&View { jobs: &[long, token], ..view(now) }), Unit::Begin(Lane::Urgent));
    assert_eq!(chosen(&View { jobs: &[steady, token, fresh], ..view(now) }), Unit::Begin(Lane::Urgent));
}

#[test]
fn pictures_for_questions_take_turns_with_passes() {
    let now = Instant::now();
    let wants = [
        WantView { question: 0, deadline: now + 2 * second() },
        WantView { question: 3, deadline: now + second() },
    ];
    let jobs = [job(Class::Question, now)];
    let mut turns = Turns::default();
    let mut units = Vec::new();
    for _ in 0..4 {
        let (unit, after) = next(&View { jobs: &jobs, wants: &wants, turns, ..view(now) });
        units.push(unit);
        turns = after;
    }
    let (pass, picture) = (Unit::Begin(Lane::Urgent), Unit::PictureFor(3));
    assert_eq!(units, [pass, picture, pass, picture]);
    let encoding = View { wants: &wants, picture: Some(PictureView { owed_at: None }), ..view(now) };
    assert_eq!(chosen(&encoding), Unit::Encode);
}

#[test]
fn what_is_owed_takes_turns_with_questions() {
    let now = Instant::now();
    let jobs = [JobView { lane: Some(Lane::Urgent), ..job(Class::Question, now) }];
    let pass = Unit::Continue(Lane::Urgent);
    for (ago, units) in [(0, [pass, Unit::Describe(0)]), (1, [pass, Unit::Describe(0)])] {
        let owed_at = Some(now - ago * second());
        let cameras = [CameraView { owed_at, ..camera(Some(now)) }];
        let (first, turns) = next(&View { jobs: &jobs, cameras: &cameras, ..view(now) });
        let turns = Turns { was_steady: true, ..turns };
        let second = next(&View { jobs: &jobs, cameras: &cameras, turns, ..view(now) }).0;
        assert_eq!([second, first], units);
    }
    let later = [CameraView { owed_at: Some(now + second()), ..camera(Some(now)) }];
    assert_eq!(chosen(&View { jobs: &jobs, cameras: &later, ..view(now) }), pass);
}

#[test]
fn the_camera_that_waited_longest_is_next() {
    let now = Instant::now();
    let ago = |seconds| camera(Some(now - seconds * second()));
    assert_eq!(chosen(&View { cameras: &[ago(1), ago(5), ago(3)], ..view(now) }), Unit::Describe(1));
    assert_eq!(chosen(&View { cameras: &[ago(9), camera(None)], ..view(now) }), Unit::Describe(1));
}

#[test]
fn everybody_who_decodes_rides_with_questions() {
    let now = Instant::now();
    let owed = JobView { owed_at: Some(now), ..job(Class::Caption, now) };
    let jobs = [
        prompt(Class::Question, now + second(), 20),
        job(Class::Caption, now),
        prompt(Class::Rule, now, 30),
        owed,
        job(Class::Question, now),
        JobView { lane: Some(Lane::Steady), ..job(Class::Caption, now) },
    ];
    let view = View { jobs: &jobs, ..view(now) };
    assert_eq!(shared(&view, Lane::Urgent, ROOM), [(4, 1, 0), (1, 1, 0), (0, 20, 0)]);
    assert_eq!(shared(&view, Lane::Steady, ROOM), [(1, 1, 0), (3, 1, 0), (2, 30, 0)]);
}

#[test]
fn prompts_that_do_not_fit_get_equal_parts() {
    let now = Instant::now();
    let jobs = [prompt(Class::Question, now, 900), prompt(Class::Question, now + second(), 30)];
    let view = View { jobs: &jobs, ..view(now) };
    assert_eq!(shared(&view, Lane::Urgent, ROOM), [(0, 162, 0), (1, 30, 0)]);
    let narrow = Room { rows: 1, ..ROOM };
    assert_eq!(shared(&view, Lane::Urgent, narrow), [(0, 1, 0)]);
}

#[test]
fn drafts_take_what_is_left() {
    let now = Instant::now();
    let drafted = |class, draft| JobView { draft, ..job(class, now) };
    let jobs = [drafted(Class::Caption, 30), drafted(Class::Question, 3)];
    let view = View { jobs: &jobs, ..view(now) };
    assert_eq!(shared(&view, Lane::Urgent, ROOM), [(1, 1, 3), (0, 1, 3)], "beside questions it is cheap");
    assert_eq!(shared(&view, Lane::Steady, ROOM), [(0, 1, 30)]);
    let narrow = Room { sampled: 11, ..ROOM };
    assert_eq!(shared(&view, Lane::Steady, narrow), [(0, 1, 10)]);
    let unfinished = [JobView { draft: 5, ..prompt(Class::Caption, now, 400) }];
    let view = View { jobs: &unfinished, ..view };
    assert_eq!(shared(&view, Lane::Steady, ROOM), [(0, 192, 0)], "no draft in the middle of a prompt");
}
