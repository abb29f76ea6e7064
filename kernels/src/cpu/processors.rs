//! Which of the machine's processors threads run on.

const WORDS: usize = Processors::MOST / u64::BITS as usize;

/// Some of the machine's processors, by their numbers; none stands for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processors([u64; WORDS]);

impl Processors {
    /// Numbers are below this.
    pub const MOST: usize = 1024;

    /// Those that the system lets the calling thread run on; none if it does not say.
    pub fn allowed() -> Self {
        let mut allowed = Self::default();
        // SAFETY: the mask has the size it is said to have; 0 is the calling thread.
        let outcome = unsafe { libc::sched_getaffinity(0, size_of::<Self>(), allowed.0.as_mut_ptr().cast()) };
        if outcome == 0 { allowed } else { Self::default() }
    }

    /// Whether `number` is among them.
    pub fn contains(self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Lets the calling thread run on these alone. Nothing happens if there are none, or if the system
    /// refuses: a thread on another processor is slower, not wrong.
    pub(crate) fn hold(self) {
        if self.count() > 0 {
            // SAFETY: the mask has the size it is said to have; 0 is the calling thread.
            unsafe { libc::sched_setaffinity(0, size_of::<Self>(), self.0.as_ptr().cast()) };
        }
    }
}

impl FromIterator<usize> for Processors {
    /// Numbers that are too large are left out.
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut processors = Self::default();
        for number in numbers {
            if let Some(word) = processors.0.get_mut(number / 64) {
                *word |= 1 << (number % 64);
            }
        }
        processors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept() {
        let processors: Processors = [0, 3, 64, 1023, 1024, 99999].into_iter().collect();
        assert_eq!(processors.count(), 4);
        for number in [0, 3, 64, 1023] {
            assert!(processors.contains(number), "{number}");
        }
        assert!(![1, 65, 1022, 1024, 99999].into_iter().any(|number| processors.contains(number)));
    }

    #[test]
    fn a_thread_runs_where_it_is_held() {
        let allowed = Processors::allowed();
        let last = (0..Processors::MOST).rfind(|&number| allowed.contains(number)).unwrap();
        let held = std::thread::spawn(move || {
            Processors::default().hold();
            assert_eq!(Processors::allowed(), allowed);
            [last].into_iter().collect::<Processors>().hold();
            Processors::allowed()
        });
        assert_eq!(held.join().unwrap(), [last].into_iter().collect());
        assert_eq!(Processors::allowed(), allowed, "other threads are not touched");
    }
}
