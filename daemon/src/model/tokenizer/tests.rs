//! All three sources against the reference, and files that are refused.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::*;
use crate::model::files::Vocabulary;

#[derive(Deserialize)]
struct Cases {
    vocab_size: usize,
    encode: Vec<Case>,
    decode: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

fn data(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data")).join(path)
}

fn cases(vocabulary: &str) -> Cases {
    let text = std::fs::read_to_string(data("goldens/tokenizer_cases.json")).unwrap();
    let mut all: std::collections::HashMap<String, Cases> = serde_json::from_str(&text).unwrap();
    all.remove(vocabulary).unwrap()
}

fn mini() -> Tokenizer {
    Tokenizer::from_source(&TokenizerSource::SentencePiece(data("tokenizer/mini/tokenizer.model"))).unwrap()
}

/// The vocabulary that a GGUF converter would store for a `tokenizer.model`.
fn vocabulary(path: &Path) -> Vocabulary {
    let parts = sentencepiece::read(path).unwrap();
    let kind = |piece: &Piece| match piece.kind {
        pieces::Kind::Normal => 1,
        pieces::Kind::Unknown => 2,
        pieces::Kind::Control => 3,
        pieces::Kind::Unmerged => 4,
        pieces::Kind::Byte(_) => 6,
    };
    Vocabulary {
        pieces: parts.pieces.iter().map(|piece| piece.spelling.clone()).collect(),
        scores: parts.pieces.iter().map(|piece| piece.score).collect(),
        kinds: parts.pieces.iter().map(kind).collect(),
        bos: parts.bos,
        eos: parts.eos,
        unk: parts.unk,
        add_space_prefix: parts.space_prefix,
    }
}

fn check(tokenizer: &Tokenizer, cases: &Cases) {
    assert_eq!(tokenizer.vocabulary_size(), cases.vocab_size);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (1, 2));
    for case in &cases.encode {
        assert_eq!(tokenizer.encode(&case.text), case.ids, "encoding {:?}", case.text);
        assert_eq!(tokenizer.decode(&case.ids), case.text.replace(SPACE, " "), "there and back");
    }
    for case in &cases.decode {
        assert_eq!(tokenizer.decode(&case.ids), case.text, "decoding {:?}", case.ids);
    }
}

#[test]
fn every_source_agrees_with_the_reference() {
    for name in ["mini", "full"] {
        let cases = cases(name);
        let path = data(&format!("tokenizer/{name}/tokenizer.model"));
        let gguf = TokenizerSource::Vocabulary(vocabulary(&path));
        check(&Tokenizer::from_source(&TokenizerSource::SentencePiece(path)).unwrap(), &cases);
        check(&Tokenizer::from_source(&gguf).unwrap(), &cases);
    }
    let json = TokenizerSource::Json(data("tokenizer/mini/tokenizer.json"));
    check(&Tokenizer::from_source(&json).unwrap(), &cases("mini"));
}

#[test]
fn special_tokens_in_a_text_are_text() {
    let tokenizer = mini();
    for text in ["</s>", "a<s>b", "<unk>", "<0x0A>"] {
        let ids = tokenizer.encode(text);
        assert!(ids.iter().all(|&id| id > 258), "no special token and no byte: {text}: {ids:?}");
        assert_eq!(tokenizer.decode(&ids), text);
    }
}

#[test]
fn pieces_of_text_never_split_a_character() {
    let tokenizer = mini();
    let byte = |byte: u8| u32::from(byte) + 3;
    let smile: Vec<u32> = "\u{1f642}".bytes().map(byte).collect();
    let mut decoder = tokenizer.decoder();
    assert_eq!(decoder.push(smile[0]), "");
    assert_eq!(decoder.push(smile[1]), "");
    assert_eq!(decoder.push(smile[2]), "");
    assert_eq!(decoder.push(smile[3]), "\u{1f642}");
    assert_eq!(decoder.push(smile[0]), "");
    assert_eq!(decoder.push(byte(b'a')), "\u{fffd}a");
    assert_eq!(decoder.push(byte(0xe4)), "");
    assert_eq!(decoder.push(tokenizer.eos()), "\u{fffd}");
    assert_eq!(decoder.push(byte(0xc3)), "");
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!(decoder.finish(), "");
}

