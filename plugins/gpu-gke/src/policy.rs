//! From a GPU type to GKE scheduling. Pure; the names are in `table`.

use serde::Deserialize;
use substratus_plugin::{Failure, config, gpu, invalid, placement};

use crate::table::{self, GPUS, Gpu};

const GIB: u64 = 1 << 30;

/// Nothing to configure yet; a mistyped member is still an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

/// Answers one question.
pub fn place(request: &gpu::Request, previous: Option<gpu::Placement>) -> Result<gpu::Placement, Failure> {
    let Config {} = config::parse(&request.config)?;
    let wanted = request.gpu_type.as_deref().unwrap_or_default();
    let gpu = table::find(wanted).ok_or_else(|| unknown(wanted, &request.cloud))?;
    let ours = gpu::Placement {
        node_selector: vec![("cloud.google.com/gke-accelerator".into(), gpu.accelerator.into())],
        tolerations: vec![placement::tolerate_equal("nvidia.com/gpu", "present"), placement::tolerate_gke_spot()],
        limits: vec![("nvidia.com/gpu".into(), request.count.into())],
        vendor: Some("nvidia".into()),
        gpu_memory: Some(gpu.gib * GIB),
        compute_capability: Some(gpu.capability.into()),
        reason: reason(gpu, request),
        alternatives: alternatives(gpu),
        ..placement::empty()
    };
    Ok(placement::after(previous, ours))
}

fn reason(gpu: &Gpu, request: &gpu::Request) -> String {
    let count = request.count;
    let base = format!("{count} × {} ({} GiB each) on GKE nodes with accelerator {}", gpu.name, gpu.gib, gpu.accelerator);
    match request.memory {
        Some(memory) if memory > gpu.gib * GIB => {
            format!("{base}; {} GiB were asked for, so it may not fit", memory.div_ceil(GIB))
        }
        _ => base,
    }
}

/// Types with at least as much memory that are not older.
fn alternatives(gpu: &Gpu) -> Vec<String> {
    let newer = |other: &&Gpu| major(other) >= major(gpu);
    let others = GPUS.iter().filter(|other| other.name != gpu.name && other.gib >= gpu.gib).filter(newer);
    others.take(3).map(|other| other.name.to_owned()).collect()
}

fn major(gpu: &Gpu) -> u32 {
    gpu.capability.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
}

fn unknown(wanted: &str, cloud: &str) -> Failure {
    let known: Vec<&str> = GPUS.iter().map(|gpu| gpu.name).collect();
    let known = known.join(", ");
    let cloud = if cloud.is_empty() { "gke" } else { cloud };
    let reason = match table::nearest(wanted) {
        _ if wanted.is_empty() => format!("GPU \"\" is not supported on cloud {cloud}: name one of {known}"),
        Some(near) => {
            format!("GPU {wanted:?} is not supported on cloud {cloud}: did you mean {}? Known are {known}", near.name)
        }
        None => format!("GPU {wanted:?} is not supported on cloud {cloud}: known are {known}"),
    };
    invalid("spec.resources.gpu.type", reason)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use substratus_plugin::testing;

    use super::*;

    #[test]
    fn cases() {
        testing::policy_cases(env!("CARGO_MANIFEST_DIR"), place);
    }

    #[test]
    fn the_originals_table_holds() {
        for (name, accelerator) in
            [("nvidia-t4", "nvidia-tesla-t4"), ("nvidia-l4", "nvidia-l4"), ("nvidia-a100", "nvidia-tesla-a100")]
        {
            let request = testing::request("Server", json!({"gpu_type": name, "count": 2, "cloud": "gcp"}));
            let placed = place(&request, None).unwrap();
            assert_eq!(placed.node_selector, [("cloud.google.com/gke-accelerator".into(), accelerator.into())]);
            assert_eq!(placed.limits, [("nvidia.com/gpu".into(), 2)]);
            assert!(placed.tolerations.contains(&placement::tolerate_gke_spot()));
        }
    }

    #[test]
    fn a_mistyped_configuration_is_the_administrators_to_fix() {
        let request = testing::request("Server", json!({"gpu_type": "nvidia-l4", "config": "{\"spot\": true}"}));
        assert!(matches!(place(&request, None), Err(Failure::Invalid(_))));
    }
}
