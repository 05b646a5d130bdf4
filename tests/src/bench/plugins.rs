//! What a plugin costs: compiled, found compiled, and asked, each answer from an instance of its own, in this process and in a
//! sandbox. Knows no plugin by name.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use substratus::plugin::types::ServeRequest;
use substratus::plugin::{Isolation, Loaded, PluginError, PluginOptions, Plugins};
use substratus_crds::PluginRole;

use super::questions::{self, Canned};
use super::stats::{mebibytes, median, percentile};
use super::table::{Table, or_dash};

/// Answers that are not counted.
const WARM_UP: u32 = 20;

/// One function of one plugin.
#[derive(Debug, Serialize)]
pub struct Row {
    plugin: String,
    function: &'static str,
    mebibytes: f64,
    compile_milliseconds: f64,
    cached_load_milliseconds: f64,
    /// A new instance that refuses a malformed question: what every call pays before its work begins.
    instance_microseconds: Option<f64>,
    /// Absent where the plugin has no answer to the question.
    calls: Option<Calls>,
    /// The same across the socket, to a process that holds nothing.
    across: Option<Calls>,
}

/// Answers, one after the other.
#[derive(Debug, Serialize)]
pub struct Calls {
    count: u32,
    per_second: f64,
    p50_microseconds: Option<f64>,
    p99_microseconds: Option<f64>,
}

/// Measures every plugin of a folder, `count` calls per function; sandboxes are children of `substratus`.
pub async fn measure(substratus: &Path, folder: &Path, count: u32) -> Result<Vec<Row>> {
    let cache = tempfile::tempdir().context("making a folder for compiled plugins")?;
    let open = || Plugins::open(PluginOptions { cache: cache.path().to_owned(), bundled: vec![folder.to_owned()] });
    let cold = prepare(&open()?).await?;
    let plugins = open()?;
    let warm = prepare(&plugins).await?;
    let options = PluginOptions { cache: cache.path().to_owned(), bundled: vec![folder.to_owned()] };
    let sandboxed = Plugins::open_isolated(options, Isolation::Child { program: substratus.to_owned() })?;
    prepare(&sandboxed).await?;
    let bundled = plugins.bundled();
    ensure!(
        !bundled.is_empty(),
        "no plugin in {}; build them with `make plugins`, or name a folder with --plugins",
        folder.display()
    );
    let mut rows = Vec::new();
    for ((loaded, cold), warm) in bundled.iter().zip(cold).zip(warm) {
        let instance = refusals(&plugins, loaded, count).await?;
        let across = functions(&sandboxed, loaded, count).await?;
        for ((function, calls), (_, across)) in functions(&plugins, loaded, count).await?.into_iter().zip(across) {
            rows.push(Row {
                plugin: loaded.manifest.name.clone(),
                function,
                mebibytes: mebibytes(loaded.size),
                compile_milliseconds: cold,
                cached_load_milliseconds: warm,
                instance_microseconds: instance,
                calls,
                across,
            });
        }
    }
    Ok(rows)
}

