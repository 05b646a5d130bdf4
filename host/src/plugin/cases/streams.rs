//! A transform of a case: inputs and outputs in memory. Knows no plugin.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;

use super::super::io::{Input, Output, Outputs, StreamError, Streams};
use super::super::types::Shard;
use super::super::{HostCalls, Plugins};
use super::{AskError, Case, question, read, shard_defaults, value, with_defaults};

/// A read of a case gives a few bytes only, so that nobody relies on whole lines.
const READ: usize = 1000;

/// Has the shard of a case mapped, and compares what was written.
pub(super) async fn transform(
    plugins: &Plugins,
    digest: &str,
    case: &Case,
    calls: Arc<dyn HostCalls>,
) -> Result<Value, AskError> {
    let shard: Shard = read(with_defaults(case.shard.clone(), shard_defaults())).map_err(AskError::Case)?;
    let written = Written::default();
    let input = |text: &String| -> Box<dyn Input> { Box::new(Text(text.bytes().collect())) };
    let streams = Streams { inputs: case.inputs.iter().map(input).collect(), outputs: Box::new(written.clone()) };
    let answer = value(plugins.transform(digest, &question(case, "Dataset")?, &shard, streams, calls).await);
    let answer = answer.map_err(AskError::Plugin)?;
    let written = written.texts();
    match &case.outputs {
        Some(expected) if *expected != written => {
            Err(AskError::Case(anyhow::anyhow!("expected files {expected:#?}\ngot {written:#?}")))
        }
        _ => Ok(answer),
    }
}

struct Text(VecDeque<u8>);

impl Input for Text {
    fn name(&self) -> &'static str {
        "input"
    }

    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<u8>, StreamError>> {
        let count = self.0.len().min(max).min(READ);
        std::future::ready(Ok(self.0.drain(..count).collect())).boxed()
    }
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Written {
    fn texts(&self) -> BTreeMap<String, String> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter().map(|(path, bytes)| (path.clone(), String::from_utf8_lossy(bytes).into_owned())).collect()
    }

    fn append(&self, path: &str, bytes: &[u8]) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.entry(path.to_owned()).or_default().extend_from_slice(bytes);
    }
}

impl Outputs for Written {
    fn open<'a>(&'a mut self, path: &'a str) -> BoxFuture<'a, Result<Box<dyn Output>, StreamError>> {
        self.append(path, &[]);
        let output: Box<dyn Output> = Box::new(WrittenFile(self.clone(), path.to_owned()));
        std::future::ready(Ok(output)).boxed()
    }
}

struct WrittenFile(Written, String);

impl Output for WrittenFile {
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StreamError>> {
        self.0.append(&self.1, &bytes);
        std::future::ready(Ok(())).boxed()
    }
}
