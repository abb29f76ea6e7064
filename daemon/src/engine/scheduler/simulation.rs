//! Thousands of made-up loads on a clock that does not wait.
//!
//! A load is a number of cameras, rules and questions with all their sizes and times, and the time
//! each unit takes, drawn at random from a seed. The simulation does what the engine does with each
//! choice and holds every load to the bounds that the scheduler promises.

use std::time::Duration;

use super::*;

const LOADS: u64 = 2000;

/// Units of a load, the draining at its end excluded.
const UNITS: usize = 400;

const ROOM: Room = Room { rows: 192, sampled: 64, sequences: 64 };

/// Rows whose logits are heard in one unit, unless one sequence has more.
const HEARD_TOGETHER: usize = 8;

/// Units in which sequences board a pass before its layers begin, at most.
const BOARDING: usize = 3;

/// No unit takes longer.
const LONGEST_UNIT: Duration = Duration::from_millis(40);

/// Numbers that look random (xorshift).
struct Random(u64);

impl Random {
    /// At least `low`, below `high`.
    fn number(&mut self, low: u64, high: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        low + (self.0 >> 20) % (high - low).max(1)
    }

    fn size(&mut self, low: usize, high: usize) -> usize {
        self.number(low as u64, high as u64) as usize
    }

    fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.number(low, high))
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.number(0, many) == 0
    }
}

/// What is the same all through a load.
struct Load {
    cameras: usize,
    rules: usize,
    /// Parts of a picture.
    blocks: usize,
    /// Rows that one unit of a long pass carries on.
    rows_per_unit: usize,
    caption_tokens: usize,
    /// Rows of a caption's draft.
    draft: usize,
    frame_period: Duration,
    at_least_every: Duration,
    /// Time between questions; with none they come as fast as places come free.
    question_period: Option<Duration>,
    /// One question in so many needs a picture of its own; with 0 none does.
    picture_in: u64,
    queue: usize,
}

impl Load {
    fn new(random: &mut Random) -> Self {
        Self {
            cameras: random.size(1, 5),
            rules: random.size(0, 4),
            blocks: random.size(1, 12),
            rows_per_unit: random.size(10, 200),
            caption_tokens: random.size(1, 30),
            draft: random.size(0, 20),
            frame_period: random.millis(5, 700),
            at_least_every: random.millis(0, 2000),
            question_period: match random.number(0, 4) {
                0 => None,
                1 => Some(random.millis(1, 50)),
                _ => Some(random.millis(50, 5000)),
            },
            picture_in: random.number(0, 6),
            queue: random.size(1, 12),
        }
    }

    /// All that one picture of a camera asks for, in time: its parts, and a pass for each rule, for
    /// the prompt and for each token of the caption, nothing shared and every unit as long as can be.
    /// A pass has units for boarding, for its rows, and one for what follows.
    fn work(&self) -> Duration {
        let long = |rows: usize| BOARDING + rows.div_ceil(self.rows_per_unit) + 2;
        let rules = self.rules * long(60);
        let caption = long(60 + self.draft) + self.caption_tokens * long(1 + self.draft);
        LONGEST_UNIT * (self.blocks + rules + caption) as u32
    }
}

