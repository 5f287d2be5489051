//! The REST interface over real sockets: every way to be refused, and what protects writes.

mod common;

use common::{Running, code, create_endpoint, create_network, endpoint, name, network};
use sunwire_api::client::Guard;
use sunwire_api::{EndpointPatch, Name, Problem, ProblemCode};
use ureq::http::{Request, Response};

/// Sends a request as it is.
fn send(base: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build()
        .into();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{base}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response: Response<ureq::Body> = if body.is_empty() {
        agent.run(request.body(()).unwrap()).unwrap()
    } else {
        agent.run(request.body(body).unwrap()).unwrap()
    };
    let (parts, mut body) = response.into_parts();
    let header = |name| {
        let value = parts.headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    Answer {
        status: parts.status.as_u16(),
        media_type: header("content-type").unwrap_or_default(),
        etag: header("etag"),
        location: header("location"),
        allow: header("allow"),
        body: body.read_to_vec().unwrap(),
    }
}

struct Answer {
    status: u16,
    media_type: String,
    etag: Option<String>,
    location: Option<String>,
    allow: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    /// The code of a problem that is one by the letter of RFC 9457.
    fn code(&self) -> ProblemCode {
        assert_eq!(self.media_type, "application/problem+json");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        assert_eq!(problem.code.status(), self.status);
        assert_eq!(
            problem.kind,
            format!("urn:sunwire:problem:{}", problem.code)
        );
        assert!(!problem.title.is_empty() && !problem.detail.is_empty());
        problem.code
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// Runs a blocking test against a controller with the nodes `aws1` and `gcp1`.
async fn with_controller(test: impl FnOnce(&str, &sunwire_api::client::Client) + Send + 'static) {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (aws, _) = running.agent("aws1", 1).await;
    let (gcp, _) = running.agent("gcp1", 2).await;
    let base = running.rest.clone();
    running.call(move |client| test(&base, client)).await;
    drop((aws, gcp));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_route_method_or_name_is_a_problem() {
    with_controller(|base, client| {
        let get = |path: &str| send(base, "GET", path, &[], b"");
        assert_eq!(get("/").code(), ProblemCode::RouteNotFound);
        assert_eq!(get("/v1/clouds").code(), ProblemCode::RouteNotFound);
        let put = send(base, "PUT", "/v1/networks", &[JSON], b"{}");
        assert_eq!(put.code(), ProblemCode::MethodNotAllowed);
        let allow = put.allow.unwrap();
        assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
        for (path, expected) in [
            ("/v1/nodes/x", ProblemCode::NodeNotFound),
            ("/v1/networks/x", ProblemCode::NetworkNotFound),
            ("/v1/networks/X_Y", ProblemCode::NetworkNotFound),
            ("/v1/networks/%ff", ProblemCode::NetworkNotFound),
            ("/v1/endpoints/x", ProblemCode::EndpointNotFound),
            ("/v1/policies/x", ProblemCode::PolicyNotFound),
            ("/v1/policies/x/text", ProblemCode::PolicyNotFound),
            ("/v1/policies/x/history", ProblemCode::PolicyNotFound),
        ] {
            assert_eq!(get(path).code(), expected, "{path}");
        }
        for path in [
            "/v1/nodes?limit=0",
            "/v1/nodes?limit=x",
            "/v1/nodes?page_token=x",
            "/v1/nodes?pagetoken=x",
            "/v1/status?timeout_ms=300001",
            "/v1/endpoints/x?wait_state=asleep",
        ] {
            assert_eq!(get(path).code(), ProblemCode::InvalidQuery, "{path}");
        }
        let any = Guard::Any;
        let gone = client.delete_network(&name("x"), any);
        assert_eq!(code(gone), ProblemCode::NetworkNotFound);
        let gone = client.delete_endpoint(&name("x"), any);
        assert_eq!(code(gone), ProblemCode::EndpointNotFound);
        let gone = client.delete_policy(&name("x"), any);
        assert_eq!(code(gone), ProblemCode::PolicyNotFound);
        let gone = client.rollback_policy(&name("x"), None, any);
        assert_eq!(code(gone), ProblemCode::PolicyNotFound);
        let gone = client.move_endpoint(&name("x"), &name("aws1"), any);
        assert_eq!(code(gone), ProblemCode::EndpointNotFound);
        let gone = client.abort_move(&name("x"), any);
        assert_eq!(code(gone), ProblemCode::EndpointNotFound);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_wrong_is_a_problem_that_says_how() {
    with_controller(|base, _| {
        let post = |headers: &[(&str, &str)], body: &[u8]| {
            send(base, "POST", "/v1/networks", headers, body)
        };
        let good = br#"{"name": "shop", "subnets": ["10.20.0.0/16"]}"#;
        let media = ProblemCode::UnsupportedMediaType;
        assert_eq!(post(&[], good).code(), media);
        assert_eq!(post(&[("content-type", "text/plain")], good).code(), media);
        for malformed in [&b"{"[..], b"{\"name\": shop}", b"nothing", b"\xff"] {
            assert_eq!(post(&[JSON], malformed).code(), ProblemCode::MalformedJson);
        }
        for wrong in [
            r#"{}"#,
            r#"[]"#,
            r#"{"name": "Shop", "subnets": ["10.20.0.0/16"]}"#,
            r#"{"name": "shop", "subnets": ["10.20.0.1/16"]}"#,
            r#"{"name": "shop", "subnets": ["10.20.0.0/16"], "vni": 0}"#,
            r#"{"name": "shop", "subnets": ["10.20.0.0/16"], "subnet": 1}"#,
        ] {
            let answer = post(&[JSON], wrong.as_bytes());
            assert_eq!(answer.code(), ProblemCode::InvalidBody, "{wrong}");
        }
        let huge = vec![b' '; (4 << 20) + 1];
        assert_eq!(post(&[JSON], &huge).code(), ProblemCode::BodyTooLarge);
        let header = ProblemCode::InvalidHeader;
        for (field, value) in [
            ("if-match", "17"),
            ("if-match", "\"17\", \"18\""),
            ("if-none-match", "\"17\""),
            ("idempotency-key", ""),
        ] {
            let answer = post(&[JSON, (field, value)], good);
            assert_eq!(answer.code(), header, "{field}: {value}");
        }
        let both = [JSON, ("if-match", "*"), ("if-none-match", "*")];
        assert_eq!(post(&both, good).code(), header);
        let with_body = send(
            base,
            "DELETE",
            "/v1/networks/shop",
            &[JSON, ("if-match", "*")],
            b"{}",
        );
        assert_eq!(with_body.code(), ProblemCode::InvalidBody);

        let charset = ("content-type", "application/json; charset=utf-8");
        let created = post(&[charset], good);
        assert_eq!(created.status, 201);
        assert_eq!(created.location.as_deref(), Some("/v1/networks/shop"));
        assert_eq!(created.etag.as_deref(), Some("\"3\""));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_cannot_be_is_refused_with_its_reason() {
    with_controller(|_, client| {
        let refused = |change: &dyn Fn(&mut sunwire_api::NetworkCreate)| {
            let mut body = network("lab");
            change(&mut body);
            code(client.create_network(&body, Guard::None))
        };
        let subnets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let shop = create_network(client, "shop");
        assert_eq!(shop.spec.vni.get(), 1);
        assert_eq!(shop.status.gateways.len(), 2);
        assert_eq!(shop.status.gateway_mac.to_string(), "02:53:57:00:00:01");
        assert_eq!(
            refused(&|body| body.name = name("shop")),
            ProblemCode::NameTaken
        );
        assert_eq!(
            refused(&|body| body.vni = Some(shop.spec.vni)),
            ProblemCode::VniTaken
        );
        assert_eq!(
            refused(&|body| body.subnets = subnets(&["10.0.0.0/8", "10.20.0.0/16"])),
            ProblemCode::SubnetOverlap
        );
        assert_eq!(
            refused(&|body| body.subnets = subnets(&["127.0.0.0/16"])),
            ProblemCode::SubnetInvalid
        );
        assert_eq!(
            refused(&|body| body.mtu = Some(1279)),
            ProblemCode::MtuInvalid
        );
        // Networks are tenants: their subnets may overlap.
        let lab = create_network(client, "lab");
        assert_eq!(lab.spec.subnets, shop.spec.subnets);
        assert_eq!(lab.spec.vni.get(), 2);
        create_endpoint(client, "web1", "lab", "aws1");
        let used = client.delete_network(&name("lab"), Guard::Any);
        assert_eq!(code(used), ProblemCode::NetworkInUse);
        client.delete_network(&name("shop"), Guard::Any).unwrap();
        let again = create_network(client, "shop");
        assert_eq!(again.spec.vni.get(), 3, "a VNI is not chosen again soon");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_cannot_be_is_refused_with_its_reason() {
    with_controller(|_, client| {
        create_network(client, "shop");
        let web1 = create_endpoint(client, "web1", "shop", "aws1");
        let refused = |change: &dyn Fn(&mut sunwire_api::EndpointCreate)| {
            let mut body = endpoint("web2", "shop", "aws1");
            change(&mut body);
            code(client.create_endpoint(&body, Guard::None))
        };
        let addresses =
            |texts: &[&str]| Some(texts.iter().map(|text| text.parse().unwrap()).collect());
        assert_eq!(
            refused(&|body| body.name = name("web1")),
            ProblemCode::NameTaken
        );
        assert_eq!(
            refused(&|body| body.network = name("lab")),
            ProblemCode::UnknownNetwork
        );
        assert_eq!(
            refused(&|body| body.node = name("azure1")),
            ProblemCode::UnknownNode
        );
        assert_eq!(
            refused(&|body| body.device = Some(web1.spec.device.clone())),
            ProblemCode::DeviceTaken
        );
        assert_eq!(
            refused(&|body| body.addresses = Some(web1.spec.addresses.clone())),
            ProblemCode::AddressTaken
        );
        for wrong in [
            &["10.21.0.5"][..],
            &["10.20.0.0"],
            &["10.20.0.1"],
            &["10.20.255.255"],
            &["fd00:20::1"],
            &["10.20.0.5", "10.20.0.6"],
            &[],
        ] {
            assert_eq!(
                refused(&|body| body.addresses = addresses(wrong)),
                ProblemCode::AddressInvalid,
                "{wrong:?}"
            );
        }
        assert_eq!(
            refused(&|body| body.mac = Some(web1.spec.mac)),
            ProblemCode::MacTaken
        );
        assert_eq!(
            refused(&|body| body.mac = Some("02:53:57:00:00:01".parse().unwrap())),
            ProblemCode::MacInvalid
        );
        assert_eq!(
            refused(&|body| {
                body.labels.insert("not a key".into(), "x".into());
            }),
            ProblemCode::LabelInvalid
        );
        let mut small = network("small");
        small.subnets = vec!["10.0.0.0/30".parse().unwrap()];
        client.create_network(&small, Guard::None).unwrap();
        create_endpoint(client, "only", "small", "aws1");
        assert_eq!(
            refused(&|body| body.network = name("small")),
            ProblemCode::AddressesExhausted
        );
        // A device is taken on one node only; moving there meets it.
        let mut twin = endpoint("web2", "shop", "gcp1");
        twin.device = Some(web1.spec.device.clone());
        client.create_endpoint(&twin, Guard::None).unwrap();
        let moved = client.move_endpoint(&name("web1"), &name("gcp1"), Guard::Any);
        assert_eq!(code(moved), ProblemCode::DeviceTaken);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_what_exists_needs_its_etag_and_a_stale_one_changes_nothing() {
    with_controller(|base, client| {
        create_network(client, "shop");
        let web1 = create_endpoint(client, "web1", "shop", "aws1");
        let patch = |value: &str| EndpointPatch {
            labels: [("role".to_owned(), Some(value.to_owned()))].into(),
        };
        let unguarded = client.patch_endpoint(&web1.name, &patch("web"), Guard::None);
        assert_eq!(code(unguarded), ProblemCode::PreconditionRequired);
        for unguarded in [
            client.delete_endpoint(&web1.name, Guard::None),
            client.delete_network(&name("shop"), Guard::None),
        ] {
            assert_eq!(code(unguarded), ProblemCode::PreconditionRequired);
        }
        let unguarded = client.move_endpoint(&web1.name, &name("gcp1"), Guard::None);
        assert_eq!(code(unguarded), ProblemCode::PreconditionRequired);

        let first = Guard::Revision(web1.revision);
        let changed = client
            .patch_endpoint(&web1.name, &patch("web"), first)
            .unwrap();
        assert!(changed.revision > web1.revision);
        assert_eq!(changed.spec.labels["role"], "web");
        let stale = client.patch_endpoint(&web1.name, &patch("db"), first);
        assert_eq!(code(stale), ProblemCode::StaleRevision);
        let stale = client.delete_endpoint(&web1.name, first);
        assert_eq!(code(stale), ProblemCode::StaleRevision);
        assert_eq!(client.endpoint(&web1.name).unwrap(), changed);

        let shown = send(base, "GET", "/v1/endpoints/web1", &[], b"");
        let etag = shown.etag.unwrap();
        assert_eq!(etag, format!("\"{}\"", changed.revision));
        let cleared = send(
            base,
            "PATCH",
            "/v1/endpoints/web1",
            &[
                ("content-type", "application/merge-patch+json"),
                ("if-match", &etag),
            ],
            br#"{"labels": {"role": null}}"#,
        );
        assert_eq!(cleared.status, 200);
        assert!(client.endpoint(&web1.name).unwrap().spec.labels.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_with_the_same_key_is_made_once() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (_aws, _) = running.agent("aws1", 1).await;
    let (_gcp, _) = running.agent("gcp1", 2).await;
    let first = running
        .call(|client| {
            create_network(client, "shop");
            let key = Guard::Key("create-web1");
            let body = endpoint("web1", "shop", "aws1");
            let first = client.create_endpoint(&body, key).unwrap();
            assert_eq!(client.create_endpoint(&body, key).unwrap(), first);
            let other = client.create_endpoint(&endpoint("web2", "shop", "aws1"), key);
            assert_eq!(code(other), ProblemCode::IdempotencyKeyReused);
            let without = client.create_endpoint(&body, Guard::None);
            assert_eq!(code(without), ProblemCode::NameTaken);

            let key = Guard::Key("move-web1");
            let moving = client
                .move_endpoint(&first.name, &name("gcp1"), key)
                .unwrap();
            let again = client
                .move_endpoint(&first.name, &name("gcp1"), key)
                .unwrap();
            assert_eq!(moving, again);
            again
        })
        .await;
    running.stop().await;
    // The keys are part of what is agreed: a restart does not forget them.
    let running = Running::start(data.path()).await;
    running
        .call(move |client| {
            let key = Guard::Key("create-web1");
            let body = endpoint("web1", "shop", "aws1");
            assert_eq!(client.create_endpoint(&body, key).unwrap(), first);
            let key = Guard::Key("delete-web1");
            let deleted = client.delete_endpoint(&first.name, key).unwrap();
            assert_eq!(client.delete_endpoint(&first.name, key).unwrap(), deleted);
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_paged_by_tokens() {
    with_controller(|base, client| {
        for index in 0..5 {
            create_network(client, &format!("net{index}"));
        }
        let mut seen: Vec<Name> = Vec::new();
        let mut path = "/v1/networks?limit=2".to_owned();
        loop {
            let answer = send(base, "GET", &path, &[], b"");
            let page: sunwire_api::Page<sunwire_api::Network> =
                serde_json::from_slice(&answer.body).unwrap();
            assert!(page.items.len() <= 2);
            seen.extend(page.items.into_iter().map(|item| item.name));
            match page.next_page_token {
                Some(token) => path = format!("/v1/networks?limit=2&page_token={token}"),
                None => break,
            }
        }
        let all: Vec<Name> = client
            .networks()
            .unwrap()
            .into_iter()
            .map(|n| n.name)
            .collect();
        assert_eq!(seen, all);
        assert_eq!(seen.len(), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_lists_every_route_and_no_other() {
    with_controller(|base, _| {
        let answer = send(base, "GET", "/v1/openapi.json", &[], b"");
        let description: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
        let paths = description["paths"].as_object().unwrap();
        assert!(paths.len() >= 15);
        for (path, operations) in paths {
            let concrete = path.replace("{name}", "x");
            let nothing = send(base, "OPTIONS", &concrete, &[], b"");
            assert_eq!(nothing.code(), ProblemCode::MethodNotAllowed, "{path}");
            let mut allowed: Vec<String> = nothing
                .allow
                .unwrap()
                .split(',')
                .map(|method| method.trim().to_ascii_lowercase())
                .filter(|method| method != "head")
                .collect();
            let mut described: Vec<String> =
                operations.as_object().unwrap().keys().cloned().collect();
            allowed.sort();
            described.sort();
            assert_eq!(allowed, described, "{path}");
        }
        let text = String::from_utf8(answer.body).unwrap();
        for schema in ["Problem", "ProblemCode", "EndpointCreate", "MoveRequest"] {
            assert!(text.contains(schema), "{schema}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_time_it_was_given() {
    with_controller(|_, client| {
        let zero = std::time::Duration::ZERO;
        let status = client.wait_revision(u64::MAX, zero).unwrap();
        assert!(status.timed_out);
        create_network(client, "shop");
        let web1 = create_endpoint(client, "web1", "shop", "aws1");
        let state = sunwire_api::EndpointState::Attached;
        let waited = client.wait_endpoint(&web1.name, state, zero).unwrap();
        assert_eq!(waited.status.state, sunwire_api::EndpointState::Pending);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_put_and_got_as_plain_text_byte_for_byte() {
    with_controller(|base, client| {
        create_network(client, "shop");
        let plain = ("content-type", "text/plain; charset=utf-8");
        let path = "/v1/policies/shop";
        let put = |headers: &[(&str, &str)], text: &[u8]| send(base, "PUT", path, headers, text);
        let first = "network shop\r\npolicy main = forward -- \u{e4}\t\n\n".as_bytes();
        let second = b"network shop\npolicy main = drop";
        let created = put(&[plain, ("if-none-match", "*")], first);
        assert_eq!(created.status, 201);
        assert_eq!(created.location.as_deref(), Some(path));
        let again = put(&[plain, ("if-none-match", "*")], first);
        assert_eq!(again.code(), ProblemCode::StaleRevision);
        let replaced = put(&[plain, ("if-match", &created.etag.unwrap())], second);
        assert_eq!(replaced.status, 200);
        let text = || send(base, "GET", "/v1/policies/shop/text", &[], b"");
        assert_eq!(text().body, second);
        let rollback = send(
            base,
            "POST",
            "/v1/policies/shop/rollback",
            &[("if-match", "*")],
            b"",
        );
        assert_eq!(rollback.status, 200);
        let back = text();
        assert_eq!(back.body, first);
        assert_eq!(back.media_type, "text/plain; charset=utf-8");
        assert_eq!(back.etag, rollback.etag);

        assert_eq!(
            put(&[plain, ("if-match", "*")], b"\xff").code(),
            ProblemCode::InvalidBody
        );
        assert_eq!(
            put(&[("content-type", "text/html"), ("if-match", "*")], first).code(),
            ProblemCode::UnsupportedMediaType
        );
        let deep = format!("network shop\npolicy main = {}drop", "(".repeat(1 << 20));
        let checked = send(
            base,
            "POST",
            "/v1/policies/check",
            &[plain],
            deep.as_bytes(),
        );
        assert_eq!(checked.code(), ProblemCode::PolicyInvalid);
        let named = send(base, "PUT", "/v1/policies/check", &[plain], first);
        assert_eq!(named.code(), ProblemCode::MethodNotAllowed);
    })
    .await;
}

#[test]
fn the_guide_explains_every_route_and_every_code() {
    let guide = include_str!("../../docs/user-guide/api.md");
    for code in ProblemCode::ALL {
        let row = format!("| `{code}` | {} |", code.status());
        assert!(guide.contains(&row), "{row}");
    }
    for path in [
        "/v1/nodes",
        "/v1/nodes/aws1",
        "/v1/networks",
        "/v1/networks/shop",
        "/v1/endpoints",
        "/v1/endpoints/web1",
        "/v1/endpoints/web1/move",
        "/v1/endpoints/web1/move/abort",
        "/v1/policies",
        "/v1/policies/check",
        "/v1/policies/shop",
        "/v1/policies/shop/text",
        "/v1/policies/shop/history",
        "/v1/policies/shop/rollback",
        "/v1/status",
        "/v1/counters",
        "/v1/openapi.json",
    ] {
        assert!(guide.contains(path), "{path}");
    }
}
