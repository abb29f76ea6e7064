//! Who has the name of a device.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

/// How far a daemon is with its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// It asks whether another one has it.
    #[default]
    Asking,
    /// It has it and gets ready.
    Held,
    /// It answers to it.
    Serving,
}

/// The daemon that has the name of a device, or wants to have it: its answer on the `alive` key, and
/// what it sends when it asks whether another one is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Id of its session on the bus, as zenoh writes it.
    pub zid: String,
    /// Name of its machine.
    pub host: String,
    /// Number of its process there.
    pub process: u32,
    /// When it began to ask for the name: nanoseconds since the Unix epoch.
    pub since: u64,
    /// How far it is.
    pub claim: Claim,
}

impl Holder {
    /// Whether this one keeps the name if both want it: whoever is further, and of two that are equally
    /// far the one with the smaller id. Of any two daemons it is exactly one.
    pub fn outranks(&self, other: &Self) -> bool {
        (self.claim, Reverse(&self.zid)) > (other.claim, Reverse(&other.zid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_keeps_the_name() {
        let holder = |zid: &str, claim| Holder { zid: zid.into(), claim, ..Holder::default() };
        for (winner, loser) in [
            (holder("b", Claim::Serving), holder("a", Claim::Held)),
            (holder("b", Claim::Held), holder("a", Claim::Asking)),
            (holder("a", Claim::Asking), holder("b", Claim::Asking)),
            (holder("a", Claim::Serving), holder("b", Claim::Serving)),
        ] {
            assert!(winner.outranks(&loser) && !loser.outranks(&winner), "{winner:?} {loser:?}");
        }
        let same = holder("a", Claim::Held);
        assert!(!same.outranks(&same));
    }
}
