//! What GPU policies share: an empty answer, the tolerations, chaining. It knows no GPU type.

use crate::gpu::{Placement, Toleration};

/// An answer that asks for nothing yet.
pub fn empty() -> Placement {
    Placement {
        node_selector: Vec::new(),
        tolerations: Vec::new(),
        limits: Vec::new(),
        claims: Vec::new(),
        runtime_class: None,
        vendor: None,
        gpu_memory: None,
        compute_capability: None,
        reason: String::new(),
        alternatives: Vec::new(),
        extensions: Vec::new(),
    }
}

/// A `NoSchedule` taint of exactly this value is tolerated.
pub fn tolerate_equal(key: &str, value: &str) -> Toleration {
    Toleration { key: key.into(), operator: "Equal".into(), value: Some(value.into()), effect: Some("NoSchedule".into()) }
}

/// Any `NoSchedule` taint of this key is tolerated.
pub fn tolerate_any(key: &str) -> Toleration {
    Toleration { key: key.into(), operator: "Exists".into(), value: None, effect: Some("NoSchedule".into()) }
}

/// The toleration that every pod with a GPU object has carried since the first release; it also makes GKE's node
/// auto-provisioning consider spot nodes.
pub fn tolerate_gke_spot() -> Toleration {
    tolerate_equal("cloud.google.com/gke-spot", "true")
}

/// `ours` on top of the policy before us in a chain: ours wins key by key, what only the other said stays.
pub fn after(previous: Option<Placement>, ours: Placement) -> Placement {
    let Some(before) = previous else { return ours };
    let reason = if before.reason.is_empty() { ours.reason } else { format!("{}; then: {}", before.reason, ours.reason) };
    let mut tolerations = ours.tolerations;
    tolerations.extend(keep(before.tolerations, |old| !tolerations.contains(old)));
    let claims_names: Vec<String> = ours.claims.iter().map(|claim| claim.name.clone()).collect();
    let mut claims = ours.claims;
    claims.extend(keep(before.claims, |old| !claims_names.contains(&old.name)));
    Placement {
        node_selector: overlay(before.node_selector, ours.node_selector),
        tolerations,
        limits: overlay(before.limits, ours.limits),
        claims,
        runtime_class: ours.runtime_class.or(before.runtime_class),
        vendor: ours.vendor.or(before.vendor),
        gpu_memory: ours.gpu_memory.or(before.gpu_memory),
        compute_capability: ours.compute_capability.or(before.compute_capability),
        reason,
        alternatives: ours.alternatives,
        extensions: overlay(before.extensions, ours.extensions),
    }
}

fn keep<T>(items: Vec<T>, wanted: impl Fn(&T) -> bool) -> Vec<T> {
    items.into_iter().filter(wanted).collect()
}

/// Pairs of both, sorted by key; the second wins.
fn overlay<V>(below: Vec<(String, V)>, above: Vec<(String, V)>) -> Vec<(String, V)> {
    let merged: std::collections::BTreeMap<String, V> = below.into_iter().chain(above).collect();
    merged.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_keeps_what_only_the_first_said() {
        let before = Placement {
            node_selector: vec![("pool".into(), "ml".into()), ("gpu".into(), "old".into())],
            tolerations: vec![tolerate_any("site"), tolerate_gke_spot()],
            reason: "site".into(),
            ..empty()
        };
        let ours = Placement {
            node_selector: vec![("gpu".into(), "new".into())],
            tolerations: vec![tolerate_gke_spot()],
            reason: "cloud".into(),
            ..empty()
        };
        let both = after(Some(before), ours);
        assert_eq!(both.node_selector, [("gpu".into(), "new".into()), ("pool".into(), "ml".into())]);
        assert_eq!(both.tolerations, [tolerate_gke_spot(), tolerate_any("site")]);
        assert_eq!(both.reason, "site; then: cloud");
    }
}
