//! How large the program and its image are. Must not build either.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::stats::mebibytes;
use super::table::Table;

/// One thing.
#[derive(Debug, Serialize)]
pub struct Row {
    what: String,
    mebibytes: f64,
    /// As a registry keeps it.
    compressed_mebibytes: f64,
}

/// The program, the plugins of a folder together, and the image that holds both.
pub fn measure(substratus: &Path, plugins: &Path, image: &Path) -> Result<Vec<Row>> {
    let mut components = Vec::new();
    for entry in fs::read_dir(plugins).with_context(|| format!("listing {}", plugins.display()))? {
        components.push(entry?.path());
    }
    components.retain(|path| path.extension().is_some_and(|end| end == "wasm"));
    let plugins = format!("{} plugins", components.len());
    let things = [
        ("program".to_owned(), vec![substratus.to_owned()]),
        (plugins, components),
        ("image".to_owned(), vec![image.to_owned()]),
    ];
    let row = |(what, files): (String, Vec<PathBuf>)| {
        let (mut bytes, mut compressed) = (0, 0);
        for file in &files {
            bytes += fs::metadata(file).with_context(|| format!("looking at {}", file.display()))?.len();
            compressed += gzipped(file)?;
        }
        Ok(Row { what, mebibytes: mebibytes(bytes), compressed_mebibytes: mebibytes(compressed) })
    };
    things.into_iter().map(row).collect()
}

/// Bytes of a file after `gzip`.
fn gzipped(file: &Path) -> Result<u64> {
    let mut gzip = Command::new("gzip");
    gzip.arg("-c").stdin(File::open(file)?).stdout(Stdio::piped());
    let mut child = gzip.spawn().context("running gzip")?;
    let mut output = child.stdout.take().context("reading what gzip prints")?;
    let bytes = std::io::copy(&mut output, &mut std::io::sink())?;
    ensure!(child.wait()?.success(), "gzip failed");
    Ok(bytes)
}

/// For people.
pub fn table(rows: &[Row]) -> Table {
    let cells = |row: &Row| vec![row.what.clone(), format!("{:.1}", row.mebibytes), format!("{:.1}", row.compressed_mebibytes)];
    Table {
        title: "sizes".to_owned(),
        columns: vec!["what", "MiB", "gzip MiB"],
        rows: rows.iter().map(cells).collect(),
        notes: Vec::new(),
    }
}
