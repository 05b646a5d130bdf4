//! Frames on a socket between two processes: a typed head and a raw tail, each with its length before it. Nobody who writes them
//! is trusted: a length is checked before a byte is read, and memory follows the bytes that really come. Knows no message.
//!
//! ```text
//! u32 length of the head │ u32 length of the tail │ head (postcard) │ tail
//! ```

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A tail of at most so many bytes is written together with its head.
const TOGETHER: usize = 64 * 1024;

/// What came.
#[derive(Debug, PartialEq)]
pub(super) struct Frame<T> {
    pub(super) head: T,
    pub(super) tail: Vec<u8>,
}

/// How large a frame may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    pub(super) head: usize,
    pub(super) tail: usize,
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The other side has gone.
    #[error("the connection was closed")]
    Closed,
    /// It announces more than it may send.
    #[error("a frame has a {part} of {size} bytes, and at most {max} are taken")]
    TooLarge { part: &'static str, size: usize, max: usize },
    /// Its bytes are no message.
    #[error("a frame is malformed: {0}")]
    Malformed(postcard::Error),
    /// Its message does not end where its head does.
    #[error("a frame has {0} bytes behind its message")]
    Trailing(usize),
    #[error("the connection failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// Writes one frame.
pub(super) async fn write<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), head: &T, tail: &[u8]) -> Result<(), FrameError> {
    let head = postcard::to_allocvec(head).map_err(FrameError::Malformed)?;
    let mut bytes = Vec::with_capacity(8 + head.len() + tail.len().min(TOGETHER));
    bytes.extend_from_slice(&length("head", head.len())?);
    bytes.extend_from_slice(&length("tail", tail.len())?);
    bytes.extend_from_slice(&head);
    let rest = if tail.len() <= TOGETHER {
        bytes.extend_from_slice(tail);
        &[]
    } else {
        tail
    };
    to.write_all(&bytes).await?;
    to.write_all(rest).await?;
    Ok(to.flush().await?)
}

fn length(part: &'static str, size: usize) -> Result<[u8; 4], FrameError> {
    let too_large = |_| FrameError::TooLarge { part, size, max: u32::MAX as usize };
    u32::try_from(size).map(u32::to_le_bytes).map_err(too_large)
}

/// Reads one frame.
pub(super) async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin), caps: Caps) -> Result<Frame<T>, FrameError> {
    let head = announced("head", from.read_u32_le().await?, caps.head)?;
    let tail = announced("tail", from.read_u32_le().await?, caps.tail)?;
    let head = take(from, head).await?;
    let tail = take(from, tail).await?;
    let (head, rest) = postcard::take_from_bytes(&head).map_err(FrameError::Malformed)?;
    if rest.is_empty() { Ok(Frame { head, tail }) } else { Err(FrameError::Trailing(rest.len())) }
}

fn announced(part: &'static str, size: u32, max: usize) -> Result<usize, FrameError> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > max { Err(FrameError::TooLarge { part, size, max }) } else { Ok(size) }
}

/// So many bytes; a peer that announces many and sends few costs few.
async fn take(from: &mut (impl AsyncRead + Unpin), size: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::with_capacity(size.min(TOGETHER));
    from.take(size as u64).read_to_end(&mut bytes).await?;
    if bytes.len() == size { Ok(bytes) } else { Err(FrameError::Closed) }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::super::wire::{Down, Up};
    use super::*;
    use crate::plugin::question::{Answer, Failed};
    use crate::plugin::types::{Fitness, LogLevel};

    const CAPS: Caps = Caps { head: 4096, tail: 4096 };

    /// Reads from memory, which is never waited for.
    fn read_now<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<Frame<T>, FrameError> {
        read(&mut bytes, CAPS).now_or_never().unwrap()
    }

    fn written(head: &impl Serialize, tail: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, head, tail).now_or_never().unwrap().unwrap();
        bytes
    }

    fn messages() -> Vec<Up> {
        let fitness = Fitness { score: 7, reason: "ok".into() };
        vec![
            Up::Alive,
            Up::Welcome { engine: "e".into(), instance: 9 },
            Up::Log(LogLevel::Info, "text".into()),
            Up::Read { input: 1, max: 2 },
            Up::Open { path: "a/b".into() },
            Up::Answer(Box::new(Ok(Answer::Fitness(fitness)))),
            Up::Answer(Box::new(Err(Failed::limit("memory", "1 MiB")))),
        ]
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for message in messages() {
            for tail in [&b""[..], b"tail"] {
                let frame = read_now::<Up>(&written(&message, tail)).unwrap();
                assert_eq!(frame, Frame { head: message.clone(), tail: tail.to_vec() });
            }
        }
    }

    #[test]
    fn a_frame_that_ends_early_is_a_closed_connection() {
        for message in messages() {
            let whole = written(&message, b"tail");
            for end in 0..whole.len() {
                assert!(matches!(read_now::<Up>(&whole[..end]), Err(FrameError::Closed)), "{message:?} {end}");
            }
        }
    }

    #[test]
    fn what_is_announced_too_large_is_not_waited_for() {
        let head = [u32::MAX.to_le_bytes(), 0_u32.to_le_bytes()].concat();
        assert!(matches!(read_now::<Up>(&head), Err(FrameError::TooLarge { part: "head", .. })));
        let tail = [1_u32.to_le_bytes(), 4097_u32.to_le_bytes()].concat();
        assert!(matches!(read_now::<Up>(&tail), Err(FrameError::TooLarge { part: "tail", size: 4097, max: 4096 })));
    }

    #[test]
    fn bytes_behind_a_message_are_refused() {
        let bytes = [2_u32.to_le_bytes(), 0_u32.to_le_bytes()].concat();
        let alive = postcard::to_allocvec(&Up::Alive).unwrap();
        let padded = [bytes, alive, vec![0]].concat();
        assert!(matches!(read_now::<Up>(&padded), Err(FrameError::Trailing(1))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = read_now::<Up>(&bytes);
            let _ = read_now::<Down>(&bytes);
        }

        #[test]
        fn any_head_is_a_message_or_an_error(head in proptest::collection::vec(any::<u8>(), 0..1024)) {
            let size = u32::try_from(head.len()).unwrap().to_le_bytes();
            let bytes = [&size[..], &0_u32.to_le_bytes(), &head].concat();
            let _ = read_now::<Up>(&bytes);
            let _ = read_now::<Down>(&bytes);
        }

        #[test]
        fn a_flipped_byte_is_a_message_or_an_error(which in 0..7_usize, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = written(&messages()[which], b"tail");
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = read_now::<Up>(&bytes);
        }
    }
}
