//! Which node label says which GPU a node has, and whether that is the wanted one. It decides nothing.

use std::collections::BTreeMap;

use substratus_plugin::gpu::Node;

/// Labels whose value names the GPU, best first.
const PRODUCT_LABELS: &[&str] = &[
    "nvidia.com/gpu.product",
    "amd.com/gpu.product-name",
    "beta.amd.com/gpu.product-name",
    "cloud.google.com/gke-accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "eks.amazonaws.com/instance-gpu-name",
    "k8s.amazonaws.com/accelerator",
];

/// Words that say who made it, not what it is.
const BRANDS: &[&str] = &["nvidia", "amd", "tesla", "geforce", "instinct", "radeon", "quadro", "gpu", "intel"];

/// A label that selects nodes with the wanted GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) key: String,
    pub(crate) value: String,
    /// Bytes of one GPU, where the nodes say it.
    pub(crate) memory: Option<u64>,
    /// `8.9`
    pub(crate) capability: Option<String>,
    nodes: usize,
}

/// All label values that name the wanted type with enough memory, the most common first; of one key only, the best present.
pub(crate) fn find(wanted: &str, least_memory: Option<u64>, nodes: &[Node]) -> Vec<Match> {
    let wanted = words(wanted);
    if wanted.is_empty() {
        return Vec::new();
    }
    let matching = |key: &&str| -> Option<Vec<Match>> {
        let found = values_of(key, &wanted, least_memory, nodes);
        (!found.is_empty()).then_some(found)
    };
    PRODUCT_LABELS.iter().find_map(matching).unwrap_or_default()
}

fn values_of(key: &str, wanted: &[String], least_memory: Option<u64>, nodes: &[Node]) -> Vec<Match> {
    let mut by_value: BTreeMap<&str, Match> = BTreeMap::new();
    for node in nodes {
        let Some(value) = label(node, key) else { continue };
        let memory = memory_of(node);
        let enough = least_memory.zip(memory).is_none_or(|(least, has)| has >= least);
        if !enough || !is_wanted(wanted, value, memory) {
            continue;
        }
        let entry = by_value.entry(value).or_insert_with(|| Match {
            key: key.to_owned(),
            value: value.to_owned(),
            memory,
            capability: capability_of(node),
            nodes: 0,
        });
        entry.nodes += 1;
    }
    let mut found: Vec<Match> = by_value.into_values().collect();
    // Stable: equally common values stay in the order of their names.
    found.sort_by_key(|one| std::cmp::Reverse(one.nodes));
    found
}

/// Every wanted word stands in the value; `80gb` also where the node has that much memory.
fn is_wanted(wanted: &[String], value: &str, memory: Option<u64>) -> bool {
    let offered = words(value);
    wanted.iter().all(|word| offered.contains(word) || gib(word).zip(memory).is_some_and(|(gib, has)| is_about(gib, has)))
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.filter(|word| !BRANDS.contains(word)).map(str::to_owned).collect()
}

fn gib(word: &str) -> Option<u64> {
    word.strip_suffix("gb")?.parse().ok()
}

/// Drivers report a few per cent less or more than what is printed on the box.
fn is_about(gib: u64, bytes: u64) -> bool {
    let printed = gib << 30;
    bytes.abs_diff(printed) <= printed / 10
}

fn memory_of(node: &Node) -> Option<u64> {
    let mib: u64 = label(node, "nvidia.com/gpu.memory")?.parse().ok()?;
    mib.checked_mul(1 << 20)
}

fn capability_of(node: &Node) -> Option<String> {
    let major = label(node, "nvidia.com/gpu.compute.major")?;
    let minor = label(node, "nvidia.com/gpu.compute.minor")?;
    Some(format!("{major}.{minor}"))
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(labels: &[(&str, &str)]) -> Node {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Node { name: "n".into(), labels, resources: Vec::new() }
    }

    #[test]
    fn a_type_is_found_by_its_words() {
        for (wanted, value, expected) in [
            ("nvidia-t4", "Tesla-T4", true),
            ("nvidia-l4", "NVIDIA-L4", true),
            ("nvidia-l4", "NVIDIA-L40S", false),
            ("nvidia-a100", "NVIDIA-A100-SXM4-80GB", true),
            ("a100-80gb", "NVIDIA-A100-SXM4-80GB", true),
            ("a100-80gb", "NVIDIA-A100-SXM4-40GB", false),
            ("rtx-4090", "NVIDIA-GeForce-RTX-4090", true),
            ("mi300x", "AMD_Instinct_MI300X_OAM", true),
        ] {
            let found = find(wanted, None, &[node(&[("nvidia.com/gpu.product", value)])]);
            assert_eq!(!found.is_empty(), expected, "{wanted} on {value}");
        }
    }

    #[test]
    fn memory_that_is_not_in_the_name_is_read_from_its_label() {
        let nodes = [node(&[("nvidia.com/gpu.product", "NVIDIA-H100-PCIe"), ("nvidia.com/gpu.memory", "81559")])];
        assert_eq!(find("h100-80gb", None, &nodes).len(), 1);
        assert_eq!(find("h100-40gb", None, &nodes).len(), 0);
        assert_eq!(find("h100", Some(100 << 30), &nodes).len(), 0);
    }

    #[test]
    fn the_most_common_value_comes_first() {
        let small = node(&[("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-40GB")]);
        let large = node(&[("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-80GB")]);
        let values = |nodes: &[Node]| find("a100", None, nodes).into_iter().map(|one| one.value).collect::<Vec<_>>();
        assert_eq!(values(&[small.clone(), large.clone(), large.clone()])[0], "NVIDIA-A100-SXM4-80GB");
        assert_eq!(values(&[large, small])[0], "NVIDIA-A100-SXM4-40GB");
    }
}
