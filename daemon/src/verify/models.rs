//! The models of a folder: every checkpoint in every form, and the cases that go with it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use kernels::DType;

use super::case::{Case, Path as ComputePath, Work};
use super::golden::Golden;
use super::index::{self, Checkpoint, Gguf, Index};
use super::row::Row;
use super::target::Target;
use super::{PictureNumbers, Sink};
use crate::model::files::{ModelFiles, ModelPaths};
use crate::model::preprocess::{Preprocessor, decode_picture};
use crate::model::prompt::Turn;
use crate::model::tokenizer::Tokenizer;

/// Weight files of a checkpoint or a vision tower.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Every model of a folder.
pub(super) struct Models<'a> {
    dir: &'a Path,
    index: &'a Index,
    ggufs: &'a BTreeMap<String, Gguf>,
    forms: Vec<Form<'a>>,
}

/// A checkpoint in one set of files.
struct Form<'a> {
    /// What rows call it.
    label: String,
    paths: ModelPaths,
    checkpoint: &'a Checkpoint,
    holds: Holds<'a>,
    /// Type that its float weights are quantized to while loading.
    dtype: Option<DType>,
    /// Whether another form has the same numbers. What it adds is how its files are read, and that
    /// is checked on one target.
    again: bool,
}

/// Which numbers the files hold.
#[derive(Clone, Copy)]
enum Holds<'a> {
    /// Those of the checkpoint.
    Checkpoint,
    /// The vision part of the checkpoint; the text part is quantized and has cases of its own.
    Quantized(&'a BTreeMap<String, index::Case>),
    /// The vision part of the checkpoint only.
    Vision,
}

impl<'a> Models<'a> {
    /// Looks for the files of every entry.
    pub(super) fn find(dir: &'a Path, index: &'a Index, ggufs: &'a BTreeMap<String, Gguf>) -> Self {
        let mut forms = Vec::new();
        for (name, checkpoint) in &index.checkpoints {
            let stored = hugging_face(dir, name, checkpoint);
            forms.extend(
                stored.first().into_iter().flat_map(|form| quantized_while_loading(form, name, ggufs)),
            );
            forms.extend(stored);
            let quantized = ggufs.iter().filter(|(entry, _)| entry.split('/').next() == Some(name.as_str()));
            let mut pairs: Vec<_> =
                quantized.flat_map(|(entry, gguf)| pair(dir, entry, gguf, index)).collect();
            if forms.iter().all(|form| form.label.split([' ', '/']).next() != Some(name)) {
                // Only GGUF files: the checkpoint's own numbers are those of the vision part.
                forms.extend(pairs.first().map(|form| Form {
                    label: format!(
                        "{name} {}",
                        form.paths.mmproj.as_deref().map_or_else(String::new, file_name)
                    ),
                    paths: form.paths.clone(),
                    checkpoint,
                    holds: Holds::Vision,
                    dtype: None,
                    again: false,
                }));
            }
            forms.append(&mut pairs);
        }
        Self { dir, index, ggufs, forms }
    }

    /// What normalizes pictures in the first model that opens; those of CLIP if none does.
    pub(super) fn picture_numbers(&self) -> PictureNumbers {
        let open = |form: &Form<'_>| ModelFiles::open(&form.paths).ok();
        match self.forms.iter().find_map(open) {
            Some(files) => PictureNumbers { mean: files.image_mean, deviation: files.image_std },
            None => PictureNumbers {
                mean: [0.481_454_66, 0.457_827_5, 0.408_210_72],
                deviation: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            },
        }
    }

    /// Runs every case on every target, and every form on at least the last one.
    pub(super) fn check(&self, targets: &[Target], exact_only: bool, sink: &mut Sink<'_>) {
        self.check_presence(sink);
        for form in &self.forms {
            let files = match ModelFiles::open(&form.paths) {
                Ok(files) => files,
                Err(error) => {
                    sink.push(Row::failed("load", &form.label, error));
                    continue;
                }
            };
            let tokenizer = match Tokenizer::of_model(&files) {
                Ok(tokenizer) => tokenizer,
                Err(error) => {
                    sink.push(Row::failed("load", &form.label, error));
                    continue;
                }
            };
            let cases = self.cases(form, &files, sink);
            let dtype = form.dtype;
            let work =
                Work { label: &form.label, files: &files, tokenizer: &tokenizer, dtype, cases: &cases };
            work.check_text(sink);
            let targets = if form.again { &targets[targets.len().saturating_sub(1)..] } else { targets };
            for &target in targets {
                let is_last = targets.last() == Some(&target);
                for path in paths(form.dtype, exact_only, is_last && !form.again) {
                    work.check_on(target, path, sink);
                }
            }
        }
    }

