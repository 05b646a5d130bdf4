//! A set of byte ranges: which parts of a file are there. Pure.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Sorted, disjoint, never touching.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        let first = self.0.partition_point(|&(_, before)| before < start);
        let behind = self.0.partition_point(|&(after, _)| after <= end);
        for &(one, other) in self.0.get(first..behind).unwrap_or_default() {
            (start, end) = (start.min(one), end.max(other));
        }
        self.0.splice(first..behind.max(first), [(start, end)]);
    }

    /// Bytes in the set.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Nothing is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How far the file is whole from its beginning.
    pub fn front(&self) -> u64 {
        self.0.first().filter(|(start, _)| *start == 0).map_or(0, |(_, end)| *end)
    }

    /// What lacks of a file of `size` bytes, cut into pieces of at most `piece` bytes, in order.
    pub fn missing(&self, size: u64, piece: u64) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut position = 0;
        for &(start, end) in self.0.iter().chain([&(size, size)]) {
            while position < start.min(size) {
                let stop = start.min(size).min(position + piece.max(1));
                gaps.push(position..stop);
                position = stop;
            }
            position = position.max(end);
        }
        gaps
    }

    /// Whether a set that was read from disk is one that this code would have written, for a file of `size` bytes.
    pub fn is_sound(&self, size: u64) -> bool {
        let mut position = None;
        self.0.iter().all(|&(start, end)| {
            let sound = position.is_none_or(|before| before < start) && start < end && end <= size;
            position = Some(end);
            sound
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain list of bytes.
        #[test]
        fn a_set_of_ranges_is_a_set_of_bytes(inserts in prop::collection::vec((0..60_u64, 0..12_u64), 0..20), piece in 1..9_u64) {
            const SIZE: u64 = 64;
            let (mut ranges, mut bytes) = (Ranges::default(), [false; 80]);
            for (start, length) in inserts {
                ranges.insert(start..start + length);
                (start..start + length).for_each(|byte| bytes[usize::try_from(byte).unwrap()] = true);
            }
            prop_assert_eq!(ranges.len(), bytes.iter().filter(|there| **there).count() as u64);
            prop_assert_eq!(ranges.front(), bytes.iter().take_while(|there| **there).count() as u64);
            prop_assert!(ranges.is_sound(80));
            let mut filled = ranges.clone();
            let there = bytes.iter().take(64).filter(|there| **there).count() as u64;
            let asked: u64 = ranges.missing(SIZE, piece).iter().map(|gap| gap.end - gap.start).sum();
            prop_assert_eq!(asked + there, SIZE, "every byte that lacks is asked for exactly once");
            for gap in ranges.missing(SIZE, piece) {
                prop_assert!(gap.end - gap.start <= piece && gap.end <= SIZE);
                prop_assert!(gap.clone().all(|byte| !bytes[usize::try_from(byte).unwrap()]));
                filled.insert(gap);
            }
            prop_assert!(filled.front() >= SIZE);
        }
    }

    #[test]
    fn what_nobody_wrote_is_not_sound() {
        for (text, sound) in
            [("[[0,4],[5,9]]", true), ("[[0,4],[4,9]]", false), ("[[5,9],[0,4]]", false), ("[[3,3]]", false), ("[[0,99]]", false)]
        {
            assert_eq!(serde_json::from_str::<Ranges>(text).unwrap().is_sound(10), sound, "{text}");
        }
    }
}
