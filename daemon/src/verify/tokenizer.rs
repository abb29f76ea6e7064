//! Texts to ids and back, by every source of a vocabulary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::index::{Gguf, TextCase, Vocabulary};
use super::row::{Bound, Row};
use super::{Sink, VerifyError, index};
use crate::model::files::{ModelFiles, ModelPaths, TokenizerSource};
use crate::model::tokenizer::Tokenizer;

const STAGE: &str = "tokenizer";

/// A row for every text and every list of ids; it counts the sources that disagree.
pub(super) fn check(
    dir: &Path,
    ggufs: &BTreeMap<String, Gguf>,
    sink: &mut Sink<'_>,
) -> Result<(), VerifyError> {
    let vocabularies: BTreeMap<String, Vocabulary> = index::read(dir, "goldens/tokenizer_cases.json")?;
    for (name, vocabulary) in &vocabularies {
        let sources = sources(&dir.join("tokenizer").join(name), dir, ggufs);
        if sources.is_empty() {
            sink.push(Row::failed(
                STAGE,
                name,
                "no tokenizer.json, tokenizer.model or GGUF file has this vocabulary",
            ));
        }
        let mut tokenizers = Vec::new();
        for (label, source) in sources {
            match source.and_then(|source| Tokenizer::from_source(&source).map_err(|error| error.to_string()))
            {
                Ok(tokenizer) => {
                    let sizes = (&[tokenizer.vocabulary_size()], &[vocabulary.vocab_size]);
                    sink.push(Row::equal(STAGE, format!("{name} pieces of {label}"), sizes.0, sizes.1));
                    tokenizers.push((label, tokenizer));
                }
                Err(problem) => sink.push(Row::failed(STAGE, format!("{name} {label}"), problem)),
            }
        }
        for (number, case) in vocabulary.encode.iter().enumerate() {
            let wrong = tokenizers.iter().find(|(_, tokenizer)| tokenizer.encode(&case.text) != case.ids);
            sink.push(row(format!("{name} encode {number}"), case, wrong));
        }
        for (number, case) in vocabulary.decode.iter().enumerate() {
            let wrong = tokenizers.iter().find(|(_, tokenizer)| tokenizer.decode(&case.ids) != case.text);
            sink.push(row(format!("{name} decode {number}"), case, wrong));
        }
    }
    Ok(())
}

fn row(name: String, case: &TextCase, wrong: Option<&(String, Tokenizer)>) -> Row {
    let mut row = Row::measured(STAGE, name, f64::from(u8::from(wrong.is_some())), Bound::AtMost(0.0));
    row.problem = wrong.map(|(label, _)| format!("{label} differs at {:?}", case.text));
    row
}

type Source = (String, Result<TokenizerSource, String>);

/// The files of a vocabulary's folder, and a GGUF file of a checkpoint with the same vocabulary.
fn sources(folder: &Path, dir: &Path, ggufs: &BTreeMap<String, Gguf>) -> Vec<Source> {
    let file = |name: &str, source: fn(PathBuf) -> TokenizerSource| {
        let path = folder.join(name);
        path.exists().then(|| (name.to_owned(), Ok(source(path))))
    };
    let mut sources: Vec<Source> = Vec::new();
    sources.extend(file("tokenizer.json", TokenizerSource::Json));
    sources.extend(file("tokenizer.model", TokenizerSource::SentencePiece));
    let own = std::fs::read(folder.join("tokenizer.model")).ok();
    let is_same = |entry: &str| {
        let checkpoint = dir.join("checkpoints").join(entry.split('/').next().unwrap_or(entry));
        own.is_some() && std::fs::read(checkpoint.join("tokenizer.model")).ok() == own
    };
    let gguf = ggufs.iter().find(|(entry, _)| is_same(entry)).map(|(_, gguf)| {
        let paths = ModelPaths { model: dir.join(&gguf.file), ..ModelPaths::default() };
        let source = ModelFiles::open(&paths).map(|files| files.tokenizer).map_err(|error| error.to_string());
        (gguf.file.clone(), source)
    });
    sources.extend(gguf);
    sources
}
