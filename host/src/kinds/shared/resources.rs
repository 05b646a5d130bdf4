//! What a pod asks for: the two sets of defaults of the contract, and the answer of a GPU policy. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use substratus_crds::Resources;

use super::environment::Environment;
use super::verdict::Verdict;
use crate::plugin::types::Placement;

/// Requests where the user gave none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Default {
    cpu: String,
    memory: String,
    disk: String,
}

impl Default {
    /// The contract for user images: nothing on one's own machine, 2 cores, 4 GiB and 100 GiB elsewhere.
    pub fn contract(environment: &Environment) -> Self {
        if environment.is_local() { Self::of("0", "0", "0") } else { Self::of("2", "4Gi", "100Gi") }
    }

    /// Our own worker: it streams, so it is small whatever the model's size.
    pub fn worker(environment: &Environment) -> Self {
        if environment.is_local() { Self::of("0", "0", "0") } else { Self::of("250m", "256Mi", "1Gi") }
    }

    /// A builder: what the first operator asked for.
    pub fn builder(environment: &Environment) -> Self {
        if environment.is_local() { Self::of("0", "0", "0") } else { Self::of("2", "12Gi", "100Gi") }
    }

    /// What an engine says it needs, in cores and bytes.
    pub fn engine(environment: &Environment, cpu: Option<u32>, memory: Option<u64>) -> Self {
        let mut defaults = Self::contract(environment);
        if !environment.is_local() {
            if let Some(cores) = cpu {
                defaults.cpu = cores.to_string();
            }
            if let Some(bytes) = memory {
                defaults.memory = format!("{}Mi", bytes.div_ceil(1 << 20));
            }
        }
        defaults
    }

    fn of(cpu: &str, memory: &str, disk: &str) -> Self {
        Self { cpu: cpu.to_owned(), memory: memory.to_owned(), disk: disk.to_owned() }
    }
}

/// Refuses negative amounts.
pub fn check(resources: Option<&Resources>) -> Result<(), Verdict> {
    let Some(resources) = resources else { return Ok(()) };
    let gpus = resources.gpu.as_ref().map_or(0, |gpu| gpu.count);
    let amounts = [("cpu", resources.cpu), ("memory", resources.memory), ("disk", resources.disk), ("gpu.count", gpus)];
    match amounts.iter().find(|(_, amount)| *amount < 0 || *amount > 1 << 20) {
        Some((name, amount)) => {
            Err(Verdict::invalid(&format!("spec.resources.{name}"), format!("{amount} is no amount a pod can ask for")))
        }
        None => Ok(()),
    }
}

/// How many GPUs are asked for.
pub fn gpu_count(resources: Option<&Resources>) -> u32 {
    let count = resources.and_then(|r| r.gpu.as_ref()).map_or(0, |gpu| gpu.count);
    u32::try_from(count).unwrap_or(0)
}

/// Requests of cpu, memory and ephemeral storage; extended resources requested and limited alike; no other limits.
pub fn requirements(resources: Option<&Resources>, defaults: &Default, placement: Option<&Placement>) -> ResourceRequirements {
    let (cpu, memory, disk) = match resources {
        Some(given) => (given.cpu.to_string(), format!("{}Gi", given.memory), format!("{}Gi", given.disk)),
        None => (defaults.cpu.clone(), defaults.memory.clone(), defaults.disk.clone()),
    };
    let extended: BTreeMap<String, Quantity> = placement
        .into_iter()
        .flat_map(|placement| &placement.limits)
        .map(|(name, amount)| (name.clone(), Quantity(amount.to_string())))
        .collect();
    let mut requests = BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpu)),
        ("memory".to_owned(), Quantity(memory)),
        ("ephemeral-storage".to_owned(), Quantity(disk)),
    ]);
    requests.extend(extended.clone());
    ResourceRequirements {
        requests: Some(requests),
        limits: (!extended.is_empty()).then_some(extended),
        ..ResourceRequirements::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::shared::environment;

    fn requests(cloud: &str, resources: Option<&Resources>) -> [String; 3] {
        let wanted = requirements(resources, &Default::contract(&environment::of(cloud)), None);
        assert!(wanted.limits.is_none(), "{cloud}: what is asked for is no limit");
        let requests = wanted.requests.unwrap();
        assert_eq!(requests.len(), 3, "{cloud}: {requests:?}");
        ["cpu", "memory", "ephemeral-storage"].map(|name| requests[name].0.clone())
    }

    #[test]
    fn a_cloud_reserves_for_user_images_and_ones_own_machine_does_not() {
        for cloud in ["gcp", "gke", "aws", "azure"] {
            assert_eq!(requests(cloud, None), ["2", "4Gi", "100Gi"], "{cloud}");
        }
        // Nothing is said with a zero, so that a namespace's defaults do not fill it in.
        for cloud in ["kind", "local", ""] {
            assert_eq!(requests(cloud, None), ["0", "0", "0"], "{cloud}");
        }
    }

    #[test]
    fn what_the_user_gives_holds_everywhere() {
        let given = Resources { cpu: 1, memory: 3, disk: 7, ..Resources::default() };
        for cloud in ["gcp", "kind"] {
            assert_eq!(requests(cloud, Some(&given)), ["1", "3Gi", "7Gi"], "{cloud}");
        }
    }

    #[test]
    fn an_engine_says_what_it_needs_beside_the_disk() {
        let engine = |cloud, cpu, memory| Default::engine(&environment::of(cloud), cpu, memory);
        assert_eq!(engine("gcp", Some(4), Some(3 << 30)), Default::of("4", "3072Mi", "100Gi"));
        assert_eq!(engine("gcp", None, None), Default::of("2", "4Gi", "100Gi"));
        assert_eq!(engine("kind", Some(4), Some(3 << 30)), Default::of("0", "0", "0"));
    }
}
