//! `substratus-hub`: serves folders as a model hub, for a demo, a bench, or trying a client by hand.
//! Must not hold anything that tests need; that is `substratus_tests::hub`.
#![expect(clippy::print_stdout, reason = "a command's output")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use substratus_tests::engine::TinyModel;
use substratus_tests::hub::{Content, Fault, Gated, Hub, Repo, Rule};
use substratus_tests::platform;
use tokio::signal::unix::{SignalKind, signal};

/// Serves folders as a model hub that speaks Hugging Face's HTTP API.
///
/// Large files come from a second address behind signed URLs, as on the real hub; a client that sends its token there is
/// refused and counted.
#[derive(Debug, Parser)]
#[command(name = "substratus-hub", after_long_help = AFTER)]
struct Arguments {
    /// Where the hub listens; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the CDN listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    cdn: SocketAddr,
    /// The CDN's address as clients see it, if it is another one
    #[arg(long, value_name = "URL")]
    cdn_url: Option<String>,
    /// A model repository and the folder that holds its files, or `noise:BYTES` for one made-up file `noise.bin`
    #[arg(long, value_name = "NAMESPACE/NAME=DIR", required_unless_present = "demo")]
    repo: Vec<String>,
    /// The repositories of the demo, with the tiny model of this folder (which `tests/model/build.sh` made)
    #[arg(long, value_name = "DIR")]
    demo: Option<PathBuf>,
    /// A token that may read every repository served here
    #[arg(long, value_name = "TOKEN")]
    token: Vec<String>,
    /// Repositories exist only for those who have a token
    #[arg(long)]
    private: bool,
    /// Everybody sees the repositories, only those with a token may fetch files
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "auto")]
    gated: Option<Access>,
    /// From how many bytes on a file comes from the CDN (weights always do)
    #[arg(long, value_name = "BYTES", default_value_t = 10 * 1024 * 1024)]
    lfs_threshold: u64,
    /// Entries per page of a listing
    #[arg(long, default_value_t = 1000)]
    page_size: usize,
    /// How long a signed URL works
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    url_ttl: u64,
    /// Speed of every connection to the CDN
    #[arg(long, value_name = "BYTES")]
    bytes_per_second: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Access {
    Auto,
    Manual,
}

const AFTER: &str = "\
Examples:
  substratus-hub --listen 127.0.0.1:8081 --repo acme/tiny=./hf
  HF_ENDPOINT=http://127.0.0.1:8081 hf download acme/tiny

  Faults and counters while it runs:
  curl -X POST 127.0.0.1:8081/_hub/faults -d '{\"on\":\"cdn\",\"path\":\"model.safetensors\",\"times\":1,\"fault\":{\"cut_after\":1000}}'
  curl 127.0.0.1:8081/_hub/stats          # requests, bytes, connections, leaked credentials
  curl -X DELETE 127.0.0.1:8081/_hub/faults

  `on` is api, resolve or cdn; `path` a part of the request's path; `byte` one that must be asked for; without `times` it strikes always.
  Faults: {\"cut_after\":N} {\"stall_after\":N} {\"bytes_per_second\":N} {\"short_body\":N} {\"extra_body\":N} {\"status\":500}
  {\"too_many_requests\":{\"seconds\":5}} {\"latency\":50} \"wrong_byte\" \"changed_content\" \"expired\" \"not_found\"";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if (arguments.private || arguments.gated.is_some()) && arguments.token.is_empty() {
        bail!("--private and --gated shut everybody out; add --token TOKEN");
    }
    let mut builder = Hub::builder().page_size(arguments.page_size).url_ttl(Duration::from_secs(arguments.url_ttl));
    if let Some(url) = &arguments.cdn_url {
        builder = builder.cdn_url(url);
    }
    for token in &arguments.token {
        builder = builder.token(token);
    }
    for text in &arguments.repo {
        builder = builder.repo(repository(text, &arguments)?);
    }
    for repository in arguments.demo.as_deref().map_or(Ok(Vec::new()), |made| platform::repositories_of(&TinyModel::of(made)))? {
        builder = builder.repo(repository);
    }
    let hub = builder.start_at(arguments.listen, arguments.cdn, &tokio::runtime::Handle::current())?;
    if let Some(rate) = arguments.bytes_per_second {
        hub.fault(Rule::cdn("", Fault::BytesPerSecond(rate)));
    }
    println!("hub {}\ncdn {}\nexport HF_ENDPOINT={}", hub.url, hub.cdn_url, hub.url);
    // A pod's first process is told to end by SIGTERM.
    let mut terminate = signal(SignalKind::terminate()).context("wait for a signal")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("wait for an interrupt"),
        _ = terminate.recv() => Ok(()),
    }
}

fn repository(text: &str, arguments: &Arguments) -> Result<Repo> {
    let (id, source) = text.split_once('=').with_context(|| format!("read --repo {text:?}; write NAMESPACE/NAME=DIR"))?;
    let mut repo = Repo::model(id).lfs_threshold(arguments.lfs_threshold);
    repo = match source.strip_prefix("noise:") {
        Some(bytes) => {
            let size = bytes.parse().with_context(|| format!("read the size in --repo {text:?}"))?;
            repo.file("config.json", "{}").file("noise.bin", Content::noise(1, size))
        }
        None => repo.directory(Path::new(source)).with_context(|| format!("read the folder of --repo {text:?}"))?,
    };
    for token in &arguments.token {
        repo = repo.reader(token);
    }
    if arguments.private {
        repo = repo.private();
    }
    Ok(match arguments.gated {
        Some(Access::Auto) => repo.gated(Gated::Auto),
        Some(Access::Manual) => repo.gated(Gated::Manual),
        None => repo,
    })
}
