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

/// Dataset importers: bytes flow through the guest for hours.
pub const BULK: Tier = Tier {
    name: "bulk",
    wall: Duration::from_hours(6),
    cpu: Duration::from_mins(30),
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
    http_requests: 10_000,
    http_body: 1024 * MIB,
    concurrent: 1,
    queue: 0,
    queue_wait: Duration::from_secs(5),
};

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

/// Time to connect to a registry.
pub const REGISTRY_CONNECT: Duration = Duration::from_secs(5);

/// Time a registry may stay silent in the middle of an answer.
pub const REGISTRY_IDLE: Duration = Duration::from_secs(15);

/// Time a whole pull or push may take.
pub const REGISTRY_TOTAL: Duration = Duration::from_mins(5);

/// Components kept ready in memory; the one unused for longest goes first.
pub const READY_COMPONENTS: usize = 64;

/// Bytes of one sentence from a plugin that ends in a condition, an event or a log line.
pub const SENTENCE_BYTES: usize = KIB;

/// Bytes of a path in a plan.
pub const PATH_BYTES: usize = KIB;

/// Bytes of one name in such a path: what a file system takes, with room for the name of a partial file.
pub const PATH_NAME_BYTES: usize = 240;
