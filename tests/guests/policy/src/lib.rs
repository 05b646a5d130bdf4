//! A GPU policy that answers outside its grant, as the GPU type says. Test material; it asked for `nvidia.com/gpu` alone.

use substratus_plugin::{
    Failure,
    gpu::{Claim, Guest, Placement, Request, Toleration},
    invalid, placement,
};

/// Does what was asked.
pub fn place(request: &Request) -> Result<Placement, Failure> {
    let how = request.gpu_type.as_deref().unwrap_or_default();
    let good = Placement { limits: vec![("nvidia.com/gpu".into(), 1)], reason: "good".into(), ..placement::empty() };
    Ok(match how {
        "good" => good,
        "loop" => loop {
            std::hint::black_box(how);
        },
        "selector" => Placement { node_selector: vec![("node-role.kubernetes.io/control-plane".into(), String::new())], ..good },
        "selector-name" => Placement { node_selector: vec![("kubernetes.io/hostname".into(), "node-1".into())], ..good },
        "selector-odd" => Placement { node_selector: vec![("nvidia.com/gpu".into(), "a b\nc".into())], ..good },
        "toleration" => Placement { tolerations: vec![tolerate("node-role.kubernetes.io/control-plane", "Exists")], ..good },
        "tolerate-all" => Placement { tolerations: vec![tolerate("", "Exists")], ..good },
        "tolerate-odd" => Placement { tolerations: vec![tolerate("nvidia.com/gpu", "Perhaps")], ..good },
        "resource" => Placement { limits: vec![("cpu".into(), 1000)], ..good },
        "resource-other" => Placement { limits: vec![("example.com/license".into(), 1)], ..good },
        "resource-huge" => Placement { limits: vec![("nvidia.com/gpu".into(), u64::MAX)], ..good },
        "resource-twice" => Placement { limits: vec![("nvidia.com/gpu".into(), 1), ("nvidia.com/gpu".into(), 2)], ..good },
        "claim" => Placement { claims: vec![claim()], ..good },
        "runtime" => Placement { runtime_class: Some("privileged".into()), ..good },
        "huge" => Placement { reason: "x".repeat(8 << 20), ..good },
        "random" => Placement { reason: format!("{:p}", &raw const how), ..good },
        other => return Err(invalid("spec.resources.gpu.type", format!("{other:?} is no misbehaviour that this guest knows"))),
    })
}

fn tolerate(key: &str, operator: &str) -> Toleration {
    Toleration { key: key.into(), operator: operator.into(), value: None, effect: None }
}

fn claim() -> Claim {
    Claim { name: "all".into(), device_class: "admin.example".into(), count: 1000, selectors: vec!["true".into()] }
}

struct Plugin;

impl Guest for Plugin {
    fn place(request: Request, _: Option<Placement>) -> Result<Placement, Failure> {
        place(&request)
    }
}

substratus_plugin::export_gpu_policy!(Plugin);
