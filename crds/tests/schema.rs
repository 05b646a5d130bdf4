//! What manifests and scripts rely on is in the definitions. Knows nothing of a cluster; that an API server takes them is
//! proved where there is one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail the test")]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use substratus_crds::{crds, to_yaml};

/// The kinds of the first operator.
const KINDS: [&str; 4] = ["Dataset", "Model", "Notebook", "Server"];

fn definition(kind: &str) -> CustomResourceDefinition {
    crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap()
}

fn root(crd: &CustomResourceDefinition) -> JSONSchemaProps {
    let [CustomResourceDefinitionVersion { schema: Some(schema), .. }] = crd.spec.versions.as_slice() else {
        panic!("one version with a schema")
    };
    schema.open_api_v3_schema.clone().unwrap()
}

/// The schema at a path such as `spec.resources.cpu`; `*` steps into the values of a map.
fn at(kind: &str, path: &str) -> JSONSchemaProps {
    path.split('.').fold(root(&definition(kind)), |schema, step| match (step, schema.additional_properties) {
        ("*", Some(JSONSchemaPropsOrBool::Schema(values))) => *values,
        _ => schema.properties.unwrap_or_default().remove(step).unwrap_or_else(|| panic!("{kind} has no {path}")),
    })
}

#[test]
fn kinds_are_found_by_the_names_users_type() {
    for kind in KINDS {
        let crd = definition(kind);
        assert_eq!(crd.metadata.name.unwrap(), format!("{}s.substratus.ai", kind.to_lowercase()));
        assert_eq!(crd.spec.names.categories.unwrap(), ["ai"], "`kubectl get ai` lists {kind}");
        assert_eq!(crd.spec.scope, "Namespaced");
        let version = &crd.spec.versions[0];
        assert_eq!((version.name.as_str(), version.served, version.storage), ("v1", true, true));
        assert!(version.subresources.as_ref().unwrap().status.is_some());
        let ready = &version.additional_printer_columns.as_ref().unwrap()[0];
        assert_eq!((ready.name.as_str(), ready.type_.as_str(), ready.json_path.as_str()), ("Ready", "boolean", ".status.ready"));
    }
    let plugin = definition("Plugin");
    assert_eq!((plugin.spec.scope.as_str(), plugin.spec.versions[0].name.as_str()), ("Cluster", "v1alpha1"));
}

#[test]
fn defaults_are_those_of_the_first_operator() {
    for kind in KINDS {
        for (field, default) in [("cpu", 2), ("memory", 10), ("disk", 10)] {
            assert_eq!(at(kind, &format!("spec.resources.{field}")).default.unwrap().0, default, "{kind} {field}");
        }
        assert_eq!(at(kind, "spec").default.unwrap().0, serde_json::json!({}));
        assert!(
            at(kind, "spec").required.is_none() && root(&definition(kind)).required.is_none(),
            "every {kind} field is optional"
        );
        assert_eq!(at(kind, "status.ready").default.unwrap().0, false);
        assert_eq!(at(kind, "status").required.unwrap(), ["ready"]);
        assert!(at(kind, "spec.resources").default.is_none(), "no resources at all differs from empty resources");
    }
}

#[test]
fn spec_fields_have_the_shapes_of_the_first_operator() {
    for kind in KINDS {
        assert_eq!(at(kind, "spec.params.*").x_kubernetes_int_or_string, Some(true));
        assert_eq!(at(kind, "spec.env.*").type_.as_deref(), Some("string"));
        for path in ["spec.build", "spec.build.git", "spec.build.upload"] {
            assert_eq!(at(kind, path).x_kubernetes_map_type.as_deref(), Some("atomic"), "{kind} {path}");
        }
        assert_eq!(at(kind, "spec.build.git").required.unwrap(), ["url"]);
        assert_eq!(at(kind, "spec.build.upload").required.unwrap(), ["md5Checksum", "requestID"]);
        let md5 = at(kind, "spec.build.upload.md5Checksum");
        assert_eq!((md5.min_length, md5.max_length, md5.pattern.as_deref()), (Some(32), Some(32), Some("^[a-fA-F0-9]{32}$")));
        assert_eq!(at(kind, "status.buildUpload.storedMD5Checksum").type_.as_deref(), Some("string"));
    }
    for (kind, reference) in
        [("Model", "model"), ("Model", "dataset"), ("Server", "model"), ("Notebook", "model"), ("Notebook", "dataset")]
    {
        assert_eq!(at(kind, &format!("spec.{reference}")).required.unwrap(), ["name"], "{kind} {reference}");
    }
    for kind in ["Model", "Dataset", "Notebook"] {
        assert_eq!(at(kind, "status.artifacts.url").type_.as_deref(), Some("string"), "{kind}");
    }
    assert_eq!(at("Notebook", "spec.suspend").type_.as_deref(), Some("boolean"));
}

