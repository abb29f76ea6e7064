//! Conversations: what was said, about which picture, and where its positions are kept.
//!
//! Bookkeeping only; the clock comes from outside, and `K` names kept positions. Behind a picture the
//! positions of a session are those of its turns in order: question, answer, end token. What is kept
//! of them is a beginning, so that the next question computes the rest alone. Without anything kept,
//! all turns are computed again from their tokens, which gives the same bits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What sessions may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Sessions at once.
    pub(super) sessions: usize,
    /// A session is over when nothing was asked for so long.
    pub(super) idle: Duration,
    /// Pages kept for all sessions together.
    pub(super) pages: usize,
}

/// A finished exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    question: String,
    /// The question's tokens behind another turn.
    asked: Vec<u32>,
    answer: Vec<u32>,
}

impl Turn {
    /// What was asked and what was answered, without the end token.
    pub(super) fn new(question: String, answer: Vec<u32>, words: &impl Words) -> Self {
        Self { asked: words.question(&question, false), question, answer }
    }
}

/// Positions that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept<K> {
    /// Where.
    pub(super) key: K,
    /// How many of them stand behind the picture.
    pub(super) behind: usize,
    /// Pages they hold.
    pub(super) pages: usize,
}

/// A conversation about a `P`icture.
#[derive(Debug)]
pub(super) struct Session<K, P> {
    number: u64,
    camera: usize,
    name: String,
    turns: VecDeque<Turn>,
    picture: Option<P>,
    kept: Option<Kept<K>>,
    used: Instant,
    /// Whether a question of it is being answered.
    is_busy: bool,
}

impl<K: Copy, P> Session<K, P> {
    /// The picture it is about; none before its first answer.
    pub(super) fn picture(&self) -> Option<&P> {
        self.picture.as_ref()
    }

    /// What is kept of it.
    pub(super) fn kept(&self) -> Option<Kept<K>> {
        self.kept
    }

    /// Its turns that are still in view.
    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// The tokens behind the picture, with `question` as the last of them.
    fn ids(&self, question: &str, words: &impl Words) -> Vec<u32> {
        let Some(first) = self.turns.front() else { return words.question(question, true) };
        let mut ids = words.question(&first.question, true);
        for (index, turn) in self.turns.iter().enumerate() {
            if index > 0 {
                ids.extend(&turn.asked);
            }
            ids.extend(&turn.answer);
            ids.push(words.end());
        }
        ids.extend(words.question(question, false));
        ids
    }
}

/// How turns are written.
pub(super) trait Words {
    /// Tokens of a question and of what leads to its answer; the `first` stands behind the picture.
    fn question(&self, text: &str, first: bool) -> Vec<u32>;

    /// The token that ends an answer.
    fn end(&self) -> u32;
}

/// Room behind the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Positions for turns and answer.
    pub(super) positions: usize,
    /// Of these, the answer's at most.
    pub(super) answer: usize,
}

/// What became of a caller who wants to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It is the turn of a question in the session of this number.
    In(u64),
    /// Another question of the session is being answered.
    Busy,
    /// No place for another session: all are busy.
    Full,
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions<K, P> {
    limits: Limits,
    open: Vec<Session<K, P>>,
    seen: u64,
    /// Kept positions that are to be given back.
    freed: Vec<K>,
}

