//! Drafts: what was said before foretells what is said next.
//!
//! A [`Memory`] holds the latest texts on one subject, such as the captions of a camera. While a new
//! text is written, a [`Drafter`] looks for its end in them: the place before which most tokens are
//! the same, the latest of several. What follows there is the draft. Where a single token was
//! replaced, it goes on behind it. The model checks a whole draft in one pass, so a wrong one costs
//! time and changes nothing; [`Pace`] keeps that cost down.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Tokens of a memory: some ten captions.
const TOKENS: usize = 640;

/// Stands before every text of a memory. No token has this id.
const START: u32 = u32::MAX;

/// Questions whose answers are remembered.
const QUESTIONS: usize = 64;

/// Tokens that must be the same for a place to be found again after a difference.
const SURE: u32 = 2;

/// How long drafts are: longer while they are right, shorter when they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    length: usize,
    /// Tokens chosen since the last draft.
    waited: usize,
}

impl Pace {
    /// The longest draft. A pass has 64 rows with logits.
    const LONGEST: usize = 48;
    /// The first draft on a subject.
    const FIRST: usize = 8;
    /// A draft to find out whether it is worth while again: two rows cost little beside the one
    /// that is needed.
    const PROBE: usize = 2;
    /// Tokens from one probe to the next.
    const PROBE_EVERY: usize = 8;

    /// Tokens of the next draft.
    fn length(&self) -> usize {
        match self.length {
            0 if self.waited >= Self::PROBE_EVERY => Self::PROBE,
            length => length,
        }
    }

    /// Takes note of a pass that checked `proposed` tokens, of which the first `accepted` were right.
    fn note(&mut self, proposed: usize, accepted: usize) {
        if proposed == 0 {
            self.waited += 1;
        } else if accepted == proposed {
            self.length = self.length.max(2 * proposed).min(Self::LONGEST);
            self.waited = 0;
        } else {
            self.length = if accepted == 0 { proposed / 4 } else { accepted.max(proposed / 2) };
            self.waited = 0;
        }
    }
}

/// The latest texts on one subject.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// The texts, oldest first, [`START`] before each.
    tokens: Vec<u32>,
    pace: Pace,
}

impl Default for Memory {
    fn default() -> Self {
        Self { tokens: Vec::new(), pace: Pace { length: Pace::FIRST, waited: 0 } }
    }
}

impl Memory {
    /// Remembers nothing but `text`, and is sure of it.
    pub(super) fn sure_of(text: &[u32]) -> Self {
        let mut memory = Self { tokens: Vec::new(), pace: Pace { length: Pace::LONGEST, waited: 0 } };
        memory.learn(text, None);
        memory
    }

    /// Who foretells a new text; nobody if there is none to learn from.
    pub(super) fn drafter(&self) -> Option<Drafter> {
        if self.tokens.is_empty() {
            return None;
        }
        let matched = self.tokens.iter().map(|&token| u32::from(token == START)).collect();
        let mut drafter =
            Drafter { tokens: self.tokens.clone(), matched, place: None, is_guess: false, pace: self.pace };
        drafter.place = drafter.best().map(|(place, _)| place);
        // The first tokens are checked together with the prompt.
        drafter.pace.waited = drafter.pace.waited.max(Pace::PROBE_EVERY);
        Some(drafter)
    }

    /// Remembers a text and how its drafts went.
    pub(super) fn learn(&mut self, text: &[u32], drafter: Option<&Drafter>) {
        if let Some(drafter) = drafter {
            self.pace = drafter.pace;
        }
        let text = &text[..text.len().min(TOKENS - 1)];
        let last = self.tokens.iter().rposition(|&token| token == START);
        if text.is_empty() || last.is_some_and(|start| &self.tokens[start + 1..] == text) {
            return;
        }
        while self.tokens.len() + 1 + text.len() > TOKENS {
            let next = self.tokens.iter().skip(1).position(|&token| token == START);
            self.tokens.drain(..next.map_or(self.tokens.len(), |next| next + 1));
        }
        self.tokens.push(START);
        self.tokens.extend_from_slice(text);
    }
}

/// Follows one text through a memory.
#[derive(Clone, Debug)]
pub(super) struct Drafter {
    tokens: Vec<u32>,
    /// For every token of the memory, how many tokens up to it are the last ones of the text. The
    /// beginning of a text counts as one.
    matched: Vec<u32>,
    /// Where in the memory the text is.
    place: Option<usize>,
    /// Whether that is a guess: that one token was replaced there.
    is_guess: bool,
    pace: Pace,
}

