//! The streams that a guest reads and writes while it maps a shard: counted, bounded and gone with the call. Knows nothing of where
//! bytes come from or go to.

use futures::future::BoxFuture;
use wasmtime::Result;
use wasmtime::component::{Resource, ResourceTable};

use super::bindings::importer::substratus::plugin::io;
use super::meter::{Ledger, Stop};
use super::store::State;
use super::types::Failure;
use crate::limits::Tier;

/// Why a stream ends a call: the bucket is full, the data is bad, the path leaves the target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StreamError(pub String);

/// One input of a shard, decoded.
pub trait Input: Send {
    /// Its path in the plan.
    fn name(&self) -> &str;

    /// At most `max` bytes; none at the end.
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<u8>, StreamError>>;
}

/// One file that a shard writes.
pub trait Output: Send {
    /// Appends.
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StreamError>>;
}

/// The files of a shard.
pub trait Outputs: Send {
    /// Begins a file. The path was checked and is new.
    fn open<'a>(&'a mut self, path: &'a str) -> BoxFuture<'a, Result<Box<dyn Output>, StreamError>>;
}

/// What a guest gets to map one shard.
pub struct Streams {
    /// In the plan's order.
    pub inputs: Vec<Box<dyn Input>>,
    /// Where it writes.
    pub outputs: Box<dyn Outputs>,
}

/// Behind a guest's handle of a reader.
pub struct GuestReader(Box<dyn Input>);

/// Behind a guest's handle of a writer.
pub struct GuestWriter(Box<dyn Output>);

/// Behind a guest's handle of its outputs.
pub struct GuestOutputs(Box<dyn Outputs>);

/// A stream that ended the call, for whoever looks into the trap.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Ended(pub(super) StreamError);

/// The streams of one call, and how much went through them.
pub(super) struct Traffic {
    table: ResourceTable,
    ledger: Ledger,
    /// Ticks of the clock that found the guest running since the last read or write.
    pub(super) idle: u128,
}

impl Traffic {
    pub(super) fn new(tier: &'static Tier) -> Self {
        Self { table: ResourceTable::new(), ledger: Ledger::new(tier), idle: 0 }
    }
}

impl Stop {
    /// As a trap: [`super::call`] takes it apart again.
    fn raise(self) -> wasmtime::Error {
        match self {
            Self::Limit(hit) => hit.into(),
            Self::Ended(ended) => ended.into(),
        }
    }
}

impl State {
    /// Hands the streams of a shard over: from here on they end with the store.
    pub(super) fn lend(&mut self, streams: Streams) -> Result<(Vec<Resource<GuestReader>>, Resource<GuestOutputs>)> {
        let table = &mut self.traffic.table;
        let inputs = streams.inputs.into_iter().map(|input| Ok(table.push(GuestReader(input))?)).collect::<Result<_>>()?;
        let outputs = table.push(GuestOutputs(streams.outputs))?;
        Ok((inputs, outputs))
    }
}

impl io::Host for State {}

impl io::HostReader for State {
    async fn name(&mut self, reader: Resource<GuestReader>) -> Result<String> {
        Ok(self.traffic.table.get(&reader)?.0.name().to_owned())
    }

    async fn read(&mut self, reader: Resource<GuestReader>, max: u32) -> Result<Result<Vec<u8>, Failure>> {
        let max = Ledger::window(max);
        if max == 0 {
            // It would look like the end.
            return Ok(Err(Failure::Internal("a read of at most 0 bytes".to_owned())));
        }
        let bytes = self.traffic.table.get_mut(&reader)?.0.read(max).await.map_err(Ended)?;
        self.traffic.ledger.read(bytes.len());
        if !bytes.is_empty() {
            self.traffic.idle = 0;
        }
        Ok(Ok(bytes))
    }

    async fn drop(&mut self, reader: Resource<GuestReader>) -> Result<()> {
        self.traffic.table.delete(reader)?;
        Ok(())
    }
}

impl io::HostWriter for State {
    async fn write(&mut self, writer: Resource<GuestWriter>, bytes: Vec<u8>) -> Result<Result<(), Failure>> {
        let traffic = &mut self.traffic;
        traffic.ledger.write(bytes.len()).map_err(Stop::raise)?;
        if !bytes.is_empty() {
            traffic.idle = 0;
            traffic.table.get_mut(&writer)?.0.write(bytes).await.map_err(Ended)?;
        }
        Ok(Ok(()))
    }

    async fn drop(&mut self, writer: Resource<GuestWriter>) -> Result<()> {
        self.traffic.table.delete(writer)?;
        self.traffic.ledger.close();
        Ok(())
    }
}

impl io::HostOutputs for State {
    async fn open(&mut self, outputs: Resource<GuestOutputs>, path: String) -> Result<Result<Resource<GuestWriter>, Failure>> {
        let traffic = &mut self.traffic;
        traffic.ledger.open(&path).map_err(Stop::raise)?;
        let output = traffic.table.get_mut(&outputs)?.0.open(&path).await.map_err(Ended)?;
        let writer = traffic.table.push(GuestWriter(output))?;
        Ok(Ok(writer))
    }

    async fn drop(&mut self, outputs: Resource<GuestOutputs>) -> Result<()> {
        self.traffic.table.delete(outputs)?;
        Ok(())
    }
}