impl<K: Copy, P> Sessions<K, P> {
    /// No sessions yet.
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, open: Vec::new(), seen: 0, freed: Vec::new() }
    }

    /// Sessions open.
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Camera, name, turns in view and whether a question is being answered, of each in its order.
    pub(super) fn list(&self) -> impl Iterator<Item = (usize, &str, usize, bool)> {
        let open = self.open.iter();
        open.map(|session| (session.camera, session.name.as_str(), session.turns.len(), session.is_busy))
    }

    /// Pages kept for all of them together.
    pub(super) fn pages(&self) -> usize {
        self.open.iter().filter_map(|session| session.kept).map(|kept| kept.pages).sum()
    }

    /// Kept positions that are to be given back.
    pub(super) fn take_freed(&mut self) -> Option<K> {
        self.freed.pop()
    }

    /// The session of a number.
    pub(super) fn get(&self, number: u64) -> Option<&Session<K, P>> {
        self.open.iter().find(|session| session.number == number)
    }

    /// The session of a name.
    pub(super) fn find(&self, camera: usize, name: &str) -> Option<&Session<K, P>> {
        self.open.iter().find(|session| session.camera == camera && session.name == name)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Session<K, P>> {
        self.open.iter_mut().find(|session| session.number == number)
    }

    /// The turn of a question in a session, which is opened if it is not there. The session that was
    /// idle longest gives way if there are too many.
    pub(super) fn enter(&mut self, camera: usize, name: &str, now: Instant) -> Entry {
        self.expire(now);
        let known = self.open.iter_mut().find(|session| session.camera == camera && session.name == name);
        if let Some(session) = known {
            if session.is_busy {
                return Entry::Busy;
            }
            session.is_busy = true;
            session.used = now;
            return Entry::In(session.number);
        }
        if self.open.len() >= self.limits.sessions {
            let idle = self.open.iter().filter(|session| !session.is_busy);
            let Some(number) = idle.min_by_key(|session| session.used).map(|session| session.number) else {
                return Entry::Full;
            };
            self.end(number);
        }
        self.seen += 1;
        self.open.push(Session {
            number: self.seen,
            camera,
            name: name.to_owned(),
            turns: VecDeque::new(),
            picture: None,
            kept: None,
            used: now,
            is_busy: true,
        });
        Entry::In(self.seen)
    }

    /// The tokens behind the picture for the next question. When they and the answer do not fit, the
    /// oldest turns go, and with them what was kept: as many as leave half of the room free, so that
    /// it does not happen again with the next question.
    pub(super) fn prompt(&mut self, number: u64, question: &str, room: Room, words: &impl Words) -> Vec<u32> {
        let Some(index) = self.open.iter().position(|session| session.number == number) else {
            return words.question(question, true);
        };
        let session = &mut self.open[index];
        let mut ids = session.ids(question, words);
        if ids.len() + room.answer <= room.positions {
            return ids;
        }
        while !session.turns.is_empty() && ids.len() + room.answer > room.positions / 2 {
            session.turns.pop_front();
            ids = session.ids(question, words);
        }
        self.forget_kept(number);
        ids
    }

    /// What was kept of a session is there no more, or of no use.
    pub(super) fn forget_kept(&mut self, number: u64) {
        let kept = self.get_mut(number).and_then(|session| session.kept.take());
        self.freed.extend(kept.map(|kept| kept.key));
    }

    /// A question was answered: on `picture`, with positions kept for the next one. The sessions that
    /// were not used for longest give theirs back until all are within the limit.
    pub(super) fn answered(&mut self, number: u64, turn: Turn, picture: P, kept: Kept<K>, now: Instant) {
        self.forget_kept(number);
        let Some(session) = self.get_mut(number) else {
            self.freed.push(kept.key);
            return;
        };
        session.turns.push_back(turn);
        session.picture = Some(picture);
        session.kept = Some(kept);
        session.is_busy = false;
        session.used = now;
        while self.pages() > self.limits.pages {
            let holding = self.open.iter().filter(|session| session.kept.is_some());
            let Some(oldest) = holding.min_by_key(|session| session.used).map(|session| session.number)
            else {
                return;
            };
            self.forget_kept(oldest);
        }
    }

    /// A question ended without an answer: the session is as it was before, or not there if it had
    /// just been opened.
    pub(super) fn leave(&mut self, number: u64, now: Instant) {
        let Some(session) = self.get_mut(number) else { return };
        session.is_busy = false;
        session.used = now;
        if session.picture.is_none() {
            self.end(number);
        }
    }

    /// Ends a session.
    pub(super) fn end(&mut self, number: u64) {
        self.forget_kept(number);
        self.open.retain(|session| session.number != number);
    }

    /// Ends the session of a name unless it is busy. Returns whether it is gone.
    pub(super) fn end_idle(&mut self, camera: usize, name: &str) -> bool {
        match self.find(camera, name) {
            Some(session) if session.is_busy => false,
            Some(session) => {
                let number = session.number;
                self.end(number);
                true
            }
            None => true,
        }
    }

    /// The cameras are others: each has its place in the list from now on or is gone, and its sessions
    /// with it.
    pub(super) fn move_cameras(&mut self, places: &[Option<usize>]) {
        let freed = &mut self.freed;
        self.open.retain_mut(|session| {
            let place = places[session.camera];
            match place {
                Some(place) => session.camera = place,
                None => freed.extend(session.kept.take().map(|kept| kept.key)),
            }
            place.is_some()
        });
    }

    /// Ends sessions in which nothing was asked for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let idle = self.limits.idle;
        let over = |session: &Session<K, P>| !session.is_busy && now.duration_since(session.used) >= idle;
        while let Some(number) = self.open.iter().find(|session| over(session)).map(|session| session.number)
        {
            self.end(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u32 = 2;

    /// A token for each byte.
    struct Bytes;

    impl Words for Bytes {
        fn question(&self, text: &str, first: bool) -> Vec<u32> {
            let before = if first { 10 } else { 20 };
            std::iter::once(before).chain(text.bytes().map(u32::from)).collect()
        }

        fn end(&self) -> u32 {
            END
        }
    }

    type Test = Sessions<u32, char>;

    fn sessions(sessions: usize, pages: usize) -> Test {
        Sessions::new(Limits { sessions, idle: Duration::from_secs(60), pages })
    }

    fn enter(sessions: &mut Test, name: &str, now: Instant) -> u64 {
        match sessions.enter(0, name, now) {
            Entry::In(number) => number,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn kept(key: u32, behind: usize, pages: usize) -> Kept<u32> {
        Kept { key, behind, pages }
    }

    fn turn(question: &str, answer: &[u32]) -> Turn {
        Turn::new(question.into(), answer.to_vec(), &Bytes)
    }

    fn freed(sessions: &mut Test) -> Vec<u32> {
        let mut keys: Vec<u32> = std::iter::from_fn(|| sessions.take_freed()).collect();
        keys.sort_unstable();
        keys
    }

    const WIDE: Room = Room { positions: 1000, answer: 10 };

    #[test]
    fn a_question_stands_behind_all_turns_before_it() {
        let (mut sessions, now) = (sessions(4, 100), Instant::now());
        let number = enter(&mut sessions, "a", now);
        assert_eq!(sessions.prompt(number, "x", WIDE, &Bytes), [10, 120]);
        sessions.answered(number, turn("x", &[7, 8]), 'p', kept(1, 5, 1), now);
        assert_eq!(enter(&mut sessions, "a", now), number);
        assert_eq!(sessions.prompt(number, "yz", WIDE, &Bytes), [10, 120, 7, 8, END, 20, 121, 122]);
        let session = sessions.get(number).unwrap();
        assert_eq!(
            (session.turns(), session.picture(), session.kept()),
            (1, Some(&'p'), Some(kept(1, 5, 1)))
        );
        sessions.answered(number, turn("yz", &[]), 'q', kept(2, 9, 1), now);
        assert_eq!(freed(&mut sessions), [1], "what is kept of the later turn replaces the earlier one");
    }

    #[test]
    fn one_question_at_a_time() {
        let (mut sessions, now) = (sessions(4, 100), Instant::now());
        let number = enter(&mut sessions, "a", now);
        assert_eq!(sessions.enter(0, "a", now), Entry::Busy);
        assert!(
            matches!(sessions.enter(1, "a", now), Entry::In(other) if other != number),
            "of another camera"
        );
        sessions.leave(number, now);
        assert_ne!(enter(&mut sessions, "a", now), number, "it had no answer, so it is new");
    }

    #[test]
    fn a_question_without_answer_changes_nothing() {
        let (mut sessions, now) = (sessions(4, 100), Instant::now());
        let number = enter(&mut sessions, "a", now);
        sessions.answered(number, turn("x", &[7]), 'p', kept(1, 3, 1), now);
        enter(&mut sessions, "a", now);
        sessions.leave(number, now);
        let session = sessions.get(number).unwrap();
        assert_eq!((session.turns(), session.kept()), (1, Some(kept(1, 3, 1))));
    }

    #[test]
    fn sessions_follow_their_cameras() {
        let (mut sessions, now) = (sessions(9, 100), Instant::now());
        for camera in 0..3 {
            let Entry::In(number) = sessions.enter(camera, "a", now) else { panic!("it has a place") };
            sessions.answered(number, turn("x", &[7]), 'p', kept(camera as u32, 3, 1), now);
        }
        sessions.move_cameras(&[Some(1), None, Some(0)]);
        let cameras = sessions.list().map(|(camera, ..)| camera).collect::<Vec<_>>();
        assert_eq!(cameras, [1, 0]);
        assert_eq!(freed(&mut sessions), [1], "what was kept for the camera that left");
        assert_eq!(sessions.find(0, "a").and_then(Session::kept), Some(kept(2, 3, 1)));
    }

    #[test]
    fn the_oldest_turns_go_when_the_context_is_full() {
        let (mut sessions, now) = (sessions(4, 100), Instant::now());
        let number = enter(&mut sessions, "a", now);
        let room = Room { positions: 100, answer: 10 };
        let mut dropped_at = Vec::new();
        for index in 0..50u32 {
            let ids = sessions.prompt(number, "abcd", room, &Bytes);
            assert!(ids.len() + room.answer <= room.positions);
            assert_eq!(ids[0], 10, "the first turn in view stands behind the picture");
            if index > 0 && sessions.get(number).unwrap().kept().is_none() {
                assert!(ids.len() + room.answer <= room.positions / 2);
                dropped_at.push(index);
            }
            let last = sessions.get(number).unwrap().turns.back().map(|turn| turn.answer.clone());
            assert_eq!(
                last,
                index.checked_sub(1).map(|before| vec![before + 100; 4]),
                "the latest turn stays"
            );
            let key = index;
            sessions.answered(number, turn("abcd", &[index + 100; 4]), 'p', kept(key, ids.len(), 1), now);
            assert_eq!(enter(&mut sessions, "a", now), number);
        }
        assert!(
            dropped_at.len() >= 5 && dropped_at.windows(2).all(|pair| pair[1] - pair[0] >= 4),
            "{dropped_at:?}"
        );
        let long = sessions.prompt(number, &"x".repeat(200), room, &Bytes);
        assert_eq!(
            (long.len(), sessions.get(number).unwrap().turns()),
            (201, 0),
            "the question itself stays"
        );
    }

    #[test]
    fn pages_stay_within_the_limit() {
        let (mut sessions, start) = (sessions(8, 10), Instant::now());
        let mut held = Vec::new();
        for step in 0..200u32 {
            let now = start + Duration::from_millis(u64::from(step));
            let number = enter(&mut sessions, &(step * 7 % 5).to_string(), now);
            let pages = (step as usize * 13) % 6 + 1;
            held.push(step);
            sessions.answered(number, turn("x", &[1]), 'p', kept(step, 3, pages), now);
            assert!(sessions.pages() <= 10, "step {step}: {}", sessions.pages());
            held.retain(|key| !sessions.freed.contains(key));
            freed(&mut sessions);
            let mut keys: Vec<u32> =
                sessions.open.iter().filter_map(|session| session.kept).map(|kept| kept.key).collect();
            keys.sort_unstable();
            assert_eq!(keys, held, "every key is either kept or given back");
            assert!(held.contains(&step), "the session used last keeps what it has");
        }
        let number = enter(&mut sessions, "large", start);
        sessions.answered(number, turn("x", &[1]), 'p', kept(999, 3, 11), start);
        assert!(freed(&mut sessions).contains(&999) && sessions.pages() <= 10);
        assert_eq!(sessions.get(number).unwrap().turns(), 1, "its turns are remembered");
    }

    #[test]
    fn idle_sessions_end_and_busy_ones_do_not() {
        let (mut sessions, start) = (sessions(8, 100), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let idle = enter(&mut sessions, "idle", start);
        sessions.answered(idle, turn("x", &[1]), 'p', kept(1, 3, 1), start);
        let busy = enter(&mut sessions, "busy", start);
        let fresh = enter(&mut sessions, "fresh", start);
        sessions.answered(fresh, turn("x", &[1]), 'p', kept(2, 3, 1), after(30));
        sessions.expire(after(59));
        assert_eq!(sessions.count(), 3);
        sessions.expire(after(60));
        assert_eq!((sessions.count(), freed(&mut sessions)), (2, vec![1]));
        sessions.expire(after(1000));
        assert!(sessions.get(busy).is_some() && sessions.count() == 1);
    }

    #[test]
    fn the_session_idle_longest_gives_way_to_a_new_one() {
        let (mut sessions, start) = (sessions(2, 100), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        for (key, name) in [(1, "a"), (2, "b")] {
            let number = enter(&mut sessions, name, after(u64::from(key)));
            sessions.answered(number, turn("x", &[1]), 'p', kept(key, 3, 1), after(u64::from(key)));
        }
        enter(&mut sessions, "c", after(3));
        assert_eq!(freed(&mut sessions), [1]);
        enter(&mut sessions, "b", after(4));
        assert_eq!(sessions.enter(0, "d", after(5)), Entry::Full);
    }

    #[test]
    fn a_caller_ends_a_session_by_name() {
        let (mut sessions, now) = (sessions(2, 100), Instant::now());
        assert!(sessions.end_idle(0, "a"), "there is none");
        let number = enter(&mut sessions, "a", now);
        assert!(!sessions.end_idle(0, "a"), "it is busy");
        sessions.answered(number, turn("x", &[1]), 'p', kept(5, 3, 1), now);
        assert!(sessions.end_idle(0, "a"));
        assert_eq!((sessions.count(), freed(&mut sessions)), (0, vec![5]));
    }
}
