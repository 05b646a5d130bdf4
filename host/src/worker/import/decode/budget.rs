//! How much may come out of how little: what stops a bomb. Knows nothing of formats.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Bytes that may come out of any file.
const FREE: u64 = 256 * 1024 * 1024;
/// Bytes that may come out of every byte of a larger one: text compresses to a hundredth at the very best.
const RATIO: u64 = 200;
/// Members of an archive.
const MAX_MEMBERS: usize = 1_000_000;

/// What may still be unpacked from one input. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    packed: u64,
    left: Cell<u64>,
    members: Cell<usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("more than {} MiB come out of {packed} bytes: this is a bomb, or nobody meant it to be unpacked", allowed(*packed) >> 20)]
struct Exhausted {
    packed: u64,
}

fn allowed(packed: u64) -> u64 {
    FREE.saturating_add(packed.saturating_mul(RATIO))
}

/// What to say of an error that is no error of the disk but the end of a budget.
pub(super) fn exhausted(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<Exhausted>().map(ToString::to_string)
}

impl Budget {
    /// For an input of `packed` bytes.
    pub fn of(packed: u64) -> Self {
        Self(Rc::new(Inner { packed, left: Cell::new(allowed(packed)), members: Cell::new(0) }))
    }

    /// Takes bytes that came out.
    pub(super) fn take(&self, bytes: u64) -> io::Result<()> {
        match self.0.left.get().checked_sub(bytes) {
            Some(left) => {
                self.0.left.set(left);
                Ok(())
            }
            None => Err(io::Error::other(Exhausted { packed: self.0.packed })),
        }
    }

    /// Counts a member of an archive.
    pub(super) fn member(&self) -> Result<(), String> {
        self.0.members.set(self.0.members.get() + 1);
        if self.0.members.get() > MAX_MEMBERS { Err(format!("it has more than {MAX_MEMBERS} members")) } else { Ok(()) }
    }
}

/// A reader whose bytes count.
pub(super) struct Metered<R> {
    inner: R,
    budget: Budget,
}

impl<R> Metered<R> {
    pub(super) fn new(inner: R, budget: &Budget) -> Self {
        Self { inner, budget: budget.clone() }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.budget.take(read as u64)?;
        Ok(read)
    }
}
