//! Native code of a component: from the cache, or from a compiler that runs as a child with bounds of its own, for a hostile
//! component is input to it before it is anything else. What the child writes is signed here and never loaded here.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use std::os::unix::process::ExitStatusExt as _;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::super::cache::Cache;
use super::super::ready::blocking;
use super::super::text::sentence;
use super::super::{PluginError, Refusal};
use crate::limits;

/// Exit code of a compiler that refuses a component; why is on standard error.
pub(super) const REFUSED: u8 = 65;
/// Bytes of its last words.
const WORDS: u64 = 4096;

/// Native code whose signature was checked, or that is fresh.
pub(super) struct Code {
    pub(super) bytes: Vec<u8>,
    pub(super) sha256: [u8; 32],
    /// It was in the cache.
    pub(super) found: bool,
}

/// Knows where code is kept and who makes it.
pub(super) struct Compiler {
    program: PathBuf,
    cache: Arc<Cache>,
}

impl Compiler {
    pub(super) fn new(program: PathBuf, cache: Arc<Cache>) -> Self {
        Self { program, cache }
    }

    /// What code is compiled for.
    pub(super) fn engine(&self) -> &str {
        self.cache.engine()
    }

    /// The code of a component.
    pub(super) async fn code(&self, digest: &str) -> Result<Code, PluginError> {
        let (cache, name) = (Arc::clone(&self.cache), digest.to_owned());
        let found = blocking(move || Ok(cache.code(&name).map(|bytes| hashed(bytes, true)))).await?;
        if let Some(code) = found {
            return Ok(code);
        }
        let (cache, name) = (Arc::clone(&self.cache), digest.to_owned());
        let component = blocking(move || cache.blob(&name)).await?;
        let bytes = match tokio::time::timeout(limits::COMPILE_WALL, self.compile(&component)).await {
            Ok(code) => code?,
            Err(_) => return Err(failed(format!("it took more than {} min", limits::COMPILE_WALL.as_secs() / 60))),
        };
        let (cache, name) = (Arc::clone(&self.cache), digest.to_owned());
        blocking(move || {
            cache.keep_code(&name, &bytes);
            Ok(hashed(bytes, false))
        })
        .await
    }

    async fn compile(&self, component: &[u8]) -> Result<Vec<u8>, PluginError> {
        let lost = |error: std::io::Error| failed(format!("start the compiler: {error}"));
        let mut child = Command::new(&self.program)
            .arg0("substratus")
            .arg("compile")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(lost)?;
        let (Some(mut input), Some(output), Some(mut words)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("its streams are missing".to_owned()));
        };
        let feed = async move {
            // One that ends early says why by its exit code.
            let _ = input.write_all(component).await;
        };
        let take = async {
            let mut code = Vec::new();
            output.take(limits::CODE_BYTES + 1).read_to_end(&mut code).await.map(|_| code)
        };
        let listen = async {
            let mut text = Vec::new();
            let _ = (&mut words).take(WORDS).read_to_end(&mut text).await;
            let _ = tokio::io::copy(&mut words, &mut tokio::io::sink()).await;
            String::from_utf8_lossy(&text).into_owned()
        };
        let ((), code, words) = tokio::join!(feed, take, listen);
        let status = child.wait().await.map_err(lost)?;
        if !status.success() {
            return Err(refused(status, &words));
        }
        let code = code.map_err(|error| failed(error.to_string()))?;
        if code.len() as u64 > limits::CODE_BYTES {
            let text = format!("its native code has more than {} MiB", limits::CODE_BYTES >> 20);
            return Err(Refusal::Invalid(text).into());
        }
        Ok(code)
    }
}

/// Tells components that cannot be compiled from compilers that could not work.
fn refused(status: ExitStatus, words: &str) -> PluginError {
    let words = sentence(words);
    if status.code() == Some(REFUSED.into()) {
        return Refusal::Invalid(words).into();
    }
    if status.signal() == Some(rustix::process::Signal::XCPU.as_raw()) {
        let seconds = limits::COMPILE_CPU.as_secs();
        return Refusal::Invalid(format!("compiling it takes more than {seconds} s of processor time")).into();
    }
    if words.contains("memory allocation of") {
        let most = limits::COMPILE_MEMORY >> 30;
        return Refusal::Invalid(format!("compiling it needs more than {most} GiB of memory")).into();
    }
    failed(format!("the compiler ended with {status}: {words}"))
}

fn failed(reason: String) -> PluginError {
    PluginError::Engine { action: "compile a component", reason }
}

fn hashed(bytes: Vec<u8>, found: bool) -> Code {
    Code { sha256: Sha256::digest(&bytes).into(), bytes, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_compiler_ended_is_told_apart() {
        let text = |raw, words: &str| refused(ExitStatus::from_raw(raw), words);
        assert!(matches!(text(65 << 8, "a\nb"), PluginError::Refused(Refusal::Invalid(text)) if text == "a b"));
        assert!(matches!(text(24, ""), PluginError::Refused(Refusal::Invalid(text)) if text.contains("120 s")));
        let no_memory = text(6, "memory allocation of 8 bytes failed");
        assert!(matches!(no_memory, PluginError::Refused(Refusal::Invalid(text)) if text.contains("4 GiB")));
        let killed = text(9, "");
        assert!(killed.is_passing() && killed.to_string().contains("signal: 9"), "{killed}");
    }
}
