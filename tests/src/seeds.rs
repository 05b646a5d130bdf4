//! Seeds for tests that break things at random: few in a normal run, many in a long one, and one again when a failure named
//! it. It must not know what is broken.
//!
//! `SUBSTRATUS_SEEDS=200` runs the seeds 1 to 200, `SUBSTRATUS_SEED=17` runs that one alone.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;

/// The seeds of this run; `few` of them where nothing is said.
pub fn all(few: u64) -> Result<Vec<Seed>> {
    let Given { one, many } = Given::try_parse_from(["tests"]).context("reading SUBSTRATUS_SEED and SUBSTRATUS_SEEDS")?;
    Ok(chosen(one, many, few))
}

/// What the environment says; tests take no flags.
#[derive(Debug, Parser)]
struct Given {
    #[arg(long, env = "SUBSTRATUS_SEED")]
    one: Option<u64>,
    #[arg(long, env = "SUBSTRATUS_SEEDS")]
    many: Option<u64>,
}

fn chosen(one: Option<u64>, many: Option<u64>, few: u64) -> Vec<Seed> {
    match one {
        Some(seed) => vec![Seed(seed)],
        None => (1..=many.unwrap_or(few)).map(Seed).collect(),
    }
}

/// What determines all choices of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// Says which one it is, which a test runner shows when the test fails, and begins.
    #[expect(clippy::print_stderr, reason = "whoever reads of a failure needs the seed")]
    pub fn begin(self) -> Chance {
        eprintln!("seed {0}; again with SUBSTRATUS_SEED={0}", self.0);
        Chance(self.0)
    }
}

/// Choices, the same for the same seed.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// Choices that follow from a number.
    pub const fn of(number: u64) -> Self {
        Self(number)
    }

    /// A number of the range, which must not be empty.
    pub fn number(&mut self, range: Range<u64>) -> u64 {
        // SplitMix64: every bit of the seed reaches every bit of the answer.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        range.start + mixed % (range.end - range.start).max(1)
    }

    /// A time of so many milliseconds.
    pub fn pause(&mut self, milliseconds: Range<u64>) -> Duration {
        Duration::from_millis(self.number(milliseconds))
    }

    /// One of several.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.number(0..of.len() as u64)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_chooses_the_same_again_and_another_something_else() {
        let choices = |seed| {
            let mut chance = Seed(seed).begin();
            (0..20).map(|_| chance.number(10..1000)).collect::<Vec<_>>()
        };
        assert_eq!(choices(7), choices(7));
        assert_ne!(choices(7), choices(8));
        assert!(choices(7).iter().all(|number| (10..1000).contains(number)));
        assert_eq!(Seed(1).begin().one(&["only"]), Some(&"only"));
        assert_eq!(Seed(1).begin().one::<u8>(&[]), None);
    }

    #[test]
    fn one_seed_wins_over_many_and_many_over_few() {
        assert_eq!(chosen(Some(17), Some(200), 2), [Seed(17)]);
        assert_eq!(chosen(None, Some(3), 2), [Seed(1), Seed(2), Seed(3)]);
        assert_eq!(chosen(None, None, 2), [Seed(1), Seed(2)]);
    }
}
