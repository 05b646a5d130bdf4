//! What GKE calls its GPUs. Data only.

/// A GPU type that GKE offers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// `spec.resources.gpu.type`.
    pub(crate) name: &'static str,
    /// Value of the node label `cloud.google.com/gke-accelerator`.
    pub(crate) accelerator: &'static str,
    /// Memory of one GPU in GiB, as marketed.
    pub(crate) gib: u64,
    /// CUDA compute capability.
    pub(crate) capability: &'static str,
}

/// Smallest first, so that alternatives come in the order of their price.
pub(crate) const GPUS: &[Gpu] = &[
    Gpu { name: "nvidia-p4", accelerator: "nvidia-tesla-p4", gib: 8, capability: "6.1" },
    Gpu { name: "nvidia-p100", accelerator: "nvidia-tesla-p100", gib: 16, capability: "6.0" },
    Gpu { name: "nvidia-t4", accelerator: "nvidia-tesla-t4", gib: 16, capability: "7.5" },
    Gpu { name: "nvidia-v100", accelerator: "nvidia-tesla-v100", gib: 16, capability: "7.0" },
    Gpu { name: "nvidia-l4", accelerator: "nvidia-l4", gib: 24, capability: "8.9" },
    Gpu { name: "nvidia-a100", accelerator: "nvidia-tesla-a100", gib: 40, capability: "8.0" },
    Gpu { name: "nvidia-a100-80gb", accelerator: "nvidia-a100-80gb", gib: 80, capability: "8.0" },
    Gpu { name: "nvidia-h100", accelerator: "nvidia-h100-80gb", gib: 80, capability: "9.0" },
    Gpu { name: "nvidia-h100-mega", accelerator: "nvidia-h100-mega-80gb", gib: 80, capability: "9.0" },
    Gpu { name: "nvidia-h200", accelerator: "nvidia-h200-141gb", gib: 141, capability: "9.0" },
    Gpu { name: "nvidia-b200", accelerator: "nvidia-b200", gib: 180, capability: "10.0" },
];

/// A type by its name, by GKE's own name for it, or by either without `nvidia-`.
pub(crate) fn find(wanted: &str) -> Option<&'static Gpu> {
    let wanted = wanted.trim().to_ascii_lowercase();
    let wanted = short(&wanted);
    GPUS.iter().find(|gpu| short(gpu.name) == wanted || short(gpu.accelerator) == wanted)
}

/// The known type that is spelt most like `wanted`, where one is close.
pub(crate) fn nearest(wanted: &str) -> Option<&'static Gpu> {
    let wanted = wanted.trim().to_ascii_lowercase();
    let wanted = short(&wanted);
    let common = |gpu: &Gpu| short(gpu.name).chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
    GPUS.iter().filter(|gpu| common(gpu) > 0).max_by_key(|gpu| (common(gpu), std::cmp::Reverse(gpu.name.len())))
}

fn short(name: &str) -> &str {
    let name = name.strip_prefix("nvidia-").unwrap_or(name);
    name.strip_prefix("tesla-").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_finds_its_type() {
        for (wanted, accelerator) in [
            ("nvidia-t4", "nvidia-tesla-t4"),
            ("nvidia-tesla-t4", "nvidia-tesla-t4"),
            ("T4", "nvidia-tesla-t4"),
            ("nvidia-l4", "nvidia-l4"),
            ("nvidia-a100", "nvidia-tesla-a100"),
            ("a100-80gb", "nvidia-a100-80gb"),
            ("nvidia-h100-80gb", "nvidia-h100-80gb"),
            ("nvidia-h100", "nvidia-h100-80gb"),
        ] {
            assert_eq!(find(wanted).map(|gpu| gpu.accelerator), Some(accelerator), "{wanted}");
        }
        assert_eq!(find("nvidia-l40"), None);
        assert_eq!(find(""), None);
    }

    #[test]
    fn the_nearest_shares_its_beginning() {
        assert_eq!(nearest("nvidia-l40").map(|gpu| gpu.name), Some("nvidia-l4"));
        assert_eq!(nearest("nvidia-a10").map(|gpu| gpu.name), Some("nvidia-a100"));
        assert_eq!(nearest("mi300x"), None);
    }
}
