//! Words and places for what visual tokens show.
//!
//! One table serves two ends. Visual tokens learn to resemble the entries for what they show, so that the
//! language model finds by likeness what a question names. And early in a run, when the tower sees
//! nothing yet, the language model is given sums of those entries in their place: it learns to answer
//! while the tower learns to see, and neither waits for the other.

use std::ops::Range;

use candle_core::{D, Device, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use mobilevlmd::camera::world::{Color, DoorState, Label, Shape, Side, Size};
use mobilevlmd::model::tokenizer::Tokenizer;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::loss::surprise;
use crate::thing::{Thing, foremost, pooled};

/// Words for the sides of a picture.
const SIDES: [&str; 3] = ["left", "middle", "right"];

const KINDS: Range<usize> = 0..5 + Shape::ALL.len();
const ATTRIBUTES: Range<usize> = KINDS.end..KINDS.end + DoorState::ALL.len() + 2 + Color::ALL.len();
const SIZES: Range<usize> = ATTRIBUTES.end..ATTRIBUTES.end + Size::ALL.len();
const THIRDS: Range<usize> = SIZES.end..SIZES.end + Side::ALL.len();

/// Numbers that say where a thing is and how high.
const NUMBERS: usize = 3;

/// Of the visual tokens that show nothing, one in this many is learned from.
const EMPTY: usize = 3;

/// Spread of the table's entries, that of the embedding table.
const SPREAD: f64 = 0.5;

/// What sums of entries are multiplied by; a visual token that resembles them says much else.
const TOLD: f64 = 0.5;

/// Noise of told tokens, to either side: what a visual token says beside words.
const NOISE: f32 = 0.5;

/// From likeness, the product of two entries, to logits: a told token's own words get about seven.
const SHARPNESS: f64 = 0.3;

/// Weight of the squared error of numbers, next to which surprise is large.
const PRECISION: f64 = 20.0;

/// The words.
pub(super) struct Words {
    ids: Tensor,     // (words): entries of the embedding table
    cells: Tensor,   // (visual tokens of a picture, hidden)
    numbers: Tensor, // (NUMBERS, hidden)
    side: usize,
}

impl Words {
    /// For pictures of `side` patches in a row.
    pub(super) fn new(
        tokenizer: &Tokenizer,
        side: usize,
        hidden: usize,
        parameters: &VarBuilder,
    ) -> Result<Self> {
        let id = |word: &str| tokenizer.encode(word).first().copied().unwrap_or_default();
        let spread = Init::Randn { mean: 0.0, stdev: SPREAD };
        let table = |name, rows| parameters.get_with_hints((rows, hidden), name, spread);
        Ok(Self {
            ids: Tensor::new(words().into_iter().map(id).collect::<Vec<u32>>(), &Device::Cpu)?,
            cells: table("cell_embd.weight", side * side / 4)?,
            numbers: table("number_embd.weight", NUMBERS)?,
            side,
        })
    }

    /// Entries for words, cells and numbers `(entries, hidden)`.
    pub(super) fn table(&self, embedding: &Tensor) -> Result<Tensor> {
        Tensor::cat(&[&embedding.index_select(&self.ids, 0)?, &self.cells, &self.numbers], 0)
    }

    /// The loss of visual tokens `(visual tokens, hidden)` whose patches show `things`.
    pub(super) fn loss(&self, visual: &Tensor, table: &Tensor, things: &[Thing]) -> Result<Tensor> {
        let shown: Vec<Thing> = pooled(things, self.side).map(foremost).collect();
        // Tokens come to the words, not words to the tokens: those belong to the language model.
        let likeness = visual.matmul(&table.detach().t()?)?; // (visual tokens, entries)
        let numbers = likeness.narrow(1, likeness.dim(1)? - NUMBERS, NUMBERS)?.contiguous()?;
        let likeness = (likeness * SHARPNESS)?;
        let group = |range: &Range<usize>| likeness.narrow(1, range.start, range.len())?.contiguous();
        let all = 0..shown.len();
        let is_learned = |i: &usize| shown[*i].is_there() || i.is_multiple_of(EMPTY);
        let kinds = all.clone().filter(is_learned).map(|i| (i, kind_word(shown[i].label)));
        let attributes = all.clone().filter_map(|i| Some((i, attribute_word(shown[i].label)?)));
        let sizes = all.clone().filter_map(|i| Some((i, shown[i].size? as usize)));
        let thirds = all.clone().filter_map(|i| Some((i, shown[i].side? as usize)));
        let words = surprise(&group(&KINDS)?, kinds)? + surprise(&group(&ATTRIBUTES)?, attributes)?;
        let words = (words? + surprise(&group(&SIZES)?, sizes)?)? + surprise(&group(&THIRDS)?, thirds)?;
        let cells = THIRDS.end..THIRDS.end + self.cells.dim(0)?;
        let places = surprise(&group(&cells)?, all.map(|i| (i, i % cells.len())))?;
        (words? + places)? + self.error(&numbers, &shown)?
    }

    /// Squared error of the numbers that likeness to their entries says.
    fn error(&self, likeness: &Tensor, shown: &[Thing]) -> Result<Tensor> {
        let rows: Vec<u32> = (0..shown.len() as u32).filter(|i| shown[*i as usize].is_there()).collect();
        if rows.is_empty() {
            return Tensor::new(0f32, &Device::Cpu);
        }
        let wanted: Vec<f32> = rows.iter().flat_map(|i| shown[*i as usize].place).collect();
        let wanted = Tensor::from_vec(wanted, (rows.len(), NUMBERS), &Device::Cpu)?;
        let square = self.cells.dim(D::Minus1)? as f64 * SPREAD * SPREAD; // of an entry's length
        let said = (likeness.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)? * (1.0 / square))?;
        (said - (wanted * TOLD)?)?.sqr()?.mean_all()? * PRECISION
    }

    /// Visual tokens `(visual tokens, hidden)` as a tower would make them that sees everything.
    pub(super) fn tell(&self, table: &Tensor, things: &[Thing]) -> Result<Tensor> {
        let (cells, entries) = (self.cells.dim(0)?, table.dim(0)?);
        let mut facts = vec![0.0; things.len() / 4 * entries];
        for (i, (patches, row)) in pooled(things, self.side).zip(facts.chunks_exact_mut(entries)).enumerate()
        {
            let there = patches.iter().filter(|thing| thing.is_there()).count();
            if there == 0 {
                row[KINDS.start] = 1.0;
            }
            for thing in patches.iter().filter(|thing| thing.is_there()) {
                write(thing, 1.0 / there as f32, row, THIRDS.end + cells);
            }
            row[THIRDS.end + i % cells] = 1.0;
        }
        let facts = Tensor::from_vec(facts, (things.len() / 4, entries), &Device::Cpu)?;
        let told = (facts.matmul(table)? * TOLD)?;
        let mut rng = ChaCha8Rng::seed_from_u64(things.iter().map(|thing| u64::from(thing.is_there())).sum());
        let noise: Vec<f32> = (0..told.elem_count()).map(|_| rng.random_range(-NOISE..NOISE)).collect();
        &told + Tensor::from_vec(noise, told.shape(), &Device::Cpu)?
    }
}

