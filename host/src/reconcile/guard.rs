//! Decides whether an answer or a child may be used. Knows nothing about clients, clocks or Wasm: same input, same verdict.
//! Answers of our own plugins pass here like any other's.

mod policy;

use serde_json::Value;

use crate::catalog::repository;
use crate::kinds::image::job;
use crate::kinds::shared::child::{Child, ChildKind, Owner, Policy};
use crate::kinds::shared::{content, names};
use crate::plugin::Grant;
use crate::plugin::types::{Container, Placement};

/// Paths that engines may have scratch volumes at; anything else could hide what the image brings.
const FORBIDDEN_MOUNTS: &[&str] = &[
    "/",
    "/content",
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/dev/shm",
    "/bin",
    "/sbin",
    "/usr",
    "/lib",
    "/run",
    "/var",
    "/var/run",
    "/run/secrets",
    "/var/run/secrets",
];
/// The same of everything below.
const FORBIDDEN_BELOW: &[&str] = &["/content/", "/proc/", "/sys/", "/run/secrets/", "/var/run/secrets/"];

/// A GPU policy's answer: only keys that the administrator granted.
pub fn placement(placement: &Placement, grant: &Grant) -> Result<(), String> {
    let selector = placement.node_selector.iter().map(|(key, _)| ("node selector", key));
    let tolerations = placement.tolerations.iter().map(|toleration| ("toleration", &toleration.key));
    let limits = placement.limits.iter().map(|(key, _)| ("resource", key));
    for (what, key) in selector.chain(tolerations).chain(limits) {
        if !granted_key(key, &grant.scheduling) {
            return Err(format!(
                "sets the {what} `{key}`, which it has no grant for; add it to spec.grants.scheduling of the Plugin, within the ceiling of its PluginSource"
            ));
        }
    }
    if let Some(class) = placement.runtime_class.as_ref().filter(|class| !granted_key(&runtime_class(class), &grant.scheduling)) {
        return Err(format!(
            "sets the runtime class `{class}`, which it has no grant for; add `{}` to spec.grants.scheduling of the Plugin, within the ceiling of its PluginSource",
            runtime_class(class)
        ));
    }
    if !placement.claims.is_empty() {
        return Err("asks for device claims, which this version does not make".to_owned());
    }
    Ok(())
}

/// How a grant names a runtime class among scheduling keys.
fn runtime_class(name: &str) -> String {
    format!("runtimeclass/{name}")
}

fn granted_key(key: &str, granted: &[String]) -> bool {
    !key.is_empty()
        && granted.iter().any(|pattern| match pattern.strip_suffix("/*") {
            Some(prefix) => key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')),
            None => pattern == key,
        })
}

/// A server adapter's answer: only images that the administrator granted, only values that a pod can have.
pub fn container(container: &Container, grant: &Grant) -> Result<(), String> {
    if !granted_image(&container.image, &grant.images) {
        return Err(format!(
            "runs the image `{}`, which it has no grant for; add its repository to spec.grants.images of the Plugin, within the ceiling of its PluginSource",
            container.image
        ));
    }
    if container.port == 0 {
        return Err("answers with port 0".to_owned());
    }
    for cache in &container.caches {
        let path = cache.mount_path.trim_end_matches('/');
        let path = if path.is_empty() { "/" } else { path };
        let forbidden = !path.starts_with('/') || path.contains("..") || FORBIDDEN_MOUNTS.contains(&path);
        if forbidden || FORBIDDEN_BELOW.iter().any(|below| path.starts_with(below)) {
            return Err(format!("wants scratch space at `{}`, where none may be", cache.mount_path));
        }
        let label =
            !cache.name.is_empty() && cache.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !label || cache.name.len() > 40 {
            return Err(format!("names its scratch space `{}`; lower-case letters, digits and '-' are taken", cache.name));
        }
    }
    let probes = [container.startup.as_ref(), Some(&container.readiness), container.liveness.as_ref()];
    if let Some(probe) = probes.iter().flatten().find(|probe| !probe.path.starts_with('/')) {
        return Err(format!("probes the path `{}`, which does not start with '/'", probe.path));
    }
    match container.env.iter().find(|(name, _)| name.is_empty() || name.contains('=')) {
        Some((name, _)) => Err(format!("sets the environment variable `{name}`, which is no name")),
        None => Ok(()),
    }
}

