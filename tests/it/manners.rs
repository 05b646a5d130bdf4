//! What administrators are promised about the operator: it asks for little, runs confined, and its manifests, settings and
//! endpoints fit together. `manners/api.rs` proves the same before a real API server.

mod api;
mod namespaces;
mod process;
mod standby;

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use clap::{Args as _, Parser};
use serde_json::{Value, json};
use substratus::admin::{self, Admin, Readiness};
use substratus::metrics::Metrics;
use substratus::settings::{OperatorSettings, Settings};
use substratus::telemetry::{self, Format};
use substratus_tests::install;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: OperatorSettings,
}

/// Loopback is reached directly, whatever proxy the machine has.
fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

/// The base, as JSON.
fn base() -> Result<Vec<Value>> {
    install::objects(&install::deploy("base"))?.into_iter().map(|object| Ok(serde_json::to_value(object)?)).collect()
}

fn find(objects: &[Value], kind: &str, name: &str) -> Result<Value> {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.cloned().with_context(|| format!("no {kind} {name}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> BTreeSet<&str> {
    list(value).iter().filter_map(Value::as_str).collect()
}

fn pod(objects: &[Value]) -> Result<Value> {
    Ok(find(objects, "Deployment", "substratus")?["spec"]["template"]["spec"].clone())
}

/// The Deployment's arguments, read by the operator's own parser.
fn settings(pod: &Value) -> Result<Settings> {
    let container = &pod["containers"][0];
    let arguments = list(&container["args"]).iter().filter_map(Value::as_str);
    // The first argument is the subcommand, which stands where a program's name would.
    let image = list(&container["env"]).iter().find(|entry| entry["name"] == "OPERATOR_IMAGE").context("no image")?;
    let image = format!("--operator-image={}", image["value"].as_str().unwrap_or_default());
    Ok(Line::try_parse_from(arguments.chain([image.as_str()]))?.settings.check()?)
}

#[test]
fn rights_are_few_and_secrets_stay_at_home() -> Result<()> {
    let objects = base()?;
    let cluster = find(&objects, "ClusterRole", "substratus")?;
    let own = find(&objects, "Role", "substratus")?;
    for rule in list(&cluster["rules"]).iter().chain(list(&own["rules"])) {
        let words: BTreeSet<_> = ["apiGroups", "resources", "verbs"].iter().flat_map(|part| texts(&rule[*part])).collect();
        for word in ["*", "escalate", "bind", "impersonate", "deletecollection", "roles", "clusterroles", "pods/exec", "pods/log"]
        {
            ensure!(!words.contains(word), "{rule} has {word}");
        }
    }
    let tokens: Vec<_> = list(&cluster["rules"]).iter().filter(|rule| texts(&rule["resources"]).contains("secrets")).collect();
    ensure!(tokens.len() == 1 && texts(&tokens[0]["verbs"]) == BTreeSet::from(["create"]), "{tokens:?}");
    let secrets: Vec<_> = list(&own["rules"]).iter().filter(|rule| texts(&rule["resources"]).contains("secrets")).collect();
    ensure!(secrets.len() == 1 && texts(&secrets[0]["verbs"]) == BTreeSet::from(["get"]), "{secrets:?}");
    let pods = list(&cluster["rules"]).iter().find(|rule| texts(&rule["resources"]).contains("pods")).context("pods")?;
    ensure!(texts(&pods["verbs"]) == BTreeSet::from(["create", "delete", "get", "list", "watch"]), "{pods}");
    Ok(())
}

#[test]
fn every_kind_can_be_watched_and_answered_and_no_plugin_written() -> Result<()> {
    let role = find(&base()?, "ClusterRole", "substratus")?;
    let verbs = |resource: &str| -> BTreeSet<&str> {
        let rules = list(&role["rules"]).iter().filter(|rule| texts(&rule["resources"]).contains(resource));
        rules.flat_map(|rule| texts(&rule["verbs"])).collect()
    };
    for crd in substratus_crds::crds() {
        let plural = crd.spec.names.plural;
        let mut wanted = BTreeSet::from(["get", "list", "watch"]);
        // Specs are the users', but for `image` where one asked for a build, and for `suspend` of a Notebook.
        if !plural.starts_with("plugin") {
            wanted.insert("patch");
        }
        ensure!(verbs(&plural) == wanted, "{plural}: {:?}", verbs(&plural));
        let answered = crd.spec.versions.iter().any(|version| version.subresources.iter().any(|sub| sub.status.is_some()));
        ensure!(verbs(&format!("{plural}/status")).contains("patch") == answered, "{plural}");
    }
    Ok(())
}

#[test]
fn the_pod_is_restricted() -> Result<()> {
    let objects = base()?;
    let pod = pod(&objects)?;
    ensure!(
        pod["automountServiceAccountToken"] == false
            && find(&objects, "ServiceAccount", "substratus")?["automountServiceAccountToken"] == false
    );
    ensure!(
        pod["securityContext"]["runAsNonRoot"] == true && pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    );
    for container in list(&pod["containers"]) {
        let context = &container["securityContext"];
        ensure!(context["readOnlyRootFilesystem"] == true && context["allowPrivilegeEscalation"] == false, "{context}");
        ensure!(context["capabilities"] == json!({"drop": ["ALL"]}), "{context}");
        ensure!(container["resources"]["limits"]["memory"].is_string());
    }
    for volume in list(&pod["volumes"]) {
        ensure!(volume["emptyDir"]["sizeLimit"].is_string() || volume["projected"].is_object(), "{volume}");
    }
    let labels = find(&objects, "Namespace", "substratus")?["metadata"]["labels"].clone();
    ensure!(labels["pod-security.kubernetes.io/enforce"] == "restricted");
    Ok(())
}

/// What a plugin could want is in no process that runs one.
#[test]
fn the_container_that_runs_plugins_has_nothing_but_its_socket() -> Result<()> {
    let pod = pod(&base()?)?;
    let [operator, sandbox] = list(&pod["containers"]) else { anyhow::bail!("not two containers: {pod}") };
    ensure!(operator["image"] == sandbox["image"] && operator["name"] == "operator" && sandbox["name"] == "sandbox");
    let names = |container: &Value| -> Vec<String> {
        list(&container["volumeMounts"]).iter().map(|mount| mount["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    ensure!(names(sandbox) == ["sandbox"], "{sandbox}");
    ensure!(sandbox["env"].is_null() && sandbox["envFrom"].is_null() && sandbox["ports"].is_null(), "{sandbox}");
    ensure!(pod["shareProcessNamespace"].is_null() && pod["hostPID"].is_null() && pod["hostIPC"].is_null());
    // The operator may not change what lies there, and both mean the same socket.
    let mount = list(&operator["volumeMounts"]).iter().find(|mount| mount["name"] == "sandbox").context("no socket")?;
    ensure!(mount["readOnly"] == true && mount["mountPath"] == sandbox["volumeMounts"][0]["mountPath"]);
    let setting = list(&operator["env"]).iter().find(|entry| entry["name"] == "SANDBOX").context("no setting")?;
    let socket = setting["value"].as_str().context("a path")?;
    let argument = format!("--socket={socket}");
    ensure!(texts(&sandbox["args"]).contains(argument.as_str()), "{sandbox}");
    for probe in ["startupProbe", "livenessProbe"] {
        let command = texts(&sandbox[probe]["exec"]["command"]);
        ensure!(command.contains(argument.as_str()) && command.contains("--check"), "{probe}: {command:?}");
    }
    Ok(())
}

#[test]
fn arguments_and_variables_are_settings() -> Result<()> {
    let pod = pod(&base()?)?;
    ensure!(settings(&pod)?.lease.as_deref() == Some("substratus"), "the Role names this Lease");
    let known = OperatorSettings::augment_args(clap::Command::new("operator"));
    let known: BTreeSet<_> = known.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    for entry in list(&pod["containers"][0]["env"]) {
        let name = entry["name"].as_str().unwrap_or_default();
        ensure!(known.contains(name), "no setting is called {name}");
    }
    for overlay in ["overlays/local", "overlays/gcp", "overlays/s3", "overlays/azure", "overlays/namespaces"] {
        let text = fs::read_to_string(install::deploy(overlay).join("kustomization.yaml"))?;
        let overlay: Value = serde_saphyr::from_str(&text)?;
        let literals = texts(&overlay["configMapGenerator"][0]["literals"]);
        ensure!(!literals.is_empty());
        for (name, _) in literals.iter().filter_map(|literal| literal.split_once('=')) {
            ensure!(known.contains(name), "no setting is called {name}");
        }
    }
    // Variables of the first operator's ConfigMap.
    for name in ["CLOUD", "CLUSTER_NAME", "ARTIFACT_BUCKET_URL", "REGISTRY_URL", "PRINCIPAL", "PROJECT_ID", "CLUSTER_LOCATION"] {
        ensure!(known.contains(name), "{name} is gone");
    }
    Ok(())
}

#[test]
fn ports_services_and_policies_meet() -> Result<()> {
    let objects = base()?;
    let pod = pod(&objects)?;
    let settings = settings(&pod)?;
    let port = |name: &str| -> Result<u64> {
        let ports = list(&pod["containers"][0]["ports"]);
        let port = ports.iter().find(|port| port["name"] == name).with_context(|| format!("no port {name}"))?;
        port["containerPort"].as_u64().context("a port is a number")
    };
    ensure!(port("store")? == u64::from(settings.store_bind_address.port()));
    let admin: BTreeSet<_> = settings.admin_bind_addresses.iter().map(|address| u64::from(address.port())).collect();
    ensure!(admin == BTreeSet::from([port("metrics")?, port("health")?]));

    let service = find(&objects, "Service", "substratus-store")?;
    let (name, namespace) = (&service["metadata"]["name"], &service["metadata"]["namespace"]);
    let url = format!(
        "http://{}.{}.svc:{}",
        name.as_str().unwrap_or_default(),
        namespace.as_str().unwrap_or_default(),
        service["spec"]["ports"][0]["port"]
    );
    ensure!(settings.store_url == url, "{} is not {url}", settings.store_url);

    let labels = find(&objects, "Deployment", "substratus")?["spec"]["template"]["metadata"]["labels"].clone();
    let policy = find(&objects, "NetworkPolicy", "substratus")?;
    ensure!(policy["spec"]["podSelector"]["matchLabels"] == labels && service["spec"]["selector"] == labels);
    // The pods of every kind that call the store are let in: workers, and the sidecars of Notebooks.
    let store = list(&policy["spec"]["ingress"]).iter().find(|rule| rule["ports"][0]["port"] == "store").context("no rule")?;
    let kinds: BTreeSet<&str> =
        list(&store["from"]).iter().filter_map(|from| from["podSelector"]["matchExpressions"][0]["key"].as_str()).collect();
    ensure!(kinds == BTreeSet::from(["dataset", "model", "notebook"]), "{kinds:?}");
    for rule in list(&policy["spec"]["ingress"]) {
        ensure!(!list(&rule["from"]).is_empty(), "{rule} lets everybody in");
        for allowed in list(&rule["ports"]) {
            port(allowed["port"].as_str().context("ports are named")?)?;
        }
    }
    Ok(())
}

#[test]
fn the_cache_has_room_to_write() -> Result<()> {
    let pod = pod(&base()?)?;
    let container = &pod["containers"][0];
    let cache = list(&container["env"]).iter().find(|entry| entry["name"] == "PLUGIN_CACHE_DIR").context("no cache")?;
    let mounted =
        list(&container["volumeMounts"]).iter().find(|mount| mount["mountPath"] == cache["value"]).context("no mount")?;
    ensure!(mounted["readOnly"] != true);
    Ok(())
}

#[tokio::test]
async fn probes_ask_for_what_is_served() -> Result<()> {
    let pod = pod(&base()?)?;
    let (_subscriber, log) = telemetry::subscriber(Format::Json, "info", std::io::sink)?;
    let readiness = Readiness::new(&[]);
    let admin = Admin { readiness, metrics: Metrics::new(), log };
    let listener = admin::bind("127.0.0.1:0".parse()?).await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(admin::run(listener, admin::router(admin), std::future::pending()));
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let get = &pod["containers"][0][probe]["httpGet"];
        ensure!(get["port"] == "health", "{probe}: {get}");
        let path = get["path"].as_str().context("a probe has a path")?;
        let response = client()?.get(format!("http://{address}{path}")).send().await?;
        ensure!(response.status() == 200, "{probe} {path}: {}", response.status());
    }
    server.abort();
    Ok(())
}

#[test]
fn every_file_of_the_base_is_applied() -> Result<()> {
    let text = fs::read_to_string(install::deploy("base").join("kustomization.yaml"))?;
    let kustomization: install::Kustomization = serde_saphyr::from_str(&text)?;
    for entry in fs::read_dir(install::deploy("base"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(name == "kustomization.yaml" || kustomization.resources.contains(&name), "{name} is applied by nobody");
    }
    Ok(())
}