    /// A failed row for every entry without files.
    fn check_presence(&self, sink: &mut Sink<'_>) {
        let has = |wanted: &str| {
            self.forms.iter().any(|form| {
                form.label.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            })
        };
        for name in self.index.checkpoints.keys().filter(|name| !has(name)) {
            sink.push(Row::failed("load", name, "neither a checkpoint nor a GGUF pair has its weights"));
        }
        for (name, entry) in self.ggufs.iter().filter(|(name, _)| !has(name)) {
            let problem = format!("{}: no mmproj file beside it, or no checkpoint of this name", entry.file);
            sink.push(Row::failed("load", name, problem));
        }
    }

    /// The cases of a form with their pictures and numbers.
    fn cases(&self, form: &Form<'_>, files: &ModelFiles, sink: &mut Sink<'_>) -> Vec<Case> {
        let mut pictures = Pictures { dir: self.dir, index: self.index, files, done: HashMap::new() };
        let mut cases = Vec::new();
        let names: Vec<&String> = match form.holds {
            Holds::Quantized(own) => own.keys().collect(),
            Holds::Checkpoint | Holds::Vision => form.checkpoint.cases.keys().collect(),
        };
        for name in names {
            match self.case(form, name, &mut pictures) {
                Ok(case) => cases.push(case),
                Err(problem) => sink.push(Row::failed("case", format!("{} {name}", form.label), problem)),
            }
        }
        cases
    }

    fn case(&self, form: &Form<'_>, name: &str, pictures: &mut Pictures<'_>) -> Result<Case, String> {
        let plain = form
            .checkpoint
            .cases
            .get(name)
            .ok_or("the checkpoint has no case of this name with its question")?;
        let read = |case: &index::Case| {
            let golden = Golden::read(self.dir.join(&case.file))?;
            golden.check_declared(&case.tensors).map(|()| golden)
        };
        let vision = read(plain)?;
        let (text, entry) = match form.holds {
            Holds::Checkpoint => (Some(read(plain)?), plain),
            Holds::Quantized(own) => (Some(read(&own[name])?), &own[name]),
            Holds::Vision => (None, plain),
        };
        let debug = form.checkpoint.debug.as_ref().filter(|debug| {
            matches!(form.holds, Holds::Checkpoint)
                && plain.question.is_some()
                && plain.image.as_ref() == Some(&debug.image)
        });
        Ok(Case {
            name: name.to_owned(),
            turns: turns(plain)?,
            pixels: plain.image.as_ref().map(|image| pictures.pixels(image)).transpose()?,
            vision,
            text,
            continuation: entry.text.clone(),
            debug: debug.map(|debug| Golden::read(self.dir.join(&debug.file))).transpose()?,
        })
    }
}

fn turns(case: &index::Case) -> Result<Vec<Turn>, String> {
    match (&case.question, &case.turns) {
        (Some(question), None) => Ok(vec![Turn::ask(question)]),
        (None, Some(turns)) if turns.len() % 2 == 1 => Ok(turns
            .chunks(2)
            .map(|turn| match turn {
                [question, answer] => Turn::finished(question, answer),
                _ => Turn::ask(&turn[0]),
            })
            .collect()),
        _ => Err("expected a question, or turns that end with one".to_owned()),
    }
}

/// A form for every weight file of a checkpoint, and for every one of its vision tower.
fn hugging_face<'a>(dir: &Path, name: &str, checkpoint: &'a Checkpoint) -> Vec<Form<'a>> {
    let folder = dir.join("checkpoints").join(name);
    let towers = tower(dir, &folder).map_or_else(Vec::new, |tower| weight_files(&tower));
    let several = towers.len() > 1;
    let towers: Vec<Option<PathBuf>> =
        if several { towers.into_iter().map(Some).collect() } else { vec![None] };
    let mut forms = Vec::new();
    for weights in weight_files(&folder) {
        for tower in &towers {
            let beside =
                tower.as_deref().map_or_else(String::new, |tower| format!(" tower {}", file_name(tower)));
            forms.push(Form {
                label: format!("{name} {}{beside}", file_name(&weights)),
                paths: ModelPaths { model: weights.clone(), mmproj: None, vision_tower: tower.clone() },
                checkpoint,
                holds: Holds::Checkpoint,
                dtype: None,
                again: !forms.is_empty(),
            });
        }
    }
    forms
}

