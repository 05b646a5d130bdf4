//! What the user asked of an engine, through `spec.params` and, for the original's images, `spec.env`. It knows no engine's flags.

use substratus_plugin::{Failure, adapter::Request, invalid, params, params::Params};

/// Context length that a model is served with: what was asked for, no more than the model knows.
pub struct Context {
    /// Tokens.
    pub tokens: Option<u32>,
    /// Said where less is served than was asked for.
    pub warning: Option<String>,
}

/// Reads `context_length`, or an engine's own name for it.
pub fn context(request: &Request, own_name: &str) -> Result<Context, Failure> {
    let params = Params::new(&request.params);
    let expected = "a number of tokens";
    let general = params.parsed::<u32>("context_length", expected)?;
    let asked = match general {
        Some(tokens) => Some(tokens),
        None => params.parsed::<u32>(own_name, expected)?,
    };
    if asked == Some(0) {
        return Err(invalid("spec.params.context_length", "is 0, must be a number of tokens"));
    }
    Ok(match (asked, request.model.context_length) {
        (Some(asked), Some(most)) if asked > most => Context {
            tokens: Some(most),
            warning: Some(format!("{asked} tokens of context were asked for; the model knows {most}, which are served")),
        },
        (asked, _) => Context { tokens: asked, warning: None },
    })
}

/// A literal of `spec.env`; a value from a Secret is not known here.
pub fn env<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.env.iter().find(|(key, _)| key == name)?.1.as_deref().map(str::trim).filter(|value| !value.is_empty())
}

/// A yes-or-no of `spec.env`.
pub fn env_flag(request: &Request, name: &str) -> Result<bool, Failure> {
    match env(request, name).map(params::truth) {
        None => Ok(false),
        Some(Some(value)) => Ok(value),
        Some(None) => Err(invalid(format!("spec.env.{name}"), "must be true or false")),
    }
}

/// One sentence where parameters are given that nothing reads: they may be typing mistakes.
pub fn unread(request: &Request, engine: &str, known: &[&str]) -> Option<String> {
    let unknown: Vec<&str> = Params::new(&request.params).names().filter(|name| !known.contains(name)).take(10).collect();
    (!unknown.is_empty())
        .then(|| format!("{engine} does not read the parameters {}; it reads {}", unknown.join(", "), known.join(", ")))
}

/// One sentence where the pod's memory is less than what is needed.
pub fn short_of_memory(request: &Request, needed: u64) -> Option<String> {
    let asked = request.memory?;
    (asked < needed).then(|| {
        let gib = |bytes: u64| bytes.div_ceil(crate::GIB);
        format!("the pod asks for {} GiB of memory; about {} GiB are needed", gib(asked), gib(needed))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use substratus_plugin::testing;

    use super::*;

    #[test]
    fn no_more_context_than_the_model_knows() {
        let ask = |params: serde_json::Value| {
            let request = testing::request("Server", json!({"params": params, "model": {"context_length": 2048}}));
            context(&request, "n_ctx").map(|context| (context.tokens, context.warning.is_some()))
        };
        assert_eq!(ask(json!([])), Ok((None, false)));
        assert_eq!(ask(json!([["context_length", "1024"]])), Ok((Some(1024), false)));
        assert_eq!(ask(json!([["n_ctx", "\"4096\""]])), Ok((Some(2048), true)));
        assert!(ask(json!([["context_length", "0"]])).is_err());
        assert!(ask(json!([["context_length", "-1"]])).is_err());
    }

    #[test]
    fn env_flags() {
        let request = testing::request("Server", json!({"env": [["A", "true"], ["B", "maybe"], ["C", null]]}));
        assert_eq!(env_flag(&request, "A"), Ok(true));
        assert!(env_flag(&request, "B").is_err());
        assert_eq!(env_flag(&request, "C"), Ok(false));
    }
}