impl Drafter {
    /// Takes note of the next token of the text.
    pub(super) fn follow(&mut self, id: u32) {
        for place in (1..self.tokens.len()).rev() {
            self.matched[place] = if self.tokens[place] == id { self.matched[place - 1] + 1 } else { 0 };
        }
        self.matched[0] = 0;
        let next = self.place.map(|place| place + 1).filter(|&place| self.has_token(place));
        let was_right = next.is_some_and(|place| self.tokens[place] == id);
        // A guess that was wrong is no ground for another one.
        let replaced = next.filter(|_| was_right || !self.is_guess);
        let best = self.best();
        let is_sure = best.is_some_and(|(_, matched)| matched >= SURE);
        self.is_guess = !is_sure && replaced.is_some();
        self.place = if self.is_guess { replaced } else { best.map(|(place, _)| place) };
    }

    /// Adds the draft to `ids`: at most `most` tokens.
    pub(super) fn propose(&self, most: usize, ids: &mut Vec<u32>) {
        let Some(place) = self.place else { return };
        let following = self.tokens[place + 1..].iter().take_while(|&&token| token != START);
        ids.extend(following.take(self.pace.length().min(most)));
    }

    /// Takes note of a pass that checked `proposed` tokens, of which the first `accepted` were right.
    pub(super) fn note(&mut self, proposed: usize, accepted: usize) {
        self.pace.note(proposed, accepted);
    }

    /// The place before which most tokens are the same, the latest of several, and how many.
    fn best(&self) -> Option<(usize, u32)> {
        let found = self.matched.iter().copied().enumerate().max_by_key(|&(_, matched)| matched);
        found.filter(|&(_, matched)| matched > 0)
    }

    fn has_token(&self, place: usize) -> bool {
        self.tokens.get(place).is_some_and(|&token| token != START)
    }
}

/// What was answered to the latest questions. The least recently asked one is forgotten first.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The latest question last.
    memories: Vec<(u64, Memory)>,
}

