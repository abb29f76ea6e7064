//! Which processors compute: on boards with fast and slow cores the fast ones.

use std::fs;

use kernels::cpu::Processors;

/// A core is slow if it does less than this part of what the fastest one does.
const FAST: f64 = 0.75;

/// Where Linux says what cores can do, beside each other.
const CAPACITIES: &str = "/sys/devices/system/cpu";

/// Those of `wanted` that this process may use; if nothing is wanted, the fast cores where there are
/// slow ones too, else none: all alike.
pub fn choose(wanted: &[usize]) -> Processors {
    let allowed = Processors::allowed();
    let usable = |number: &usize| allowed.contains(*number);
    if wanted.is_empty() {
        return fast(&capacities().filter(|(number, _)| usable(number)).collect::<Vec<_>>());
    }
    let missing: Vec<_> = wanted.iter().filter(|number| !usable(number)).collect();
    if !missing.is_empty() {
        tracing::warn!(
            ?missing,
            "model.cpus names processors that this process cannot use: they are left out"
        );
    }
    wanted.iter().copied().filter(usable).collect()
}

/// Numbers of cores and what the system says they can do, 1024 being its fastest; nothing on systems
/// that do not say.
fn capacities() -> impl Iterator<Item = (usize, f64)> {
    (0..Processors::MOST).map_while(|number| {
        let text = fs::read_to_string(format!("{CAPACITIES}/cpu{number}/cpu_capacity")).ok()?;
        Some((number, text.trim().parse().ok()?))
    })
}

/// The fast cores if there are slow ones.
fn fast(capacities: &[(usize, f64)]) -> Processors {
    let fastest = capacities.iter().map(|(_, capacity)| *capacity).fold(0.0, f64::max);
    let is_fast = |&&(_, capacity): &&(usize, f64)| capacity >= FAST * fastest;
    if capacities.iter().all(|core| is_fast(&core)) {
        return Processors::default();
    }
    capacities.iter().filter(is_fast).map(|(number, _)| *number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_cores_are_left_out() {
        let board = [(0, 530.0), (1, 530.0), (2, 1024.0), (3, 960.0)];
        assert_eq!(fast(&board), [2, 3].into_iter().collect());
        assert_eq!(fast(&board[..2]), Processors::default());
        assert_eq!(fast(&[]), Processors::default());
    }

    #[test]
    fn what_is_wanted_is_taken_if_it_is_there() {
        let allowed = Processors::allowed();
        let number = (0..Processors::MOST).find(|&number| allowed.contains(number)).expect("one at least");
        assert_eq!(choose(&[number, Processors::MOST - 1]), [number].into_iter().collect());
    }
}
