//! Somebody who has the model for himself, says everything again from the raw frame, and compares.

use std::collections::BTreeMap;

use kernels::{Cpu, CpuOptions};
use messages::Rule;
use mobilevlmd::config::Config;
use mobilevlmd::model::constraint::Grammars;
use mobilevlmd::model::preprocess::decode_picture;
use mobilevlmd::model::prompt::later_question;
use mobilevlmd::model::sampler::Sampler;
use mobilevlmd::model::speech::{Heard, Speech};
use mobilevlmd::model::viewer::{Said, Viewer};
use mobilevlmd::model::yes_no::YesNo;

use super::asked::{Asked, Kind, brought, form};
use super::callers::Answered;
use super::cameras::{Cameras, NAMES};
use super::heard::{Described, Rang};

/// Captions that are said again at most: more would show nothing new.
const CAPTIONS: usize = 1500;

/// What is looked at: a frame of a camera, or a picture that was brought along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum View {
    Frame(usize, u64),
    Brought(usize),
}

impl Answered {
    fn view(&self) -> View {
        match self.asked.kind {
            Kind::Brought(index) => View::Brought(index),
            _ => View::Frame(self.asked.camera, self.sequence),
        }
    }
}

/// The witness.
pub(super) struct Witness<'a> {
    viewer: Viewer<Cpu>,
    grammars: Grammars,
    cameras: &'a mut Cameras,
    pictures: Vec<Vec<u8>>,
    view: Option<View>,
}

impl<'a> Witness<'a> {
    /// A witness of what the cameras have shown, with the model as the engine has it.
    pub(super) fn new(config: &Config, cameras: &'a mut Cameras) -> Self {
        let files = config.model.source().open().unwrap();
        let cpu = Cpu::new(CpuOptions { threads: config.model.threads, isa_cap: None });
        let options = config.model.load_options();
        let viewer = Viewer::load(&files, cpu, &options, config.model.kv_dtype()).unwrap();
        let grammars = Grammars::new(viewer.tokenizer());
        Self { viewer, grammars, cameras, pictures: brought(), view: None }
    }

    fn look(&mut self, view: View) {
        if self.view.replace(view) == Some(view) {
            return;
        }
        match view {
            View::Frame(camera, sequence) => self.viewer.look(self.cameras.again(camera, sequence)),
            View::Brought(index) => self.viewer.look(&decode_picture(&self.pictures[index]).unwrap()),
        }
        .unwrap();
    }

    /// The answer to what was read last.
    fn answer(&mut self, asked: &Asked) -> Said {
        match asked.kind {
            Kind::Formed(index) => self.spell(asked, Some(index)),
            Kind::Stopped => self.spell(asked, None),
            _ => {
                let sampler = &mut Sampler::new(asked.sampling);
                self.viewer.answer(sampler, asked.max_tokens as usize, &mut |_| Ok(())).unwrap()
            }
        }
    }

    /// An answer of a form, or one that a text ends: token after token.
    fn spell(&mut self, asked: &Asked, index: Option<usize>) -> Said {
        let mut guide = index.map(|index| self.grammars.compile(&form(index)).unwrap());
        let tokenizer = self.viewer.tokenizer().clone();
        let mut speech = match guide {
            Some(_) => Speech::exact(&tokenizer, &asked.stop()),
            None => Speech::new(&tokenizer, &asked.stop()),
        };
        let (mut sampler, mut ids) = (Sampler::new(asked.sampling), Vec::new());
        let truncated = loop {
            let logits = self.viewer.logits();
            let id = match &guide {
                Some(guide) => sampler.sample_masked(logits, guide.mask()).expect("the form has an end"),
                None => sampler.sample(logits),
            };
            ids.push(id);
            let heard = speech.hear(id);
            if id == speech.eos() {
                break false;
            }
            if heard == Heard::End {
                break guide.is_some();
            }
            if guide.as_mut().is_some_and(|guide| !guide.advance(id).unwrap()) {
                break false;
            }
            if ids.len() == asked.max_tokens as usize {
                break true;
            }
            self.viewer.read(&[id]).unwrap();
        };
        speech.finish();
        Said { text: speech.text().to_owned(), ids, truncated }
    }

