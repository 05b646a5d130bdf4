//! Whether a `NetworkPolicy` shuts in the pods of one worker and nobody else's, and leaves no way to what says who a node is. Knows
//! nothing of what was granted.

use serde_json::Value;

use super::list;
use crate::kinds::shared::child::{Child, Owner};
use crate::kinds::shared::names::WORKER;

/// Resolvers are reached by these, wherever they are.
const DNS: [u64; 1] = [53];

/// Refuses a policy that selects pods which are not the worker's, that lets somebody in, or lets out to everywhere.
pub(super) fn confines(child: &Child, owner: &Owner) -> Result<(), String> {
    let spec = child.object.get("spec").unwrap_or(&Value::Null);
    selects_the_worker(spec.get("podSelector").unwrap_or(&Value::Null), child, owner)?;
    let types: Vec<&str> = list(spec, "policyTypes").filter_map(Value::as_str).collect();
    if types != ["Ingress", "Egress"] || list(spec, "ingress").next().is_some() {
        return Err("lets somebody in".to_owned());
    }
    list(spec, "egress").try_for_each(rule)
}

fn selects_the_worker(selector: &Value, child: &Child, owner: &Owner) -> Result<(), String> {
    let label = |key: &str| selector.get("matchLabels").and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let kind = owner.reference.kind.to_ascii_lowercase();
    let is_ours = label(WORKER) == Some(child.name.as_str())
        && label("role") == Some("run")
        && label(&kind) == Some(owner.reference.name.as_str())
        // A selector of expressions may be wider than its labels look.
        && selector.as_object().is_some_and(|fields| fields.len() == 1);
    if is_ours { Ok(()) } else { Err("selects other pods than the worker's".to_owned()) }
}

fn rule(rule: &Value) -> Result<(), String> {
    let mut ports = list(rule, "ports").peekable();
    if list(rule, "to").next().is_none() {
        let resolves = ports.peek().is_some()
            && ports.all(|port| port.get("port").and_then(Value::as_u64).is_some_and(|port| DNS.contains(&port)));
        return if resolves { Ok(()) } else { Err("lets out to everywhere".to_owned()) };
    }
    if ports.peek().is_none() {
        return Err("lets out by every protocol".to_owned());
    }
    list(rule, "to").try_for_each(|peer| {
        let block = peer.get("ipBlock").unwrap_or(&Value::Null);
        let excepts = |range: &str| list(block, "except").any(|except| except.as_str() == Some(range));
        match block.get("cidr").and_then(Value::as_str) {
            Some(cidr) if cidr.ends_with("/0") && !excepts("169.254.0.0/16") && !excepts("fe80::/10") => {
                Err("lets out to link-local addresses".to_owned())
            }
            _ => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::shared::child::{ChildKind, Policy};
    use crate::reconcile::guard;

    fn owner() -> Owner {
        let reference = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Model", "name": "m", "uid": "u"})).unwrap();
        Owner { namespace: "team".to_owned(), reference }
    }

    /// What the guard says of a policy of which this is another.
    fn told(pointer: &str, value: Value) -> Result<(), String> {
        let mut object = json!({"metadata": {"namespace": "team", "name": "m-modeller"}, "spec": {
        "podSelector": {"matchLabels": {"model": "m", "role": "run", "substratus.ai/worker": "m-modeller"}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [
            {"ports": [{"port": 53, "protocol": "UDP"}]},
            {"ports": [{"port": 443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]}
        ]}});
        *object.pointer_mut(pointer).unwrap() = value;
        let child = Child { kind: ChildKind::NetworkPolicy, name: "m-modeller".to_owned(), policy: Policy::Own, object };
        guard::children(&[child], &owner(), &[]).map_err(|why| why.replace("NetworkPolicy `m-modeller`: ", ""))
    }

    #[test]
    fn a_policy_that_is_wider_than_its_worker_is_refused() {
        assert_eq!(told("/metadata/name", json!("m-modeller")), Ok(()));
        let labels = json!({"model": "m", "role": "run", "substratus.ai/worker": "m-modeller"});
        for selector in [
            json!({}),
            json!({"matchLabels": {}}),
            json!({"matchLabels": {"model": "m", "role": "run"}}),
            json!({"matchLabels": {"model": "other", "role": "run", "substratus.ai/worker": "m-modeller"}}),
            json!({"matchLabels": {"model": "m", "role": "run", "substratus.ai/worker": "other-modeller"}}),
            json!({"matchLabels": labels, "matchExpressions": [{"key": "model", "operator": "Exists"}]}),
        ] {
            assert_eq!(told("/spec/podSelector", selector), Err("selects other pods than the worker's".to_owned()));
        }
        assert!(told("/metadata/namespace", json!("kube-system")).unwrap_err().contains("another namespace"));
        for types in [json!(["Egress"]), json!(["Ingress"]), json!([]), Value::Null] {
            assert_eq!(told("/spec/policyTypes", types), Err("lets somebody in".to_owned()));
        }
    }

    #[test]
    fn a_policy_that_opens_everything_is_refused() {
        for rule in
            [json!({}), json!({"ports": [{"port": 443}]}), json!({"to": []}), json!({"ports": [{"port": 53}, {"port": 80}]})]
        {
            assert_eq!(told("/spec/egress/0", rule), Err("lets out to everywhere".to_owned()));
        }
        assert_eq!(told("/spec/egress/1/ports", json!([])), Err("lets out by every protocol".to_owned()));
        for block in [json!({"cidr": "0.0.0.0/0"}), json!({"cidr": "::/0", "except": ["10.0.0.0/8"]})] {
            let why = told("/spec/egress/1/to/0/ipBlock", block);
            assert_eq!(why, Err("lets out to link-local addresses".to_owned()));
        }
        assert_eq!(
            told("/spec/egress/1/to/0/ipBlock", json!({"cidr": "169.254.169.254/32"})),
            Ok(()),
            "a range that was granted"
        );
    }
}
