//! A file that came whole and with the wrong digest: range by range it is fetched again and compared with what lies there, until
//! what is replaced makes it right. So one wrong range costs what lies before it, and is written alone.

use std::ops::Range;
use std::sync::Arc;

use futures::{TryStreamExt, stream};

use super::fetch::{Fetch, Stop};
use super::file::FileLoad;
use super::ranges::Ranges;
use super::verify::{Front, Hashed, Hashing, Verifier};
use crate::bucket::SinkFile;

impl FileLoad {
    /// Makes the file in `sink_file`, which has the digest of `found`, the one that was `planned`. Only where bytes can be read
    /// back. When all of it has come twice, the source is wrong: the file goes, and the load with it.
    pub(super) async fn repair(&self, sink_file: &SinkFile, found: Hashed, planned: [u8; 32]) -> Result<Hashed, Stop> {
        let (transfer, size) = (&self.transfer, found.verified.size);
        tracing::warn!(path = %self.file.path, found = found.name(&self.file), "the bytes do not match the digest");
        let fetch = Fetch::again(Arc::clone(transfer), (self.index, Arc::clone(&self.file)), sink_file.clone());
        let all = Ranges::default().missing(size, transfer.tuning.part);
        let (mut rest, mut most, mut found) = (all.as_slice(), 1, found);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(most));
            self.fetch_again(&fetch, now, size).await?;
            if fetch.has_changed() {
                found = Verifier::start(sink_file.clone(), Hashing::default()).finish(size).await?;
                if found.verified.sha256 == planned {
                    return Ok(found);
                }
            }
            // Few at first, as one is wrong mostly. Doubled, so that a file with many wrong ones is not hashed as often.
            (rest, most) = (later, most * 2);
        }
        self.forget();
        Err(Stop::Failed(self.spoilt(&found).await?))
    }

    /// Ranges of a file of `size` bytes, beside each other; all of it at once from a server that does not know ranges.
    async fn fetch_again(&self, fetch: &Fetch, ranges: &[Range<u64>], size: u64) -> Result<(), Stop> {
        let ranges = stream::iter(ranges.iter().cloned().map(Ok));
        ranges
            .try_for_each_concurrent(self.transfer.tuning.connections, async |range| {
                let wanted = (range != (0..size)).then_some(&range);
                let opened = fetch.connect(wanted, Some(size)).await?;
                let range = if opened.whole { 0..size } else { range };
                fetch.part(range, Some(opened), &Front::of_nobody()).await.map(drop)
            })
            .await
    }
}