/// Adds `share` of the entries for a thing; those for numbers begin at `numbers`.
fn write(thing: &Thing, share: f32, row: &mut [f32], numbers: usize) {
    row[KINDS.start + kind_word(thing.label)] += share;
    let attribute = attribute_word(thing.label).map(|word| ATTRIBUTES.start + word);
    let size = thing.size.map(|size| SIZES.start + size as usize);
    let third = thing.side.map(|side| THIRDS.start + side as usize);
    for entry in [attribute, size, third].into_iter().flatten() {
        row[entry] += share;
    }
    for (entry, number) in row[numbers..].iter_mut().zip(thing.place) {
        *entry += share * number;
    }
}

/// The words of the table, in the order of its entries.
fn words() -> Vec<&'static str> {
    // What shows nothing resembles the piece that stands for no word.
    let things = ["", "door", "crate", "person", "lamp"].into_iter().chain(Shape::ALL.map(Shape::word));
    let states = DoorState::ALL.map(DoorState::word).into_iter().chain(["off", "on"]);
    let attributes = states.chain(Color::ALL.map(Color::word));
    things.chain(attributes).chain(Size::ALL.map(Size::word)).chain(SIDES).collect()
}

/// Place of a label's kind among the words for kinds.
fn kind_word(label: Label) -> usize {
    match label {
        Label::Background => 0,
        Label::Door(_) => 1,
        Label::Crate => 2,
        Label::Person => 3,
        Label::Lamp(_) => 4,
        Label::Object(shape, _) => 5 + shape as usize,
    }
}

/// Place of a label's colour or state among the words for them.
fn attribute_word(label: Label) -> Option<usize> {
    match label {
        Label::Background | Label::Crate | Label::Person => None,
        Label::Door(state) => Some(state as usize),
        Label::Lamp(is_on) => Some(DoorState::ALL.len() + usize::from(is_on)),
        Label::Object(_, color) => Some(DoorState::ALL.len() + 2 + color as usize),
    }
}

#[cfg(test)]
mod tests {
    use mobilevlmd::model::builtin;

    use super::*;

    #[test]
    fn every_word_is_one_piece() {
        let files = builtin::open().expect("the built-in model");
        let tokenizer = Tokenizer::of_model(&files).expect("it has one");
        assert_eq!(words().len(), THIRDS.end);
        let ids: Vec<_> = words().into_iter().map(|word| tokenizer.encode(word)).collect();
        assert!(ids[1..].iter().all(|ids| ids.len() == 1), "{ids:?}");
        assert!((1..ids.len()).all(|i| !ids[..i].contains(&ids[i])), "{ids:?}");
    }
}