/// Ways to compute a form. What was quantized while loading has numbers for the text part only. What a
/// type of cache does is a matter of the model, not of the instruction set, and seen `once`.
fn paths(dtype: Option<DType>, exact_only: bool, once: bool) -> impl Iterator<Item = ComputePath> {
    ComputePath::ALL.into_iter().filter(move |&path| match path {
        ComputePath::Exact => dtype.is_none(),
        ComputePath::Run => dtype.is_none() && !exact_only,
        ComputePath::Q8Cache => once && dtype.is_none() && !exact_only,
        ComputePath::RunText => !exact_only,
    })
}

/// Forms of a checkpoint that must give the numbers of its quantized GGUF files.
fn quantized_while_loading<'a>(
    stored: &Form<'a>,
    name: &str,
    ggufs: &'a BTreeMap<String, Gguf>,
) -> Vec<Form<'a>> {
    let form = |(entry, gguf): (&String, &'a Gguf)| {
        let dtype: DType = entry.strip_prefix(name)?.strip_prefix('/')?.parse().ok()?;
        let quantized = !dtype.is_float() && gguf.same_as.is_none();
        quantized.then(|| Form {
            label: format!("{} as {dtype}", stored.label),
            paths: stored.paths.clone(),
            checkpoint: stored.checkpoint,
            holds: Holds::Quantized(&gguf.cases),
            dtype: Some(dtype),
            again: true,
        })
    };
    ggufs.iter().filter_map(form).collect()
}

/// The folder of the vision tower that a checkpoint of V1 takes its vision weights from.
fn tower(dir: &Path, folder: &Path) -> Option<PathBuf> {
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).ok()?).ok()?;
    let needed = config["mm_projector_type"] == "ldpnet";
    needed
        .then(|| config["mm_vision_tower"].as_str().map(|name| dir.join("checkpoints").join(name)))
        .flatten()
}

fn weight_files(folder: &Path) -> Vec<PathBuf> {
    WEIGHTS.iter().map(|file| folder.join(file)).filter(|path| path.exists()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A form for every mmproj file beside a text model.
fn pair<'a>(dir: &Path, entry: &str, gguf: &'a Gguf, index: &'a Index) -> Vec<Form<'a>> {
    let model = dir.join(&gguf.file);
    let owner = gguf.same_as.as_deref().or_else(|| entry.split('/').next());
    let Some(checkpoint) = owner.and_then(|name| index.checkpoints.get(name)) else {
        return Vec::new();
    };
    let holds = if gguf.same_as.is_some() { Holds::Checkpoint } else { Holds::Quantized(&gguf.cases) };
    let beside = model.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten();
    let mut projectors: Vec<PathBuf> = beside
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| file_name(path).starts_with("mmproj") && file_name(path).ends_with(".gguf"))
        .collect();
    projectors.sort();
    let form = |(number, mmproj): (usize, PathBuf)| Form {
        label: format!("{entry} {}", file_name(&mmproj)),
        paths: ModelPaths { model: model.clone(), mmproj: Some(mmproj), vision_tower: None },
        checkpoint,
        holds,
        dtype: None,
        again: number > 0,
    };
    projectors.into_iter().enumerate().map(form).collect()
}

/// Pictures as a model wants them.
struct Pictures<'a> {
    dir: &'a Path,
    index: &'a Index,
    files: &'a ModelFiles,
    done: HashMap<String, Vec<f32>>,
}

impl Pictures<'_> {
    fn pixels(&mut self, name: &str) -> Result<Vec<f32>, String> {
        if let Some(pixels) = self.done.get(name) {
            return Ok(pixels.clone());
        }
        let entry =
            self.index.pixels.get(name).ok_or_else(|| format!("no picture {name} in goldens/index.json"))?;
        let path = self.dir.join(&entry.file);
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let picture = decode_picture(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        let ModelFiles { vision, image_mean, image_std, .. } = self.files;
        let pixels = Preprocessor::new(vision.image, *image_mean, *image_std).pixels(&picture).to_vec();
        self.done.insert(name.to_owned(), pixels.clone());
        Ok(pixels)
    }
}
