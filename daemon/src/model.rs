//! MobileVLM: a picture and a question become words.

pub mod kv_cache;
pub mod language;
pub mod preprocess;
pub mod projector;
pub mod prompt;
pub mod sampler;
pub mod tokenizer;
pub mod vision;

pub mod files;
pub mod gguf;
pub mod hf;
pub mod weights;
