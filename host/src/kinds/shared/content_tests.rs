//! What a pod gets of each kind of bucket.

use serde_json::{Value, json};
use substratus_crds::SecurityContext;

use super::*;
use crate::kinds::shared::environment;
use crate::kinds::shared::pod::{self, Parts};

fn place(cloud: &str) -> Environment {
    Environment {
        bucket_secret: Some("bucket".to_owned()),
        worker_pull_secret: Some("pull".to_owned()),
        ..environment::of(cloud)
    }
}

/// A training: a base model and a dataset in, artifacts out.
fn training(cloud: &str, bucket: &str, options: &PodOptions) -> Value {
    let environment = place(cloud);
    let (mut content, builder) = (Content::default(), Builder { environment: &environment, options });
    builder.references(&mut content, Some(&format!("{bucket}/base")), Some(&format!("{bucket}/rows"))).unwrap();
    builder.write(&mut content, &format!("{bucket}/tuned"), "inputs").unwrap();
    serde_json::to_value(pod::template(Parts { container: "train", content, ..Parts::default() })).unwrap()
}

fn mounts(container: &Value) -> Vec<[&str; 3]> {
    let all = container["volumeMounts"].as_array().unwrap();
    all.iter()
        .map(|mount| {
            [
                mount["name"].as_str().unwrap_or_default(),
                mount["mountPath"].as_str().unwrap_or_default(),
                mount["subPath"].as_str().unwrap_or_default(),
            ]
        })
        .collect()
}

#[test]
fn folders_of_a_node_are_mounted() {
    let pod = training("local", "tar:////bucket", &PodOptions::default());
    let spec = &pod["spec"];
    assert!(spec["initContainers"].is_null() && spec["terminationGracePeriodSeconds"].is_null(), "{spec}");
    assert_eq!(spec["volumes"][0]["hostPath"], json!({"path": "/bucket/tuned", "type": "DirectoryOrCreate"}));
    assert_eq!(
        mounts(&spec["containers"][0]),
        [
            ["artifacts", "/content/artifacts", "artifacts"],
            ["dataset", "/content/data", "artifacts"],
            ["model", "/content/model", "artifacts"]
        ]
    );
}

#[test]
fn claims_are_mounted_where_the_url_says() {
    let pod = training("eks", "pvc://shared/models", &PodOptions::default());
    let spec = &pod["spec"];
    assert_eq!(spec["volumes"][0]["persistentVolumeClaim"]["claimName"], "shared");
    assert_eq!(mounts(&spec["containers"][0])[0], ["artifacts", "/content/artifacts", "models/tuned/artifacts"]);
    let target = target(&place("eks"), "pvc://shared/models/tuned").unwrap();
    let mount = target.mount.unwrap().mount;
    assert_eq!((target.url.as_str(), mount.mount_path.as_str()), ("file:////claim", "/claim"));
    assert_eq!(mount.sub_path.as_deref(), Some("models/tuned"));
    assert!(target.security == Security::Own && target.env_from.is_none());
}

