//! The bus: publishes captions, answers questions, tells the status.
