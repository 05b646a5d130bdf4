//! The pod of a build, as it is written.

use serde_json::{Value, json};
use substratus_crds::{Build, Model, ModelSpec};

use super::*;
use crate::kinds::image::handshake::Sent;
use crate::kinds::image::plan::plan;
use crate::kinds::shared::child::Owner;
use crate::kinds::shared::environment::{self, Building};
use crate::reconcile::guard;

fn place() -> Environment {
    let building = Building {
        registry: Some("r.test/team".to_owned()),
        image: "buildkit".to_owned(),
        git_image: "git".to_owned(),
        push_secret: Some("push".to_owned()),
        ..Building::default()
    };
    Environment { plain_http: vec!["r.test".to_owned()], building, ..environment::of("gcp") }
}

fn made(environment: &Environment, git: &Value) -> Value {
    made_of(environment, &json!({"git": git}))
}

fn made_of(environment: &Environment, build: &Value) -> Value {
    let build: Build = serde_json::from_value(build.clone()).unwrap();
    let owner = Owner::of(&Model::new("m", ModelSpec::default()));
    let observed = Observed {
        owner: &owner,
        build: &build,
        image: None,
        record: None,
        handshake: None,
        sent: Sent { is_here: true, ..Sent::default() },
        rebuild: None,
        job: None,
        pods: Vec::new(),
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    let planned = plan(&observed, environment).unwrap();
    let children = children(&observed, environment, &planned, &[ObjectRef { name: "base".to_owned() }]);
    assert_eq!(guard::children(&children, &owner, &[]), Ok(()), "what we make passes our own guard");
    children[1].object.clone()
}

#[test]
fn the_job_is_called_and_labelled_as_the_first_operator_did() {
    let job = made(&place(), &json!({"url": "https://git.test/x", "branch": "main"}));
    assert_eq!(job["metadata"]["name"], "m-model-bld");
    assert_eq!(job["metadata"]["annotations"]["image"], "r.test/team/c-model-default-m:main");
    assert_eq!(job["spec"]["backoffLimit"], 1);
    assert_eq!(job["spec"]["template"]["metadata"]["labels"], json!({"model": "m", "role": "build"}));
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["restartPolicy"]), (&json!("container-builder"), &json!("Never")));
    assert_eq!((&pod["initContainers"][1]["name"], &pod["containers"][0]["name"]), (&json!("git-clone"), &json!("builder")));
    assert_eq!(
        pod["containers"][0]["resources"]["requests"],
        json!({"cpu": "2", "memory": "12Gi", "ephemeral-storage": "100Gi"})
    );
}

#[test]
fn the_builder_alone_may_map_users_and_nobody_may_more() {
    let job = made(&place(), &json!({"url": "https://git.test/x"}));
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    let builder = &pod["containers"][0]["securityContext"];
    assert_eq!(
        *builder,
        json!({"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": true, "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": true, "capabilities": {"drop": ["ALL"], "add": ["SETGID", "SETUID"]}})
    );
    for container in pod["initContainers"].as_array().unwrap() {
        let security = &container["securityContext"];
        assert_eq!(
            (&security["allowPrivilegeEscalation"], &security["runAsNonRoot"]),
            (&json!(false), &json!(true)),
            "{container}"
        );
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{container}");
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{container}");
    }
    let loose =
        Building { seccomp: Some(Profile::Unconfined), apparmor: Some(Profile::Localhost("b".to_owned())), ..place().building };
    let job = made(&Environment { building: loose, ..place() }, &json!({"url": "https://git.test/x"}));
    let builder = &job["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!(builder["seccompProfile"], json!({"type": "Unconfined"}));
    assert_eq!(builder["appArmorProfile"], json!({"type": "Localhost", "localhostProfile": "b"}));
}

#[test]
fn each_container_sees_its_own_secret_and_no_other() {
    let job = made(&place(), &json!({"url": "https://git.test/x", "secret": "git"}));
    let pod = &job["spec"]["template"]["spec"];
    let sees = |container: &Value| -> Vec<String> {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        let names = mounts.map(|mount| mount["name"].as_str().unwrap().to_owned());
        names.filter(|name| name.ends_with("-secret") || name.ends_with("-secrets")).collect()
    };
    assert_eq!(sees(&pod["initContainers"][0]), Vec::<String>::new());
    assert_eq!(sees(&pod["initContainers"][1]), ["git-secret"]);
    assert_eq!(sees(&pod["containers"][0]), ["pull-secrets", "push-secret"]);
    let args = pod["containers"][0]["args"].to_string();
    let (pull, push) =
        (args.find("--accounts=/etc/substratus/pull-secrets"), args.find("--accounts=/etc/substratus/push-secret"));
    assert!(pull.unwrap() < push.unwrap() && args.contains("--plain-http=r.test"), "{args}");
}

#[test]
fn every_word_of_the_user_is_part_of_one_argument() {
    let git = json!({"url": "https://git.test/x", "tag": "v1", "commit": "a".repeat(40), "path": "/a b/", "depth": 0, "submodules": true});
    let job = made(&place(), &git);
    let args: Vec<String> = serde_json::from_value(job["spec"]["template"]["spec"]["initContainers"][1]["args"].clone()).unwrap();
    assert!(args[2..].iter().all(|arg| arg.starts_with("--")), "{args:?}");
    for arg in ["--tag=v1", "--path=a b", "--depth=0", "--submodules", &format!("--commit={}", "a".repeat(40))] {
        assert!(args.iter().any(|found| found == arg), "{arg}: {args:?}");
    }
}

#[test]
fn what_a_user_sent_is_fetched_with_a_token_that_no_other_container_sees() {
    let upload = json!({"md5Checksum": "AB".repeat(16), "requestID": "1", "sha256Checksum": "cd".repeat(32)});
    let job = made_of(&place(), &json!({ "upload": upload }));
    assert_eq!(job["metadata"]["annotations"]["image"], format!("r.test/team/c-model-default-m:{}", "AB".repeat(16)));
    let pod = &job["spec"]["template"]["spec"];
    let fetch = &pod["initContainers"][1];
    assert_eq!(
        (&fetch["name"], &fetch["image"], &fetch["command"]),
        (&json!("upload-fetch"), &pod["initContainers"][0]["image"], &Value::Null)
    );
    let args = serde_json::to_string(&fetch["args"]).unwrap();
    assert!(args.contains(&format!("/uploads/model/default/m/{}", "ab".repeat(16))) && args.contains(&"cd".repeat(32)), "{args}");
    let rules = serde_json::to_string(&job["spec"]["podFailurePolicy"]).unwrap();
    assert!(rules.contains("upload-fetch") && !rules.contains("git-clone"), "a rule names a container that is there: {rules}");
    let sees = |container: &Value| serde_json::to_string(&container["volumeMounts"]).unwrap().contains("store-token");
    assert!(sees(fetch) && !sees(&pod["containers"][0]) && !sees(&pod["initContainers"][0]));
}
