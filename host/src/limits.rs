//! Every limit in one table: what it bounds, and its number. Knows nothing about what it limits.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What one call of a plugin may use. There is one per kind of work, and no way to run a guest without one.
#[derive(Debug)]
pub struct Tier {
    /// Name in errors and documentation.
    pub name: &'static str,
    /// Time from the first instruction to the answer, waiting for the host included.
    pub wall: Duration,
    /// Processor time of the guest's own instructions, to the tick ([`TICK`]).
    pub cpu: Duration,
    /// Processor time between two reads or writes of its streams.
    pub idle: Duration,
    /// Bytes that may be written to streams beside [`Self::expansion`].
    pub written: u64,
    /// Bytes that may be written to streams for every byte read from them.
    pub expansion: u64,
    /// Bytes of all linear memories together.
    pub memory: usize,
    /// Elements of all tables together.
    pub table_elements: usize,
    /// Core instances of the component.
    pub instances: usize,
    /// Linear memories of the component.
    pub memories: usize,
    /// Tables of the component.
    pub tables: usize,
    /// Bytes that may cross from guest to host in one crossing: an argument of a host call, or the whole answer.
    pub crossing: usize,
    /// Live component handles.
    pub handles: usize,
    /// Bytes of the question, as JSON.
    pub question: usize,
    /// Lines of log in one call.
    pub log_lines: usize,
    /// Bytes of log in one call.
    pub log_bytes: usize,
    /// HTTP requests in one call.
    pub http_requests: usize,
    /// Bytes of all HTTP response bodies of one call together.
    pub http_body: usize,
    /// Calls of one plugin that run at the same time.
    pub concurrent: usize,
    /// Calls of one plugin that wait for their turn.
    pub queue: usize,
    /// How long a call waits for its turn.
    pub queue_wait: Duration,
}

/// GPU policies and server adapters: no network, no clock, an answer in microseconds.
///
/// There is nothing that a pure guest could wait for: the wall limit is fifty times the processor limit, so that a busy node is
/// not taken for a bad plugin.
pub const PURE: Tier = Tier {
    name: "pure",
    wall: Duration::from_secs(5),
    cpu: Duration::from_millis(100),
    idle: Duration::from_millis(100),
    written: 0,
    expansion: 0,
    memory: 64 * MIB,
    table_elements: 20_000,
    instances: 20,
    memories: 8,
    tables: 20,
    crossing: MIB,
    handles: 256,
    question: MIB,
    log_lines: 200,
    log_bytes: 64 * KIB,
    http_requests: 0,
    http_body: 0,
    concurrent: 8,
    queue: 64,
    queue_wait: Duration::from_secs(1),
};

/// Model loaders: one page of a plan, with HTTP through the host.
pub const STANDARD: Tier = Tier {
    name: "standard",
    wall: Duration::from_secs(30),
    cpu: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    written: 0,
    expansion: 0,
    memory: 256 * MIB,
    table_elements: 100_000,
    instances: 50,
    memories: 16,
    tables: 50,
    crossing: 4 * MIB,
    handles: 2_048,
    question: 4 * MIB,
    log_lines: 1_000,
    log_bytes: 256 * KIB,
    http_requests: 50,
    http_body: 32 * MIB,
    concurrent: 4,
    queue: 16,
    queue_wait: Duration::from_secs(5),
};

/// One shard of a data set: bytes flow through the guest for hours, and nothing else does.
///
/// Whoever neither reads nor writes for [`Tier::idle`] of processor time is stuck, so that the processor limit itself can be as long as a large
/// shard in a slow language needs.
pub const BULK: Tier = Tier {
    name: "bulk",
    wall: Duration::from_hours(6),
    cpu: Duration::from_hours(6),
    idle: Duration::from_secs(30),
    written: 64 * MIB as u64,
    expansion: 64,
    memory: 1024 * MIB,
    table_elements: 100_000,
    instances: 50,
    memories: 16,
    tables: 50,
    crossing: 16 * MIB,
    handles: 8_192,
    question: 16 * MIB,
    log_lines: 100_000,
    log_bytes: 10 * MIB,
    http_requests: 0,
    http_body: 0,
    // One transform, and a question or two beside it.
    concurrent: 4,
    queue: 16,
    queue_wait: Duration::from_mins(1),
};

/// Bytes that one read of a stream gives at most.
pub const READ_BYTES: usize = MIB;

/// Files that one shard may write.
pub const SHARD_OUTPUTS: usize = 10_000;

