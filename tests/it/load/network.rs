//! Ways to a hub: through a proxy, and behind a certificate that only this site trusts.

use std::io::{BufRead as _, BufReader};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use substratus_tests::engine;

use super::*;

/// A proxy for plain HTTP. It knows a name that nobody else does, and keeps what it was asked for.
#[derive(Clone)]
struct Proxy {
    hub: String,
    client: reqwest::Client,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(bench: &Bench) -> (Self, String) {
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let proxy = Self { hub: bench.hub.url.clone(), client, seen: Arc::default() };
        let app = Router::new().fallback(forward).with_state(proxy.clone());
        let listener = bench.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        bench.runtime.spawn(async move { axum::serve(listener, app).await });
        (proxy, address)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    let url = request.uri().to_string();
    proxy.seen.lock().unwrap().push(url.clone());
    let to = url.replacen("http://hub.invalid", &proxy.hub, 1);
    let mut headers = request.headers().clone();
    headers.remove("host");
    match proxy.client.request(request.method().clone(), to).headers(headers).send().await {
        Ok(answer) => {
            let mut response = Response::builder().status(answer.status());
            response.headers_mut().unwrap().extend(answer.headers().clone());
            response.body(Body::from_stream(answer.bytes_stream())).unwrap()
        }
        Err(error) => (http::StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// A load from `endpoint`, of a hub that nothing else is said of.
fn load(bench: &Bench, endpoint: &str, env: &[(&str, &str)], args: &[&str]) -> Loaded {
    let mut command = bench.bare_command("load", "hf://acme/tiny");
    bench.to_folder(&mut command);
    command.args(["-o", "json"]);
    command.env("HF_ENDPOINT", endpoint).args(["--grant", &bench.hub.cdn_url]).args(args).envs(env.iter().copied());
    Loaded::of(command.output().unwrap())
}

#[test]
fn a_proxy_is_gone_through_and_knows_names_that_we_do_not() {
    let bench = Bench::with_weights(4 * MIB);
    let (proxy, address) = Proxy::start(&bench);
    load(&bench, "http://hub.invalid", &[("http_proxy", &address)], &[]).assert_complete();
    bench.assert_weights();
    let seen = proxy.seen();
    assert!(seen.iter().any(|url| url.starts_with("http://hub.invalid/api/models/acme/tiny")), "{seen:?}");
    assert!(seen.iter().any(|url| url.starts_with(&bench.hub.cdn_url)), "{seen:?}");
}

#[test]
fn what_is_excepted_goes_straight_and_what_is_not_granted_goes_nowhere() {
    let bench = Bench::with_weights(MIB);
    let (proxy, address) = Proxy::start(&bench);
    load(&bench, &bench.hub.url, &[("HTTP_PROXY", &address), ("NO_PROXY", "127.0.0.0/8")], &[]).assert_complete();
    assert_eq!(proxy.seen(), [""; 0]);
    // A proxy opens no host that was not granted, and no address: the hub's large files lie where nobody allowed.
    let mut command = bench.bare_command("load", "hf://acme/tiny");
    command.args(["-o", "json"]).arg("--to").arg(bench.folder.path().join("other"));
    command.env("HF_ENDPOINT", "http://hub.invalid").env("ALL_PROXY", &address);
    let weights = Loaded::of(command.output().unwrap());
    weights.assert_failed("PluginDenied", true, &[&bench.hub.cdn_url, "grant"]);
    assert!(proxy.seen().iter().all(|url| url.starts_with("http://hub.invalid")), "{:?}", proxy.seen());
    let broken = load(&bench, "http://hub.invalid", &[("HTTP_PROXY", "socks5://u:hf_it_secret@x")], &["--param", "again=1"]);
    broken.assert_failed("Invalid", true, &["HTTP_PROXY", "http://host:port"]);
}

/// Puts TLS before a plain server: prints its port, and serves until it is killed.
const TLS_FRONT: &str = r#"
import socket, ssl, sys, threading
certificate, key, host, port = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def pour(source, sink):
    try:
        while chunk := source.recv(65536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
def serve(plain):
    try:
        client = context.wrap_socket(plain, server_side=True)
    except OSError:
        return
    server = socket.create_connection((host, int(port)))
    threading.Thread(target=pour, args=(client, server), daemon=True).start()
    pour(server, client)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

#[test]
fn a_certificate_of_this_site_is_trusted_where_its_file_is_named() {
    let bench = Bench::with_weights(MIB);
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let file = |name: &str, text: &str| {
        let path = bench.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate, key) = (file("ca.pem", &made.cert.pem()), file("key.pem", &made.signing_key.serialize_pem()));
    let hub = url::Url::parse(&bench.hub.url).unwrap();
    let mut front = Command::new(engine::python(&engine::cache().unwrap()).unwrap());
    front.args(["-c", TLS_FRONT, &certificate, &key, hub.host_str().unwrap(), &hub.port().unwrap().to_string()]);
    let mut front = front.stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(front.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let endpoint = format!("https://127.0.0.1:{}", port.trim());
    let unknown = load(&bench, &endpoint, &[], &[]);
    let by_flag = load(&bench, &endpoint, &[], &["--ca-file", &certificate]);
    let replaced = load(&bench, &endpoint, &[("SSL_CERT_FILE", &certificate)], &["--param", "again=1"]);
    front.kill().unwrap();
    front.wait().unwrap();
    unknown.assert_failed("Unavailable", false, &["certificate"]);
    by_flag.assert_complete();
    replaced.assert_complete();
    bench.assert_weights();
}
