//! The one owner of model, KV cache and device.

mod request;

pub use request::{Ask, AskSender, Event, Reply};