impl Answers {
    /// The memory of a question to a camera.
    pub(super) fn of(&mut self, camera: &str, question: &str) -> &mut Memory {
        let mut hasher = DefaultHasher::new();
        (camera, question).hash(&mut hasher);
        // Two questions of one hash share their memory, which does no harm.
        let key = hasher.finish();
        let memory = match self.memories.iter().position(|(other, _)| *other == key) {
            Some(index) => self.memories.remove(index).1,
            None => Memory::default(),
        };
        if self.memories.len() >= QUESTIONS {
            self.memories.remove(0);
        }
        let index = self.memories.len();
        self.memories.push((key, memory));
        &mut self.memories[index].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::world::{Style, World};
    use crate::model::files::TokenizerSource;
    use crate::model::tokenizer::Tokenizer;

    /// SplitMix64.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Lets `memory` foretell `text`. Returns the passes it took and the tokens proposed in vain.
    fn write(memory: &mut Memory, text: &[u32]) -> (usize, usize) {
        let mut drafter = memory.drafter();
        let (mut known, mut passes, mut vain) = (0, 0, 0);
        let mut draft = Vec::new();
        // The last pass finds the end.
        while known <= text.len() {
            draft.clear();
            if let Some(drafter) = &drafter {
                drafter.propose(text.len() - known, &mut draft);
            }
            let right = draft.iter().zip(&text[known..]).take_while(|(a, b)| a == b).count();
            let chosen = (right + 1).min(text.len() - known);
            if let Some(drafter) = &mut drafter {
                text[known..known + chosen].iter().for_each(|&id| drafter.follow(id));
                drafter.note(draft.len(), right);
            }
            vain += draft.len() - right;
            known += right + 1;
            passes += 1;
        }
        memory.learn(text, drafter.as_ref());
        (passes, vain)
    }

    fn caption(of: u32) -> Vec<u32> {
        (0..30).map(|i| 100 * of + i).collect()
    }

    fn repeat(memory: &mut Memory, of: u32, times: usize) {
        for _ in 0..times {
            write(memory, &caption(of));
        }
    }

    #[test]
    fn a_text_said_again_takes_one_pass() {
        let mut memory = Memory::default();
        let passes: Vec<usize> = (0..5).map(|_| write(&mut memory, &caption(1)).0).collect();
        assert_eq!(passes[0], 31, "nothing to learn from");
        assert!(passes[1] <= 3 && passes[4] == 1, "{passes:?}");
    }

    #[test]
    fn one_token_replaced_costs_one_more_pass() {
        let mut memory = Memory::default();
        repeat(&mut memory, 1, 4);
        for (replaced, place) in [(7u32, 15), (8, 3), (9, 28)] {
            let mut text = caption(1);
            text[place] = replaced;
            let (passes, _) = write(&mut memory, &text);
            assert!(passes <= 3, "token {place}: {passes} passes");
            repeat(&mut memory, 1, 2);
        }
        let mut text = caption(1);
        text.insert(15, 77);
        let (passes, _) = write(&mut memory, &text);
        assert!(passes <= 6, "a token put in: {passes} passes");
    }

    #[test]
    fn an_earlier_text_is_found_again() {
        let mut memory = Memory::default();
        for of in [1, 2, 3] {
            repeat(&mut memory, of, 3);
        }
        let mut back = caption(3);
        back.truncate(5);
        back.extend(&caption(1)[4..]);
        assert!(write(&mut memory, &back).0 <= 8);
    }

    #[test]
    fn drafts_that_lose_cost_little_and_are_tried_again() {
        let (mut memory, mut state) = (Memory::default(), 1);
        let mut noise = || (0..40).map(|_| (random(&mut state) % 50) as u32).collect::<Vec<_>>();
        for _ in 0..20 {
            write(&mut memory, &noise());
        }
        let vain: usize = (0..20).map(|_| write(&mut memory, &noise()).1).sum();
        assert!(vain <= 20 * 12, "{vain} rows in vain for 800 tokens");
        let passes: Vec<usize> = (0..8).map(|_| write(&mut memory, &caption(9)).0).collect();
        assert!(passes[7] == 1, "{passes:?}");
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_latest() {
        let mut memory = Memory::default();
        for of in 0..100 {
            memory.learn(&caption(of), None);
            assert!(memory.tokens.len() <= TOKENS && memory.tokens[0] == START);
            assert!(memory.tokens.ends_with(&caption(of)));
        }
        memory.learn(&vec![1; 5000], None);
        assert_eq!(memory.tokens.len(), TOKENS);
        memory.learn(&[], None);
        memory.learn(&[1, 2], None);
        assert_eq!(memory.tokens, [START, 1, 2]);
        let mut answers = Answers::default();
        for question in 0..200 {
            answers.of("a", &question.to_string()).learn(&[question], None);
        }
        assert_eq!(answers.memories.len(), QUESTIONS);
        assert_eq!(answers.of("a", "199").tokens, [START, 199]);
        assert!(answers.of("b", "199").drafter().is_none() && answers.of("a", "3").drafter().is_none());
    }

    #[test]
    fn a_draft_is_never_longer_than_asked_and_needs_no_memory() {
        let (mut memory, mut state) = (Memory::default(), 7);
        for _ in 0..50 {
            let length = random(&mut state) as usize % 60;
            let text: Vec<u32> = (0..length).map(|_| (random(&mut state) % 6) as u32).collect();
            if let Some(mut drafter) = memory.drafter() {
                let mut draft = Vec::with_capacity(64);
                for &id in &text {
                    let most = random(&mut state) as usize % 9;
                    draft.clear();
                    drafter.propose(most, &mut draft);
                    assert!(draft.len() <= most && !draft.contains(&START));
                    drafter.follow(id);
                    drafter.note(draft.len(), random(&mut state) as usize % (draft.len() + 1));
                }
                assert_eq!(draft.capacity(), 64);
            }
            memory.learn(&text, None);
        }
    }

    /// Tokens per pass over the true captions of worlds, one every `seconds`.
    fn tokens_per_pass(tokenizer: &Tokenizer, seconds: f64) -> f64 {
        let (mut tokens, mut passes) = (0, 0);
        for seed in 0..8 {
            let (world, mut memory) = (World::new(seed), Memory::default());
            for frame in 0..60 {
                let caption = world.at(f64::from(frame) * seconds).caption(Style::Sentence);
                let text = tokenizer.encode(&caption);
                tokens += text.len();
                passes += write(&mut memory, &text).0;
            }
        }
        tokens as f64 / passes as f64
    }

    #[test]
    fn slow_scenes_gain_more_than_fast_ones_and_none_loses() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/tokenizer/full/tokenizer.model");
        let tokenizer = Tokenizer::from_source(&TokenizerSource::SentencePiece(path.into())).unwrap();
        let gains = [0.5, 2.0, 8.0, 60.0].map(|seconds| tokens_per_pass(&tokenizer, seconds));
        println!("tokens per pass at a caption every 0.5, 2, 8 and 60 s: {gains:.2?}");
        assert!(gains[0] > 8.0 && gains[3] > 1.0, "{gains:?}");
        assert!(gains.is_sorted_by(|a, b| a >= b), "{gains:?}");
    }
}
