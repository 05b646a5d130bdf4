//! The `CustomResourceDefinition`s, made from the types and finished with what derives cannot say. Knows no cluster and no file.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, ValidationRule,
};
use kube::CustomResourceExt;

use crate::{Dataset, Model, Notebook, Plugin, PluginSource, Server, edits};

/// Longest name of a Model: its longest child is `NAME-model-params`, and no child name may pass 63 characters.
pub const MAX_MODEL_NAME: usize = 63 - "-model-params".len();
/// Longest name of a Dataset: its longest child is `NAME-dataset-params`.
pub const MAX_DATASET_NAME: usize = 63 - "-dataset-params".len();
/// Longest name of a Server: its longest child is `NAME-server-params`.
pub const MAX_SERVER_NAME: usize = 63 - "-server-params".len();
/// Longest name of a Notebook: its longest child is `NAME-notebook-params`.
pub const MAX_NOTEBOOK_NAME: usize = 63 - "-notebook-params".len();

/// Every `CustomResourceDefinition`, in order of kind.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let service_name = on_create(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "the name of a Server becomes the name of its Service: start with a letter and use only lower-case letters, digits and '-'",
    );
    vec![
        finish(Dataset::crd(), &[length_rule("Dataset", MAX_DATASET_NAME)]),
        finish(Model::crd(), &[length_rule("Model", MAX_MODEL_NAME)]),
        finish(Notebook::crd(), &[length_rule("Notebook", MAX_NOTEBOOK_NAME)]),
        finish(Plugin::crd(), &[]),
        finish(PluginSource::crd(), &[]),
        finish(Server::crd(), &[length_rule("Server", MAX_SERVER_NAME), service_name]),
    ]
}

/// A definition as the text of its committed file `crds/yaml/<kind>.yaml`: what `kubectl apply -f` takes.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    Ok(format!("{HEADER}{}", serde_saphyr::to_string(crd)?))
}

const HEADER: &str = "# Made from the types in crds/src; do not edit. `UPDATE=1 cargo test -p substratus-crds` writes it anew.\n";

fn length_rule(kind: &str, max: usize) -> ValidationRule {
    on_create(
        &format!("size(self.metadata.name) <= {max}"),
        &format!(
            "the name of a {kind} may have at most {max} characters, because its children's names are made from it and may have 63"
        ),
    )
}

/// A rule that is checked on create only, so that objects taken over from an older operator stay editable.
fn on_create(rule: &str, message: &str) -> ValidationRule {
    ValidationRule {
        rule: format!("oldSelf.hasValue() || {rule}"),
        message: Some(message.to_owned()),
        optional_old_self: Some(true),
        ..ValidationRule::default()
    }
}

/// Makes `spec` optional where nothing in it is needed (it defaults to an empty one), says what an edit of each field does, requires `ready` where a status
/// has it, and adds the rules.
fn finish(mut crd: CustomResourceDefinition, rules: &[ValidationRule]) -> CustomResourceDefinition {
    let kind = crd.spec.names.kind.clone();
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else { continue };
        let needed = property(root, "spec").is_some_and(|spec| spec.required.as_ref().is_some_and(|fields| !fields.is_empty()));
        root.required = needed.then(|| vec!["spec".to_owned()]);
        if !rules.is_empty() {
            root.x_kubernetes_validations = Some(rules.to_vec());
        }
        if let Some(spec) = property(root, "spec") {
            spec.default = (!needed).then(|| JSON(serde_json::json!({})));
            // What the kind is for belongs to the kind: `kubectl explain model` shows the description of the root.
            let description = spec.description.replace("What is wanted.".to_owned());
            root.description = description;
        }
        if let Some(fields) = property(root, "spec").and_then(|spec| spec.properties.as_mut()) {
            for (field, schema) in fields {
                if let (Some(effect), Some(description)) = (edits::effect(&kind, field), schema.description.as_mut()) {
                    description.push(' ');
                    description.push_str(effect);
                }
            }
        }
        // Beside its default, so that generated clients have a plain boolean, as they had it from the first operator.
        if let Some(status) = property(root, "status").filter(|status| has_property(status, "ready")) {
            status.required = Some(vec!["ready".to_owned()]);
        }
    }
    crd
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

fn has_property(schema: &JSONSchemaProps, name: &str) -> bool {
    schema.properties.as_ref().is_some_and(|properties| properties.contains_key(name))
}