#[test]
fn the_first_space_is_dropped_once() {
    let tokenizer = mini();
    let a = tokenizer.encode("a");
    let twice: Vec<u32> =
        [tokenizer.bos()].into_iter().chain(a.iter().copied()).chain(a.iter().copied()).collect();
    assert_eq!(tokenizer.decode(&twice), "a a");
    assert_eq!(tokenizer.decode(&[0, a[0]]), " \u{2047}  a");
    assert_eq!(tokenizer.decode(&[1 << 30]), "");
}

fn refused(parts: Result<Parts, String>) -> String {
    match parts {
        Err(problem) => problem,
        Ok(parts) => format!("accepted {} pieces", parts.pieces.len()),
    }
}

#[test]
fn damaged_sentencepiece_models_are_refused() {
    let whole = std::fs::read(data("tokenizer/mini/tokenizer.model")).unwrap();
    assert!(refused(sentencepiece::parse(&[])).contains("model type"));
    assert!(refused(sentencepiece::parse(&whole[..whole.len() / 2])).contains("no SentencePiece model"));
    assert!(refused(sentencepiece::parse(b"\xff\xff\xff\xff\xff\xff")).contains("no SentencePiece model"));
    for flip in (0..whole.len()).step_by(997) {
        let mut damaged = whole.clone();
        damaged[flip] ^= 0x55;
        // Whatever it says, it must not panic.
        if let Ok(parts) = sentencepiece::parse(&damaged) {
            let _ = Tokenizer::build(parts, "damaged").map(|tokenizer| tokenizer.encode("a \u{1f642}"));
        }
    }
}

#[test]
fn foreign_json_files_are_refused() {
    let with = |model: &str| json::parse(format!("{{\"model\":{model}}}").as_bytes());
    let vocabulary = r#""byte_fallback":true,"vocab":{"<unk>":0,"<s>":1,"</s>":2,"a":3}"#;
    assert!(refused(json::parse(b"{}")).contains("model"));
    assert!(refused(with(r#"{"type":"WordPiece","vocab":{},"merges":[]}"#)).contains("WordPiece"));
    assert!(refused(with(&format!(r#"{{{vocabulary},"merges":["a"]}}"#))).contains("no pair"));
    assert!(refused(with(r#"{"byte_fallback":true,"vocab":{"a":7},"merges":[]}"#)).contains("gap"));
    assert!(refused(with(r#"{"byte_fallback":true,"vocab":{"a":0},"merges":[]}"#)).contains("<s>"));

    let parts = with(&format!(r#"{{{vocabulary},"merges":[["a","a"]]}}"#)).unwrap();
    let error = Tokenizer::build(parts, "here").unwrap_err().to_string();
    assert!(error.contains("here") && error.contains("makes no piece"), "{error}");
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let mut vocabulary = vocabulary(&data("tokenizer/mini/tokenizer.model"));
    vocabulary.eos = 5000;
    let error = Tokenizer::from_source(&TokenizerSource::Vocabulary(vocabulary.clone())).unwrap_err();
    assert!(error.to_string().contains("eos id 5000"), "{error}");
    vocabulary.scores.pop();
    let error = Tokenizer::from_source(&TokenizerSource::Vocabulary(vocabulary)).unwrap_err();
    assert!(error.to_string().contains("2047 scores"), "{error}");
}

#[test]
fn a_long_text_is_encoded_in_reasonable_time() {
    let tokenizer = mini();
    let text = "the quick brown fox ".repeat(10_000);
    assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text);
}
