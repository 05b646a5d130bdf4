//! What is said on the socket. One call has the connection to itself: a question goes down; what the guest wants of the host comes
//! up, one thing at a time, and its result goes down; the answer comes up. Whoever closes the connection ends the call.
//! Both sides are the same program, so that there is no version but the engine's name.

use serde::{Deserialize, Serialize};
use substratus_crds::PluginRole;

use super::super::question::{Answer, Failed, Question};
use super::super::types::{HttpError, HttpRequest, HttpResponse, LogLevel};

/// To the sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Down<Q = Box<Question>> {
    /// Opens a connection: what code is compiled for.
    Hello { engine: String },
    /// Code follows, in the tails of as many [`Down::Code`] as it takes.
    Load { digest: String, role: PluginRole, size: u64, sha256: [u8; 32] },
    /// The next piece of it.
    Code,
    /// A question to a component that is loaded; names of the inputs where there are any.
    Ask { digest: String, question: Q, inputs: Vec<String> },
    /// Of a request; its body is the tail.
    Http(Result<HttpResponse, HttpError>),
    /// Of a read; the tail is what was read.
    Read(Result<(), String>),
    /// Of anything else.
    Done(Result<(), String>),
}

/// From the sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Up {
    /// Answers a greeting: what it runs, and which process it is.
    Welcome { engine: String, instance: u64 },
    /// Code was taken, or why not.
    Loaded(Result<(), NotLoaded>),
    /// The component that was asked is not loaded.
    Missing,
    /// The call is under way.
    Alive,
    /// A line of the guest's log.
    Log(LogLevel, String),
    /// The guest wants this request sent; its body is the tail, where it has one.
    Http(HttpRequest, bool),
    /// The guest reads an input.
    Read { input: u32, max: u32 },
    /// The guest begins its next file.
    Open { path: String },
    /// The guest appends the tail to a file, counted in the order of opening.
    Write { output: u32 },
    /// The guest lets go of a file.
    Drop { output: u32 },
    /// The end of the call.
    Answer(Box<Result<Answer, Failed>>),
}

/// Why code was not taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum NotLoaded {
    /// It is not what was announced, or nothing that this engine runs.
    Code(String),
    /// The component needs more than its tier has: what, and what there is.
    Resources(String, String),
    /// It does not fit its world.
    World(String),
    /// It is refused for another reason.
    Invalid(String),
}
