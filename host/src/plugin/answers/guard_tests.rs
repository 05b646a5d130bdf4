//! From any answer whatever to the objects that it becomes: judged, guarded, built and guarded again. What comes through is made of
//! the fields that a plugin may fill, and of what was granted; what does not is refused with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use substratus_crds::{Model, ModelSpec, ObjectRef, PluginUsed, Server, ServerSpec};

use super::*;
use crate::catalog::Catalog;
use crate::kinds::artifact;
use crate::kinds::artifact::plan::Run;
use crate::kinds::server;
use crate::kinds::shared::child::{Child, ChildKind, Owner};
use crate::kinds::shared::environment;
use crate::plugin::Grant;
use crate::plugin::types::{Cache, Claim, Metrics, Toleration};
use crate::reconcile::guard;

/// Node path of the Model's artifacts.
const ARTIFACTS: &str = "/bucket/aa";
const IMAGES: &str = "docker.io/granted/";
const KEYS: [&str; 4] = ["nvidia.com/gpu", "cloud.google.com/*", "spot", "runtimeclass/nvidia"];

fn grant() -> Grant {
    let scheduling = KEYS.map(str::to_owned).to_vec();
    Grant { images: vec![IMAGES.to_owned()], scheduling, ..Grant::default() }
}

/// Texts that somebody might try.
fn text() -> impl Strategy<Value = String> {
    let tricks = [
        "",
        "/",
        "..",
        "/..",
        "a/../b",
        "\0",
        "\n",
        "a\nb",
        "\u{1b}[31mred",
        "\u{202e}txet",
        "$(TOKEN)",
        "${x}",
        "{{x}}",
        "a b",
        "a;b",
        "a=b",
        "-",
        "--privileged",
        "%2e%2e",
        "/etc/passwd",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "/content",
        "/content/model",
        "/content/params.json",
        "/proc/self/environ",
        "/dev/shm",
        "http://169.254.169.254/",
        "LD_PRELOAD",
        "hostNetwork",
        "\u{feff}",
    ];
    prop_oneof![
        3 => prop::sample::select(tricks.to_vec()).prop_map(str::to_owned),
        2 => "[a-z0-9./:@_-]{0,24}",
        1 => "\\PC{0,16}",
        1 => Just("x".repeat(600)),
    ]
}

/// A text that is often what is wanted there.
fn mostly(good: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![6 => prop::sample::select(good.to_vec()).prop_map(str::to_owned), 1 => text()]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..3)
}

fn probe() -> impl Strategy<Value = Probe> {
    let seconds = || prop_oneof![6 => 1..60_u32, 1 => any::<u32>()];
    (mostly(&["/", "/health"]), seconds(), seconds(), seconds()).prop_map(
        |(path, period_seconds, timeout_seconds, failure_threshold)| Probe {
            path,
            period_seconds,
            timeout_seconds,
            failure_threshold,
        },
    )
}

fn size() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(prop_oneof![4 => 0..1_u64 << 40, 1 => any::<u64>()])
}

fn cache() -> impl Strategy<Value = Cache> {
    (mostly(&["hub", "torch"]), mostly(&["/models/cache", "/tmp/x"]), size()).prop_map(|(name, mount_path, size)| Cache {
        name,
        mount_path,
        size,
    })
}

