//! What an environment means; know no server.

use object_store::path::Path;

use super::*;

const KEY: &str = r#"{"gcs_base_url": "http://127.0.0.1:4443"}"#;

fn env(pairs: &[(&str, &str)]) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn refused(url: &str, pairs: &[(&str, &str)]) -> String {
    match open(&url.parse().unwrap(), &env(pairs)) {
        Err(SinkError::Store(Trouble::Settings, message)) => message,
        other => format!("{other:?}"),
    }
}

#[test]
fn plain_http_needs_a_word_in_every_cloud() {
    for (url, given, allow) in [
        ("s3://b/p", ("AWS_ENDPOINT_URL", "http://store"), "AWS_ALLOW_HTTP"),
        ("gs://b/p", ("GOOGLE_BASE_URL", "http://store"), "GOOGLE_ALLOW_HTTP"),
        ("gs://b/p", ("GOOGLE_SERVICE_ACCOUNT_KEY", KEY), "GOOGLE_ALLOW_HTTP"),
        ("az://b/p", ("AZURE_STORAGE_ENDPOINT", "http://store"), "AZURE_ALLOW_HTTP"),
    ] {
        assert!(refused(url, &[given]).contains(allow), "{url}");
        // Only the word itself counts.
        assert!(refused(url, &[given, (allow, "yes")]).contains(allow), "{url}");
    }
}

#[test]
fn where_google_is_asked_is_said_in_the_environment_or_in_the_key() {
    let of = |pairs: &[(&str, &str)]| Known(&env(pairs)).google_base();
    assert_eq!(of(&[]), GOOGLE);
    assert_eq!(of(&[("GOOGLE_SERVICE_ACCOUNT_KEY", KEY)]), "http://127.0.0.1:4443");
    assert_eq!(of(&[("GOOGLE_SERVICE_ACCOUNT_KEY", "no key")]), GOOGLE);
    assert_eq!(of(&[("GOOGLE_BASE_URL", "https://mirror"), ("GOOGLE_SERVICE_ACCOUNT_KEY", KEY)]), "https://mirror");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), KEY).unwrap();
    assert_eq!(of(&[("GOOGLE_SERVICE_ACCOUNT", file.path().to_str().unwrap())]), "http://127.0.0.1:4443");
}

#[tokio::test]
async fn a_shared_access_signature_is_sent_as_it_is_and_a_key_signs() {
    let account = ("AZURE_STORAGE_ACCOUNT_NAME", "account");
    let address = async |given| {
        let store = open(&"az://c/p".parse().unwrap(), &env(&[account, given])).unwrap();
        store.address(&Path::parse("p/100% ü#1").unwrap(), Duration::from_hours(1)).await.unwrap()
    };
    let shared = address(("AZURE_STORAGE_SAS_TOKEN", "sv=2021-06-08&sp=r&sig=a%2Bb")).await;
    let place = "https://account.blob.core.windows.net/c/p/100%25%20%C3%BC%231";
    assert_eq!(shared.url.as_str(), format!("{place}?sv=2021-06-08&sp=r&sig=a%2Bb"));
    let signed = address(("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")).await;
    assert!(
        signed.url.as_str().starts_with(&format!("{place}?")) && signed.url.query().unwrap().contains("sig="),
        "{}",
        signed.url
    );
    assert!(shared.headers.is_empty() && signed.headers.is_empty());
}

#[tokio::test]
async fn google_is_asked_with_a_token_that_does_not_show() {
    let store = open(&"gs://b/p".parse().unwrap(), &env(&[("GOOGLE_BEARER_TOKEN", "a-token")])).unwrap();
    let address = store.address(&Path::parse("p/100% ü#1").unwrap(), Duration::from_hours(1)).await.unwrap();
    assert_eq!(address.url.as_str(), "https://storage.googleapis.com/b/p/100%25%20%C3%BC%231");
    assert_eq!(address.headers["authorization"], "Bearer a-token");
    assert!(!format!("{:?}", address.headers).contains("a-token"));
}
