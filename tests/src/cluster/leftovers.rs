//! Namespaces of tests say which process made them, so that the next run on the same cluster can remove those of the dead.
//! It must not know what tests do in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt as _};

/// The label; its value is `<machine>.<process id>`.
pub const LABEL: &str = "substratus.ai/test-process";

/// The label of this process.
pub fn mark() -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL.to_owned(), format!("{}.{}", machine(), std::process::id()))])
}

/// Deletes the namespaces of this machine's processes that have ended, and returns their names. Those of other machines
/// stay: nobody here can know whether their test still runs.
pub async fn sweep(client: &Client) -> Result<Vec<String>> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let marked = namespaces.list(&ListParams::default().labels(LABEL)).await.context("listing what earlier tests left")?;
    let mut swept = Vec::new();
    for namespace in marked {
        let owner = namespace.labels().get(LABEL).map(String::as_str).unwrap_or_default();
        if is_dead(owner, &machine(), |process| Path::new("/proc").join(process).exists()) {
            let name = namespace.name_any();
            namespaces.delete(&name, &DeleteParams::default()).await.with_context(|| format!("deleting the namespace {name}"))?;
            swept.push(name);
        }
    }
    Ok(swept)
}

fn is_dead(owner: &str, machine: &str, runs: impl Fn(&str) -> bool) -> bool {
    owner.rsplit_once('.').is_some_and(|(on, process)| on == machine && process.parse::<u32>().is_ok() && !runs(process))
}

/// This machine's name, as a label value may have it.
fn machine() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    format!("m{name}m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dead_of_this_machine_are_swept() {
        let runs = |process: &str| process == "7";
        assert!(is_dead("mhostm.8", "mhostm", runs));
        for alive in ["mhostm.7", "motherm.8", "mhostm", "mhostm.", "", "mhostm.../etc"] {
            assert!(!is_dead(alive, "mhostm", runs), "{alive}");
        }
    }

    #[test]
    fn our_own_mark_is_a_label_value_of_the_living() {
        let value = mark().remove(LABEL).unwrap();
        assert!(value.len() <= 63 && value.starts_with('m'), "{value}");
        assert!(!is_dead(&value, &machine(), |process| Path::new("/proc").join(process).exists()));
    }
}
