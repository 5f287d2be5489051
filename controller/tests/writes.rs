//! The REST interface over real sockets: what protects writes, pages, and what describes it all.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::http::{send, with_controller};
use common::{Running, code, create_endpoint, create_network, endpoint, name};
use sunwire_api::client::Guard;
use sunwire_api::{EndpointPatch, Name, NetworkEncryption, ProblemCode};

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
async fn a_network_says_whether_it_is_encrypted_and_nothing_else_by_that_name() {
    with_controller(|base, client| {
        let shop = create_network(client, "shop");
        assert_eq!(shop.spec.encryption, NetworkEncryption::Default);
        let patch = |body: &[u8]| {
            let headers = [
                ("content-type", "application/merge-patch+json"),
                ("if-match", "*"),
            ];
            send(base, "PATCH", "/v1/networks/shop", &headers, body)
        };
        for (text, encryption) in [
            (&br#"{"encryption": "never"}"#[..], NetworkEncryption::Never),
            (
                br#"{"encryption": "required"}"#,
                NetworkEncryption::Required,
            ),
            (br#"{"encryption": null}"#, NetworkEncryption::Required),
            (br#"{"encryption": "default"}"#, NetworkEncryption::Default),
        ] {
            assert_eq!(patch(text).status, 200);
            let shown = client.network(&name("shop")).unwrap();
            assert_eq!(shown.spec.encryption, encryption);
        }
        for wrong in [&br#"{"encryption": "off"}"#[..], br#"{"encrypted": true}"#] {
            let refused = patch(wrong);
            assert_eq!(refused.code(), ProblemCode::InvalidBody);
            let detail = String::from_utf8(refused.body).unwrap();
            assert!(
                detail.contains("encrypt") || detail.contains("never"),
                "{detail}"
            );
        }
        let shown = client.network(&name("shop")).unwrap();
        assert_eq!(shown.spec.encryption, NetworkEncryption::Default);
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
            let concrete = path.replace("{name}", "x").replace("{revision}", "1");
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
        "/v1/policies/shop/apply",
        "/v1/policies/shop/check",
        "/v1/policies/shop/explain",
        "/v1/policies/shop/plan",
        "/v1/policies/shop/verify",
        "/v1/policies/shop/confirm",
        "/v1/policies/shop/history",
        "/v1/policies/shop/history/17",
        "/v1/policies/shop/rollback",
        "/v1/policies/shop/stage",
        "/v1/status",
        "/v1/counters",
        "/v1/flows",
        "/v1/capture",
        "/v1/trace",
        "/v1/openapi.json",
    ] {
        assert!(guide.contains(path), "{path}");
    }
}