struct Camera {
    next_frame: Instant,
    has_frame: bool,
    last_start: Option<Instant>,
    owed_at: Instant,
    /// When the caption before began, and the start of the load before the first.
    last_caption: Instant,
    captions: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum For {
    Question(usize),
    Rule,
    Caption(usize),
}

struct Job {
    purpose: For,
    view: JobView,
    /// Tokens still to be chosen.
    tokens: usize,
    /// What it brings into the pass that carries it.
    share: Option<Share>,
}

impl Job {
    /// Rows whose logits it wants of the pass that carries it.
    fn sampled(&self) -> usize {
        self.share.map_or(0, |share| usize::from(share.rows == self.view.rows) * (1 + share.draft))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Answered,
    Refused,
    Late,
    Left,
}

struct Question {
    arrived: Instant,
    deadline: Instant,
    leaves_at: Option<Instant>,
    needs_picture: bool,
    is_running: bool,
    /// Units that may go by before its first pass, from the moment nothing else is missing.
    patience: Option<usize>,
    end: Option<End>,
}

struct Picture {
    camera: Option<usize>,
    blocks_left: usize,
    owed_at: Option<Instant>,
}

struct Simulation {
    load: Load,
    random: Random,
    now: Instant,
    cameras: Vec<Camera>,
    jobs: Vec<Job>,
    questions: Vec<Question>,
    next_question: Instant,
    picture: Option<Picture>,
    /// Units left of the pass in each lane before its sequences hear what follows.
    units_left: [usize; 2],
    turns: Turns,
    was_for_questions: bool,
    verdicts: [usize; 2],
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (seed + 1).wrapping_mul(0xd134_2543_de82_ef95));
        let load = Load::new(&mut random);
        let now = Instant::now();
        let camera = |_| Camera {
            next_frame: now,
            has_frame: false,
            last_start: None,
            owed_at: now,
            last_caption: now,
            captions: 0,
        };
        Self {
            cameras: (0..load.cameras).map(camera).collect(),
            load,
            random,
            now,
            jobs: Vec::new(),
            questions: Vec::new(),
            next_question: now,
            picture: None,
            units_left: [0; 2],
            turns: Turns::default(),
            was_for_questions: false,
            verdicts: [0; 2],
        }
    }

    fn open(&self) -> usize {
        self.questions.iter().filter(|question| question.end.is_none()).count()
    }

    /// Frames and questions that came by now.
    fn arrive(&mut self) {
        for camera in self.cameras.iter_mut().filter(|camera| camera.next_frame <= self.now) {
            camera.has_frame = true;
            camera.next_frame = self.now + self.load.frame_period;
        }
        while self.next_question <= self.now {
            let is_full = self.open() >= self.load.queue;
            match self.load.question_period {
                None if is_full => break,
                None => {}
                Some(period) => {
                    self.next_question += self.random.millis(0, 2 * period.as_millis() as u64 + 1)
                }
            }
            let mut question = self.question();
            if is_full {
                question.end = Some(End::Refused);
            }
            self.questions.push(question);
        }
    }

    fn question(&mut self) -> Question {
        let random = &mut self.random;
        Question {
            arrived: self.now,
            deadline: self.now + random.millis(10, 8000),
            leaves_at: random.one_in(8).then(|| self.now + random.millis(0, 1000)),
            needs_picture: self.load.picture_in > 0 && random.one_in(self.load.picture_in),
            is_running: false,
            patience: None,
            end: None,
        }
    }

    /// Ends questions whose time is up and begins those that have what they need.
    fn look_after_questions(&mut self) {
        for index in 0..self.questions.len() {
            let question = &self.questions[index];
            if question.end.is_some() {
                continue;
            }
            if question.leaves_at.is_some_and(|at| at <= self.now) {
                self.end(index, End::Left);
            } else if question.deadline <= self.now {
                assert!(self.now - question.deadline <= LONGEST_UNIT, "a deadline was not seen in time");
                self.end(index, End::Late);
            } else if !question.is_running && !question.needs_picture {
                self.answer(index);
            }
        }
    }

    fn answer(&mut self, index: usize) {
        let rows = self.random.size(2, 250);
        let tokens = self.random.size(1, 40);
        let turn = self.questions[index].deadline;
        // The unit under way is over; then the rest of the pass under way, one unit of a picture
        // for another question, one short pass of others, each followed by one that is owed.
        let pass = self.units_left[Lane::Urgent as usize] + self.groups(Lane::Urgent);
        let question = &mut self.questions[index];
        question.is_running = true;
        question.patience = Some(patience(pass));
        self.begin(For::Question(index), Class::Question, turn, None, (rows, tokens, 0));
    }