/// Prefix match on whole path segments: `vllm/` grants `vllm/vllm-openai`, `vllm/vllm-openai` grants itself alone.
fn granted_image(image: &str, granted: &[String]) -> bool {
    let image = repository(image);
    granted.iter().any(|pattern| match pattern.strip_suffix('/') {
        Some(prefix) => image.strip_prefix(&repository(prefix)).is_some_and(|rest| rest.starts_with('/')),
        None => image == repository(pattern),
    })
}

/// Children before they are applied: whatever built them, none may be more than a child of its owner can be.
/// `buckets` are the node paths of artifacts that this object may see.
pub fn children(children: &[Child], owner: &Owner, buckets: &[String]) -> Result<(), String> {
    children
        .iter()
        .try_for_each(|child| one(child, owner, buckets).map_err(|why| format!("{:?} `{}`: {why}", child.kind, child.name)))
}

fn one(child: &Child, owner: &Owner, buckets: &[String]) -> Result<(), String> {
    let namespace = child.object.pointer("/metadata/namespace").and_then(Value::as_str);
    if namespace != Some(owner.namespace.as_str()) {
        return Err("lies in another namespace than its owner".to_owned());
    }
    let pod = match child.kind {
        // It is there already, and nothing of this is written.
        _ if child.policy == Policy::Adopt => return Ok(()),
        ChildKind::Job | ChildKind::Deployment => child.object.pointer("/spec/template/spec"),
        ChildKind::Pod => child.object.pointer("/spec"),
        ChildKind::Secret => return secret_is_empty(child),
        ChildKind::NetworkPolicy => return policy::confines(child, owner),
        ChildKind::ServiceAccount | ChildKind::ConfigMap | ChildKind::Service => return Ok(()),
    };
    let pod = pod.ok_or_else(|| "has no pod".to_owned())?;
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod.get(key).and_then(Value::as_bool) == Some(true) {
            return Err(format!("asks for {key}"));
        }
    }
    let account = pod.get("serviceAccountName").and_then(Value::as_str).unwrap_or_default();
    let builds = builds(child);
    let is_role = if builds { account == names::CONTAINER_BUILDER } else { ROLES.contains(&account) };
    if !is_role {
        return Err(format!("runs as service account `{account}`"));
    }
    list(pod, "volumes").try_for_each(|volume| volume_is_safe(volume, if builds { &[] } else { buckets }))?;
    let mut containers = list(pod, "containers").chain(list(pod, "initContainers"));
    if builds {
        return builder_is_safe(pod);
    }
    containers.try_for_each(container_is_safe)
}

/// Service accounts of pods that run.
const ROLES: [&str; 4] = [names::DATA_LOADER, names::MODELLER, names::MODEL_SERVER, names::NOTEBOOK];

/// A Job whose pods build an image.
fn builds(child: &Child) -> bool {
    let role = child.object.pointer("/spec/template/metadata/labels/role").and_then(Value::as_str);
    child.kind == ChildKind::Job && role == Some(names::BUILDS)
}

/// The one pod that may have more than others, and what that is: one container of it may be told the ids of its own user
/// namespace.
fn builder_is_safe(pod: &Value) -> Result<(), String> {
    if pod.get("automountServiceAccountToken").and_then(Value::as_bool) != Some(false) {
        return Err("builds with a token".to_owned());
    }
    list(pod, "initContainers").try_for_each(container_is_safe)?;
    for container in list(pod, "containers") {
        let security = container.get("securityContext").unwrap_or(&Value::Null);
        let user = security.get("runAsUser").and_then(Value::as_i64);
        let is_root = user.is_none_or(|user| user == 0) || security.get("runAsNonRoot").and_then(Value::as_bool) != Some(true);
        if is_root || security.get("privileged").and_then(Value::as_bool) == Some(true) {
            return Err("builds as root of the node".to_owned());
        }
        let added = list(security.get("capabilities").unwrap_or(&Value::Null), "add");
        let drops = list(security.get("capabilities").unwrap_or(&Value::Null), "drop").any(|name| name == "ALL");
        let known = |name: &Value| name.as_str().is_some_and(|name| job::CAPABILITIES.contains(&name));
        if !drops || !added.clone().all(known) {
            return Err("builds with more capabilities than it takes".to_owned());
        }
    }
    Ok(())
}