#[test]
fn a_whole_artifact_is_read_with_its_records_wherever_it_lies() {
    let whole = |cloud: &str, url: &str| {
        let (environment, mut content) = (place(cloud), Content::default());
        let builder = Builder { environment: &environment, options: &PodOptions::default() };
        builder.whole(&mut content, "artifacts", "/artifact", url).unwrap();
        let security = reader(url).unwrap();
        serde_json::to_value(pod::template(Parts { container: "publish", content, security, ..Parts::default() })).unwrap()
    };
    let mount = |pod: &Value| pod["spec"]["containers"][0]["volumeMounts"][0].clone();
    let node = whole("local", "tar:////bucket/m/g2");
    assert_eq!(mount(&node), json!({"name": "artifacts", "mountPath": "/artifact", "readOnly": true}));
    assert_eq!(node["spec"]["volumes"][0]["hostPath"]["path"], "/bucket/m/g2");
    let claim = whole("eks", "pvc://shared/models/m");
    assert_eq!(mount(&claim), json!({"name": "artifacts", "mountPath": "/artifact", "readOnly": true, "subPath": "models/m"}));
    let driver = whole("gcp", "gs://b/m");
    assert_eq!((mount(&driver)["subPath"].as_str(), &driver["spec"]["volumes"][0]["csi"]["readOnly"]), (Some("m"), &json!(true)));
    let copied = whole("eks", "s3://b/m");
    assert_eq!(mount(&copied), json!({"name": "artifacts", "mountPath": "/artifact", "readOnly": true}));
    let stager = &copied["spec"]["initContainers"][0];
    assert_eq!(stager["args"], json!(["stage", "s3://b/m", "--to=/copy/artifacts"]));
    // Elsewhere than on a node path it is nobody in particular, as Pod Security `restricted` wants.
    for pod in [&claim, &driver, &copied] {
        let security = &pod["spec"]["containers"][0]["securityContext"];
        assert_eq!((&security["runAsNonRoot"], &security["capabilities"]["drop"]), (&json!(true), &json!(["ALL"])));
    }
    assert_eq!(node["spec"]["containers"][0]["securityContext"]["runAsUser"], 0);
}