#[test]
fn rules_bind_new_objects_only() {
    for kind in KINDS {
        for rule in root(&definition(kind)).x_kubernetes_validations.unwrap() {
            assert_eq!(rule.optional_old_self, Some(true), "{}", rule.rule);
            assert!(rule.rule.starts_with("oldSelf.hasValue() || "), "{}", rule.rule);
            assert!(rule.message.is_some());
        }
    }
}

#[test]
fn short_names_are_those_of_the_first_operator() {
    let short = |kind: &str| definition(kind).spec.names.short_names.unwrap_or_default();
    assert_eq!(KINDS.map(short), [vec!["data".to_owned()], vec![], vec!["nb".to_owned()], vec![]]);
}

#[test]
fn servers_can_be_scaled() {
    let version = definition("Server").spec.versions.remove(0);
    let scale = version.subresources.unwrap().scale.unwrap();
    assert_eq!(scale.spec_replicas_path, ".spec.replicas");
    assert_eq!(scale.status_replicas_path, ".status.replicas");
    assert_eq!(scale.label_selector_path.as_deref(), Some(".status.selector"));
    // Without a default the scale of a Server that says nothing could not be read.
    assert_eq!(at("Server", "spec.replicas").default.unwrap().0, 1);
}

#[test]
fn every_field_says_what_it_is_and_what_an_edit_does() {
    for kind in KINDS {
        for (field, schema) in at(kind, "spec").properties.unwrap() {
            let description = schema.description.unwrap_or_default();
            assert!(description.contains("An edit "), "{kind} {field}: {description}");
        }
        assert_described(&root(&definition(kind)), kind);
    }
}

fn assert_described(schema: &JSONSchemaProps, path: &str) {
    for (name, property) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let known = matches!(path.rsplit('.').next(), Some("metadata" | "kind" | "apiVersion"));
        assert!(known || property.description.is_some(), "{path} says nothing");
        assert_described(property, &path);
        if let Some(JSONSchemaPropsOrArray::Schema(item)) = &property.items {
            assert_described(item, &path);
        }
    }
}

#[test]
fn columns_fit_a_terminal() {
    for kind in KINDS {
        let columns = definition(kind).spec.versions.remove(0).additional_printer_columns.unwrap();
        let shown: Vec<_> = columns.iter().filter(|column| column.priority.unwrap_or(0) == 0).map(|c| c.name.as_str()).collect();
        assert_eq!((shown[0], shown[1], shown.last().copied()), ("Ready", "Reason", Some("Age")), "{kind}");
        assert!(shown.len() <= 4, "{kind}: {shown:?}");
    }
}

/// An API server takes structural schemas only: every level names its type, and nothing depends on a value.
fn assert_structural(schema: &JSONSchemaProps, path: &str) {
    let free = schema.x_kubernetes_int_or_string == Some(true) || schema.x_kubernetes_preserve_unknown_fields == Some(true);
    assert!(schema.type_.is_some() || free, "{path} has no type");
    assert!(schema.ref_path.is_none() && schema.definitions.is_none(), "{path} refers elsewhere");
    assert!(schema.any_of.is_none() && schema.one_of.is_none() && schema.all_of.is_none(), "{path} combines schemas");
    assert!(schema.properties.is_none() || schema.additional_properties.is_none(), "{path} is object and map at once");
    for (name, property) in schema.properties.iter().flatten() {
        assert_structural(property, &format!("{path}.{name}"));
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        assert_structural(values, &format!("{path}.*"));
    }
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => assert_structural(item, &format!("{path}[]")),
        Some(JSONSchemaPropsOrArray::Schemas(_)) => panic!("{path} is a tuple"),
        None => assert!(schema.type_.as_deref() != Some("array"), "{path} has no items"),
    }
}

#[test]
fn schemas_are_structural() {
    for crd in crds() {
        assert_structural(&root(&crd), &crd.spec.names.kind);
    }
}

#[test]
fn yaml_reads_back_as_the_same_definition() {
    for crd in crds() {
        assert_eq!(serde_saphyr::from_str::<CustomResourceDefinition>(&to_yaml(&crd).unwrap()).unwrap(), crd);
    }
}
