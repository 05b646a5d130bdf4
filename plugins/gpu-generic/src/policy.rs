//! From a GPU type to scheduling that works anywhere. Pure; what labels mean is in `labels`.

use serde::Deserialize;
use substratus_plugin::{
    Failure, config,
    gpu::{Node, Placement, Request},
    placement,
};

use crate::labels::{self, Match};

/// Nothing to configure yet; a mistyped member is still an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

/// Who made the GPU, and the resource that its device plugin offers.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Vendor {
    name: &'static str,
    resource: &'static str,
}

const NVIDIA: Vendor = Vendor { name: "nvidia", resource: "nvidia.com/gpu" };
const AMD: Vendor = Vendor { name: "amd", resource: "amd.com/gpu" };
const GAUDI: Vendor = Vendor { name: "intel", resource: "habana.ai/gaudi" };

/// Answers one question. No type is unknown here: one that no node names is not selected by label.
pub fn place(request: &Request, previous: Option<Placement>) -> Result<Placement, Failure> {
    let Config {} = config::parse(&request.config)?;
    let wanted = request.gpu_type.as_deref().map(str::trim).unwrap_or_default();
    let vendor = vendor_of(wanted, &request.nodes);
    let found = labels::find(wanted, request.memory, &request.nodes);
    let best = found.first();
    let ours = Placement {
        node_selector: best.map(|one| (one.key.clone(), one.value.clone())).into_iter().collect(),
        tolerations: vec![placement::tolerate_any(vendor.resource), placement::tolerate_gke_spot()],
        limits: vec![(vendor.resource.to_owned(), request.count.into())],
        vendor: Some(vendor.name.to_owned()),
        gpu_memory: best.and_then(|one| one.memory),
        compute_capability: best.and_then(|one| one.capability.clone()),
        reason: reason(wanted, vendor, best, request),
        alternatives: found.iter().skip(1).map(|one| one.value.clone()).collect(),
        ..placement::empty()
    };
    Ok(placement::after(previous, ours))
}

fn vendor_of(wanted: &str, nodes: &[Node]) -> Vendor {
    let wanted = wanted.to_ascii_lowercase();
    let is_instinct = wanted.strip_prefix("mi").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if wanted.contains("gaudi") {
        GAUDI
    } else if wanted.starts_with("amd") || is_instinct {
        AMD
    } else if wanted.is_empty() {
        // Any GPU: the first kind that the cluster has.
        let offered = |vendor: &Vendor| nodes.iter().any(|node| offers(node, vendor.resource));
        [NVIDIA, AMD, GAUDI].into_iter().find(offered).unwrap_or(NVIDIA)
    } else {
        NVIDIA
    }
}

fn offers(node: &Node, resource: &str) -> bool {
    node.resources.iter().any(|(name, count)| name == resource && *count > 0)
}

fn reason(wanted: &str, vendor: Vendor, best: Option<&Match>, request: &Request) -> String {
    let (count, resource) = (request.count, vendor.resource);
    match best {
        Some(found) => format!("{count} × {wanted} on nodes labelled {}={}", found.key, found.value),
        None if wanted.is_empty() => format!("{count} × {resource} on any node that offers it"),
        None => {
            format!("{count} × {resource} on any node that offers it: no node's labels name {wanted}")
        }
    }
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
    fn any_string_works_as_in_the_original() {
        for wanted in ["", "nvidia-l4", "no-such-gpu", "GPU of the century"] {
            let request = testing::request("Server", json!({"gpu_type": wanted, "cloud": "kind"}));
            let placed = place(&request, None).unwrap();
            assert_eq!(placed.node_selector, [], "{wanted}");
            assert_eq!(placed.limits, [("nvidia.com/gpu".into(), 1)], "{wanted}");
            assert!(placed.tolerations.contains(&placement::tolerate_gke_spot()));
        }
    }

    #[test]
    fn the_same_question_gets_the_same_answer() {
        let node = |value: &str| json!({"name": "n", "labels": [["nvidia.com/gpu.product", value]], "resources": []});
        let ask = || testing::request("Server", json!({"gpu_type": "a100", "nodes": [node("A100-a"), node("A100-b")]}));
        assert_eq!(place(&ask(), None), place(&ask(), None));
    }
}
