//! What GPU policies are told of the nodes. Pure.

use std::sync::Arc;

use kube::ResourceExt;

use super::views::NodeView;
use crate::plugin::types::Node;

/// Most nodes that a GPU policy is told of.
const MAX_NODES: usize = 500;

/// Nodes that offer extended resources or say something about accelerators, by name.
pub fn accelerators(nodes: &[Arc<NodeView>]) -> Vec<Node> {
    let mut nodes: Vec<Node> = nodes.iter().filter_map(|node| accelerator(node)).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes.truncate(MAX_NODES);
    nodes
}

fn accelerator(node: &NodeView) -> Option<Node> {
    let resources: Vec<(String, u64)> = node
        .status
        .allocatable
        .iter()
        .filter(|(name, _)| name.contains('/') && !name.starts_with("hugepages"))
        .filter_map(|(name, amount)| Some((name.clone(), amount.parse().ok()?)))
        .collect();
    let speaks = |name: &&String| name.contains("accelerator") || name.contains("gpu") || name.contains("tpu");
    let concerned = !resources.is_empty() || node.labels().keys().any(|name| speaks(&name));
    concerned.then(|| Node {
        name: node.name_any(),
        labels: node.labels().iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        resources,
    })
}