/// A Secret holds what `apply` puts there at random, and is of a type that gives no rights.
fn secret_is_empty(child: &Child) -> Result<(), String> {
    let opaque = child.object.get("type").and_then(Value::as_str) == Some("Opaque");
    let empty = ["data", "stringData"].iter().all(|field| child.object.get(field).is_none_or(Value::is_null));
    let named = matches!(child.policy, Policy::Token { .. });
    if opaque && empty && named { Ok(()) } else { Err("is no token".to_owned()) }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + Clone {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn volume_is_safe(volume: &Value, buckets: &[String]) -> Result<(), String> {
    if let Some(driver) = volume.pointer("/csi/driver").filter(|driver| *driver != content::DRIVER) {
        return Err(format!("mounts a volume of the driver {driver}"));
    }
    let Some(path) = volume.pointer("/hostPath/path").and_then(Value::as_str) else { return Ok(()) };
    let below = buckets
        .iter()
        .any(|bucket| path.strip_prefix(bucket.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    if !below || path.split('/').any(|segment| segment == "..") {
        return Err(format!("mounts the node's `{path}`, which is no artifact of this object"));
    }
    Ok(())
}

fn container_is_safe(container: &Value) -> Result<(), String> {
    let Some(security) = container.get("securityContext") else { return Ok(()) };
    let is = |key: &str| security.get(key).and_then(Value::as_bool) == Some(true);
    if is("privileged") || is("allowPrivilegeEscalation") {
        return Err("asks for privileges".to_owned());
    }
    match security.pointer("/capabilities/add") {
        Some(_) => Err("adds capabilities".to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(images: &[&str], scheduling: &[&str]) -> Grant {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Grant { images: own(images), scheduling: own(scheduling), ..Grant::default() }
    }

    #[test]
    fn image_prefix_ends_at_a_segment() {
        let grant = grant(&["docker.io/vllm/", "ghcr.io/ggml-org/llama.cpp"], &[]);
        for (image, allowed) in [
            ("vllm/vllm-openai:v1", true),
            ("docker.io/vllm/vllm-openai@sha256:00", true),
            ("ghcr.io/ggml-org/llama.cpp:server", true),
            ("vllmevil/image", false),
            ("ghcr.io/ggml-org/llama.cpp-evil", false),
            ("ghcr.io/vllm/vllm-openai", false),
            ("", false),
        ] {
            assert_eq!(granted_image(image, &grant.images), allowed, "{image}");
        }
        assert!(!granted_image("any", &[]));
    }

    #[test]
    fn scheduling_keys_are_exact_or_of_a_prefix() {
        let granted = ["nvidia.com/gpu".to_owned(), "cloud.google.com/*".to_owned()];
        assert!(granted_key("nvidia.com/gpu", &granted));
        assert!(granted_key("cloud.google.com/gke-accelerator", &granted));
        assert!(!granted_key("cloud.google.com.evil/x", &granted));
        assert!(!granted_key("node-role.kubernetes.io/control-plane", &granted));
    }

    /// A Job as `build` makes them, and what is put into its pod.
    fn job(pod: &Value, container: &Value) -> Child {
        let mut object = serde_json::json!({"metadata": {"namespace": "team", "name": "m-modeller"}, "spec": {"template": {"spec": {
            "serviceAccountName": "modeller",
            "containers": [{"name": "model", "image": "i", "securityContext": {"allowPrivilegeEscalation": false}}]}}}});
        let spec = &mut object["spec"]["template"]["spec"];
        for (into, what) in [("/", pod), ("/containers/0", container)] {
            let into = spec.pointer_mut(into.trim_end_matches('/')).and_then(Value::as_object_mut).unwrap();
            into.extend(what.as_object().unwrap().clone());
        }
        Child { kind: ChildKind::Job, name: "m-modeller".to_owned(), policy: Policy::Own, object }
    }

    fn owner(namespace: &str) -> Owner {
        Owner {
            namespace: namespace.to_owned(),
            reference: k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference::default(),
        }
    }

    #[test]
    fn children_that_ask_for_more_than_a_child_may_are_refused() {
        use serde_json::json;
        let none = json!({});
        assert_eq!(children(&[job(&none, &none)], &owner("team"), &[]), Ok(()));
        assert!(children(&[job(&none, &none)], &owner("other"), &[]).is_err(), "another namespace");
        for pod in [
            json!({"hostNetwork": true}),
            json!({"hostPID": true}),
            json!({"hostIPC": true}),
            json!({"serviceAccountName": "substratus"}),
            json!({"serviceAccountName": null}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/var/run"}}]}),
            json!({"volumes": [{"name": "v", "csi": {"driver": "secrets-store.csi.k8s.io"}}]}),
            json!({"initContainers": [{"name": "i", "securityContext": {"privileged": true}}]}),
        ] {
            assert!(children(&[job(&pod, &none)], &owner("team"), &[]).is_err(), "{pod}");
        }
        for security in [
            json!({"privileged": true}),
            json!({"allowPrivilegeEscalation": true}),
            json!({"capabilities": {"add": ["SYS_ADMIN"]}}),
        ] {
            let container = json!({ "securityContext": security });
            assert!(children(&[job(&none, &container)], &owner("team"), &[]).is_err(), "{container}");
        }
        let secret = |object: Value, policy: Policy| Child { kind: ChildKind::Secret, name: "t".to_owned(), policy, object };
        let token = || Policy::Token { key: "token" };
        let of = |more: &Value| {
            let mut object = json!({"metadata": {"namespace": "team"}, "type": "Opaque"});
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            object
        };
        assert_eq!(children(&[secret(of(&none), token())], &owner("team"), &[]), Ok(()));
        for (object, policy) in [
            (of(&json!({"data": {"token": "AA=="}})), token()),
            (of(&json!({"type": "kubernetes.io/service-account-token"})), token()),
            (of(&none), Policy::Own),
        ] {
            assert!(children(&[secret(object.clone(), policy)], &owner("team"), &[]).is_err(), "{object}");
        }
    }

    #[test]
    fn a_builder_has_what_it_takes_and_nobody_else_has() {
        use serde_json::json;
        let security = json!({"runAsUser": 1000, "runAsNonRoot": true, "allowPrivilegeEscalation": true,
            "capabilities": {"drop": ["ALL"], "add": ["SETUID", "SETGID"]}});
        let builder = |role: &str, pod: &Value, security: &Value| {
            let mut child = job(pod, &json!({"securityContext": security}));
            child.object["spec"]["template"]["metadata"]["labels"]["role"] = json!(role);
            children(&[child], &owner("team"), &["/bucket/aa".to_owned()])
        };
        let pod = json!({"serviceAccountName": "container-builder", "automountServiceAccountToken": false});
        assert_eq!(builder("build", &pod, &security), Ok(()));
        assert!(builder("run", &pod, &security).is_err(), "a pod that runs");
        let runs = json!({"serviceAccountName": "modeller", "automountServiceAccountToken": false});
        assert!(
            builder("run", &runs, &security).is_err() && builder("build", &runs, &security).is_err(),
            "another role's account"
        );
        for (key, value) in [
            ("automountServiceAccountToken", json!(true)),
            ("automountServiceAccountToken", Value::Null),
            ("hostNetwork", json!(true)),
            ("volumes", json!([{"name": "v", "hostPath": {"path": "/bucket/aa"}}])),
            ("initContainers", json!([{"name": "git-clone", "securityContext": security}])),
        ] {
            let mut more = pod.clone();
            more[key] = value;
            assert!(builder("build", &more, &security).is_err(), "{key}: {more}");
        }
        for (key, value) in [
            ("runAsUser", json!(0)),
            ("runAsUser", Value::Null),
            ("runAsNonRoot", Value::Null),
            ("privileged", json!(true)),
            ("capabilities", json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]})),
            ("capabilities", json!({"add": ["SETUID"]})),
            ("capabilities", Value::Null),
        ] {
            let mut more = security.clone();
            more[key] = value;
            assert!(builder("build", &pod, &more).is_err(), "{key}: {more}");
        }
    }

    #[test]
    fn host_paths_outside_the_artifacts_are_refused() {
        let buckets = ["/bucket/aa".to_owned()];
        let volume = |path: &str| serde_json::json!({"name": "v", "hostPath": {"path": path}});
        assert!(volume_is_safe(&volume("/bucket/aa/g2"), &buckets).is_ok());
        for path in ["/bucket/aab", "/etc", "/bucket/aa/../bb", "/"] {
            assert!(volume_is_safe(&volume(path), &buckets).is_err(), "{path}");
        }
    }
}