    /// The tokens of an answer, without the end token.
    fn spoken<'s>(&self, said: &'s Said) -> &'s [u32] {
        let eos = self.viewer.tokenizer().eos();
        said.ids.strip_suffix(&[eos]).unwrap_or(&said.ids)
    }

    fn compare(&self, answered: &Answered, said: &Said) {
        let Answered { asked, sequence, text, truncated, generated, .. } = answered;
        let want = (said.text.as_str(), said.truncated, self.spoken(said).len());
        assert_eq!((text.as_str(), *truncated, *generated as usize), want, "{sequence}: {asked:?}");
    }

    /// Compares all answers, which stand alone or in conversations. Returns how many there were.
    pub(super) fn check_answers(&mut self, answers: Vec<Answered>) -> usize {
        let mut talks: BTreeMap<u32, Vec<Answered>> = BTreeMap::new();
        let mut alone = Vec::new();
        let count = answers.len();
        for answered in answers {
            match answered.asked.kind {
                Kind::Turn { talk, .. } => talks.entry(talk).or_default().push(answered),
                Kind::Silent { .. } => assert_eq!((answered.text.as_str(), answered.generated), ("", 0)),
                _ => alone.push(answered),
            }
        }
        alone.sort_by_key(Answered::view);
        for answered in &alone {
            self.look(answered.view());
            self.viewer.ask(answered.asked.text).unwrap();
            let said = self.answer(&answered.asked);
            self.compare(answered, &said);
        }
        talks.into_values().for_each(|turns| self.check_talk(turns));
        count
    }

    /// Compares the turns of a conversation: each is computed from nothing, with those before it.
    fn check_talk(&mut self, mut turns: Vec<Answered>) {
        turns.sort_by_key(|answered| answered.turns);
        let tokenizer = self.viewer.tokenizer().clone();
        // Answer, end token and next question of every turn so far.
        let mut between: Vec<u32> = Vec::new();
        let mut last: Option<View> = None;
        for (index, answered) in turns.iter().enumerate() {
            let asked = &answered.asked;
            assert_eq!(answered.turns as usize, index, "a turn is missing or there twice: {turns:?}");
            let follows = matches!(asked.kind, Kind::Turn { follows: true, .. });
            let view = answered.view();
            assert!(follows || last.is_none_or(|last| last == view), "it left its frame: {turns:?}");
            last = Some(view);
            self.look(view);
            self.viewer.ask(turns[0].asked.text).unwrap();
            if index > 0 {
                between.extend(later_question(&tokenizer, asked.text));
                self.viewer.read(&between).unwrap();
            }
            let said = self.answer(asked);
            self.compare(answered, &said);
            between.extend(self.spoken(&said));
            between.push(tokenizer.eos());
        }
    }

    /// Compares captions, evenly chosen if there are very many. Returns how many.
    pub(super) fn check_captions(&mut self, captions: &[Described], config: &Config) -> usize {
        let asked = Asked { max_tokens: config.caption.max_tokens, ..Asked::new(Kind::Latest) };
        let step = captions.len().div_ceil(CAPTIONS).max(1);
        for described in captions.iter().step_by(step) {
            self.look(View::Frame(described.camera, described.sequence));
            self.viewer.ask(&config.caption.prompt).unwrap();
            let said = self.answer(&asked);
            let want = (said.text.as_str(), said.truncated, self.spoken(&said).len());
            let got = (described.text.as_str(), described.truncated, described.generated as usize);
            assert_eq!(got, want, "caption of {} {}", NAMES[described.camera], described.sequence);
        }
        captions.len().div_ceil(step)
    }

    /// Compares what rules answered when alerts began or ended.
    pub(super) fn check_alerts(&mut self, alerts: &[Rang], rules: &[Rule]) {
        let judge = YesNo::new(self.viewer.tokenizer()).unwrap();
        for rang in alerts {
            self.look(View::Frame(rang.camera, rang.sequence));
            self.viewer.ask(&rules[rang.rule].question).unwrap();
            let verdict = judge.read(self.viewer.logits());
            let want = (verdict.p_yes as f32, verdict.p_either as f32);
            assert_eq!((rang.p_yes, rang.p_either), want, "{rang:?}");
        }
    }
}
