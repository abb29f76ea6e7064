//! Hugging Face directories: configuration, safetensors and pickle files.