    fn begin(
        &mut self,
        purpose: For,
        class: Class,
        turn: Instant,
        owed_at: Option<Instant>,
        (rows, tokens, draft): (usize, usize, usize),
    ) {
        let view = JobView { class, turn, owed_at, rows, is_prompt: true, draft, lane: None };
        self.jobs.push(Job { purpose, view, tokens, share: None });
    }

    fn end(&mut self, index: usize, end: End) {
        assert_eq!(self.questions[index].end.replace(end), None, "a question ended twice");
        self.jobs.retain(|job| job.purpose != For::Question(index));
        self.drop_empty_passes();
    }

    /// A pass whose sequences are all gone is over.
    fn drop_empty_passes(&mut self) {
        for lane in [Lane::Urgent, Lane::Steady] {
            if !self.jobs.iter().any(|job| job.view.lane == Some(lane)) {
                self.units_left[lane as usize] = 0;
            }
        }
    }

    /// Units in which the sequences of a pass hear what follows.
    fn groups(&self, lane: Lane) -> usize {
        let mut riders = self.jobs.iter().filter(|job| job.view.lane == Some(lane)).peekable();
        let mut groups = 0;
        while let Some(first) = riders.next() {
            let mut rows = first.sampled();
            while let Some(next) = riders.next_if(|job| rows + job.sampled() <= HEARD_TOGETHER) {
                rows += next.sampled();
            }
            groups += 1;
        }
        groups
    }

    /// One round of the engine's loop. Returns whether there was work.
    fn round(&mut self) -> bool {
        self.look_after_questions();
        let wants =
            self.questions.iter().enumerate().filter(|(_, question)| {
                question.end.is_none() && question.needs_picture && !question.is_running
            });
        let wants: Vec<_> = wants.map(|(question, q)| WantView { question, deadline: q.deadline }).collect();
        let jobs: Vec<_> = self.jobs.iter().map(|job| job.view).collect();
        let cameras: Vec<_> = (0..self.cameras.len()).map(|index| self.camera(index)).collect();
        let picture = self.picture.as_ref().map(|picture| PictureView { owed_at: picture.owed_at });
        let view =
            View { now: self.now, jobs: &jobs, wants: &wants, cameras: &cameras, picture, turns: self.turns };
        let (unit, turns) = next(&view);
        let is_steady = matches!(unit, Unit::Begin(Lane::Steady) | Unit::Continue(Lane::Steady));
        if self.is_owed(&view) && self.was_for_questions && wants.is_empty() {
            let is_picture = matches!(unit, Unit::Encode | Unit::Describe(_));
            assert!(is_steady || is_picture, "two units in a row for questions, though others are owed");
        }
        self.was_for_questions = matches!(unit, Unit::Begin(Lane::Urgent) | Unit::Continue(Lane::Urgent));
        self.turns = turns;
        if let Unit::Begin(lane) = unit {
            let mut shares = Vec::new();
            share(&view, lane, ROOM, &mut shares);
            self.begin_pass(lane, &shares);
        }
        let spent = self.random.millis(1, LONGEST_UNIT.as_millis() as u64 + 1);
        if unit != Unit::Wait {
            self.now += spent;
        }
        for question in self.questions.iter_mut().filter(|question| question.end.is_none()) {
            if let Some(left) = question.patience {
                question.patience = Some(left.checked_sub(1).expect("a question waited for too many units"));
            }
        }
        match unit {
            Unit::Begin(lane) | Unit::Continue(lane) => self.step_pass(lane),
            Unit::Encode => self.encode(),
            Unit::PictureFor(question) => {
                let camera = self.random.one_in(2).then(|| self.random.size(0, self.load.cameras));
                let owed_at = camera.map(|camera| self.start_picture(camera));
                assert!(self.picture.is_none() && wants.iter().any(|want| want.question == question));
                self.picture = Some(Picture { camera, blocks_left: self.load.blocks, owed_at });
            }
            Unit::Describe(camera) => {
                assert!(self.picture.is_none() && cameras[camera].is_due);
                let owed_at = Some(self.start_picture(camera));
                self.picture = Some(Picture { camera: Some(camera), blocks_left: self.load.blocks, owed_at });
            }
            Unit::Wait => return false,
        }
        true
    }