#[test]
fn googles_driver_mounts_googles_buckets_as_it_always_did() {
    let pod = training("gcp", "gs://b", &PodOptions::default());
    assert_eq!(pod["metadata"]["annotations"]["gke-gcsfuse/volumes"], "true");
    assert_eq!(pod["metadata"]["annotations"]["gke-gcsfuse/ephemeral-storage-limit"], "100Gi");
    let volume = |name: &str| pod["spec"]["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == name).unwrap();
    let attributes = json!({"bucketName": "b", "mountOptions": "implicit-dirs,uid=0,gid=3003"});
    assert_eq!(volume("artifacts")["csi"], json!({"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}));
    assert_eq!(volume("model")["csi"]["readOnly"], true);
    assert_eq!(mounts(&pod["spec"]["containers"][0])[0], ["artifacts", "/content/artifacts", "tuned/artifacts"]);
    // A worker never writes through it.
    assert!(target(&place("gcp"), "gs://b/tuned").unwrap().mount.is_none());
    assert!(!is_published(&place("gcp"), "gs://b/tuned") && is_published(&place("eks"), "gs://b/tuned"));
    assert!(is_published(&Environment { copies_always: true, ..place("gcp") }, "gs://b/tuned"));
}

#[test]
fn anything_else_is_copied_in_and_out() {
    let pod = training("eks", "s3://b", &PodOptions::default());
    let spec = &pod["spec"];
    let copiers = spec["initContainers"].as_array().unwrap();
    let names: Vec<&str> = copiers.iter().map(|copier| copier["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["stage-model", "stage-dataset", "publish-artifacts"], "it publishes when everything is there");
    assert_eq!(copiers[0]["args"], json!(["stage", "s3://b/base", "--to=/copy/model"]));
    let published = json!(["publish", "/copy/artifacts/artifacts", "--to=s3://b/tuned", "--inputs=inputs", "--after-signal"]);
    assert_eq!((&copiers[2]["args"], &copiers[2]["restartPolicy"]), (&published, &json!("Always")));
    for copier in copiers {
        assert_eq!(copier["envFrom"], json!([{"secretRef": {"name": "bucket"}}]), "{copier}");
        assert_eq!(copier["image"], "operator");
    }
    let container = &spec["containers"][0];
    assert!(container["envFrom"].is_null() && container["env"].is_null(), "the user's image has no credential: {container}");
    assert_eq!(mounts(container)[2], ["model", "/content/model", "artifacts"]);
    assert_eq!(spec["securityContext"]["fsGroup"], GROUP);
    assert_eq!(spec["terminationGracePeriodSeconds"], 900);
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
}

#[test]
fn the_administrators_way_out_is_for_copiers_alone() {
    let environment = Environment {
        proxies: vec![("HTTPS_PROXY".to_owned(), "http://proxy:3128".to_owned())],
        certificates: Some("corporate".to_owned()),
        ..place("eks")
    };
    let (mut content, options) = (Content::default(), PodOptions::default());
    let builder = Builder { environment: &environment, options: &options };
    builder.references(&mut content, Some("s3://b/base"), None).unwrap();
    builder.write(&mut content, "s3://b/tuned", "inputs").unwrap();
    let pod = serde_json::to_value(pod::template(Parts { content, ..Parts::default() })).unwrap();
    let volumes: Vec<_> = pod["spec"]["volumes"].as_array().unwrap().iter().filter(|volume| volume["name"] == "ca").collect();
    assert_eq!(volumes, [&json!({"name": "ca", "configMap": {"name": "corporate", "optional": true}})]);
    for copier in pod["spec"]["initContainers"].as_array().unwrap() {
        let certificates = json!({"name": "AWS_CA_BUNDLE", "value": "/etc/substratus/ca/ca.crt"});
        let proxy = json!({"name": "HTTPS_PROXY", "value": "http://proxy:3128"});
        assert_eq!(copier["env"], json!([certificates, proxy]), "sorted, as everywhere");
        assert_eq!(copier["volumeMounts"][1], json!({"name": "ca", "mountPath": "/etc/substratus/ca", "readOnly": true}));
    }
    let container = &pod["spec"]["containers"][0];
    assert!(container["env"].is_null() && !container["volumeMounts"].to_string().contains("\"ca\""), "{container}");
}

#[test]
fn copiers_are_no_more_than_the_container_is() {
    let with = |user, non_root| {
        let asked = SecurityContext { run_as_user: user, run_as_non_root: non_root, ..SecurityContext::default() };
        let options = PodOptions { security_context: Some(asked), ..PodOptions::default() };
        training("eks", "s3://b", &options)["spec"]["initContainers"].clone()
    };
    for (user, non_root, expected) in [(Some(1000), None, 1000), (None, Some(true), 65_532), (Some(1000), Some(true), 1000)] {
        let copiers = with(user, non_root);
        let publisher = &copiers[2]["securityContext"];
        assert_eq!((&publisher["runAsUser"], &publisher["runAsNonRoot"]), (&json!(expected), &json!(true)), "{publisher}");
        assert_eq!(publisher["capabilities"]["drop"], json!(["ALL"]));
    }
    let root = &with(None, None)[2]["securityContext"];
    let dropped = root["capabilities"]["drop"].as_array().unwrap();
    assert!(root["runAsUser"] == 0 && dropped.len() == 13 && !dropped.contains(&json!("DAC_OVERRIDE")), "{root}");
    // What is only read belongs to nobody.
    assert_eq!(with(None, None)[0]["securityContext"]["runAsUser"], 65_532);
}

#[test]
fn what_is_kept_comes_in_and_goes_out() {
    let (environment, options) = (place("eks"), PodOptions::default());
    let (mut content, builder) = (Content::default(), Builder { environment: &environment, options: &options });
    builder.keep(&mut content, "s3://b/lab", WORKSPACE, "/content/workspace").unwrap();
    builder.keep(&mut content, "s3://b/lab", ARTIFACTS, "/content/artifacts").unwrap();
    let pod = serde_json::to_value(pod::template(Parts { content, ..Parts::default() })).unwrap();
    let copiers = pod["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(copiers[0]["args"], json!(["stage", "s3://b/lab/workspace", "--to=/copy/workspace", "--or-empty"]));
    assert_eq!(copiers[3]["args"][2], "--to=s3://b/lab");
    // On a node path both are folders of one place.
    let mut content = Content::default();
    builder.keep(&mut content, "tar:////bucket/lab", WORKSPACE, "/content/workspace").unwrap();
    builder.keep(&mut content, "tar:////bucket/lab", ARTIFACTS, "/content/artifacts").unwrap();
    let pod = serde_json::to_value(pod::template(Parts { content, ..Parts::default() })).unwrap();
    assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(mounts(&pod["spec"]["containers"][0])[1], ["artifacts", "/content/workspace", "workspace"]);
}
