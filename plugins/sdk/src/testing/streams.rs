//! Streams in memory, for transforms in cases and unit tests. It knows no plugin.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::Failure;
use crate::io::{Input, Output, Outputs};

/// Reads a text, a few bytes at a time, so that nobody relies on whole lines.
pub struct MemoryInput(RefCell<Vec<u8>>);

impl MemoryInput {
    /// An input that holds `text`.
    pub fn new(text: &str) -> Self {
        Self(RefCell::new(text.as_bytes().to_vec()))
    }
}

impl Input for MemoryInput {
    fn name(&self) -> String {
        "input".into()
    }

    fn read(&self, max: u32) -> Result<Vec<u8>, Failure> {
        let mut left = self.0.borrow_mut();
        let count = left.len().min(usize::try_from(max).unwrap_or(usize::MAX)).min(1000);
        Ok(left.drain(..count).collect())
    }
}

type Written = Rc<RefCell<BTreeMap<String, Vec<u8>>>>;

/// Keeps what is written.
#[derive(Default)]
pub struct MemoryOutputs(Written);

impl MemoryOutputs {
    /// What was written to `path`.
    pub fn text(&self, path: &str) -> Option<String> {
        self.0.borrow().get(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    pub(super) fn compare(&self, expected: Option<&BTreeMap<String, String>>) -> Result<(), String> {
        let written = self.0.borrow();
        let written: BTreeMap<_, _> =
            written.iter().map(|(path, bytes)| (path.clone(), String::from_utf8_lossy(bytes).into_owned())).collect();
        match expected {
            Some(expected) if *expected != written => Err(format!("expected files {expected:#?}\ngot {written:#?}")),
            _ => Ok(()),
        }
    }
}

struct MemoryOutput(Written, String);

impl Output for MemoryOutput {
    fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.borrow_mut().entry(self.1.clone()).or_default().extend_from_slice(bytes);
        Ok(())
    }
}

impl Outputs for MemoryOutputs {
    fn open(&self, path: &str) -> Result<Box<dyn Output>, Failure> {
        if self.0.borrow_mut().insert(path.to_owned(), Vec::new()).is_some() {
            return Err(Failure::Internal(format!("{path} is opened twice")));
        }
        Ok(Box::new(MemoryOutput(Rc::clone(&self.0), path.to_owned())))
    }
}
