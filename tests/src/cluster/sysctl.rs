//! The kernel settings that every kubelet changes for the whole machine, put back afterwards. Nothing else is touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::layout::Layout;

/// What a kubelet sets, whatever its configuration says.
const CHANGED: [(&str, &str); 6] = [
    ("kernel/keys/root_maxbytes", "25000000"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
];

/// Writes down the values that a kubelet is about to change. With several clusters the first knows them all, and later
/// ones, which find a kubelet's values, have nothing to put back.
pub fn remember(layout: &Layout) -> Result<()> {
    let mut before = BTreeMap::new();
    for (name, changed) in CHANGED {
        let Ok(value) = fs::read_to_string(path(name)) else {
            continue; // This kernel does not have it, and the kubelet will say so.
        };
        if value.trim() != changed {
            before.insert(name, value.trim().to_owned());
        }
    }
    fs::write(file(layout), serde_json::to_vec(&before)?).context("writing down kernel settings")
}

/// Puts back what was written down, if anything was.
pub fn restore(layout: &Layout) -> Result<()> {
    let Ok(text) = fs::read(file(layout)) else {
        return Ok(());
    };
    let before: BTreeMap<String, String> = serde_json::from_slice(&text).context("reading the kernel settings written down")?;
    for (name, value) in CHANGED.iter().filter_map(|(name, _)| Some((name, before.get(*name)?))) {
        fs::write(path(name), value).with_context(|| format!("putting back the kernel setting {name}"))?;
    }
    Ok(())
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn file(layout: &Layout) -> PathBuf {
    layout.config("sysctl.json")
}