/// How long each plugin takes to be ready for its first call, in milliseconds.
async fn prepare(plugins: &Plugins) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for loaded in plugins.bundled() {
        let began = Instant::now();
        plugins.prepare(&loaded.digest).await.with_context(|| format!("preparing {}", loaded.manifest.name))?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

async fn functions(plugins: &Plugins, loaded: &Loaded, count: u32) -> Result<Vec<(&'static str, Option<Calls>)>> {
    let digest = &loaded.digest;
    Ok(match loaded.manifest.role {
        PluginRole::GpuPolicy => {
            let question = questions::place()?;
            vec![("place", calls(count, async || plugins.place(digest, &question, None).await.map(drop)).await?)]
        }
        PluginRole::ServerAdapter => {
            let question = serveable(plugins, digest).await?;
            vec![
                ("fit", calls(count, async || plugins.fit(digest, &question).await.map(drop)).await?),
                ("serve", calls(count, async || plugins.serve(digest, &question).await.map(drop)).await?),
            ]
        }
        PluginRole::ModelLoader => {
            let question = questions::resolve()?;
            let ask = async || plugins.resolve(digest, &question, None, Arc::new(Canned)).await.map(drop);
            vec![("resolve", calls(count, ask).await?)]
        }
        PluginRole::DatasetImporter => {
            let question = questions::plan()?;
            let ask = async || plugins.plan_import(digest, &question, None, Arc::new(Canned)).await.map(drop);
            vec![("plan", calls(count, ask).await?)]
        }
    })
}

/// The middle time of a call that ends at once: the plugin's configuration is no JSON.
async fn refusals(plugins: &Plugins, loaded: &Loaded, count: u32) -> Result<Option<f64>> {
    const MALFORMED: &str = "}";
    let (digest, mut took) = (&loaded.digest, Vec::new());
    let (mut place, mut serve, mut resolve) = (questions::place()?, questions::serve("gguf", None)?, questions::resolve()?);
    for config in [&mut place.config, &mut serve.config, &mut resolve.config] {
        MALFORMED.clone_into(config);
    }
    for _ in 0..count {
        let asked = Instant::now();
        let answer = match loaded.manifest.role {
            PluginRole::GpuPolicy => plugins.place(digest, &place, None).await.map(drop),
            PluginRole::ServerAdapter => plugins.serve(digest, &serve).await.map(drop),
            PluginRole::ModelLoader => plugins.resolve(digest, &resolve, None, Arc::new(Canned)).await.map(drop),
            PluginRole::DatasetImporter => return Ok(None),
        };
        took.push(asked.elapsed().as_secs_f64() * 1e6);
        let name = &loaded.manifest.name;
        ensure!(matches!(answer, Err(PluginError::Failure(_))), "{name} does not refuse a malformed question: {answer:?}");
    }
    Ok(median(&took))
}

/// A question that the adapter can answer: not every engine serves every format.
async fn serveable(plugins: &Plugins, digest: &str) -> Result<ServeRequest> {
    let safetensors = questions::serve("safetensors", None)?;
    match plugins.serve(digest, &safetensors).await {
        Err(PluginError::Failure(_)) => questions::serve("gguf", Some("model.gguf")),
        _ => Ok(safetensors),
    }
}

/// Asks again and again; nothing where the plugin says that it cannot answer.
async fn calls(count: u32, mut ask: impl AsyncFnMut() -> Result<(), PluginError>) -> Result<Option<Calls>> {
    for _ in 0..WARM_UP {
        match ask().await {
            Err(PluginError::Failure(_)) => return Ok(None),
            other => other.context("asking a plugin")?,
        }
    }
    let mut took = Vec::new();
    let began = Instant::now();
    for _ in 0..count {
        let asked = Instant::now();
        ask().await.context("asking a plugin")?;
        took.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Some(Calls {
        count,
        per_second: f64::from(count) / began.elapsed().as_secs_f64(),
        p50_microseconds: percentile(&took, 0.5),
        p99_microseconds: percentile(&took, 0.99),
    }))
}

/// For people.
pub fn table(rows: &[Row], count: u32) -> Table {
    let cells = |row: &Row| {
        let (calls, across) = (row.calls.as_ref(), row.across.as_ref());
        vec![
            format!("{} {}", row.plugin, row.function),
            format!("{:.2}", row.mebibytes),
            format!("{:.0}", row.compile_milliseconds),
            format!("{:.1}", row.cached_load_milliseconds),
            or_dash(row.instance_microseconds, 0),
            or_dash(calls.map(|calls| calls.per_second), 0),
            or_dash(calls.and_then(|calls| calls.p50_microseconds), 0),
            or_dash(calls.and_then(|calls| calls.p99_microseconds), 0),
            or_dash(across.and_then(|calls| calls.p50_microseconds), 0),
            or_dash(across.and_then(|calls| calls.p99_microseconds), 0),
        ]
    };
    Table {
        title: format!("plugins: {count} calls one after the other, each in a fresh instance"),
        columns: vec![
            "plugin and call",
            "MiB",
            "compile ms",
            "cached ms",
            "instance µs",
            "calls/s",
            "p50 µs",
            "p99 µs",
            "socket p50 µs",
            "p99 µs",
        ],
        rows: rows.iter().map(cells).collect(),
        notes: vec![
            "instance: a new instance that refuses a malformed question, the part of a call that is no answer".to_owned(),
            "socket: the same calls, answered by a process that holds nothing".to_owned(),
        ],
    }
}