fn a_container() -> impl Strategy<Value = Container> {
    let process = (
        mostly(&[
            "docker.io/granted/server:1",
            "granted/other@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ]),
        texts(),
        texts(),
        prop::collection::vec((mostly(&["A", "B_C", "HF_HOME"]), text()), 0..3),
        prop_oneof![6 => 1..=u16::MAX, 1 => Just(0)],
    );
    let probes = (prop::option::of(probe()), probe(), prop::option::of(probe()));
    let room = (size(), prop::collection::vec(cache(), 0..3), prop::option::of(any::<u32>()), size());
    let rest = (prop::option::of((text(), text())), texts(), any::<u32>(), any::<u32>(), text(), texts());
    (process, probes, room, rest).prop_map(|(process, probes, room, rest)| {
        let (image, command, args, env, port) = process;
        let (startup, readiness, liveness) = probes;
        let (shm, caches, cpu, memory) = room;
        let (metrics, apis, drain_seconds, grace_seconds, reason, warnings) = rest;
        let metrics = metrics.map(|(path, running)| Metrics { path, running: Some(running), waiting: None });
        let extensions = vec![("any".to_owned(), reason.clone())];
        Container {
            image,
            command,
            args,
            env,
            port,
            startup,
            readiness,
            liveness,
            shm,
            caches,
            cpu,
            memory,
            metrics,
            apis,
            drain_seconds,
            grace_seconds,
            reason,
            warnings,
            extensions,
        }
    })
}

fn a_placement() -> impl Strategy<Value = Placement> {
    let key = || mostly(&["nvidia.com/gpu", "cloud.google.com/gke-accelerator", "spot"]);
    let value = || mostly(&["nvidia-l4", "true", ""]);
    let toleration =
        (key(), mostly(&["Exists", "Equal"]), prop::option::of(value()), prop::option::of(mostly(&["NoSchedule", "NoExecute"])))
            .prop_map(|(key, operator, value, effect)| Toleration { key, operator, value, effect });
    let claim = prop_oneof![
        9 => Just(Vec::new()),
        1 => Just(vec![Claim { name: "all".into(), device_class: "admin.example".into(), count: 1, selectors: vec![] }]),
    ];
    let count = prop_oneof![6 => 0..9_u64, 1 => any::<u64>()];
    (
        prop::collection::vec((key(), value()), 0..3),
        prop::collection::vec(toleration, 0..3),
        prop::collection::vec((mostly(&["nvidia.com/gpu"]), count), 0..2),
        claim,
        prop::option::of(mostly(&["nvidia"])),
        text(),
    )
        .prop_map(|(node_selector, tolerations, limits, claims, runtime_class, reason)| Placement {
            node_selector,
            tolerations,
            limits,
            claims,
            runtime_class,
            vendor: Some(reason.clone()),
            gpu_memory: None,
            compute_capability: Some(reason.clone()),
            reason,
            alternatives: Vec::new(),
            extensions: Vec::new(),
        })
}

/// As the pipeline does it: a judge, then the guard.
fn let_through<T>(
    answer: T,
    judge: fn(T) -> Result<T, String>,
    guard: fn(&T, &Grant) -> Result<(), String>,
) -> Result<T, String> {
    let answer = judge(answer)?;
    guard(&answer, &grant()).map(|()| answer)
}

/// The children of a Server by these answers.
fn served(container: Option<Container>, placement: Option<Placement>) -> (Vec<Child>, Owner) {
    let spec = ServerSpec { model: Some(ObjectRef { name: "m".to_owned() }), ..ServerSpec::default() };
    let mut object = Server::new("s", spec);
    object.metadata.namespace = Some("team".to_owned());
    let observed = server::observe::Observed {
        owner: Owner::of(&object),
        server: Arc::new(object),
        model: None,
        deployment: None,
        pods: Vec::new(),
        nodes: Vec::new(),
        catalog: Arc::new(Catalog::default()),
        now: Timestamp::UNIX_EPOCH,
    };
    let artifacts = format!("tar:///{ARTIFACTS}");
    let answers = server::plan::Answers { artifacts, container, placement, ..server::plan::Answers::default() };
    let plan = server::plan::Plan { inputs: "inputs".to_owned(), answers, env: BTreeMap::new() };
    let place = environment::of("on-prem");
    let children = server::build::build(&observed, &place, &plan).unwrap();
    assert_eq!(children, server::build::build(&observed, &place, &plan).unwrap(), "the same answers, other bytes");
    (children, observed.owner)
}

/// The children of a Model that a worker loads.
fn loaded(placement: Placement) -> (Vec<Child>, Owner) {
    let mut object = Model::new("m", ModelSpec { source: Some("hf://org/name".to_owned()), ..ModelSpec::default() });
    object.metadata.namespace = Some("team".to_owned());
    let observed = artifact::observe::Observed {
        owner: Owner::of(&object),
        object: Arc::new(object),
        job: None,
        shards: None,
        publisher: None,
        pods: Vec::new(),
        base: None,
        dataset: None,
        nodes: Vec::new(),
        catalog: Arc::new(Catalog::default()),
        progress: None,
        pushing: None,
        siblings: Vec::new(),
        now: Timestamp::UNIX_EPOCH,
    };
    let plugin = PluginUsed { name: "p".to_owned(), version: "0.1.0".to_owned(), digest: "sha256:00".to_owned() };
    let plan = artifact::plan::Plan {
        inputs: "inputs".to_owned(),
        target: format!("tar:///{ARTIFACTS}"),
        is_published: false,
        run: Run::Load { plugin, grant: Grant::default(), config: Map::new() },
        env: BTreeMap::new(),
        placement: Some(placement),
        base: None,
        dataset: None,
        push: None,
        idle_policies: Vec::new(),
    };
    let (children, _) = artifact::build::build(&observed, &environment::of("on-prem"), &plan).unwrap();
    (children, observed.owner)
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str()).collect()
}

/// Nothing but these members.
fn only(value: &Value, allowed: &[&str], what: &str) -> Result<(), TestCaseError> {
    let more: Vec<_> = keys(value).into_iter().filter(|key| !allowed.contains(key)).collect();
    prop_assert!(more.is_empty(), "{what} has {more:?}: {value}");
    Ok(())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn granted(key: &str) -> bool {
    KEYS.contains(&key) || key.starts_with("cloud.google.com/")
}

/// What children may be, whoever answered what.
fn stays_inside(children: &[Child], owner: &Owner, by_adapter: bool) -> Result<(), TestCaseError> {
    prop_assert_eq!(guard::children(children, owner, &[ARTIFACTS.to_owned()]), Ok(()));
    for child in children {
        let object = &child.object;
        prop_assert_eq!(&object["metadata"]["namespace"], "team");
        only(&object["metadata"], &["name", "namespace", "labels", "annotations", "ownerReferences"], "metadata")?;
        match child.kind {
            ChildKind::ServiceAccount => only(object, &["apiVersion", "kind", "metadata"], "an account")?,
            ChildKind::ConfigMap => only(object, &["apiVersion", "kind", "metadata", "data"], "a ConfigMap")?,
            ChildKind::Service => {
                let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP", "targetPort": "http-serve"}]);
                prop_assert_eq!(&object["spec"], &json!({"selector": {"server": "s", "role": "run"}, "ports": ports}));
            }
            ChildKind::NetworkPolicy => {}
            ChildKind::Deployment => {
                prop_assert!(serde_json::from_value::<Deployment>(object.clone()).is_ok());
                only(&object["spec"], &["selector", "strategy", "template"], "a Deployment")?;
                prop_assert_eq!(&object["spec"]["selector"], &json!({"matchLabels": {"server": "s"}}));
                pod(&object["spec"]["template"], "model-server", by_adapter)?;
            }
            ChildKind::Job => {
                prop_assert!(serde_json::from_value::<Job>(object.clone()).is_ok());
                only(&object["spec"], &["backoffLimit", "podFailurePolicy", "podReplacementPolicy", "template"], "a Job")?;
                pod(&object["spec"]["template"], "modeller", false)?;
            }
            ChildKind::Secret | ChildKind::Pod => return Err(TestCaseError::fail(format!("a {:?}", child.kind))),
        }
    }
    Ok(())
}

fn pod(template: &Value, account: &str, by_adapter: bool) -> Result<(), TestCaseError> {
    let spec = &template["spec"];
    let allowed = [
        "containers",
        "volumes",
        "serviceAccountName",
        "automountServiceAccountToken",
        "restartPolicy",
        "nodeSelector",
        "tolerations",
        "runtimeClassName",
        "securityContext",
        "terminationGracePeriodSeconds",
    ];
    only(spec, &allowed, "a pod")?;
    prop_assert_eq!(&spec["serviceAccountName"], account);
    prop_assert!(keys(&spec["nodeSelector"]).into_iter().all(granted), "{}", spec["nodeSelector"]);
    for toleration in list(&spec["tolerations"]) {
        prop_assert!(toleration["key"].as_str().is_some_and(granted), "{toleration}");
    }
    prop_assert!(spec["runtimeClassName"].is_null() || spec["runtimeClassName"] == "nvidia", "{}", spec["runtimeClassName"]);
    let grace = spec["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    prop_assert!((1..=3600).contains(&grace), "{grace}");
    for volume in list(&spec["volumes"]) {
        only(volume, &["name", "hostPath", "emptyDir", "configMap", "projected"], "a volume")?;
        let path = volume["hostPath"]["path"].as_str();
        prop_assert!(path.is_none_or(|path| path == ARTIFACTS), "{volume}");
    }
    let containers: Vec<&Value> = list(&spec["containers"]).collect();
    prop_assert_eq!(containers.len(), 1);
    for container in containers {
        self::container(container, by_adapter)?;
    }
    Ok(())
}

fn container(container: &Value, by_adapter: bool) -> Result<(), TestCaseError> {
    let allowed = [
        "name",
        "image",
        "command",
        "args",
        "env",
        "ports",
        "resources",
        "volumeMounts",
        "securityContext",
        "startupProbe",
        "readinessProbe",
        "livenessProbe",
        "lifecycle",
        "terminationMessagePolicy",
        "imagePullPolicy",
    ];
    only(container, &allowed, "a container")?;
    let security = &container["securityContext"];
    if by_adapter {
        let image = container["image"].as_str().unwrap_or_default();
        prop_assert!(image.trim_start_matches("docker.io/").starts_with("granted/"), "{image}");
        prop_assert!(!image.contains(char::is_whitespace) && !image.contains(".."), "{image}");
        prop_assert!(security["allowPrivilegeEscalation"] == false && security["privileged"].is_null(), "{security}");
    }
    prop_assert!(security["capabilities"]["add"].is_null(), "{security}");
    for variable in list(&container["env"]) {
        only(variable, &["name", "value"], "a variable")?;
        let name = variable["name"].as_str().unwrap_or_default();
        prop_assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name:?}");
    }
    for limit in ["limits", "requests"] {
        let of_pod = |key: &&str| matches!(*key, "cpu" | "memory" | "ephemeral-storage");
        for key in keys(&container["resources"][limit]).into_iter().filter(|key| !of_pod(key)) {
            prop_assert!(granted(key), "{key}");
            let number = container["resources"][limit][key].as_str().and_then(|number| number.parse::<u64>().ok());
            prop_assert!(number.is_some_and(|number| number <= MAX_DEVICES), "{}", container["resources"]);
        }
    }
    let mut seen = BTreeSet::new();
    for mount in list(&container["volumeMounts"]) {
        only(mount, &["name", "mountPath", "subPath", "readOnly"], "a mount")?;
        let path = mount["mountPath"].as_str().unwrap_or_default();
        prop_assert!(path.starts_with('/') && path != "/" && !path.contains("..") && !path.contains('\0'), "{path:?}");
        prop_assert!(seen.insert(path.to_owned()), "{path} is mounted twice");
        if mount["name"].as_str().is_some_and(|name| name.starts_with("cache-")) {
            let ours = ["/content", "/etc", "/proc", "/sys", "/dev", "/bin", "/sbin", "/usr", "/lib", "/var/run/secrets"];
            prop_assert!(!ours.contains(&path.trim_end_matches('/')) && !path.starts_with("/content/"), "{path}");
            prop_assert!(!path.starts_with("/var/run/secrets/") && !path.starts_with("/proc/"), "{path}");
        }
    }
    for name in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let probe = &container[name];
        only(probe, &["httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"], name)?;
        only(&probe["httpGet"], &["path", "port"], name)?;
        prop_assert!(probe.is_null() || probe["httpGet"]["path"].as_str().is_some_and(|path| path.starts_with('/')), "{probe}");
    }
    only(&container["lifecycle"], &["preStop"], "a lifecycle")?;
    only(&container["lifecycle"]["preStop"], &["sleep"], "a lifecycle")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_answer_of_an_adapter_leaves_the_allowed_objects_and_fields(answer in a_container()) {
        match let_through(answer, super::container, guard::container) {
            Ok(answer) => {
                let (children, owner) = served(Some(answer), None);
                stays_inside(&children, &owner, true)?;
            }
            // In one line that can be shown to anybody.
            Err(why) => prop_assert!(!why.is_empty() && !why.contains(char::is_control), "{why:?}"),
        }
    }

    #[test]
    fn no_answer_of_a_policy_leaves_the_allowed_objects_and_fields(answer in a_placement()) {
        match let_through(answer, super::placement, guard::placement) {
            Ok(answer) => {
                let (children, owner) = served(None, Some(answer.clone()));
                stays_inside(&children, &owner, false)?;
                let (children, owner) = loaded(answer);
                stays_inside(&children, &owner, false)?;
            }
            Err(why) => prop_assert!(!why.is_empty() && !why.contains(char::is_control), "{why:?}"),
        }
    }
}

/// The property says something only where some answers come through and some do not.
#[test]
fn good_answers_come_through_and_bad_ones_do_not() {
    let probe = || Probe { path: "/health".into(), period_seconds: 5, timeout_seconds: 1, failure_threshold: 3 };
    let good = || Container {
        image: "granted/server:1".into(),
        command: vec![],
        args: vec![],
        env: vec![("A".into(), "b".into())],
        port: 8000,
        startup: Some(probe()),
        readiness: probe(),
        liveness: None,
        shm: Some(1 << 30),
        caches: vec![Cache { name: "hub".into(), mount_path: "/models/cache".into(), size: None }],
        cpu: Some(4),
        memory: Some(1 << 34),
        metrics: None,
        apis: vec![],
        drain_seconds: u32::MAX,
        grace_seconds: u32::MAX,
        reason: "good".into(),
        warnings: vec![],
        extensions: vec![],
    };
    let through = |container| let_through(container, super::container, guard::container);
    let (children, owner) = served(Some(through(good()).unwrap()), None);
    stays_inside(&children, &owner, true).unwrap();
    let cache = |name: &str, path: &str| Cache { name: name.into(), mount_path: path.into(), size: None };
    for (bad, words) in [
        (Container { image: "granted/server:1 --privileged".into(), ..good() }, "no image's name"),
        (Container { image: "granted/../evil/miner:1".into(), ..good() }, "no image's name"),
        (Container { image: "evil/miner:1".into(), ..good() }, "spec.grants.images"),
        (Container { caches: vec![cache("a", "/x"), cache("b", "/x")], ..good() }, "mount path `/x` is there twice"),
        (Container { caches: vec![cache("a", "/x"), cache("a", "/y")], ..good() }, "name of a cache `a` is there twice"),
        (Container { shm: Some(u64::MAX), ..good() }, "18446744073709551615 bytes of memory or scratch space"),
        (Container { memory: Some(u64::MAX), ..good() }, "is the most"),
        (Container { cpu: Some(u32::MAX), ..good() }, "4294967295 cores"),
        (Container { env: vec![("A".into(), "b".into()), ("A".into(), "c".into())], ..good() }, "`A` is there twice"),
    ] {
        let why = through(bad).unwrap_err();
        assert!(why.contains(words), "{why}");
    }

    let good = || Placement {
        node_selector: vec![("cloud.google.com/gke-accelerator".into(), "nvidia-l4".into())],
        tolerations: vec![Toleration {
            key: "spot".into(),
            operator: "Exists".into(),
            value: None,
            effect: Some("NoSchedule".into()),
        }],
        limits: vec![("nvidia.com/gpu".into(), 8)],
        claims: vec![],
        runtime_class: Some("nvidia".into()),
        vendor: None,
        gpu_memory: None,
        compute_capability: None,
        reason: "good".into(),
        alternatives: vec![],
        extensions: vec![],
    };
    let through = |placement| let_through(placement, super::placement, guard::placement);
    let (children, owner) = loaded(through(good()).unwrap());
    stays_inside(&children, &owner, false).unwrap();
    let gpus = |count| ("nvidia.com/gpu".to_owned(), count);
    for (bad, words) in [
        (Placement { node_selector: vec![("spot".into(), "a b".into())], ..good() }, "`a b` is none that Kubernetes takes"),
        (Placement { node_selector: vec![("spot".into(), "x".repeat(64))], ..good() }, "none that Kubernetes takes"),
        (Placement { node_selector: vec![("a b/c".into(), String::new())], ..good() }, "none that Kubernetes takes"),
        (Placement { limits: vec![gpus(u64::MAX)], ..good() }, "18446744073709551615 of `nvidia.com/gpu`"),
        (Placement { limits: vec![gpus(1), gpus(2)], ..good() }, "resource `nvidia.com/gpu` is there twice"),
        (
            Placement { runtime_class: Some("privileged".into()), ..good() },
            "add `runtimeclass/privileged` to spec.grants.scheduling",
        ),
        (Placement { runtime_class: Some("../x".into()), ..good() }, "none that Kubernetes takes"),
    ] {
        let why = through(bad).unwrap_err();
        assert!(why.contains(words), "{why}");
    }
}
