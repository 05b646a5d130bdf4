//! Settings as people type them.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: OperatorSettings,
}

fn check(flags: &str) -> Result<Settings, SettingsError> {
    let line = std::iter::once("operator").chain(flags.split_whitespace());
    Line::try_parse_from(line).unwrap().settings.check()
}

#[test]
fn a_laptop_needs_the_image_alone() {
    let settings = check("--operator-image=img:1").unwrap();
    assert_eq!(settings.worker_image, "img:1");
    assert_eq!(settings.artifact_bucket.as_str(), "tar:////bucket");
    assert_eq!(settings.store_url, "http://substratus-store.substratus.svc:8090");
    assert_eq!(settings.cluster_name, "substratus");
    assert!(settings.lease.is_none() && settings.watch_namespaces.is_empty());
}

#[test]
fn arguments_of_the_first_operator_are_understood() {
    let flags = "--health-probe-bind-address=:8081 --metrics-bind-address=127.0.0.1:8080 --leader-elect --worker-image=w";
    let settings = check(flags).unwrap();
    assert_eq!(settings.admin_bind_addresses, ["127.0.0.1:8080".parse().unwrap(), "[::]:8081".parse().unwrap()]);
    assert_eq!(settings.lease.as_deref(), Some("substratus"));
    assert!(check("--leader-elect=false --worker-image=w").unwrap().lease.is_none());
}

#[test]
fn one_address_for_metrics_and_probes_is_one_listener() {
    let settings = check("--health-probe-bind-address=:9 --metrics-bind-address=:9 --worker-image=w").unwrap();
    assert_eq!(settings.admin_bind_addresses.len(), 1);
}

#[test]
fn gcp_names_follow_from_the_project() {
    let settings = check("--cloud=gcp --project-id=p --cluster-location=us-central1-a --worker-image=w").unwrap();
    assert_eq!(settings.artifact_bucket.as_str(), "gs://p-substratus-artifacts");
    assert_eq!(settings.building.registry.as_deref(), Some("us-central1-docker.pkg.dev/p/substratus"));
    assert_eq!(settings.principal.as_deref(), Some("substratus@p.iam.gserviceaccount.com"));
    assert!(matches!(check("--cloud=gcp --worker-image=w"), Err(SettingsError::Missing { env: "ARTIFACT_BUCKET_URL", .. })));
}

#[test]
fn a_node_folder_prints_four_slashes_however_it_was_typed() {
    for typed in ["tar:///bucket", "tar:////bucket", "tar:///bucket/"] {
        assert_eq!(Bucket::parse(typed).unwrap().as_str(), "tar:////bucket");
    }
    assert_eq!(Bucket::parse("gs://b/path/").unwrap().as_str(), "gs://b/path");
    for typed in ["tar://bucket", "tar:///", "gs://", "ftp://b", "bucket", "gs://b/../c", "s3://b?x=y"] {
        assert!(Bucket::parse(typed).is_err(), "{typed}");
    }
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let refused = |flags: &str| match check(flags) {
        Err(SettingsError::Missing { flag, .. } | SettingsError::Invalid { flag, .. }) => flag,
        Ok(_) => "nothing",
    };
    assert_eq!(refused(""), "worker-image");
    assert_eq!(refused("--worker-image=w --concurrency=0"), "concurrency");
    assert_eq!(refused("--worker-image=w --cloud=GCP"), "artifact-bucket-url");
    assert_eq!(refused("--worker-image=w --cluster-name=a/b"), "cluster-name");
    assert_eq!(refused("--worker-image=w --namespace=-a"), "namespace");
    assert_eq!(refused("--worker-image=w --store-url=substratus-store:80"), "store-url");
    assert_eq!(refused("--worker-image=w --watch-namespace=a,B"), "watch-namespace");
    assert!(Line::try_parse_from(["operator", "--metrics-bind-address=8080"]).is_err());
}

#[test]
fn empty_values_are_absent() {
    let settings = check("--artifact-bucket-url= --registry-url= --principal= --worker-image=w --watch-namespace=").unwrap();
    assert_eq!(settings.artifact_bucket.as_str(), "tar:////bucket");
    assert!(settings.building.registry.is_none() && settings.principal.is_none() && settings.watch_namespaces.is_empty());
}

#[test]
fn processes_outside_a_pod_have_names_of_their_own() {
    assert!(check("--worker-image=w").unwrap().identity.ends_with(&format!("_{}", std::process::id())));
    assert_eq!(check("--worker-image=w --pod-name=p").unwrap().identity, "p");
}

#[test]
fn workers_are_confined_unless_an_administrator_says_otherwise() {
    let on = |flags: &str| check(&format!("--worker-image=w {flags}")).unwrap().worker_network_policy;
    assert!(on("") && on("--worker-network-policy") && on("--worker-network-policy=true"));
    assert!(!on("--worker-network-policy=false"));
}

#[test]
fn endpoints_of_a_bucket_are_host_patterns() {
    let settings = check("--worker-image=w --bucket-endpoint=https://s3.example.com,http://10.0.0.0/8:9000").unwrap();
    assert_eq!(settings.bucket_endpoints, ["https://s3.example.com", "http://10.0.0.0/8:9000"]);
    assert!(check("--worker-image=w --bucket-endpoint=").unwrap().bucket_endpoints.is_empty());
    for typed in ["s3.example.com", "https://*", "s3://bucket", "https://host/path"] {
        let error = check(&format!("--worker-image=w --bucket-endpoint={typed}")).unwrap_err();
        assert!(matches!(&error, SettingsError::Invalid { flag: "bucket-endpoint", value, .. } if value == typed), "{error}");
    }
}

#[test]
fn builders_have_the_profiles_of_their_node_unless_something_else_is_said() {
    let building = check("--worker-image=w").unwrap().building;
    assert_eq!((building.image.as_str(), building.git_image.as_str()), (BUILDER_IMAGE, BUILDER_IMAGE));
    assert!(building.registry.is_none() && building.seccomp.is_none() && building.apparmor.is_none());
    let said = "--worker-image=w --registry-url=r.test/team/ --git-image=git --builder-seccomp=Unconfined \
                --builder-apparmor=localhost/buildkit --buildkitd-args=--debug --registry-push-secret=push";
    let building = check(said).unwrap().building;
    assert_eq!(building.registry.as_deref(), Some("r.test/team"));
    assert_eq!((building.git_image.as_str(), building.push_secret.as_deref()), ("git", Some("push")));
    assert_eq!(building.seccomp.unwrap().spelled(), Some(("Unconfined", None)));
    assert_eq!(building.apparmor.unwrap().spelled(), Some(("Localhost", Some("buildkit"))));
    assert_eq!(building.daemon_args, ["--debug"]);
}

#[test]
fn a_profile_that_is_none_is_refused() {
    for text in ["privileged", "localhost/", "RuntimeDefault/x"] {
        let line = ["operator", "--worker-image=w", "--builder-seccomp", text];
        assert!(Line::try_parse_from(line).is_err(), "{text}");
    }
}
