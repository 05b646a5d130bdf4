//! What a killed process leaves of an upload, and how a file is cut into parts. Pure: sends nothing.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

/// Parts are multiples of this; so many bytes are asked for at once.
pub const PIECE: u64 = 8 * 1024 * 1024;
/// Most parts of one object, in every store.
pub(super) const MAX_PARTS: u64 = 10_000;

/// What a later process needs to go on with a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The store's name of the upload.
    pub upload: String,
    /// Bytes of a part.
    pub part: u64,
    /// What the store said of each part, from the first without a gap.
    pub etags: Vec<String>,
    /// State of the hash at the end of those parts, in hexadecimal.
    pub state: String,
}

impl Held {
    /// How far a file of `size` bytes need not be fetched again.
    pub fn front(&self, size: u64) -> u64 {
        self.part.saturating_mul(self.etags.len() as u64).min(size)
    }

    /// Whether this code would have written it for a file of `size` bytes.
    pub fn is_sound(&self, size: u64) -> bool {
        self.part == part_of(size) && self.etags.len() as u64 <= size.div_ceil(self.part) && !self.upload.is_empty()
    }
}

/// What is shared with whoever keeps the record: the newest state, and whether it is newer than the one that was taken last.
pub type Record = Arc<Mutex<(Held, bool)>>;

/// Size of the parts of a file: the smallest with which it fits.
pub(super) fn part_of(size: u64) -> u64 {
    size.div_ceil(MAX_PARTS).div_ceil(PIECE).max(1) * PIECE
}