    /// Whether others than questions have waited for too long, and do not ride with questions.
    fn is_owed(&self, view: &View<'_>) -> bool {
        let waits = |job: &Job| {
            job.view.owed_at.is_some_and(|at| at <= self.now) && job.view.lane != Some(Lane::Urgent)
        };
        self.jobs.iter().any(waits)
            || view
                .cameras
                .iter()
                .any(|camera| camera.is_due && camera.owed_at.is_some_and(|at| at <= self.now))
    }

    fn camera(&self, index: usize) -> CameraView {
        let camera = &self.cameras[index];
        let is_busy = self.picture.as_ref().is_some_and(|picture| picture.camera == Some(index))
            || self.jobs.iter().any(|job| job.purpose == For::Caption(index));
        CameraView {
            is_due: camera.has_frame && !is_busy,
            last_start: camera.last_start,
            owed_at: Some(camera.owed_at),
        }
    }

    fn start_picture(&mut self, camera: usize) -> Instant {
        let camera = &mut self.cameras[camera];
        camera.has_frame = false;
        camera.last_start = Some(self.now);
        std::mem::replace(&mut camera.owed_at, self.now + self.load.at_least_every)
    }

    fn begin_pass(&mut self, lane: Lane, shares: &[Share]) {
        assert!(!shares.is_empty(), "a pass of nobody");
        assert!(self.jobs.iter().all(|job| job.view.lane != Some(lane)), "a pass is under way");
        let (mut rows, mut sampled, mut is_long) = (0, 0, false);
        for share in shares {
            let job = &mut self.jobs[share.job];
            assert_eq!(job.view.lane, None, "in two passes at once");
            assert!((1..=job.view.rows).contains(&share.rows) && share.draft <= job.view.draft);
            assert!(share.draft == 0 || share.rows == job.view.rows);
            job.view.lane = Some(lane);
            job.share = Some(*share);
            rows += share.rows + share.draft;
            sampled += job.sampled();
            is_long |= job.view.is_prompt || share.draft > 0;
            if let For::Question(question) = job.purpose {
                self.questions[question].patience = None;
            }
        }
        assert!(rows <= ROOM.rows && sampled <= ROOM.sampled && shares.len() <= ROOM.sequences);
        // Those who board fill units of their own, or leave room for layers.
        let boarding = if is_long { self.random.size(0, BOARDING + 1) } else { 0 };
        let layers = if is_long { rows.div_ceil(self.load.rows_per_unit) } else { self.random.size(0, 2) };
        self.units_left[lane as usize] = boarding + layers;
    }

    /// One unit of a pass: on its way to the end, or for a group of those who hear what follows.
    fn step_pass(&mut self, lane: Lane) {
        if self.units_left[lane as usize] > 1 {
            self.units_left[lane as usize] -= 1;
            return;
        }
        // The last layers may leave room for the first group, and a group for the next one.
        let is_through = std::mem::take(&mut self.units_left[lane as usize]) == 0;
        let mut goes_on = is_through || self.random.one_in(2);
        while goes_on && self.groups(lane) > 0 {
            self.hear_group(lane);
            goes_on = self.random.one_in(4);
        }
    }

