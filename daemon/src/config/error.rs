//! What is wrong with a configuration.

use std::io;
use std::path::PathBuf;

use super::Origin;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}; --config names another file", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not TOML.
    #[error("{origin}: not valid TOML: {problem}")]
    Syntax {
        /// The line.
        origin: Origin,
        /// What is wrong, and what would be accepted.
        problem: String,
    },
    /// A key that does not exist, or a value that is not accepted.
    #[error("{}{key}: {problem}", origin.as_ref().map(|origin| format!("{origin}: ")).unwrap_or_default())]
    Refused {
        /// Where it was set; absent for a value that was never set by a user.
        origin: Option<Origin>,
        /// The key, written `model.path` or `camera[0].name`.
        key: String,
        /// What is wrong, and what would be accepted.
        problem: String,
    },
}
