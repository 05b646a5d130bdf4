//! The committed YAML is what the types say. Knows nothing of a cluster.

use std::path::{Path, PathBuf};

use substratus_crds::{crds, to_yaml};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml")
}

#[test]
fn committed_yaml_is_what_the_types_say() {
    let mut expected = vec!["kustomization.yaml".to_owned()];
    for crd in crds() {
        let name = format!("{}.yaml", crd.spec.names.kind.to_lowercase());
        let path = folder().join(&name);
        let yaml = to_yaml(&crd).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &yaml).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == yaml,
            "{name} has drifted from the types: run `UPDATE=1 cargo test -p substratus-crds` and commit the result"
        );
        expected.push(name);
    }
    let mut found: Vec<_> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "crds/yaml holds one file per kind, and what lists them");
}
