//! The REST interface over real sockets: every way to be refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::http::{JSON, send, with_controller};
use common::{code, create_endpoint, create_network, endpoint, name, network};
use sunwire_api::ProblemCode;
use sunwire_api::client::Guard;

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
        // No port, and one on which nodes receive encrypted packets, and the ninth beside the usual one.
        let port = |number| refused(&|body| body.vxlan_port = Some(number));
        assert_eq!(port(0), ProblemCode::VxlanPortInvalid);
        for taken in [51820, 51821] {
            assert_eq!(port(taken), ProblemCode::VxlanPortInvalid, "{taken}");
        }
        for number in 0..8 {
            let mut body = network(&format!("port{number}"));
            body.vxlan_port = Some(9000 + number);
            let made = client.create_network(&body, Guard::None).unwrap();
            assert_eq!(made.spec.vxlan_port, 9000 + number);
        }
        assert_eq!(port(9008), ProblemCode::VxlanPortInvalid);
        for number in 0..8 {
            let made = name(&format!("port{number}"));
            client.delete_network(&made, Guard::Any).unwrap();
        }
        assert_eq!(shop.spec.vxlan_port, 4789);
        // Networks are tenants: their subnets may overlap.
        let lab = create_network(client, "lab");
        assert_eq!(lab.spec.subnets, shop.spec.subnets);
        assert_eq!(lab.spec.vni.get(), 10);
        create_endpoint(client, "web1", "lab", "aws1");
        let used = client.delete_network(&name("lab"), Guard::Any);
        assert_eq!(code(used), ProblemCode::NetworkInUse);
        client.delete_network(&name("shop"), Guard::Any).unwrap();
        let again = create_network(client, "shop");
        assert_eq!(again.spec.vni.get(), 11, "a VNI is not chosen again soon");
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