/// Files of one shard that are open at the same time: each has a buffer of the host's.
pub const OPEN_OUTPUTS: usize = 64;

/// Inputs of one shard.
pub const SHARD_INPUTS: usize = 64;

/// Period of the clock that interrupts guests: processor time is measured and cut off to this.
pub const TICK: Duration = Duration::from_millis(10);

/// Stack of a guest in bytes; deeper recursion traps.
pub const GUEST_STACK: usize = 512 * KIB;

/// Stack on which a guest and the host functions it calls run together, in bytes.
pub const CALL_STACK: usize = 2 * MIB;

/// Frames of a trap's backtrace that the log shows.
pub const BACKTRACE_FRAMES: usize = 32;

/// Bytes of a component: what is pulled, added or compiled.
pub const COMPONENT_BYTES: u64 = 64 * MIB as u64;

/// Bytes of a plugin's manifest.
pub const MANIFEST_BYTES: usize = 256 * KIB;

/// Bytes of an OCI manifest.
pub const OCI_MANIFEST_BYTES: usize = MIB;

/// Attachments of one plugin that are looked at for signatures.
pub const SIGNATURE_ATTACHMENTS: usize = 32;

/// Bytes of one signature: a bundle, or a payload of the older form.
pub const SIGNATURE_BYTES: u64 = 256 * KIB as u64;

/// Keys of one signature policy.
pub const SIGNATURE_KEYS: usize = 32;

/// Bytes of one such key as PEM.
pub const SIGNATURE_KEY_BYTES: usize = 4 * KIB;

/// Bytes of all plugins of one OCI layout together.
pub const LAYOUT_BYTES: u64 = 4_096 * MIB as u64;

/// Bytes of the folder that an image is built from: what is larger is data.
pub const BUILD_CONTEXT_BYTES: u64 = 5 << 30;
/// Files of such a folder, where it is uploaded.
pub const BUILD_CONTEXT_FILES: usize = 200_000;

/// Time to connect to a registry.
pub const REGISTRY_CONNECT: Duration = Duration::from_secs(5);

/// Time a registry may stay silent in the middle of an answer.
pub const REGISTRY_IDLE: Duration = Duration::from_secs(15);

/// Time a whole pull or push may take.
pub const REGISTRY_TOTAL: Duration = Duration::from_mins(5);

/// Components kept ready in memory; the one unused for longest goes first.
pub const READY_COMPONENTS: usize = 64;

/// Bytes of native code of one component.
pub const CODE_BYTES: u64 = 512 * MIB as u64;

/// Processor time of a compiler.
pub const COMPILE_CPU: Duration = Duration::from_mins(2);

/// Address space of a compiler, in bytes.
pub const COMPILE_MEMORY: u64 = 4 << 30;

/// Time a compiler may take on a busy machine.
pub const COMPILE_WALL: Duration = Duration::from_mins(10);

/// Bytes of the typed part of one frame between a sandbox and whoever asks it: a question of the largest tier.
pub const FRAME_HEAD: usize = 16 * MIB + 64 * KIB;

/// Bytes of the raw part of one frame: the largest body of an HTTP answer.
pub const FRAME_TAIL: usize = 32 * MIB;

/// Bytes of a frame beside what a guest may let cross: names and numbers around it.
pub const FRAME_ROOM: usize = 64 * KIB;

/// Connections to a sandbox at the same time.
pub const SANDBOX_CONNECTIONS: usize = 512;

/// How often a sandbox says that a call is under way.
pub const SANDBOX_BEAT: Duration = Duration::from_secs(3);

/// A sandbox that says nothing for so long has stopped.
pub const SANDBOX_SILENCE: Duration = Duration::from_secs(30);

/// How much longer than a call may take its answer is waited for.
pub const SANDBOX_GRACE: Duration = Duration::from_secs(3);

/// Time a sandbox may take to start.
pub const SANDBOX_START: Duration = Duration::from_secs(10);

/// Ends of a sandbox that one component may cause …
pub const CRASHES: usize = 3;

/// … within this time; and so long it is not asked after the last of them.
pub const QUARANTINE: Duration = Duration::from_mins(10);

/// Bytes of one sentence from a plugin that ends in a condition, an event or a log line.
pub const SENTENCE_BYTES: usize = KIB;

/// Bytes of a path in a plan.
pub const PATH_BYTES: usize = KIB;

/// Bytes of one name in such a path: what a file system takes, with room for the name of a partial file.
pub const PATH_NAME_BYTES: usize = 240;