    /// The next riders hear what follows and leave the pass.
    fn hear_group(&mut self, lane: Lane) {
        let (mut ended, mut rows, mut heard) = (Vec::new(), 0, 0);
        for (index, job) in self.jobs.iter_mut().enumerate() {
            if job.view.lane != Some(lane) {
                continue;
            }
            rows += job.sampled();
            if heard > 0 && rows > HEARD_TOGETHER {
                break;
            }
            heard += 1;
            job.view.lane = None;
            if job.view.class != Class::Question {
                job.view.turn = self.now;
            }
            let Some(share) = job.share.take() else { continue };
            job.view.rows -= share.rows;
            if job.view.rows == 0 {
                let right = self.random.size(0, share.draft + 1);
                job.tokens = job.tokens.saturating_sub(1 + right);
                job.view = JobView { rows: 1, is_prompt: false, ..job.view };
                ended.extend((job.tokens == 0).then_some(index));
            }
        }
        for index in ended.into_iter().rev() {
            let job = self.jobs.remove(index);
            match job.purpose {
                For::Question(question) => self.end(question, End::Answered),
                For::Rule => self.verdicts[1] += 1,
                For::Caption(camera) => self.cameras[camera].captions += 1,
            }
        }
    }

    fn encode(&mut self) {
        let picture = self.picture.as_mut().expect("a picture is encoded");
        picture.blocks_left -= 1;
        if picture.blocks_left > 0 {
            return;
        }
        let Some(Picture { camera, owed_at, .. }) = self.picture.take() else { return };
        // It will do for whoever waited longest.
        let waiting =
            self.questions.iter_mut().filter(|question| question.end.is_none() && !question.is_running);
        if let Some(question) = waiting.filter(|question| question.needs_picture).min_by_key(|q| q.deadline) {
            question.needs_picture = false;
        }
        let Some(camera) = camera else { return };
        if self.jobs.iter().any(|job| job.purpose == For::Caption(camera)) {
            return;
        }
        self.check_caption(camera);
        for _ in 0..self.load.rules {
            self.verdicts[0] += 1;
            let rows = self.random.size(10, 60);
            self.begin(For::Rule, Class::Rule, self.now, owed_at, (rows, 1, 0));
        }
        let size = (self.random.size(5, 60), self.load.caption_tokens, self.load.draft);
        self.begin(For::Caption(camera), Class::Caption, self.now, owed_at, size);
    }

    /// A caption of a camera begins: not too long after the one before.
    fn check_caption(&mut self, index: usize) {
        let load = &self.load;
        // Each camera may have work under way and is served once before this one, and each of
        // their units may be followed by one for questions.
        let most = load.at_least_every.max(load.frame_period)
            + 2 * (2 * load.work() * load.cameras as u32 + LONGEST_UNIT);
        let camera = &mut self.cameras[index];
        let gap = self.now - camera.last_caption;
        assert!(gap <= most, "no caption for {gap:?}, at most {most:?} was promised");
        camera.last_caption = self.now;
    }

    fn run(mut self) -> Self {
        for _ in 0..UNITS {
            self.arrive();
            if !self.round() {
                self.now += Duration::from_millis(1);
            }
        }
        for index in 0..self.cameras.len() {
            self.check_caption(index);
            self.cameras[index].next_frame = self.now + Duration::from_secs(3600);
            self.cameras[index].has_frame = false;
        }
        while self.open() > 0 || !self.jobs.is_empty() || self.picture.is_some() {
            self.round();
        }
        self
    }
}

#[test]
fn every_request_ends_once_and_nobody_waits_too_long() {
    let mut ends = [0; 4];
    let (mut captions, mut verdicts) = (0, 0);
    for seed in 0..LOADS {
        let simulation = Simulation::new(seed).run();
        for question in &simulation.questions {
            let end = question.end.expect("every question ends");
            assert!(question.arrived <= simulation.now);
            ends[end as usize] += 1;
        }
        assert_eq!(simulation.verdicts[0], simulation.verdicts[1], "every rule has its verdict");
        captions += simulation.cameras.iter().map(|camera| camera.captions).sum::<usize>();
        verdicts += simulation.verdicts[1];
    }
    // All kinds of ends, and many of them, or the loads prove nothing.
    assert!(ends.iter().all(|&count| count > 1000), "{ends:?}");
    assert!(captions > 5000 && verdicts > 5000, "{captions} captions, {verdicts} verdicts");
}
